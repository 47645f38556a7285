"""f_denoiser of Eq. 12."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv, get_norm_layer
from torch import nn
from torch.nn import functional

from .blocks import ResidualBlock, SelfAttention, TimestepEmbedding


class LatentDenoiser(nn.Module):
    """Residual U-Net on the noisy latent beside the image embedding (Zaman et al., 2024; Ho et al., 2020).

    Any latent size will do: the way up resizes to the skip connection it meets.

    Args:
        spatial_dims: 2 or 3.
        latent_channels: channels of the noisy latent and of the output.
        embedding_channels: channels of the image embedding.
        channels: channels of each level; every level after the first halves the latent.
        num_res_blocks: residual blocks in each level, on the way down and on the way up.
        attention_levels: for each level, whether self-attention follows its blocks.
        num_head_channels: channels of one attention head.
        norm: normalization as MONAI writes it.
    """

    def __init__(
        self,
        spatial_dims: int,
        latent_channels: int,
        embedding_channels: int,
        channels: Sequence[int],
        num_res_blocks: int,
        attention_levels: Sequence[bool],
        num_head_channels: int,
        norm: tuple | str,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        time_channels = 4 * channels[0]

        def level(previous: int, width: int, attends: bool) -> _Level:
            blocks = [
                ResidualBlock(spatial_dims, width if i else previous, width, norm, time_channels)
                for i in range(num_res_blocks)
            ]
            return _Level(blocks, SelfAttention(width, num_head_channels) if attends else nn.Identity())

        self.time_embedding = TimestepEmbedding(channels[0], time_channels)
        self.from_latent = conv(latent_channels + embedding_channels, channels[0], kernel_size=3, padding=1)
        self.down_levels, self.downsamplings = nn.ModuleList(), nn.ModuleList()
        previous = channels[0]
        for index, width in enumerate(channels):
            downsampling = conv(previous, previous, kernel_size=3, stride=2, padding=1) if index else nn.Identity()
            self.downsamplings.append(downsampling)
            self.down_levels.append(level(previous, width, attention_levels[index]))
            previous = width
        self.up_levels = nn.ModuleList()
        for index in reversed(range(len(channels) - 1)):
            self.up_levels.append(level(previous + channels[index], channels[index], attention_levels[index]))
            previous = channels[index]
        self.to_latent = nn.Sequential(
            get_norm_layer(norm, spatial_dims, previous),
            nn.SiLU(),
            conv(previous, latent_channels, kernel_size=3, padding=1),
        )

    def forward(self, noisy_latent: torch.Tensor, embedding: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Predict noise, clean latent or velocity, as trained.

        Args:
            noisy_latent: ``z_l(t)``, ``(B, latent_channels, *latent)``.
            embedding: ``z_i``, ``(B, embedding_channels, *latent)``.
            timesteps: ``(B,)`` integers from 0 to T - 1; index ``t - 1`` of the paper's ``t``.

        Returns:
            The prediction, ``(B, latent_channels, *latent)``.
        """
        time = self.time_embedding(timesteps)
        hidden = self.from_latent(torch.cat([noisy_latent, embedding], dim=1))
        skips: list[torch.Tensor] = []
        for downsampling, level in zip(self.downsamplings, self.down_levels):  # noqa: B905 (TorchScript has no strict)
            hidden = level(downsampling(hidden), time)
            skips.append(hidden)
        skips.pop()
        for level in self.up_levels:
            skip = skips.pop()
            hidden = functional.interpolate(hidden, size=skip.shape[2:], mode="nearest")
            hidden = level(torch.cat([hidden, skip], dim=1), time)
        return self.to_latent(hidden)


class _Level(nn.Module):
    """Time-conditioned residual blocks and, perhaps, attention, at one size of the latent."""

    def __init__(self, blocks: Sequence[ResidualBlock], attention: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = attention

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, time)
        return self.attention(x)
