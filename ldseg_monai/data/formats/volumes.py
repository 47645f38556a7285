"""Volumes: NIfTI by nibabel; MHA, NRRD and their kin by SimpleITK."""

from __future__ import annotations

import gzip
import math
import os
import re
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener

from ldseg_monai.data.formats.detached import voxel_files
from ldseg_monai.data.formats.geometry import check_affine, check_memory, largest_shift, times
from ldseg_monai.data.formats.kinds import (
    ITK_ENDINGS,
    NIFTI_ENDINGS,
    PICTURE_ENDINGS,
    VOLUME_ENDINGS,
    require_file,
    tell_once,
    unreadable,
)
from ldseg_monai.runtime.errors import InputError

FORM_FIELDS = (
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
    "pixdim",
    "xyzt_units",
)  # of a NIfTI header: where its voxels are, in every program's reading
MILLIMETERS = {1: 1000.0, 3: 0.001}  # of a meter and a micrometer, by their codes in xyzt_units
LAST_CODE = 5  # of a NIfTI form
MAX_DIFFERENCE = 1.0  # voxels between the two forms of a header: more, and programs disagree
LPS_NAME = "left-posterior-superior"  # of an NRRD's space
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's first two axes point the other way than NIfTI's


@dataclass(frozen=True)
class Volume:
    """A volume, as its file has it.

    Attributes:
        voxels: array, or nibabel's proxy of one, ``(*spatial)`` or ``(*spatial, C)``, where spatial
            axes are 3, or fewer of a file that has no more.
        affine: from voxels to mm right, anterior, superior, ``(4, 4)``.
        header: of a NIfTI file; None of others.
        has_sides: whether the file says where right and left are.
    """

    voxels: Any
    affine: np.ndarray
    header: nib.Nifti1Header | None = None
    has_sides: bool = True

    @property
    def readings(self) -> list[np.ndarray]:
        """The affines by which programs may see it, the one that is used here first."""
        forms = None if self.header is None else forms_text(self.header)
        return readings(self.affine, forms, self.shape[:3])

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of the spatial axes, and the channels where there are any."""
        return tuple(int(side) for side in self.voxels.shape)


def load_volume(path: str, require_codes: bool = False) -> Volume:
    """Find out where a volume's voxels are; those of NIfTI are read when they are asked for.

    Of a header with two forms the sform is used, as nibabel does. Without any code it is the voxel
    size alone: axes to the right, anterior and superior from the first voxel on, so that nothing is
    mirrored. Axes of 1 beyond the third, or before the other three, are dropped. Each is said.

    Args:
        path: of the file.
        require_codes: whether a NIfTI without a form code, or an NRRD without a space, is an error.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no volume or not whole, its affine is none, or it is too large for
            memory.
    """
    require_file(path)
    if path.lower().endswith(PICTURE_ENDINGS):
        raise InputError(
            f"{path} is a picture: expected a volume, a file ending in {', '.join(VOLUME_ENDINGS)}"
        )
    if path.lower().endswith(ITK_ENDINGS):
        volume = _load_itk(path, require_codes)
    else:
        volume = _load_nifti(path, require_codes)
    return _without_axes_of_1(path, volume)


def _load_nifti(path: str, require_codes: bool) -> Volume:
    try:
        image = _open_nifti(path)
        with ImageOpener(path) as file:
            header = image.header_class.from_fileobj(file, check=False)
    except Exception as error:  # nibabel and the decompressors raise many kinds
        raise unreadable([path], error) from error
    if not isinstance(image, nib.Nifti1Image):  # of which a NIfTI-2 image is one
        raise InputError(f"{path} is of the kind {type(image).__name__}: expected NIfTI")
    if header.get_data_dtype().kind not in "biuf":
        raise InputError(
            f"{path} has voxels of type {header.get_data_dtype()}: expected one number each"
        )
    _check_offset(path, image, header)
    affine = _affine(path, image, header, require_codes)
    check_affine(path, affine)
    check_memory(path, image.shape)
    has_sides = bool(header["sform_code"] > 0 or header["qform_code"] > 0)
    return Volume(image.dataobj, affine, image.header, has_sides)


def _check_offset(path: str, image: Any, header: Any) -> None:
    """Check that the voxels begin behind the header, where every program looks for them.

    Raises:
        ValueError: if they do not: nibabel would read the header itself as voxels.
    """
    offset = float(header["vox_offset"])
    if not image.header_class.single_vox_offset <= offset:
        raise InputError(
            f"{path} has its voxels from byte {offset:g} on, by its vox_offset: expected "
            f"{image.header_class.single_vox_offset} or more, behind the header; write it again"
        )


def _open_nifti(path: str) -> Any:
    """Nibabel's image of a file; it knows endings in small letters or capitals, not in both."""
    ending = next((end for end in NIFTI_ENDINGS if path.lower().endswith(end)), "")
    if path.endswith((ending, ending.upper())):
        return nib.load(path)
    with ImageOpener(path) as file:
        size = int.from_bytes(file.read(4), sys.byteorder)
    kind = nib.Nifti2Image if size in (540, 469893120) else nib.Nifti1Image  # in either byte order
    files = kind.make_file_map()
    for holder in files.values():
        holder.filename = path
    return kind.from_file_map(files)


def _affine(path: str, image: Any, header: Any, require_codes: bool) -> np.ndarray:
    """The affine of a NIfTI file, in mm.

    Args:
        path: of the file.
        image: nibabel's image.
        header: as the file has it: nibabel corrects what it does not take, such as a spacing of 0.
        require_codes: whether a header without a form code is an error.
    """
    spacing = np.asarray(header["pixdim"][1:4], dtype=float)
    for field in ("sform_code", "qform_code"):
        if not 0 <= int(header[field]) <= LAST_CODE:  # nibabel takes it for 0, ITK does not
            raise InputError(
                f"{path} has the {field} {int(header[field])}: expected 0 to {LAST_CODE}; correct "
                "its header"
            )
    has_sform = int(header["sform_code"]) > 0
    has_qform = int(header["qform_code"]) > 0
    # Of a size below 0 nibabel drops the sign, and ITK's programs mirror the axis
    is_none = not has_sform and not (np.isfinite(spacing) & (spacing != 0)).all()
    if is_none or (spacing < 0).any():
        raise InputError(
            f"{path} has a voxel spacing of {times(spacing)} (pixdim): expected positive mm; "
            "correct its header"
        )
    unit = int(header["xyzt_units"]) % 8
    if has_sform or has_qform:
        affine = np.asarray(image.affine, dtype=float)
    else:
        affine = np.diag([*np.abs(spacing), 1.0])
        if require_codes:
            raise InputError(
                f"{path} has no form code (sform_code and qform_code are 0), so nothing says where "
                "right and left are: expected one; write the file with its affine, or pass "
                "--require_codes False"
            )
        tell_once(
            f"{path} has no form code (sform_code and qform_code are 0): used its voxel size of "
            f"{times(np.abs(spacing) * MILLIMETERS.get(unit, 1.0))} mm, its axes to the right, "
            "anterior and superior; which side is left is not known"
        )
    if has_sform:
        _compare_forms(path, affine, image, spacing, has_qform)
    if unit in MILLIMETERS:
        tell_once(f"{path} is in units of {1 / MILLIMETERS[unit]:g} a mm: brought to mm")
        affine = np.diag([MILLIMETERS[unit]] * 3 + [1.0]) @ affine
    return affine


def _compare_forms(
    path: str, sform: np.ndarray, image: Any, spacing: np.ndarray, has_qform: bool
) -> None:
    """Say where programs that use another form than the sform see the volume elsewhere."""
    size = image.shape[:3]
    if not np.isfinite(sform).all() or not np.linalg.norm(sform[:3, :3], axis=0).all():
        return  # which is an error later
    if has_qform:
        try:
            other = np.asarray(image.header.get_qform(), dtype=float)
        except Exception:  # nibabel raises several kinds
            tell_once(f"{path} has a qform that is none: used its sform")
            return
        shift = largest_shift(sform, other, [*size, 1, 1][:3])
        if shift > MAX_DIFFERENCE:
            tell_once(
                f"{path} has an sform (code {int(image.header['sform_code'])}) and a qform (code "
                f"{int(image.header['qform_code'])}) that differ by {shift:.3g} voxels: used the "
                "sform; ITK's programs may use the qform. Results carry both"
            )
        return
    own = np.linalg.norm(sform[:3, :3], axis=0)
    shifts = np.abs(own - spacing) * (np.array([*size, 1, 1][:3]) - 1)
    if not (shifts <= own).all():  # NaN is not
        tell_once(
            f"{path} has voxels of {times(own)} mm by its sform and of {times(spacing)} mm by "
            "pixdim: used the sform; ITK's programs may use the other. Results carry both"
        )


def forms_text(header: nib.Nifti1Header) -> str:
    """The forms of a NIfTI header as text, which MONAI's metadata can hold."""
    forms = nib.Nifti1Header()
    for field in FORM_FIELDS:
        forms[field] = header[field]
    return str(forms.binaryblock.hex())


def header_with_forms(text: str) -> nib.Nifti1Header:
    """A NIfTI header with the forms of `forms_text`, and without anything else."""
    return nib.Nifti1Header(bytes.fromhex(text), check=False)


def readings(affine: np.ndarray, forms: str | None, size: Sequence[int]) -> list[np.ndarray]:
    """The affines by which programs may see a volume, the one that is used here first.

    Args:
        affine: that is used.
        forms: of its header, as of `forms_text`; None where it was not read from NIfTI.
        size: of the spatial axes.
    """
    found = [np.asarray(affine, dtype=float)]
    if forms is None:
        return found
    header = header_with_forms(forms)
    if header["sform_code"] > 0:
        found.append(header.get_sform())
    if header["qform_code"] > 0:
        try:
            found.append(header.get_qform())
        except Exception:  # nibabel raises several kinds for one that is none
            return found
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        header.set_data_shape(size)
        found.append(header.get_base_affine())  # nibabel's, which labels made with it have
    return found


def spread(affine: np.ndarray, forms: str | None, size: Sequence[int]) -> float:
    """How far apart programs see a volume, in voxels.

    Where it is little, a mask that says where it is by one affine lies on the volume in each of
    them. Beside its `readings`, a volume has that of ITK: right angles, and voxels of the size in
    ``pixdim``.

    Args:
        affine: as of `readings`.
        forms: likewise.
        size: likewise.
    """
    own, *others = readings(affine, forms, size)
    if forms is not None:
        header = header_with_forms(forms)
        unit = MILLIMETERS.get(int(header["xyzt_units"]) % 8, 1.0)
        left, _, right = np.linalg.svd(own[:3, :3] / np.linalg.norm(own[:3, :3], axis=0))
        itk = own.copy()
        itk[:3, :3] = left @ right * np.abs(header["pixdim"][1:4]) * unit
        others.append(itk)
    return max((largest_shift(own, other, size) for other in others), default=0.0)


def least_shift(
    one: Sequence[np.ndarray], other: Sequence[np.ndarray], size: Sequence[int]
) -> float:
    """The least `largest_shift` of two volumes, by any two of their `readings`."""
    return min(largest_shift(first, second, size) for first in one for second in other)


def _load_itk(path: str, require_codes: bool) -> Volume:
    """A volume that SimpleITK reads.

    Args:
        path: of the file.
        require_codes: whether an NRRD without a space is an error.
    """
    import SimpleITK as sitk

    try:
        reader = sitk.ImageFileReader()
        is_nrrd = path.lower().endswith((".nrrd", ".nhdr"))
        reader.SetImageIO("NrrdImageIO" if is_nrrd else "MetaImageIO")  # by endings in any case
        is_capital = not path.endswith(ITK_ENDINGS)  # an ending that ITK does not know
        if not is_capital and not reader.GetImageIOFromFileName(path):
            told = InputError("SimpleITK knows no such header")  # which it does not look at below
            raise unreadable([path], told)
        reader.SetFileName(os.fspath(path))
        reader.ReadImageInformation()
        check_memory(path, [*reader.GetSize(), reader.GetNumberOfComponents()])
        image = reader.Execute()
        components = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
        wanted = components * image.GetSizeOfPixelComponent()
        if is_nrrd:
            _check_nrrd(path, wanted)
        else:
            _check_meta_image(path, wanted)
        has_sides = not is_nrrd or _has_sides(path, reader, require_codes)
    except InputError:
        raise
    except Exception as error:  # SimpleITK raises RuntimeErrors, and others
        raise unreadable([path], error) from error
    voxels = sitk.GetArrayFromImage(image)  # slices, rows, columns, and channels where there are
    if voxels.dtype.kind not in "biuf":
        raise InputError(f"{path} has voxels of type {voxels.dtype}: expected one number each")
    dims = image.GetDimension()
    voxels = np.moveaxis(voxels, range(dims), range(dims)[::-1])
    directions = np.reshape(image.GetDirection(), (dims, dims))
    affine = np.eye(4)
    within = min(dims, 3)
    affine[:within, :within] = (directions * image.GetSpacing())[:within, :within]
    affine[:within, 3] = image.GetOrigin()[:within]
    affine = LPS @ affine
    check_affine(path, affine)
    return Volume(voxels, affine, has_sides=has_sides)


def _check_nrrd(path: str, wanted: int) -> None:
    """Check that the header of an NRRD speaks of all voxels, uncompressed, and has them in mm.

    Args:
        path: of the file.
        wanted: bytes of the voxels.

    Raises:
        ValueError: if there are more, or a unit is another one, which ITK does not look at.
    """
    with open(path, "rb") as file:
        head = b""
        for line in iter(file.readline, b""):
            if not line.strip():
                break
            head += line.lower()
        content = file.read()
    units = set(re.findall(rb'"([^"]*)"', head.partition(b"\nspace units:")[2].split(b"\n")[0]))
    if units - {b"mm", b"", b"s", b"ms"}:
        told = ", ".join(sorted(unit.decode("latin-1") for unit in units))
        raise InputError(f"{path} has the space units {told}: expected mm; write it again in mm")
    if b" skip:" in head:
        return
    is_beside = b"data file:" in head or b"datafile:" in head
    if re.search(rb"^encoding: gz(ip)?\s*$", head, re.M):
        beside = voxel_files(path)
        if is_beside and beside != [path] and len(beside) == 1:
            content = Path(beside[0]).read_bytes()
        if not is_beside or len(beside) == 1:
            _decompressed(path, content, wanted)
    if b"encoding: raw" not in head:
        return
    if not is_beside:
        _require_no_rest(path, len(content[wanted:].rstrip(b"\0")))
    else:
        _require_no_rest_beside(path, wanted)


def _require_no_rest_beside(header: str, wanted: int) -> None:
    """Check that a header speaks of all voxels of the file beside it.

    Args:
        header: path of a header; of one that names several files nothing is checked.
        wanted: bytes of the voxels.

    Raises:
        ValueError: if there are more.
    """
    beside = voxel_files(header)
    if beside == [header] or len(beside) > 1:
        return
    with open(beside[0], "rb") as file:
        file.seek(wanted)
        _require_no_rest(header, len(file.read().rstrip(b"\0")))


def _has_sides(path: str, reader: Any, require_codes: bool) -> bool:
    """Whether an NRRD's header says where right and left are; if not, it is told.

    Args:
        path: of the file.
        reader: SimpleITK's, which has read the header: every space of the body's three axes is
            left-posterior-superior to it.
        require_codes: whether a header that does not say it is an error.

    Raises:
        ValueError: if ``require_codes``, or for a space that ITK does not turn.
    """
    key = "NRRD_space"
    space = reader.GetMetaData(key) if reader.HasMetaDataKey(key) else ""
    if space.startswith(LPS_NAME):  # with time, too
        return True
    if space.endswith("superior-time"):
        raise InputError(
            f"{path} has the space {space}, in which programs see it in different places: expected "
            f"{LPS_NAME} or another one without time; write it again"
        )
    what = f"the space {space}" if space else "no space"
    if require_codes:
        raise InputError(
            f"{path} has {what} in its header, so nothing says where right and left are: expected "
            f"one such as {LPS_NAME}; write the file with it, or pass --require_codes False"
        )
    tell_once(
        f"{path} has {what} in its header: its axes are taken to the left, posterior and superior, "
        "as by ITK; which side is left is not known"
    )
    return False


def _check_meta_image(path: str, wanted: int) -> None:
    """Check that a file is a MetaImage and holds all of its voxels.

    ITK asks for the first where nobody names the format, and not for the second if they are in one
    file: what is missing, or cannot be decompressed, is left as it lies in memory.

    Args:
        path: of the header, which the voxels may follow.
        wanted: bytes of the voxels.

    Raises:
        ValueError: if it is none or holds fewer.
    """
    fields = {}
    with open(path, "rb") as file:
        for line in file:
            name, _, value = line.decode("latin-1").partition("=")
            fields[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":
                break
        content = file.read()
    kind = fields.get("ObjectType", "")
    if not kind.startswith("Image"):
        raise unreadable([path], InputError(f"its ObjectType is {kind!r}, not Image"))
    place = fields.get("ElementDataFile", "LOCAL")
    beside = Path(path).with_name(place)
    if place.upper() != "LOCAL":
        if not beside.is_file():  # a list or a pattern of names
            return
        content = beside.read_bytes()
    if fields.get("CompressedData", "")[:1] in ("T", "t", "1"):
        content = _decompressed(path, content, wanted)
    elif place.upper() == "LOCAL" or "HeaderSize" not in fields:
        _require_no_rest(path, len(content[wanted:].rstrip(b"\0")))
    if len(content) < wanted:
        told = f"{len(content)} bytes of voxels, by its header {wanted}"
        raise unreadable([path], InputError(told))


def _decompressed(path: str, content: bytes, wanted: int) -> bytes:
    """The voxels in what zlib or gzip compressed.

    Args:
        path: of the header.
        content: of its file.
        wanted: bytes of the voxels.

    Raises:
        ValueError: if there are more.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either of both
    voxels = inflater.decompress(content, wanted)
    rest = read = 0
    while part := inflater.decompress(inflater.unconsumed_tail, 2**20):
        kept = len(part.rstrip(b"\0"))
        rest = read + kept if kept else rest
        read += len(part)
    _require_no_rest(path, rest)
    return voxels


def _without_axes_of_1(path: str, volume: Volume) -> Volume:
    """Drop the axes of 1 that some programs write beside the three of a volume.

    Raises:
        ValueError: where a first axis of 1 may be the slice of a picture in colors.
    """
    shape = volume.shape
    if len(shape) < 4:
        return volume
    kept = [*shape[:3], *(side for side in shape[3:] if side != 1)]
    while len(kept) > 3 and kept[0] == 1:
        if len(kept) == 4 and kept[-1] <= 4:
            raise InputError(
                f"{path} has shape {list(shape)}, one slice of {kept[-1]} channels or a volume "
                "behind an axis of 1: expected three axes; write it without axes of 1"
            )
        kept = kept[1:]
    if len(kept) == len(shape):
        return volume
    tell_once(
        f"{path} has shape {list(shape)}: read as {kept}, without axes of 1; so are other files "
        "like it",
        kind="axes of 1",
    )
    voxels = np.asanyarray(_read(path, volume)).reshape(kept)
    return replace(volume, voxels=voxels)


def _read(path: str, volume: Volume) -> np.ndarray:
    """All voxels.

    Raises:
        ValueError: if they cannot be read.
    """
    try:
        if isinstance(volume.voxels, ArrayProxy):
            return _read_nifti(path, volume.voxels)
        return np.asanyarray(volume.voxels)
    except InputError:
        raise
    except Exception as error:  # nibabel and the decompressors raise many kinds
        raise unreadable([path], error) from error


def _read_nifti(path: str, proxy: ArrayProxy) -> np.ndarray:
    """Read to the end of the file: nibabel stops behind the last voxel.

    The checksum of a compressed file is there, and whatever a wrong header leaves out.

    Raises:
        ValueError: if anything but zeros follows the voxels.
    """
    spec = (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter)
    opened = gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb")
    with opened as file:
        voxels = np.asanyarray(ArrayProxy(file, spec, mmap=False))
        file.seek(proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize)
        read = rest = 0
        while part := file.read(2**20):
            kept = len(part.rstrip(b"\0"))
            rest = read + kept if kept else rest
            read += len(part)
    _require_no_rest(path, rest)
    return voxels


def _require_no_rest(path: str, rest: int) -> None:
    """Check that a header speaks of all voxels of its file; zeros may fill up its end.

    Args:
        path: of the file.
        rest: bytes behind the voxels, without zeros at the end.

    Raises:
        ValueError: if there are any.
    """
    if rest:
        raise InputError(
            f"{path} holds {rest} bytes more than its header says: expected the size and type of "
            "all of its voxels; correct the header, or write the file again"
        )


def read_voxels(path: str, require_codes: bool = False) -> tuple[np.ndarray, Volume]:
    """Read a volume's voxels, and return them beside `load_volume`'s answer.

    Raises:
        FileNotFoundError, ValueError: as of `load_volume`; ValueError for voxels that
            cannot be read.
    """
    volume = load_volume(path, require_codes)
    return _read(path, volume), volume
