"""What tests of the benchmarks share: arguments that make a program fast, and the tables that it writes."""

from __future__ import annotations

import json
from pathlib import Path

from small_networks import SMALL

ROOT = Path(__file__).parents[2]


def overrides(bundle: str) -> list[str]:
    """Overrides that make a bundle's network small, as a command line has them."""
    return [f"{name}={json.dumps(value)}" for name, value in SMALL[bundle].items()]


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each Markdown table of a text."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("| "):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in found if rows]
