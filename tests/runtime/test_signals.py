from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prepared_python import Command

PROGRAM = """
import logging, sys, time
from torch.utils.data import DataLoader
from ldseg_monai.runtime.errors import show_errors_in_one_line
from ldseg_monai.runtime.signals import advise_at_end, end_in_one_line

class Slow:
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        time.sleep(0.05)
        return index

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
show_errors_in_one_line()
end_in_one_line()
advise_at_end(lambda: "go on from here")
try:
    for batch in DataLoader(Slow(), num_workers=int(sys.argv[1])):
        print("working", flush=True)
except BaseException:
    logging.exception("what engines log")
    raise
"""


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_to_a_process_and_its_workers_ends_in_one_line(
    number: signal.Signals, code: int, workers: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with Command("program", workers, cwd=tmp_path, errors_apart=True) as command:
        command.wait_until(lambda: command.printed.startswith("working\n"), "a case")
        os.killpg(command.pid, number)
        assert command.wait(timeout=60) == code
    name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    assert command.errors.strip() == f"ldseg_monai: stopped by {name}; go on from here"
    assert set(command.printed.split("\n")) <= {"working", ""}


WHILE_NUMPY_BEGINS = """
import inspect, os, signal
from ldseg_monai.runtime.signals import end_in_one_line

end_in_one_line()
signature = inspect.signature

def stopped(*arguments, **options):
    inspect.signature = signature
    os.kill(os.getpid(), signal.SIGTERM)
    return signature(*arguments, **options)

inspect.signature = stopped  # NumPy asks for many
import torch
print("goes on")
"""


def test_signal_while_pytorch_imports_numpy_ends_the_process() -> None:
    """PyTorch drops what is raised there."""
    done = subprocess.run(
        [sys.executable, "-c", WHILE_NUMPY_BEGINS], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr == "\nldseg_monai: stopped by SIGTERM\n"
