"""Whole-slide images, by OpenSlide, read in parts and at the resolution that is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldseg_monai.data.formats.kinds import SLIDE_ENDINGS, TIFF_ENDINGS, require_file, unreadable
from ldseg_monai.runtime.errors import InputError, MissingPackageError

Box = tuple[int, int, int, int]  # left, top, right, bottom
SAME = 0.1  # share by which a resolution may differ from the one asked for, and is that one
PIECE = 2048  # pixels of the file along each side that are decoded at once
VENDORS = ("svs", "ndpi", "philips", "scn", "bif")  # of scanners, as tifffile tells them
GENERIC = "generic-tiff"  # what OpenSlide calls a tiled TIFF that is of no vendor
PLAUSIBLE = (0.02, 20.0)  # micrometers a pixel; 72 dots an inch are 353
JPEG = (6, 7, 33003, 33005)  # compressions of TIFF, JPEG 2000 among them, that OpenSlide decodes
THUMBNAIL = 1024  # pixels of the longest side of a picture in which tissue is looked for
SATURATION = (0.05, 0.1)  # the threshold is between: glass is below, what is stained above


def is_slide(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a whole-slide image: by its ending, or a TIFF by its tags.

    Such a TIFF is a vendor's, or says its micrometers a pixel, or is in tiles of JPEG or JPEG 2000.
    Without OpenSlide it is a vendor's alone, which must not be read at whatever resolution it has.
    """
    name = os.fspath(path).lower()
    if not name.endswith(TIFF_ENDINGS):
        return name.endswith(SLIDE_ENDINGS)
    try:
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages[0].aspage()
            is_vendors = any(getattr(page, f"is_{vendor}") for vendor in VENDORS)
            is_jpeg = int(page.compression) in JPEG
            # Of others OpenSlide would cut 16 bits to 8, and drop pages
            is_plain = page.dtype == np.uint8 and not is_stack(file)
    except Exception:  # of many kinds; whoever reads it as a picture says what is wrong
        return False
    try:
        import openslide

        format_ = openslide.OpenSlide.detect_format(path)
        if format_ != GENERIC:
            return format_ is not None
        with openslide.OpenSlide(path) as slide:
            return is_plain and (is_jpeg or all(_microns_of(slide)))
    except (ImportError, OSError):  # without it
        return is_vendors
    except openslide.OpenSlideError:
        return False


def is_stack(file: Any) -> bool:
    """Whether a page of tifffile's ``TiffFile`` is as wide or as high as the first one."""
    try:
        first, *others = [page.aspage() for page in file.pages]
    except Exception:  # tifffile raises several kinds
        return False
    return any(
        page.imagewidth >= first.imagewidth or page.imagelength >= first.imagelength
        for page in others
    )


def _microns_of(slide: Any) -> tuple[float, float]:
    """Micrometers of a pixel of level 0 along columns and rows; zeros where it does not say."""
    found = [float(slide.properties.get(f"openslide.mpp-{axis}", 0)) for axis in "xy"]
    low, high = PLAUSIBLE
    return (found[0], found[1]) if all(low <= side <= high for side in found) else (0.0, 0.0)


class Slide:
    """A whole-slide image at one resolution, of which only what is asked for is in memory.

    Args:
        path: of the file.
        microns: micrometers of a pixel as it is to be read; None for those of level 0. A level of
            this resolution, within 10%, is read as it is; else the next finer one is scaled.
        own_microns: micrometers of a pixel of level 0 where the file does not say them.

    Attributes:
        size: columns and rows as it is read.
        microns: micrometers of a pixel as it is read, along columns and rows; None if not known.
        own_microns: those of level 0.
        scale: pixels of level 0 a pixel as it is read, along columns and rows.
        vendor: of its format, as OpenSlide calls it.
        levels: columns and rows of each level.

    Raises:
        ImportError: without OpenSlide.
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read.
    """

    def __init__(
        self, path: str, microns: float | None = None, own_microns: float | None = None
    ) -> None:
        require_file(path)
        openslide = _openslide(path)
        self.path = path
        self.error = openslide.OpenSlideError
        try:
            self.slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise unreadable([path], error) from error
        self.vendor: str = self.slide.properties["openslide.vendor"]
        self.levels: Sequence[tuple[int, int]] = self.slide.level_dimensions
        said = _microns_of(self.slide)
        own = said if all(said) else (own_microns or 0.0,) * 2
        self.own_microns = own if all(own) else None
        background = self.slide.properties.get("openslide.background-color", "ffffff")
        self.background = tuple(bytes.fromhex(background))
        wanted = (1.0, 1.0)  # pixels of level 0 a pixel
        if microns is not None and self.own_microns is not None:
            wanted = (microns / own[0], microns / own[1])
        self.read_at(wanted)

    def read_at(self, wanted: tuple[float, float]) -> None:
        """Choose the level to read and the size.

        Args:
            wanted: pixels of level 0 a pixel, along columns and rows.
        """
        columns, rows = self.levels[0]
        for level, (across, down) in enumerate(self.levels):
            ratios = (columns / across / wanted[0], rows / down / wanted[1])
            if all(1 - SAME <= ratio <= 1 + SAME for ratio in ratios):
                self.level, self.size = level, (across, down)
                break
        else:
            self.level = self.slide.get_best_level_for_downsample(min(wanted))
            self.size = (max(1, round(columns / wanted[0])), max(1, round(rows / wanted[1])))
        self.scale = (columns / self.size[0], rows / self.size[1])
        self.microns: tuple[float, float] | None = None
        if self.own_microns is not None:
            across_, down_ = self.own_microns
            self.microns = (across_ * self.scale[0], down_ * self.scale[1])

    def rows(
        self, start: int, stop: int, needed: Callable[[Box], bool] | None = None
    ) -> Image.Image:
        """A range of rows, in red, green and blue.

        Args:
            start: the first.
            stop: the one behind the last.
            needed: whether a part is; the others have the color of the background.

        Raises:
            ValueError: if they cannot be decoded.
        """
        columns = self.size[0]
        strip = Image.new("RGB", (columns, stop - start), self.background)
        across, down = self._shrink()
        step = (max(1, int(PIECE / across)), max(1, int(PIECE / down)))
        for top in range(start, stop, step[1]):
            for left in range(0, columns, step[0]):
                box = (left, top, min(left + step[0], columns), min(top + step[1], stop))
                if needed is None or needed(box):
                    strip.paste(self._part(box), (left, top - start))
        return strip

    def thumbnail(self, longest: int = THUMBNAIL) -> np.ndarray:
        """The whole of it, small: uint8 ``(rows, columns, 3)``, its longest side about as given."""
        small = Slide(self.path, own_microns=1.0)
        try:
            factor = max(max(self.levels[0]) / longest, 1)
            small.read_at((factor, factor))
            return np.asarray(small.rows(0, small.size[1]))
        finally:
            small.close()

    def close(self) -> None:
        """Close the file."""
        self.slide.close()

    def _shrink(self) -> tuple[float, float]:
        """Pixels of the level a pixel as it is read."""
        across, down = self.levels[self.level]
        return across / self.size[0], down / self.size[1]

    def _part(self, box: Box) -> Image.Image:
        """A box of the picture, scaled by averaging where the level is finer."""
        across, down = self._shrink()
        exact = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        # What averaging takes from beyond the box
        margin = 0 if self.size == self.levels[self.level] else math.ceil(max(across, down)) + 1
        left = max(0, math.floor(exact[0]) - margin)
        top = max(0, math.floor(exact[1]) - margin)
        right = min(self.levels[self.level][0], math.ceil(exact[2]) + margin)
        bottom = min(self.levels[self.level][1], math.ceil(exact[3]) + margin)
        to_first = self.slide.level_downsamples[self.level]
        corner = (round(left * to_first), round(top * to_first))
        try:
            region = self.slide.read_region(corner, self.level, (right - left, bottom - top))
        except self.error as error:
            raise InputError(
                f"{self.path} cannot be read at columns {box[0]} to {box[2]} and rows {box[1]} to "
                f"{box[3]} ({error}): expected a whole slide; copy or write it again"
            ) from error
        flat = Image.new("RGB", region.size, self.background)
        flat.paste(region, mask=region.getchannel("A"))  # what was not scanned is transparent
        if not margin:
            return flat
        inside = (exact[0] - left, exact[1] - top, exact[2] - left, exact[3] - top)
        inside = (*inside[:2], min(inside[2], flat.width), min(inside[3], flat.height))
        size = (box[2] - box[0], box[3] - box[1])
        return flat.resize(size, Image.Resampling.BILINEAR, inside)


class Tissue:
    """Where a slide has tissue: what is stained, by Otsu's threshold of the saturation.

    Source: N. Otsu, A threshold selection method from gray-level histograms, IEEE Trans. Syst. Man
    Cybern. 9(1), 1979. The threshold is held between those of glass and of stain, since a slide
    without glass, or without tissue, has but one of the two.

    Args:
        thumbnail: of the slide, uint8 ``(rows, columns, 3)``.
        size: columns and rows of the slide, in the pixels that are asked for.

    Raises:
        ImportError: without scikit-image.
    """

    def __init__(self, thumbnail: np.ndarray, size: Sequence[int]) -> None:
        color, filters = _skimage()
        saturation = color.rgb2hsv(thumbnail)[..., 1]
        threshold = np.clip(filters.threshold_otsu(saturation), *SATURATION)
        self.mask = saturation > threshold  # (rows, columns)
        self.scale = (size[0] / self.mask.shape[1], size[1] / self.mask.shape[0])

    @property
    def share(self) -> float:
        """Share of the slide that is tissue."""
        return float(self.mask.mean())

    def is_in(self, box: Sequence[int]) -> bool:
        """Whether there is any in a box of the slide, or a pixel of the thumbnail beside it."""
        left, top, right, bottom = box
        across, down = self.scale
        columns = slice(max(0, int(left / across) - 1), math.ceil(right / across) + 1)
        rows = slice(max(0, int(top / down) - 1), math.ceil(bottom / down) + 1)
        return bool(self.mask[rows, columns].any())


def _openslide(path: str) -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError without the library itself
        raise MissingPackageError(
            f"{path} is a whole-slide image, which takes OpenSlide: pip install "
            '"ldseg-monai[slides]"'
        ) from error
    return openslide


def _skimage() -> tuple[Any, Any]:
    try:
        from skimage import color, filters
    except ImportError as error:
        raise MissingPackageError(
            'tissue of slides takes scikit-image: pip install "ldseg-monai[slides]"'
        ) from error
    return color, filters
