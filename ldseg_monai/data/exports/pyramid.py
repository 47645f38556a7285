"""Label maps of pictures as OME-TIFF in tiles, with smaller levels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from monai.utils import ensure_tuple_rep

from ldseg_monai.data.exports.label_map import File, LabelMap

MICROMETERS = "micrometers_a_pixel"  # in an image's metadata: along x and y, or one of both
TILE = 256  # rows and columns of a tile; the smallest level is one
CLASSIC = 2**32 - 2**28  # bytes that a TIFF file of 32 bits has room for, with its tags


def pyramid_files(label: LabelMap) -> Iterator[File]:
    """The file ``NAME_label.ome.tif`` with class indices."""
    yield "label.ome.tif", partial(write_pyramid, label)


def write_pyramid(label: LabelMap, path: str) -> None:
    """Write class indices by tifffile, each level half as large as the one before.

    A level has every second row and column of the one before, so that its values are classes.
    """
    import tifffile

    pixels = np.ascontiguousarray(label.voxels.T)  # (rows, columns)
    levels = [pixels]
    while max(levels[-1].shape) > TILE:
        levels.append(np.ascontiguousarray(levels[-1][::2, ::2]))
    size = sum(level.nbytes for level in levels)
    options: dict[str, Any] = {
        "tile": (TILE, TILE),
        "compression": "zlib",
        "photometric": "minisblack",
    }
    with tifffile.TiffWriter(path, ome=True, bigtiff=size > CLASSIC) as file:
        file.write(pixels, subifds=len(levels) - 1, metadata=_metadata(label), **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, metadata=None, **options)


def _metadata(label: LabelMap) -> dict[str, Any]:
    """What OME says of the picture."""
    said: dict[str, Any] = {"axes": "YX", "Name": label.name}
    if label.remark:
        said["Description"] = label.remark
    if MICROMETERS in label.meta:
        columns, rows = ensure_tuple_rep(label.meta[MICROMETERS], 2)
        said |= {"PhysicalSizeX": float(columns), "PhysicalSizeXUnit": "µm"}
        said |= {"PhysicalSizeY": float(rows), "PhysicalSizeYUnit": "µm"}
    return said
