"""A deterministic peer of LDSeg on the backbone of its image encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.flexible_unet import UNetDecoder
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.ldseg.efficientnet_encoder import CHANNELS, EfficientNetLite0
from ldseg_monai.runtime.errors import InputError

MULTIPLE = 32  # of a side, so that every size within is even


class EfficientNetUNet(nn.Module):
    """MONAI's U-Net decoder on `EfficientNetLite0`, which sees the picture at half its size.

    Args:
        spatial_dims: 2.
        in_channels: 3.
        out_channels: classes, background included.
        decoder_channels: channels of each level of the decoder, from the smallest to the largest.
        norm: normalization of the decoder, as MONAI writes it.

    Raises:
        ValueError: for other images than color pictures.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        decoder_channels: Sequence[int] = (128, 64, 32, 32),
        norm: tuple | str = ("group", {"num_groups": 8}),
    ) -> None:
        super().__init__()
        if (spatial_dims, in_channels) != (2, 3):
            raise InputError(
                f"spatial_dims {spatial_dims} and in_channels {in_channels}: expected 2 and 3"
            )
        self.backbone = EfficientNetLite0()
        self.decoder = UNetDecoder(
            spatial_dims=2,
            encoder_channels=(3, *CHANNELS),
            decoder_channels=decoder_channels,
            act="relu",
            norm=norm,
            dropout=0.0,
            bias=False,
            upsample="nontrainable",
            pre_conv=None,
            interp_mode="bilinear",
            align_corners=None,
            is_pad=False,
        )
        self.to_logits = nn.Conv2d(decoder_channels[-1], out_channels, kernel_size=3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map pictures of -1 to 1, ``(B, 3, H, W)``, to logits ``(B, out_channels, H, W)``."""
        rows, columns = image.shape[2:]
        image = functional.pad(
            image, [0, -columns % MULTIPLE, 0, -rows % MULTIPLE], mode="replicate"
        )
        image = functional.avg_pool2d(image, kernel_size=2)
        features = [image, *self.backbone(image)]
        logits = self.to_logits(self.decoder(features, skip_connect=len(CHANNELS) - 1))
        logits = functional.interpolate(logits, scale_factor=2.0, mode="bilinear")
        return logits[:, :, :rows, :columns]
