"""A residual U-Net whose every layer an embedding scales and shifts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import nn
from torch.nn import functional

from .attention import SelfAttention, attention_heads
from .encoder import check_spatial_dims
from .residual import ResidualBlock


class ConditionedLevel(nn.Module):
    """Residual blocks that an embedding scales and shifts, perhaps self-attention, at one size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_res_blocks: residual blocks.
        norm: normalization as MONAI writes it.
        embedding_channels: length of the embedding.
        num_head_channels: channels of one attention head; 0 for no attention.
        both_norms: as of `ResidualBlock`.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        num_res_blocks: int,
        norm: tuple | str,
        embedding_channels: int,
        num_head_channels: int = 0,
        both_norms: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(
                spatial_dims,
                out_channels if i else in_channels,
                out_channels,
                norm,
                embedding_channels,
                both_norms,
            )
            for i in range(num_res_blocks)
        )
        self.attention = (
            SelfAttention(out_channels, num_head_channels) if num_head_channels else nn.Identity()
        )

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``.

        Args:
            x: the feature map.
            embedding: ``(B, embedding_channels)``.
        """
        for block in self.blocks:
            x = block(x, embedding)
        return self.attention(x)


class ResidualUNet(nn.Module):
    """The levels of a U-Net for diffusion (Ho et al., 2020).

    A subclass adds a first and a last layer. Any size will do: the way up resizes to the skip
    connection it meets.

    Args:
        spatial_dims: 2 or 3.
        channels: channels of each level; every level after the first halves the size.
        num_res_blocks: residual blocks in each level, on the way down and on the way up.
        attention_levels: for each level, whether self-attention follows its blocks.
        num_head_channels: channels of one attention head.
        norm: normalization as MONAI writes it.
        embedding_channels: length of the embedding.
        both_norms: as of `ResidualBlock`.

    Raises:
        ValueError: for attention levels that do not fit the channels, or heads that do not divide
            them.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: Sequence[int],
        num_res_blocks: int,
        attention_levels: Sequence[bool],
        num_head_channels: int,
        norm: tuple | str,
        embedding_channels: int,
        both_norms: bool = False,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        head_channels = attention_heads(channels, attention_levels, num_head_channels)
        self.spatial_dims = spatial_dims
        shared = (num_res_blocks, norm, embedding_channels)
        conv = Conv[Conv.CONV, spatial_dims]
        self.down_levels = nn.ModuleList()
        self.downsamplings = nn.ModuleList()
        self.up_levels = nn.ModuleList()
        previous = channels[0]
        for index, width in enumerate(channels):
            downsampling = (
                conv(previous, previous, kernel_size=3, stride=2, padding=1)
                if index
                else nn.Identity()
            )
            self.downsamplings.append(downsampling)
            self.down_levels.append(
                ConditionedLevel(
                    spatial_dims, previous, width, *shared, head_channels[index], both_norms
                )
            )
            previous = width
        for index in reversed(range(len(channels) - 1)):
            width = channels[index]
            self.up_levels.append(
                ConditionedLevel(
                    spatial_dims,
                    previous + width,
                    width,
                    *shared,
                    head_channels[index],
                    both_norms,
                )
            )
            previous = width

    def through_levels(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels[0], *spatial)`` to the same shape.

        Args:
            x: the feature map.
            embedding: ``(B, embedding_channels)``.
        """
        skips: list[torch.Tensor] = []
        # TorchScript knows no strict.
        for downsampling, level in zip(self.downsamplings, self.down_levels):  # noqa: B905
            x = level(downsampling(x), embedding)
            skips.append(x)
        skips.pop()
        return self.up_from(x, skips, embedding)

    def up_from(
        self, x: torch.Tensor, skips: list[torch.Tensor], embedding: torch.Tensor
    ) -> torch.Tensor:
        """The way up: map the lowest level's features to those of the first.

        Args:
            x: ``(B, channels[-1], *lowest)``.
            skips: the levels' features on the way down but the lowest, from the largest on.
            embedding: as of `through_levels`.
        """
        for index, level in enumerate(self.up_levels):
            skip = skips[len(skips) - 1 - index]
            x = functional.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = level(torch.cat([x, skip], dim=1), embedding)
        return x
