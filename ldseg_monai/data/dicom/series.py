"""Which DICOM series a folder holds, and whether a series is one volume."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

import numpy as np

from ldseg_monai.data.dicom.frames import (
    FRAME_GROUPS,
    SHARED_GROUPS,
    frames_of,
    is_enhanced,
    place_name,
    require_one_volume,
)
from ldseg_monai.data.leftovers import Leftovers, is_beside, is_hidden, some, target_of_broken_link
from ldseg_monai.data.names import plain_name
from ldseg_monai.runtime.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from pydicom import Dataset

SLICE = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
SHARED = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
# What a DICOM segmentation refers to: the same in all slices, or in none
REFERRED = ("FrameOfReferenceUID", "StudyInstanceUID")
# What a series is of: the same in all slices, or in none
OF_ALL = (*REFERRED, "PatientID", "Modality")
# What makes of stored values what was measured: in all slices of a volume, or in none
RESCALE = ("RescaleSlope", "RescaleIntercept")
THICKNESS = ("SpacingBetweenSlices", "SliceThickness")
DESCRIPTION = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "Modality",
    "NumberOfFrames",
)
GROUPS = (SHARED_GROUPS, FRAME_GROUPS)
OTHERS = (*THICKNESS, *DESCRIPTION, *GROUPS, "SamplesPerPixel")
TAGS = sorted({*SLICE, *SHARED, *OF_ALL, *RESCALE, *OTHERS})
ENDINGS = (".dcm", ".dicom", ".ima")  # of files that are meant to be DICOM, whatever they hold
# Direction cosines and spacings of slices may differ by what scanners round: no more than this,
# and never by so much that a slice's last row or column is this share of a pixel off its place.
ROUNDING, SHARE_OF_PIXEL = 1e-3, 0.25
NUMBERS = {
    "PixelSpacing": 2,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "Rows": 1,
    "Columns": 1,
    "NumberOfFrames": 1,
    "SamplesPerPixel": 1,
    "SpacingBetweenSlices": 1,
    "SliceThickness": 1,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
}  # of values
RIGHT_ANGLE = 1e-2  # that cosines of directions may be off
DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR, which belongs to no series
UNDEFINED = 2**32 - 1  # length of pixels that are compressed
UNREADABLE = ""  # stands for the UID of a series with a file that cannot be read
PathLike = str | os.PathLike[str]


class SeriesFiles(NamedTuple):
    """Files right in a folder with DICOM, hidden ones excepted.

    Attributes:
        dicom: those that begin as DICOM does.
        doubtful: those that may be slices, and do not; with what they are instead.
        beside: those whose endings say that they are no slices.
    """

    dicom: list[str]
    doubtful: dict[str, str]
    beside: list[str]


def series_files(folder: PathLike) -> SeriesFiles:
    """Tell the files right in a folder apart; there are no DICOM files where none is meant to be.

    Whatever has no ending of another kind of file may be a slice: a copy that broke off leaves
    empty files, cut ones, ``IM034.dcm.part``, and links to nowhere.
    """
    files = SeriesFiles([], {}, [])
    is_meant = False
    with os.scandir(folder) as entries:
        paths = sorted(entry.path for entry in entries if not is_hidden(entry.name))
    for path in paths:
        if os.path.isdir(path):
            continue
        if is_beside(path):
            files.beside.append(path)
            continue
        problem = _problem(path)
        if problem:
            files.doubtful[path] = problem
            is_meant |= path.lower().endswith(ENDINGS)
        else:
            files.dicom.append(path)
    if files.dicom or is_meant:
        return files
    return SeriesFiles([], {}, sorted([*files.doubtful, *files.beside]))


def series_datalist(
    folders: Sequence[PathLike],
    series_uid: str = "",
    skip_unreadable: bool = False,
    leftovers: Leftovers | None = None,
    check: bool = True,
) -> list[DicomSeries]:
    """List the image series of folders with DICOM files.

    The only one is checked to be a volume at once. One of several cases is when it is read, so that
    it does not stop others.

    Args:
        folders: each with files of any number of image series. Objects that are no image slices,
            such as segmentations and reports, may lie beside them.
        series_uid: Series Instance UID of the only series that is wanted.
        skip_unreadable: as of `read_series`.
        leftovers: gets what is not used.
        check: whether the only series is the only case.

    Raises:
        ValueError: no series, not the one wanted, one in several folders, or a series that is no
            volume (see `sorted_slices`).
        ImportError: if pydicom or highdicom is not installed.
    """
    leftovers = leftovers if leftovers is not None else Leftovers()
    everything: list[DicomSeries] = []
    faults: list[InputError] = []
    for folder in map(os.path.abspath, folders):
        try:
            found = _image_series(folder, skip_unreadable, leftovers)
        except InputError as fault:
            faults.append(fault)
            found = {UNREADABLE: []}
        everything += [
            DicomSeries(folder, uid, slices, len(found) == 1) for uid, slices in found.items()
        ]
    if faults and (series_uid or (check and len(everything) == 1)):
        raise faults[0]
    if not everything:
        where = some(map(os.path.abspath, folders))
        raise InputError(
            f"no DICOM series of image slices in {where}: expected images with {', '.join(SLICE)}, "
            "or enhanced CT, MR or PET images; others have to be converted, to NIfTI for example"
        )
    chosen = [item for item in everything if series_uid in ("", item.uid)]
    if not chosen:
        raise InputError(
            f"no DICOM series {series_uid}; {_describe(everything)}: expected one of these as "
            "series_uid"
        )
    for item in everything:
        if item not in chosen:
            leftovers.add(f"series_uid is {series_uid}", _describe([item]))
    known = [item for item in chosen if item.uid != UNREADABLE]
    _require_one_folder(known)
    if len(chosen) == 1 and check:
        sorted_slices(chosen[0].slices)
    return chosen


def read_series(
    folder: PathLike, series_uid: str = "", skip_unreadable: bool = False
) -> list[Dataset]:
    """Read the headers of a folder's series, without pixels and in the order of `sorted_slices`.

    Those of an enhanced image are one a frame (see `frames_of`).

    Args:
        folder: the folder.
        series_uid: Series Instance UID; "" for the folder's only image series.
        skip_unreadable: whether files that cannot be read, and may be slices, are left out.

    Raises:
        ValueError: as of `series_datalist`, or for several series without a ``series_uid``.
    """
    chosen = series_datalist([folder], series_uid, skip_unreadable)
    if len(chosen) > 1:
        raise InputError(
            f"{len(chosen)} DICOM series in one folder; {_describe(chosen)}: expected one; choose "
            "it with --series_uid UID, or give each a folder of its own"
        )
    return sorted_slices(chosen[0].slices)


def read_dicom(file: Any, **options: Any) -> Dataset:
    """Read a DICOM file by pydicom, one without preamble too.

    Such a file has no say on how it is encoded, but by its elements.

    Args:
        file: path, or open file.
        options: of ``pydicom.dcmread``.

    Raises:
        ImportError: if pydicom is not installed.
    """
    if importlib.util.find_spec("pydicom") is None:
        raise MissingPackageError("DICOM takes pydicom: pip install 'ldseg_monai[dicom]'")
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    item = pydicom.dcmread(file, force=True, **options)
    if not item.file_meta.get("TransferSyntaxUID"):
        is_implicit, is_little_endian = item.original_encoding
        syntax = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        item.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else syntax
    return item


def sorted_slices(slices: Iterable[Dataset]) -> list[Dataset]:
    """Sort the slices of a volume along their normal (row direction x column direction).

    Raises:
        ValueError: frames of several volumes, a slice without a place or of several samples a
            pixel, slices that differ in size, spacing, orientation or frame of reference, or of
            which some alone are rescaled, two in one place, a missing one, or slices that are not
            on a line.
    """
    slices = list(slices)
    require_one_volume(slices)
    referred = [keyword for keyword in OF_ALL if any(item.get(keyword) for item in slices)]
    for item in slices:
        missing = [
            keyword
            for keyword in (*SLICE, *referred, "SOPInstanceUID")
            if item.get(keyword) in (None, "")
        ]
        if missing or not _is_slice(item):
            raise InputError(
                f"{place_name(item)} is no slice like others of its series (missing: "
                f"{', '.join(missing) or 'nothing'}; "
                f"frames: {item.get('NumberOfFrames') or 1}): expected one frame and all of these; "
                "remove or repair it"
            )
        if item.get("SamplesPerPixel", 1) != 1:
            raise InputError(
                f"{place_name(item)} has {item.SamplesPerPixel} samples a pixel: expected 1, a "
                "gray image"
            )
        for keyword in (*SHARED, *referred):
            if not _is_equal(item, slices[0], keyword):
                raise InputError(
                    f"{place_name(item)} has {keyword} {item[keyword].value} and "
                    f"{place_name(slices[0])} {slices[0][keyword].value}: expected the same in all "
                    "slices of a volume; give each volume a folder of its own, without scouts, or "
                    "convert the series by a program that resamples it, such as dcm2niix"
                )
    _require_one_scale(slices)
    normal = np.cross(*np.reshape(_numbers(slices[0], "ImageOrientationPatient"), (2, 3)))
    slices.sort(key=lambda item: float(normal @ _numbers(item, "ImagePositionPatient")))
    if len(slices) > 1:
        _check_positions(slices, normal)
    return slices


def _require_one_scale(slices: Sequence[Dataset]) -> None:
    """Check that all slices say how their values are scaled, or none does.

    Raises:
        ValueError: if some alone do: their gray would differ from that of the others.
    """
    for keyword in RESCALE:
        scaled = [item for item in slices if keyword in item]
        if 0 < len(scaled) < len(slices):
            other = next(item for item in slices if keyword not in item)
            raise InputError(
                f"{place_name(scaled[0])} has {keyword} {scaled[0][keyword].value} and "
                f"{place_name(other)} has none: expected one in all slices of a volume, or in "
                "none; repair the series, or give each volume a folder of its own"
            )


def require_referred(slices: Sequence[Dataset]) -> None:
    """Check that slices have what a DICOM object refers to them by.

    Raises:
        ValueError: if they lack it, or several have one SOP Instance UID.
    """
    missing = [keyword for keyword in (*REFERRED, "SOPClassUID") if not slices[0].get(keyword)]
    if missing:
        raise InputError(f"it has no {' and no '.join(missing)}, to which one refers")
    first_of: dict[tuple[str, int], Dataset] = {}
    for item in slices:
        other = first_of.setdefault((item.SOPInstanceUID, getattr(item, "frame", 0)), item)
        if other is not item:
            raise InputError(
                f"{place_name(other)} and {place_name(item)} have one SOPInstanceUID, by which one "
                "refers to a slice"
            )


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


def is_dicom(path: str) -> bool:
    """Whether a file begins as DICOM does, with preamble or without."""
    return not _problem(path)


def dicom_name(path: PathLike) -> str:
    """Name of a DICOM file that is an image of its own, without its ending."""
    name = plain_name(path)
    ending = next((end for end in ENDINGS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def kind_without_image(path: PathLike) -> str:
    """What a DICOM file is whose SOP class says that it is no image, such as a report; "" if none.

    A file that cannot be read says nothing: that is told where it is read.

    Raises:
        ImportError: as of `read_dicom`.
    """
    try:
        item = read_dicom(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        uid = item.file_meta.get("MediaStorageSOPClassUID") or item.get("SOPClassUID")
    except MissingPackageError:
        raise
    except Exception:  # whatever a broken file brings about
        return ""
    name = getattr(uid, "name", "")  # of a class that DICOM does not know, its UID
    return "" if name == uid or "Image" in name else name


def series_of_slice(path: PathLike) -> tuple[str, str] | None:
    """Folder and UID of the series for which one of its slices stands; None for another path.

    A file that cannot be read is none: that is told where it is read.

    Raises:
        ImportError: as of `read_dicom`.
    """
    name = os.fspath(path)
    if not os.path.isfile(name) or is_beside(name) or not is_dicom(name):
        return None
    try:
        header = read_dicom(name, stop_before_pixels=True, specific_tags=TAGS)
        if not is_enhanced(header) and not _is_slice(header):
            return None
        return os.path.dirname(os.path.abspath(name)), str(header.get("SeriesInstanceUID") or "")
    except MissingPackageError:
        raise
    except Exception:  # whatever a broken file brings about
        return None


def folder_of_slice(path: PathLike) -> PathLike:
    """The folder of the series for which one of its slices stands; another path as it is.

    Raises:
        ImportError: as of `read_dicom`.
    """
    series = series_of_slice(path)
    return path if series is None else series[0]


def one_slice_each(paths: Iterable[PathLike]) -> list[PathLike]:
    """Paths without those of slices whose series another one stands for already, in order.

    Raises:
        ImportError: as of `read_dicom`.
    """
    kept: dict[Any, PathLike] = {}
    for path in paths:
        kept.setdefault(series_of_slice(path) or os.fspath(path), path)
    return list(kept.values())


class DicomSeries(NamedTuple):
    """A series of a folder, and whether it is its only one.

    Attributes:
        folder: absolute path.
        uid: Series Instance UID; "" for a folder whose files cannot be read.
        slices: headers.
        alone: whether its folder has no other series.
    """

    folder: str
    uid: str
    slices: list[Dataset]
    alone: bool

    @property
    def image(self) -> str | list[str]:
        """The image of a case: the folder, and the UID where it has several."""
        return self.folder if self.alone else [self.folder, self.uid]

    @property
    def number(self) -> str:
        """The number that the scanner gave it, or else its UID."""
        return str(self.slices[0].get("SeriesNumber") or self.uid) if self.slices else self.uid


def _problem(path: str) -> str:
    """What keeps a file from being DICOM by its first bytes; "" if nothing does."""
    target = target_of_broken_link(path)
    if target is not None:
        return f"a link to {target}, which is not there"
    if not os.path.isfile(path):
        return "no file"
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError as error:
        return error.strerror or str(error)
    if start[128:] == b"DICM" or _begins_with_element(start):
        return ""
    return f"{len(start)} bytes" if len(start) < 132 else "no DICOM"


def _begins_with_element(start: bytes) -> bool:
    """Whether a file without preamble begins with a data element of group 2 or 8."""
    if start[:2] not in (b"\x02\x00", b"\x08\x00") or len(start) < 132:
        return False
    has_kind = start[4:6].isalpha() and start[4:6].isupper()  # explicit value representation
    return has_kind or int.from_bytes(start[4:8], "little") < 1024


def _image_series(
    folder: str, skip_unreadable: bool, leftovers: Leftovers
) -> dict[str, list[Dataset]]:
    """Headers, without pixels, of each series' image slices, by Series Instance UID."""
    if not all(
        map(importlib.util.find_spec, ("pydicom", "highdicom"))
    ):  # the second writes the results
        raise MissingPackageError(
            f"DICOM in {folder} needs pydicom and highdicom: pip install highdicom, or "
            "ldseg_monai[dicom]"
        )
    files = series_files(folder)
    unreadable = dict(files.doubtful)
    series: dict[str, list[Dataset]] = {}
    for path in files.dicom:
        try:
            with open(path, "rb") as file:
                header = read_dicom(file, stop_before_pixels=True, specific_tags=TAGS)
                is_cut = _ends_in_pixels(file, *header.original_encoding)
            if header.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
                continue
            if is_cut:
                raise InputError("its pixels are cut off")
            _require_numbers(header)
            slices = frames_of(header) if is_enhanced(header) else [header]
            for item in slices:
                _require_numbers(item)
            if not header.get("SeriesInstanceUID"):
                raise InputError("it has no SeriesInstanceUID, so its series is not known")
            series.setdefault(str(header.SeriesInstanceUID), []).extend(slices)
        except Exception as error:  # whatever a broken file brings about
            unreadable[path] = " ".join(str(error).split()) or type(error).__name__
    if unreadable and not skip_unreadable:
        told = some(f"{path} cannot be read as DICOM ({why})" for path, why in unreadable.items())
        raise InputError(
            f"{told}: expected whole files, since each may be a slice; remove or repair it, or "
            "segment what is left with --skip_unreadable True"
        )
    for path, why in unreadable.items():
        leftovers.add("cannot be read as DICOM", f"{path} ({why})")
    other = {uid: items for uid, items in series.items() if not any(map(_is_slice, items))}
    kinds = Counter(_kind(item) for items in other.values() for item in items)
    for kind, count in kinds.items():
        leftovers.add("DICOM, but no image slices", f"{count} of {kind} in {folder}")
    return {uid: items for uid, items in series.items() if uid not in other}


def _ends_in_pixels(file: BinaryIO, is_implicit: bool, is_little_endian: bool) -> bool:
    """Whether a file that is read up to its pixels has fewer bytes of them than it says."""
    start = file.read(12)  # tag, 4 bytes for what the values are unless implicit, length
    if len(start) < 12:
        return False
    order: Literal["little", "big"] = "little" if is_little_endian else "big"
    length = int.from_bytes(start[4:8] if is_implicit else start[8:12], order)
    if length == UNDEFINED:  # compressed
        return False
    begin = file.tell() - (4 if is_implicit else 0)
    return file.seek(0, os.SEEK_END) - begin < length


def _require_numbers(header: Dataset) -> None:
    """Read every value of a header, and check those that are counted with.

    Raises:
        ValueError: for a value that is none of its kind, or another number of them, a spacing that
            is not positive, and directions that are no axes of a plane.
    """
    for element in header:  # pydicom reads a value when it is asked for
        wanted = NUMBERS.get(element.keyword)
        if wanted is None or element.value in (None, ""):
            continue
        values = np.atleast_1d(np.array(element.value))
        is_text = values.dtype.kind not in "iuf"  # as where the header gives another kind of value
        if is_text or len(values) != wanted or not np.isfinite(values).all():
            raise InputError(
                f"its {element.keyword} is {element.value}: expected {wanted} finite numbers"
            )
        if element.keyword == "PixelSpacing" and (values <= 0).any():
            raise InputError(f"its PixelSpacing is {element.value}: expected positive mm")
        if element.keyword == "ImageOrientationPatient":
            row, column = values.astype(float).reshape(2, 3)
            off = np.abs([row @ row - 1, column @ column - 1, row @ column])
            if (off > RIGHT_ANGLE).any():
                raise InputError(
                    f"its ImageOrientationPatient is {element.value}: expected two directions of "
                    "length 1 at a right angle"
                )


def _kind(item: Dataset) -> str:
    """What a DICOM object that is no slice is."""
    kind = str(item.get("Modality") or "no modality")
    return f"{kind}, multi-frame" if (item.get("NumberOfFrames") or 1) > 1 else kind


def _is_slice(item: Dataset) -> bool:
    return all(item.get(keyword) for keyword in SLICE) and (item.get("NumberOfFrames") or 1) == 1


def _check_positions(slices: Sequence[Dataset], normal: np.ndarray) -> None:
    """Whether slices that are sorted along their normal are one volume."""
    positions = np.stack([_numbers(item, "ImagePositionPatient") for item in slices])
    steps = np.diff(positions @ normal)
    smallest, largest = int(np.argmin(steps)), int(np.argmax(steps))
    if steps[smallest] < 0.01:
        one, other = slices[smallest], slices[smallest + 1]
        advice = "give a folder with one volume (one echo, time or b-value)"
        uids = {item.get("SOPInstanceUID") or item.filename for item in (one, other)}
        if one.filename != other.filename and len(uids) == 1:
            advice = "both files are the same slice (SOPInstanceUID): remove one of them"
        raise InputError(
            f"{place_name(one)} and {place_name(other)} are in the same place: expected one slice "
            f"in each; {advice}"
        )
    if steps[largest] > 1.2 * steps[smallest]:  # room for positions rounded to 0.1 mm
        raise InputError(
            f"{steps[largest]:.2f} mm from {place_name(slices[largest])} to "
            f"{place_name(slices[largest + 1])}, "
            f"{steps[smallest]:.2f} mm elsewhere in the series: expected even spacing; add the "
            "slices that are missing or, if none is, resample it, to NIfTI for example"
        )
    line = np.linspace(positions[0], positions[-1], len(positions))
    off = np.linalg.norm(positions - line, axis=1)
    if off.max() > 0.1 * steps.mean():
        raise InputError(
            f"{place_name(slices[int(off.argmax())])} is {off.max():.2f} mm off its place in an "
            "evenly spaced series: expected a regular volume; resample it, to NIfTI for example"
        )


def _numbers(item: Dataset, keyword: str) -> np.ndarray:
    return np.array(item[keyword].value, float)


def _is_equal(item: Dataset, other: Dataset, keyword: str) -> bool:
    """Whether two slices have the same of a keyword, but for what a scanner rounds."""
    one, two = (slice_[keyword].value for slice_ in (item, other))
    if isinstance(one, str):
        return one == two
    if np.shape(one) != np.shape(two):
        return False
    if np.ndim(one) == 0:
        return one == two
    difference = np.abs(np.array(one, float) - np.array(two, float)).max()
    return difference <= min(ROUNDING, SHARE_OF_PIXEL / max(item.Rows, item.Columns))


def _describe(series: Iterable[DicomSeries]) -> str:
    return "; ".join(
        f"{item.folder}: {item.uid} ({item.slices[0].get('Modality') or 'no modality'}, "
        f"{str(item.slices[0].get('SeriesDescription') or 'no description')}, {len(item.slices)} "
        "slices)"
        for item in series
        if item.slices
    )


def _require_one_folder(series: Sequence[DicomSeries]) -> None:
    """Check that no series is spread over several folders."""
    for uid, count in Counter(item.uid for item in series).items():
        if count > 1:
            same = [item for item in series if item.uid == uid]
            raise InputError(
                f"the DICOM series {uid} is in several folders; {_describe(same)}: expected one; "
                "merge or remove folders"
            )
