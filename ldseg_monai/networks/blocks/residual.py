"""The residual block of every network here, with or without a timestep."""

from __future__ import annotations

import torch
from monai.networks.layers import Conv
from torch import nn

from .normalization import normalization


class ResidualBlock(nn.Module):
    """Two normalized 3-wide convolutions beside a shortcut.

    The timestep, if there is one, scales and shifts them.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output; the shortcut is a 1-wide convolution where they
            differ.
        norm: normalization as MONAI writes it, such as ``("group", {"num_groups": 8})``.
        embedding_channels: length of the timestep embedding; 0 for a block without time.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        norm: tuple | str,
        embedding_channels: int = 0,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.norm1 = normalization(norm, spatial_dims, in_channels)
        self.conv1 = conv(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm2 = normalization(norm, spatial_dims, out_channels)
        self.conv2 = conv(out_channels, out_channels, kernel_size=3, padding=1)
        self.activation = nn.SiLU()
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else conv(in_channels, out_channels, kernel_size=1)
        )
        self.scale_and_shift = (
            nn.Linear(embedding_channels, 2 * out_channels) if embedding_channels else None
        )

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``.

        Args:
            x: the feature map.
            embedding: ``(B, embedding_channels)``, if the block has time.
        """
        hidden = self.conv1(self.activation(self.norm1(x)))
        hidden = self.norm2(hidden)
        if self.scale_and_shift is not None:
            assert embedding is not None, (
                "this block was built with embedding_channels: pass the timestep embedding"
            )
            modulation = self.scale_and_shift(self.activation(embedding))
            # (B, 2 * out_channels, 1, ..., 1)
            modulation = modulation.reshape(list(modulation.shape) + [1] * (x.ndim - 2))
            scale, shift = modulation.chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        return self.shortcut(x) + self.conv2(self.activation(hidden))
