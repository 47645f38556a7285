"""What a person at the command line sees of an error: one line, or a traceback that ends in one."""

from __future__ import annotations

import dis
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType

PACKAGE = __name__.partition(".")[0]
TRACEBACK = "LDSEG_TRACEBACK"  # environment variable: any value but "" shows every traceback
USER_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError)
RAISE = dis.opmap["RAISE_VARARGS"]


class ListedErrors(RuntimeError):
    """Several errors: the message has a line for each, and is shown so."""


def show_errors_in_one_line() -> None:
    """Let an error that ends this process, if this package raised it, show as one line; the exit code stays 1.

    MONAI wraps an error in one for each component and transform that it passed through, some 100
    lines in all. Others than those of this package keep their traceback, followed by one line.
    ``LDSEG_TRACEBACK=1`` shows all tracebacks.
    """
    if not os.environ.get(TRACEBACK):
        sys.excepthook = _show
        for handler in logging.getLogger().handlers:
            handler.addFilter(_without_own_traceback)


def cause(error: BaseException) -> BaseException:
    """The error that a person should read: the first in the chain that this package raised, else the last of all."""
    return next(filter(is_own, chain(error)), [*chain(error)][-1])


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    following: BaseException | None = error
    while following is not None:
        yield following
        implicit = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or implicit


def is_own(error: BaseException) -> bool:
    """Whether a `raise` statement of this package raised the error, rather than a mistake in its code."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None or not isinstance(error, USER_ERRORS):
        return False
    in_package = place.tb_frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE
    return in_package and place.tb_frame.f_code.co_code[place.tb_lasti] == RAISE


def one_line(error: BaseException) -> str:
    """The error's text on one line, with its kind where the text says little."""
    text = " ".join(str(error).split())
    return (
        text
        if is_own(error)
        else f"{type(error).__name__}: {text}"
        if text
        else type(error).__name__
    )


def _without_own_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback out of a log entry of an error of this package, such as MONAI's `StatsHandler` writes."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and is_own(cause(error)):
        record.exc_info = record.exc_text = None
    return True


def _show(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, place)
        return
    told = cause(error)
    if not is_own(told):
        traceback.print_exception(kind, error, place)
    hint = f" ({TRACEBACK}=1 shows where it was raised)" if is_own(told) else ""
    sys.stdout.flush()
    text = str(told) if isinstance(told, ListedErrors) else one_line(told)
    sys.stderr.write(f"ldseg_monai: error: {text}{hint}\n")
