"""Label maps of pictures as OME-TIFF in tiles, with smaller levels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from monai.utils import ensure_tuple_rep

from ldseg_monai.data.exports.label_map import File, LabelMap
from ldseg_monai.data.formats import MICROMETERS

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
    metadata = ome_metadata(label.name, label.remark, label.meta.get(MICROMETERS))
    with tifffile.TiffWriter(path, ome=True, bigtiff=size > CLASSIC) as file:
        file.write(pixels, subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, metadata=None, **options)


def ome_metadata(
    name: str, remark: str = "", microns: Any = None, axes: str = "YX"
) -> dict[str, Any]:
    """What OME says of a picture.

    Args:
        name: of it.
        remark: its description; "" for none.
        microns: micrometers of a pixel along columns and rows, or one of both; None for not known.
        axes: of its array, as tifffile names them.
    """
    said: dict[str, Any] = {"axes": axes, "Name": name}
    if remark:
        said["Description"] = remark
    if microns is not None:
        columns, rows = ensure_tuple_rep(microns, 2)
        said |= {"PhysicalSizeX": float(columns), "PhysicalSizeXUnit": "µm"}
        said |= {"PhysicalSizeY": float(rows), "PhysicalSizeYUnit": "µm"}
    return said
