"""Label maps of pictures as PNG in the classes' colors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from ldseg_monai.data.exports.label_map import File, LabelMap
from ldseg_monai.data.writers import png_remark


def palette_files(label: LabelMap) -> Iterator[File]:
    """The file ``NAME_color.png``: a person sees colors, a program reads class indices."""
    yield "color.png", partial(write_palette, label)


def write_palette(label: LabelMap, path: str) -> None:
    """Write class indices of 8 bits with a palette of the classes' colors; background is black."""
    palette = np.zeros((256, 3), np.uint8)
    for item in label.classes:
        palette[item.number] = item.color
    picture = Image.fromarray(np.ascontiguousarray(label.voxels.T))  # (rows, columns)
    picture.putpalette(palette.tobytes())
    picture.save(path, format="PNG", bits=8, pnginfo=png_remark(label.remark))
