"""f_label-dec of Eq. 13."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import nn

from ldseg_monai.networks.blocks import ResidualBlock, normalization


class LabelDecoder(nn.Module):
    """Latent to class logits, a residual U-Net decoder without skip connections (Zaman et al., 2024, Eq. 13).

    A departure from the paper, off by default: features of the image encoder may be added at chosen
    levels, which gives outlines the image's resolution. Left to itself, such a decoder ignores the
    latent; see `LDSeg`'s ``image_dropout``.

    Every up-sampling is a transposed convolution, which is a sub-pixel convolution without its
    rearrangement. The last one mirrors the encoders' stem, overlaps its neighbors and starts out as
    a linear interpolation of coarse logits: outlines are smooth from the first step on, where
    patches that know nothing of each other stay blocks for long.

    Args:
        spatial_dims: 2 or 3.
        latent_channels: channels of the latent.
        num_classes: classes of the label, background included.
        channels: channels of each level, from the largest to the smallest image, as in the label
            encoder.
        stem_stride: factor of the last up-sampling; 1 for none.
        num_res_blocks: residual blocks in each level.
        norm: normalization as MONAI writes it.
        image_channels: channels of the image features at each level, in the order of ``channels``;
            0 for a level without; None for none at all (the paper).
    """

    def __init__(
        self,
        spatial_dims: int,
        latent_channels: int,
        num_classes: int,
        channels: Sequence[int],
        stem_stride: int,
        num_res_blocks: int,
        norm: tuple | str,
        image_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        upsample = Conv[Conv.CONVTRANS, spatial_dims]
        previous = channels[-1]
        self.from_latent = Conv[Conv.CONV, spatial_dims](
            latent_channels, previous, kernel_size=3, padding=1
        )
        self.levels = nn.ModuleList()
        for level in reversed(range(len(channels))):
            self.levels.append(
                _Level(
                    upsample(previous, channels[level], kernel_size=2, stride=2)
                    if len(self.levels)
                    else nn.Identity(),
                    _image_projection(
                        spatial_dims,
                        image_channels[level] if image_channels else 0,
                        channels[level],
                    ),
                    [
                        ResidualBlock(spatial_dims, channels[level], channels[level], norm)
                        for _ in range(num_res_blocks)
                    ],
                )
            )
            previous = channels[level]
        self.to_logits = nn.Sequential(
            normalization(norm, spatial_dims, previous),
            nn.SiLU(),
            _interpolating(
                upsample(previous, num_classes, 2 * stem_stride, stem_stride, stem_stride // 2)
            )
            if stem_stride > 1
            else Conv[Conv.CONV, spatial_dims](previous, num_classes, kernel_size=3, padding=1),
        )

    def forward(
        self, latent: torch.Tensor, features: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Decode.

        Args:
            latent: ``(B, latent_channels, *spatial / stride)``.
            features: of the image encoder's levels, each of batch ``B`` or 1; None to decode
                without the image.

        Returns:
            Class logits ``(B, num_classes, *spatial)``.
        """
        hidden = self.from_latent(latent)
        coarsest_first = [] if features is None else features[::-1]
        index = 0  # TorchScript enumerates no list beside a ModuleList
        for level in self.levels:
            hidden = level(hidden, coarsest_first[index] if index < len(coarsest_first) else None)
            index += 1  # noqa: SIM113
        return self.to_logits(hidden)


class _Level(nn.Module):
    """Up-sampling, perhaps a sum with the image's features, and residual blocks, at one size."""

    def __init__(
        self, upsampling: nn.Module, image: nn.Module | None, blocks: list[ResidualBlock]
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.image = image
        self.blocks = nn.Sequential(*blocks)

    def forward(self, hidden: torch.Tensor, feature: torch.Tensor | None) -> torch.Tensor:
        hidden = self.upsampling(hidden)
        if self.image is not None and feature is not None:
            hidden = hidden + self.image(feature)
        return self.blocks(hidden)


def _image_projection(spatial_dims: int, image_channels: int, channels: int) -> nn.Module | None:
    """Image features to a level's channels; without bias, so that features of 0 are the same as none."""
    if not image_channels:
        return None
    return Conv[Conv.CONV, spatial_dims](image_channels, channels, kernel_size=1, bias=False)


def _interpolating(convolution: nn.Module) -> nn.Module:
    """Start a transposed convolution, whose kernel is twice its stride, as a linear interpolation of its inputs."""
    stride: int = convolution.stride[0]  # type: ignore[index,assignment]
    weight: torch.Tensor = convolution.weight  # type: ignore[assignment]
    ramp = 1 - (torch.arange(2 * stride) + 0.5 - stride).abs() / stride
    with torch.no_grad():
        mixing = torch.randn(weight.shape[:2]) / weight.shape[0] ** 0.5
        kernel = mixing
        for _ in weight.shape[2:]:
            kernel = kernel[..., None] * ramp
        weight.copy_(kernel)
    return convolution
