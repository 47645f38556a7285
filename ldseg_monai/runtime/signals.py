"""Ctrl-C and SIGTERM: one line that says how to go on, and the exit code that shells give them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class _EndInOneLine:
    """Handler of both signals; a second signal ends the process at once."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.process = os.getpid()
        self.advice: Callable[[], str] = lambda: ""

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != self.process:  # a loader's worker, of which another code is an error
            os._exit(0)
        for other in NAMES:
            signal.signal(other, signal.SIG_DFL)
        if hasattr(signal, "SIGCHLD"):  # by which torch raises an error for each worker that ends
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started
            told = f"stopped by {NAMES[signal.Signals(number)]}"
            if advice := self.advice():
                told += f"; {advice}"
            sys.stdout.flush()
            sys.stderr.write(f"\n{self.program}: {told}\n")
        if _numpy_begins():
            sys.stderr.flush()
            os._exit(128 + number)
        logging.disable(logging.CRITICAL)  # Ignite and MONAI log whatever ends an engine
        sys.exit(128 + number)


def _numpy_begins() -> bool:
    """Whether NumPy is being imported, before any work.

    PyTorch imports it in C, and drops what is raised there: the process would go on without it.
    """
    spec = getattr(sys.modules.get("numpy"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def end_in_one_line(program: str = "ldseg_monai") -> None:
    """Let Ctrl-C and SIGTERM end this process in one line, with exit code 130 or 143.

    Only the main thread can; nothing is changed elsewhere.

    Args:
        program: what the line begins with.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = _EndInOneLine(program)
    for number in NAMES:
        signal.signal(number, handler)


def advise_at_end(advice: Callable[[], str]) -> None:
    """Say how to go on, in the line that `end_in_one_line` shows, where it was called.

    Args:
        advice: makes the text when a signal has come.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, _EndInOneLine):
        handler.advice = advice
