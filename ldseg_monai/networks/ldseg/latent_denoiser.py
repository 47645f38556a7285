"""f_denoiser of Eq. 12."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import nn

from ldseg_monai.networks.blocks import (
    NORM,
    ResidualUNet,
    TimestepEmbedding,
    check_levels,
    check_widths,
    normalization,
)


class LatentDenoiser(ResidualUNet):
    """Residual U-Net on the noisy latent beside the image embedding (Zaman et al., 2024, Eq. 12).

    Any latent size will do.

    Args:
        spatial_dims: 2 or 3.
        latent_channels: channels of the noisy latent and of the output.
        embedding_channels: channels of the image embedding.
        channels: channels of each level; every level after the first halves the latent.
        num_res_blocks: residual blocks in each level, on the way down and on the way up.
        attention_levels: for each level, whether self-attention follows its blocks; None for all
            but the first.
        num_head_channels: channels of one attention head.
        norm: normalization as MONAI writes it.

    Raises:
        ValueError: for attention levels or heads that do not fit the channels.
    """

    def __init__(
        self,
        spatial_dims: int,
        latent_channels: int,
        embedding_channels: int,
        channels: Sequence[int] = (64, 128),
        num_res_blocks: int = 1,
        attention_levels: Sequence[bool] | None = None,
        num_head_channels: int = 32,
        norm: tuple | str = NORM,
    ) -> None:
        check_levels(channels)
        check_widths(latent_channels=latent_channels, embedding_channels=embedding_channels)
        time_channels = 4 * channels[0]
        if attention_levels is None:
            attention_levels = [level > 0 for level in range(len(channels))]
        super().__init__(
            spatial_dims,
            channels,
            num_res_blocks,
            attention_levels,
            num_head_channels,
            norm,
            time_channels,
        )
        self.latent_channels = latent_channels
        self.embedding_channels = embedding_channels
        conv = Conv[Conv.CONV, spatial_dims]
        self.time_embedding = TimestepEmbedding(channels[0], time_channels)
        self.from_latent = conv(
            latent_channels + embedding_channels, channels[0], kernel_size=3, padding=1
        )
        self.to_latent = nn.Sequential(
            normalization(norm, spatial_dims, channels[0]),
            nn.SiLU(),
            conv(channels[0], latent_channels, kernel_size=3, padding=1),
        )

    def forward(
        self, noisy_latent: torch.Tensor, embedding: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Predict noise, clean latent or velocity, as trained.

        Args:
            noisy_latent: ``z_l(t)``, ``(B, latent_channels, *latent)``.
            embedding: ``z_i``, ``(B, embedding_channels, *latent)``.
            timesteps: ``(B,)`` integers from 0 to T - 1; index ``t - 1`` of the paper's ``t``.

        Returns:
            The prediction, ``(B, latent_channels, *latent)``.
        """
        hidden = self.from_latent(torch.cat([noisy_latent, embedding], dim=1))
        return self.to_latent(self.through_levels(hidden, self.time_embedding(timesteps)))
