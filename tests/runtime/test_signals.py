from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, workers],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "working\n"
        subprocess.run(["kill", f"-{int(number)}", "--", f"-{process.pid}"], check=True)
        printed, errors = process.communicate(timeout=60)
    name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    assert process.returncode == code
    assert errors.strip() == f"ldseg_monai: stopped by {name}; go on from here"
    assert set(printed.split("\n")) <= {"working", ""}
