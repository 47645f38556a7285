from __future__ import annotations

import csv
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
from programs import ROOT, tables

from benchmarks.accuracy import seeds
from benchmarks.accuracy.cross_validation import HEADINGS
from benchmarks.accuracy.seeds import main

BUNDLE = ROOT / "bundles" / "ldseg_hippocampus"
UNET = "baselines/unet.yaml"
DICE = {  # of each seed: of classes 1 and 2 by case
    0: {"a": (0.8, 0.6), "b": (0.6, 0.4)},
    1: {"a": (0.9, 0.7), "b": (0.7, 0.5)},
    2: {"a": (0.7, 0.8), "b": (0.5, 0.6)},
}


def call_main(data: Path, out: Path, *options: str) -> None:
    main([str(BUNDLE), "--dataset_dir", str(data), "--out", str(out), *options])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The values on the command lines of the runs, which do not happen: `DICE` is their score."""
    kept: list[dict[str, str]] = []

    def run(line: list[str], **options: Any) -> None:
        keys = [argument.removeprefix("--") for argument in line if argument.startswith("--")]
        first = line.index(f"--{keys[0]}")
        values = dict(zip(keys, line[first + 1 :: 2], strict=True))
        kept.append({"run": "training" if "training" in line else "score", **values})
        if kept[-1]["run"] == "score":
            path = Path(values["output_dir"], "metrics.csv")
            with open(path, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["case", "class", *HEADINGS])
                for case, of_classes in DICE[int(values["seed"])].items():
                    for index, dice in enumerate(of_classes, start=1):
                        writer.writerow([case, index, dice, dice / 2, dice / 2, dice / 2, 20.5])

    monkeypatch.setattr(subprocess, "run", run)
    return kept


def test_each_seed_is_trained_and_then_scored_on_the_same_split(
    runs: list[dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--overlay", UNET, "--set", "fold=0", "max_epochs=3", "--score", "num_samples=5"]
    call_main(tmp_path, out, "--seeds", "1", "0", *options)
    assert [(run["run"], run["seed"]) for run in runs] == [
        (step, seed) for seed in "01" for step in ("training", "score")
    ]
    for run in runs:
        assert run["fold"] == "0" and run["max_epochs"] == "3" and UNET in run["config_file"]
        assert ("evaluate.yaml" in run["config_file"]) == (run["run"] == "score")
        assert run.get("num_samples") == ("5" if run["run"] == "score" else None)
    assert runs[3]["model_path"] == str(out / "seed1" / "model.pt")
    runs.clear()
    call_main(tmp_path, out, "--seeds", "1", "0", *options)
    assert runs == []


@pytest.mark.usefixtures("runs")
def test_last_row_of_a_class_has_mean_and_deviation_of_the_seeds(tmp_path: Path) -> None:
    call_main(tmp_path, tmp_path / "out", "--set", "fold=0")
    (rows,) = tables((tmp_path / "out" / "seeds.md").read_text())
    shown = {(row["class"], row["seed"]): (row["Dice"], row["HD95"]) for row in rows}
    assert shown["1", "0"] == ("0.7000", "20.5")
    assert [shown["2", str(seed)][0] for seed in range(3)] == ["0.5000", "0.6000", "0.7000"]
    assert shown["2", "3 seeds"] == ("0.6000 ± 0.1000", "20.5 ± 0.0000")
    means = [0.6, 0.7, 0.65]  # over cases and classes
    deviation = statistics.stdev(means)
    assert shown["mean", "3 seeds"][0] == f"{statistics.fmean(means):.4f} ± {deviation:.4f}"
    with open(tmp_path / "out" / "seeds.csv", newline="") as file:
        kept = list(csv.DictReader(file))
    assert len(kept) == 12
    for row in kept:
        assert float(row["dice"]) == DICE[int(row["seed"])][row["case"]][int(row["class"]) - 1]


def test_shipped_weights_stand_for_a_seed_and_know_their_cases(
    runs: list[dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    call_main(tmp_path, out, "--seeds", "0", "2", "--shipped", "0", "--set", "fold=0")
    trained = [run["output_dir"] for run in runs if run["run"] == "training"]
    assert trained == [str(out / "seed2")]
    folder = out / "seed0"
    assert (folder / "model.pt").read_bytes() == (BUNDLE / "models" / "model.pt").read_bytes()
    known = json.loads((folder / "model_cases.json").read_text())
    assert len(known["cases"]) == 130
    (rows,) = tables((out / "seeds.md").read_text())
    assert [row["seed"] for row in rows[:3]] == ["0, as shipped", "2", "2 seeds"]


def test_other_settings_in_the_same_folder_are_refused(
    runs: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_main(tmp_path, tmp_path / "out", "--seeds", "1", "--set", "fold=0")
    runs.clear()
    with pytest.raises(SystemExit):
        call_main(tmp_path, tmp_path / "out", "--set", "fold=1")
    assert "seed1 was made with other settings" in capsys.readouterr().err
    assert runs == [] and not (tmp_path / "out" / "seed0").exists()


def test_weights_that_ship_no_more_are_refused(
    runs: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "out", ["--seeds", "0", "--shipped", "0", "--set", "fold=0"]
    call_main(tmp_path, out, *options)
    (out / "seed0" / "model.pt").write_bytes(b"of an earlier version")
    runs.clear()
    with pytest.raises(SystemExit):
        call_main(tmp_path, out, *options)
    assert "seed0 has other weights than" in capsys.readouterr().err and runs == []


FOLD = ("--set", "fold=0")
BAD = {
    "no split": ([], "--set names no split: expected fold=N or val_cases=FILE"),
    "a split that is drawn": (["--set", "fold=null"], "--set names no split"),
    "own key": ([*FOLD, "seed=3"], "--set seed=3: expected none of"),
    "a split of the score": ([*FOLD, "--score", "fold=1"], "--score fold=1: expected none of"),
    "unknown key": ([*FOLD, "max_epoch=3"], "--set max_epoch: expected keys of"),
    "shipped": ([*FOLD, "--shipped", "5"], "--shipped 5: expected one of [0, 1, 2]"),
    "overlay": ([*FOLD, "--overlay", "none.yaml"], "--overlay ['none.yaml']: expected files below"),
    "data": ([*FOLD, "--dataset_dir", "nowhere"], "--dataset_dir nowhere does not exist"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_error_before_any_work(
    case: str, runs: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, message = BAD[case]
    with pytest.raises(SystemExit):
        call_main(tmp_path, tmp_path / "out", *options)
    assert message in capsys.readouterr().err
    assert runs == [] and list(tmp_path.iterdir()) == []


def test_figures_that_seeds_change_little_have_four_decimals() -> None:
    assert [seeds.figure(value) for value in (0.95432, 1.5, 20.46, float("nan"))] == [
        "0.9543",
        "1.500",
        "20.5",
        "–",
    ]
