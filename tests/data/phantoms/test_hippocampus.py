from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ldseg_monai.data.phantoms.hippocampus import hippocampus_phantom

Phantom = tuple[NDArray, NDArray, NDArray]


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [hippocampus_phantom([7, index]) for index in range(4)]


def test_arrays_are_what_scanners_and_annotators_write(phantoms: list[Phantom]) -> None:
    for image, label, affine in phantoms:
        assert (image.dtype, label.dtype) == (np.int16, np.uint8) and image.shape == label.shape
        about = (35, 50, 35)
        assert all(abs(n - side) <= 3 for n, side in zip(image.shape, about, strict=True))
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        assert np.abs(spacing - 1).max() <= 0.03
        assert np.unique(label).tolist() == [0, 1, 2] and image.min() >= 0


def test_it_is_one_body_of_two_parts_the_first_in_front(phantoms: list[Phantom]) -> None:
    for _, label, affine in phantoms:
        for mask in (label > 0, label == 1, label == 2):
            sizes = np.bincount(ndimage.label(mask)[0].ravel())[1:]
            assert sizes.max() > 0.99 * sizes.sum() and 300 < sizes.sum() < 4000
        front, back = (
            np.mean([(affine @ [*index, 1])[1] for index in np.argwhere(label == part)])
            for part in (1, 2)
        )
        assert front > back + 8  # mm
        assert (label == 1).sum() > (label == 2).sum()
        inside = label[1:-1, 1:-1, 1:-1]
        assert (inside > 0).sum() == (label > 0).sum()  # not cut by the field of view


def test_it_is_darker_than_white_matter_and_gray_levels_are_not_enough(
    phantoms: list[Phantom],
) -> None:
    for image, label, _ in phantoms:
        low, high = np.percentile(image[label > 0], (25, 75))
        assert high < np.percentile(image, 90)
        alike = (image >= low) & (image <= high) & (label == 0)
        assert alike.sum() > (label > 0).sum()


def test_axes_are_flipped_in_some() -> None:
    codes = {"".join(nib.aff2axcodes(hippocampus_phantom([0, index])[2])) for index in range(6)}
    assert len(codes) > 1
