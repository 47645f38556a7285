from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch.nn import functional

from ldseg_monai.inference.slabs import _RollingMean, slide

CASES = [
    ((31, 37), (16, 16), 0.5, 1, "reflect"),
    ((50, 37), (16, 20), 0.7, 3, "constant"),
    ((10, 13), (16, 16), 0.25, 1, "replicate"),  # smaller than a window
    ((40, 9), (16, 16), 0.0, 2, "constant"),
    ((9, 40), (16, 16), [0.0, 0.9], 2, "circular"),
    ((21, 9, 14), (8, 8, 8), 0.5, 4, "constant"),
    ((30, 21, 29), (8, 16, 8), [0.5, 0.1, 0.6], 1, "constant"),
]


def image_of(size: Sequence[int]) -> torch.Tensor:
    return torch.randn([1, 2, *size], generator=torch.Generator().manual_seed(0))


def segment(windows: torch.Tensor) -> torch.Tensor:
    """Three maps of a window that depend on what is around a position, and on the window's border."""
    dims = windows.ndim - 2
    kernel = torch.randn([3, 2] + [3] * dims, generator=torch.Generator().manual_seed(1))
    return (functional.conv2d if dims == 2 else functional.conv3d)(windows, kernel, padding=1)


def slabs(
    size: Sequence[int], window: tuple[int, ...], axis: int, **arguments
) -> list[torch.Tensor]:
    image = image_of(size)

    def read(start: int, stop: int) -> torch.Tensor:
        return image.narrow(axis + 2, start, stop - start)

    weights = compute_importance_map(window, "gaussian")
    return list(
        slide(read, lambda windows, starts: segment(windows), size, weights, axis, **arguments)
    )


@pytest.mark.parametrize(("size", "window", "overlap", "batch_size", "padding_mode"), CASES)
def test_slabs_are_what_monai_makes_of_the_whole_image(
    size, window, overlap, batch_size, padding_mode
) -> None:
    expected = sliding_window_inference(
        image_of(size), window, batch_size, segment, overlap, "gaussian", padding_mode=padding_mode
    )
    options = {"overlap": overlap, "batch_size": batch_size, "padding_mode": padding_mode}
    assert torch.equal(torch.cat(slabs(size, window, 0, **options), dim=2), expected)
    for axis in range(1, len(size)):  # the same sums, in another order
        result = torch.cat(slabs(size, window, axis, **options), dim=axis + 2)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_slab_comes_as_soon_as_no_window_will_touch_it(axis: int) -> None:
    size, window = [40, 40], (16, 16)
    events: list[tuple[str, int]] = []

    def read(start: int, stop: int) -> torch.Tensor:
        events.append(("read", start))
        assert stop - start == 16
        return image_of(size).narrow(axis + 2, start, stop - start)

    def segment_windows(windows: torch.Tensor, starts: list[tuple[int, ...]]) -> torch.Tensor:
        events.extend(("window", start[axis]) for start in starts)
        return segment(windows)

    done = 0
    for slab in slide(read, segment_windows, size, torch.ones(window), axis, overlap=0.5):
        done += slab.shape[axis + 2]
        events.append(("done to", done))
    expected = []
    for start in (0, 8, 16, 24):
        expected += [("read", start), ("window", start)]
        expected += [("done to", start)] * (start > 0) + [("window", start)] * 3
    assert events == [*expected, ("done to", 40)]


@pytest.mark.parametrize("length", [40, 400])
def test_sums_are_no_longer_than_a_window(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []
    add = _RollingMean.add

    def record(self: _RollingMean, *arguments) -> None:
        sides.append((tuple(self.total.shape), tuple(self.weight.shape)))
        add(self, *arguments)

    monkeypatch.setattr(_RollingMean, "add", record)
    parts = slabs((length, 20), (16, 16), 0, overlap=0.5)
    assert sum(part.shape[2] for part in parts) == length
    assert set(sides) == {((1, 3, 16, 20), (1, 1, 16, 20))}


@pytest.mark.parametrize("overlap", [1, -0.1, [0.5], [0.5, 1.0]])
def test_overlap_that_leaves_no_way_is_refused(overlap) -> None:
    with pytest.raises(
        ValueError, match="expected a number from 0 to below 1, or one for each axis"
    ):
        slabs((20, 20), (16, 16), 0, overlap=overlap)
