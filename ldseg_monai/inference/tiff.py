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

from ldseg_monai.data.exports.pyramid import CLASSIC, TILE, ome_metadata
from ldseg_monai.data.formats import (
    TIFF_ENDINGS,
    Slide,
    is_slide,
    is_stack,
    load_picture,
    unreadable,
)
from ldseg_monai.runtime.errors import InputError, MissingPackageError, UserError
from ldseg_monai.runtime.files import whole_file

if TYPE_CHECKING:
    from tifffile import TiffPage

ORIENTATION, SUBSAMPLING = 274, 530  # tags of TIFF
TURNED = range(2, 9)  # orientations beside 1, for which Pillow takes every other number
MODES = {1: "L", 2: "LA", 3: "RGB"}  # of Pillow, by samples of a pixel
FOURTH = {"ASSOCALPHA": "RGBa", "UNASSALPHA": "RGBA"}  # of Pillow, by what the fourth sample is
AS_SHOWN = {"RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}  # for modes that are not written
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
                "TIFF file, and imagecodecs installed for a compression other than deflate (or "
                "ldseg-monai[slides], for JPEG in tiles); write it again"
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
        if is_stack(self.file):
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
def open_picture(
    path: str, microns: float | None = None, slide_microns: float | None = None
) -> Iterator[WholePicture | TiffPicture | Slide]:
    """Open a picture to read ranges of its rows.

    Args:
        path: of the file.
        microns: micrometers of a pixel at which a whole-slide image is read; None for its own.
        slide_microns: those of level 0 of a slide that does not say them.

    Raises:
        ValueError: if it cannot be read so.
    """
    picture: WholePicture | TiffPicture | Slide
    if is_slide(path):
        picture = Slide(path, microns, slide_microns)
    elif path.lower().endswith(TIFF_ENDINGS):
        picture = TiffPicture(path)
    else:
        picture = WholePicture(path)
    try:
        yield picture
    finally:
        picture.close()


class TiledFile:
    """An OME-TIFF file in compressed tiles and levels, whose rows come one strip after the other.

    Each level has every second row and column of the one before. The tiles go to temporary files in
    the same folder, and to the file itself when all are there.

    Args:
        path: of the file.
        size: columns and rows.
        of: what it is made of, as of `whole_file`.
        remark: its description; "" for none.
        microns: micrometers of a pixel along columns and rows; None where they are not known.

    Raises:
        ImportError: without tifffile.
    """

    def __init__(
        self,
        path: str,
        size: Sequence[int],
        of: str | None = None,
        remark: str = "",
        microns: Sequence[float] | None = None,
    ) -> None:
        self.tifffile = _tifffile()
        self.remark = remark
        self.path = path
        self.of = of
        self.microns = microns
        folder = os.path.dirname(path) or "."
        self.levels = [_Level(size, folder)]
        while max(size) > TILE:
            size = [-(-side // 2) for side in size]
            self.levels.append(_Level(size, folder))

    def append(self, rows: np.ndarray) -> None:
        """Add a strip, uint8 ``(rows, columns, samples)``, below the ones before."""
        for level in self.levels:
            first = level.came % 2  # of the strip's rows whose number in the level is even
            level.append(rows)
            rows = rows[first::2, ::2]

    def save(self) -> None:
        """Write the file, when all rows have come."""
        for level in self.levels:
            level.finish()
        samples = self.levels[0].samples
        options: dict[str, Any] = {
            "dtype": np.uint8,
            "tile": (TILE, TILE),
            "compression": "zlib",
            "photometric": "minisblack",
            "planarconfig": None if samples == 1 else "contig",
        }
        if self.microns is not None:
            options["resolution"] = tuple(1e4 / side for side in self.microns)  # pixels a cm
            options["resolutionunit"] = "CENTIMETER"
        name = os.path.basename(self.path)
        axes = "YX" if samples == 1 else "YXS"
        metadata = ome_metadata(name, self.remark, self.microns, axes)
        size = sum(sum(level.lengths) for level in self.levels)
        with (
            whole_file(self.path, self.of) as hidden,
            self.tifffile.TiffWriter(hidden, ome=True, bigtiff=size > CLASSIC) as file,
        ):
            first, *smaller = self.levels
            file.write(
                first.tiles(),
                shape=first.shape,
                subifds=len(smaller),
                metadata=metadata,
                **options,
            )
            for level in smaller:
                file.write(
                    level.tiles(), shape=level.shape, subfiletype=1, metadata=None, **options
                )

    def __enter__(self) -> TiledFile:
        return self

    def __exit__(self, *error: Any) -> None:
        for level in self.levels:
            level.close()


class _Level:
    """The compressed tiles of a picture whose rows come one strip after the other.

    Args:
        size: columns and rows.
        folder: of the temporary file that they are in.
    """

    def __init__(self, size: Sequence[int], folder: str) -> None:
        self.columns, self.rows = size
        self.file = tempfile.TemporaryFile(dir=folder)
        self.lengths: list[int] = []
        self.samples = 1
        self.came = 0  # rows
        self.waiting: list[np.ndarray] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the picture, as NumPy has it."""
        shape = (self.rows, self.columns)
        return shape if self.samples == 1 else (*shape, self.samples)

    def append(self, rows: np.ndarray) -> None:
        """Add a strip, uint8 ``(rows, columns, samples)``, below the ones before."""
        self.samples = rows.shape[-1]
        self.came += len(rows)
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) >= TILE:
            strip = np.concatenate(self.waiting)
            whole = len(strip) // TILE * TILE
            for first in range(0, whole, TILE):
                self._compress(strip[first : first + TILE])
            self.waiting = [strip[whole:].copy()]

    def finish(self) -> None:
        """Compress what is left, when all rows have come."""
        if rest := [rows for rows in self.waiting if len(rows)]:
            self._compress(np.concatenate(rest))
        self.waiting = []

    def tiles(self) -> Iterator[bytes]:
        """All of them, row by row."""
        self.file.seek(0)
        for length in self.lengths:
            yield self.file.read(length)

    def close(self) -> None:
        """Close the temporary file, which is gone then."""
        self.file.close()

    def _compress(self, strip: np.ndarray) -> None:
        """Write a row of tiles; what they have beyond the picture is 0."""
        padded = np.zeros((TILE, -(-self.columns // TILE) * TILE, self.samples), np.uint8)
        padded[: len(strip), : self.columns] = strip
        for first in range(0, padded.shape[1], TILE):
            data = zlib.compress(padded[:, first : first + TILE].tobytes())
            self.file.write(data)
            self.lengths.append(len(data))


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise MissingPackageError(
            "pictures in strips take tifffile: pip install 'ldseg_monai[strips]'"
        ) from error
    return tifffile
