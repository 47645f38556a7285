"""Label maps as DICOM RT structure sets.

They are written by pydicom alone. The packages for it (rt-utils 1.2.7, pydicomrt 0.9.1) both take
OpenCV, and their outlines go through the centers of an object's outer pixels, half a pixel too far
in; the second also smooths them and drops small ones. They read likewise: what they fill of an
outline that goes between pixels, as these do and as planning systems take it, is larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ldseg_monai import __version__
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.dicom.series import read_dicom, require_referred
from ldseg_monai.data.exports.label_map import File, LabelMap
from ldseg_monai.data.exports.of_series import file_of_series
from ldseg_monai.data.exports.outlines import between_pixels, objects_of, rings
from ldseg_monai.runtime.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

STORAGE = "1.2.840.10008.5.1.4.1.1.481.3"  # SOP class of RT structure sets
STUDY = "1.2.840.10008.3.1.2.3.1"  # SOP class by which they refer to a study, retired elsewhere
OF_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
OF_STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
DIGITS = 3  # behind the point of a mm: a number of DICOM's text has 16 characters at most


def structure_set_files(label: LabelMap) -> Iterator[File]:
    """The file ``NAME_rtstruct.dcm``; where the series cannot take one, a warning instead.

    Raises:
        ValueError: if the label map is not in the geometry of its series.
    """

    def make(slices: Sequence[Dataset]) -> Callable[[str], None]:
        return partial(_structure_set(label, slices).save_as, enforce_file_format=True)

    return file_of_series(label, "rtstruct.dcm", "RT structure set", make)


def _structure_set(label: LabelMap, slices: Sequence[Dataset]) -> Dataset:
    """The DICOM object, by PS3.3 A.19.

    Raises:
        ValueError: if there is nothing in it, or the series lacks what one refers to.
    """
    require_referred(slices)
    if not label.present:
        raise InputError("nothing was found in it, and one has at least one structure")
    item = _empty_set(label, read_dicom(slices[0].filename, stop_before_pixels=True))
    item.ReferencedFrameOfReferenceSequence = [_referenced(slices)]
    for number, kind in enumerate(label.present, start=1):
        item.StructureSetROISequence.append(
            _dataset(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=slices[0].FrameOfReferenceUID,
                ROIName=kind.name[:64],
                ROIGenerationAlgorithm="AUTOMATIC",
            )
        )
        item.ROIContourSequence.append(
            _dataset(
                ROIDisplayColor=list(kind.color),
                ContourSequence=list(_contours(label.voxels == kind.number, slices)),
                ReferencedROINumber=number,
            )
        )
        item.RTROIObservationsSequence.append(
            _dataset(
                ObservationNumber=number,
                ReferencedROINumber=number,
                RTROIInterpretedType="",
                ROIInterpreter="",
            )
        )
    return item


def _empty_set(label: LabelMap, source: Dataset) -> Dataset:
    """A structure set of the series' patient and study, without structures."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, generate_uid

    bundle, now = label.metadata, datetime.now()
    outside = label.meta.get(OUTSIDE)
    described = f"OUTSIDE OF KNOWN IMAGES: {bundle['name']}" if outside else bundle["name"]
    item = _dataset(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=STORAGE,
        SOPInstanceUID=generate_uid(),
        Modality="RTSTRUCT",
        StudyInstanceUID=source.StudyInstanceUID,
        SeriesInstanceUID=generate_uid(),
        SeriesNumber=2000 + int(source.get("SeriesNumber") or 0),
        SeriesDescription=described[:64],
        OperatorsName="",
        FrameOfReferenceUID=source.FrameOfReferenceUID,
        PositionReferenceIndicator=source.get("PositionReferenceIndicator", ""),
        Manufacturer="ldseg_monai",
        ManufacturerModelName=bundle["name"][:64],
        SoftwareVersions=f"{bundle['version']} (ldseg_monai {__version__})"[:64],
        InstanceNumber=1,
        StructureSetLabel=bundle["name"][:16],
        StructureSetDate=now.strftime("%Y%m%d"),
        StructureSetTime=now.strftime("%H%M%S"),
        ApprovalStatus="UNAPPROVED",
        StructureSetROISequence=[],
        ROIContourSequence=[],
        RTROIObservationsSequence=[],
    )
    if outside:
        item.StructureSetDescription = outside[:1024]
    for keyword in (*OF_PATIENT, *OF_STUDY):
        setattr(item, keyword, source.get(keyword, ""))
    item.file_meta = FileMetaDataset()
    # Where a value's length has 4 bytes: a long outline does not fit into 2
    item.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID
    item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    return item


def _referenced(slices: Sequence[Dataset]) -> Dataset:
    """The frame of reference, with the study, the series and all slices in it."""
    first = slices[0]
    series = _dataset(
        SeriesInstanceUID=first.SeriesInstanceUID,
        ContourImageSequence=[_reference(item) for item in slices],
    )
    study = _dataset(
        ReferencedSOPClassUID=STUDY,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _dataset(
        FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study]
    )


def _reference(item: Dataset) -> Dataset:
    """A reference to a slice: a file, or a frame of one."""
    reference = _dataset(
        ReferencedSOPClassUID=item.SOPClassUID, ReferencedSOPInstanceUID=item.SOPInstanceUID
    )
    if hasattr(item, "frame"):
        reference.ReferencedFrameNumber = item.frame + 1
    return reference


def _contours(mask: np.ndarray, slices: Sequence[Dataset]) -> Iterator[Dataset]:
    """An outline for each object on each slice, with channels to its holes.

    Args:
        mask: ``(columns, rows, slices)``.
        slices: headers.
    """
    number = 0
    for place, item in enumerate(slices):
        for inside, (row, column) in objects_of(mask[:, :, place].T):
            outline = between_pixels(rings(inside))
            number += 1
            points = _places(outline + (column, row), item)
            yield _dataset(
                ContourNumber=number,
                ContourImageSequence=[_reference(item)],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.{DIGITS}f}" for value in points.ravel()],
            )


def _places(points: np.ndarray, item: Dataset) -> np.ndarray:
    """Where points of a slice, in (column, row) from its first pixel's center, are in mm."""
    along_row, along_column = np.reshape(np.array(item.ImageOrientationPatient, float), (2, 3))
    rows_apart, columns_apart = np.array(item.PixelSpacing, float)
    steps = np.stack([along_row * columns_apart, along_column * rows_apart])
    return np.array(item.ImagePositionPatient, float) + points @ steps


def _dataset(**elements: object) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
