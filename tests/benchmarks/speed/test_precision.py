from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import tables

from benchmarks import command, report
from benchmarks.speed import precision


def test_sets_of_instructions_are_those_of_the_processor() -> None:
    assert precision.instruction_sets(["sse2"]) == [precision.OWN]
    found = precision.instruction_sets(["avx2", "avx512f", "amx_bf16"])
    assert found == [precision.OWN, "AVX512_CORE", "AVX2"]


def test_ratio_is_to_the_faster_of_the_two() -> None:
    (rows,) = tables(precision.table({"AVX2": {"auto": 3.0, "bfloat16": 20.0, "float32": 2.0}}))
    assert rows[0]["auto to the faster"] == report.number(1.5)


def test_report_has_a_row_for_each_process(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Done:
        stdout = "said\n" + json.dumps({"auto": 1.0, "bfloat16": 4.0, "float32": 1.0})

    def run(line: list[str], env: dict[str, str], **kwargs: object) -> Done:
        started.append((line, env.get("ONEDNN_MAX_CPU_ISA")))
        return Done()

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(report, "cpu_flags", lambda: ["avx2"])
    precision.main(tiny)
    (rows,) = tables((tmp_path / "precision.md").read_text())
    assert [row["instructions"] for row in rows] == [precision.OWN, "AVX2"]
    assert [isa for _, isa in started] == [None, "AVX2"]
    assert all("--here" in line for line, _ in started)


def test_seconds_of_all_precisions(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    precision.main([*tiny, "--here"])
    seconds = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(seconds) == list(precision.AMPS) and min(seconds.values()) > 0
