"""The script for a GPU, as far as a test can try it: its steps are programs that have their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from programs import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.sh"
PYTHON = """#!/bin/sh
case "$*" in *-c*) echo cpu ;; *speed.samples*) echo wrong; exit 1 ;; esac
echo "$*" >> "$CALLS"
"""


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with a Python that notes how it is called, and fails at the samples."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    env = {**os.environ, "PYTHON": str(python), "CALLS": str(tmp_path / "calls")}
    return subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True)


def test_without_folders_it_says_what_it_wants(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.returncode == 2 and result.stderr.startswith("usage: benchmarks/gpu.sh OUT DATA")


def test_failed_step_is_named_and_alone_done_again(tmp_path: Path) -> None:
    places = [str(tmp_path / "out"), str(tmp_path), "ldseg_glas"]
    result = run(tmp_path, *places)
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == "failed: ldseg_glas/samples"
    calls = (tmp_path / "calls").read_text()
    assert calls.count("benchmarks.speed.cost bundles/ldseg_glas") == 1
    (tmp_path / "calls").write_text("")
    assert run(tmp_path, *places).stdout.count("done already") == 7
    assert "benchmarks" not in (tmp_path / "calls").read_text()
