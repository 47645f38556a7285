"""Pictures of any height from file to file, in strips of rows: memory depends on their width alone.

A picture is read from its TIFF file, goes through a bundle's own preprocessing and its inferer, and its label and maps
are written, one strip after the other. They are those of the whole picture, pixel by pixel.
"""

from __future__ import annotations

import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import create_file_basename
from monai.inferers import Inferer
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from PIL import Image
from tqdm import tqdm

from ldseg_monai.inferers import SlidingWindowSamplingInferer
from ldseg_monai.sampling import most_probable_class

if TYPE_CHECKING:
    from tifffile import TiffPage

TIFF_ENDINGS = (".tif", ".tiff")
TILE = 256  # rows and columns of a tile of the files that are written
ADVICE = "convert it to a TIFF in tiles, such as by `vips tiffsave IN OUT.tif --tile --compression deflate`"


class MeasurePictured(MapTransform):
    """Check that pictures can be read in strips, and put their sizes in the place of their pixels.

    Args:
        keys: keys of the pictures' paths.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with columns and rows of each picture, ``(2,)``, and its path as metadata.

        Raises:
            ValueError: for a picture that cannot be read in strips.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            path = os.fspath(result[key])
            with open_picture(path) as picture:
                result[key] = MetaTensor(torch.tensor(picture.size), meta={"filename_or_obj": path})
        return result


class StripInferer(Inferer):
    """Segment pictures from file to file, a strip of rows at a time.

    For each picture ``NAME``, it writes ``NAME_label.tif`` and, for an ensemble, ``NAME_mean.tif`` (probabilities of
    the classes beside the background) and ``NAME_sd.tif``, both with 255 for 1: tiled, compressed TIFF. A file of that
    name is always whole.

    Args:
        inferer: segments windows; its ``buffer_dim`` is that of a picture's rows, 1.
        preprocessing: makes of the path of a picture under ``image`` what the network takes. It is called with strips
            as files, so it must treat each pixel alone.
        output_dir: folder of the files.

    Raises:
        ValueError: for another ``buffer_dim``.
    """

    def __init__(
        self, inferer: SlidingWindowSamplingInferer, preprocessing: Callable[[dict], Mapping], output_dir: str
    ) -> None:
        super().__init__()
        if inferer.buffer_dim not in (1, -1):
            raise ValueError(f"buffer_dim of the inferer is {inferer.buffer_dim}: expected 1, a picture's rows")
        self.inferer = inferer
        self.preprocessing = preprocessing
        self.output_dir = output_dir

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Segment the pictures that a batch of `MeasurePictured` stands for.

        Args:
            inputs: sizes ``(B, 2)`` on the network's device, with the pictures' paths as metadata.
            network: as of `SamplingInferer`.
            args: nothing.
            kwargs: nothing.

        Returns:
            The sizes, with the paths of what was written as metadata.

        Raises:
            TypeError: for further arguments.
            ValueError: for a picture that cannot be read in strips, or a preprocessing that changes its size.
        """
        if args or kwargs:
            raise TypeError(f"got {[*map(type, args), *kwargs]} beside inputs and network: expected nothing else")
        batch = MetaTensor(inputs)
        written = [self._segment(path, network, batch.device) for path in batch.meta["filename_or_obj"]]
        as_collated = [list(kind) for kind in zip(*written, strict=True)]  # a list of each kind of file
        result = MetaTensor(batch.as_tensor(), meta={**batch.meta, MetaKeys.SAVED_TO: as_collated})
        result.is_batch = True
        return result

    def _segment(self, path: str, network: Callable[..., Any], device: torch.device) -> list[str]:
        """Segment one picture, and return the paths of its files, the label first."""
        with ExitStack() as stack:
            picture = stack.enter_context(open_picture(path))
            files = [create_file_basename(name, path, self.output_dir, separate_folder=False) for name in self._maps()]
            writers = [stack.enter_context(TiledFile(f"{file}.tif", picture.size)) for file in files]
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=self.output_dir))
            strip_path = os.path.join(folder, f"{os.path.splitext(os.path.basename(path))[0]}_strip.tif")
            progress = stack.enter_context(tqdm(total=picture.size[1], unit=" rows", desc=os.path.basename(path)))

            def read(start: int, stop: int) -> torch.Tensor:
                picture.rows(start, stop).save(strip_path)
                strip = torch.as_tensor(self.preprocessing({"image": strip_path})["image"])
                size, expected = list(strip.shape[1:]), [picture.size[0], stop - start]
                if size != expected:
                    raise ValueError(
                        f"preprocessing made {size} of {expected} pixels: expected one that keeps the size"
                    )
                return MetaTensor(strip).as_tensor()[None].to(device)

            for slab in self.inferer.slabs(read, picture.size, network):
                for writer, rows in zip(writers, self._split(slab), strict=True):
                    writer.append(rows[0].permute(2, 1, 0).cpu().numpy())
                progress.update(slab.shape[-1])
            for writer in reversed(writers):
                writer.save()
            return [writer.path for writer in writers]

    def _maps(self) -> list[str]:
        """What is written of a picture, the label first."""
        return ["label"] if self.inferer.sampler.num_samples == 1 else ["label", "mean", "sd"]

    def _split(self, slab: torch.Tensor) -> list[torch.Tensor]:
        """What is written of a slab: uint8 ``(1, K, columns, rows)`` each."""
        if self.inferer.sampler.num_samples == 1:
            return [most_probable_class(slab, dim=1)]
        maps = (slab.clamp(0, 1) * 255).to(torch.uint8)
        return [most_probable_class(slab[:, :-1], dim=1), maps[:, 1:-1], maps[:, -1:]]


class WholePicture:
    """A picture in memory, for the formats that cannot be read in part.

    Args:
        path: of a file that Pillow reads.

    Raises:
        ValueError: if it has more pixels than Pillow takes for safe.
    """

    def __init__(self, path: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                self.picture = Image.open(path)
            except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
                raise ValueError(
                    f"{path} has too many pixels for a format that cannot be read in strips ({error}): expected TIFF; "
                    + ADVICE
                ) from error
        self.size = self.picture.size

    def rows(self, start: int, stop: int) -> Image.Image:
        """A range of rows."""
        return self.picture.crop((0, start, self.size[0], stop))

    def close(self) -> None:
        """Close the file."""
        self.picture.close()


class TiffPicture:
    """The first picture of a TIFF file, of which only the tiles or strips that are asked for are read.

    Args:
        path: of the file.

    Raises:
        ImportError: without tifffile.
        ValueError: if it is no gray or RGB picture of 8 bits, a stack of them, or in one piece that is too large.
    """

    def __init__(self, path: str) -> None:
        tifffile = _tifffile()
        self.path = path
        try:
            self.file = tifffile.TiffFile(path)
        except tifffile.TiffFileError as error:
            raise ValueError(f"{path} cannot be read ({error}): expected a whole TIFF file; write it again") from error
        try:
            self.page: TiffPage = self.file.pages[0].aspage()
            self._check()
        except BaseException:
            self.file.close()
            raise
        self.size = (self.page.imagewidth, self.page.imagelength)

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
        offsets, lengths = (
            [values[number] for number in numbers] for values in (page.dataoffsets, page.databytecounts)
        )
        shape = (min(last * tile_rows, page.imagelength) - first * tile_rows, page.imagewidth, page.samplesperpixel)
        pixels = np.zeros(shape, np.uint8)
        segments = self.file.filehandle.read_segments(offsets, lengths, numbers)
        try:
            for data, number in segments:
                tile, (_, _, row, column, _), _ = page.decode(
                    data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader
                )
                if tile is not None:
                    area = pixels[row - first * tile_rows :, column:][: tile.shape[1], : tile.shape[2]]
                    area[:] = tile[0, : area.shape[0], : area.shape[1]]
        except Exception as error:  # decompressors raise many kinds
            raise ValueError(
                f"rows {start} to {stop} of {self.path} cannot be read ({error}): expected a whole TIFF file, and "
                "imagecodecs installed for a compression other than deflate; write it again"
            ) from error
        strip = pixels[start - first * tile_rows : stop - first * tile_rows]
        return Image.fromarray(np.ascontiguousarray(strip[..., 0] if strip.shape[-1] == 1 else strip))

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _is_stack(self) -> bool:
        """Whether a page is as wide or as high as the first one: `check_pages`, which cannot open a slide."""
        first = self.page
        try:
            others = [page.aspage() for page in self.file.pages[1:]]
        except Exception:  # tifffile raises several kinds
            return False
        return any(page.imagewidth >= first.imagewidth or page.imagelength >= first.imagelength for page in others)

    def _check(self) -> None:
        page = self.page
        photometric = getattr(page.photometric, "name", str(page.photometric))
        kind = f"{photometric} of {page.samplesperpixel} x {page.bitspersample} bits, axes {page.axes}"
        simple = photometric in ("MINISBLACK", "RGB", "YCBCR") and page.axes in ("YX", "YXS")
        if page.dtype != np.uint8 or page.bitspersample != 8 or not simple or page.samplesperpixel > 4:
            raise ValueError(f"{self.path} is {kind}: expected gray or RGB of 8 bits, axes YX or YXS; convert it")
        if self._is_stack():
            raise ValueError(f"{self.path} is a stack of pages: expected one picture; write each page as its own file")
        if page.chunks[0] * page.chunks[1] > (Image.MAX_IMAGE_PIXELS or np.inf):
            raise ValueError(
                f"{self.path} is in pieces of {page.chunks[0]} rows and {page.chunks[1]} columns: expected smaller "
                f"ones; {ADVICE}"
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

    Raises:
        ImportError: without tifffile.
    """

    def __init__(self, path: str, size: Sequence[int]) -> None:
        self.tifffile = _tifffile()
        self.path = path
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
        partial = f"{self.path}.partial"
        self.tifffile.imwrite(
            partial,
            (self.tiles.read(length) for length in self.lengths),
            shape=(self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples),
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression="zlib",
            photometric="minisblack",
            planarconfig=None if self.samples == 1 else "contig",
            metadata=None,
            bigtiff=sum(self.lengths) > 2**32 - 2**28,
        )
        os.replace(partial, self.path)

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
        raise ImportError("pictures in strips take tifffile: pip install 'ldseg_monai[strips]'") from error
    return tifffile
