"""LABELMAP segmentations, read again by highdicom, and beside the binary ones of the same labels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_phantoms import OBLIQUE, SERIES
from export_phantoms import blobs, write_metadata
from monai.data import MetaTensor
from monai.transforms import LoadImage

from ldseg_monai.data import SaveImageDicomSegd
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.dicom.reader import NiftiOrDicomReader
from ldseg_monai.data.exports import SaveImageAsd

load = LoadImage(NiftiOrDicomReader(), ensure_channel_first=True)


def write(folder: Path, label: np.ndarray, tmp_path: Path, **meta: Any) -> Path:
    """Write a label map `(slices, rows, columns)` of a series as both kinds."""
    image = load(folder)
    voxels = np.ascontiguousarray(label.transpose(2, 1, 0))[None]
    data = {"pred": MetaTensor(voxels, meta={**image.meta, **meta})}
    metadata, out = write_metadata(tmp_path), str(tmp_path / "out")
    SaveImageAsd("pred", out, "labelmap", metadata)(data)
    SaveImageDicomSegd("pred", out, metadata)(data)
    return tmp_path / "out" / f"{folder.name}_labelmap.dcm"


STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"  # SOP class of label map segmentations


# Of the tilted one highdicom makes no volume
@pytest.mark.parametrize("name", [name for name in SERIES if name != "tilted"])
def test_highdicom_reads_the_labels_at_their_places(tmp_path: Path, name: str) -> None:
    series = SERIES[name]
    label = blobs(series.shape)
    path = write(series.write(tmp_path / "series"), label, tmp_path)
    volumes = []
    for kind in (path, path.with_name("series_seg.dcm")):
        segmentation = highdicom.seg.segread(kind)
        volumes.append(segmentation.get_volume(combine_segments=True))
    mapped, binary = volumes
    assert np.array_equal(mapped.affine, binary.affine)
    assert np.array_equal(mapped.array, binary.array)
    # In the order of highdicom's axes, which may be the other way round
    assert np.array_equal(mapped.array, label) or np.array_equal(mapped.array[::-1], label)


def test_it_is_what_the_supplement_says(tmp_path: Path) -> None:
    label = blobs(OBLIQUE.shape)
    label[2] = 0
    item = pydicom.dcmread(write(OBLIQUE.write(tmp_path / "series"), label, tmp_path))
    assert item.SOPClassUID == item.file_meta.MediaStorageSOPClassUID == STORAGE
    assert item.SegmentationType == "LABELMAP" and item.SegmentsOverlap == "NO"
    assert item.PixelPaddingValue == 0 and item.BitsAllocated == 8
    named = {one.SegmentNumber: one.SegmentLabel for one in item.SegmentSequence}
    assert {number: named[number] for number in (1, 2, 3)} == {
        1: "femur",
        2: "left/right lump",
        3: "absent",
    }
    # A frame a slice, where a binary one has one for each class and slice that has any of it
    assert item.NumberOfFrames == len([plane for plane in label if plane.any()])
    assert set(np.unique(item.pixel_array)) == {0, 1, 2}


def test_weights_that_do_not_know_the_image_are_told(tmp_path: Path) -> None:
    folder = OBLIQUE.write(tmp_path / "series")
    path = write(folder, blobs(OBLIQUE.shape), tmp_path, **{OUTSIDE: "its modality is CT"})
    item = pydicom.dcmread(path)
    assert item.SeriesDescription == "OUTSIDE OF KNOWN IMAGES: A method of two steps"
    assert item.ContentDescription == "its modality is CT"


def test_series_that_can_take_none_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = OBLIQUE.write(tmp_path / "series")
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        del item.StudyInstanceUID
        item.save_as(path)
    with caplog.at_level(logging.WARNING, "ldseg_monai"):
        assert not write(folder, blobs(OBLIQUE.shape), tmp_path).exists()
    assert "no LABELMAP segmentation of" in caplog.text
