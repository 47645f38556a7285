"""The image encoder of cDAL for pictures, which can start from ImageNet's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ldseg_monai.networks.peers import EfficientNetUNet


class EfficientNetFeatures(nn.Module):
    """Picture to features of its own size, by a U-Net on the first blocks of EfficientNet-Lite0.

    They stand for the light image encoder of Hejrati et al. (2024), Section 2.3, which starts from
    random weights.

    Args:
        in_channels: 3, or 1 of gray pictures.
        out_channels: channels of the features.
        decoder_channels, reduction: as of `EfficientNetUNet`.

    Raises:
        ValueError: for other pictures than gray or color ones, or another reduction.
    """

    spatial_dims = 2
    stride = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        decoder_channels: Sequence[int] = (96, 48, 24, 8),
        reduction: int = 1,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.unet = EfficientNetUNet(
            2, in_channels, out_channels, decoder_channels, reduction=reduction
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map pictures of -1 to 1, ``(B, in_channels, H, W)``, to features, and an empty list.

        Returns:
            The features, ``(B, out_channels, H, W)``, and a list that cDAL does not use.
        """
        others: list[torch.Tensor] = []
        return self.unet(image), others
