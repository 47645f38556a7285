"""Samples that start at drawn noise beside such whose first starts at its mean."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from programs import evaluated, tables

from benchmarks.accuracy import start
from benchmarks.accuracy.start import Way


def test_differences_are_to_one_drawn_sample_over_groups() -> None:
    found = {
        Way(1): {"a": 0.5, "b": 0.6, "c": 0.1},
        Way(1, at_mean=True): {"a": 0.6, "b": 0.8, "c": 0.2},
        Way(5): {"a": 0.6, "b": 0.7, "c": 0.4},
    }
    one, mean, five = start.rows_of(found, {"a": "A", "b": "A"})
    assert one["Dice"] == "0.4000" and "difference" not in one
    assert (mean["start"], mean["difference"]) == ("mean", "+0.1250")  # of A 0.15, of c 0.1
    assert (five["start"], five["difference"]) == ("drawn", "+0.2000")


def test_dice_is_that_of_the_bundles_evaluation_with_that_start(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    options = ["--dataset_dir", str(data), "--out", str(tmp_path), "--num_samples", "1", "3"]
    start.main([str(bundle), *options])
    with open(tmp_path / "start.csv", newline="") as file:
        cases = list(csv.DictReader(file))
    for way in (Way(1), Way(1, at_mean=True), Way(3)):
        knobs = {"num_samples": way.samples, "network_def#start_at_mean": way.at_mean}
        expected = evaluated(bundle, data, tmp_path / "own", **knobs)
        found = {case["case"]: float(case[way.name]) for case in cases}
        assert found == pytest.approx(expected, abs=1e-5)


def test_networks_of_folds_are_each_scored_on_their_own(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    for fold in range(2):
        (tmp_path / f"fold{fold}").mkdir()
        shutil.copy(bundle / "models" / "model.pt", tmp_path / f"fold{fold}")
    options = [str(bundle), "--dataset_dir", str(data), "--out", str(tmp_path / "out")]
    options += ["--num_samples", "1", "--set", "num_folds=2", "--folds_of"]
    start.main([*options, str(tmp_path)])
    text = (tmp_path / "out" / "start.md").read_text()
    (rows,) = tables(text)
    with open(tmp_path / "out" / "start.csv", newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    images = sorted(path.name.split(".")[0] for path in (data / "images").iterdir())
    assert sorted(cases) == images and len(rows) == 2
    assert f"{len(images)} cases, each by the network of 2" in " ".join(text.split())
    with pytest.raises(ValueError, match="has no fold0"):
        start.main([*options, str(data)])
