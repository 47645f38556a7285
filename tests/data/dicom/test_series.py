"""Which series a folder has, and what is no volume."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_phantoms import AXIAL, OBLIQUE, SERIES, Series
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    SegmentationStorage,
    generate_uid,
)

from ldseg_monai.data import datalist
from ldseg_monai.data.datalist import case_name, resolve_datalist
from ldseg_monai.data.dicom.reader import NiftiOrDicomReader, _Place
from ldseg_monai.data.dicom.series import read_series, series_datalist, slice_affine

OTHER = replace(AXIAL, uid=generate_uid(entropy_srcs=["other series"]))


def resolve(folder: Path, series_uid: str | None = "") -> list[dict]:
    return resolve_datalist(
        folder, "knee", folder / "no phantoms", require_labels=False, series_uid=series_uid
    )


def write_other_object(path: Path, modality: str | None = "SEG") -> None:
    """A DICOM file that is no slice; without a modality it is a DICOMDIR, which has no series either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    item = pydicom.Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.SOPClassUID = MediaStorageDirectoryStorage if modality is None else SegmentationStorage
    item.SOPInstanceUID = generate_uid()
    if modality is not None:
        item.Modality, item.SeriesInstanceUID, item.Rows, item.Columns = (
            modality,
            generate_uid(),
            4,
            4,
        )
    item.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("name", SERIES)
def test_slices_are_sorted_along_their_normal_and_placed(tmp_path: Path, name: str) -> None:
    series = SERIES[name]
    slices = read_series(series.write(tmp_path / "series"))
    assert [item.SOPInstanceUID for item in slices] == [
        item.SOPInstanceUID for item in series.datasets()
    ]
    affine = slice_affine(slices)
    for index in [(0, 0, 0), (7, 0, 0), (0, 9, 0), (0, 0, 6), (3, 8, 5)]:  # column, row, slice
        expected = series.positions()[index[::-1]] * [-1, -1, 1]
        assert (affine @ [*index, 1])[:3] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "thickness"),
    [
        ({}, 3.0),
        ({"SpacingBetweenSlices": 4.5}, 4.5),
        ({"SliceThickness": None}, 1.0),
        ({"SliceThickness": ""}, 1.0),
    ],
)
def test_a_single_slice_is_as_thick_as_it_says(
    tmp_path: Path, changes: dict, thickness: float
) -> None:
    single = replace(OBLIQUE, shape=(1, 10, 8))
    affine = slice_affine(read_series(single.write(tmp_path / "series", **changes)))
    assert affine[:3, 2] == pytest.approx(single.axes[:, 0] * [-1, -1, 1] * thickness, abs=1e-5)


def test_positions_rounded_to_a_tenth_of_a_mm_are_even(tmp_path: Path) -> None:
    fine = replace(AXIAL, shape=(9, 4, 4), spacing=(0.625, 1.0, 1.0))
    folder = fine.write(tmp_path)
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        item.ImagePositionPatient[2] = round(float(item.ImagePositionPatient[2]), 1)
        item.save_as(path)
    affine = slice_affine(read_series(folder))
    assert affine[2, 2] == pytest.approx(0.625, abs=0.02)


def test_a_folder_with_one_series_is_an_image_whatever_else_lies_there(tmp_path: Path) -> None:
    folder = OBLIQUE.write(tmp_path / "knee 1")
    write_other_object(folder / "seg.dcm")
    write_other_object(folder / "DICOMDIR", modality=None)
    (folder / "notes.txt").write_text("short")
    (folder / ".hidden").write_bytes((folder / "seg.dcm").read_bytes()[:140])
    assert resolve(folder) == [{"image": str(folder)}]
    assert resolve_datalist(
        str(folder) + "/", "knee", "", require_labels=False, series_uid=""
    ) == resolve(folder)


def test_the_current_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(AXIAL.write(tmp_path / "series"))
    assert resolve(Path(".")) == [{"image": str(tmp_path / "series")}]


def test_folders_of_series_are_an_image_each(tmp_path: Path) -> None:
    write_other_object(tmp_path / "DICOMDIR", modality=None)
    AXIAL.write(tmp_path / "patient_b" / "study" / "t1")
    OTHER.write(tmp_path / "patient_a" / "t2")
    write_other_object(tmp_path / "patient_a" / "report" / "1", "SR")
    expected = [
        {"image": str(tmp_path / "patient_a" / "t2")},
        {"image": str(tmp_path / "patient_b" / "study" / "t1")},
    ]
    assert resolve(tmp_path) == expected
    (tmp_path / "data").mkdir()
    for patient in ("patient_a", "patient_b"):
        (tmp_path / patient).rename(tmp_path / "data" / patient)
    (tmp_path / "data").rename(tmp_path / "images")
    assert [Path(item["image"]).name for item in resolve(tmp_path)] == ["t2", "t1"]
    assert resolve(tmp_path, OTHER.uid) == [
        {"image": str(tmp_path / "images" / "patient_a" / "t2")}
    ]


def test_one_of_several_series_in_a_folder_is_chosen_by_its_uid(tmp_path: Path) -> None:
    folder = replace(OTHER, shape=(3, 10, 8)).write(AXIAL.write(tmp_path))
    with pytest.raises(ValueError) as caught:
        read_series(folder)
    message = str(caught.value)
    assert message.startswith("2 DICOM series in one folder") and "--series_uid UID" in message
    assert (
        f"{AXIAL.uid} (MR, a phantom, 7 slices)" in message
        and f"{OTHER.uid} (MR, a phantom, 3 slices)" in message
    )
    assert resolve(folder, OTHER.uid) == [{"image": [str(folder), OTHER.uid]}]
    assert len(read_series(folder, OTHER.uid)) == 3 and len(read_series(folder, AXIAL.uid)) == 7
    with pytest.raises(
        ValueError,
        match=f"no DICOM series 1.2.3; .*{AXIAL.uid}.*expected one of these as series_uid",
    ):
        resolve(folder, "1.2.3")


def rewrite(folder: Path, number: int, change: Callable[[pydicom.Dataset], None]) -> Path:
    """Change one slice of a series, counted in order."""
    paths = {pydicom.dcmread(path).SOPInstanceUID: path for path in folder.iterdir()}
    path = paths[AXIAL.datasets()[number].SOPInstanceUID]
    item = pydicom.dcmread(path)
    change(item)
    item.save_as(path)
    return path


def moved(millimeters: float, axis: int) -> Callable[[pydicom.Dataset], None]:
    def change(item: pydicom.Dataset) -> None:
        position = np.array(item.ImagePositionPatient, float)
        position[axis] += millimeters
        item.ImagePositionPatient = list(position)

    return change


def keyword(name: str, value: object) -> Callable[[pydicom.Dataset], None]:
    return lambda item: delattr(item, name) if value is None else setattr(item, name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (keyword("Rows", 12), "has Rows 10 and .* 12|has Rows 12 and .* 10"),
        (
            keyword("PixelSpacing", [0.75, 1.3]),
            "PixelSpacing .*1.3.*expected the same in all slices",
        ),
        (
            keyword("ImageOrientationPatient", [1, 0, 0, 0, 0.8, 0.6]),
            "ImageOrientationPatient .*expected the same",
        ),
        (keyword("PixelSpacing", [-0.75, 1.25]), "PixelSpacing is .*-0.75.*expected positive mm"),
        (
            keyword("ImageOrientationPatient", [1, 0, 0, 0.6, 0.8, 0]),
            "expected two directions of length 1 at a right angle",
        ),
        (keyword("ImageOrientationPatient", [2, 0, 0, 0, 1, 0]), "directions of length 1"),
        (keyword("PatientID", "another"), "PatientID another|and .* another: expected the same"),
        (keyword("RescaleSlope", 3), "has RescaleSlope 3.0 and .* has none: expected one in all"),
        (keyword("SeriesInstanceUID", None), "it has no SeriesInstanceUID, so its series is not"),
        (keyword("FrameOfReferenceUID", "1.2.3"), "FrameOfReferenceUID .*expected the same"),
        (
            keyword("FrameOfReferenceUID", None),
            "no slice like others of its series .missing: FrameOfReferenceUID",
        ),
        (
            keyword("ImagePositionPatient", None),
            "no slice like others .*missing: ImagePositionPatient",
        ),
        (
            keyword("ImagePositionPatient", ""),
            "no slice like others .*missing: ImagePositionPatient",
        ),
        (keyword("NumberOfFrames", 3), "no slice like others .*frames: 3.*expected one frame"),
        (keyword("SamplesPerPixel", 3), "3 samples a pixel: expected 1"),
        (moved(-4.0, 2), "in the same place: expected one slice in each"),
        (
            moved(1.0, 2),
            r"5\.00 mm from .* to .*, 3\.00 mm elsewhere in the series: expected even spacing",
        ),
        (moved(3.0, 0), "mm off its place in an evenly spaced series"),
    ],
)
def test_what_is_no_volume_is_an_error_that_names_the_file(
    tmp_path: Path, change: Callable[[pydicom.Dataset], None], message: str
) -> None:
    folder = AXIAL.write(tmp_path / "series")
    path = rewrite(folder, 3, change)
    with pytest.raises(ValueError, match=message) as caught:
        resolve(folder)
    assert str(path) in str(caught.value)


def test_a_slice_that_is_there_twice_is_told_from_a_second_volume(tmp_path: Path) -> None:
    folder = AXIAL.write(tmp_path / "series")
    with pytest.raises(ValueError, match=r"give a folder with one volume"):
        resolve(rewrite(folder, 3, moved(-4.0, 2)).parent)
    folder = AXIAL.write(tmp_path / "copied")
    path = next(folder.iterdir())
    copy = shutil.copy(path, folder / f"{path.name} (1)")
    with pytest.raises(ValueError, match=r"the same slice .*remove one of them") as caught:
        resolve(folder)
    assert str(path) in str(caught.value) and str(copy) in str(caught.value)


@pytest.mark.parametrize("series", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_missing_slice_is_an_error_that_names_its_neighbors(
    tmp_path: Path, series: Series
) -> None:
    folder = series.write(tmp_path / "series", drop=[2])
    names = {item.SOPInstanceUID: item.filename for item in map(pydicom.dcmread, folder.iterdir())}
    before, after = (str(names[series.datasets()[number].SOPInstanceUID]) for number in (1, 3))
    with pytest.raises(ValueError) as caught:
        resolve(folder)
    assert f"8.00 mm from {before} to {after}, 4.00 mm elsewhere" in str(caught.value)
    assert "add the slices that are missing" in str(caught.value)


def test_a_slice_that_is_missing_at_an_end_is_not_known_to_be(tmp_path: Path) -> None:
    assert len(read_series(AXIAL.write(tmp_path / "series", drop=[0]))) == 6


def rewrite_uid(path: Path, uid: str) -> None:
    item = pydicom.dcmread(path)
    item.SeriesInstanceUID = uid
    item.save_as(path)


@pytest.mark.parametrize("length", [140, 200, 480])
def test_a_broken_file_is_named(tmp_path: Path, length: int) -> None:
    folder = AXIAL.write(tmp_path / "series")
    whole = next(folder.iterdir()).read_bytes()
    (folder / "broken").write_bytes(whole[:length])
    with pytest.raises(ValueError, match="broken cannot be read as DICOM .*remove or repair it"):
        resolve(folder)


def test_a_faulty_series_among_others_is_an_error_only_when_it_is_read(tmp_path: Path) -> None:
    good, gap, broken = (tmp_path / name for name in ("a_good", "b_gap", "c_broken"))
    for folder, drop, uid in ((good, [], "1.2.1"), (gap, [2], "1.2.2"), (broken, [], "1.2.3")):
        for path in AXIAL.write(folder, drop=drop).iterdir():
            rewrite_uid(path, uid)
    (broken / "cut").write_bytes(next(broken.iterdir()).read_bytes()[:200])
    assert [item["image"] for item in resolve(tmp_path)] == [str(good), str(gap), str(broken)]
    read_series(good)
    with pytest.raises(ValueError, match="expected even spacing"):
        read_series(gap)
    with pytest.raises(ValueError, match="cut cannot be read as DICOM"):
        read_series(broken)


def test_a_folder_without_slices_says_what_is_read(tmp_path: Path) -> None:
    write_other_object(tmp_path / "a" / "seg.dcm")
    with pytest.raises(
        ValueError, match="no DICOM series of image slices in .*a: expected images with Rows"
    ):
        resolve(tmp_path)


def test_series_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    for place in ("a/t1", "b/t1"):
        AXIAL.write(tmp_path / "split" / place)
    with pytest.raises(
        ValueError, match=f"the DICOM series {AXIAL.uid} is in several folders; .*a/t1.*b/t1"
    ):
        series_datalist([tmp_path / "split" / place for place in ("a/t1", "b/t1")])


def test_everything_that_is_an_image_is_listed(tmp_path: Path, caplog) -> None:
    both = replace(OTHER, shape=(3, 10, 8)).write(AXIAL.write(tmp_path / "both"))
    third = replace(AXIAL, uid=generate_uid(entropy_srcs=["third"])).write(tmp_path / "third")
    for name in ("reference.nii.gz", "reference_seg.nii.gz", "third/preview.png"):
        (tmp_path / name).touch()
    listed = [item["image"] for item in resolve(tmp_path)]
    assert listed[0] == str(tmp_path / "reference.nii.gz")
    assert sorted(listed[1:3]) == sorted([[str(both), AXIAL.uid], [str(both), OTHER.uid]])
    assert listed[3:] == [str(third)]
    names = [case_name(image) for image in listed]
    assert len(set(names)) == 4 and names[0] == "reference" and names[3] == "third"
    (message,) = (line.getMessage() for line in caplog.records if "not used" in line.getMessage())
    assert "reference_seg.nii.gz" in message and "preview.png" in message


def test_names_come_from_the_whole_path_where_folders_share_one(tmp_path: Path) -> None:
    for patient, series in (("P1", AXIAL), ("P2", OTHER)):
        series.write(tmp_path / patient / "01-01-2000" / "3.000000-T1 AX-45123")
    names = [case_name(item["image"]) for item in resolve(tmp_path)]
    assert names == [f"{patient}_01-01-2000_3.000000-T1 AX-45123" for patient in ("P1", "P2")]
    (only,) = resolve(tmp_path / "P1")
    assert case_name(only["image"]) == "3.000000-T1 AX-45123"


CUT = {
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "header": lambda path: path.write_bytes(path.read_bytes()[:300]),
    "pixels": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "zeros": lambda path: path.write_bytes(b"\0" * 2000),
    "partial": lambda path: (path.write_bytes(b"\1" * 200), path.rename(f"{path}.dcm.part")),
    "link": lambda path: (path.unlink(), path.symlink_to("../annex/nowhere")),
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_may_be_a_slice_is_read_or_named(tmp_path: Path, name: str, caplog) -> None:
    folder = AXIAL.write(tmp_path / "series")
    last = next(
        path
        for path in sorted(folder.iterdir())
        if pydicom.dcmread(path).SOPInstanceUID == AXIAL.datasets()[-1].SOPInstanceUID
    )
    CUT[name](last)
    with pytest.raises(
        ValueError, match=rf"{last.name}.* cannot be read as DICOM .*--skip_unreadable True"
    ):
        resolve(folder)
    assert len(read_series(folder, skip_unreadable=True)) == 6
    options = {"require_labels": False, "series_uid": "", "skip_unreadable": True}
    assert resolve_datalist(folder, "knee", "", **options) == [{"image": str(folder)}]
    assert f"{last.name}" in caplog.text and "not used: 1 (cannot be read as DICOM)" in caplog.text


def test_a_folder_of_nothing_but_broken_files_is_no_empty_one(tmp_path: Path) -> None:
    AXIAL.write(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "IM0.dcm").touch()
    assert [item["image"] for item in resolve(tmp_path)] == [
        str(tmp_path / "bad"),
        str(tmp_path / "good"),
    ]
    with pytest.raises(ValueError, match="IM0.dcm cannot be read as DICOM .0 bytes"):
        read_series(tmp_path / "bad")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_dicom_without_preamble_is_read(tmp_path: Path, syntax: str) -> None:
    folder = AXIAL.write(tmp_path / "series")
    expected = NiftiOrDicomReader().get_data(_Place(str(folder)))[0]
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        item = pydicom.Dataset({key: value for key, value in item.items() if key.group > 2})
        is_implicit = syntax == ImplicitVRLittleEndian
        item.save_as(path, implicit_vr=is_implicit, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    assert resolve(folder) == [{"image": str(folder)}]
    np.testing.assert_array_equal(NiftiOrDicomReader().get_data(_Place(str(folder)))[0], expected)


def test_linked_folders_are_looked_into_and_loops_are_not(tmp_path: Path) -> None:
    folder = AXIAL.write(tmp_path / "store" / "series")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(folder)
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    assert resolve(tmp_path / "data") == [{"image": str(tmp_path / "data" / "linked")}]


@pytest.mark.parametrize(("tilt", "is_volume"), [(1.5e-4, True), (9e-4, True), (3e-3, False)])
def test_orientations_may_jitter_by_what_scanners_round(
    tmp_path: Path, tilt: float, is_volume: bool
) -> None:
    folder = AXIAL.write(tmp_path / "series")
    for number in range(0, 7, 2):
        rewrite(folder, number, keyword("ImageOrientationPatient", [1, tilt, 0, -tilt, 1, 0]))
    if is_volume:
        affine = slice_affine(read_series(folder))
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
        corner = (7, 9, 6)
        theirs = np.array(image.TransformIndexToPhysicalPoint(corner)) * [-1, -1, 1]
        assert np.abs((affine @ [*corner, 1])[:3] - theirs).max() < 0.5 * 0.75
        return
    with pytest.raises(ValueError, match="ImageOrientationPatient .*dcm2niix"):
        resolve(folder)


def test_a_large_slice_may_jitter_less(tmp_path: Path) -> None:
    folder = replace(AXIAL, shape=(3, 1024, 2)).write(tmp_path / "series")
    path = next(folder.iterdir())
    item = pydicom.dcmread(path)
    item.ImageOrientationPatient = [1, 9e-4, 0, -9e-4, 1, 0]
    item.save_as(path)
    with pytest.raises(ValueError, match="ImageOrientationPatient .*expected the same"):
        resolve(folder)


@pytest.mark.parametrize("missing", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_a_series_without_what_only_a_segmentation_needs_is_read(
    tmp_path: Path, missing: str
) -> None:
    folder = AXIAL.write(tmp_path / "series")
    for number in range(7):
        rewrite(folder, number, keyword(missing, None))
    assert len(read_series(folder)) == 7


def test_one_dicom_file_stands_for_its_series(tmp_path: Path) -> None:
    folder = replace(OTHER, shape=(3, 10, 8)).write(AXIAL.write(tmp_path))
    path = next(path for path in folder.iterdir() if path.name.endswith(OTHER.uid[-4:]))
    assert resolve(path) == [{"image": [str(folder), OTHER.uid]}]
    with pytest.raises(ValueError, match="holds DICOM files, which this bundle does not read"):
        resolve(path, series_uid=None)


def test_all_slices_of_a_series_are_looked_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = replace(OTHER, shape=(3, 10, 8)).write(AXIAL.write(tmp_path / "both"))
    slices = [str(path) for path in sorted(folder.iterdir())]
    looked: list[object] = []
    find = datalist.series_datalist
    monkeypatch.setattr(
        datalist, "series_datalist", lambda *given: looked.append(given) or find(*given)
    )
    cases = resolve_datalist(slices, "knee", "", require_labels=False, series_uid="")
    assert sorted(case["image"][1] for case in cases) == sorted([AXIAL.uid, OTHER.uid])
    assert len(looked) == 2


def test_one_broken_slice_is_named(tmp_path: Path) -> None:
    path = min(AXIAL.write(tmp_path).iterdir())
    content = path.read_bytes()
    place = content.index(b"\x28\x00\x30\x00DS")  # PixelSpacing
    path.write_bytes(content[: place + 4] + b"\x55\x0d" + content[place + 6 :])
    with pytest.raises(ValueError, match=rf"{path} cannot be read as DICOM .*: expected"):
        resolve(path)


def test_a_directory_of_dicom_stands_for_no_series(tmp_path: Path) -> None:
    path = min(AXIAL.write(tmp_path).iterdir())
    item = pydicom.dcmread(path)
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    item.save_as(tmp_path / "DICOMDIR")
    with pytest.raises(ValueError, match=r"is DICOM without an image \(Media Storage Directory"):
        resolve(tmp_path / "DICOMDIR")


def test_dicom_is_an_error_where_it_is_not_read(tmp_path: Path) -> None:
    AXIAL.write(tmp_path / "below")
    with pytest.raises(
        ValueError,
        match=r"below holds DICOM files, which this bundle does not read: expected .* \.nii\.gz, .*\.png",
    ):
        resolve(tmp_path, series_uid=None)


def test_a_series_uid_that_would_be_ignored_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "case.nii.gz").touch()
    with pytest.raises(ValueError, match=r"series_uid 1\.2 but no DICOM files in"):
        resolve(tmp_path, "1.2")
    with pytest.raises(ValueError, match=r"series_uid 1\.2 without dataset_dir"):
        resolve_datalist("", "knee", tmp_path / "phantoms", require_labels=False, series_uid="1.2")
    assert resolve(tmp_path) == [{"image": str(tmp_path / "case.nii.gz")}]
    assert [path.name for path in tmp_path.iterdir()] == ["case.nii.gz"]


def test_missing_packages_are_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AXIAL.write(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "highdicom" else found(name)
    )
    with pytest.raises(
        ImportError,
        match=r"needs pydicom and highdicom: pip install highdicom, or ldseg_monai\[dicom]",
    ):
        resolve(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"takes pydicom: pip install 'ldseg_monai\[dicom]'"):
        resolve(min(tmp_path.iterdir()))


@pytest.mark.parametrize("name", ["NumberOfFrames", "Rows", "PixelSpacing", "SliceThickness"])
@pytest.mark.parametrize("kind", [MRImageStorage, SegmentationStorage])
def test_a_text_where_a_number_belongs_is_told(tmp_path: Path, name: str, kind: str) -> None:
    folder = AXIAL.write(tmp_path / "series", SOPClassUID=kind, SeriesInstanceUID="1.2.3")
    path = rewrite(folder, 6, lambda item: item.add_new(name, "LO", "4\\4"))
    with pytest.raises(ValueError, match=f"its {name} is .*4.*: expected . finite numbers") as told:
        resolve(folder)
    assert str(path) in str(told.value)
