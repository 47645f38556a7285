"""DICOM series whose voxels say where they are, and a reader of DICOM segmentations by pydicom alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

GRADIENT = np.array([11.0, -7.0, 5.0])  # of the intensity, per mm to the left, back and top
STUDY = generate_uid(entropy_srcs=["study"])
FRAME_OF_REFERENCE = generate_uid(entropy_srcs=["frame of reference"])
# Functional groups of an enhanced image, and what each has of a slice
MACROS = {
    "PlanePositionSequence": ["ImagePositionPatient"],
    "PlaneOrientationSequence": ["ImageOrientationPatient"],
    "PixelMeasuresSequence": ["PixelSpacing", "SliceThickness"],
    "PixelValueTransformationSequence": ["RescaleSlope", "RescaleIntercept"],
}


def intensity(positions: np.ndarray) -> np.ndarray:
    """The intensity of a phantom at points of the patient, in DICOM's mm, `(..., 3)`."""
    return 2000 + positions @ GRADIENT


@dataclass(frozen=True)
class Series:
    """A series of slices whose intensity is `intensity` of their place, and how its files are written."""

    shape: tuple[int, int, int] = (7, 10, 8)  # slices, rows, columns
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # degrees about the patient's axes
    spacing: tuple[float, float, float] = (4.0, 0.75, 1.25)  # mm between slices, rows, columns
    origin: tuple[float, float, float] = (-20.0, 35.0, -12.5)
    tilt: float = 0.0  # mm that each slice is shifted along its rows: a tilted gantry
    uid: str = generate_uid(entropy_srcs=["series"])
    big_endian: bool = False
    rescale: bool = False  # another slope and intercept in each slice
    shuffled: bool = False  # whether names and instance numbers say nothing of the order

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors of the slice, row and column index, as columns."""
        along_row, along_column, normal = (
            Rotation.from_euler("xyz", self.turn, degrees=True).as_matrix().T
        )
        return np.stack([normal, along_column, along_row], axis=1)

    def positions(self) -> np.ndarray:
        """Places of all voxels, `(*shape, 3)`."""
        indices = np.moveaxis(np.indices(self.shape), 0, -1)
        shift = indices[..., :1] * self.tilt * self.axes[:, 2]
        return np.array(self.origin) + (indices * self.spacing) @ self.axes.T + shift

    def datasets(self) -> list[pydicom.Dataset]:
        """The slices in order."""
        return [self._slice(number, places) for number, places in enumerate(self.positions())]

    def write(self, folder: Path, drop: Sequence[int] = (), **changes: Any) -> Path:
        """Write the slices but those in `drop`; `changes` are of the last one, None to delete."""
        folder.mkdir(parents=True, exist_ok=True)
        order = self._order()
        for number, item in enumerate(self._changed(changes)):
            if number not in drop:
                item.InstanceNumber = int(order[number])
                name = f"{'ab'[order[number] % 2]}{order[number]:02d}_{self.uid[-4:]}"  # without an extension
                item.save_as(folder / name, enforce_file_format=True)
        return folder

    def write_enhanced(
        self,
        folder: Path,
        drop: Sequence[int] = (),
        contents: Sequence[dict[str, Any]] = (),
        **changes: Any,
    ) -> Path:
        """Write the slices as frames of one enhanced image, as `write` does; `contents` are of each frame's."""
        folder.mkdir(parents=True, exist_ok=True)
        slices = self._changed(changes)
        kept = [int(number) for number in np.argsort(self._order()) if number not in drop]
        item = pydicom.Dataset()
        item.update(slices[0])
        item.file_meta = slices[0].file_meta
        item.SOPClassUID = EnhancedMRImageStorage
        item.SOPInstanceUID = slices[kept[0]].SOPInstanceUID  # another one where others are kept
        item.NumberOfFrames = len(kept)
        item.PixelData = b"".join(slices[number].PixelData for number in kept)
        for keyword in MACROS.values():
            for name in keyword:
                if name in item:
                    delattr(item, name)
        item.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
        item.PerFrameFunctionalGroupsSequence = []
        for place, number in enumerate(kept):
            group = pydicom.Dataset()
            for macro, keywords in MACROS.items():
                inside = pydicom.Dataset()
                for name in keywords:
                    if name in slices[number]:
                        inside.add(slices[number][name])
                setattr(group, macro, [inside])
            content = pydicom.Dataset()
            for name, value in {"StackID": "1", **(contents[place] if contents else {})}.items():
                setattr(content, name, value)
            group.FrameContentSequence = [content]
            item.PerFrameFunctionalGroupsSequence.append(group)
        item.save_as(folder / "enhanced.dcm", enforce_file_format=True)
        return folder

    def _order(self) -> np.ndarray:
        """The place of each slice in the order of names."""
        if self.shuffled:
            return np.random.default_rng(3).permutation(self.shape[0])
        return np.arange(self.shape[0])

    def _changed(self, changes: dict[str, Any]) -> list[pydicom.Dataset]:
        """The slices in order, the last one changed."""
        slices = self.datasets()
        for keyword, value in changes.items():
            if value is None:
                delattr(slices[-1], keyword)
            else:
                setattr(slices[-1], keyword, value)
        return slices

    def _slice(self, number: int, places: np.ndarray) -> pydicom.Dataset:
        slope, intercept = (0.5 + 0.25 * number, -100.0 - number) if self.rescale else (1, 0)
        item = pydicom.Dataset()
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = (
            ExplicitVRBigEndian if self.big_endian else ExplicitVRLittleEndian
        )
        item.SOPClassUID = MRImageStorage
        item.SOPInstanceUID = generate_uid(entropy_srcs=[self.uid, str(number)])
        item.StudyInstanceUID, item.SeriesInstanceUID = STUDY, self.uid
        item.FrameOfReferenceUID = FRAME_OF_REFERENCE
        item.Modality, item.SeriesDescription, item.SeriesNumber = "MR", "a phantom", 5
        item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = (
            "Phantom^A",
            "7",
            "",
            "O",
        )
        item.StudyDate, item.StudyTime, item.StudyID, item.AccessionNumber = (
            "20260102",
            "030405",
            "1",
            "",
        )
        item.ImagePositionPatient = [float(f"{value:.9g}") for value in places[0, 0]]
        item.ImageOrientationPatient = [
            float(f"{value:.9g}") for value in self.axes.T[[2, 1]].ravel()
        ]
        item.PixelSpacing, item.SliceThickness = list(self.spacing[1:]), 3.0
        item.Rows, item.Columns = self.shape[1:]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit, item.PixelRepresentation = 15, 1
        if self.rescale:
            item.RescaleSlope, item.RescaleIntercept = slope, intercept
        stored = np.round((intensity(places) - intercept) / slope)
        item.PixelData = stored.astype(">i2" if self.big_endian else "<i2").tobytes()
        item["PixelData"].VR = "OW"
        return item


AXIAL = Series()
OBLIQUE = replace(AXIAL, turn=(25.0, -40.0, 70.0), shuffled=True)
SAGITTAL_BIG_ENDIAN = replace(AXIAL, turn=(-90.0, 0.0, 90.0), big_endian=True, shuffled=True)
RESCALED = replace(OBLIQUE, rescale=True)
TILTED = replace(AXIAL, tilt=0.9)
SERIES = {
    "axial": AXIAL,
    "oblique": OBLIQUE,
    "big_endian": SAGITTAL_BIG_ENDIAN,
    "rescaled": RESCALED,
    "tilted": TILTED,
}


@dataclass(frozen=True)
class Voxels:
    """The places of labeled voxels' centers, in DICOM's mm, and their classes."""

    places: np.ndarray
    classes: np.ndarray

    def assert_same(self, other: Voxels, tolerance: float = 1e-2) -> None:
        """Whether both have the same voxels, to a hundredth of a mm."""
        assert len(self.places) == len(other.places) > 0
        distance, nearest = cKDTree(self.places).query(other.places)
        assert distance.max() < tolerance and len(set(nearest)) == len(nearest)
        assert np.array_equal(self.classes[nearest], other.classes)


def nifti_voxels(path: Path) -> Voxels:
    """Labeled voxels of a NIfTI file."""
    image = nib.load(path)
    label = np.asanyarray(image.dataobj)
    places = nib.affines.apply_affine(image.affine, np.argwhere(label)) * [-1, -1, 1]
    return Voxels(places, label[label > 0])


def segmentation_voxels(path: Path) -> Voxels:
    """Labeled voxels of a DICOM segmentation, frame by frame as the standard places them (PS3.3 C.7.6.2.1.1)."""
    item = pydicom.dcmread(path)
    shared = item.SharedFunctionalGroupsSequence[0]
    along_row, along_column = np.reshape(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)
    ).astype(float)
    rows_apart, columns_apart = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = item.pixel_array.reshape(-1, item.Rows, item.Columns)
    places, classes = [], []
    for frame, group in zip(frames, item.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(frame)
        places.append(
            position
            + np.outer(column * columns_apart, along_row)
            + np.outer(row * rows_apart, along_column)
        )
        classes += [group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] * len(row)
    return Voxels(np.concatenate(places), np.array(classes))
