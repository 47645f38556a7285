"""The errors that a person can act on, and what the command line shows of any error."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Iterator
from types import TracebackType

# What MONAI's error of a component of PyTorch, Ignite or its own begins with; those of this package
# say it themselves, and a person's own show where they failed
NOT_MADE = re.compile(r"Failed to instantiate component '((?:torch|ignite|monai)\.[\w.]+|\w+)'")
WORKER_KILLED = "DataLoader worker"  # what PyTorch's error of such a process begins with
TRACEBACK = "LDSEG_TRACEBACK"  # environment variable: any value but "" shows every traceback
STATS = "monai.handlers.StatsHandler"  # logger of that handler
# Kinds of characters that no line of text has: control characters, halves of pairs, line breaks
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


class UserError(Exception):
    """Something that a person can put right: the message says got, wanted, what to do.

    Each of its classes is one of Python's too, so that callers catch it as they are used to. Any
    other error is a mistake in a program, and keeps its traceback.

    A message is one line, whatever a file's text that it repeats holds: see `printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(UserError, ValueError):
    """A value, a file's content or a config that cannot be used."""


class ArgumentError(UserError, TypeError):
    """An argument that a component does not take."""


class UnknownNameError(UserError, AttributeError):
    """A name that a module does not have."""


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there."""


class ExistingFileError(UserError, FileExistsError):
    """A file or folder that is there and is not written over."""


class LostFolderError(FileError):
    """A folder that was removed while it was written to."""


class BusyFolderError(UserError, BlockingIOError):
    """A folder that another command is writing to."""


class NotAFolderError(UserError, NotADirectoryError):
    """A file where a folder is wanted."""


class ReadOnlyError(UserError, PermissionError):
    """A folder that nothing can be written to."""


class MissingPackageError(UserError, ImportError):
    """A package that is not installed."""


class RunError(UserError, RuntimeError):
    """A run that cannot go on."""


class ListedErrors(RunError):
    """Several errors: the message has a line for each, and is shown so."""

    def __str__(self) -> str:
        return "\n".join(printable(line) for line in RuntimeError.__str__(self).split("\n"))


def printable(text: str) -> str:
    """A text in which a character that no line has is written as Python writes it."""
    shown = []
    for character in text:
        if unicodedata.category(character) in UNPRINTABLE:
            character = character.encode("unicode_escape", "surrogatepass").decode("ascii")
        shown.append(character)
    return "".join(shown)


def show_errors_in_one_line() -> None:
    """Let a `UserError` that ends this process show as one line; the exit code stays 1.

    MONAI wraps an error in one for each component and transform that it passed through, some 100
    lines in all. Others keep their traceback, followed by one line. ``LDSEG_TRACEBACK=1`` shows all
    tracebacks.
    """
    if not os.environ.get(TRACEBACK):
        sys.excepthook = _show
        hide_user_tracebacks()


def hide_user_tracebacks() -> None:
    """Let the log say a `UserError` without its traceback, unless ``LDSEG_TRACEBACK`` is set.

    MONAI's `StatsHandler` logs all errors of an engine, and has an output of its own.
    """
    if os.environ.get(TRACEBACK):
        return
    from monai.apps.utils import get_logger  # slow, and there already where an engine is run

    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_user_traceback)
    get_logger(STATS).addFilter(_without_user_traceback)


def cause(error: BaseException) -> BaseException:
    """The error that a person should read: the first `UserError` in the chain, else the last.

    Where another library refuses a value of a component, that is one, too.
    """
    errors = list(chain(error))
    for step in errors:
        if isinstance(step, UserError):
            return step
        if isinstance(step, RuntimeError) and str(step).startswith(WORKER_KILLED):
            return RunError(
                f"a process that loads data was killed, often for lack of memory ({step}): run the "
                "same command again, with num_workers 0 if it happens again"
            )
    made = NOT_MADE.match(str(errors[-2])) if len(errors) > 1 else None
    if made and isinstance(errors[-1], ValueError):
        return InputError(
            f"component {made[1]} cannot be made ({one_line(errors[-1])}): expected values that it "
            "takes; correct those of its entry in the config, or of --set"
        )
    return errors[-1]


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on.

    Each comes once: two errors may be raised from each other.
    """
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        implicit = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or implicit


def one_line(error: BaseException) -> str:
    """The error's text on one line, with its kind where the text says little."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def counted(number: int, one: str) -> str:
    """A number of things in words: ``1 case``, ``2 cases``."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def _without_user_traceback(record: logging.LogRecord) -> bool:
    """Take a `UserError`'s traceback out of a log entry, such as MONAI's `StatsHandler` writes."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and isinstance(cause(error), UserError):
        record.exc_info = record.exc_text = None
    return True


def _show(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    for step in chain(error):
        if isinstance(step, SystemExit):  # something else went wrong while the process was ending
            sys.stdout.flush()
            os._exit(int(step.code or 0))
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, place)
        return
    told = cause(error)
    hint = f" ({TRACEBACK}=1 shows where it was raised)"
    if not isinstance(told, UserError):
        traceback.print_exception(kind, error, place)
        hint = ""
    sys.stdout.flush()
    text = str(told) if isinstance(told, ListedErrors) else one_line(told)
    sys.stderr.write(f"ldseg_monai: error: {text}{hint}\n")
