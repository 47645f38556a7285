"""The denoiser of MedSegDiff."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks import (
    NORM,
    ConditionedLevel,
    ResidualUNet,
    TimestepEmbedding,
    check_levels,
    check_widths,
    normalization,
)
from ldseg_monai.runtime.errors import InputError

SPECTRUM = (32, 17)  # rows and columns of a learned map, which is brought to a spectrum's size


class FrequencyParser(nn.Module):
    """FF-Parser: features times a learned map of their spatial frequencies.

    Wu et al. (2022, MedSegDiff, arXiv 2211.00611), Section 3.3: a Fourier transform over rows and
    columns, a product with a learned map, the inverse transform. The paper's map has the size of
    the features; here it has `SPECTRUM`'s and is interpolated, so that images may have any size. It
    starts as 1 everywhere, which changes nothing.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, *SPECTRUM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        spectrum = torch.fft.rfft2(x.float())  # (B, channels, H, W / 2 + 1)
        size = [spectrum.shape[2], spectrum.shape[3]]
        # Zero lies in the first row of a spectrum and the lowest negative frequency in the middle:
        # with zero in the middle neighbors are neighbors.
        learned = functional.interpolate(self.weight.float(), size=size, mode="bilinear")
        spectrum = spectrum * torch.fft.ifftshift(learned, dim=[2])
        return torch.fft.irfft2(spectrum, s=[x.shape[2], x.shape[3]]).to(x.dtype)


class MedSegDiffDenoiser(ResidualUNet):
    """Residual U-Net on the noisy label, whose second way down is of the image.

    Dynamic conditional encoding (Wu et al., 2022, Section 3.2): at each level the image's features
    are weighted by their affinity with those of the noisy label, through an FF-Parser. Both ways
    meet at the lowest level, by a sum, and the way up is the noisy label's.

    Args:
        spatial_dims: 2, which the FF-Parser is for.
        latent_channels: channels of the noisy label and of the output.
        embedding_channels: channels of the image.
        channels: channels of each level; every level after the first halves the size.
        num_res_blocks: residual blocks in each level (2 in the paper).
        attention_levels: for each level, whether self-attention follows its blocks; None for the
            last alone.
        num_head_channels: channels of one attention head.
        norm: normalization as MONAI writes it.

    Raises:
        ValueError: for other images than pictures, or levels and heads that do not fit.
    """

    def __init__(
        self,
        spatial_dims: int,
        latent_channels: int,
        embedding_channels: int,
        channels: Sequence[int] = (64, 128, 256),
        num_res_blocks: int = 2,
        attention_levels: Sequence[bool] | None = None,
        num_head_channels: int = 32,
        norm: tuple | str = NORM,
    ) -> None:
        if spatial_dims != 2:
            raise InputError(f"spatial_dims is {spatial_dims}: expected 2, as of the FF-Parser")
        check_levels(channels)
        check_widths(latent_channels=latent_channels, embedding_channels=embedding_channels)
        if attention_levels is None:
            attention_levels = [level == len(channels) - 1 for level in range(len(channels))]
        time_channels = 4 * channels[0]
        shared = (num_res_blocks, attention_levels, num_head_channels, norm, time_channels)
        super().__init__(spatial_dims, channels, *shared)
        self.latent_channels = latent_channels
        self.embedding_channels = embedding_channels
        self.time_embedding = TimestepEmbedding(channels[0], time_channels)
        self.from_label = nn.Conv2d(latent_channels, channels[0], kernel_size=3, padding=1)
        self.from_image = nn.Conv2d(embedding_channels, channels[0], kernel_size=3, padding=1)
        self.image_downsamplings, self.image_levels = nn.ModuleList(), nn.ModuleList()
        self.parsers, self.image_norms, self.label_norms = (nn.ModuleList() for _ in range(3))
        previous = channels[0]
        for index, width in enumerate(channels):
            downsampling = (
                nn.Conv2d(previous, previous, kernel_size=3, stride=2, padding=1)
                if index
                else nn.Identity()
            )
            self.image_downsamplings.append(downsampling)
            self.image_levels.append(
                ConditionedLevel(spatial_dims, previous, width, num_res_blocks, norm, time_channels)
            )
            self.parsers.append(FrequencyParser(width))
            self.image_norms.append(normalization(norm, spatial_dims, width))
            self.label_norms.append(normalization(norm, spatial_dims, width))
            previous = width
        self.to_latent = nn.Sequential(
            normalization(norm, spatial_dims, channels[0]),
            nn.SiLU(),
            nn.Conv2d(channels[0], latent_channels, kernel_size=3, padding=1),
        )

    def forward(
        self, noisy_label: torch.Tensor, image: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Predict noise, clean label or velocity, as trained.

        Args:
            noisy_label: ``x_t``, ``(B, latent_channels, H, W)``.
            image: ``(B, embedding_channels, H, W)``.
            timesteps: ``(B,)`` integers from 0 to T - 1.

        Returns:
            The prediction, ``(B, latent_channels, H, W)``.
        """
        time = self.time_embedding(timesteps)
        x, of_image = self.from_label(noisy_label), self.from_image(image)
        skips: list[torch.Tensor] = []
        ways = zip(  # noqa: B905 - TorchScript knows no strict
            self.downsamplings,
            self.down_levels,
            self.image_downsamplings,
            self.image_levels,
            self.parsers,
            self.image_norms,
            self.label_norms,
        )
        for down, level, image_down, image_level, parser, image_norm, label_norm in ways:
            x = level(down(x), time)
            of_image = image_level(image_down(of_image), time)
            affinity = image_norm(of_image) * label_norm(parser(x))
            of_image = affinity * of_image
            skips.append(x)
        skips.pop()
        return self.to_latent(self.up_from(x + of_image, skips, time))
