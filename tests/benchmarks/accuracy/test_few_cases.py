from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from programs import ROOT, tables
from small_data import write_volume

from benchmarks.accuracy import few_cases
from benchmarks.accuracy.cross_validation import HEADINGS
from benchmarks.accuracy.few_cases import FEW, heart, hippocampus, main
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import case_name, find_cases

CASES = 22
# Of the choosing cases; scored: less
DICE = {
    "usual_0.003_160_steps": 0.5,
    "weights_0.003_160_steps": 0.6,
    "weights_0.001_160_steps": 0.8,
}


@pytest.fixture
def hippocampi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few volumes, of which the shipped weights are said to have trained on one."""
    names = [f"case_{index:03d}" for index in range(CASES)]
    for index, name in enumerate([*names, "trained"]):
        image = np.arange(index, index + 60, dtype=np.float32).reshape(3, 4, 5)
        label = np.arange(image.size, dtype=np.uint8).reshape(image.shape) % 3
        write_volume(tmp_path / "data", name, image, label, np.diag([2.0, 1.0, 1.0, 1.0]))
    monkeypatch.setattr(Bundle, "val_cases", lambda self, dataset_dir: names)
    return tmp_path / "data"


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of trainings, which do not happen; each start has the scores of `DICE`."""
    commands: list[list[str]] = []
    monkeypatch.setattr(few_cases.subprocess, "run", lambda line, **options: commands.append(line))

    def evaluate(self: Bundle, dataset_dir: Path, output_dir: Path, **knobs: Any) -> None:
        dice = DICE[output_dir.parts[-3]] - (output_dir.name == "scores") * 0.1
        output_dir.mkdir(parents=True)
        (output_dir / "summary.json").write_text(json.dumps({"all": {"dice": {"mean": dice}}}))
        with open(output_dir / "metrics.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "class", *HEADINGS])
            for item in find_cases(dataset_dir):
                writer.writerow([case_name(item["image"]), 1, *[dice] * len(HEADINGS)])

    monkeypatch.setattr(Bundle, "evaluate", evaluate)
    return commands


def test_best_rate_of_the_choosing_cases_is_scored_on_others(
    hippocampi: Path, trainings: list[list[str]], tmp_path: Path
) -> None:
    paths = ["--dataset_dir", hippocampi, "--work", tmp_path / "work", "--out", tmp_path]
    main(["ldseg_hippocampus", *map(str, paths), "--rates", "1", "0.333"])
    starts, scores, comparison = tables((tmp_path / "few_cases.md").read_text())
    assert [row["learning rate"] for row in starts] == ["0.003", "0.003", "0.001"]
    assert [float(row["Dice on 10 cases that choose"]) for row in starts] == list(DICE.values())
    best, usual = "weights of ldseg_hippocampus, rate x 0.33", "random weights"
    assert {row["candidate"]: row["Dice"] for row in scores if row["class"] == "mean"} == {
        best: "0.700 ± 0.000",
        usual: "0.400 ± 0.000",
    }
    assert comparison[0]["Dice"] == f"{best} minus {usual}"
    assert comparison[0]["mean difference"] == "+0.3000"
    assert comparison[0]["cases"] == str(CASES - 2 * FEW)
    weights = str((ROOT / "bundles" / "ldseg_hippocampus" / "models" / "model.pt").absolute())
    assert [weights in line for line in trainings] == [False, True, True]
    assert all("max_epochs=4" in line and "val_interval=4" in line for line in trainings)
    main(["ldseg_hippocampus", *map(str, paths), "--rates", "1", "0.333"])
    assert len(trainings) == 3  # what is done is not done again


def test_parts_are_apart_and_their_classes_joined(hippocampi: Path, tmp_path: Path) -> None:
    task = hippocampus(Bundle.find("ldseg_hippocampus"), hippocampi)
    (fold,) = task.folds
    assert [len(part) for part in fold] == [FEW, FEW, CASES - 2 * FEW]
    assert len({name for part in fold for name in part}) == CASES
    cases = {case_name(item["image"]): item for item in find_cases(hippocampi)}
    few_cases.write_cases(task, cases, tmp_path / "parts", fold)
    for item in find_cases(tmp_path / "parts" / "few"):
        own, joined = (
            nib.load(path) for path in (cases[case_name(item["image"])]["label"], item["label"])
        )
        np.testing.assert_array_equal(np.asarray(own.dataobj) > 0, joined.dataobj)
        np.testing.assert_array_equal(own.affine, joined.affine)


def test_no_frame_of_a_scored_patient_trains(tmp_path: Path) -> None:
    names = {
        f"patient{number}_{frame}": f"patient{number}" for number in range(4) for frame in "abcd"
    }
    lines = [f"{name},{patient}" for name, patient in names.items()]
    (tmp_path / "info.csv").write_text("\n".join(["name,patient", *lines]))
    task = heart(Bundle.find("ldseg_echo"), tmp_path)
    assert sorted(name for fold in task.folds for name in fold.test) == sorted(names)
    for fold in task.folds:
        assert len(fold.few) == FEW and not fold.choose
        (patient,) = {names[name] for name in fold.test}
        assert patient not in {names[name] for name in fold.few}


def test_rates_cannot_be_chosen_on_scored_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "info.csv").write_text("name,patient\na,1\nb,2\n")
    paths = ["--dataset_dir", str(tmp_path), "--work", str(tmp_path / "work")]
    with pytest.raises(SystemExit):
        main(["ldseg_echo", *paths, "--rates", "1", "0.1"])
    assert "no cases are held back to choose by" in capsys.readouterr().err
