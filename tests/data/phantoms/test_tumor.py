from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.phantoms.files import phantoms_complete, write_phantoms
from ldseg_monai.data.phantoms.tumor import SEQUENCES, tumor_phantom


@pytest.fixture(scope="module")
def tumors() -> list[tuple[NDArray, NDArray, NDArray]]:
    return [tumor_phantom([0, number]) for number in range(2)]


def best_dice(value: NDArray, mask: NDArray, inside: NDArray) -> float:
    """The best Dice of a mask by any band of gray levels of the voxels inside."""
    levels = np.quantile(value[inside], np.linspace(0, 1, 21))
    best = 0.0
    for number, low in enumerate(levels):
        for high in levels[number + 1 :]:
            found = (value >= low) & (value <= high) & inside
            best = max(best, 2 * (found & mask).sum() / (found.sum() + mask.sum()))
    return best


def test_no_sequence_alone_shows_both_classes(tumors: list) -> None:
    for image, label, _ in tumors:
        flair, t1 = image[..., 0].astype(float), image[..., 1].astype(float)
        head = flair > np.quantile(flair, 0.75)
        lesion, core = label > 0, label == 2
        assert best_dice(flair, lesion, head | lesion) > 0.8  # edema and core as one
        assert best_dice(flair, core, lesion) < 0.75  # where it is in there is not seen
        assert best_dice(t1, label == 1, np.ones(label.shape, bool)) < 0.3
        assert best_dice(t1, core, lesion) > 0.9


def test_a_sequence_is_the_same_however_many_there_are(tumors: list) -> None:
    image, label, affine = tumor_phantom([0, 1], channels=5)
    assert image.shape == (*label.shape, 5) and len(SEQUENCES) == 4
    np.testing.assert_array_equal(image[..., :2], tumors[1][0])
    np.testing.assert_array_equal(affine, tumors[1][2])
    assert not np.array_equal(image[..., 4], image[..., 0])  # the same contrast, other noise
    alone, *_ = tumor_phantom([0, 1], channels=1)
    np.testing.assert_array_equal(alone, image[..., 0])


def test_files_of_channels_are_a_data_set(tmp_path) -> None:
    write_phantoms("tumor", tmp_path, 1, channels=2)
    assert phantoms_complete("tumor", tmp_path, 1, channels=2)
    assert not phantoms_complete("tumor", tmp_path, 1)
    (case,) = find_cases(tmp_path)
    names = [path.rpartition("/")[2] for path in case["image"]]
    assert names == ["case_000_0000.nii.gz", "case_000_0001.nii.gz"]
    with pytest.raises(ValueError, match="phantom knee of 2 channels: expected 1, or more of tumo"):
        write_phantoms("knee", tmp_path / "other", 1, channels=2)
