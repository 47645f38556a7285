from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable

import pytest

from ldseg_monai.data.split import Split
from ldseg_monai.runtime import errors as error_display
from ldseg_monai.runtime.errors import cause, is_own, one_line, show_errors_in_one_line


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def refused() -> None:
    Split([]).part("nonsense")


def mistake() -> None:
    Split(3).part("val")  # type: ignore[arg-type]


def wrapped(function: Callable[[], object]) -> Callable[[], None]:
    """Raises two further errors on top, as MONAI does."""

    def run() -> None:
        try:
            try:
                function()
            except Exception as error:
                raise RuntimeError("applying transform") from error
        except Exception as error:
            raise RuntimeError("Failed to instantiate") from error

    return run


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], str]:
    """What a process prints of an error that ends it."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delenv(error_display.TRACEBACK, raising=False)
    show_errors_in_one_line()

    def show(error: BaseException) -> str:
        printed = io.StringIO()
        monkeypatch.setattr(sys, "stderr", printed)
        sys.excepthook(type(error), error, error.__traceback__)
        return printed.getvalue()

    return show


def test_error_that_the_package_raised_is_one_line(hook: Callable[[BaseException], str]) -> None:
    printed = hook(raised(wrapped(refused)))
    assert printed.startswith(
        "ldseg_monai: error: split 'nonsense': expected 'train', 'val' or 'all'"
    )
    assert printed.count("\n") == 1 and error_display.TRACEBACK in printed


def test_mistake_in_the_code_keeps_its_traceback_and_ends_in_one_line(
    hook: Callable[[BaseException], str],
) -> None:
    error = raised(wrapped(mistake))
    assert isinstance(cause(error), TypeError) and not is_own(cause(error))
    printed = hook(error)
    assert "Traceback" in printed and "Split(3)" in printed
    assert printed.splitlines()[-1] == "ldseg_monai: error: TypeError: 'int' object is not iterable"


def test_error_of_others_that_the_package_explains_is_told_in_its_words() -> None:
    def explain() -> None:
        from ldseg_monai.networks.weights import read_state

        read_state(__file__)

    error = cause(raised(wrapped(explain)))
    assert is_own(error) and __file__ in one_line(error) and error.__cause__ is not None


def test_variable_shows_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(error_display.TRACEBACK, "1")
    before = sys.excepthook
    show_errors_in_one_line()
    assert sys.excepthook is before


def test_log_has_no_traceback_of_an_error_that_is_shown_in_one_line() -> None:
    for function, has_traceback in ((refused, False), (mistake, True)):
        error = raised(function)
        record = logging.LogRecord(
            "name", logging.ERROR, "", 0, "text", (), (type(error), error, error.__traceback__)
        )
        assert error_display._without_own_traceback(record)
        assert bool(record.exc_info) is has_traceback
