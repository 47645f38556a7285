"""Which DICOM series a folder holds, and whether a series is one volume."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ldseg_monai.runtime.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger("ldseg_monai.data")

SLICE = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
SHARED = (
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "StudyInstanceUID",
)
THICKNESS = ("SpacingBetweenSlices", "SliceThickness")
DESCRIPTION = (
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SeriesDescription",
    "Modality",
    "NumberOfFrames",
)
TAGS = sorted({*SLICE, *SHARED, *THICKNESS, *DESCRIPTION, "SamplesPerPixel"})
DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR, which belongs to no series
UNREADABLE = ""  # stands for the UID of a series with a file that cannot be read
PathLike = str | os.PathLike[str]


def dicom_files(folder: PathLike) -> list[str]:
    """Paths of the DICOM files right in a folder, told by their first bytes; no hidden ones."""
    with os.scandir(folder) as entries:
        paths = sorted(
            entry.path for entry in entries if entry.is_file() and not entry.name.startswith(".")
        )
    return [path for path in paths if _is_dicom(path)]


def series_datalist(folders: Sequence[PathLike], series_uid: str = "") -> list[dict[str, Any]]:
    """List the image series of folders with DICOM files, one item for each.

    The only one is checked to be a volume at once. One of several is when it is read, so that it
    does not stop others.

    Args:
        folders: each with files of one image series; of any number of series where ``series_uid``
            is given. Objects that are no image slices, such as segmentations and reports, may lie
            beside them.
        series_uid: Series Instance UID of the only series that is wanted.

    Returns:
        ``[{"image": folder}, ...]``, for a series among others ``[{"image": [folder,
        series_uid]}]``.

    Raises:
        ValueError: no series, not the one wanted, several in one folder, one in several folders or
            of one name, or a series that is no volume (see `sorted_slices`).
        ImportError: if pydicom or highdicom is not installed.
    """
    chosen = _choose(folders, series_uid)
    names = [Path(item.folder).stem for item in chosen]  # as MONAI names what it writes
    _require_unique(
        names, "the name", "is that of several folders, after which results are named", chosen
    )
    return [{"image": item.folder if item.alone else [item.folder, item.uid]} for item in chosen]


def read_series(folder: PathLike, series_uid: str = "") -> list[Dataset]:
    """Read the headers of a folder's series, without pixels and in the order of `sorted_slices`.

    Args:
        folder: the folder.
        series_uid: Series Instance UID; "" for the folder's only image series.

    Raises:
        ValueError: as of `series_datalist`.
    """
    return _choose([folder], series_uid)[0].slices


def sorted_slices(slices: Iterable[Dataset]) -> list[Dataset]:
    """Sort the slices of a volume along their normal (row direction x column direction).

    Raises:
        ValueError: a slice without a place or of several samples a pixel, slices that differ in
            size, spacing, orientation or frame of reference, two in one place, a missing one, or
            slices that are not on a line.
    """
    slices = list(slices)
    for item in slices:
        missing = [
            keyword
            for keyword in (*SLICE, *SHARED, "SOPInstanceUID")
            if item.get(keyword) in (None, "")
        ]
        if missing or not _is_slice(item):
            raise InputError(
                f"{item.filename} is no slice like others of its series (missing: "
                f"{', '.join(missing) or 'nothing'}; "
                f"frames: {item.get('NumberOfFrames') or 1}): expected one frame and all of these; "
                "remove or repair it"
            )
        if item.get("SamplesPerPixel", 1) != 1:
            raise InputError(
                f"{item.filename} has {item.SamplesPerPixel} samples a pixel: expected 1, a gray "
                "image"
            )
        for keyword in SHARED:
            if not _equal(item[keyword].value, slices[0][keyword].value):
                raise InputError(
                    f"{item.filename} has {keyword} {item[keyword].value} and {slices[0].filename} "
                    f"{slices[0][keyword].value}: expected the same in all slices of a volume; "
                    "remove those that differ"
                )
    normal = np.cross(*np.reshape(_numbers(slices[0], "ImageOrientationPatient"), (2, 3)))
    slices.sort(key=lambda item: float(normal @ _numbers(item, "ImagePositionPatient")))
    if len(slices) > 1:
        _check_positions(slices, normal)
    return slices


def slice_affine(slices: Sequence[Dataset]) -> np.ndarray:
    """Affine matrix from (column, row, slice) to mm: to the patient's right, anterior, superior.

    Args:
        slices: in the order of `sorted_slices`. The last axis goes from the first to the last
            position, which need not be along the normal (a tilted gantry).
    """
    row, column = np.reshape(_numbers(slices[0], "ImageOrientationPatient"), (2, 3))
    rows_apart, columns_apart = _numbers(slices[0], "PixelSpacing")
    first, last = (_numbers(item, "ImagePositionPatient") for item in (slices[0], slices[-1]))
    if len(slices) > 1:
        step = (last - first) / (len(slices) - 1)
    else:
        thickness = next(
            (slices[0][keyword].value for keyword in THICKNESS if slices[0].get(keyword)), 1.0
        )
        step = np.cross(row, column) * abs(float(thickness))
    affine = np.eye(4)
    affine[:3] = np.stack([row * columns_apart, column * rows_apart, step, first], axis=1)
    return (
        np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    )  # DICOM's x and y go to the left and to the back


class _Series(NamedTuple):
    """A series that was chosen, and whether its folder has no other."""

    folder: str
    uid: str
    slices: list[Dataset]
    alone: bool


def _choose(folders: Sequence[PathLike], series_uid: str) -> list[_Series]:
    """The one series of each folder, or the one of all folders that has the UID."""
    found: dict[str, dict[str, list[Dataset]]] = {}
    for folder in map(os.path.abspath, folders):
        try:
            found[folder] = _image_series(folder)
        except ValueError:
            if len(folders) == 1 or series_uid:
                raise
            found[folder] = {UNREADABLE: []}
    everything = [
        _Series(folder, uid, slices, len(all_) == 1)
        for folder, all_ in found.items()
        for uid, slices in all_.items()
    ]
    chosen = [item for item in everything if series_uid in ("", item.uid)]
    if not everything:
        raise InputError(
            f"no DICOM series of image slices in {', '.join(found)}: expected single-frame images "
            "with "
            f"{', '.join(SLICE)}; multi-frame (enhanced) images have to be converted, to NIfTI for "
            "example"
        )
    if not chosen:
        raise InputError(
            f"no DICOM series {series_uid}; {_describe(everything)}: expected one of these as "
            "series_uid"
        )
    for item in chosen:
        if not item.alone and not series_uid:
            several = [other for other in chosen if other.folder == item.folder]
            raise InputError(
                f"{len(several)} DICOM series in one folder; {_describe(several)}: expected one; "
                "choose it with "
                "--series_uid UID, or give each a folder of its own"
            )
    known = [item for item in chosen if item.uid != UNREADABLE]
    _require_unique(
        [item.uid for item in known], "the DICOM series", "is in several folders", known
    )
    return (
        [item._replace(slices=sorted_slices(item.slices)) for item in chosen]
        if len(chosen) == 1
        else chosen
    )


def _is_dicom(path: str) -> bool:
    """What pydicom's function of this name says, where there may be no pydicom."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _image_series(folder: PathLike) -> dict[str, list[Dataset]]:
    """Headers, without pixels, of each series' image slices, by Series Instance UID."""
    if not all(
        map(importlib.util.find_spec, ("pydicom", "highdicom"))
    ):  # the second writes the results
        raise MissingPackageError(
            f"DICOM in {folder} needs pydicom and highdicom: pip install highdicom, or "
            "ldseg_monai[dicom]"
        )
    import pydicom

    series: dict[str, list[Dataset]] = {}
    for path in dicom_files(folder):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
            if header.file_meta.get("MediaStorageSOPClassUID") != DIRECTORY:
                series.setdefault(str(header.SeriesInstanceUID), []).append(header)
        except Exception as error:  # whatever a broken file brings about
            raise InputError(
                f"{path} cannot be read as DICOM ({error}): remove or repair it"
            ) from error
    other = {uid: items for uid, items in series.items() if not any(map(_is_slice, items))}
    if other:
        kinds = Counter(
            str(item.get("Modality", "no modality")) for items in other.values() for item in items
        )
        logger.info("%s: ignored DICOM files that are no image slices: %s", folder, dict(kinds))
    return {uid: items for uid, items in series.items() if uid not in other}


def _is_slice(item: Dataset) -> bool:
    return all(item.get(keyword) for keyword in SLICE) and (item.get("NumberOfFrames") or 1) == 1


def _check_positions(slices: Sequence[Dataset], normal: np.ndarray) -> None:
    """Whether slices that are sorted along their normal are one volume."""
    positions = np.stack([_numbers(item, "ImagePositionPatient") for item in slices])
    steps = np.diff(positions @ normal)
    smallest, largest = int(np.argmin(steps)), int(np.argmax(steps))
    if steps[smallest] < 0.01:
        raise InputError(
            f"{slices[smallest].filename} and {slices[smallest + 1].filename} are in the same "
            "place: expected one slice"
            " in each; give a folder with one volume (one echo, time or b-value)"
        )
    if steps[largest] > 1.2 * steps[smallest]:  # room for positions rounded to 0.1 mm
        raise InputError(
            f"{steps[largest]:.2f} mm from {slices[largest].filename} to "
            f"{slices[largest + 1].filename}, "
            f"{steps[smallest]:.2f} mm elsewhere in the series: expected even spacing; add the "
            "slices that are missing"
        )
    line = np.linspace(positions[0], positions[-1], len(positions))
    off = np.linalg.norm(positions - line, axis=1)
    if off.max() > 0.1 * steps.mean():
        raise InputError(
            f"{slices[int(off.argmax())].filename} is {off.max():.2f} mm off its place in an "
            "evenly spaced series: "
            "expected a regular volume; resample it, to NIfTI for example"
        )


def _numbers(item: Dataset, keyword: str) -> np.ndarray:
    return np.array(item[keyword].value, float)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, str):
        return one == other
    return np.shape(one) == np.shape(other) and np.allclose(
        np.array(one, float), np.array(other, float), atol=1e-4
    )


def _describe(series: Iterable[_Series]) -> str:
    return "; ".join(
        f"{item.folder}: {item.uid} ({item.slices[0].get('Modality') or 'no modality'}, "
        f"{str(item.slices[0].get('SeriesDescription') or 'no description')}, {len(item.slices)} "
        "slices)"
        for item in series
    )


def _require_unique(
    values: Sequence[str], what: str, problem: str, series: Sequence[_Series]
) -> None:
    value, count = Counter(values).most_common(1)[0]
    if count > 1:
        same = [item for item, other in zip(series, values, strict=True) if other == value]
        raise InputError(
            f"{what} {value} {problem}; {_describe(same)}: expected one; merge, rename or remove "
            "folders"
        )
