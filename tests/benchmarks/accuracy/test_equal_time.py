from __future__ import annotations

import random
from pathlib import Path

import pytest
from programs import tables

from benchmarks.accuracy.equal_time import Point, best_in_their_time, main, read_dice

STEPS = """method,K,number of case,dice
LDSeg,1,0,0.8
LDSeg,1,1,0.6
LDSeg,2,0,0.9
LDSeg,2,1,0.7
"""
NOISE = """method,sigma,number of case,dice
LDSeg,0,0,0.1
Res-UNet,0,0,0.5
Res-UNet,0,1,0.6
Res-UNet,0.1,0,0.4
Res-UNet,0.1,1,0.4
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "ldseg_2_steps.csv").write_text(STEPS)
    (tmp_path / "ldseg_2_noise.csv").write_text(NOISE)
    return tmp_path


def test_diffusion_has_its_steps_and_others_their_clean_images(results: Path) -> None:
    points = read_dice(results / "ldseg_2_steps.csv", results / "ldseg_2_noise.csv")
    assert points == {
        Point("LDSeg", 1): [0.8, 0.6],
        Point("LDSeg", 2): [0.9, 0.7],
        Point("Res-UNet", None): [0.5, 0.6],
    }


def test_best_are_those_that_nothing_faster_equals() -> None:
    draw = random.Random(0)
    points = [Point("a", number) for number in range(30)]
    dice = {point: draw.randrange(20) / 20 for point in points}
    seconds = {point: draw.randrange(1, 20) / 10 for point in points}
    best = best_in_their_time(dice, seconds)
    for point in points:
        within = [other for other in points if seconds[other] <= seconds[point]]
        most = max(dice[other] for other in within)
        (last,) = [one for one in best if one in within][-1:]
        assert dice[last] == most
    assert [dice[point] for point in best] == sorted({dice[point] for point in best})


def test_table_and_plot_have_each_method_beside_its_time(results: Path) -> None:
    out = results / "out"
    main(
        ["ldseg_2", "--size", "32", "48", "--results", str(results), "--out", str(out)]
        + ["--rounds", "2", "--budget", "1"]
    )
    text = (out / "ldseg_2_time.md").read_text()
    (rows,) = tables(text)
    shown = {(row["method"].strip("*"), row["K"]): row for row in rows}
    assert {key: row["Dice"].strip("*") for key, row in shown.items()} == {
        ("LDSeg", "1"): "0.700",
        ("LDSeg", "2"): "0.800",
        ("Res-UNet", "–"): "0.550",
    }
    assert shown["LDSeg", "1"]["times LDSeg, K = 1"] == "1"
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert "**" in shown["LDSeg", "2"]["method"]  # of the highest Dice
    assert "32 x 48" in text and "mean over 2 cases" in text
    assert (out / "ldseg_2_time.png").stat().st_size > 0


def test_bad_input_is_one_error_before_any_work(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["--size", "32", "--results", str(results)], "--size [32]: expected 2 numbers"),
        (["--size", "32", "32", "--results", "nowhere"], "ldseg_2_steps.csv does not exist"),
    ):
        with pytest.raises(SystemExit):
            main(["ldseg_2", *options, "--out", str(results / "out")])
        assert message in capsys.readouterr().err
        assert not (results / "out").exists()
