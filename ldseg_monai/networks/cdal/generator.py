"""x_theta of Section 2.3."""

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
    normalization,
)
from ldseg_monai.runtime.errors import InputError


class CDALGenerator(ResidualUNet):
    """Residual U-Net that predicts the clean label of a noisy one (Hejrati et al., 2024, 2.1, 2.3).

    The features of the image are added to those of the noisy label. The timestep, as sinusoids, and
    the random latent, through a mapping network, scale and shift what the second normalization of
    each of the U-Net's residual blocks returns.

    Args:
        spatial_dims: 2 or 3.
        out_channels: classes of the label, background included.
        channels: channels of each level of the U-Net, the first as many as the image's features
            have; every level after the first halves the size.
        num_res_blocks: residual blocks in each level, on the way down and on the way up.
        latent_size: L, numbers of the random latent z; 0 for none (the ablation of Table 1).
        attention_levels: levels of the U-Net with self-attention; None for the last.
        num_head_channels: channels of one attention head; must divide the channels of the levels
            with attention.
        norm: normalization as MONAI writes it.
        both_norms: whether timestep and latent scale and shift what the first normalization of each
            block returns, too.

    Raises:
        ValueError: for fewer than two classes, a negative latent size, or attention levels or heads
            that do not fit the channels.
    """

    def __init__(
        self,
        spatial_dims: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 128),
        num_res_blocks: int = 1,
        latent_size: int = 64,
        attention_levels: Sequence[bool] | None = None,
        num_head_channels: int = 32,
        norm: tuple | str = NORM,
        both_norms: bool = False,
    ) -> None:
        if out_channels < 2:
            raise InputError(f"out_channels is {out_channels}: expected 2 or more")
        if not isinstance(latent_size, int) or latent_size < 0:
            raise InputError(f"latent_size is {latent_size}: expected a whole number, 0 or more")
        check_levels(channels)
        if attention_levels is None:
            attention_levels = [level == len(channels) - 1 for level in range(len(channels))]
        width = 4 * channels[0]  # of each of the two embeddings
        super().__init__(
            spatial_dims,
            channels,
            num_res_blocks,
            attention_levels,
            num_head_channels,
            norm,
            embedding_channels=2 * width if latent_size else width,
            both_norms=both_norms,
        )
        conv = Conv[Conv.CONV, spatial_dims]
        self.out_channels = out_channels
        self.channels = channels[0]
        self.latent_size = latent_size
        self.time_embedding = TimestepEmbedding(channels[0], width)
        self.mapping = _mapping_network(latent_size, width) if latent_size else nn.Identity()
        self.from_label = conv(out_channels, channels[0], kernel_size=3, padding=1)
        self.to_label = nn.Sequential(
            normalization(norm, spatial_dims, channels[0]),
            nn.SiLU(),
            conv(channels[0], out_channels, kernel_size=3, padding=1),
        )

    def forward(
        self,
        noisy_label: torch.Tensor,
        timesteps: torch.Tensor,
        latent: torch.Tensor,
        features: torch.Tensor,
    ) -> torch.Tensor:
        """Predict the clean label.

        Args:
            noisy_label: ``x_t``, ``(B, out_channels, *spatial)``.
            timesteps: ``(B,)`` integers from 0 to T - 1; index ``t - 1`` of the paper's ``t``.
            latent: ``z``, ``(B, latent_size)``.
            features: of the image ``I``, ``(B, channels[0], *spatial)``.

        Returns:
            The estimate of ``x_0``, ``(B, out_channels, *spatial)``, not bounded.
        """
        embedding = torch.cat([self.time_embedding(timesteps), self.mapping(latent)], dim=1)
        hidden = self.from_label(noisy_label) + features
        return self.to_label(self.through_levels(hidden, embedding))


def _mapping_network(latent_size: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(latent_size, width),
        nn.SiLU(),
        nn.Linear(width, width),
        nn.SiLU(),
        nn.Linear(width, width),
    )
