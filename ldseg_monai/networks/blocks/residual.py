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
        both_norms: whether the embedding scales and shifts what both normalizations return, and not
            the second alone.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        norm: tuple | str,
        embedding_channels: int = 0,
        both_norms: bool = False,
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
        self.scale_and_shift_first = (
            nn.Linear(embedding_channels, 2 * in_channels)
            if embedding_channels and both_norms
            else None
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
        hidden = self.norm1(x)
        if self.scale_and_shift_first is not None:
            hidden = self._modulated(hidden, self.scale_and_shift_first(self._active(embedding)))
        hidden = self.norm2(self.conv1(self.activation(hidden)))
        if self.scale_and_shift is not None:
            hidden = self._modulated(hidden, self.scale_and_shift(self._active(embedding)))
        return self.shortcut(x) + self.conv2(self.activation(hidden))

    def _active(self, embedding: torch.Tensor | None) -> torch.Tensor:
        assert embedding is not None, (
            "this block was built with embedding_channels: pass the timestep embedding"
        )
        return self.activation(embedding)

    def _modulated(self, hidden: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
        """Scale and shift each channel of ``(B, C, *spatial)`` by ``(B, 2 * C)``."""
        # (B, 2 * C, 1, ..., 1)
        modulation = modulation.reshape(list(modulation.shape) + [1] * (hidden.ndim - 2))
        scale, shift = modulation.chunk(2, dim=1)
        return hidden * (1 + scale) + shift
