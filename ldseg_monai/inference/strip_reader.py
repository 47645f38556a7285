"""How pictures are opened to be read in strips: slides at the resolution that the weights know."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from monai.data import MetaTensor

from ldseg_monai.data.formats import Slide, Tissue
from ldseg_monai.data.known import CheckKnownImaged, read_known
from ldseg_monai.inference.tiff import TiffPicture, WholePicture, open_picture

logger = logging.getLogger("ldseg_monai.inference.strips")

COARSEST = 1.25  # by how much a slide's pixels may be larger than those that the weights know
BAND = 64  # rows of each part of a picture that tells its kind
Picture = WholePicture | TiffPicture | Slide


class StripReader:
    """Opens pictures, and says where slides have tissue.

    Args:
        metadata: the bundle's ``metadata.json``; ``microns_per_pixel`` of its ``known_images`` is
            the resolution at which slides are read. Without one it is that of their level 0.
        slide_microns: micrometers of a pixel of level 0, for slides that do not say them.
        skip_empty: whether tissue is looked for.
    """

    def __init__(
        self, metadata: str = "", slide_microns: float | None = None, skip_empty: bool = True
    ) -> None:
        self.microns = read_known(metadata).microns_per_pixel
        self.slide_microns = slide_microns
        self.skip_empty = skip_empty
        self.found: dict[str, Tissue] = {}

    @contextmanager
    def open(self, path: str) -> Iterator[Picture]:
        """Open a picture to read ranges of its rows.

        Raises:
            ValueError: if it cannot be read so.
        """
        with open_picture(path, self.microns, self.slide_microns) as picture:
            yield picture

    def tissue(self, picture: Picture) -> Tissue | None:
        """Where a slide has tissue; None for any other picture, all of which is segmented."""
        if not isinstance(picture, Slide) or not self.skip_empty:
            return None
        if picture.path not in self.found:
            self.found[picture.path] = Tissue(picture.thumbnail(), picture.size)
        return self.found[picture.path]

    def reasons(self, picture: Picture, known: CheckKnownImaged) -> Iterator[str]:
        """Say why the weights do not know a picture: its resolution, or what `known` says."""
        if isinstance(picture, Slide):
            yield from self._resolution_reasons(picture)
            pixels = picture.thumbnail()
        else:
            pixels = _some_rows(picture)
        channels = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        yield from known.reasons(MetaTensor(channels), picture.size)

    def _resolution_reasons(self, slide: Slide) -> Iterator[str]:
        if self.microns is None:
            return
        if slide.own_microns is None:
            yield (
                f"it does not say its micrometers a pixel, expected {self.microns:g} or less (the "
                "knob slide_microns says them)"
            )
        elif max(slide.own_microns) > COARSEST * self.microns:
            yield (
                f"its pixels are {max(slide.own_microns):.3g} micrometers, expected "
                f"{self.microns:g} or less"
            )


def _some_rows(picture: WholePicture | TiffPicture) -> np.ndarray:
    """Three bands of a picture's rows, red, green and blue, ``(rows, columns, 3)``."""
    rows = picture.size[1]
    bands = []
    for share in (0.25, 0.5, 0.75):
        start = int(share * max(0, rows - BAND))
        band = picture.rows(start, min(rows, start + BAND)).convert("RGB")
        bands.append(np.asarray(band))  # (rows, columns, 3)
    return np.concatenate(bands)


def small_picture(picture: Picture, longest: int) -> np.ndarray:
    """The whole of a picture, small, read in strips: uint8 ``(rows, columns, 3)``.

    Args:
        picture: that is open.
        longest: pixels of its longest side, at most.
    """
    if isinstance(picture, Slide):
        return picture.thumbnail(longest)
    factor, height = _factor(picture, longest), picture.size[1]
    strips = []
    for start in range(0, height, factor * BAND):
        rows = picture.rows(start, min(height, start + factor * BAND)).convert("RGB")
        strips.append(np.asarray(rows.reduce(factor)))
    return np.concatenate(strips)


def small_label(picture: WholePicture | TiffPicture, longest: int) -> np.ndarray:
    """Class indices of a label map, small, read in strips: ``(rows, columns)``."""
    factor, height = _factor(picture, longest), picture.size[1]
    rows = [np.asarray(picture.rows(row, row + 1))[0] for row in range(0, height, factor)]
    return np.stack(rows)[:, ::factor]


def label_strips(path: str, step: int = 1024) -> Iterator[np.ndarray]:
    """The class indices of a label map that strips wrote, ``(rows, columns)``, part by part."""
    with open_label(path) as label:
        for start in range(0, label.size[1], step):
            yield np.asarray(label.rows(start, min(label.size[1], start + step)))


@contextmanager
def open_label(path: str) -> Iterator[TiffPicture]:
    """Open a label map that strips wrote: pixels, at whatever resolution."""
    picture = TiffPicture(path)
    try:
        yield picture
    finally:
        picture.close()


def _factor(picture: WholePicture | TiffPicture, longest: int) -> int:
    return max(1, math.ceil(max(picture.size) / longest))
