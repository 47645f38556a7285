"""MONAI's readers of NIfTI and of pictures, whose errors say what is wrong with which file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from functools import reduce
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelReader, PILReader
from monai.utils import ensure_tuple
from nibabel.openers import ImageOpener
from PIL import Image, ImageChops

from ldseg_monai.data.checks import check_affine, check_memory
from ldseg_monai.runtime.errors import InputError, MissingFileError

LOSSY = (
    "JPEG",
    "MPO",
    "JPEG2000",
    "WEBP",
)  # Pillow's formats of pictures that may not be as they were written

# MONAI answers an error of a reader's `read` by trying all of its other readers, and at last with
# all of their tracebacks; so `read` does nothing here, and `get_data` reads.


class NiftiReader(NibabelReader):
    """MONAI's reader of NIfTI files, with a check of the header before the voxels are read."""

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the paths."""
        return [os.fspath(name) for name in ensure_tuple(data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return voxels and metadata.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if it is not NIfTI or not whole, its spacing is not positive, or it is too
                large for memory.
        """
        for path in img:
            check_nifti_header(path)
        try:
            return super().get_data(super().read(img))
        except Exception as error:  # nibabel and the decompressors raise many kinds
            raise unreadable(img, error) from error


class PictureReader(PILReader):
    """MONAI's reader of pictures, which lets no picture of 16 bits be cut to 8.

    Pixels are taken as they are stored: a camera's note of how to turn a picture (EXIF) turns
    neither it nor its mask.
    """

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the paths."""
        return [os.fspath(name) for name in ensure_tuple(data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return pixels, columns before rows, and metadata.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if it is no picture or not whole, has too many pixels, more bits than the
                converter keeps, or is a stack of pictures.
        """
        for path in img:
            _require_file(path)
        try:
            pictures = super().read(img)
            result = super().get_data(pictures)
        except Exception as error:  # Pillow raises many kinds
            raise unreadable(img, error) from error
        for path, picture in zip(img, ensure_tuple(pictures), strict=True):
            check_pages(path)
            with Image.open(path) as original:
                of_16_bits = any(
                    ";16" in str(tile[3]) for tile in original.tile
                )  # in colors, which Pillow cuts
                if (is_deep(original.mode) or of_16_bits) and not is_deep(picture.mode):
                    raise InputError(
                        f"{path} is of mode {original.mode}, with more than 8 bits a channel: "
                        "expected 8; convert it"
                    )
        return result


class LabelPictureReader(PictureReader):
    """Reader of labels in pictures: gray values, or indices of a palette, as they are.

    Of a picture in colors it takes each pixel's gray value, but at least 1, so that black alone is
    0; how transparent it is does not count.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(converter=_one_band, **kwargs)

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return labels, columns before rows, and metadata.

        Raises:
            FileNotFoundError, ValueError: as of `PictureReader`; ValueError for a JPEG and its like
                too, whose values are not those that were written.
        """
        result = super().get_data(img)
        for path in img:
            with Image.open(path) as picture:
                if picture.format in LOSSY or picture.info.get("compression") == "jpeg":
                    raise InputError(
                        f"{path} is a JPEG or its like, which changes the values at outlines: "
                        "expected a label without "
                        "loss, such as PNG; write it again from its source"
                    )
        return result


def _one_band(picture: Image.Image) -> Image.Image:
    if len(picture.getbands()) == 1:
        return picture
    colors = picture.convert("RGB")
    drawn = reduce(ImageChops.lighter, colors.split()).point(lambda value: min(value, 1))
    return ImageChops.lighter(colors.convert("L"), drawn)


def check_nifti_header(path: str) -> None:
    """Check what nibabel corrects in silence, such as a spacing of 0, or finds only when it reads.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is not NIfTI, its spacing is not positive, or it is too large for memory.
    """
    _require_file(path)
    try:
        volume: Any = nib.load(path)
        with ImageOpener(path) as file:
            header = volume.header_class.from_fileobj(file, check=False)
    except Exception as error:  # nibabel and the decompressors raise many kinds
        raise unreadable([path], error) from error
    if not isinstance(volume, nib.Nifti1Image):  # of which a NIfTI-2 image is one
        raise InputError(f"{path} is of the kind {type(volume).__name__}: expected NIfTI")
    if header.get_data_dtype().kind not in "biuf":
        raise InputError(
            f"{path} has voxels of type {header.get_data_dtype()}: expected one number each"
        )
    if int(header["sform_code"]) <= 0:  # else the spacing follows from the affine
        spacing = np.asarray(header["pixdim"][1:4], dtype=float)
        if not (np.isfinite(spacing) & (spacing != 0)).all():
            raise InputError(
                f"{path} has a voxel spacing of {' x '.join(f'{step:g}' for step in spacing)}: "
                "expected positive mm; "
                "correct its header"
            )
    check_affine(path, np.asarray(volume.affine, dtype=float))
    check_memory(path, volume.shape)


def check_pages(path: str) -> None:
    """Check that a TIFF is not a stack of slices, of which Pillow would give the first.

    Smaller copies of the first page may follow. The first page that Pillow does not know ends the
    check.

    Raises:
        ValueError: if a page is as wide or as high as the first one.
    """
    with Image.open(path) as picture:
        if picture.format != "TIFF":
            return
        width, height = picture.size
        for page in itertools.count(1):
            try:
                picture.seek(page)
            except Exception:  # there are no more, or one of the many kinds that Pillow raises
                return
            if picture.width >= width or picture.height >= height:
                raise InputError(
                    f"{path} is a stack of pages: expected one picture; write each page as its own "
                    "file"
                )


def _require_file(path: str) -> None:
    if not os.path.isfile(path):
        raise MissingFileError(f"there is no file {path}: expected an image")


def unreadable(paths: Sequence[str], error: Exception) -> ValueError:
    """The error for files that a library could not read, with its reason."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{', '.join(paths)} cannot be read ({reason}): expected a whole file of the kind that its "
        "ending says; copy "
        "or write it again, or remove it"
    )


def is_deep(mode: str) -> bool:
    """Whether Pillow's mode has more than 8 bits a channel, all of them gray."""
    return mode.startswith(("I", "F"))
