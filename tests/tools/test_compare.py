"""`ldseg compare`: two tables with known differences."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from ldseg_monai.evaluation.scores import COLUMNS
from ldseg_monai.tools.cli import main

NAN = math.nan
NAMES = ("a", "b", "c", "d", "e", "f")
# Dice of the classes Body and Tail. B - A of Body is 0.01, 0.02, ... 0.06; that of Tail 0.1 always.
OF_A = {name: (0.5, 0.4) for name in NAMES}
OF_B = {name: (0.5 + 0.01 * (index + 1), 0.5) for index, name in enumerate(NAMES)}


def write(
    folder: Path, dice: dict[str, tuple[float, float]], unit: str = "mm", seen: str = "no"
) -> Path:
    """Write a metrics.csv with half of the Dice as IoU, and its tenfold as distance."""
    folder.mkdir()
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="0")
        writer.writeheader()
        for case, values in dice.items():
            for index, (name, value) in enumerate(zip(("Body", "Tail"), values, strict=True), 1):
                row = {"case": case, "class": index, "name": name, "dice": value, "iou": value / 2}
                writer.writerow({**row, "hd95": 10 * value, "unit": unit, "trained_on": seen})
    return folder


def run(*arguments: object) -> int:
    return main(["compare", *map(str, arguments)])


def found_by(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_known_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", OF_A), write(tmp_path / "b", OF_B)
    found = found_by(capsys, a, b / "metrics.csv")
    assert (found["a"], found["b"]) == (str(a / "metrics.csv"), str(b / "metrics.csv"))
    assert (found["cases"], found["groups"], found["hd95_unit"]) == (6, None, "mm")
    body = found["classes"]["Body"]["dice"]
    assert (body["n"], body["a"], body["b"]) == (6, pytest.approx(0.5), pytest.approx(0.535))
    assert body["difference"] == pytest.approx(0.035)
    assert 0.02 < body["low"] < 0.035 < body["high"] < 0.05
    assert body["wilcoxon"] == pytest.approx(2 / 2**6)  # six of one sign
    # SD of 0.01 to 0.06: 0.01 sqrt(3.5); t = 0.035 / (SD / sqrt(6)) = 4.583, p of 5 degrees 0.0059
    assert body["t_test"] == pytest.approx(0.0059, abs=5e-5)
    tail = found["classes"]["Tail"]["dice"]
    assert (tail["difference"], tail["low"], tail["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert tail["t_test"] is None  # without spread
    assert found["mean"]["dice"]["difference"] == pytest.approx((0.035 + 0.1) / 2)
    assert found["mean"]["iou"]["difference"] == pytest.approx((0.035 + 0.1) / 4)
    assert found["mean"]["hd95"]["difference"] == pytest.approx((0.35 + 1.0) / 2)
    turned = found_by(capsys, b, a)["mean"]["dice"]
    assert turned["difference"] == pytest.approx(-found["mean"]["dice"]["difference"])


def test_table_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write(tmp_path / "a", OF_A), write(tmp_path / "b", OF_B)) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in lines if line.startswith("Body ") and "Dice" in line]
    assert row[:5] == ["Body", "Dice", "0.5000", "0.5350", "+0.0350"]
    assert row[-3:] == ["0.0059", "0.031", "6"]
    (row,) = [line.split() for line in lines if line.startswith("Tail ") and "Dice" in line]
    assert row[-3] == "-"
    assert any(line.startswith("mean of classes  HD95, mm") for line in lines)
    assert not any("below 6 pairs" in line for line in lines)
    assert max(map(len, lines[4:])) <= 100


def test_what_only_one_has_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write(tmp_path / "a", {"a": (0.5, NAN), "b": (0.5, 0.5), "x": (0.0, 0.0)}, seen="yes")
    b = write(tmp_path / "b", {"a": (0.7, NAN), "b": (0.8, 0.5), "y": (0.0, 0.0)})
    rows = (b / "metrics.csv").read_text().replace("Tail", "Head")
    (b / "metrics.csv").write_text(rows)
    found = found_by(capsys, a, b)
    assert list(found["classes"]) == ["Body"]
    assert found["only_a"] == {"cases": ["x"], "classes": ["Tail"]}
    assert found["only_b"] == {"cases": ["y"], "classes": ["Head"]}
    assert found["classes"]["Body"]["dice"]["difference"] == pytest.approx(0.25)
    assert found["trained_on"] == {"a": 2, "b": 0}
    assert run(a, b) == 0
    printed = capsys.readouterr().out
    assert "left out, only A has them: cases x\n" in printed
    assert "left out, only B has them: classes Head\n" in printed
    assert "the weights of A were trained on 2 of these cases\n" in printed
    assert "n is 2: below 6 pairs these tests say little" in printed
    assert "mean of classes" not in printed  # of one class


def test_a_score_that_one_lacks_does_not_count_in_either_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write(tmp_path / "a", {"a": (0.5, 0.1)}), write(tmp_path / "b", {"a": (0.7, NAN)})
    found = found_by(capsys, a, b)
    assert found["classes"]["Tail"]["dice"] == {
        "n": 0, "a": None, "b": None, "difference": None, "low": None, "high": None,
        "t_test": None, "wilcoxon": None,
    }  # fmt: skip
    assert found["mean"]["dice"]["a"] == 0.5
    assert found["mean"]["dice"]["difference"] == pytest.approx(0.2)


@pytest.mark.parametrize("columns", ["case,group", "Name;patient ID", "age\tpatient\tcase"])
def test_cases_of_a_patient_are_pooled_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    a, b = write(tmp_path / "a", OF_A), write(tmp_path / "b", OF_B)
    delimiter = next(one for one in ",;\t" if one in columns)
    lines = [columns]
    for name, patient in zip(NAMES, "111223", strict=True):
        lines.append(delimiter.join(["9", patient, name] if "age" in columns else [name, patient]))
    (tmp_path / "patients.csv").write_text("\n".join(lines))
    found = found_by(capsys, a, b, "--groups", tmp_path / "patients.csv")
    assert (found["cases"], found["groups"]) == (6, 3)
    body = found["classes"]["Body"]["dice"]
    # Means of the patients: 0.02, 0.045, 0.06
    assert (body["n"], body["difference"]) == (3, pytest.approx(0.125 / 3))
    assert body["wilcoxon"] == pytest.approx(2 / 2**3)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda a, b: (b / "metrics.csv").unlink(), "metrics.csv does not exist: expected"),
        (lambda a, b: change(b, "case", "image"), "expected case among them"),
        (lambda a, b: change(b, "a,", "z,"), "no case in common, but a and z"),
        (lambda a, b: change(b, "Body", "Head", "Tail", "Foot"), "no class in common"),
        (lambda a, b: change(b, "mm", "pixel"), "hd95 in mm"),
        (lambda a, b: change(b, "0.7", "good"), "the dice 'good' for Body of a"),
        (lambda a, b: change(b, "Body", "Tail"), "two rows for Tail of a"),
        (lambda a, b: (b / "metrics.csv").write_bytes(b"\xff"), "is no table"),
        (lambda a, b: (b / "metrics.csv").write_text(""), "has the columns none"),
    ],
)
def test_what_cannot_be_compared_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it, told: str
) -> None:
    a, b = write(tmp_path / "a", {"a": (0.5, 0.4)}), write(tmp_path / "b", {"a": (0.7, 0.4)})
    break_it(a, b)
    assert run(a, b) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ldseg: error: ") and told in line


@pytest.mark.parametrize(
    ("dice", "told"),
    [
        (1.25, "the dice '1.25' for Body of a: expected a number, from 0 to 1"),
        (-0.1, "the dice '-0.1' for Body of a: expected a number, from 0 to 1"),
    ],
)
def test_a_score_that_none_can_have_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dice: float, told: str
) -> None:
    a = write(tmp_path / "a", OF_A | {"a": (dice, 0.4)})
    assert run(a, write(tmp_path / "b", OF_B)) == 2
    assert told in capsys.readouterr().err


def test_scores_against_other_labels_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write(tmp_path / "a", {"a": (0.5, 0.4)}), write(tmp_path / "b", {"a": (0.7, 0.4)})
    for folder, voxels in ((a, "90"), (b, "91")):
        lines = (folder / "metrics.csv").read_text().splitlines()
        column = lines[0].split(",").index("true_voxels")
        rows = [line.split(",") for line in lines[1:]]
        rows[1][column] = voxels
        (folder / "metrics.csv").write_text("\n".join([lines[0], *map(",".join, rows)]) + "\n")
    assert run(a, b) == 2
    told = f"Tail of a has 90 true voxels in {a / 'metrics.csv'} and 91 in {b / 'metrics.csv'}"
    assert told in capsys.readouterr().err
    assert run(a, a) == 0
    assert "1 case in both\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (None, "--groups groups.csv does not exist"),
        ("case,age\na,1\n", "expected one called group or patient or patient id"),
        ("number,group\na,1\n", "expected one called case or name"),
        ("case,group\na,1\n", "1 of 2 cases have no patient in the table, b"),
        ("case,group\na,1\na,2\nb,1\n", "has a with '1' and with '2'"),
    ],
)
def test_groups_that_cannot_be_used_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: str | None,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    a = write(tmp_path / "a", {"a": (0.5, 0.4), "b": (0.5, 0.4)})
    if table is not None:
        Path("groups.csv").write_text(table)
    assert run(a, a, "--groups", "groups.csv") == 2
    assert told in capsys.readouterr().err


def change(folder: Path, *texts: str) -> None:
    """Replace texts of a metrics.csv, each by the one that follows."""
    path = folder / "metrics.csv"
    text = path.read_text()
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        text = text.replace(old, new)
    path.write_text(text)
