"""A label map with all that the kinds of files say of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ldseg_monai.data.checks import remark
from ldseg_monai.data.formats.volumes import LPS
from ldseg_monai.runtime.errors import InputError

# Red, green, blue of the classes but the background, again from the first on where there are more
COLORS = np.array(
    [[255, 80, 60], [70, 170, 255], [255, 200, 40], [130, 230, 90], [210, 110, 255], [60, 230, 220]]
)
LONGEST = 40  # bytes of a class in a file's name, beside those that `case_name` may take
Color = tuple[int, int, int]
# What follows a case's name and "_" in that of a file, and what writes the file to a path: None
# where there is to be none, such as of a class that the image does not have
File = tuple[str, Callable[[str], Any] | None]


@dataclass(frozen=True)
class LabelClass:
    """A class of a label map.

    Attributes:
        number: its value.
        name: of the bundle's metadata.
        color: red, green, blue, 0 to 255.
        file_name: what it is called in the name of a file, unlike those of other classes.
    """

    number: int
    name: str
    color: Color
    file_name: str


@dataclass(frozen=True)
class LabelMap:
    """A label map in its image's geometry.

    Attributes:
        voxels: class indices, uint8; of a picture ``(columns, rows)``.
        affine: from voxels to mm right, anterior, superior, ``(4, 4)``; of a picture nothing.
        classes: all but the background, in the order of their numbers.
        name: of the case.
        meta: of the image.
        metadata: of the bundle that made it.
        output: of the network, by its name in the metadata.
    """

    voxels: np.ndarray
    affine: np.ndarray
    classes: Sequence[LabelClass]
    name: str
    meta: Mapping[Any, Any]
    metadata: Mapping[str, Any]
    output: str = "pred"

    @property
    def lps(self) -> np.ndarray:
        """The affine to mm left, posterior, superior, as of ITK, DICOM and 3D Slicer's files."""
        return LPS @ self.affine

    @property
    def remark(self) -> str:
        """Why the weights do not know the image; "" if they do."""
        return remark(self.meta)

    @cached_property
    def present(self) -> list[LabelClass]:
        """The classes that it has.

        Raises:
            ValueError: for a value without a class.
        """
        counts = np.zeros(256, np.int64)
        for plane in self.voxels:  # NumPy counts in 8 bytes a voxel
            counts += np.bincount(plane.ravel(), minlength=256)
        values = (np.flatnonzero(counts[1:]) + 1).tolist()
        known = {item.number: item for item in self.classes}
        unknown = [value for value in values if value not in known]
        if unknown:
            raise InputError(
                f"label map of {self.name} has the values {unknown}: expected 0 to "
                f"{len(self.classes)}; name every class in channel_def of metadata.json"
            )
        return [known[value] for value in values]


def classes_of(
    metadata: Mapping[str, Any], output: Hashable, colors: Mapping[str, Sequence[int]] | None
) -> list[LabelClass]:
    """The classes but the background, by a bundle's metadata.

    Args:
        metadata: of the bundle.
        output: of the network, whose ``channel_def`` names the classes.
        colors: red, green, blue by the class's name, whatever its capitals; others get those of
            `COLORS`. Where there is one for each class, a name that is no class's is that of the
            class in its place, so that ``channel_def`` alone may rename a class.

    Raises:
        ValueError: as of `named_classes`.
    """
    names = metadata["network_data_format"]["outputs"][str(output)]["channel_def"]
    numbered = {int(number): name for number, name in names.items()}
    return named_classes(numbered, colors)


def named_classes(
    names: Mapping[int, str], colors: Mapping[str, Sequence[int]] | None
) -> list[LabelClass]:
    """The classes but the background, by their names.

    Args:
        names: of the classes from 0 on.
        colors: as of `classes_of`.

    Raises:
        ValueError: for a color of no class, or one that is none.
    """
    # A client's request may have something else in their place, such as a name
    given = colors if isinstance(colors, Mapping) else {}
    own = {str(name).lower(): _color(str(name), color) for name, color in given.items()}
    own = _by_new_names(own, [names[number].lower() for number in range(1, len(names))])
    unknown = sorted(own.keys() - {name.lower() for name in names.values()})
    if unknown:
        raise InputError(
            f"colors of {', '.join(unknown)}: expected those of classes, "
            f"{', '.join(names.values())}; correct label_colors"
        )
    found: list[LabelClass] = []
    taken: set[str] = set()
    for number in range(1, len(names)):
        name = names[number]
        default = COLORS[(number - 1) % len(COLORS)].tolist()
        file_name = _file_name(name)
        if file_name.casefold() in taken:  # a file system may not tell capitals from small letters
            file_name = f"{file_name}_{number}"
        taken.add(file_name.casefold())
        found.append(
            LabelClass(number, name, own.get(name.lower()) or _color(name, default), file_name)
        )
    return found


def _by_new_names(colors: dict[str, Color], classes: Sequence[str]) -> dict[str, Color]:
    """Colors by the classes' names, where these were renamed and their colors were not."""
    if len(colors) != len(classes):
        return colors
    renamed: dict[str, Color] = {}
    for (name, color), own in zip(colors.items(), classes, strict=True):
        is_old = name not in classes and own not in colors
        renamed[own if is_old else name] = color
    return renamed


def _color(name: str, color: Sequence[int]) -> Color:
    are_bytes = all(isinstance(value, int) and 0 <= value <= 255 for value in color)
    if len(color) != 3 or not are_bytes:
        raise InputError(
            f"color {list(color)} of {name}: expected red, green and blue, 0 to 255 each"
        )
    red, green, blue = color
    return red, green, blue


def _file_name(name: str) -> str:
    """A class's name without what the name of a file may not have, such as a point or a slash."""
    plain = re.sub(r"[^\w-]+", "_", name).strip("_") or "class"
    return os.fsencode(plain)[:LONGEST].decode(errors="ignore")
