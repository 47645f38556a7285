"""Enhanced (multi-frame) images: frames of one volume are read, others are refused by what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from dicom_phantoms import AXIAL, OBLIQUE, SERIES, Voxels, segmentation_voxels
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from monai.data import MetaTensor
from pydicom.uid import EnhancedMRColorImageStorage

from ldseg_monai.data import LoadImageVolumed, resolve_datalist
from ldseg_monai.data.dicom import SaveImageDicomSegd
from ldseg_monai.runtime.errors import cause

METADATA = {
    "name": "A method",
    "version": "1",
    "network_data_format": {
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "a", "2": "b"}}}
    },
}


def load(folder: Path) -> MetaTensor:
    return LoadImageVolumed("image", dicom=True)({"image": str(folder)})["image"]


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load(folder)
    return str(cause(caught.value))


@pytest.mark.parametrize("name", SERIES)
def test_frames_are_read_as_slices_are(tmp_path: Path, name: str) -> None:
    slices = load(SERIES[name].write(tmp_path / "slices"))
    frames = load(SERIES[name].write_enhanced(tmp_path / "frames"))
    assert torch.equal(frames.as_tensor(), slices.as_tensor())
    assert torch.equal(frames.affine, slices.affine)


@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_simpleitk_reads_the_same_of_an_image_that_highdicom_converted(
    tmp_path: Path, name: str
) -> None:
    series = replace(SERIES[name], shuffled=False)
    slices = series.datasets()
    for item in slices:
        item.ReferringPhysicianName, item.InstanceNumber = "", 1
        item.ImageType = ["ORIGINAL", "PRIMARY"]
    converted = LegacyConvertedEnhancedMRImage(slices, series.uid, 1, highdicom.UID(), 1)
    path = tmp_path / "s" / "a.dcm"
    path.parent.mkdir()
    converted.save_as(path)
    image = load(tmp_path / "s")
    peer = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(peer)
    for index in np.ndindex(*image.shape[1:]):
        place = nib.affines.apply_affine(image.affine.numpy(), index) * [-1.0, -1.0, 1.0]
        at = np.array(peer.TransformPhysicalPointToContinuousIndex(place.tolist()))
        assert np.abs(at - np.round(at)).max() < 1e-3
        column, row, number = np.round(at).astype(int)
        assert values[number, row, column] == image[(0, *index)]


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ([{"StackID": str(number // 4)} for number in range(7)], "2 stacks"),
        ([{"TemporalPositionIndex": number % 3 + 1} for number in range(7)], "3 times"),
        (
            [{"StackID": str(number % 2), "TemporalPositionIndex": number} for number in range(7)],
            "2 stacks and 7 times",
        ),
    ],
)
def test_several_volumes_are_refused_by_what_they_are(
    tmp_path: Path, contents: list[dict[str, Any]], told: str
) -> None:
    folder = AXIAL.write_enhanced(tmp_path / "s", contents=contents)
    expected = f"{folder / 'enhanced.dcm'} has 7 frames of {told}: expected one volume; write each"
    assert refusal(folder).startswith(expected)


@pytest.mark.parametrize(
    ("group", "keyword", "told"),
    [
        ("MREchoSequence", "EffectiveEchoTime", "7 echo times"),
        ("MRDiffusionSequence", "DiffusionBValue", "7 b-values"),
    ],
)
def test_several_echoes_or_b_values_are_refused(
    tmp_path: Path, group: str, keyword: str, told: str
) -> None:
    folder = AXIAL.write_enhanced(tmp_path / "s")
    item = pydicom.dcmread(folder / "enhanced.dcm")
    for number, own in enumerate(item.PerFrameFunctionalGroupsSequence):
        inside = pydicom.Dataset()
        setattr(inside, keyword, 10.0 * number)
        setattr(own, group, [inside])
    item.save_as(folder / "enhanced.dcm")
    assert f"7 frames of {told}: expected one volume" in refusal(folder)


def test_a_frame_that_is_missing_or_twice_is_named_by_its_number(tmp_path: Path) -> None:
    gap = AXIAL.write_enhanced(tmp_path / "gap", drop=[2])
    told = "8.00 mm from {0} (frame 2) to {0} (frame 3), 4.00 mm elsewhere in the series"
    assert refusal(gap).startswith(told.format(gap / "enhanced.dcm"))
    first = AXIAL.datasets()[0].ImagePositionPatient
    twice = AXIAL.write_enhanced(tmp_path / "twice", ImagePositionPatient=first)
    assert "(frame 1) and" in refusal(twice) and "(frame 7) are in the same" in refusal(twice)


def test_another_number_of_frames_than_are_described_is_refused(tmp_path: Path) -> None:
    folder = AXIAL.write_enhanced(tmp_path / "s")
    item = pydicom.dcmread(folder / "enhanced.dcm")
    item.NumberOfFrames = 5
    item.save_as(folder / "enhanced.dcm")
    assert "its NumberOfFrames is 5: expected 7, as many as it describes" in refusal(folder)


def test_other_kinds_of_multi_frame_images_are_named(tmp_path: Path) -> None:
    folder = AXIAL.write_enhanced(tmp_path / "s")
    item = pydicom.dcmread(folder / "enhanced.dcm")
    item.SOPClassUID = EnhancedMRColorImageStorage
    item.save_as(folder / "enhanced.dcm")
    assert "or enhanced CT, MR or PET images; others have to be converted" in refusal(folder)


def test_an_enhanced_image_is_a_case_as_a_folder_and_as_a_file(tmp_path: Path) -> None:
    folder = OBLIQUE.write_enhanced(tmp_path / "s")
    for given in (folder, folder / "enhanced.dcm"):
        listed = resolve_datalist(given, "knee", tmp_path, require_labels=False, series_uid="")
        assert listed == [{"image": str(folder)}]


@pytest.mark.parametrize("name", SERIES)
def test_a_segmentation_refers_to_the_frames(tmp_path: Path, name: str) -> None:
    series = SERIES[name]
    folder = series.write_enhanced(tmp_path / "s")
    image = load(folder)
    label = np.zeros(series.shape, np.uint8)
    label[1:-2, 2:-3, 1:-1] = 1
    label[-1, -1, -1] = 1
    pred = MetaTensor(torch.tensor(label.transpose(2, 1, 0))[None], meta=image.meta)
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA))
    SaveImageDicomSegd("pred", str(tmp_path), str(tmp_path / "metadata.json"))({"pred": pred})
    written = tmp_path / "s_seg.dcm"
    places = Voxels(series.positions()[label > 0], label[label > 0])
    segmentation_voxels(written).assert_same(places)
    source = pydicom.dcmread(folder / "enhanced.dcm")
    for group in pydicom.dcmread(written).PerFrameFunctionalGroupsSequence:
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        own = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
        one, two = group.PlanePositionSequence[0], own.PlanePositionSequence[0]
        assert list(one.ImagePositionPatient) == list(two.ImagePositionPatient)


def test_frames_that_do_not_say_how_thick_they_are_fill_the_volume(tmp_path: Path) -> None:
    folder = AXIAL.write_enhanced(tmp_path / "s")
    item = pydicom.dcmread(folder / "enhanced.dcm")
    for group in item.PerFrameFunctionalGroupsSequence:
        del group.PixelMeasuresSequence[0].SliceThickness
    item.save_as(folder / "enhanced.dcm")
    image = load(folder)
    pred = MetaTensor(torch.ones(image.shape, dtype=torch.uint8), meta=image.meta)
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA))
    SaveImageDicomSegd("pred", str(tmp_path), str(tmp_path / "metadata.json"))({"pred": pred})
    shared = pydicom.dcmread(tmp_path / "s_seg.dcm").SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].SliceThickness == AXIAL.spacing[0]


def test_of_a_series_of_two_enhanced_images_the_nifti_alone_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = AXIAL.write_enhanced(tmp_path / "s", drop=[4, 5, 6])
    (folder / "enhanced.dcm").rename(folder / "first.dcm")
    AXIAL.write_enhanced(folder, drop=[0, 1, 2, 3])
    image = load(folder)
    assert image.shape == (1, 8, 10, 7)
    pred = MetaTensor(torch.ones(image.shape, dtype=torch.uint8), meta=image.meta)
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA))
    SaveImageDicomSegd("pred", str(tmp_path), str(tmp_path / "metadata.json"))({"pred": pred})
    assert not (tmp_path / "s_seg.dcm").exists()
    told = f"no DICOM segmentation of {folder} can be written (it is of 2 enhanced images: expected"
    assert told in caplog.text
