"""What tests of the benchmarks share: arguments that make a program fast, and the tables that it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
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


def evaluated(
    bundle: Path, data: Path, out: Path, *overlays: str, **overrides: Any
) -> dict[str, float]:
    """What the bundle's own evaluation says of each case: the mean Dice of its classes."""
    parser = ConfigParser()
    parser.read_config(
        [str(bundle / "configs" / name) for name in ("train.yaml", *overlays, "evaluate.yaml")]
    )
    own = {
        "bundle_root": str(bundle),
        "dataset_dir": str(data),
        "output_dir": str(out),
        "part": "val",
    }
    parser.update({**own, **overrides})
    parser.get_parsed_content("validate#evaluator").run()
    scores: dict[str, list[float]] = {}
    with open(out / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            scores.setdefault(row["case"], []).append(float(row["dice"]))
    return {case: float(np.nanmean(values)) for case, values in scores.items()}
