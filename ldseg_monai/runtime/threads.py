"""Threads that still work when a command ends."""

from __future__ import annotations

import threading
from multiprocessing.dummy import DummyProcess

CASE_SECONDS = 60.0  # the most that is waited for one case to be read


def finish_thread_pools() -> None:
    """Wait, at exit, for the case that a thread of a pool is at.

    Such pools fill MONAI's `CacheDataset`. An error in one case ends the process while the pool is
    at the next one. Python cuts a thread off where it is then, and if that is inside of torch, the
    process is aborted (exit code 134) after the error was told.
    """
    for thread in threading.enumerate():
        if isinstance(thread, DummyProcess):
            thread.join(CASE_SECONDS)
