"""Charts as inline SVG, which needs no script and loads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ldseg_monai.evaluation.report.page import render

WIDTH = 760
LEFT, RIGHT = 64, 748  # ends of the horizontal axis; numbers go to the left of it
BELOW = 40  # height of what is below the axis
ROW, BOX = 88, 56  # heights of a group's row and of its box, which has the group's name above
DOT = 3.5  # radius
MAX_POINTS = 400
MAX_DOTS = 60  # of a curve; a longer one has none

Dot = tuple[float, float, str]  # x, y, and what it shows on hover


def dot_plot(rows: Mapping[str, Mapping[str, float]], colors: Sequence[str], axis: str) -> Markup:
    """Draw a dot a member in a row a group, over its quartiles (box) and its median (line).

    Args:
        rows: by the group's name, each member's value, at most 1, by the member's name, which the
            dot shows on hover.
        colors: of the groups' dots.
        axis: what the values are.
    """
    lowest = min((min(row.values()) for row in rows.values() if row), default=0.0)
    low = min(0.9, math.floor(10 * lowest) / 10)
    drawn = []
    for number, (name, row) in enumerate(rows.items()):
        top = ROW * number + 24
        dots = _dots(row, low, top + BOX / 2)
        color = colors[number % len(colors)]
        shape = {"top": top, "height": BOX, "box": _box(row, low)}
        drawn.append({"name": name, "color": color, "dots": dots, **shape})
    label = f"{axis} of each case by class"
    frame = _frame(label, axis, ROW * len(rows) + 44, low, 1.0)
    return render("dot_plot.svg", rows=drawn, **frame)


def line_chart(points: Sequence[tuple[float, float]], title: str, axis: str) -> Markup:
    """Draw a curve; each point of a long one is the mean of as many as `neighbors` says.

    Args:
        points: x, in rising order, and y.
        title: what y is.
        axis: what x is.
    """
    height, together = 230, neighbors(points)
    starts = range(0, len(points), together)
    groups = [np.mean(points[start : start + together], axis=0) for start in starts]
    (left, low), (right, high) = np.min(groups, axis=0), np.max(groups, axis=0)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    bottom, top = height - BELOW, 26

    def place(y: float) -> float:
        return bottom + (top - bottom) * (y - low) / (high - low)  # up is smaller in SVG

    curve = [(_x(x, left, right), place(y)) for x, y in groups]
    titles = [f"{x:.6g}: {y:.4f}" for x, y in groups]
    dots: list[Dot] = []
    if len(curve) <= MAX_DOTS:
        dots = [(x, y, text) for (x, y), text in zip(curve, titles, strict=True)]
    grid = [(place(tick), f"{tick:.6g}") for tick in _ticks(low, high, 5)]
    frame = _frame(f"{title} against {axis}", axis, height, left, right)
    return render("line_chart.svg", title=title, grid=grid, curve=curve, dots=dots, **frame)


def neighbors(points: Sequence[tuple[float, float]]) -> int:
    """How many points of a curve are drawn as one."""
    return max(1, math.ceil(len(points) / MAX_POINTS))


def _box(row: Mapping[str, float], low: float) -> dict[str, float] | None:
    """The quartiles of a group's values, None of none."""
    if not row:
        return None
    quartiles = np.quantile(list(row.values()), [0.25, 0.5, 0.75])
    first, median, third = (_x(value, low, 1.0) for value in quartiles)
    return {"x": first, "width": third - first, "median": median}


def _dots(row: Mapping[str, float], low: float, middle: float) -> list[Dot]:
    """Dots that pile up from the middle of the row where they would lie on each other."""
    piles: dict[int, list[tuple[float, str]]] = {}
    for name, value in sorted(row.items(), key=lambda item: item[1]):
        x = _x(value, low, 1.0)
        piles.setdefault(round(x / (2 * DOT)), []).append((x, f"{name}: {value:.3f}"))
    step = min(2 * DOT, BOX / max(map(len, piles.values()), default=1))
    dots = []
    for pile in piles.values():
        first = middle - (len(pile) - 1) / 2 * step
        dots += [(x, first + number * step, title) for number, (x, title) in enumerate(pile)]
    return dots


def _frame(label: str, axis: str, height: int, low: float, high: float) -> dict[str, Any]:
    """What every chart has: its size, and an axis from low to high."""
    ticks = [(_x(tick, low, high), f"{tick:.6g}") for tick in _ticks(low, high, 10)]
    size = {"width": WIDTH, "height": height, "left": LEFT, "right": RIGHT, "dot": DOT}
    return {"label": label, "axis": axis, "ticks": ticks, "bottom": height - BELOW, **size}


def _x(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return LEFT + 8 + share * (RIGHT - LEFT - 16)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, at most as many."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = [power * factor for factor in (1, 2, 5, 10, 20)]
    step = next(step for step in steps if (high - low) / step < most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * number for number in range(first, last + 1)]
