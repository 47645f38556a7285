"""A deterministic peer on the backbone of the image encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.flexible_unet import UNetDecoder
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks.efficientnet import STRIDE, EfficientNetLite
from ldseg_monai.runtime.errors import InputError


class EfficientNetUNet(nn.Module):
    """MONAI's U-Net decoder on `EfficientNetLite`.

    Args:
        spatial_dims: 2.
        in_channels: 3, or 1 of gray pictures, whose channel the backbone sees three times.
        out_channels: classes, background included.
        decoder_channels: channels of each level of the decoder, from the smallest to the largest.
        norm: normalization of the decoder, as MONAI writes it.
        reduction: by how much the picture is made smaller for the network, whose logits are brought
            back to its size: 2 for objects that are many times larger than a pixel, or 1.
        dropout: probability that training sets a value of the decoder to 0, after each
            normalization.
        version: of EfficientNet-Lite: 0, or 1 and 2, which are larger.

    Raises:
        ValueError: for other images than gray or color pictures, or another reduction or version.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        decoder_channels: Sequence[int] = (128, 64, 32, 32),
        norm: tuple | str = ("group", {"num_groups": 8}),
        reduction: int = 2,
        dropout: float = 0.0,
        version: int = 0,
    ) -> None:
        super().__init__()
        if spatial_dims != 2 or in_channels not in (1, 3):
            raise InputError(
                f"spatial_dims {spatial_dims} and in_channels {in_channels}: expected 2, and 1 or 3"
            )
        if reduction not in (1, 2):
            raise InputError(f"reduction is {reduction}: expected 1 or 2")
        self.reduction = reduction
        self.multiple = STRIDE * reduction  # of a side, so that every size within is even
        self.backbone = EfficientNetLite(version)
        self.decoder = UNetDecoder(
            spatial_dims=2,
            encoder_channels=(3, *self.backbone.channels),
            decoder_channels=decoder_channels,
            act="relu",
            norm=norm,
            dropout=dropout,
            bias=False,
            upsample="nontrainable",
            pre_conv=None,
            interp_mode="bilinear",
            align_corners=None,
            is_pad=False,
        )
        self.to_logits = nn.Conv2d(decoder_channels[-1], out_channels, kernel_size=3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map pictures of -1 to 1, ``(B, in_channels, H, W)``, to logits of the same size."""
        rows, columns = image.shape[2], image.shape[3]
        multiple = self.multiple
        image = functional.pad(image, [0, -columns % multiple, 0, -rows % multiple], "replicate")
        image = functional.avg_pool2d(image, self.reduction).expand(-1, 3, -1, -1)
        features = [image] + self.backbone(image)
        logits = self.to_logits(self.decoder(features, len(features) - 2))
        if self.reduction > 1:
            scale = float(self.reduction)
            logits = functional.interpolate(logits, scale_factor=scale, mode="bilinear")
        return logits[:, :, :rows, :columns]
