from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from programs import evaluated, tables

from benchmarks.accuracy import views
from benchmarks.accuracy.views import Way


def test_ways_of_a_network_and_of_an_ensemble() -> None:
    assert list(views.ways(1, 2)) == [Way(1, 1, 1), Way(1, 1, 2), Way(1, 2, 2)]
    assert list(views.ways(3, 1)) == [Way(1, 1, 1), Way(3, 1, 3)]
    further = [Way(3, 1, 3), Way(3, 1, 6), Way(3, 2, 6)]
    assert list(views.ways(3, 2)) == [*views.ways(1, 2), *further]


def test_differences_are_to_one_sample_and_to_as_many_without_views() -> None:
    found = {
        Way(1, 1, 1): {"a": 0.5, "b": 0.6},
        Way(1, 1, 2): {"a": 0.6, "b": 0.7},
        Way(1, 2, 2): {"a": 0.8, "b": 0.7},
    }
    first, more, seen = views.rows_of(found)
    assert "difference" not in first and first["Dice"] == "0.5500"
    assert (more["difference"], "to as many samples" in more) == ("+0.1000", False)
    assert (seen["difference"], seen["to as many samples"]) == ("+0.2000", "+0.1000")


def test_dice_is_that_of_the_bundles_evaluation(bundle: Path, data: Path, tmp_path: Path) -> None:
    weights = str(bundle / "models" / "model.pt")
    options = ["--dataset_dir", str(data), "--out", str(tmp_path)]
    views.main([str(bundle), *options, "--ensemble", weights])
    (rows,) = tables((tmp_path / "views.md").read_text())
    with open(tmp_path / "views.csv", newline="") as file:
        cases = list(csv.DictReader(file))
    ways = list(views.ways(2, 2))
    assert [row["samples"] for row in rows] == [str(way.samples) for way in ways]
    for way, row in zip(ways, rows, strict=True):
        knobs = {"num_samples": way.samples, "mirrored": way.views > 1}  # of networks that are one
        expected = evaluated(bundle, data, tmp_path / "own", **knobs)
        found = {case["case"]: float(case[way.name]) for case in cases}
        assert found == pytest.approx(expected, abs=1e-3)
        assert float(row["Dice"]) == pytest.approx(np.mean(list(found.values())), abs=6e-5)
