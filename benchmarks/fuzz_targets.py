"""What `benchmarks.fuzz` feeds with bytes: readers of files, and good files to begin with."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import tifffile
import torch
from monai.data import MetaTensor
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

from ldseg_monai.data import LoadImagePictured, LoadImageVolumed
from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.dicom import SaveImageDicomSegd
from ldseg_monai.data.listed_cases import class_names
from ldseg_monai.inference.tiff import open_picture

SLICES, ROWS, COLUMNS = 4, 6, 5
STRIP = 16  # rows that are read at once
METADATA = {
    "name": "A method",
    "version": "1.0.0",
    "network_data_format": {"outputs": {"pred": {"channel_def": {"0": "background", "1": "a"}}}},
}


class Target(NamedTuple):
    """A reader that is fed.

    Attributes:
        seeds: makes good files.
        read: reads one, and what goes with it, in a folder of its own.
        words: of the format.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], None]
    words: tuple[str, ...] = ()


# DICOM


def mr_slice(
    number: int, syntax: str = ExplicitVRLittleEndian, kind: str = MRImageStorage
) -> pydicom.Dataset:
    """A slice of a small series."""
    item = pydicom.Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = syntax
    item.SOPClassUID, item.SOPInstanceUID = kind, f"1.2.3.{number + 1}"
    item.StudyInstanceUID = item.FrameOfReferenceUID = "1.2.4"
    item.SeriesInstanceUID = "1.2.5"
    item.Modality, item.SeriesDescription, item.SeriesNumber = "MR", "a series", 5
    item.PatientName, item.PatientID, item.PatientSex = "A^B", "7", "O"
    item.PatientBirthDate = item.StudyDate = item.StudyTime = item.StudyID = ""
    item.AccessionNumber = ""
    item.ImagePositionPatient = [0, 0, 2 * number]
    item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    item.PixelSpacing, item.SliceThickness = [1, 1], 2
    item.Rows, item.Columns = ROWS, COLUMNS
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit, item.PixelRepresentation = 15, 0
    item.RescaleSlope, item.RescaleIntercept = 2, -7
    voxels = np.arange(ROWS * COLUMNS) + 100 * number
    item.PixelData = voxels.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    item["PixelData"].VR = "OW"
    return item


def enhanced_image() -> pydicom.Dataset:
    """The same series as one enhanced image."""
    slices = [mr_slice(number) for number in range(SLICES)]
    item = mr_slice(0, kind=EnhancedMRImageStorage)
    item.NumberOfFrames = SLICES
    item.PixelData = b"".join(one.PixelData for one in slices)
    shared, measures, plane = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1, 1], 2
    plane.ImageOrientationPatient = item.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    item.SharedFunctionalGroupsSequence = [shared]
    item.PerFrameFunctionalGroupsSequence = []
    for one in slices:
        group, place, content = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        place.ImagePositionPatient = one.ImagePositionPatient
        content.StackID, content.TemporalPositionIndex = "1", 1
        group.PlanePositionSequence, group.FrameContentSequence = [place], [content]
        item.PerFrameFunctionalGroupsSequence.append(group)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(item, keyword)
    return item


def dicom_bytes(item: pydicom.Dataset) -> bytes:
    """A file of an object."""
    file = io.BytesIO()
    item.save_as(file, enforce_file_format=True)
    return file.getvalue()


def dicom_seeds() -> list[bytes]:
    """The second slice in three syntaxes, compressed and inverted, and an enhanced image."""
    syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
    items = [mr_slice(1, syntax) for syntax in syntaxes]
    compressed = mr_slice(1)
    compressed.compress(pydicom.uid.RLELossless)
    inverted = mr_slice(1)
    inverted.PhotometricInterpretation = "MONOCHROME1"
    return [dicom_bytes(item) for item in (*items, compressed, inverted, enhanced_image())]


def read_dicom(content: bytes, folder: Path) -> None:
    """Read all series of a folder with this slice among others, and write segmentations."""
    series = folder / "series"
    metadata = folder / "metadata.json"
    if not series.is_dir():
        series.mkdir()
        for number in range(SLICES):
            (series / f"{number}.dcm").write_bytes(dicom_bytes(mr_slice(number)))
        metadata.write_text(json.dumps(METADATA))
    (series / "1.dcm").write_bytes(content)
    for case in find_cases(series, require_labels=False, series_uid=""):
        image = LoadImageVolumed("image", dicom=True, allow_constant=True)(case)["image"]
        label = MetaTensor(torch.ones(image.shape, dtype=torch.uint8), meta=image.meta)
        save = SaveImageDicomSegd("pred", str(folder / "out"), str(metadata))
        save({"pred": label})


# TIFF


def tiff_seeds() -> list[bytes]:
    """Small pictures in strips and tiles, in several compressions and orders."""
    rows, columns = np.mgrid[:40, :30]
    colors = np.stack([rows * 6, columns * 8, rows + columns], axis=-1).astype(np.uint8)
    planes = np.moveaxis(colors, -1, 0).copy()
    tiled: dict[str, Any] = {"tile": (16, 16), "compression": "zlib", "photometric": "rgb"}
    pictures: list[tuple[np.ndarray, dict[str, Any]]] = [
        (colors, {"rowsperstrip": 16, "photometric": "rgb"}),
        (colors, tiled),
        (colors, {**tiled, "byteorder": ">"}),
        (colors, {**tiled, "bigtiff": True}),
        (planes, {**tiled, "planarconfig": "separate"}),
        (colors[..., 0], {"rowsperstrip": 16, "photometric": "minisblack"}),
        (colors[..., 0].astype(np.uint16), {"photometric": "minisblack"}),
    ]
    seeds = []
    for pixels, options in pictures:
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **options)
        seeds.append(file.getvalue())
    for compression in ("tiff_lzw", "jpeg", "packbits"):
        file = io.BytesIO()
        Image.fromarray(colors).save(file, "TIFF", compression=compression)
        seeds.append(file.getvalue())
    return seeds


def read_tiff(content: bytes, folder: Path) -> None:
    """Read a picture whole and in strips.

    Raises:
        AssertionError: if the two are different pictures.
    """
    path = folder / "a.tif"
    path.write_bytes(content)
    refused = None
    try:
        load = LoadImagePictured("image", allow_constant=True)
        whole = load({"image": str(path)})["image"].numpy().T  # (rows, columns, colors)
    except ValueError as error:
        refused = error
    with open_picture(str(path)) as picture:
        strips = []
        for row in range(0, picture.size[1], STRIP):
            strip = picture.rows(row, min(row + STRIP, picture.size[1]))
            strips.append(np.asarray(strip.convert("RGB")))
    if refused is not None:
        raise refused
    assert np.array_equal(np.concatenate(strips), whole), "the whole and its strips differ"


# dataset.json


def dataset_seeds() -> list[bytes]:
    """Lists of the Decathlon, with a validation list and folds, and a file of nnU-Net."""
    pairs = [{"image": f"images/{name}.nii", "label": f"labels/{name}.nii"} for name in "abc"]
    decathlon = {
        "labels": {"0": "background", "1": "a"},
        "training": pairs,
        "test": ["imagesTr/a_0000.nii.gz"],
    }
    validation = {"training": pairs[:2], "validation": pairs[2:], "numTraining": 2}
    folds = {"training": [{**pair, "fold": number} for number, pair in enumerate(pairs)]}
    nnunet = {"channel_names": {"0": "MR"}, "labels": {"a": 1}, "file_ending": ".nii.gz"}
    return [json.dumps(content).encode() for content in (decathlon, validation, folds, nnunet)]


def read_dataset(content: bytes, folder: Path) -> None:
    """List the cases of a data set with and without labels, and name its classes."""
    root = folder / "data"
    if not root.is_dir():
        volume = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
        for place in ("images", "labels", "imagesTr", "labelsTr"):
            (root / "set" / place).mkdir(parents=True)
        for name in "abc":
            nib.save(volume, root / "set" / "images" / f"{name}.nii")
            nib.save(volume, root / "set" / "labels" / f"{name}.nii")
            nib.save(volume, root / "set" / "imagesTr" / f"{name}_0000.nii.gz")
            nib.save(volume, root / "set" / "labelsTr" / f"{name}.nii.gz")
    path = root / "set" / "dataset.json"
    path.write_bytes(content)
    refused = None
    for require_labels in (True, False):
        try:
            cases = find_cases(path, require_labels)
            str(cases.leftovers)
        except (ValueError, OSError) as error:
            refused = error
    class_names(path)
    if refused is not None:
        raise refused


TARGETS = {
    "dicom": Target(dicom_seeds, read_dicom),
    "tiff": Target(tiff_seeds, read_tiff),
    "dataset": Target(
        dataset_seeds,
        read_dataset,
        ("training", "validation", "test", "image", "label", "fold", "labels", "file_ending",
            "channel_names", "images/a.nii", "null", "true", "1e9", "\\\\u0000", "[[", "{}"),
    ),
}  # fmt: skip
