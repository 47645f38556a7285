"""Sequences of frames: which files are some, and what is read of them, beside SimpleITK and pydicom."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SegmentationStorage,
)

from ldseg_monai.data import LoadImageSequenced, case_name
from ldseg_monai.data.dicom.clips import IN_MM, MODALITY, SECONDS, frame_seconds, pixel_size
from ldseg_monai.data.formats import kinds
from ldseg_monai.data.phantoms.echo import (
    beating_ventricle,
    ejection_fraction,
    end_systole,
    frame_spacing,
)
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.data.sequences import find_sequences
from ldseg_monai.runtime.errors import InputError, MissingFileError

FRAMES = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)


def clip(name: str) -> str:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return path


def write(path: Path, frames: np.ndarray = FRAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(frames, np.diag([0.3, 0.2, 1, 1])), path)
    return path


def read(path: Path | str) -> np.ndarray:
    return np.asarray(LoadImageSequenced("image")({"image": str(path)})["image"])


def test_sequences_of_a_folder_are_its_volumes_and_all_dicom_below_it(tmp_path: Path) -> None:
    write(tmp_path / "b.nii.gz")
    write(tmp_path / "b_label.nii.gz")
    write(tmp_path / "deep" / "other.nii.gz")
    Image.new("L", (9, 7)).save(tmp_path / "still.png")
    (tmp_path / "odd.bin").write_bytes(b"odd")
    for place in ("study/1/IM1", "study/2/IM1", "A.dcm"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip("examples_ybr_color.dcm"), tmp_path / place)
    cases = find_sequences(tmp_path)
    names = [case_name(case["image"]) for case in cases]
    assert names == ["A", "b", "study_1_IM1", "study_2_IM1"]
    told = str(cases.leftovers)
    for part in ("b_label.nii.gz", "other.nii.gz", "still.png", "odd.bin"):
        assert part in told


NO_IMAGES = {
    "DICOMDIR": MediaStorageDirectoryStorage,
    "SR1": ComprehensiveSRStorage,
    "a_seg.dcm": SegmentationStorage,
}


def test_dicom_that_is_no_image_is_left_out_by_what_it_is(tmp_path: Path) -> None:
    for name, kind in NO_IMAGES.items():
        item = pydicom.Dataset()
        item.SOPClassUID, item.SOPInstanceUID, item.Modality = kind, "1.2.3", "SR"
        item.file_meta = pydicom.dataset.FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.save_as(tmp_path / name, enforce_file_format=True)
    with pytest.raises(MissingFileError, match="no image: Comprehensive SR Storage"):
        find_sequences(tmp_path / "SR1")
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = "1.3.6.1.4.1.99"  # a vendor's
    item.save_as(tmp_path / "own", enforce_file_format=True)
    shutil.copy(clip("examples_ybr_color.dcm"), tmp_path / "clip")
    cut = (tmp_path / "clip").read_bytes()[:200]  # within its class
    (tmp_path / "cut").write_bytes(cut)
    cases = find_sequences(tmp_path)
    assert [case_name(case["image"]) for case in cases] == ["clip", "cut", "own"]
    told = str(cases.leftovers)
    for name, kind in NO_IMAGES.items():
        assert f"(DICOM, but no image: {kind.name}): {tmp_path / name}" in told


def test_a_folder_without_sequences_is_an_error(tmp_path: Path) -> None:
    Image.new("L", (9, 7)).save(tmp_path / "still.png")
    with pytest.raises(MissingFileError, match=r"no sequences in .*still\.png"):
        find_sequences(tmp_path)
    with pytest.raises(MissingFileError, match="does not exist"):
        find_sequences(tmp_path / "none")


@pytest.mark.parametrize("shape", [(9, 7, 4), (9, 7, 1, 4), (9, 7, 4, 1)])
def test_volumes_are_columns_rows_and_frames(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write(tmp_path / "a.nii", FRAMES.reshape(shape))
    assert np.array_equal(read(path)[0], FRAMES)


def test_a_picture_in_nifti_is_one_frame(tmp_path: Path) -> None:
    assert np.array_equal(read(write(tmp_path / "a.nii", FRAMES[..., 0]))[0], FRAMES[..., :1])


def test_colors_in_nifti_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 channels: expected 1"):
        read(write(tmp_path / "a.nii", np.stack([FRAMES] * 3, axis=-1)))


def test_dicom_frames_are_gray_as_simpleitk_reads_their_colors() -> None:
    path = clip("examples_ybr_color.dcm")
    item = LoadImageSequenced("image")({"image": path})["image"]
    assert item.shape == (1, 320, 240, 30)
    colors = sitk.GetArrayFromImage(sitk.ReadImage(path))  # (frames, rows, columns, 3)
    gray = colors @ np.array([0.299, 0.587, 0.114])
    assert np.abs(np.asarray(item[0]) - gray.transpose(2, 1, 0)).mean() < 1
    header = pydicom.dcmread(path)
    assert item.meta[SECONDS] == pytest.approx(float(header.FrameTime) / 1000)
    assert item.meta[MODALITY] == "US"
    region = header.SequenceOfUltrasoundRegions[0]
    assert item.meta[IN_MM]
    sides = np.linalg.norm(np.asarray(item.affine)[:3, :3], axis=0)
    assert sides[:2] == pytest.approx([10 * region.PhysicalDeltaX, 10 * region.PhysicalDeltaY])


@pytest.mark.parametrize(
    ("name", "shape"),
    [("examples_rgb_color.dcm", (320, 240)), ("examples_palette.dcm", (800, 350))],
)
def test_a_still_in_dicom_is_one_frame_of_gray(name: str, shape: tuple[int, int]) -> None:
    frames = read(clip(name))
    assert frames.shape == (1, *shape, 1)
    item = pydicom.dcmread(clip(name))
    pixels = pydicom.pixels.apply_color_lut(item.pixel_array, item) if "palette" in name else None
    colors = item.pixel_array if pixels is None else pixels
    largest = 255 if colors.max() < 256 else 65535
    picture = Image.fromarray((colors * (255 / largest)).astype(np.uint8)).convert("L")
    assert np.abs(frames[0, ..., 0].T * (255 / largest) - np.asarray(picture)).max() < 2


@pytest.mark.parametrize("signed", [False, True])
def test_gray_of_which_the_largest_is_the_darkest_is_as_its_inverse(
    tmp_path: Path, signed: bool
) -> None:
    item = pydicom.dcmread(clip("MR_small.dcm"))
    del item.ImagePositionPatient
    item.PixelRepresentation = int(signed)
    kind = np.int16 if signed else np.uint16
    stored = item.pixel_array.astype(kind)
    for name, values in (("MONOCHROME2", stored), ("MONOCHROME1", ~stored)):
        item.PhotometricInterpretation, item.PixelData = name, values.tobytes()
        item.save_as(tmp_path / name)
    black, white = (read(tmp_path / name) for name in ("MONOCHROME2", "MONOCHROME1"))
    assert np.array_equal(black[0, ..., 0].T, stored)
    assert np.array_equal(white, black)


def test_a_clip_with_a_broken_header_is_named(tmp_path: Path) -> None:
    item = pydicom.dcmread(clip("examples_ybr_color.dcm"))
    del item.SequenceOfUltrasoundRegions[0].RegionLocationMaxX1
    item.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"a\.dcm cannot be read as DICOM .*RegionLocationMaxX1"):
        read(tmp_path / "a.dcm")


def test_slices_of_a_volume_are_no_sequence() -> None:
    with pytest.raises(InputError, match="slices of a volume"):
        read(clip("MR_small.dcm"))


def test_pixel_sizes_and_times_of_headers() -> None:
    header = pydicom.Dataset()
    assert pixel_size(header) is None
    assert frame_seconds(header) is None
    header.PixelSpacing = [0.4, 0.3]
    assert pixel_size(header) == (0.3, 0.4)
    header.CineRate = 50
    assert frame_seconds(header) == pytest.approx(0.02)
    header.FrameTimeVector = [0, 30, 50]
    assert frame_seconds(header) == pytest.approx(0.04)
    header.FrameTime = 25
    assert frame_seconds(header) == pytest.approx(0.025)
    small, large, doppler = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    for region, width, delta in ((small, 10, 0.5), (large, 100, 0.02), (doppler, 500, 0.7)):
        region.RegionSpatialFormat = 1
        region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
        region.PhysicalDeltaX, region.PhysicalDeltaY = delta, -2 * delta
        region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
        region.RegionLocationMaxX1 = region.RegionLocationMaxY1 = width
    doppler.PhysicalUnitsXDirection = 4  # seconds
    header.SequenceOfUltrasoundRegions = [small, doppler, large]
    assert pixel_size(header) == pytest.approx((0.2, 0.4))


def test_a_phantom_ejects_the_share_that_it_says(tmp_path: Path) -> None:
    write_phantoms("beat", tmp_path, 2, seed=3)
    for index in range(2):
        seed = [3, index]
        volume = nib.load(tmp_path / "labels" / f"case_{index:03d}.nii.gz")
        labels = np.asarray(volume.dataobj)
        frames, _ = beating_ventricle(seed, labels.shape[2])
        image = nib.load(tmp_path / "images" / f"case_{index:03d}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), frames.transpose(2, 1, 0))
        assert volume.header.get_zooms()[:2] == pytest.approx(frame_spacing(seed))
        areas = (labels == 1).sum(axis=(0, 1))
        least = areas[end_systole(labels.shape[2])]
        assert 1 - least / areas[0] == pytest.approx(ejection_fraction(seed), abs=0.02)
        depth = labels.shape[1] * frame_spacing(seed)[1]
        assert 150 < depth < 170  # mm


def turned(columns: list[float], rows: list[float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = columns, rows, np.cross(columns, rows)
    return affine


@pytest.mark.parametrize(
    ("affine", "is_told"),
    [
        (turned([0.3, 0, 0], [0, 0.2, 0]), False),  # as nibabel writes a plain array
        (turned([-0.3, 0, 0], [0, -0.2, 0]), False),  # as ITK does
        (turned([-0.3, 0, 0], [0, 0, -0.2]), False),  # a frontal plane
        (turned([0, 0.3, 0], [0.2, 0, 0]), True),  # columns and rows swapped
        (turned([0.3, 0, 0], [0, -0.2, 0]), True),  # mirrored
        (turned([0.26, 0.15, 0], [-0.1, 0.17, 0]), True),  # by 30 degrees
    ],
)
def test_frames_that_a_header_turns_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    affine: np.ndarray,
    is_told: bool,
) -> None:
    monkeypatch.setattr(kinds, "_told", set())
    nib.save(nib.Nifti1Image(FRAMES, affine), tmp_path / "a.nii.gz")
    assert np.array_equal(read(tmp_path / "a.nii.gz")[0], FRAMES)  # as stored in any case
    assert ("a.nii.gz has columns or rows that its header turns" in caplog.text) is is_told
