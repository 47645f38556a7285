"""f_image-enc of Eq. 9."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ldseg_monai.networks.blocks import Downsampling, ResidualEncoder
from ldseg_monai.networks.ldseg.efficientnet_encoder import EfficientNetEncoder


class ImageEncoder(nn.Module):
    """Image to an embedding on the grid of the label latent (Zaman et al., 2024, Eq. 9 and Section IV-B).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        embedding_channels: channels of the embedding (1 in the paper).
        channels, stem_stride, num_res_blocks, attention_levels, num_head_channels, norm: see
            `ResidualEncoder`.
        learned: False for an image that is only down-sampled: see `Downsampling`.
        backbone: ``efficientnet_lite0`` for an `EfficientNetEncoder`, which can start from
            ImageNet's weights; None for the paper's.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        embedding_channels: int,
        channels: Sequence[int],
        stem_stride: int,
        num_res_blocks: int,
        attention_levels: Sequence[bool],
        num_head_channels: int,
        norm: tuple | str,
        learned: bool = True,
        backbone: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder: nn.Module
        if backbone is not None:
            self.encoder = EfficientNetEncoder(
                embedding_channels,
                channels[-1],
                num_res_blocks,
                attention_levels[-1],
                num_head_channels,
                norm,
            )
        elif learned:
            self.encoder = ResidualEncoder(
                spatial_dims,
                in_channels,
                embedding_channels,
                channels,
                stem_stride,
                num_res_blocks,
                attention_levels,
                num_head_channels,
                norm,
            )
        else:
            self.encoder = Downsampling(
                in_channels, embedding_channels, stem_stride * 2 ** (len(channels) - 1)
            )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``(B, in_channels, *spatial)`` to ``z_i`` and the features of each level: see `ResidualEncoder`."""
        return self.encoder(image)
