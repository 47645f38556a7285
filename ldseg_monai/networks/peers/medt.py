"""MedT: gated attention along rows and columns, of the whole image and of its patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional

from ldseg_monai.runtime.errors import InputError

PATCHES = 4  # along each side of the image, of the local branch
GATES = {"query": 0.1, "key": 0.1, "position": 0.1, "value": 1.0}  # at the start


class GatedAxialAttention(nn.Module):
    r"""Attention along one axis, whose use of relative positions is gated.

    Valanarasu et al. (2021, MedT, arXiv 2102.10662), Eq. 3:
    :math:`y_i = \sum_j softmax_j(q_i^T k_j + G_Q q_i^T r^q_{ij} + G_K k_j^T r^k_{ij}) (G_{V1} v_j +
    G_{V2} r^v_{ij})`. Queries and keys have half as many channels as values. The paper's positions
    are those of one image size; here they are interpolated to any. Memory grows with the number of
    lines times the square of their length: use windows of a few hundred pixels.

    Args:
        channels: of input and output.
        num_heads: which share the positions and have to divide half the channels.
        span: places along the axis that the positions are made for.
        axis: 2 for the rows that a column has, 3 for the columns of a row.

    Raises:
        ValueError: for heads that do not divide the channels.
    """

    def __init__(self, channels: int, num_heads: int, span: int, axis: int) -> None:
        super().__init__()
        if channels % (2 * num_heads):
            raise InputError(
                f"num_heads is {num_heads} of {channels} channels: expected a divisor of half of "
                "them"
            )
        self.num_heads = num_heads
        self.axis = axis
        self.width = channels // num_heads  # of a head's values
        self.to_all = nn.Linear(channels, 2 * channels, bias=False)
        positions = torch.randn(2 * self.width, 2 * span - 1) / self.width**0.5
        self.positions = nn.Parameter(positions)  # of queries, keys and values together
        self.gates = nn.Parameter(torch.tensor(list(GATES.values())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        rows = x.movedim(1, -1)  # (B, H, W, C)
        rows = rows.transpose(1, 2) if self.axis == 2 else rows
        lines = rows.flatten(0, 1)  # (N, L, C)
        half = self.width // 2
        all_three = self.to_all(lines).unflatten(2, (self.num_heads, 2 * self.width))
        query, key, value = all_three.split([half, half, self.width], dim=3)  # (N, L, heads, c)
        of_query, of_key, of_value = self._relative(lines.shape[1]).split(
            [half, half, self.width]
        )  # (c, L, L)
        gate = dict(zip(GATES, self.gates, strict=True))
        logits = torch.einsum("nihc,njhc->nhij", query, key)
        logits = logits + gate["query"] * torch.einsum("nihc,cij->nhij", query, of_query)
        logits = logits + gate["key"] * torch.einsum("njhc,cij->nhij", key, of_key)
        weights = logits.softmax(dim=3)  # (N, heads, L, L)
        found = gate["value"] * torch.einsum("nhij,njhc->nihc", weights, value)
        found = found + gate["position"] * torch.einsum("nhij,cij->nihc", weights, of_value)
        rows = found.flatten(2).unflatten(0, rows.shape[:2])
        rows = rows.transpose(1, 2) if self.axis == 2 else rows
        return rows.movedim(-1, 1)

    def _relative(self, length: int) -> torch.Tensor:
        """The position of place j seen from place i, ``(2 * width, L, L)``."""
        size = 2 * length - 1
        table = functional.interpolate(
            self.positions[None], size=size, mode="linear", align_corners=True
        )[0]
        place = torch.arange(length, device=table.device)
        return table[:, place[None, :] - place[:, None] + length - 1]


class AxialBlock(nn.Module):
    """A residual block of two attentions, along columns and rows (the paper's Figure 2b).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        num_heads: as of `GatedAxialAttention`.
        span: likewise.
        stride: by how much the output is smaller.
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_heads: int, span: int, stride: int
    ) -> None:
        super().__init__()
        self.before = Convolution(2, in_channels, out_channels, kernel_size=1, norm="batch")
        self.attend = nn.Sequential(
            GatedAxialAttention(out_channels, num_heads, span, axis=2),
            GatedAxialAttention(out_channels, num_heads, span, axis=3),
            nn.ReLU(),
        )
        self.after = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, kernel_size=1), nn.BatchNorm2d(out_channels)
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        x = torch.relu(self.shortcut(x) + self.after(self.attend(self.before(x))))
        return functional.avg_pool2d(x, self.stride)


class AxialBranch(nn.Module):
    """Convolutions, axial blocks on the way down, and convolutions on the way up.

    Args:
        in_channels: of the image.
        channels: of each axial block.
        strides: of each, 1 or 2.
        num_heads: as of `GatedAxialAttention`.
        span: of the image's side; the first convolution halves it.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[int],
        num_heads: int,
        span: int,
    ) -> None:
        super().__init__()
        first = channels[0]
        self.stem = nn.Sequential(
            Convolution(2, in_channels, first, strides=2, act="relu", norm="batch"),
            Convolution(2, first, first, act="relu", norm="batch"),
            Convolution(2, first, first, act="relu", norm="batch"),
        )
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        previous, side = first, span // 2
        for width, stride in zip(channels, strides, strict=True):
            self.down.append(AxialBlock(previous, width, num_heads, side, stride))
            self.up.append(Convolution(2, width, previous, conv_only=True))
            previous, side = width, max(1, side // stride)
        self.last = Convolution(2, first, first, conv_only=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to features ``(B, channels[0], H, W)``."""
        x = self.stem(image)
        skipped: list[torch.Tensor] = []
        for block in self.down:
            skipped.append(x)
            x = block(x)
        for convolution in reversed(self.up):
            skip = skipped.pop()
            larger = functional.interpolate(convolution(x), size=skip.shape[2:], mode="bilinear")
            x = torch.relu(larger) + skip
        size = image.shape[2:]
        return torch.relu(functional.interpolate(self.last(x), size=size, mode="bilinear"))


class MedT(nn.Module):
    """Medical Transformer (Valanarasu et al., MICCAI 2021, arXiv 2102.10662).

    A global branch of few blocks sees the whole image and a local one of more blocks each of 4 x 4
    patches by itself ("LoGo", Section 2.3); their features are added. The paper gives no channels.

    Args:
        spatial_dims: 2, which attention along rows and columns is for.
        in_channels: of the images.
        out_channels: classes, background included.
        channels: of the local branch's blocks; the global one has the first two (2 and 5 blocks in
            the paper). Each block but the first and the last halves the size, as the first
            convolution does. Sides of images have to be multiples of 4 times these halvings.
        num_heads: of all attentions, a divisor of half of each of the channels.
        span: side of the images that the positions are made for (128 in the paper).

    Raises:
        ValueError: for other images than pictures, or fewer than three blocks.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 64, 64),
        num_heads: int = 4,
        span: int = 128,
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise InputError(f"spatial_dims is {spatial_dims}: expected 2")
        if len(channels) < 3:
            raise InputError(f"channels is {list(channels)}: expected three blocks or more")
        strides = [1, *[2] * (len(channels) - 2), 1]
        self.whole = AxialBranch(in_channels, channels[:2], strides[:2], num_heads, span)
        self.patches = AxialBranch(in_channels, channels, strides, num_heads, span // PATCHES)
        self.to_logits = nn.Conv2d(channels[0], out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``."""
        rows, columns = (side // PATCHES for side in image.shape[2:])
        cut = image.unflatten(3, (PATCHES, columns)).unflatten(2, (PATCHES, rows))
        cut = cut.permute(0, 2, 4, 1, 3, 5)  # (B, 4, 4, in_channels, rows, columns)
        features = self.patches(cut.flatten(0, 2)).unflatten(0, cut.shape[:3])
        features = features.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        logits: torch.Tensor = self.to_logits(self.whole(image) + features)
        return logits
