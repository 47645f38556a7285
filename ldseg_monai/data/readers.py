"""MONAI's readers of volumes and pictures, whose errors say what is wrong with which file.

What a file is, `ldseg_monai.data.formats` says; here it becomes arrays and metadata as MONAI has
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.data import NibabelReader, PILReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from ldseg_monai.data.checks import MAX_SHIFT
from ldseg_monai.data.formats import (
    FORMS,
    MICROMETERS,
    UNKNOWN_SIDES,
    LabelReading,
    Volume,
    forms_text,
    in_mode,
    load_picture,
    read_voxels,
)
from ldseg_monai.data.formats.geometry import largest_shift
from ldseg_monai.runtime.errors import InputError

# MONAI answers an error of a reader's `read` by trying all of its other readers, and at last with
# all of their tracebacks; so `read` does nothing here, and `get_data` reads.


class NiftiReader(NibabelReader):
    """Reader of volumes: NIfTI, and what SimpleITK reads.

    Args:
        require_codes: whether a NIfTI without a form code is an error.
    """

    def __init__(self, require_codes: bool = False) -> None:
        super().__init__()
        self.require_codes = require_codes

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the paths."""
        return [os.fspath(name) for name in ensure_tuple(data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return voxels and metadata; several files are channels, in the last axis.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if it is no volume or not whole, its affine is none, it is too large for
                memory, or files of several channels differ in size or place.
        """
        voxels, volume = read_channels(img, self._voxels)
        meta: dict[str, Any] = {
            MetaKeys.AFFINE: volume.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: volume.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(voxels.shape[:3]),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if voxels.ndim > 3 else float("nan"),
        }
        if volume.header is not None:
            meta[FORMS] = forms_text(volume.header)
        if not volume.has_sides:
            meta[UNKNOWN_SIDES] = True
        return voxels, meta

    def _voxels(self, path: str) -> tuple[np.ndarray, Volume]:
        return read_voxels(path, self.require_codes)


class LabelVolumeReader(NiftiReader):
    """Reader of label volumes, whose values are whole numbers.

    Args:
        reading: what is known of the values; None for nothing.
        require_codes: as of `NiftiReader`.
    """

    def __init__(self, reading: LabelReading | None = None, require_codes: bool = False) -> None:
        super().__init__(require_codes)
        self.reading = reading or LabelReading()

    def _voxels(self, path: str) -> tuple[np.ndarray, Volume]:
        return self.reading.volume(path, self.require_codes)


class PictureReader(PILReader):
    """Reader of pictures as every viewer shows them, which lets none of 16 bits be cut to 8.

    Args:
        mode: what every picture is converted to, as Pillow names it: ``RGB``, ``L`` or ``I``.
    """

    def __init__(self, mode: str = "RGB") -> None:
        super().__init__()
        self.mode = mode

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the paths."""
        return [os.fspath(name) for name in ensure_tuple(data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return pixels, columns before rows, and metadata.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if it is no picture or not whole, has too many pixels, more bits than the
                mode keeps, is a stack of pictures, or pictures of several channels differ in size.
        """
        loaded = [load_picture(path) for path in img]
        pictures = [
            in_mode(path, picture, self.mode) for path, picture in zip(img, loaded, strict=True)
        ]
        for path, picture in zip(img, pictures, strict=True):
            if picture.size != pictures[0].size:
                raise InputError(
                    f"{path} has size {list(picture.size)} and {img[0]} {list(pictures[0].size)}: "
                    "expected the same, as of channels of one picture"
                )
        pixels, meta = super().get_data(pictures)
        side = loaded[0].info.get(MICROMETERS)
        if side is not None:
            meta[MICROMETERS] = side
        return pixels, meta


class LabelPictureReader(PictureReader):
    """Reader of labels in pictures, whose values are whole numbers.

    Args:
        reading: what is known of the values; None for nothing.
    """

    def __init__(self, reading: LabelReading | None = None) -> None:
        super().__init__()
        self.reading = reading or LabelReading()

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return labels, int32 ``(columns, rows)``, and metadata.

        Raises:
            FileNotFoundError, ValueError: as of `LabelReading.picture`; ValueError for several
                files.
        """
        if len(img) > 1:
            raise InputError(f"{', '.join(img)} are {len(img)} labels: expected one of an image")
        values = self.reading.picture(img[0])
        return values, {
            MetaKeys.SPATIAL_SHAPE: np.asarray(values.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }


def read_channels(
    paths: Sequence[str], read: Callable[[str], tuple[np.ndarray, Volume]] = read_voxels
) -> tuple[np.ndarray, Volume]:
    """Read a volume that may have a file for each channel, which becomes the last axis.

    Args:
        paths: of its files.
        read: reads one.

    Returns:
        The voxels, and the volume of the first file.

    Raises:
        FileNotFoundError, ValueError: as of ``read``; ValueError for files of different size or
            place.
    """
    files = [read(path) for path in paths]
    _require_one_grid(paths, files)
    voxels, volume = files[0]
    if len(files) > 1:
        voxels = np.stack([channel for channel, _ in files], axis=-1)
    return voxels, volume


def _require_one_grid(paths: Sequence[str], read: Sequence[tuple[np.ndarray, Volume]]) -> None:
    """Check that files of several channels have one size and place.

    Raises:
        ValueError: if they do not.
    """
    first, volume = read[0]
    for path, (voxels, other) in zip(paths[1:], read[1:], strict=True):
        if voxels.shape != first.shape or voxels.ndim != 3:
            raise InputError(
                f"{path} has size {list(voxels.shape)} and {paths[0]} {list(first.shape)}: "
                "expected the same three axes, as of channels of one image; resample one to the "
                "other, or remove the case"
            )
        shift = largest_shift(volume.affine, other.affine, first.shape)
        if shift > MAX_SHIFT:
            raise InputError(
                f"{path} lies up to {shift:.3g} voxels beside {paths[0]}: expected the same place, "
                "as of channels of one image; resample one to the other, or remove the case"
            )
