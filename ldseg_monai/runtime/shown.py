"""What a person is told in place of a path that is not theirs, such as one in a cache."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

from ldseg_monai.runtime.errors import UserError, cause

Replace = Callable[[str], str]
_replaces: list[Replace] = []  # of all threads: what they replace is of one alone
_lock = Lock()
_make_record = logging.getLogRecordFactory()  # while nothing is replaced


@contextlib.contextmanager
def told_as(replace: Replace) -> Iterator[None]:
    """Let log messages and a `UserError` meanwhile be told in other words.

    Args:
        replace: returns a text with what a person is to read in it.
    """
    global _make_record
    with _lock:
        if not _replaces:
            _make_record = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_record)
        _replaces.append(replace)
    try:
        yield
    except Exception as error:  # which MONAI may have wrapped
        told = cause(error)
        if isinstance(told, UserError):
            told.args = (replace(str(told)),)
        raise
    finally:
        with _lock:
            _replaces.remove(replace)
            if not _replaces:
                logging.setLogRecordFactory(_make_record)


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _make_record(*args, **kwargs)
    message = told = record.getMessage()
    for replace in list(_replaces):
        told = replace(told)
    if told != message:
        record.msg, record.args = told, ()
    return record
