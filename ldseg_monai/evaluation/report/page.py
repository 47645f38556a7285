"""The HTML of the page: its frame and the pieces it is made of."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Any

import numpy as np
from PIL import Image

NOTHING = "–"

# The policy forbids the browser to load anything, whatever the page says.
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2330; max-width: 1160px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .6rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #d5dae2; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: 0; }
dt, .note { color: #5a6474; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e6e9ee; }
th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; min-width: 6em; overflow-wrap: break-word; }
.group th { padding-top: .7rem; }
img { display: block; max-width: 100%; }
.pictures { display: flex; flex-wrap: wrap; gap: .4rem; margin: .5rem 0; }
.states { table-layout: fixed; width: 100%; }
.states td, .states th { text-align: left; min-width: 0; padding: .2rem .4rem .2rem 0; border: 0; vertical-align: top; }
.states img { width: 100%; image-rendering: pixelated; }
.key { display: inline-block; width: .9em; height: .9em; margin: 0 .35em 0 .9em; border: 1px solid #5a6474;
  vertical-align: -.1em; }
.ramp { display: inline-block; width: 9em; height: .8em; margin: 0 .4em; vertical-align: -.1em; }
svg { display: block; max-width: 100%; height: auto; font-size: 12px; fill: #1c2330; }
svg .axis, svg .median { stroke: #1c2330; stroke-width: 1.5; }
svg .grid { stroke: #e6e9ee; }
svg .box { fill: #e3e8f0; }
svg .dot { stroke: #1c2330; stroke-width: .5; fill-opacity: .8; }
svg .curve { fill: none; stroke: #1f66b0; stroke-width: 1.5; }
svg .point { fill: #1f66b0; }
svg .title { font-weight: 600; }
details { margin-top: .8rem; }
summary { cursor: pointer; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def page(title: str, sections: Sequence[str]) -> str:
    """The whole file; the title is text, the sections are HTML."""
    return PAGE.substitute(title=escape(title), body="\n".join(sections))


def png(picture: np.ndarray) -> bytes:
    """A PNG file of a gray ``(rows, columns)`` or RGB ``(rows, columns, 3)`` picture, uint8."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def image(file: bytes, alt: str) -> str:
    """A PNG file as a picture that is part of the page."""
    return (
        f'<img src="data:image/png;base64,{base64.b64encode(file).decode()}" alt="{escape(alt)}">'
    )


def note(text: str) -> str:
    """A remark."""
    return f'<p class="note">{escape(text)}</p>'


def key(color: str, name: str) -> str:
    """An entry of a legend."""
    return f'<span class="key" style="background: {color}"></span>{escape(name)}'


def ramp(colors: Sequence[str], low: str, high: str) -> str:
    """A legend of colors from low to high."""
    gradient = f"linear-gradient(to right, {', '.join(colors)})"
    return f'{escape(low)}<span class="ramp" style="background: {gradient}"></span>{escape(high)}'


def table(head: Sequence[str], groups: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """Rows of cells below a head, each group under its name unless that is empty."""
    rows = [row(head, "th")]
    for name, cells in groups.items():
        if name:
            rows.append(f'<tr class="group"><th colspan="{len(head)}">{escape(name)}</th></tr>')
        rows += map(row, cells)
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def row(cells: Sequence[str], kind: str = "td") -> str:
    """A row of a table; the cells are text."""
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"


def number(value: Any) -> str:
    """A score to be read."""
    return f"{value:.4f}" if math.isfinite(value) else NOTHING


def hex_color(color: np.ndarray) -> str:
    """A color, three numbers to 255, as CSS writes it."""
    return "#" + bytes(color.tolist()).hex()
