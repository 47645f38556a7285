"""MSU-Net: a U-Net whose blocks see two scales at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution, UpSample
from monai.networks.layers.factories import Pool
from torch import nn

from ldseg_monai.runtime.errors import InputError

KERNELS = (3, 7)


class TwoScales(nn.Module):
    """A double convolution with kernels of 3 and one with kernels of 7, joined by one of 1.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the input.
        out_channels: of each of the two, and of the result.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList()
        for kernel in KERNELS:
            first = Convolution(
                spatial_dims, in_channels, out_channels, kernel_size=kernel, act="relu"
            )
            second = Convolution(
                spatial_dims, out_channels, out_channels, kernel_size=kernel, act="relu"
            )
            self.scales.append(nn.Sequential(first, second))
        joined = len(KERNELS) * out_channels
        self.join = Convolution(spatial_dims, joined, out_channels, kernel_size=1, conv_only=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``."""
        found: torch.Tensor = self.join(torch.cat([scale(x) for scale in self.scales], dim=1))
        return found


class MSUNet(nn.Module):
    """A U-Net of two scales in each block (Su et al., "MSU-Net", Frontiers in Genetics, 2021).

    Normalization is MONAI's default, of instances.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: classes, background included.
        channels: of each level, the largest pictures first; the paper: 32 to 512. Sides have to be
            multiples of 2 to the number of levels below the first.

    Raises:
        ValueError: for fewer than two levels.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise InputError(f"channels is {list(channels)}: expected two levels or more")
        self.down = nn.ModuleList()
        previous = in_channels
        for width in channels:
            self.down.append(TwoScales(spatial_dims, previous, width))
            previous = width
        self.halve = Pool["MAX", spatial_dims](kernel_size=2)
        self.enlarge, self.up = nn.ModuleList(), nn.ModuleList()
        for width in reversed(channels[:-1]):
            self.enlarge.append(UpSample(spatial_dims, previous, width))
            self.up.append(TwoScales(spatial_dims, 2 * width, width))
            previous = width
        self.to_logits = Convolution(
            spatial_dims, previous, out_channels, kernel_size=1, conv_only=True
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``(B, in_channels, *spatial)`` to logits ``(B, out_channels, *spatial)``."""
        x, skipped = image, []
        for level, block in enumerate(self.down):
            x = block(self.halve(x) if level else x)
            skipped.append(x)
        skipped.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([skipped.pop(), enlarge(x)], dim=1))
        logits: torch.Tensor = self.to_logits(x)
        return logits
