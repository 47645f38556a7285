"""The HTML of the page, from the templates beside this file."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING = "–"


@cache
def templates() -> Environment:
    """The templates.

    What the sections hand to one is text, which is escaped; only another template's output, which
    is `Markup`, is HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["nothing"] = NOTHING
    environment.filters["base64"] = lambda file: base64.b64encode(file).decode()
    environment.filters["pixels"] = "{:.1f}".format
    return environment


def render(template: str, **values: Any) -> Markup:
    """Fill a template in."""
    return Markup(templates().get_template(template).render(**values))


def page(title: str, sections: Sequence[Markup]) -> str:
    """The whole file; the title is text, the sections are HTML."""
    return render("page.html", title=title, sections=sections)


def png(picture: np.ndarray) -> bytes:
    """A PNG file of a gray ``(rows, columns)`` or RGB ``(rows, columns, 3)`` picture, uint8."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def number(value: Any) -> str:
    """A score to be read; `metrics.csv` has all digits."""
    return f"{value:.3f}" if math.isfinite(value) else NOTHING


def hex_color(color: np.ndarray) -> str:
    """A color, three numbers to 255, as CSS writes it."""
    return "#" + bytes(color.tolist()).hex()
