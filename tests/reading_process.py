"""A process that reads files one after the other, and whose end, time and memory are watched."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from prepared_python import PREPARED

MAX_SECONDS = 10
MAX_BYTES = 2e9  # beyond what the process has before it reads

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class Outcome:
    """How a reading ended.

    Attributes:
        kind: "result", "told" (one of our errors), "traceback" (any other), "hang", "ended" (the
            process did).
        value: what was read, or what was said.
        extra_bytes: memory that it took, at most.
    """

    kind: str
    value: Any
    extra_bytes: float = 0.0


class ReadingProcess:
    """A process for many readings; it is started again when one of them ends it."""

    def __enter__(self) -> ReadingProcess:
        self._start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.kill()
        self.process.join()

    def __call__(self, read: Read, path: Path) -> Outcome:
        """Read a file there."""
        self.connection.send((read, path))
        if not self.connection.poll(MAX_SECONDS):
            outcome = Outcome("hang", f"no answer in {MAX_SECONDS} s")
        else:
            try:
                return self.connection.recv()
            except EOFError:
                self.process.join()
                outcome = Outcome("ended", f"exit code {self.process.exitcode}")
        self.process.kill()
        self.process.join()
        self._start()
        return outcome

    def _start(self) -> None:
        self.connection, theirs = PREPARED.Pipe()
        self.process = PREPARED.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()  # it has loaded what it needs


def _serve(connection: Connection) -> None:
    """Read what is asked for, and answer, until the other end is closed."""
    from ldseg_monai.runtime.errors import UserError

    logging.disable()
    warnings.simplefilter("ignore")
    connection.send("ready")
    while True:
        try:
            read, path = connection.recv()
        except EOFError:
            return
        before = _peak_bytes(reset=True)
        try:
            outcome = Outcome("result", read(path))
        except UserError as error:
            outcome = Outcome("told", str(error))
        except BaseException:
            outcome = Outcome("traceback", traceback.format_exc())
        connection.send(Outcome(outcome.kind, outcome.value, _peak_bytes() - before))


def _peak_bytes(reset: bool = False) -> float:
    """Most memory that this process had since the last reset (Linux)."""
    if reset and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024
