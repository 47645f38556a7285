from __future__ import annotations

import ast
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from programs import evaluated, tables

from benchmarks.accuracy import pieces
from benchmarks.accuracy.pieces import Candidate

SIZES = (3, 10, 30)


def case(name: str, further: int) -> dict[str, Any]:
    """A right segmentation, but for small pieces of class 1, and a pixel of class 2."""
    label = torch.zeros(1, 12, 30, dtype=torch.uint8)
    label[0, :4, :10] = 1  # 40
    label[0, :4, 12:20], label[0, 6:8, 12:15] = 2, 2  # 32 and 6
    pred = label.clone()
    pred[0, 9, :5], pred[0, 11, :further], pred[0, 11, 29] = 1, 1, 2
    image = MetaTensor(torch.zeros(1, 12, 30), meta={"filename_or_obj": f"{name}.png"})
    return {"image": image, "pred": MetaTensor(pred), "label": MetaTensor(label)}


@pytest.fixture
def scores() -> pieces.Scores:
    return pieces.score([case("a", 9), case("b", 20)], pieces.candidates(SIZES), 3)


def test_dice_is_that_of_the_pieces_that_stay(scores: pieces.Scores) -> None:
    def dice(index: int, candidate: Candidate) -> tuple[float, float]:
        found = scores[candidate][index]
        return found["a"], found["b"]

    assert dice(1, Candidate()) == pytest.approx((80 / 94, 80 / 105))
    assert dice(1, Candidate(10)) == pytest.approx((1, 80 / 100))
    assert dice(1, Candidate(30)) == dice(1, Candidate(largest_only=True)) == (1, 1)
    assert dice(2, Candidate()) == pytest.approx((76 / 77, 76 / 77))
    assert dice(2, Candidate(3)) == (1, 1)
    largest = 2 * 32 / (32 + 38)
    assert dice(2, Candidate(10)) == dice(2, Candidate(30)) == pytest.approx((largest, largest))


def test_each_class_has_its_own_choice_and_of_equal_ones_what_changes_less(
    scores: pieces.Scores,
) -> None:
    choice = pieces.choose(scores, ["a", "b"])
    assert choice == {1: Candidate(30), 2: Candidate(3)}
    assert pieces.choose(scores, ["a"]) == {1: Candidate(10), 2: Candidate(3)}
    by_others = pieces.chosen_by_others(scores)  # b with what a chose
    assert by_others == pytest.approx({"a": 1, "b": (0.8 + 1) / 2})
    rows = pieces.class_rows(scores, choice, {1: "one", 2: "two"})
    assert [row["pieces that stay"] for row in rows] == [
        "all", "of 3 and more", "of 10 and more", "of 30 and more", "the largest",
    ]  # fmt: skip
    assert rows[3] == {"pieces that stay": "of 30 and more", "one": "**1.0000**", "two": "0.9143"}


def test_gain_is_paired() -> None:
    before, after = {"a": 0.5, "b": 0.75}, {"a": 0.75, "b": 0.75}
    row = pieces.gain_row("some", before, after)
    assert (row["n"], row["all pieces"], row["chosen"]) == ("2", "0.6250", "0.7500")
    assert (row["difference"], row["changed"]) == ("+0.1250", "1")


def test_what_is_chosen_is_what_the_bundle_does_with_its_knobs(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    options = ["--dataset_dir", str(data), "--out", str(tmp_path)]
    pieces.main([str(bundle), *options, "--sizes", "30", "300", "--test_cases", "case2"])
    text = (tmp_path / "pieces.md").read_text()
    classes, gain = tables(text)
    assert [row["pieces that stay"] for row in classes][-1] == "the largest"
    assert [row["cases"] for row in gain] == ["that chose", "held back"]  # one is left
    _, knobs = text.split("--smallest_object ")
    smallest, _, rest = knobs.partition(" --largest_only ")
    chosen = {
        "smallest_object": ast.literal_eval(smallest.strip('"')),
        "largest_only": ast.literal_eval(rest.split("`")[0].strip('"')),
    }
    for part, row in (("val", gain[0]), ("test", gain[1])):
        for column, knobs in (("all pieces", {}), ("chosen", chosen)):
            own = {"part": part, "test_cases": ["case2"], **knobs}
            found = evaluated(bundle, data, tmp_path / "own", **own)
            assert float(row[column]) == pytest.approx(np.mean(list(found.values())), abs=6e-5)
    with open(tmp_path / "pieces.csv", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["case1"]


def test_class_that_no_label_has_keeps_its_pieces() -> None:
    empty = {**case("a", 9), "label": MetaTensor(torch.zeros(1, 12, 30, dtype=torch.uint8))}
    scores = pieces.score([empty], pieces.candidates(SIZES), 3)
    assert pieces.choose(scores, ["a"]) == {1: Candidate(), 2: Candidate()}
    assert math.isnan(pieces.dice_with(scores, {1: Candidate(), 2: Candidate()}, "a"))
