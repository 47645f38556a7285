"""Pictures, by Pillow, as every viewer shows them."""

from __future__ import annotations

import itertools
import os
import re
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from ldseg_monai.data.formats.kinds import (
    PICTURE_ENDINGS,
    SLIDE_ENDINGS,
    is_volume,
    require_file,
    tell_once,
    unreadable,
)
from ldseg_monai.runtime.errors import InputError

MICROMETERS = "micrometers_a_pixel"  # in a picture's metadata: along x and y, or one of both
INVERTED = "white_is_zero"  # in a picture's metadata: whether it was turned, as viewers turn it
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I", "I;16", "I;16B",
    "I;16L", "F")  # fmt: skip
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF
DESCRIPTION, X_RESOLUTION, Y_RESOLUTION = 270, 282, 283
OF_PRINT = 10.0  # micrometers of a pixel: coarser is a resolution of print, written unasked
IMAGEJ_MICRONS = re.compile(r"^unit=(micron|um|µm|μm|\\u00B5m)$", re.M)
COMPRESSION, RAW = 259, 1
WIDTH, LENGTH, STRIP_ROWS = 256, 257, 278
PLANES, SEPARATE = 284, 2
BITS, STRIP_BYTES, TILE_WIDTH, TILE_LENGTH, TILE_BYTES = 258, 279, 322, 323, 325
SAMPLE_FORMAT, UNSIGNED, SIGNED = 339, 1, 2
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_HEADER = struct.Struct(">IIBBBBB")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the kind of color
# The passes of an interlaced PNG: first column and row, columns and rows from one to the next
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2))  # fmt: skip


def load_picture(path: str) -> Image.Image:
    """Read a picture, turned as its note of the camera's position says (EXIF, or a TIFF's tag).

    A file without a picture's ending may be DICOM: see `load_dicom_picture`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no picture or not whole, a stack of pictures, has too many pixels, more
            bits than Pillow keeps, or a mode whose numbers are no gray or color.
    """
    require_file(path)
    if is_volume(path):
        raise InputError(
            f"{path} is a volume: expected a picture, a file ending in "
            f"{', '.join(PICTURE_ENDINGS)}; a sequence of frames needs a bundle's sequences.yaml"
        )
    if path.lower().endswith(SLIDE_ENDINGS):
        raise InputError(
            f"{path} is a whole-slide image: expected a picture; segment it by `ldseg predict`, "
            "or by inference.yaml with strips.yaml, of a bundle that has it"
        )
    if not path.lower().endswith(PICTURE_ENDINGS):
        from ldseg_monai.data.dicom.pictures import load_dicom_picture  # which imports this room
        from ldseg_monai.data.dicom.series import is_dicom

        if is_dicom(path):
            return load_dicom_picture(path)
    check_pages(path)
    try:
        with Image.open(path) as file:
            raw_modes = [str(tile[3]) for tile in file.tile]
            tags = getattr(file, "tag_v2", {})  # of a TIFF
            inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
            _check_length(path, file)
            file.load()
            _check_signs(path, file)
            size = micrometers(file)
            picture = ImageOps.exif_transpose(file)
            picture.format = file.format
            picture.info[MICROMETERS] = size
            picture.info[INVERTED] = inverted
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds
        raise unreadable([path], error) from error
    if not is_deep(picture.mode) and any(";16" in raw for raw in raw_modes):
        raise InputError(
            f"{path} is of mode {picture.mode}, with more than 8 bits a channel: expected 8; "
            "convert it"
        )
    if picture.mode not in MODES:
        raise InputError(
            f"{path} is of mode {picture.mode}: expected gray or colors (RGB); convert it"
        )
    if inverted and is_deep(picture.mode):
        raise InputError(
            f"{path} has white at 0 and more than 8 bits, which is not inverted: expected black at "
            "0; convert it"
        )
    return picture


def micrometers(picture: Image.Image) -> float | None:
    """How large a square pixel is, where the file says so.

    That is by OME's XML, by ImageJ's unit, or by a resolution finer than a printer's, which is what
    microscopes write.

    Args:
        picture: as Pillow opens a file.

    Returns:
        The side of a pixel; None where the file does not say it, or pixels are no squares.
    """
    tags: Any = getattr(picture, "tag_v2", {})
    said = str(tags.get(DESCRIPTION, ""))
    said = said.encode("latin-1", "replace").decode("utf-8", "replace")  # which Pillow does not do
    ome = [re.search(rf'PhysicalSize{axis}="([\d.eE+-]+)"', said) for axis in "XY"]
    sides: list[float] = []
    if "<OME" in said:
        if ome[0] and ome[1] and not re.search(r'PhysicalSize[XY]Unit="(?!(µm|μm|um)")', said):
            sides = [float(ome[0][1]), float(ome[1][1])]
    elif said.startswith("ImageJ") and IMAGEJ_MICRONS.search(said):
        sides = [_inverse(tags.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    elif "dpi" in picture.info:
        sides = [25_400 * _inverse(resolution) for resolution in picture.info["dpi"]]
        if max(sides) > OF_PRINT:
            return None
    if not sides or min(sides) <= 0 or max(sides) > 1.01 * min(sides):
        return None
    return sides[0]


def _inverse(value: Any) -> float:
    """1 over a number, 0 of none."""
    number = float(value or 0)
    return 1 / number if number > 0 else 0.0


def in_mode(path: str, picture: Image.Image, mode: str) -> Image.Image:
    """A picture in the mode that a network takes.

    Args:
        path: the picture's, for messages.
        picture: of `load_picture`.
        mode: ``RGB`` or ``L`` of 8 bits, or ``I`` of more.

    Raises:
        ValueError: for more bits than the mode keeps, or fractions.
    """
    if picture.mode == "F" or (is_deep(picture.mode) and not is_deep(mode)):
        wanted = "up to 16" if is_deep(mode) else "8"
        raise InputError(
            f"{path} is of mode {picture.mode}, with more than 8 bits a channel: expected "
            f"{wanted}; convert it"
        )
    if _is_transparent(picture):
        tell_once(
            f"{path} has transparent pixels: used the colors that they hide; so are those of other "
            "files like it",
            kind="transparent pixels",
        )
    if mode != "RGB" and _is_colored(picture):
        tell_once(
            f"{path} is in color: used its brightness; so is that of other files like it",
            kind="colored pixels",
        )
    return picture.convert(mode)


def _is_colored(picture: Image.Image) -> bool:
    """Whether a pixel is not gray."""
    if len(picture.getbands()) < 3 and picture.mode != "P":
        return False
    channels = np.asarray(picture.convert("RGB"))
    return bool((channels != channels[..., :1]).any())


def check_pages(path: str) -> None:
    """Check that a file is not a stack of pictures, of which Pillow would give the first.

    Smaller copies of the first page may follow in a TIFF, and whatever a camera puts behind its
    picture (MPO). The first page that Pillow does not know ends the check.

    Raises:
        ValueError: if it cannot be opened, a TIFF's page is as wide or as high as the first one, or
            it is animated.
    """
    try:
        picture = Image.open(path)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path} is too large to be read at once ({error}): expected fewer pixels; cut it, or "
            "segment it as TIFF in strips"
        ) from error
    except Exception as error:  # Pillow raises many kinds
        raise unreadable([path], error) from error
    with picture:
        if picture.format not in ("TIFF", "MPO"):
            _require_no_animation(path, picture)
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


def _require_no_animation(path: str, picture: Image.Image) -> None:
    """Check that a file has one picture.

    Raises:
        ValueError: if it has several, or they cannot be counted.
    """
    try:
        frames = getattr(picture, "n_frames", 1)
    except Exception as error:  # Pillow raises many kinds
        raise unreadable([path], error) from error
    if frames > 1:
        raise InputError(
            f"{path} is animated, of {frames} pictures: expected one; write the one that is meant "
            "as its own file"
        )


def _check_signs(path: str, file: Image.Image) -> None:
    """Check that Pillow took the numbers of a TIFF for what they are.

    It reads signed bytes as unsigned ones, and 32 bits without a sign as signed ones.

    Raises:
        ValueError: if it did not.
    """
    if not isinstance(file, TiffImageFile):
        return
    kinds = set(file.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,)))
    bits = max(file.tag_v2.get(BITS, (1,)))
    if SIGNED in kinds and bits <= 8:
        raise InputError(f"{path} has signed bytes: expected unsigned ones; convert it")
    if kinds == {UNSIGNED} and file.mode == "I" and np.asarray(file).min(initial=0) < 0:
        raise InputError(
            f"{path} has values above {2**31 - 1}: expected no more; scale or number them anew"
        )


def _check_length(path: str, file: Image.Image) -> None:
    """Check that a file holds as many pixels as its header says: Pillow fills up with black.

    Raises:
        ValueError: if a PNG, or a TIFF without compression, holds fewer.
    """
    if file.format == "PNG":
        held, wanted = _png_bytes(path)
    elif isinstance(file, TiffImageFile) and file.tag_v2.get(COMPRESSION, RAW) == RAW:
        tags = file.tag_v2
        if TILE_BYTES in tags:
            bits = sum(tags.get(BITS, (1,)))
            held = min(tags[TILE_BYTES])  # of each tile, which is whole at the edges too
            wanted = tags[TILE_WIDTH] * tags[TILE_LENGTH] * bits // 8
        else:
            held, wanted = _strip_bytes(tags)
    else:
        return
    if held < wanted:
        raise unreadable([path], InputError(f"{held} bytes of pixels, by its header {wanted}"))


def _strip_bytes(tags: Any) -> tuple[int, int]:
    """Bytes of pixels that the strips of a TIFF without compression hold, and should.

    What one has beyond its own rows makes up for none of another's.
    """
    bits = tags.get(BITS, (1,))
    planes = len(bits) if tags.get(PLANES) == SEPARATE else 1
    height = tags[LENGTH]
    step = min(tags.get(STRIP_ROWS, height), height)
    row = tags[WIDTH] * sum(bits) // 8 // planes
    wanted = [row * min(step, height - start) for start in range(0, height, step)] * planes
    held = 0
    for strip, own in zip(tags.get(STRIP_BYTES, ()), wanted, strict=False):
        held += min(strip, own)
    return held, sum(wanted)


def _png_bytes(path: str) -> tuple[int, int]:
    """Bytes of pixels that a PNG holds, counted up to those that it should, and these."""
    unpacker = zlib.decompressobj()
    held = 0
    with open(path, "rb") as file:
        start = file.read(len(PNG_START) + PNG_HEADER.size)
        width, height, depth, color, _, _, interlaced = PNG_HEADER.unpack(start[len(PNG_START) :])
        wanted = _png_length(width, height, depth * PNG_CHANNELS[color], interlaced)
        file.seek(4, os.SEEK_CUR)  # the sum of a chunk
        while held < wanted and len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind == b"IDAT":
                held += len(unpacker.decompress(file.read(length), wanted - held))
            else:
                file.seek(length, os.SEEK_CUR)
            file.seek(4, os.SEEK_CUR)
    return held, wanted


def _png_length(width: int, height: int, bits: int, interlaced: int) -> int:
    """Bytes of a PNG's pixels: each row has one more, of its filter."""
    total = 0
    for left, top, across, down in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        columns = -(-(width - left) // across)
        rows = -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def is_deep(mode: str) -> bool:
    """Whether Pillow's mode has more than 8 bits a channel, all of them gray."""
    return mode.startswith(("I", "F"))


def _is_transparent(picture: Image.Image) -> bool:
    """Whether a pixel is not opaque."""
    if not picture.has_transparency_data:
        return False
    return bool(np.asarray(picture.convert("RGBA").getchannel("A")).min(initial=255) < 255)
