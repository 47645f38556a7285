"""Charts as inline SVG, which needs no script and loads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH = 760
LEFT, RIGHT = 64, 12  # margins in pixels; numbers go to the left
ROW, BOX = 88, 56  # heights of a group's row and of the box in it, which has the group's name above
DOT = 3.5
MAX_POINTS = 400


def dot_plot(rows: Mapping[str, Mapping[str, float]], colors: Sequence[str], axis: str) -> str:
    """Draw one dot a member in a row for each group, over its quartiles (box) and its median (line).

    Args:
        rows: by the group's name, each member's value, at most 1, by the member's name, which the
            dot shows on hover.
        colors: of the groups' dots.
        axis: what the values are.
    """
    values = [value for row in rows.values() for value in row.values()]
    low = min(0.9, math.floor(10 * min(values, default=0.0)) / 10)
    height = ROW * len(rows) + 44
    parts = _horizontal_axis(low, 1.0, axis, height)
    for number, (name, row) in enumerate(rows.items()):
        middle = ROW * number + 24 + BOX / 2
        parts.append(
            f'<text x="{LEFT}" y="{ROW * number + 16}" class="title">{escape(name)}</text>'
        )
        if row:
            first, median, third = (
                _x(value, low, 1.0) for value in np.quantile(list(row.values()), [0.25, 0.5, 0.75])
            )
            parts.append(
                f'<rect x="{first:.1f}" y="{middle - BOX / 2}" width="{third - first:.1f}" height="{BOX}" class="box"/>'
                f'<line x1="{median:.1f}" x2="{median:.1f}" y1="{middle - BOX / 2}" y2="{middle + BOX / 2}" '
                'class="median"/>'
            )
        parts += _dots(row, low, middle, colors[number % len(colors)])
    return _svg(height, parts, f"{axis} of each case by class")


def line_chart(points: Sequence[tuple[float, float]], title: str, axis: str) -> str:
    """Draw a curve; of a long one, each point is the mean of as many neighbors as `neighbors` says.

    Args:
        points: x, in rising order, and y.
        title: what y is.
        axis: what x is.
    """
    height, together = 230, neighbors(points)
    groups = [
        np.mean(points[start : start + together], axis=0)
        for start in range(0, len(points), together)
    ]
    (left, low), (right, high) = np.min(groups, axis=0), np.max(groups, axis=0)
    bottom, top = height - 40, 26
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    parts = _horizontal_axis(left, right, axis, height)
    parts.append(f'<text x="{LEFT}" y="14" class="title">{escape(title)}</text>')
    scaled = [
        (_x(x, left, right), bottom + (top - bottom) * (y - low) / (high - low)) for x, y in groups
    ]  # up is smaller in SVG
    for tick in _ticks(low, high, 5):
        y = bottom + (top - bottom) * (tick - low) / (high - low)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>'
        )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in scaled)
    parts.append(f'<polyline points="{line}" class="curve"/>')
    if len(scaled) <= 60:
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" class="point"><title>{point[0]:.6g}: {point[1]:.4f}</title>'
            "</circle>"
            for (x, y), point in zip(scaled, groups, strict=True)
        ]
    return _svg(height, parts, f"{title} against {axis}")


def neighbors(points: Sequence[tuple[float, float]]) -> int:
    """How many points of a curve are drawn as one."""
    return max(1, math.ceil(len(points) / MAX_POINTS))


def _dots(row: Mapping[str, float], low: float, middle: float, color: str) -> list[str]:
    """Dots that pile up from the middle of the row where they would lie on each other."""
    piles: dict[int, list[tuple[float, str]]] = {}
    for name, value in sorted(row.items(), key=lambda item: item[1]):
        piles.setdefault(round(_x(value, low, 1.0) / (2 * DOT)), []).append((value, name))
    highest = max((len(pile) for pile in piles.values()), default=1)
    step = min(2 * DOT, BOX / highest)
    return [
        f'<circle cx="{_x(value, low, 1.0):.1f}" cy="{middle + (number - (len(pile) - 1) / 2) * step:.1f}" r="{DOT}" '
        f'fill="{color}" class="dot"><title>{escape(name)}: {value:.4f}</title></circle>'
        for pile in piles.values()
        for number, (value, name) in enumerate(pile)
    ]


def _horizontal_axis(low: float, high: float, name: str, height: int) -> list[str]:
    bottom = height - 40
    parts = [f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}" class="axis"/>']
    for tick in _ticks(low, high, 10):
        x = _x(tick, low, high)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}" class="axis"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.6g}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 6}" text-anchor="middle">{escape(name)}</text>'
    )
    return parts


def _x(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, at most as many."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(
        power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) < most
    )
    return [
        step * number
        for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
