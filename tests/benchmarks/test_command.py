"""Where the programs write: to a folder of one's own, unless they are to record."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from prepared_python import Command
from programs import ROOT

from benchmarks import command
from benchmarks.speed.workload import argument_parser
from ldseg_monai.runtime.errors import FileError


@pytest.mark.parametrize(
    ("options", "place"),
    [([], "runs/benchmarks/ldseg_glas"), (["--out", "mine"], "mine"), (["--record"], "recorded")],
)
def test_report_s_folder(
    options: list[str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "recorded")
    arguments = argument_parser("").parse_args(["ldseg_glas", *options])
    folder = command.folder_of(arguments)
    expected = tmp_path / place / ("ldseg_glas" if options == ["--record"] else "")
    assert folder.resolve() == expected.resolve() and folder.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [Path(place).parts[0]]


def test_a_place_and_the_record_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        argument_parser("").parse_args(["ldseg_glas", "--out", "mine", "--record"])
    assert "not allowed with argument --out" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = argument_parser("").parse_args(
        ["ldseg_glas", "--out", str(tmp_path / "file" / "a")]
    )
    with pytest.raises(FileError, match="file/a cannot be made .*: expected a place that can be"):
        command.folder_of(arguments)
    assert command.file_to_write(str(tmp_path / "a.md")) == tmp_path / "a.md"
    with pytest.raises(ArgumentTypeError, match="file is no folder: expected one"):
        command.file_to_write(str(tmp_path / "file" / "a.md"))


def test_what_a_person_can_put_right_is_one_line(tmp_path: Path) -> None:
    options = ["--dataset_dir", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    with Command("benchmarks.accuracy.views", "ldseg_glas", *options, cwd=ROOT) as program:
        assert program.wait() == 1
        printed = program.printed
    assert "Traceback" not in printed and printed.splitlines()[-1].startswith(
        "ldseg_monai: error: "
    )
    assert f"dataset_dir {tmp_path / 'none'} does not exist" in printed


CHILD = "import time; print('begun', flush=True); time.sleep(60); print('ended by itself')"
PROGRAM = """
import subprocess, sys
from benchmarks.command import argument_parser
argument_parser("").parse_args([])
subprocess.run([sys.executable, "-c", {child!r}])
"""


def test_what_a_program_runs_ends_with_it() -> None:
    line = [sys.executable, "-c", PROGRAM.format(child=CHILD)]
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stderr is not None
        assert program.stdout.readline() == "begun\n"
        time.sleep(1)  # until the program waits for its child
        program.send_signal(signal.SIGTERM)
        assert program.stdout.read() == ""  # which ends when the child does, too
        assert program.stderr.read() == "\nbenchmarks: stopped by SIGTERM\n"
    assert program.returncode == 143
