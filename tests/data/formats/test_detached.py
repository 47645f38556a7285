"""The files beside a header that hold its voxels are used, and not named as left over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ldseg_monai.data import LoadImageVolumed
from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.formats import data_files

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def write(path: Path, compress: bool = False) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), useCompression=compress)


@pytest.mark.parametrize(
    ("header", "compress", "data"),
    [
        ("a.mhd", False, "a.raw"),
        ("a.mhd", True, "a.zraw"),
        ("a.nhdr", False, "a.raw"),
        ("a.nhdr", True, "a.raw.gz"),
    ],
)
def test_voxels_beside_a_header_are_used(
    tmp_path: Path, header: str, compress: bool, data: str
) -> None:
    write(tmp_path / header, compress)
    (tmp_path / "b.raw").write_bytes(b"of no header")
    assert (tmp_path / data).is_file()
    cases = find_cases(tmp_path, require_labels=False)
    assert [case["image"] for case in cases] == [str(tmp_path / header)]
    assert cases.leftovers.by_reason == {"not the ending of an image": [str(tmp_path / "b.raw")]}
    image = LoadImageVolumed("image")(cases[0])["image"]
    assert np.array_equal(image[0].numpy().T, VOXELS)


def test_they_are_used_beside_labels_too(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.mhd")
    assert not find_cases(tmp_path).leftovers


@pytest.mark.parametrize(
    ("name", "text", "used"),
    [
        ("a.mhd", "NDims = 3\nElementDataFile = LIST\nx1.raw\nx2.raw\n", ["x1.raw", "x2.raw"]),
        ("a.mhd", "ElementDataFile = x%d.raw 1 2 1\n", ["x1.raw", "x2.raw"]),
        ("a.mhd", "ElementDataFile=with space.img", ["with space.img"]),
        ("a.mhd", "ElementDataFile : x1.raw", ["x1.raw"]),
        ("a.mha", "ElementDataFile = LOCAL\nx1.raw", []),
        ("a.nhdr", "NRRD0004\ndata file: LIST\nx1.raw\nx2.raw\n", ["x1.raw", "x2.raw"]),
        ("a.nhdr", "NRRD0004\r\ndata file: x1.raw\r\nsizes: 3\r\n", ["x1.raw"]),
        ("a.nhdr", "NRRD0004\ndatafile: x%01d.raw 1 2 1\n", ["x1.raw", "x2.raw"]),
        ("a.nrrd", "NRRD0004\nsizes: 3\n\nx1.raw", []),
        ("a.hdr", "", ["a.img"]),
        ("a.png", "ElementDataFile = x1.raw", []),
        ("none.mhd", None, []),
    ],
)
def test_what_a_header_names(tmp_path: Path, name: str, text: str | None, used: list[str]) -> None:
    others = ["a.img", "x1.raw", "x2.raw", "x1xraw", "with space.img"]
    if text is not None:
        (tmp_path / name).write_text(text, newline="")
    found = data_files(str(tmp_path / name), [str(tmp_path / other) for other in others])
    assert [Path(path).name for path in found] == used


def test_a_long_header_without_files_is_read_at_once(tmp_path: Path) -> None:
    # By a pattern that could begin at each line and go on over all others, it took half a minute
    (tmp_path / "a.mhd").write_text("\n" * 2**16)
    assert data_files(str(tmp_path / "a.mhd"), [str(tmp_path / "a.raw")]) == []
