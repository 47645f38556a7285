from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gray_bands import best_band_dice
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ldseg_monai.data.phantoms.echo import (
    beating_ventricle,
    echo_phantom,
    ejection_fraction,
    end_systole,
)
from ldseg_monai.data.phantoms.files import write_phantoms

Phantom = tuple[NDArray, NDArray]
CAVITY, MUSCLE, ATRIUM = 1, 2, 3
FRAMES = 6


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [echo_phantom([7, index]) for index in range(3)]


@pytest.fixture(scope="module")
def beat() -> Phantom:
    return beating_ventricle(3, FRAMES)


def test_arrays_are_what_scanners_and_annotators_write(phantoms: list[Phantom]) -> None:
    assert len({image.shape for image, _ in phantoms}) > 1
    for image, label in phantoms:
        assert (image.dtype, label.dtype) == (np.uint8, np.uint8)
        assert image.shape == label.shape
        assert all(abs(n - about) <= 16 for n, about in zip(label.shape, (300, 260), strict=True))
        assert np.unique(label).tolist() == [0, CAVITY, MUSCLE, ATRIUM]


def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(phantoms: list[Phantom]) -> None:
    for one, two in zip(phantoms[2], echo_phantom([7, 2]), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(phantoms[0][1], phantoms[1][1])


def test_the_corners_are_black_and_the_fan_is_not(phantoms: list[Phantom]) -> None:
    for image, label in phantoms:
        height, width = image.shape
        for columns in (slice(0, width // 4), slice(-(width // 4), None)):
            assert (image[: height // 4, columns] == 0).all()
        assert (image[-1] == 0).sum() > width // 2
        assert image[label > 0].mean() > 20


def test_each_part_is_one_piece_of_sensible_size(phantoms: list[Phantom]) -> None:
    for _, label in phantoms:
        for part in (CAVITY, MUSCLE, ATRIUM):
            assert ndimage.label(label == part, np.ones((3, 3)))[1] == 1
            assert 0.02 < (label == part).mean() < 0.15


def test_the_cavity_is_enclosed_by_its_muscle_and_the_atrium_below(
    phantoms: list[Phantom],
) -> None:
    for _, label in phantoms:
        cavity = label == CAVITY
        border = label[ndimage.binary_dilation(cavity) & ~cavity]
        assert np.unique(border).tolist() == [MUSCLE, ATRIUM]
        assert (border == MUSCLE).sum() > 2 * (border == ATRIUM).sum()
        rows = [ndimage.center_of_mass(label == part)[0] for part in (CAVITY, ATRIUM)]
        assert rows[0] + 0.2 * label.shape[0] < rows[1]


def test_muscle_is_brighter_than_the_cavity_but_gray_levels_do_not_do(
    phantoms: list[Phantom],
) -> None:
    for image, label in phantoms:
        assert image[label == MUSCLE].mean() > image[label == CAVITY].mean() + 10
        for sigma in (0, 2):
            smooth = ndimage.gaussian_filter(image, sigma)
            for part in (CAVITY, MUSCLE, ATRIUM):
                assert best_band_dice(smooth, label == part) < 0.7


def test_speckle_is_blurred_along_the_arcs(phantoms: list[Phantom]) -> None:
    for image, _ in phantoms:
        height, width = image.shape
        deep = image[int(0.85 * height) : int(0.95 * height), width // 2 - 25 : width // 2 + 25]
        detail = deep - ndimage.gaussian_filter(deep.astype(float), 5)
        across = (detail[:, 1:] * detail[:, :-1]).mean()
        down = (detail[1:] * detail[:-1]).mean()
        assert across > down


def test_the_cavity_beats_with_the_stated_fraction(beat: Phantom) -> None:
    frames, labels = beat
    assert (frames.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert frames.shape == labels.shape and len(frames) == FRAMES
    area = (labels == CAVITY).sum(axis=(1, 2))
    least = end_systole(FRAMES)
    assert area.argmax() == 0 and area.argmin() == least
    assert (np.diff(area)[:least] < 0).all() and (np.diff(area)[least:] > 0).all()
    fraction = 1 - area[least] / area[0]
    assert 0.3 <= ejection_fraction(3) <= 0.6
    assert fraction == pytest.approx(ejection_fraction(3), abs=0.015)


def test_fan_and_speckle_stay_over_the_beat(beat: Phantom) -> None:
    frames, labels = beat
    still = (labels == 0).all(axis=0)  # never heart's
    fan = frames.max(axis=0) > 0
    means = [frame[fan & still].mean() for frame in frames]
    spreads = [frame[fan & still].std() for frame in frames]
    assert np.ptp(means) < 0.1 * np.mean(means) and np.ptp(spreads) < 0.1 * np.mean(spreads)
    for frame in frames:
        assert ((frame > 0) & fan).sum() > 0.9 * fan.sum()
    assert not np.array_equal(frames[0][still], frames[1][still])
    assert len({(label > 0).sum() for label in labels}) > 1


@pytest.mark.parametrize("num_frames", [2, 3])
def test_a_beat_may_be_short(num_frames: int) -> None:
    frames, labels = beating_ventricle(0, num_frames)
    area = (labels == CAVITY).sum(axis=(1, 2))
    assert len(frames) == num_frames and area.argmin() == end_systole(num_frames) == 1


def test_a_beat_of_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="num_frames 1: expected 2 or more"):
        beating_ventricle(0, 1)


def test_written_ones_read_back(tmp_path: Path) -> None:
    write_phantoms("echo", tmp_path, 1, seed=7)
    for folder, name, array in zip(
        ("images", "labels"), ("case_000", "case_000_anno"), echo_phantom([7, 0]), strict=True
    ):
        picture = Image.open(tmp_path / folder / f"{name}.png")
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), array)
