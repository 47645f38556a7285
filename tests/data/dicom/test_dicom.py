"""DICOM in and DICOM-SEG out, checked against the phantoms' formula and by pydicom and SimpleITK."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from dicom_phantoms import (
    AXIAL,
    OBLIQUE,
    SERIES,
    Series,
    intensity,
    nifti_voxels,
    segmentation_voxels,
)
from monai.data import MetaTensor, NibabelReader
from monai.transforms import Compose, LoadImage, LoadImaged, Orientationd, Resized, SaveImaged
from pydicom.sr.codedict import codes

from ldseg_monai.data.dicom.reader import NiftiOrDicomReader
from ldseg_monai.data.dicom.segmentation import SaveImageDicomSegd
from ldseg_monai.data.writers import SaveImageVolumed
from ldseg_monai.evaluation.pictures import load_image, upright
from ldseg_monai.inference.postprocessing import InvertLabeld

BUNDLES = Path(__file__).parents[3] / "bundles"
METADATA = {
    "name": "A method",
    "version": "1.2.3",
    "network_data_format": {
        "outputs": {
            "pred": {
                "channel_def": {"0": "background", "1": "femur", "2": "lump", "3": "absent"},
                "channel_codes": {
                    "1": {
                        "category": ["91723000", "SCT", "Anatomical Structure"],
                        "type": ["71341001", "SCT", "Femur"],
                        "modifier": ["255549009", "SCT", "Anterior"],
                    }
                },
            }
        }
    },
}

load = LoadImage(NiftiOrDicomReader(), ensure_channel_first=True)


@pytest.fixture
def metadata(tmp_path: Path) -> str:
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA))
    return str(tmp_path / "metadata.json")


def voxel_places(image: MetaTensor) -> np.ndarray:
    """Places of an image's voxels in DICOM's mm, `(*spatial, 3)`."""
    indices = np.moveaxis(np.indices(image.shape[1:]), 0, -1)
    return nib.affines.apply_affine(image.affine.numpy(), indices) * [-1, -1, 1]


def labels_of(image: MetaTensor) -> MetaTensor:
    """A label map of two blocks and a single voxel at a corner, with nothing symmetric about it."""
    label = torch.zeros(image.shape, dtype=torch.uint8)
    label[0, 1:-2, 2:-3, 1:-1] = 1
    label[0, 3:, 4:6, 2:5] = 2
    label[0, -1, -1, -1] = 2
    return MetaTensor(label, meta=image.meta)


# Reading


@pytest.mark.parametrize("name", SERIES)
def test_voxels_have_the_intensity_of_their_place(tmp_path: Path, name: str) -> None:
    series = SERIES[name]
    image = load(series.write(tmp_path / "series"))
    assert image.dtype == torch.float32 and image.shape == (1, *series.shape[::-1])
    assert image.meta["filename_or_obj"] == str(tmp_path / "series")
    rounding = 0.5 * (0.5 + 0.25 * series.shape[0] if series.rescale else 1)
    assert np.abs(image[0].numpy() - intensity(voxel_places(image))).max() < rounding + 0.01
    assert np.ptp(image.numpy()) > 100 * rounding


@pytest.mark.parametrize("name", sorted(SERIES.keys() - {"tilted"}))  # which ITK has no image for
def test_simpleitk_places_the_same_voxels_alike(tmp_path: Path, name: str) -> None:
    folder = str(SERIES[name].write(tmp_path / "series"))
    image = load(folder)
    peer = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder))
    values = sitk.GetArrayFromImage(peer)
    for index in np.ndindex(*image.shape[1:]):
        place = nib.affines.apply_affine(image.affine.numpy(), index) * [-1.0, -1.0, 1.0]
        at = peer.TransformPhysicalPointToContinuousIndex(place.tolist())
        assert np.abs(np.subtract(at, np.round(at))).max() < 1e-3
        column, row, number = np.round(at).astype(int)
        assert values[number, row, column] == pytest.approx(image[(0, *index)].item(), abs=1e-3)


def test_one_of_several_series_is_read_and_shown(tmp_path: Path) -> None:
    other = replace(OBLIQUE, uid="1.2.3.4", shape=(3, 10, 8))
    folder = str(other.write(AXIAL.write(tmp_path)))
    assert load([folder, AXIAL.uid]).shape == (1, 8, 10, 7)
    image = load([folder, "1.2.3.4"])
    assert image.shape == (1, 8, 10, 3)
    assert torch.equal(load_image(folder, "1.2.3.4"), upright(image))


def test_no_other_reader_of_monai_steps_in_for_what_is_no_volume(tmp_path: Path) -> None:
    folder = AXIAL.write(tmp_path, drop=[2])
    with pytest.raises(ValueError, match="add the slices that are missing"):
        load(folder)


@pytest.mark.parametrize(
    "changes", [{"PixelData": b"too short"}, {"PixelData": None}], ids=["short", "none"]
)
def test_pixels_that_cannot_be_read_name_their_file(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = AXIAL.write(tmp_path, **changes)
    with pytest.raises(
        ValueError, match=rf"{folder}/\S+06_\S+: pixels cannot be read .*repair the file"
    ):
        load(folder)


def test_values_in_higher_bits_are_refused(tmp_path: Path) -> None:
    """pydicom reads the lowest bits of them without a word."""
    folder = AXIAL.write(tmp_path, BitsStored=12, HighBit=15)
    with pytest.raises(ValueError, match="HighBit 15 and BitsStored 12: expected a HighBit of 11"):
        load(folder)


def test_nifti_is_read_as_by_monai(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, 2.0, 3.0, 1.0])), tmp_path / "case.nii.gz")
    image, expected = (
        LoadImage(reader, ensure_channel_first=True)(tmp_path / "case.nii.gz")
        for reader in (NiftiOrDicomReader(), NibabelReader())
    )
    assert torch.equal(image, expected) and torch.equal(image.affine, expected.affine)
    for key in ("spatial_shape", "space", "filename_or_obj"):
        assert np.array_equal(image.meta[key], expected.meta[key])


@pytest.mark.parametrize("name", ["axial", "rescaled"])
def test_monochrome1_is_read_as_its_inverse(tmp_path: Path, name: str) -> None:
    for folder in ("one", "two"):
        SERIES[name].write(tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        item = pydicom.dcmread(path)
        item.PhotometricInterpretation = "MONOCHROME1"
        item.PixelData = (-1 - item.pixel_array).astype("<i2").tobytes()
        item.save_as(path)
    assert torch.equal(load(tmp_path / "one"), load(tmp_path / "two"))


@pytest.mark.parametrize(
    ("said", "scale"),
    [({"RescaleSlope": "3"}, (3, 0)), ({"RescaleIntercept": "-1024"}, (1, -1024))],
)
def test_a_scale_of_one_number_is_applied(tmp_path: Path, said: dict, scale: tuple) -> None:
    """pydicom's function passes over it without a word."""
    AXIAL.write(tmp_path / "stored")
    for path in AXIAL.write(tmp_path / "scaled").iterdir():
        item = pydicom.dcmread(path)
        item.update(said)
        item.save_as(path)
    slope, intercept = scale
    expected = load(tmp_path / "stored") * slope + intercept
    assert torch.equal(load(tmp_path / "scaled").as_tensor(), expected.as_tensor())


def test_colors_of_dicom_are_refused(tmp_path: Path) -> None:
    AXIAL.write(tmp_path / "s", PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(ValueError, match="has pixels of the kind PALETTE COLOR: expected gray"):
        load(tmp_path / "s")


# Writing


def write_both(folder: Path, output_dir: Path, metadata: str) -> tuple[Path, Path]:
    """Bring a series to a network's geometry, label it there, invert, and write NIfTI and DICOM."""
    output_dir.mkdir(exist_ok=True)
    transform = Compose(
        [
            LoadImaged("image", reader=NiftiOrDicomReader(), ensure_channel_first=True),
            Orientationd("image", axcodes="SPL", labels=None),
            Resized("image", spatial_size=(12, 16, 20)),
        ]
    )
    data = transform({"image": str(folder)})
    data["pred"] = labels_of(data["image"])
    data = InvertLabeld("pred", transform)(data)
    save = SaveImaged(
        "pred",
        output_dir=output_dir,
        output_postfix="label",
        separate_folder=False,
        print_log=False,
    )
    SaveImageDicomSegd("pred", str(output_dir), metadata)(save(data))
    return output_dir / f"{folder.name}_label.nii.gz", output_dir / f"{folder.name}_seg.dcm"


@pytest.mark.parametrize("name", SERIES)
def test_segmentation_has_the_voxels_of_the_nifti_file(
    tmp_path: Path, metadata: str, name: str
) -> None:
    nifti, dicom = write_both(SERIES[name].write(tmp_path / "series"), tmp_path / "out", metadata)
    voxels = segmentation_voxels(dicom)
    assert set(voxels.classes) == {1, 2}
    voxels.assert_same(nifti_voxels(nifti))


def test_segmentation_has_the_voxels_that_were_labeled(tmp_path: Path, metadata: str) -> None:
    image = load(OBLIQUE.write(tmp_path / "series"))
    SaveImageDicomSegd("pred", str(tmp_path), metadata)({"pred": labels_of(image)})
    voxels = segmentation_voxels(tmp_path / "series_seg.dcm")
    label = labels_of(image)[0].numpy()
    assert len(voxels.classes) == np.count_nonzero(label)
    for place, number in zip(voxels.places, voxels.classes, strict=True):
        distance = np.linalg.norm(voxel_places(image) - place, axis=-1)
        assert (
            distance.min() < 1e-3
            and label[np.unravel_index(distance.argmin(), label.shape)] == number
        )


@pytest.mark.parametrize("series", [OBLIQUE, SERIES["big_endian"]], ids=["oblique", "big_endian"])
def test_each_frame_refers_to_the_slice_that_it_lies_on(
    tmp_path: Path, metadata: str, series: Series
) -> None:
    folder = series.write(tmp_path / "series")
    sources = {item.SOPInstanceUID: item for item in map(pydicom.dcmread, folder.iterdir())}
    segmentation = pydicom.dcmread(write_both(folder, tmp_path / "out", metadata)[1])
    assert segmentation.NumberOfFrames == len(segmentation.PerFrameFunctionalGroupsSequence) > 4
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        source = sources[reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == list(
            source.ImagePositionPatient
        )
    source = next(iter(sources.values()))
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    for keyword in (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "PatientID",
        "PatientName",
        "StudyDate",
    ):
        assert segmentation[keyword].value == source[keyword].value
    assert segmentation.SeriesInstanceUID != source.SeriesInstanceUID
    assert segmentation.file_meta.TransferSyntaxUID.is_little_endian


def code(sequence: pydicom.Sequence) -> tuple[str, str, str]:
    assert len(sequence) == 1
    return sequence[0].CodeValue, sequence[0].CodingSchemeDesignator, sequence[0].CodeMeaning


def test_segments_are_what_the_metadata_says(tmp_path: Path, metadata: str) -> None:
    image = load(AXIAL.write(tmp_path / "series"))
    SaveImageDicomSegd("pred", str(tmp_path), metadata)({"pred": labels_of(image)})
    item = pydicom.dcmread(tmp_path / "series_seg.dcm")
    assert (item.Modality, item.SegmentationType, item.SeriesDescription) == (
        "SEG",
        "BINARY",
        "A method",
    )
    assert [segment.SegmentNumber for segment in item.SegmentSequence] == [1, 2, 3]
    assert [segment.SegmentLabel for segment in item.SegmentSequence] == ["femur", "lump", "absent"]
    for segment in item.SegmentSequence:
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (segment.SegmentAlgorithmType, algorithm.AlgorithmName) == ("AUTOMATIC", "A method")
        assert algorithm.AlgorithmVersion == "1.2.3"
    femur, lump, _ = item.SegmentSequence
    assert code(femur.SegmentedPropertyCategoryCodeSequence) == (
        "91723000",
        "SCT",
        "Anatomical Structure",
    )
    kind = femur.SegmentedPropertyTypeCodeSequence
    assert code(kind) == ("71341001", "SCT", "Femur")
    assert code(kind[0].SegmentedPropertyTypeModifierCodeSequence) == (
        "255549009",
        "SCT",
        "Anterior",
    )
    assert code(lump.SegmentedPropertyTypeCodeSequence) == ("85756007", "SCT", "Tissue")
    assert (
        "SegmentedPropertyTypeModifierCodeSequence" not in lump.SegmentedPropertyTypeCodeSequence[0]
    )
    assert set(segmentation_voxels(tmp_path / "series_seg.dcm").classes) == {1, 2}


@pytest.mark.parametrize("bundle", ["cdal_hippocampus", "ldseg_hippocampus", "ldseg_knee3d"])
def test_codes_of_the_bundles_are_of_dicoms_dictionary(bundle: str) -> None:
    tensor = json.loads((BUNDLES / bundle / "configs" / "metadata.json").read_text())[
        "network_data_format"
    ]["outputs"]
    channels = tensor["pred"]["channel_def"]
    assert list(tensor["pred"]["channel_codes"]) == list(channels)[1:]
    for described in tensor["pred"]["channel_codes"].values():
        assert {"category", "type"} <= described.keys() <= {"category", "type", "modifier"}
        for value, scheme, meaning in described.values():
            word = meaning.title().replace(" ", "")
            known = getattr(getattr(codes, scheme), word)
            assert (known.value, known.meaning) == (value, meaning)


def test_nothing_labeled_is_a_segmentation_all_the_same(tmp_path: Path, metadata: str) -> None:
    image = load(AXIAL.write(tmp_path / "series"))
    SaveImageDicomSegd("pred", str(tmp_path), metadata)(
        {"pred": MetaTensor(torch.zeros_like(image), meta=image.meta)}
    )
    item = pydicom.dcmread(tmp_path / "series_seg.dcm")
    assert not item.pixel_array.any() and len(item.SegmentSequence) == 3


def test_anonymized_slices_may_lack_what_may_be_empty(tmp_path: Path, metadata: str) -> None:
    folder = AXIAL.write(tmp_path / "series")
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        for group in ("Patient", "Study", "Accession"):
            for element in [element for element in item if element.keyword.startswith(group)]:
                if element.keyword != "StudyInstanceUID":
                    del item[element.tag]
        del item.SeriesNumber
        item.save_as(path)
    write_both(folder, tmp_path / "out", metadata)
    assert pydicom.dcmread(tmp_path / "out" / "series_seg.dcm").PatientID == ""


def change_each(folder: Path, **changes: Any) -> Path:
    """Set elements of all slices, None to delete."""
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        for keyword, value in changes.items():
            if value is None:
                delattr(item, keyword)
            else:
                setattr(item, keyword, value)
        item.save_as(path)
    return folder


NAMES = {
    "none": (None, "Doe^Jane"),
    "western": ("ISO_IR 100", "Müller^Jörg"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "misspelt": ("ISO IR 100", "Müller^Jörg"),
    "empty": ("", "Doe^Jane"),
}


@pytest.mark.filterwarnings("ignore:Incorrect value for Specific Character Set")
@pytest.mark.parametrize("name", NAMES)
def test_texts_of_any_character_set_are_kept(tmp_path: Path, metadata: str, name: str) -> None:
    characters, text = NAMES[name]
    procedure = pydicom.Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator = "1", "99X"
    procedure.CodeMeaning = text.split("=")[-1]
    folder = AXIAL.write(tmp_path / "series")
    if characters is not None:
        change_each(folder, SpecificCharacterSet=characters)
    change_each(folder, PatientName=text, ProcedureCodeSequence=[procedure])
    item = pydicom.dcmread(write_both(folder, tmp_path / "out", metadata)[1])
    assert item.PatientName == text and item.PatientID == "7"
    assert item.ProcedureCodeSequence[0].CodeMeaning == procedure.CodeMeaning


@pytest.mark.parametrize("thickness", [None, ""], ids=["missing", "empty"])
def test_slices_that_do_not_say_how_thick_they_are_fill_the_volume(
    tmp_path: Path, metadata: str, thickness: str | None
) -> None:
    folder = change_each(OBLIQUE.write(tmp_path / "series"), SliceThickness=thickness)
    nifti, dicom = write_both(folder, tmp_path / "out", metadata)
    segmentation_voxels(dicom).assert_same(nifti_voxels(nifti))
    item = pydicom.dcmread(dicom)
    [measures] = item.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == pytest.approx(OBLIQUE.spacing[0], abs=1e-3)


def test_slices_that_cannot_be_referred_to_apart_get_no_segmentation(
    tmp_path: Path, metadata: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = change_each(AXIAL.write(tmp_path / "series"), SOPInstanceUID="1.2.3")
    nifti, dicom = write_both(folder, tmp_path / "out", metadata)
    assert nifti.is_file() and not dicom.exists()
    assert "have one SOPInstanceUID, by which one refers to a slice" in caplog.text


@pytest.mark.parametrize("missing", ["FrameOfReferenceUID", "StudyInstanceUID", "SOPClassUID"])
def test_without_what_it_refers_to_the_nifti_file_is_written_and_the_reason_told(
    tmp_path: Path, metadata: str, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = AXIAL.write(tmp_path / "series")
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        delattr(item, missing)
        item.save_as(path)
    image = load(folder)
    data = SaveImageVolumed("pred", str(tmp_path))({"pred": labels_of(image)})
    SaveImageDicomSegd("pred", str(tmp_path), metadata)(data)
    assert nib.load(tmp_path / "series_label.nii.gz").shape == (8, 10, 7)
    assert not list(tmp_path.glob("*.dcm"))
    told = f"no DICOM segmentation of {folder} can be written (it has no {missing}, to which one"
    assert told in caplog.text


def test_a_label_map_that_was_not_inverted_is_refused(tmp_path: Path, metadata: str) -> None:
    image = load(AXIAL.write(tmp_path / "series"))
    turned = Orientationd("image", axcodes="RAS", labels=None)({"image": image})["image"]
    smaller = MetaTensor(torch.zeros(1, 8, 10, 5), meta=image.meta)
    for label in (MetaTensor(torch.zeros_like(turned), meta=turned.meta), smaller):
        with pytest.raises(
            ValueError, match="expected that of its DICOM series.*invert the preprocessing"
        ):
            SaveImageDicomSegd("pred", str(tmp_path), metadata)({"pred": label})
    assert not (tmp_path / "series_seg.dcm").exists()


def test_other_images_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    save = SaveImageDicomSegd("pred", str(tmp_path / "out"), "no such file")
    assert isinstance(save, SaveImaged)  # which MONAI Label leaves out
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "case.nii.gz")
    for label in (load(tmp_path / "case.nii.gz"), torch.zeros(1, 4, 5, 6)):
        data = {"pred": label}
        assert save(data) == data
    assert not (tmp_path / "out").exists() and not caplog.records


# Real series


@pytest.mark.realdata
def test_real_big_endian_oblique_series(realdata: Path, tmp_path: Path, metadata: str) -> None:
    folder = realdata / "dicom" / "knee_mr_mese_echo1"
    image = load(folder)
    peer = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    values = sitk.GetArrayFromImage(peer)
    assert image.shape == (1, *peer.GetSize())
    for index in np.random.default_rng(0).integers(0, image.shape[1:], (200, 3)):
        place = nib.affines.apply_affine(image.affine.numpy(), index) * [-1.0, -1.0, 1.0]
        at = np.array(peer.TransformPhysicalPointToContinuousIndex(place.tolist()))
        column, row, number = np.round(at).astype(int)
        assert (
            np.abs(at - np.round(at)).max() < 0.02
        )  # positions in the files have two decimals, sometimes three
        assert values[number, row, column] == image[(0, *index)]
    nifti, dicom = write_both(folder, tmp_path / "out", metadata)
    segmentation_voxels(dicom).assert_same(nifti_voxels(nifti))


@pytest.mark.realdata
def test_segmentation_of_another_program_on_a_real_series(
    realdata: Path, tmp_path: Path, metadata: str
) -> None:
    folder = realdata / "dicom" / "ct3slice_seg"  # with segmentations by dcmqi beside the slices
    image = load(folder)
    assert image.shape == (1, 512, 512, 3) and image.min() < -900  # Hounsfield units
    truth = sitk.ReadImage(str(folder / "liver_seg.nrrd"))
    label = torch.zeros(image.shape, dtype=torch.uint8)
    inverse = np.linalg.inv(image.affine.numpy())
    for number, row, column in np.argwhere(sitk.GetArrayFromImage(truth)):
        place = truth.TransformIndexToPhysicalPoint((int(column), int(row), int(number)))
        index = nib.affines.apply_affine(inverse, np.multiply(place, [-1, -1, 1]))
        label[(0, *np.round(index).astype(int))] = 1
    SaveImageDicomSegd("pred", str(tmp_path), metadata)(
        {"pred": MetaTensor(label, meta=image.meta)}
    )
    ours, theirs = tmp_path / "ct3slice_seg_seg.dcm", folder / "seg_liver.dcm"
    segmentation_voxels(ours).assert_same(segmentation_voxels(theirs))
    references = [
        {
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            for group in groups
        }
        for groups in (
            pydicom.dcmread(path).PerFrameFunctionalGroupsSequence for path in (ours, theirs)
        )
    ]
    assert references[0] == references[1]
