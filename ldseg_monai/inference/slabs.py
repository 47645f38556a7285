"""Windows that slide over an image and come together slab by slab: no sum of all of it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from monai.data.utils import dense_patch_slices
from torch.nn import functional
from tqdm import tqdm

from ldseg_monai.runtime.errors import InputError

Start = tuple[int, ...]


def slide(
    read: Callable[[int, int], torch.Tensor],
    segment: Callable[[torch.Tensor, list[Start]], torch.Tensor],
    size: Sequence[int],
    weights: torch.Tensor,
    axis: int = 0,
    overlap: Sequence[float] | float = 0.25,
    batch_size: int = 1,
    padding_mode: str = "constant",
    cval: float = 0.0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Iterator[torch.Tensor]:
    """Segment an image window by window; yield each slab as soon as no further window touches it.

    The windows are those of `monai.inferers.sliding_window_inference`, in the order of their start
    along the axis; along the first axis, that is MONAI's order, and the result is equal to MONAI's
    bit by bit. Beside what is read and yielded, the memory is that of a slab as long as a window,
    whatever the image's length along the axis.

    Args:
        read: returns a range of the image along the axis, ``(1, C, *spatial)``; called with
            ascending starts.
        segment: returns maps ``(N, K, *window)`` for windows ``(N, C, *window)`` that start at
            these positions.
        size: spatial size of the image.
        weights: of the positions of a window, where windows overlap; its shape is the window's
            size.
        axis: spatial axis along which the slabs follow each other.
        overlap: share of a window that overlaps with the next, for all axes or each.
        batch_size: windows that are segmented at once.
        padding_mode: as of `torch.nn.functional.pad`, along axes on which the image is shorter than
            a window.
        cval: value of padding in mode ``constant``.
        device: where the maps come together; None for that of the image.
        progress: whether to show a progress bar of the windows.

    Yields:
        Weighted means of the maps, ``(1, K, *spatial)``, one slab after the other.

    Raises:
        ValueError: if an overlap is not from 0 to below 1.
    """
    window = tuple(weights.shape)
    overlaps = [overlap] * len(window) if isinstance(overlap, (int, float)) else list(overlap)
    if len(overlaps) != len(window) or not all(0 <= share < 1 for share in overlaps):
        raise InputError(
            f"overlap is {overlap}: expected a number from 0 to below 1, or one for each axis"
        )
    padded = [max(side, length) for side, length in zip(size, window, strict=True)]
    before = [(longer - side) // 2 for longer, side in zip(padded, size, strict=True)]
    after = [
        longer - side - first for longer, side, first in zip(padded, size, before, strict=True)
    ]
    margins: list[int] = []  # of the last axis first, as PyTorch pads
    for pair in zip(reversed(before), reversed(after), strict=True):
        margins.extend(pair)
    starts = window_starts(padded, window, overlaps, axis)

    mean: _RollingMean | None = None
    slab = torch.empty(0)
    slab_start = -1
    for first in tqdm(range(0, len(starts), batch_size), disable=not progress):
        batch = starts[first : first + batch_size]
        windows = []
        for start in batch:
            if start[axis] != slab_start:
                slab_start = start[axis]
                slab = read(slab_start, min(slab_start + window[axis], size[axis]))
                if any(margins):
                    slab = functional.pad(
                        slab, margins, padding_mode, cval if padding_mode == "constant" else None
                    )
            windows.append(_part(slab, (*start[:axis], 0, *start[axis + 1 :]), window))
        maps = segment(torch.cat(windows) if len(windows) > 1 else windows[0], batch)
        windows.clear()
        for start, one in zip(batch, maps.split(1), strict=True):
            if mean is None:
                sides = [*padded[:axis], window[axis], *padded[axis + 1 :]]
                own = weights.to(one.device, slab.dtype)
                mean = _RollingMean(sides, one.shape[1], own, axis, device or slab.device)
            if start[axis] > mean.start:
                yield _part(mean.finish(start[axis]), before, size)
            mean.add(one, start)
        del maps, one
    if mean is not None:
        yield _part(mean.finish(padded[axis]), before, size)


class _RollingMean:
    """Weighted sum of windows and sum of weights, from an axis' first unfinished position on."""

    def __init__(
        self,
        sides: Sequence[int],
        channels: int,
        weights: torch.Tensor,
        axis: int,
        device: torch.device | str,
    ) -> None:
        self.start = 0
        self.axis = axis
        self.weights = weights[None, None]
        self.weights_there = self.weights.to(device)
        self.total = self.weights_there.new_zeros([1, channels, *sides])
        self.weight = self.weights_there.new_zeros([1, 1, *sides])

    def add(self, maps: torch.Tensor, start: Start) -> None:
        """Add one window, whose memory is used up."""
        maps *= self.weights  # in the precision of the maps
        own = [position - self.start * (axis == self.axis) for axis, position in enumerate(start)]
        window = self.weights.shape[2:]
        _part(self.total, own, window).add_(maps.to(self.total.device))
        _part(self.weight, own, window).add_(self.weights_there)

    def finish(self, stop: int) -> torch.Tensor:
        """Return the mean up to a position of the axis, from now on the first unfinished one."""
        length, dimension = stop - self.start, self.axis + 2
        finished = self.total.narrow(dimension, 0, length).div_(
            self.weight.narrow(dimension, 0, length)
        )
        self.total, self.weight = (self._rolled(sums, length) for sums in (self.total, self.weight))
        self.start = stop
        return finished

    def _rolled(self, sums: torch.Tensor, length: int) -> torch.Tensor:
        """The unfinished sums, followed by zeros."""
        dimension = self.axis + 2
        remaining = sums.shape[dimension] - length
        rolled = torch.zeros_like(sums)
        rolled.narrow(dimension, 0, remaining).copy_(sums.narrow(dimension, length, remaining))
        return rolled


def window_starts(
    size: Sequence[int], window: Sequence[int], overlap: Sequence[float], axis: int
) -> list[Start]:
    """First positions of MONAI's windows, in the order of those along an axis.

    Args:
        size: of the image, at least that of a window.
        window: size of a window.
        overlap: share that overlaps with the next window, for each axis.
        axis: spatial axis.
    """
    steps = [
        side if side == length else max(int(length * (1 - share)), 1)
        for side, length, share in zip(size, window, overlap, strict=True)
    ]
    starts: list[Start] = []
    for sides in dense_patch_slices(size, window, steps):
        starts.append(tuple(int(side.start) for side in sides))
    return sorted(starts, key=lambda start: start[axis])


def _part(maps: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """The part of maps ``(1, C, *spatial)`` from a position on, at most of this size."""
    area = [slice(first, first + length) for first, length in zip(start, size, strict=True)]
    return maps[tuple([slice(None)] * 2 + area)]
