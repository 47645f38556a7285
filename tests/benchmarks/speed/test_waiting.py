from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from programs import tables

from benchmarks import command
from benchmarks.speed import waiting


def test_busy_processes_end_with_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = subprocess.Popen

    def noted(*args: object, **kwargs: object) -> subprocess.Popen:
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(waiting, "BUSY", "import time; time.sleep(60)")
    monkeypatch.setattr(waiting.subprocess, "Popen", noted)
    with pytest.raises(ValueError), waiting.busy(2):
        assert [process.poll() for process in started] == [None, None]
        raise ValueError
    assert [process.returncode for process in started] == [-9, -9]


def test_report_has_both_policies_for_each_number_of_processes(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = []

    class Done:
        def __init__(self, seconds: list[float]) -> None:
            self.stdout = "said\n" + json.dumps(seconds)

    def run(line: list[str], env: dict[str, str], **kwargs: object) -> Done:
        policies.append(env.get("OMP_WAIT_POLICY"))
        assert line[4] == "--here"
        return Done([1.0, 1.0, 1.0] if policies[-1] else [3.0, 2.0, 4.0])

    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(waiting, "BUSY", "")
    set_at = tiny.index("--set")
    waiting.main([*tiny[:set_at], "--others", "0", "1", *tiny[set_at:]])
    (rows,) = tables((tmp_path / "waiting.md").read_text())
    assert [row["other processes"] for row in rows] == ["0", "1"]
    assert [row["awake over asleep"] for row in rows] == ["3", "3"]
    assert rows[0]["range awake"] == "2 to 4"
    assert policies == [None, "passive"] * 2


def test_seconds_of_each_round(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    waiting.main([tiny[0], "--here", *tiny[1:]])
    seconds = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(seconds) == 2 and min(seconds) > 0
