from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from programs import tables

from benchmarks.speed import samples
from benchmarks.speed.measure import Result, timed
from benchmarks.speed.workload import argument_parser, workload_of


def test_parts_are_the_whole(tiny: list[str]) -> None:
    call = samples.sampling_call(workload_of(argument_parser("").parse_args(tiny)), 3)
    call()
    seconds, parts = timed(call)
    assert set(parts) == set(samples.PARTS)
    assert all(value > 0 for value in parts.values())
    assert sum(parts.values()) == pytest.approx(seconds, rel=0.05)


def test_time_for_each_and_ratio_are_those_of_the_whole() -> None:
    parts = dict.fromkeys(samples.PARTS, 1.0)
    results = {
        1: Result({0: 3.0}, {0: parts}),
        20: Result({0: 30.0}, {0: parts}),
        100: Result(failure="no memory"),
    }
    rows = tables(samples.table(results))[0]
    assert [row["seconds for each"] for row in rows] == ["3", "1.5", "–"]
    assert [row["times one sample"] for row in rows] == ["1", "10", "–"]
    assert samples.lines(results)["all"] == ([1.0, 20.0], [3.0, 30.0])


def test_table_of_a_tiny_run(tiny: list[str], tmp_path: Path) -> None:
    samples.main([*tiny, "--no_memory", "--samples", "4"])
    rows = tables((tmp_path / "samples.md").read_text())[0]
    assert [row["samples"] for row in rows] == ["1", "4"]
    for row in rows:
        parts = sum(float(row[name]) for name in samples.PARTS)
        assert parts == pytest.approx(
            float(row["seconds"]), rel=0.05
        )  # of two runs the median is the mean
    assert (tmp_path / "samples.png").is_file() == (
        importlib.util.find_spec("matplotlib") is not None
    )
