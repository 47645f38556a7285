from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_data import write_picture, write_volume

from ldseg_monai.data.datalist import paired_datalist
from ldseg_monai.tools.new_bundle.inspection import inspect_datalist
from ldseg_monai.tools.new_bundle.instances import are_instances, values_in_one_piece
from ldseg_monai.tools.new_bundle.write import new_bundle

GLAS = str(Path(__file__).parents[3] / "bundles" / "ldseg_glas")


def spots(number: int, first: int = 1, step: int = 1) -> np.ndarray:
    """A picture of so many squares, each with a value of its own."""
    label = np.zeros((64, 96), np.uint8)
    for index in range(number):
        row, column = divmod(index, 8)
        label[8 * row + 2 : 8 * row + 6, 12 * column + 2 : 12 * column + 8] = first + step * index
    return label


@pytest.mark.parametrize("dims", [2, 3])
def test_pieces_are_counted_by_value(dims: int) -> None:
    label = spots(7)
    label[60, 90] = 3  # a second piece
    label[61, 91] = 3  # that touches it by a corner
    if dims == 3:
        label = np.stack([label] * 3)
    assert values_in_one_piece(label) == 6
    assert values_in_one_piece(spots(4)) == 0


@pytest.mark.parametrize(
    ("values", "single", "expected"),
    [
        ([range(1, 8), range(1, 12), range(1, 6)], [7, 11, 5], True),  # counted in each case
        ([{3, 40, 41, 77, 78}, {5, 6, 9, 90, 91}], [5, 5], True),  # counted over all cases
        ([range(1, 14), range(1, 14)], [13, 13], False),  # 13 organs
        ([{*range(1, 14)} - {4}, range(1, 14)], [12, 13], False),  # one of them missing
        ([range(1, 8), range(1, 12)], [4, 5], False),  # classes of many pieces
        ([{1}, {1, 2}], [0, 0], False),  # few classes, of which one may be missing
        ([set(), range(1, 8), range(1, 6)], [0, 7, 5], True),
        ([], [], False),
    ],
)
def test_instances_are_many_of_one_piece_and_of_their_own_number(
    values: list, single: list[int], expected: bool
) -> None:
    assert are_instances(values, single) == expected


def write_spots(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for index, number in enumerate((5, 12, 30)):
        label = spots(number)
        image = rng.integers(0, 255, (*label.shape, 3)).astype(np.uint8)
        write_picture(folder, f"cells_{index}", image, label)


def test_new_bundle_asks_whether_they_are_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_spots(Path("data"))
    with pytest.raises(ValueError) as raised:
        new_bundle(GLAS, "cells", "data")
    assert str(raised.value) == (
        "the labels have 30 values beside 0, nearly each of one piece, and another number of them "
        "in each case (cells_0 5, cells_1 12, cells_2 30): these look like instance ids; pass "
        "--instances, and whatever is not 0 is one class, or pass --classes with a name for each "
        "value if they are classes"
    )
    assert not Path("bundles").exists()
    assert "whatever is not 0 is one class" in new_bundle(GLAS, "cells", "data", instances=True)


def test_volume_of_two_classes_has_no_instances(tmp_path: Path) -> None:
    label = np.zeros((12, 12, 12), np.uint8)
    label[2:5], label[6:9] = 1, 2
    for name in "ab":
        write_volume(tmp_path, name, np.random.default_rng(0).random((12, 12, 12)), label)
    inspection = inspect_datalist(paired_datalist(tmp_path))
    assert not inspection.has_instances
