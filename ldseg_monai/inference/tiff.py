"""TIFF files of any height, read and written in strips of rows."""

from __future__ import annotations

import os
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ldseg_monai.data.formats import load_picture, unreadable
from ldseg_monai.runtime.errors import InputError, MissingPackageError, UserError
from ldseg_monai.runtime.files import whole_file

if TYPE_CHECKING:
    from tifffile import TiffPage

TIFF_ENDINGS = (".tif", ".tiff")
ORIENTATION, SUBSAMPLING = 274, 530  # tags of TIFF
TURNED = range(2, 9)  # orientations beside 1, for which Pillow takes every other number
MODES = {1: "L", 2: "LA", 3: "RGB"}  # of Pillow, by samples of a pixel
FOURTH = {"ASSOCALPHA": "RGBa", "UNASSALPHA": "RGBA"}  # of Pillow, by what the fourth sample is
AS_SHOWN = {"RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}  # for modes that are not written
TILE = 256  # rows and columns of a tile of the files that are written
ADVICE = (
    "convert it to a TIFF in tiles, such as by `vips tiffsave IN OUT.tif --tile --compression "
    "deflate`"
)


class WholePicture:
    """A picture in memory, for the formats that cannot be read in part.

    Args:
        path: of a file that Pillow reads.

    Raises:
        FileNotFoundError, ValueError: as of `ldseg_monai.data.formats.load_picture`; ValueError if
            it has more pixels than Pillow takes for safe.
    """

    def __init__(self, path: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                Image.open(path).close()
            except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
                raise InputError(
                    f"{path} has too many pixels for a format that cannot be read in strips "
                    f"({error}): expected TIFF; {ADVICE}"
                ) from error
            except Exception as error:  # Pillow raises many kinds
                raise unreadable([path], error) from error
        self.picture = load_picture(path)
        self.size = self.picture.size

    def rows(self, start: int, stop: int) -> Image.Image:
        """A range of rows."""
        return self.picture.crop((0, start, self.size[0], stop))

    def close(self) -> None:
        """Close the file."""
        self.picture.close()


class TiffPicture:
    """The first picture of a TIFF file, read in tiles or strips as far as it is asked for.

    Args:
        path: of the file.

    Raises:
        ImportError: without tifffile.
        ValueError: if it is no gray or RGB picture of 8 bits, a stack of them, in one piece that is
            too large, or of a compression that cannot be decoded.
    """

    def __init__(self, path: str) -> None:
        tifffile = _tifffile()
        self.path = path
        try:
            self.file = tifffile.TiffFile(path)
        except Exception as error:  # tifffile raises many kinds
            raise unreadable([path], error) from error
        try:
            self.page: TiffPage = self.file.pages[0].aspage()
            self._check()
            self.size = (self.page.imagewidth, self.page.imagelength)
            self.rows(0, 1)  # so that a compression that is not known is told before any work
        except UserError:
            self.file.close()
            raise
        except Exception as error:  # of tags that no page has
            self.file.close()
            raise unreadable([path], error) from error

    def rows(self, start: int, stop: int) -> Image.Image:
        """A range of rows.

        Raises:
            ValueError: if they cannot be decoded.
        """
        page = self.page
        tile_rows, tile_columns = page.chunks[:2]
        across = -(-page.imagewidth // tile_columns)
        first, last = start // tile_rows, -(-stop // tile_rows)
        numbers = range(first * across, last * across)
        shape = (
            min(last * tile_rows, page.imagelength) - first * tile_rows,
            page.imagewidth,
            page.samplesperpixel,
        )
        pixels = np.zeros(shape, np.uint8)
        try:
            offsets = [page.dataoffsets[number] for number in numbers]
            lengths = [page.databytecounts[number] for number in numbers]
            segments = self.file.filehandle.read_segments(offsets, lengths, numbers)
            for data, number in segments:
                tile, (_, _, row, column, _), _ = page.decode(
                    data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader
                )
                area = pixels[row - first * tile_rows :, column:][:tile_rows, :tile_columns]
                if tile is None or tile.shape[1] < len(area) or tile.shape[2] < area.shape[1]:
                    raise InputError(f"piece {number} lacks pixels")  # which would be black
                area[:] = tile[0, : area.shape[0], : area.shape[1]]
        except Exception as error:  # decompressors raise many kinds
            raise InputError(
                f"rows {start} to {stop} of {self.path} cannot be read ({error}): expected a whole "
                "TIFF file, and imagecodecs installed for a compression other than deflate; write "
                "it again"
            ) from error
        strip = np.ascontiguousarray(
            pixels[start - first * tile_rows : stop - first * tile_rows]
        )  # (rows, columns, samples)
        mode = self._mode()
        picture = Image.frombytes(mode, (strip.shape[1], strip.shape[0]), strip.tobytes())
        return picture.convert(AS_SHOWN.get(mode, mode))

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _mode(self) -> str:
        """Pillow's mode of the pixels as tifffile decodes them."""
        samples = self.page.samplesperpixel
        if samples == 4:
            fourth = {getattr(sample, "name", "") for sample in self.page.extrasamples}
            return FOURTH.get("".join(fourth), "RGBX")
        if (
            samples == 3
            and getattr(self.page.photometric, "name", "") == "YCBCR"
            and not self._is_jpeg()
        ):
            return "YCbCr"
        return MODES[samples]

    def _is_jpeg(self) -> bool:
        """Whether a decoder of JPEG turns the pixels into RGB."""
        return "JPEG" in getattr(self.page.compression, "name", "")

    def _is_stack(self) -> bool:
        """Whether a page is as wide or as high as the first: `check_pages` cannot open a slide."""
        first = self.page
        try:
            others = [page.aspage() for page in self.file.pages[1:]]
        except Exception:  # tifffile raises several kinds
            return False
        return any(
            page.imagewidth >= first.imagewidth or page.imagelength >= first.imagelength
            for page in others
        )

    def _check(self) -> None:
        page = self.page
        photometric = getattr(page.photometric, "name", str(page.photometric))
        kind = (
            f"{photometric} of {page.samplesperpixel} x {page.bitspersample} bits, axes {page.axes}"
        )
        simple = photometric in ("MINISBLACK", "RGB", "YCBCR") and page.axes in ("YX", "YXS")
        if (
            page.dtype != np.uint8
            or page.bitspersample != 8
            or not simple
            or page.samplesperpixel > 4
        ):
            raise InputError(
                f"{self.path} is {kind}: expected gray or RGB of 8 bits, axes YX or YXS; convert it"
            )
        tile_rows, tile_columns = page.chunks[:2]
        across = -(-page.imagewidth // tile_columns)
        tiles = -(-page.imagelength // tile_rows) * across
        if min(page.shape) < 1 or not tiles == len(page.dataoffsets) == len(page.databytecounts):
            raise InputError(
                f"{self.path} has {len(page.dataoffsets)} tiles for {page.shape}: expected {tiles} "
                f"of {page.chunks}; write it again"
            )
        orientation = page.tags.valueof(ORIENTATION, default=1)
        if orientation in TURNED:
            raise InputError(
                f"{self.path} is to be turned before it is shown (orientation {orientation}), "
                "which is not done in strips: expected upright pixels; write it again, such as by "
                "`vips autorot IN OUT.tif`"
            )
        subsampling = page.tags.valueof(SUBSAMPLING, default=(2, 2))
        if photometric == "YCBCR" and not self._is_jpeg() and tuple(subsampling) != (1, 1):
            raise InputError(
                f"{self.path} is YCbCr with colors of fewer pixels (subsampling {subsampling}): "
                f"expected RGB; {ADVICE}"
            )
        if self._is_stack():
            raise InputError(
                f"{self.path} is a stack of pages: expected one picture; write each page as its "
                "own file"
            )
        if page.chunks[0] * page.chunks[1] > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise InputError(
                f"{self.path} is in pieces of {page.chunks[0]} rows and {page.chunks[1]} columns: "
                f"expected smaller ones; {ADVICE}"
            )


@contextmanager
def open_picture(path: str) -> Iterator[WholePicture | TiffPicture]:
    """Open a picture to read ranges of its rows.

    Raises:
        ValueError: if it cannot be read so.
    """
    picture = TiffPicture(path) if path.lower().endswith(TIFF_ENDINGS) else WholePicture(path)
    try:
        yield picture
    finally:
        picture.close()


class TiledFile:
    """A tiled, compressed TIFF file whose rows come one strip after the other.

    The tiles go to a temporary file in the same folder, and to the file itself when all are there.

    Args:
        path: of the file.
        size: columns and rows.
        of: what it is made of, as of `whole_file`.
        remark: its description; "" for none.

    Raises:
        ImportError: without tifffile.
    """

    def __init__(
        self, path: str, size: Sequence[int], of: str | None = None, remark: str = ""
    ) -> None:
        self.tifffile = _tifffile()
        self.remark = remark
        self.path = path
        self.of = of
        self.columns, self.rows = size
        self.tiles = tempfile.TemporaryFile(dir=os.path.dirname(path) or ".")
        self.lengths: list[int] = []
        self.samples = 1
        self.waiting: list[np.ndarray] = []

    def append(self, rows: np.ndarray) -> None:
        """Add a strip, uint8 ``(rows, columns, samples)``, below the ones before."""
        self.samples = rows.shape[-1]
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) >= TILE:
            strip = np.concatenate(self.waiting)
            whole = len(strip) // TILE * TILE
            for first in range(0, whole, TILE):
                self._compress(strip[first : first + TILE])
            self.waiting = [strip[whole:].copy()]

    def save(self) -> None:
        """Write the file, when all rows have come."""
        if rest := [rows for rows in self.waiting if len(rows)]:
            self._compress(np.concatenate(rest))
        self.tiles.seek(0)
        with whole_file(self.path, self.of) as hidden:
            self.tifffile.imwrite(
                hidden,
                (self.tiles.read(length) for length in self.lengths),
                shape=(self.rows, self.columns)
                if self.samples == 1
                else (self.rows, self.columns, self.samples),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="minisblack",
                planarconfig=None if self.samples == 1 else "contig",
                metadata=None,
                description=self.remark.encode("ascii", "replace") or None,
                bigtiff=sum(self.lengths) > 2**32 - 2**28,
            )

    def _compress(self, strip: np.ndarray) -> None:
        """Write a row of tiles; what they have beyond the picture is 0."""
        padded = np.zeros((TILE, -(-self.columns // TILE) * TILE, self.samples), np.uint8)
        padded[: len(strip), : self.columns] = strip
        for first in range(0, padded.shape[1], TILE):
            data = zlib.compress(padded[:, first : first + TILE].tobytes())
            self.tiles.write(data)
            self.lengths.append(len(data))

    def __enter__(self) -> TiledFile:
        return self

    def __exit__(self, *error: Any) -> None:
        self.tiles.close()


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise MissingPackageError(
            "pictures in strips take tifffile: pip install 'ldseg_monai[strips]'"
        ) from error
    return tifffile
