"""D of Section 2.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers import Conv
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks import (
    NORM,
    ConditionedLevel,
    TimestepEmbedding,
    channels_last,
    check_levels,
    check_spatial_dims,
    check_widths,
    normalization,
)
from ldseg_monai.runtime.errors import InputError


class CDALDiscriminator(nn.Module):
    """Tells a true label from the generator's, one reverse step on.

    That is the discriminator of Hejrati et al. (2024), Sections 2.2 and 3.2. The way down of a
    residual U-Net on the pair of ``x_{t-1}`` and ``x_t``. The paper speaks of a discriminator for
    each timestep; here, as in its formulas, one is told the timestep. `SeparateDiscriminators` are
    as many as there are timesteps. It is of use in training only.

    Args:
        spatial_dims: 2 or 3.
        in_channels: classes of the label, background included.
        channels: channels of each level; every level after the first halves the size.
        num_res_blocks: residual blocks in each level.
        attention_level: level whose features make the attention map: of a label of 256 pixels,
            level 2, 3 and 4 are the scales 64, 32 and 16 of Table 1.
        norm: normalization as MONAI writes it.

    Raises:
        ValueError: for a level that there is not.

    Example:
        >>> discriminator = CDALDiscriminator(2, in_channels=2, channels=(8, 16), attention_level=1)
        >>> label = torch.zeros(1, 2, 32, 48)
        >>> discriminator(label, label, torch.tensor([0])).shape
        torch.Size([1, 1])
        >>> discriminator.attention_map(label, label, torch.tensor([0])).shape
        torch.Size([1, 1, 32, 48])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int] = (32, 64, 128, 128),
        num_res_blocks: int = 1,
        attention_level: int = 2,
        norm: tuple | str = NORM,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        check_levels(channels)
        check_widths(in_channels=in_channels)
        if not 0 <= attention_level < len(channels):
            raise InputError(
                f"attention_level is {attention_level}: expected 0 to {len(channels) - 1}, a level"
            )
        conv = Conv[Conv.CONV, spatial_dims]
        width = 4 * channels[0]
        self.attention_level = attention_level
        self.time_embedding = TimestepEmbedding(channels[0], width)
        self.from_labels = conv(2 * in_channels, channels[0], kernel_size=3, padding=1)
        self.downsamplings, self.levels = nn.ModuleList(), nn.ModuleList()
        previous = channels[0]
        for index, level_channels in enumerate(channels):
            downsampling = (
                conv(previous, previous, kernel_size=3, stride=2, padding=1)
                if index
                else nn.Identity()
            )
            self.downsamplings.append(downsampling)
            self.levels.append(
                ConditionedLevel(
                    spatial_dims,
                    previous,
                    level_channels,
                    num_res_blocks,
                    norm,
                    embedding_channels=width,
                )
            )
            previous = level_channels
        self.head = nn.Sequential(normalization(norm, spatial_dims, previous), nn.SiLU())
        self.to_logit = nn.Linear(previous, 1)
        channels_last(self, spatial_dims)

    def forward(
        self, previous_label: torch.Tensor, noisy_label: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Judge.

        Args:
            previous_label: ``x_{t-1}``, true or generated, ``(B, in_channels, *spatial)``.
            noisy_label: ``x_t``, of the same shape.
            timesteps: ``(B,)`` integers from 0 to T - 1; index ``t - 1`` of the paper's ``t``.

        Returns:
            A logit for each pair, ``(B, 1)``, high for a true one.
        """
        deepest = self._features(previous_label, noisy_label, timesteps, len(self.levels) - 1)
        return self.to_logit(self.head(deepest).flatten(2).mean(dim=2))

    def attention_map(
        self, previous_label: torch.Tensor, noisy_label: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """``A_D``: the mean of the chosen level's channels, at the label's size.

        What a voxel gets is interpolated linearly; the paper says only that the map is up-sampled.

        Args:
            previous_label: as of `forward`.
            noisy_label: as of `forward`.
            timesteps: as of `forward`.

        Returns:
            The map, ``(B, 1, *spatial)``, not bounded.
        """
        features = self._features(previous_label, noisy_label, timesteps, self.attention_level)
        mode = "bilinear" if noisy_label.ndim == 4 else "trilinear"
        return functional.interpolate(
            features.mean(dim=1, keepdim=True), size=noisy_label.shape[2:], mode=mode
        )

    def _features(
        self,
        previous_label: torch.Tensor,
        noisy_label: torch.Tensor,
        timesteps: torch.Tensor,
        last_level: int,
    ) -> torch.Tensor:
        """What the last level asked for makes of a pair."""
        time = self.time_embedding(timesteps)
        hidden = self.from_labels(torch.cat([previous_label, noisy_label], dim=1))
        for index in range(last_level + 1):
            hidden = self.levels[index](self.downsamplings[index](hidden), time)
        return hidden


class SeparateDiscriminators(nn.Module):
    """A discriminator for each timestep (Hejrati et al., 2024, Section 1, first contribution).

    It stands in the place of the one `CDALDiscriminator` that is told the timestep. Each of them
    judges every pair, and a pair gets the judgement and the map of its own timestep's: there are
    few timesteps, and ``DistributedDataParallel`` wants a gradient of every parameter, if only 0.

    Args:
        num_train_timesteps: T, as of the generator's scheduler.
        **discriminator: the arguments of `CDALDiscriminator`, the same for all.

    Raises:
        ValueError: for fewer than one timestep, or as `CDALDiscriminator` does.
    """

    def __init__(self, num_train_timesteps: int, **discriminator: Any) -> None:
        super().__init__()
        if num_train_timesteps < 1:
            raise InputError(f"num_train_timesteps is {num_train_timesteps}: expected 1 or more")
        self.discriminators = nn.ModuleList(
            CDALDiscriminator(**discriminator) for _ in range(num_train_timesteps)
        )

    def forward(
        self, previous_label: torch.Tensor, noisy_label: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Judge each pair by its timestep's discriminator: see `CDALDiscriminator.forward`."""
        logits = [one(previous_label, noisy_label, timesteps) for one in self.discriminators]
        return _of_timesteps(logits, timesteps)

    def attention_map(
        self, previous_label: torch.Tensor, noisy_label: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """``A_D`` of each pair's own discriminator: see `CDALDiscriminator.attention_map`."""
        maps = []
        for one in self.discriminators:
            assert isinstance(one, CDALDiscriminator)
            maps.append(one.attention_map(previous_label, noisy_label, timesteps))
        return _of_timesteps(maps, timesteps)


def _of_timesteps(outputs: Sequence[torch.Tensor], timesteps: torch.Tensor) -> torch.Tensor:
    """Of outputs ``(B, ...)``, one a timestep, each sample's at its own timestep, ``(B, ...)``."""
    samples = torch.arange(len(timesteps), device=timesteps.device)
    return torch.stack(list(outputs))[timesteps, samples]
