"""Whole-slide images as scanners write them, of given pixels: Aperio's SVS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

TILE = (64, 64)


def write_svs(
    path: Path, levels: Sequence[np.ndarray], microns: float | None = 0.5, **options: Any
) -> None:
    """Write an SVS: a TIFF in tiles, whose description begins with Aperio's name.

    Args:
        path: of the file.
        levels: pixels ``(rows, columns, 3)`` of each level, the largest first.
        microns: micrometers of a pixel of the first one; None for none said.
        options: of the pages, such as a compression.
    """
    rows, columns, _ = levels[0].shape
    said = "" if microns is None else f"|MPP = {microns}"
    text = (
        f"Aperio Image Library v11.2.1 \n{columns}x{rows} ({TILE[0]}x{TILE[1]}) |AppMag = 20{said}"
    )
    options = {"compression": "zlib", "photometric": "rgb", "metadata": None, **options}
    with tifffile.TiffWriter(path) as file:
        file.write(levels[0], tile=TILE, description=text, **options)
        options["compression"] = "zlib"
        file.write(levels[0][::8, ::8], **options)  # the second page is a thumbnail, in strips
        for level in levels[1:]:
            file.write(level, tile=TILE, description="Aperio Image Library v11.2.1", **options)
