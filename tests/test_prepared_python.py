"""A command of the prepared interpreter beside the same command of a new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prepared_python import TORCHRUN, Command

TELL = """
import atexit, multiprocessing, os, sys
atexit.register(print, "at the end")
print(__name__, sys.argv, os.getcwd(), os.environ.get("GIVEN"), sys.path[0])
print(multiprocessing.get_start_method())
print("an error", file=sys.stderr)
"""
ENDS = {
    "well": "",
    "an error": "raise ValueError('no')",
    "a code": "sys.exit(7)",
    "a text": "sys.exit('no')",
    "a signal": "sys.stdout.flush(); os.kill(os.getpid(), 15)",
    "its own way with errors": "sys.excepthook = lambda *error: print('mine'); raise ValueError",
}
RANK = "import os; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'], flush=True)"


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_command_does_what_a_new_interpreter_does(tmp_path: Path, end: str) -> None:
    (tmp_path / "program.py").write_text(TELL + end)
    env = {**os.environ, "GIVEN": "a value"}
    arguments = ["program", "--knob", "[1, 2]"]
    wanted = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    with Command(*arguments, cwd=tmp_path, env=env, errors_apart=True) as command:
        assert command.wait() == wanted.returncode
    assert command.printed == wanted.stdout
    assert command.errors.splitlines()[-1:] == wanted.stderr.splitlines()[-1:]


def test_a_command_is_killed_alone(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import time; print('up', flush=True); time.sleep(60)")
    with Command("program", cwd=tmp_path) as command:
        command.wait_until(lambda: command.printed == "up\n", "a word")
        assert command.poll() is None
        command.send_signal(signal.SIGKILL)
    assert command.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("end", "code"), [("", 0), ("\nraise SystemExit(3)", 1)])
def test_torchrun_starts_workers_and_fails_as_they_do(tmp_path: Path, end: str, code: int) -> None:
    (tmp_path / "program.py").write_text(RANK + end)
    launcher = [TORCHRUN, "--standalone", "--nproc_per_node=2"]
    with Command(*launcher, "-m", "program", cwd=tmp_path) as command:
        assert command.wait() == code
    ranks = {line for line in command.printed.splitlines() if line.startswith("rank")}
    assert len(ranks) == 2 if code == 0 else ranks
    assert ranks <= {"rank 0 of 2", "rank 1 of 2"}
