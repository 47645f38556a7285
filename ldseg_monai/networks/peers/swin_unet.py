"""Swin-Unet: a U-Net of nothing but shifted windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets.swin_unetr import BasicLayer, PatchEmbed, PatchMergingV2
from torch import nn

from ldseg_monai.runtime.errors import InputError


class PatchExpanding(nn.Module):
    """Larger by a linear layer, whose channels become neighbors (Cao et al., 2021, Section 3.5).

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the input.
        out_channels: of the output.
        factor: by how much each side grows.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, factor: int = 2
    ) -> None:
        super().__init__()
        self.factor = factor
        self.out_channels = out_channels
        self.linear = nn.Linear(in_channels, factor**spatial_dims * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, *spatial, in_channels)`` to ``(B, *(factor * spatial), out_channels)``."""
        batch, *sides, _ = x.shape
        dims = len(sides)
        x = self.linear(x).reshape(batch, *sides, *[self.factor] * dims, self.out_channels)
        order = [0]
        for axis in range(1, dims + 1):
            order += [axis, axis + dims]
        x = x.permute(*order, 2 * dims + 1)  # (B, side, factor, side, factor, ..., out_channels)
        larger = [self.factor * side for side in sides]
        expanded: torch.Tensor = self.norm(x.reshape(batch, *larger, self.out_channels))
        return expanded


class SwinUNet(nn.Module):
    """A pure transformer in the shape of a U-Net (Cao et al., 2021, "Swin-Unet", arXiv 2105.05537).

    Patches of 4 pixels a side are tokens. Each level of the way down is two blocks of the Swin
    transformer and a merging of patches; the way up expands them, and joins the level's features by
    a linear layer. Blocks, embedding and merging are MONAI's. There is no stochastic depth.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: classes, background included.
        channels: of the first level, doubled by each further one (96 in the paper).
        num_heads: of the attention of each level, which sets their number.
        window: sides of the windows in tokens.
        depth: blocks of each level.
        patch: side of a patch. Sides of images have to be multiples of it, times 2 to the number of
            levels below the first.

    Raises:
        ValueError: for fewer than two levels.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: int = 96,
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        depth: int = 2,
        patch: int = 4,
    ) -> None:
        super().__init__()
        if len(num_heads) < 2:
            raise InputError(f"num_heads is {list(num_heads)}: expected two levels or more")
        widths = [channels * 2**level for level in range(len(num_heads))]
        self.embed = PatchEmbed(patch, in_channels, channels, nn.LayerNorm, spatial_dims)
        self.down, self.merge = nn.ModuleList(), nn.ModuleList()
        self.up, self.expand, self.join = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        blocks: dict[str, Any] = {"depth": depth, "window_size": [window] * spatial_dims}
        blocks |= {"qkv_bias": True, "drop_path": [0.0] * depth}
        for width, heads in zip(widths, num_heads, strict=True):
            self.down.append(BasicLayer(dim=width, num_heads=heads, **blocks))
        for width in widths[:-1]:
            self.merge.append(PatchMergingV2(width, nn.LayerNorm, spatial_dims))
        for width, heads in zip(widths[-2::-1], num_heads[-2::-1], strict=True):
            self.expand.append(PatchExpanding(spatial_dims, 2 * width, width))
            self.join.append(nn.Linear(2 * width, width))
            self.up.append(BasicLayer(dim=width, num_heads=heads, **blocks))
        self.down_norm = nn.LayerNorm(widths[-1])
        self.up_norm = nn.LayerNorm(channels)
        self.to_pixels = PatchExpanding(spatial_dims, channels, channels, patch)
        self.to_logits = nn.Linear(channels, out_channels, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``(B, in_channels, *spatial)`` to logits ``(B, out_channels, *spatial)``."""
        x = self.embed(image).movedim(1, -1)  # (B, *tokens, C)
        skipped: list[torch.Tensor] = []
        for level, blocks in enumerate(self.down):
            x = self._through(blocks, x)
            if level < len(self.merge):
                skipped.append(x)
                x = self.merge[level](x)
        x = self.down_norm(x)
        for expand, join, blocks in zip(self.expand, self.join, self.up, strict=True):
            x = join(torch.cat([expand(x), skipped.pop()], dim=-1))
            x = self._through(blocks, x)
        logits: torch.Tensor = self.to_logits(self.to_pixels(self.up_norm(x)))
        return logits.movedim(-1, 1)

    def _through(self, blocks: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """MONAI's blocks take and give channels first."""
        found: torch.Tensor = blocks(x.movedim(-1, 1))
        return found.movedim(1, -1)
