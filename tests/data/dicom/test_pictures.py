"""DICOM files of one frame that are pictures: radiographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from small_bundles import BUNDLES

from ldseg_monai import Segmenter
from ldseg_monai.data import LoadImagePictured, case_name, resolve_datalist
from ldseg_monai.data.dicom.pictures import load_dicom_picture
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.runtime.errors import InputError

STORED = np.arange(600, dtype=np.uint16).reshape(20, 30) * 6 + 100  # from 100 to 3694, 12 bits
COLORS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def write(
    path: Path, pixels: NDArray[Any] = STORED, bits: int = 12, syntax: str = "", **tags: Any
) -> Path:
    """Write a radiograph; tags are of its header, None to leave out."""
    item = pydicom.Dataset()
    item.file_meta = pydicom.dataset.FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.SOPClassUID = DigitalXRayImageStorageForPresentation
    item.SOPInstanceUID, item.SeriesInstanceUID = generate_uid(), generate_uid()
    item.Modality = "DX"
    item.Rows, item.Columns = pixels.shape[:2]
    item.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    item.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        item.PlanarConfiguration = 0
    item.BitsAllocated, item.BitsStored, item.HighBit = 8 * pixels.itemsize, bits, bits - 1
    item.PixelRepresentation = 0
    item.PixelData = pixels.tobytes()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    if "PixelPaddingValue" in tags:
        item["PixelPaddingValue"].VR = "US"
    if syntax:
        item.compress(syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)
    return path


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers from 0, the least, to 255, the largest."""
    low, high = float(values.min()), float(values.max())
    return np.rint(255 * (values - low) / (high - low)).astype(np.uint8)


def window(values: NDArray[Any], center: float, width: float) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2.1, from 0 to 1."""
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def shown(path: Path) -> NDArray[Any]:
    return np.asarray(load_dicom_picture(str(path)))


def test_without_a_window_the_darkest_and_the_brightest_pixel_are_the_ends(tmp_path: Path) -> None:
    plain = shown(write(tmp_path / "a.dcm"))
    assert plain.dtype == np.uint8 and np.array_equal(plain, stretched(STORED))
    compressed = shown(write(tmp_path / "b.dcm", syntax=RLELossless))
    assert np.array_equal(compressed, plain)


def test_the_first_window_is_of_rescaled_values(tmp_path: Path) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "RescaleType": "US"}
    path = write(tmp_path / "a.dcm", WindowCenter=[2000, 1], WindowWidth=[3000, 2], **tags)
    expected = stretched(window(2.0 * STORED - 1000, 2000, 3000))
    assert np.abs(shown(path).astype(int) - expected).max() <= 1  # of rounding
    assert (expected == 0).sum() > 20 and (expected == 255).sum() > 20


@pytest.mark.parametrize("width", [0, [0, 500], "", None])
def test_a_window_of_no_width_is_none(tmp_path: Path, width: Any) -> None:
    path = write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=width)
    assert np.array_equal(shown(path), stretched(STORED))


def test_monochrome1_is_bright_where_its_numbers_are_small(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", 4095 - STORED, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(shown(path), stretched(STORED))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_dark_and_takes_no_part_in_the_range(tmp_path: Path, kind: str) -> None:
    pixels = STORED if kind == "MONOCHROME2" else 4095 - STORED
    pixels = pixels.copy()
    pixels[:3] = 4095 if kind == "MONOCHROME2" else 0
    tags = {"PixelPaddingValue": int(pixels[0, 0]), "PhotometricInterpretation": kind}
    picture = shown(write(tmp_path / "a.dcm", pixels, **tags))
    assert not picture[:3].any() and np.array_equal(picture[3:], stretched(STORED[3:]))


def test_colors_stay(tmp_path: Path) -> None:
    assert np.array_equal(shown(write(tmp_path / "a.dcm", COLORS, 8)), COLORS)


def as_report(item: pydicom.Dataset) -> None:
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"


def as_slice(item: pydicom.Dataset) -> None:
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = CTImageStorage
    item.ImagePositionPatient = [0, 0, 0]


def as_frames(item: pydicom.Dataset) -> None:
    item.NumberOfFrames, item.PixelData = 2, 2 * item.PixelData


def as_cut(item: pydicom.Dataset) -> None:
    item.PixelData = item.PixelData[:100]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_report, r"is DICOM, but no picture \(Comprehensive SR Storage\): expected one frame"),
        (as_slice, r"no picture \(slices of a volume\): .*use a bundle for volumes"),
        (as_frames, r"no picture \(several frames\)"),
        (as_cut, "pixels cannot be read .*less than expected"),
    ],
)
def test_what_is_no_picture_is_refused(
    tmp_path: Path, change: Callable[[pydicom.Dataset], None], message: str
) -> None:
    path = write(tmp_path / "a.dcm")
    item = pydicom.dcmread(path)
    change(item)
    item.save_as(path)
    with pytest.raises(InputError, match=message) as caught:
        load_dicom_picture(str(path))
    assert str(path) in str(caught.value)


def listed(place: Path) -> dict[str, str]:
    """Path of each case below a place, by its name."""
    cases = resolve_datalist(place, "thorax", "", require_labels=False, dicom_pictures=True)
    return {case_name(case["image"]): Path(case["image"]).name for case in cases}


def test_every_dicom_file_below_a_folder_is_a_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(stretched(STORED)).save(tmp_path / "a.png")
    write(tmp_path / "b.dcm")
    write(tmp_path / "study" / "c.DCM")
    write(tmp_path / "study" / "IM0001")
    (tmp_path / "study" / "empty.dcm").touch()
    report = write(tmp_path / "study" / "report")
    item = pydicom.dcmread(report)
    as_report(item)
    item.save_as(report)
    assert listed(tmp_path) == {
        "a": "a.png", "b": "b.dcm", "c": "c.DCM", "IM0001": "IM0001", "empty": "empty.dcm"
    }  # fmt: skip
    assert f"(DICOM, but no picture: Comprehensive SR Storage): {report}" in caplog.text
    assert listed(tmp_path / "b.dcm") == {"b": "b.dcm"}
    write(tmp_path / "study" / "b.dcm")  # of one name, but for its folder
    assert {"b", "study_b"} < set(listed(tmp_path))


def test_it_is_read_as_the_picture_of_its_pixels(tmp_path: Path) -> None:
    pixels = np.asarray(Image.fromarray(stretched(STORED)))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    write(tmp_path / "b.dcm", pixels, 8)
    load = LoadImagePictured("image", "L")
    one, other = (load({"image": str(tmp_path / name)})["image"] for name in ("a.png", "b.dcm"))
    assert np.array_equal(one, other) and one.shape == (1, 30, 20)


@pytest.mark.parametrize("name", ["ldseg_cxr", "cdal_cxr"])
def test_bundles_of_radiographs_segment_it(tmp_path: Path, name: str) -> None:
    write_phantoms("thorax", tmp_path, 1, seed=0)
    (path,) = (tmp_path / "images").iterdir()
    pixels = stretched(np.asarray(Image.open(path).convert("L")))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    segment = Segmenter(BUNDLES / name, num_samples=1)
    expected = segment(tmp_path / "a.png").label
    found = segment(write(tmp_path / "b.dcm", pixels, 8)).label
    assert np.array_equal(found, expected) and found.any()
