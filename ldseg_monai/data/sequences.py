"""Sequences of frames, such as ultrasound clips: which files are some, and what they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.utils import MetaKeys, ensure_tuple

from ldseg_monai.data.checks import CheckImaged
from ldseg_monai.data.datalist import (
    find_together,
    folders_in,
    image_folder,
    resolve_datalist,
    tell_cases,
)
from ldseg_monai.data.dicom.clips import IN_MM, dicom_frames
from ldseg_monai.data.dicom.series import dicom_name, is_dicom, kind_without_image
from ldseg_monai.data.formats import PICTURE_ENDINGS, is_volume
from ldseg_monai.data.formats.kinds import tell_once
from ldseg_monai.data.leftovers import Leftovers, is_hidden, is_text, mask_of
from ldseg_monai.data.listed_cases import Cases
from ldseg_monai.data.loaders import LoadChecked
from ldseg_monai.data.names import PathLike, name_cases, plain_name
from ldseg_monai.data.readers import LabelVolumeReader, NiftiReader
from ldseg_monai.runtime.errors import MissingFileError

MAX_TURN = 0.1  # sine of the angle up to which frames are upright: 6 degrees


def resolve_sequences(
    dataset_dir: PathLike | Sequence[PathLike] | None,
    phantom: str,
    phantom_dir: PathLike,
    num_phantoms: int = 1,
    seed: int = 0,
    phantoms: bool = True,
) -> list[dict[str, Any]]:
    """List the sequences of `dataset_dir`, or of generated phantoms where none is given.

    Args:
        dataset_dir: as of `find_sequences`, or a list of such; None or "" for phantoms.
        phantom: as of `resolve_datalist`.
        phantom_dir: likewise.
        num_phantoms: likewise.
        seed: likewise.
        phantoms: likewise.

    Raises:
        FileNotFoundError, ValueError: as of `find_sequences` and `resolve_datalist`.
    """
    if not dataset_dir:
        return resolve_datalist(
            "", phantom, phantom_dir, num_phantoms, seed, require_labels=False, phantoms=phantoms
        )
    places = ensure_tuple(dataset_dir)
    if len(places) == 1:
        cases = find_sequences(places[0])
    else:
        cases = find_together(places, find_sequences)
    tell_cases(places, cases)
    return cases


def find_sequences(dataset_dir: PathLike) -> Cases:
    """List the sequences of a file or folder, before anything is read.

    Volumes right in the folder, or in its `images/`, are sequences whose last axis is time. Every
    DICOM image there and in all folders below is one.

    Args:
        dataset_dir: the folder, or one file.

    Returns:
        `{"image": path}` each, in the order of names; what is left out is in their `leftovers`.

    Raises:
        FileNotFoundError: if there is no such place, or no sequence in it.
        ValueError: if two sequences have one name.
    """
    root = Path(dataset_dir)
    if not root.exists():
        raise MissingFileError(f"dataset_dir {root} does not exist: expected a folder or a file")
    folder, leftovers = root.parent, Leftovers()
    files = [str(root)]
    if root.is_dir():
        folder = image_folder(root)
        files = _files_below(folder)
    found = [path for path in files if _is_sequence(path, folder)]
    names = [plain_name(path) for path in found]
    for path, name in zip(list(found), names, strict=True):
        if is_volume(path) and mask_of(name, set(names) - {name}) is not None:
            leftovers.add("a mask or map of an image beside it", path)
            found.remove(path)
    for path in files:
        if path.lower().endswith(PICTURE_ENDINGS):
            leftovers.add("a picture: leave sequences.yaml out to segment it", path)
        elif is_volume(path) and Path(path).parent != folder:
            leftovers.add("in a folder of its own: give that as dataset_dir", path)
        elif path not in found and not is_volume(path) and not is_text(path):
            kind = kind_without_image(path) if is_dicom(path) else ""
            reason = f"DICOM, but no image: {kind}" if kind else "neither a volume nor DICOM"
            leftovers.add(reason, path)
    if not found:
        told = f"; {leftovers}" if leftovers else ""
        raise MissingFileError(
            f"no sequences in {root}: expected NIfTI, MHA or NRRD whose last axis is time, or "
            f"DICOM of several frames{told}"
        )
    dicom: dict[tuple[str, ...], str] = {}
    for path in found:
        if not is_volume(path):
            dicom[(path,)] = dicom_name(path)
    name_cases(found, folder.absolute(), dicom)
    return Cases([{"image": path} for path in found], leftovers)


def _files_below(folder: Path) -> list[str]:
    """Every visible file of a folder and of all below it, in order."""
    files = []
    for below in folders_in(folder):
        with os.scandir(below) as entries:
            files += [entry.path for entry in entries if not is_hidden(entry.name)]
    return sorted(path for path in files if os.path.isfile(path))


def _is_sequence(path: str, folder: Path) -> bool:
    if is_volume(path):
        return Path(path).parent == folder
    may_be_dicom = not path.lower().endswith(PICTURE_ENDINGS) and is_dicom(path)
    return may_be_dicom and not kind_without_image(path)


class SequenceReader(NiftiReader):
    """Reader of sequences, gray ``(columns, rows, frames)``: what `NiftiReader` reads, and DICOM.

    A volume ``(columns, rows, 1, frames)`` loses its third axis, a picture ``(columns, rows)``
    becomes one frame. Colors of DICOM become gray. The metadata are as of `dicom_frames`, and
    have `IN_MM` of every other file.
    """

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return frames and metadata.

        Raises:
            FileNotFoundError, ValueError: as of `NiftiReader` and `dicom_frames`.
        """
        if len(img) == 1 and not is_volume(img[0]):
            return dicom_frames(img[0])
        voxels, meta = super().get_data(img)
        if _is_turned(meta[MetaKeys.AFFINE]):
            tell_once(
                f"{img[0]} has columns or rows that its header turns or mirrors: its frames are "
                "taken as they are stored, the first axis to the right and the second down; look "
                "at NAME_area.png, and write the file otherwise if they are not upright; so are "
                "other files like it",
                kind="turned frames",
            )
        if voxels.ndim == 4 and voxels.shape[2] == 1:
            voxels = voxels[:, :, 0]
        if voxels.ndim == 2:
            voxels = voxels[..., None]
        if voxels.ndim == 3:
            meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = float("nan")
        meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(voxels.shape[:3])
        return voxels, {**meta, IN_MM: True}


def _is_turned(affine: np.ndarray) -> bool:
    """Whether columns and rows of frames lie otherwise than ITK or nibabel write a plain array.

    Args:
        affine: from voxels to mm right, anterior, superior, ``(4, 4)``. A plain array of ITK has
            its columns to the left and its rows to the back, one of nibabel the other way.
    """
    axes = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    (across, down), (_, along) = axes[0], axes[1]
    is_in_plane = abs(down) < MAX_TURN and abs(axes[1, 0]) < MAX_TURN
    return not is_in_plane or abs(across) < 1 - MAX_TURN or across * along < -MAX_TURN


class LoadImageSequenced(LoadChecked):
    """Read and check a sequence of gray frames: NIfTI, MHA or NRRD, or one DICOM file.

    Args:
        keys: key of the image.
    """

    def __init__(self, keys: KeysCollection) -> None:
        check = CheckImaged(ensure_tuple(keys)[0], 3, 1)
        super().__init__(keys, SequenceReader(), LabelVolumeReader, check, None, None, False)
