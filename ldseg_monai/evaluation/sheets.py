"""A segmentation's picture with all that its reader has to know: sides, scale, classes, colors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import ensure_tuple_rep
from PIL import Image, ImageDraw, ImageFont

from ldseg_monai.data.checks import remark
from ldseg_monai.data.formats import MICROMETERS
from ldseg_monai.evaluation.pictures import (
    COLORS,
    MAX_SD,
    TRUTH,
    Cut,
    cuts,
    is_oriented,
    outlined,
    ramp,
    shown,
    uncertain,
    window,
)

INK, WARNING, PAPER = (235, 235, 235), (255, 190, 60), (0, 0, 0)
SMALLEST, LARGEST = 13, 36  # pixels of letters
GAP = 4  # pixels between panels
BAR_SHARE = 0.25  # of a panel that its scale bar takes at most
Color = Sequence[int]


@dataclass(frozen=True)
class _Entry:
    """Words of a legend.

    Attributes:
        text: the words.
        color: of a square before them; None for none.
        ramp: what is before a ramp of the SD's colors, which is before the words; "" for no ramp.
    """

    text: str
    color: Color | None = None
    ramp: str = ""


def sheet(
    image: torch.Tensor,
    prediction: torch.Tensor,
    label: torch.Tensor | None = None,
    sd: torch.Tensor | None = None,
    classes: Mapping[str, Color] | None = None,
    is_copy: bool = False,
) -> Image.Image:
    """Draw a segmentation's outlines, below or beside them where its samples differ, and a legend.

    A volume is cut in three planes (see `cuts`). Where its file tells the sides of the body, they
    are marked; a volume in mm gets a scale bar, and so does a picture whose metadata say how large
    its pixels are. The legend also says why the weights do not know the image, if they do not.

    Args:
        image: `upright`, ``(C, *spatial)``; three channels of a picture are shown as RGB, else the
            first.
        prediction: class indices ``(1, *spatial)``, with the metadata of the image.
        label: true class indices, or None.
        sd: standard deviation over the samples, ``(1, *spatial)``; None of one sample.
        classes: red, green, blue of the classes from 1 on, by their names; None for the package's
            colors, by numbers.
        is_copy: whether the image is a small copy, whose scale the legend then does not tell.
    """
    if classes is None:
        numbers = range(int(prediction.max()))
        classes = {f"class {index + 1}": COLORS[index % len(COLORS)] for index in numbers}
    by = prediction if label is None else label
    image = image[:1] if image.ndim == 4 else image
    drawn, scale = cuts([image, prediction, label, sd], prediction, by)
    values = window([cut.planes[0] for cut in drawn])
    panels, maps = [], []
    for cut in drawn:
        plain = shown(cut.planes[0], cut.size, values)
        panels.append(outlined(plain, cut.planes[1], cut.planes[2], [*classes.values()] or COLORS))
        if sd is not None:
            maps.append(uncertain(plain, cut.planes[3]))
    is_volume = prediction.ndim == 4
    rows = [panels, maps] if is_volume and maps else [panels + maps]
    cells = drawn * (1 if is_volume or not maps else 2)
    mm_or_micrometers = _bar_of(prediction)
    unit, size = mm_or_micrometers if mm_or_micrometers else ("", 1.0)
    entries = _legend(prediction, label, sd, classes, 1.0 if is_copy else scale)
    page = _Page(rows, cells, entries, remark(getattr(prediction, "meta", None)))
    if unit:
        page.scale_bar(scale / size, unit)
    return page.picture


def _bar_of(prediction: torch.Tensor) -> tuple[str, float] | None:
    """In which unit a scale bar is, and how large a voxel of `cuts` is in it; None for no bar."""
    if not isinstance(prediction, MetaTensor):
        return None
    if prediction.ndim == 4:
        return "mm", 1.0
    if MICROMETERS in prediction.meta:
        columns, _ = ensure_tuple_rep(prediction.meta[MICROMETERS], 2)
        return "µm", float(columns)
    return None


def _legend(
    prediction: torch.Tensor,
    label: torch.Tensor | None,
    sd: torch.Tensor | None,
    classes: Mapping[str, Color],
    scale: float,
) -> list[_Entry]:
    """What the colors and the sides are."""
    entries = [] if label is None else [_Entry("true outline", TRUTH.tolist())]
    found = "" if label is None else "predicted "
    for name, color in classes.items():
        entries.append(_Entry(f"{found}{name}", color))
    if sd is not None:
        entries.append(_Entry(f"{MAX_SD:g}", ramp="SD of the probability over the samples: 0"))
    if prediction.ndim == 4 and is_oriented(prediction):
        entries.append(_Entry("radiological: patient's right (R) at the left"))
    elif prediction.ndim == 4:
        entries.append(_Entry("which side is left is not known"))
    if prediction.ndim == 3 and scale != 1:
        times = f"{scale:g} times" if scale > 1 else f"1/{1 / scale:g} of"
        entries.append(_Entry(f"{times} the picture's size"))
    return entries


class _Page:
    """Panels in rows, the name of each plane above it and its sides in it, and a legend below.

    Args:
        rows: of panels, RGB, uint8.
        cells: what the panels of the first row show.
        entries: of the legend.
        warning: a last line; "" for none.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        cells: Sequence[Cut],
        entries: Sequence[_Entry],
        warning: str,
    ) -> None:
        inner = max(sum(panel.shape[1] + GAP for panel in row) - GAP for row in rows)
        self.letter = min(max(SMALLEST, inner // 65), LARGEST)
        self.font = font(self.letter)
        self.line = round(1.5 * self.letter)
        width = max([inner, *(self._width(entry) for entry in entries)])
        lines = self._flow(entries, width)
        words = [_Entry(word) for word in warning.split()]
        warned = self._flow(words, width, self.letter // 3)
        head = self.line if any(cell.title for cell in cells) else 0
        heights = [max(panel.shape[0] for panel in row) + GAP for row in rows]
        height = head + sum(heights) + self.line * (len(lines) + len(warned)) + self.letter // 2
        self.picture = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.picture)
        top, self.first = head, rows[0][0].shape[:2]
        self.top = top
        for number, (row, tall) in enumerate(zip(rows, heights, strict=True)):
            left = 0
            for panel, cell in zip(row, cells, strict=True):
                self.picture.paste(Image.fromarray(panel), (left, top))
                self._sides(cell, left, top)
                if number == 0 and cell.title:
                    place = (left + GAP, head // 2)
                    self.draw.text(place, cell.title, INK, self.font, "lm")
                left += panel.shape[1] + GAP
            top += tall
        for line in lines:
            self._entries(line, top, INK)
            top += self.line
        for line in warned:
            self._entries(line, top, WARNING)
            top += self.line

    def scale_bar(self, pixels: float, unit: str) -> None:
        """Draw a bar of a round length into the first panel, at the bottom right.

        Args:
            pixels: of one unit.
            unit: such as mm.
        """
        rows, columns = self.first
        length = round_length(BAR_SHARE * columns / pixels)
        right, bottom = columns - self.letter, self.top + rows - self.letter // 2
        left = right - max(1, round(length * pixels))
        thick = max(3, self.letter // 4)
        self.draw.rectangle((left - 1, bottom - thick - 1, right + 1, bottom + 1), PAPER)
        self.draw.rectangle((left, bottom - thick, right, bottom), INK)
        place = ((left + right) / 2, bottom - thick - 3)
        self._over(place, f"{length:g} {unit}", "mb")

    def _sides(self, cell: Cut, left: float, top: float) -> None:
        if not cell.sides:
            return
        rows, columns = cell.size
        near = self.letter // 3
        middle, center = top + rows / 2, left + columns / 2
        places = [(left + near, middle), (left + columns - near, middle)]
        places += [(center, top + near), (center, top + rows - near)]
        for place, name, anchor in zip(places, cell.sides, ("lm", "rm", "mt", "mb"), strict=True):
            self._over(place, name, anchor)

    def _over(self, place: tuple[float, float], text: str, anchor: str) -> None:
        """Write on a picture, with a rim that shows on white."""
        options: dict[str, Any] = {"stroke_width": 2, "stroke_fill": PAPER}
        self.draw.text(place, text, INK, self.font, anchor, **options)

    def _before(self, entry: _Entry) -> int:
        """How wide what is before an entry's words is."""
        if entry.ramp:
            return math.ceil(self.font.getlength(entry.ramp)) + 7 * self.letter
        return 0 if entry.color is None else round(1.4 * self.letter)

    def _width(self, entry: _Entry) -> int:
        return self._before(entry) + math.ceil(self.font.getlength(entry.text)) + 2 * GAP

    def _flow(
        self, entries: Sequence[_Entry], width: int, apart: int | None = None
    ) -> list[list[tuple[int, _Entry]]]:
        """Entries with their places in as many lines as they need."""
        lines: list[list[tuple[int, _Entry]]] = []
        step = self.letter if apart is None else apart
        left = width
        for entry in entries:
            wide = self._width(entry)
            if left + wide > width:
                lines.append([])
                left = GAP
            lines[-1].append((left, entry))
            left += wide - 2 * GAP + step
        return lines

    def _entries(self, line: Sequence[tuple[int, _Entry]], top: int, ink: Color) -> None:
        """Draw a line of the legend."""
        middle, half = top + self.line // 2, self.letter // 2
        for left, entry in line:
            words = left + self._before(entry)
            if entry.ramp:
                self.draw.text((left, middle), entry.ramp, tuple(ink), self.font, "lm")
                box = (words - round(6.5 * self.letter), middle - half, words - half, middle + half)
                self._ramp(box)
            elif entry.color is not None:
                box = (left, middle - half, left + 2 * half, middle + half)
                self.draw.rectangle(box, tuple(int(part) for part in entry.color), (128, 128, 128))
            self.draw.text((words, middle), entry.text, tuple(ink), self.font, "lm")

    def _ramp(self, box: tuple[int, ...]) -> None:
        left, top, right, bottom = box
        bar = Image.fromarray(ramp(256)[None])
        self.picture.paste(bar.resize((right - left, bottom - top)), (left, top))


def round_length(most: float) -> float:
    """The longest scale bar of 1, 2 or 5 times a power of ten that is no longer."""
    power = 10.0 ** math.floor(math.log10(most))
    return max(power * factor for factor in (1, 2, 5) if power * factor <= most)


@cache
def font(size: int) -> Any:
    """DejaVu Sans, which has the letters of Europe and comes with matplotlib, else Pillow's own.

    Args:
        size: of the letters in pixels.
    """
    found = find_spec("matplotlib")  # the import itself takes as long as a picture
    folders = [] if found is None else list(found.submodule_search_locations or [])
    for folder in folders:
        file = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)
