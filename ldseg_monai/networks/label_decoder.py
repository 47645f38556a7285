"""f_label-dec of Eq. 13."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv, get_norm_layer
from torch import nn

from .blocks import ResidualBlock


class LabelDecoder(nn.Module):
    """Latent to class logits, a residual U-Net decoder without skip connections (Zaman et al., 2024, Eq. 13).

    Every up-sampling is a transposed convolution, which is a sub-pixel convolution without its rearrangement. The last
    one mirrors the encoders' stem, overlaps its neighbors and starts out as a linear interpolation of coarse logits:
    outlines are smooth from the first step on, where patches that know nothing of each other stay blocks for long.

    Args:
        spatial_dims: 2 or 3.
        latent_channels: channels of the latent.
        num_classes: classes of the label, background included.
        channels: channels of each level, from the largest to the smallest image, as in the label encoder.
        stem_stride: factor of the last up-sampling; 1 for none.
        num_res_blocks: residual blocks in each level.
        norm: normalization as MONAI writes it.
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
    ) -> None:
        super().__init__()
        upsample = Conv[Conv.CONVTRANS, spatial_dims]
        previous = channels[-1]
        self.from_latent = Conv[Conv.CONV, spatial_dims](latent_channels, previous, kernel_size=3, padding=1)
        self.levels = nn.ModuleList()
        for index, width in enumerate(reversed(channels)):
            blocks: list[nn.Module] = [upsample(previous, width, kernel_size=2, stride=2)] if index else []
            blocks += [ResidualBlock(spatial_dims, width, width, norm) for _ in range(num_res_blocks)]
            self.levels.append(nn.Sequential(*blocks))
            previous = width
        self.to_logits = nn.Sequential(
            get_norm_layer(norm, spatial_dims, previous),
            nn.SiLU(),
            _interpolating(upsample(previous, num_classes, 2 * stem_stride, stem_stride, stem_stride // 2))
            if stem_stride > 1
            else Conv[Conv.CONV, spatial_dims](previous, num_classes, kernel_size=1),
        )

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Map ``(B, latent_channels, *spatial / stride)`` to logits ``(B, num_classes, *spatial)``."""
        hidden = self.from_latent(latent)
        for level in self.levels:
            hidden = level(hidden)
        return self.to_logits(hidden)


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
