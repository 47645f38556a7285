"""How a command ends that an error stops."""

from __future__ import annotations

import subprocess
import sys

FAILING_CACHE = """
import atexit, time
from monai.data import CacheDataset
from monai.transforms import Lambda
from ldseg_monai.bundle.command import finish_thread_pools

def load(case):
    if case == "bad":
        time.sleep(0.2)  # until the pool has the next case too
        raise ValueError("bad case")
    time.sleep(1.0)
    print("next case ended")

atexit.register(finish_thread_pools)
CacheDataset(["bad", "next"], Lambda(load), num_workers=2, progress=False)
"""


def test_thread_that_loads_a_case_is_not_cut_off() -> None:
    process = subprocess.run(
        [sys.executable, "-c", FAILING_CACHE], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 1 and "ValueError: bad case" in process.stderr
    assert process.stdout == "next case ended\n"
