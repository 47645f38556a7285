"""What tests of the benchmarks share: arguments that make a program fast, and the tables that it writes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
NETWORK = (
    "network_def#channels=[8,16]",
    "network_def#denoiser_channels=[16,32]",
    "network_def#num_head_channels=8",
)


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each Markdown table of a text."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("| "):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in found if rows]
