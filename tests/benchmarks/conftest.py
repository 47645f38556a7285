from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as for a program started there, and the processes that it starts

NETWORK = ("network_def#channels=[8,16]", "network_def#denoiser_channels=[16,32]", "network_def#num_head_channels=8")


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Arguments of a program that make it write to tmp_path, in a second or two; ends in overrides."""
    options = ["--size", "16", "24", "16", "--rounds", "2", "--out", str(tmp_path)]
    return [str(ROOT / "bundles" / "ldseg_knee3d"), *options, "--set", "model_path=none", *NETWORK]


def tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each Markdown table of a text."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("| "):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in found if rows]
