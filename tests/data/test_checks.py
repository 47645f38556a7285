from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from ldseg_monai.data.checks import CheckImaged, CheckLabeld, check_voxels
from ldseg_monai.data.formats.geometry import check_memory, largest_shift


def image_of(*shape: int, affine: np.ndarray | None = None) -> MetaTensor:
    values = torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)
    return MetaTensor(values, affine=torch.eye(4) if affine is None else torch.as_tensor(affine))


def test_good_pair_passes_as_it_is() -> None:
    data = {"image": image_of(1, 2, 3, 4), "label": MetaTensor(torch.ones(1, 2, 3, 4)), "name": "x"}
    for check in (CheckImaged("image", 3, 1), CheckLabeld("label", 2)):
        assert check(data) == data and check(data) is not data


def test_image_alone_and_without_metadata_is_checked_too() -> None:
    CheckImaged("image", 2, 3)({"image": torch.rand(3, 5, 6)})
    with pytest.raises(ValueError, match="image has 2 axes, of size \\[5, 6\\]: expected 3"):
        CheckImaged("image", 3, 3)({"image": torch.rand(3, 5, 6)})


@pytest.mark.parametrize("size", [(5, 6, 7), (5, 6)])
def test_shift_is_that_of_the_farthest_corner_in_voxels(size: tuple[int, ...]) -> None:
    spacing = np.diag([2.0, 3.0, 4.0, 1.0])
    assert largest_shift(spacing, spacing, size) == 0
    moved = spacing.copy()
    moved[:3, 3] = 3, 0, 0
    assert largest_shift(spacing, moved, size) == pytest.approx(1.5)
    wider = spacing @ np.diag([1, 1.5, 1, 1])  # the last row is 5 * 1.5 mm farther
    assert largest_shift(spacing, wider, size) == pytest.approx(5 * 1.5 / 2)


@pytest.mark.parametrize(("shift", "fits"), [(0.4, True), (0.6, False)])
def test_label_may_lie_half_a_voxel_beside_its_image(shift: float, fits: bool) -> None:
    affine = np.eye(4)
    affine[1, 3] = shift
    data = {
        "image": image_of(1, 2, 3, 4),
        "label": MetaTensor(torch.zeros(1, 2, 3, 4), affine=torch.as_tensor(affine)),
    }
    if fits:
        CheckLabeld("label", 2)(data)
    else:
        with pytest.raises(ValueError, match="lies up to 0.6 voxels beside"):
            CheckLabeld("label", 2)(data)


def test_image_that_no_memory_holds_is_refused_before_it_is_read() -> None:
    check_memory("x", (100, 100, 100))
    with pytest.raises(
        ValueError, match=r"x has size \[30000, 30000, 30000\], 108000 GB in memory"
    ):
        check_memory("x", (30000, 30000, 30000))


@pytest.mark.parametrize("values", [(1e-20, 2e-20), (1e9, 1e9 + 1000), (-1e9, -1e9 + 64)])
def test_a_difference_that_32_bits_lose_is_refused(values: tuple[float, float]) -> None:
    image = torch.tensor([[values]], dtype=torch.float32)
    assert image.min() < image.max()
    with pytest.raises(ValueError, match="a difference that is lost in 32 bits: expected"):
        check_voxels("x", image)
    check_voxels("x", image, allow_constant=True)
    for good in ((1e-9, 2e-9), (1e6, 1e6 + 1000), (5.0, 6.0)):
        check_voxels("x", torch.tensor([good]))
