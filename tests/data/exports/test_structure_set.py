"""RT structure sets, read by pydicom and filled again by the places of the series' pixels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_phantoms import AXIAL, FRAME_OF_REFERENCE, OBLIQUE, SERIES, STUDY, Series
from export_phantoms import blobs, write_metadata
from matplotlib.path import Path as Outline
from monai.data import MetaTensor
from monai.transforms import LoadImage

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.dicom.reader import NiftiOrDicomReader
from ldseg_monai.data.exports import SaveImageAsd

load = LoadImage(NiftiOrDicomReader(), ensure_channel_first=True)


def ball(series: Series) -> np.ndarray:
    """A ball in a hollow one, in mm, and a block with a hole: class 1; a corner: class 2."""
    places = series.positions()  # (slices, rows, columns, 3)
    center = places.reshape(-1, 3).mean(axis=0)
    distance = np.linalg.norm(places - center, axis=-1)
    size = distance[:, [0, -1]].min() * 0.6
    label = ((distance < size) & ~((distance < 0.7 * size) & (distance > 0.4 * size))).astype(
        np.uint8
    )
    label[0, -3:, -4:] = 2
    return label


def write(folder: Path, label: np.ndarray, tmp_path: Path, **meta: Any) -> Path:
    """Write a label map `(slices, rows, columns)` of a series."""
    image = load(folder)
    voxels = np.ascontiguousarray(label.transpose(2, 1, 0))[None]
    data = {"pred": MetaTensor(voxels, meta={**image.meta, **meta})}
    SaveImageAsd("pred", str(tmp_path / "out"), "rtstruct", write_metadata(tmp_path))(data)
    return tmp_path / "out" / f"{folder.name}_rtstruct.dcm"


def filled(item: pydicom.Dataset, number: int, folder: Path, series: Series) -> np.ndarray:
    """A structure, filled on the slice that each contour refers to: pixels whose centers are inside.

    The centers are those of the phantom's own formula.
    """
    uids = [str(one.SOPInstanceUID) for one in series.datasets()]
    places = series.positions()
    mask = np.zeros(series.shape, int)
    [roi] = [one for one in item.ROIContourSequence if one.ReferencedROINumber == number]
    for contour in roi.ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints >= 3
        [reference] = contour.ContourImageSequence
        place = uids.index(reference.ReferencedSOPInstanceUID)
        first, axes = places[place, 0, 0], series.axes
        assert np.abs((points - first) @ axes[:, 0]).max() < 2e-3  # on the slice
        outline = (points - first) @ axes[:, [2, 1]]
        centers = (places[place].reshape(-1, 3) - first) @ axes[:, [2, 1]]
        inside = Outline(np.concatenate([outline, outline[:1]])).contains_points(centers)
        mask[place] += inside.reshape(series.shape[1:])
    assert mask.max() <= 1
    return mask.astype(bool)


LARGE = {name: replace(series, shape=(13, 40, 36)) for name, series in SERIES.items()}


@pytest.mark.parametrize("name", LARGE)
def test_contours_filled_again_are_the_label(tmp_path: Path, name: str) -> None:
    series = LARGE[name]
    folder = series.write(tmp_path / "series")
    label = ball(series)
    item = pydicom.dcmread(write(folder, label, tmp_path))
    assert [one.ROIName for one in item.StructureSetROISequence] == ["femur", "left/right lump"]
    for number in (1, 2):
        found = filled(item, number, folder, series)
        assert np.array_equal(found, label == number)  # a Dice of 1


def test_any_label_is_filled_again(tmp_path: Path) -> None:
    folder = OBLIQUE.write(tmp_path / "series")
    label = blobs(OBLIQUE.shape)
    item = pydicom.dcmread(write(folder, label, tmp_path))
    for number in (1, 2):
        assert np.array_equal(filled(item, number, folder, OBLIQUE), label == number)


def test_it_refers_to_the_series(tmp_path: Path) -> None:
    folder = OBLIQUE.write(tmp_path / "series")
    item = pydicom.dcmread(write(folder, ball(OBLIQUE), tmp_path))
    sources = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.iterdir())}
    source = next(iter(sources.values()))
    assert item.SOPClassUID == item.file_meta.MediaStorageSOPClassUID
    assert item.SOPClassUID.name == "RT Structure Set Storage" and item.Modality == "RTSTRUCT"
    [frame] = item.ReferencedFrameOfReferenceSequence
    [study] = frame.RTReferencedStudySequence
    [series] = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == item.FrameOfReferenceUID == FRAME_OF_REFERENCE
    assert study.ReferencedSOPInstanceUID == item.StudyInstanceUID == STUDY
    assert series.SeriesInstanceUID == OBLIQUE.uid != item.SeriesInstanceUID
    referred = [one.ReferencedSOPInstanceUID for one in series.ContourImageSequence]
    assert sorted(referred) == sorted(sources)
    for one in series.ContourImageSequence:
        assert one.ReferencedSOPClassUID == source.SOPClassUID
    for keyword in ("PatientID", "PatientName", "PatientSex", "StudyDate", "StudyID"):
        assert item[keyword].value == source[keyword].value
    numbers = [one.ROINumber for one in item.StructureSetROISequence]
    for of_all in (item.ROIContourSequence, item.RTROIObservationsSequence):
        assert [one.ReferencedROINumber for one in of_all] == numbers == [1, 2]
    for one in item.StructureSetROISequence:
        assert one.ReferencedFrameOfReferenceUID == FRAME_OF_REFERENCE
    colors = [list(one.ROIDisplayColor) for one in item.ROIContourSequence]
    assert colors == [[255, 80, 60], [70, 170, 255]]


# Type 1 of PS3.3 A.19 has a value, type 2 may be empty
TYPE_1 = (
    "SOPInstanceUID StudyInstanceUID SeriesInstanceUID StructureSetLabel "
    "StructureSetROISequence ROIContourSequence RTROIObservationsSequence"
).split()
TYPE_2 = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName "
    "StudyID AccessionNumber SeriesNumber OperatorsName Manufacturer StructureSetDate "
    "StructureSetTime PositionReferenceIndicator"
).split()


def test_elements_that_the_standard_wants_are_there(tmp_path: Path) -> None:
    folder = AXIAL.write(tmp_path / "series")
    for path in folder.iterdir():
        source = pydicom.dcmread(path)
        for keyword in ("PatientBirthDate", "StudyID", "AccessionNumber"):
            del source[keyword]
        source.save_as(path)
    item = pydicom.dcmread(write(folder, ball(AXIAL), tmp_path))
    assert [keyword for keyword in TYPE_1 if not item.get(keyword)] == []
    assert [keyword for keyword in TYPE_2 if keyword not in item] == []


def test_frames_of_an_enhanced_image_are_referred_to(tmp_path: Path) -> None:
    folder = OBLIQUE.write_enhanced(tmp_path / "series")
    label = np.zeros(OBLIQUE.shape, np.uint8)
    label[2, 3:6, 2:5] = 1
    item = pydicom.dcmread(write(folder, label, tmp_path))
    source = pydicom.dcmread(folder / "enhanced.dcm")
    [contour] = item.ROIContourSequence[0].ContourSequence
    [reference] = contour.ContourImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    group = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
    origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
    np.testing.assert_allclose(origin, OBLIQUE.positions()[2, 0, 0], atol=1e-6)
    center = np.array(contour.ContourData, float).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(center, OBLIQUE.positions()[2, 4, 3], atol=2e-3)


def test_long_outlines_are_written(tmp_path: Path) -> None:
    series = replace(AXIAL, shape=(1, 101, 200))
    holes = np.tile(np.array([1, 1, 0, 0], np.uint8), (1, 101, 50))
    holes[0, ::2] = 1
    item = pydicom.dcmread(write(series.write(tmp_path / "series"), holes, tmp_path))
    [contour] = item.ROIContourSequence[0].ContourSequence
    assert len("\\".join(map(str, contour.ContourData))) > 2**16  # more than 2 bytes count
    assert contour.NumberOfContourPoints * 3 == len(contour.ContourData)


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ("FrameOfReferenceUID", "it has no FrameOfReferenceUID, to which one refers"),
        ("", "nothing was found in it"),
    ],
)
def test_series_that_cannot_take_one_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, without: str, told: str
) -> None:
    folder = AXIAL.write(tmp_path / "series")
    label = ball(AXIAL)
    path = write(folder, label, tmp_path)
    assert path.exists()
    for one in folder.iterdir() if without else []:
        source = pydicom.dcmread(one)
        del source[without]
        source.save_as(one)
    if not without:
        label[:] = 0
    with caplog.at_level(logging.WARNING):
        write(folder, label, tmp_path)
    assert f"no RT structure set of {folder} can be written ({told}" in caplog.text
    assert not path.exists()  # that of the other label


def test_slices_that_cannot_be_referred_to_apart_get_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = AXIAL.write(tmp_path / "series")
    for path in folder.iterdir():
        source = pydicom.dcmread(path)
        source.SOPInstanceUID = "1.2.3"
        source.save_as(path)
    with caplog.at_level(logging.WARNING):
        assert not write(folder, ball(AXIAL), tmp_path).exists()
    assert "have one SOPInstanceUID, by which one refers to a slice" in caplog.text


def test_label_in_another_geometry_is_an_error(tmp_path: Path) -> None:
    folder = AXIAL.write(tmp_path / "series")
    with pytest.raises(ValueError, match="expected that of its DICOM series"):
        write(folder, ball(AXIAL)[:-1], tmp_path)


def test_image_that_the_weights_do_not_know_is_named(tmp_path: Path) -> None:
    folder = AXIAL.write(tmp_path / "series")
    item = pydicom.dcmread(write(folder, ball(AXIAL), tmp_path, **{OUTSIDE: "its modality is CT"}))
    assert item.SeriesDescription == "OUTSIDE OF KNOWN IMAGES: A method of two steps"
    assert item.StructureSetDescription == "its modality is CT"
