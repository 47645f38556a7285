from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gray_bands import best_band_dice
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.data.phantoms.thorax import Chest, thorax_phantom

Phantom = tuple[NDArray, NDArray]


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [thorax_phantom([7, index]) for index in range(3)]


def test_arrays_are_what_scanners_and_annotators_write(phantoms: list[Phantom]) -> None:
    assert len({image.shape for image, _ in phantoms}) > 1
    assert np.ptp([image.shape[0] / image.shape[1] for image, _ in phantoms]) > 0.05
    for image, label in phantoms:
        assert (image.dtype, label.dtype) == (np.uint8, np.int32)
        assert image.shape == label.shape
        assert all(300 <= side <= 430 for side in image.shape)
        assert np.unique(label).tolist() == [0, 1, 2]


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(phantoms: list[Phantom]) -> None:
    for one, two in zip(phantoms[2], thorax_phantom([7, 2]), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(phantoms[0][1], phantoms[1][1])


def test_each_lung_is_one_whole_piece_and_the_right_one_is_at_the_left(
    phantoms: list[Phantom],
) -> None:
    for _, label in phantoms:
        columns = []
        for lung in (1, 2):
            mask = label == lung
            assert ndimage.label(mask)[1] == 1 and 0.07 < mask.mean() < 0.22
            assert mask.sum() == mask[1:-1, 1:-1].sum()  # not cut by the picture's border
            columns.append(ndimage.center_of_mass(mask)[1])
        assert columns[1] - columns[0] > 0.25 * label.shape[1]
        assert not (ndimage.binary_dilation(label == 1) & (label == 2)).any()


def test_the_heart_takes_of_the_left_lung() -> None:
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0:2:80j, -1:1:80j]
    for _ in range(5):
        heart = Chest.draw(rng).heart(across, down)
        assert heart[across > 0].sum() > 1.5 * heart[across < 0].sum() > 0


def test_lungs_are_darker_than_what_is_around_but_gray_levels_do_not_do(
    phantoms: list[Phantom],
) -> None:
    for image, label in phantoms:
        lungs = label > 0
        around = ndimage.binary_dilation(lungs, iterations=12) & ~lungs
        assert image[around].mean() > image[lungs].mean() + 15
        assert best_band_dice(image, lungs) < 0.88
        smooth = ndimage.gaussian_filter(image, 3)
        assert best_band_dice(smooth, lungs) < 0.9


def test_written_ones_read_back(tmp_path: Path) -> None:
    write_phantoms("thorax", tmp_path, 1, seed=7)
    image, label = thorax_phantom([7, 0])
    picture = Image.open(tmp_path / "images" / "case_000.png")
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), image)
    written = np.asarray(Image.open(tmp_path / "labels" / "case_000_anno.png"))
    np.testing.assert_array_equal(written, label)
