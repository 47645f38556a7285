from __future__ import annotations

import ast
import builtins
import inspect
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.apps.utils import get_logger
from monai.handlers import StatsHandler

from ldseg_monai.runtime import errors as error_display
from ldseg_monai.runtime.errors import (
    InputError,
    UserError,
    cause,
    one_line,
    show_errors_in_one_line,
)
from ldseg_monai.runtime.files import save_whole

PACKAGE = Path(error_display.__file__).parents[1]
KINDS = [
    kind
    for _, kind in inspect.getmembers(error_display, inspect.isclass)
    if issubclass(kind, UserError) and kind is not UserError
]


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def refused() -> None:
    raise InputError("split 'nonsense': expected 'train', 'val' or 'all'")


def mistake() -> None:
    list(3)  # type: ignore[call-overload]


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
    assert isinstance(cause(error), TypeError) and not isinstance(cause(error), UserError)
    printed = hook(error)
    assert "Traceback" in printed and "list(3)" in printed
    assert printed.splitlines()[-1] == "ldseg_monai: error: TypeError: 'int' object is not iterable"


def test_error_of_others_that_the_package_explains_is_told_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "model.pt")
    error = cause(raised(wrapped(lambda: save_whole({}, path))))
    assert isinstance(error, UserError) and isinstance(error, OSError)
    assert f"{path} cannot be written" in one_line(error) and error.__cause__ is not None


@pytest.mark.parametrize(
    ("target", "is_told"),
    [("torch.optim.SGD", True), ("ldseg_monai.training.LDSegLoss", False), ("mine.Part", False)],
)
def test_a_value_that_another_library_refuses_is_one_line(target: str, is_told: bool) -> None:
    def fail() -> None:
        try:
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=-1)
        except ValueError as error:  # as MONAI does
            text = f"Failed to instantiate component '{target}' with keywords: params,lr\n"
            raise RuntimeError(text) from error

    told = cause(raised(fail))
    assert isinstance(told, UserError) is is_told
    assert "Invalid learning rate: -1" in str(told)
    assert ("component torch.optim.SGD cannot be made" in str(told)) is is_told


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_one_of_python_s_too(kind: type[UserError]) -> None:
    own = {UserError, Exception, BaseException, object}
    assert [base for base in kind.__mro__ if base.__module__ == "builtins" and base not in own]
    assert str(kind("text")) == "text"


def test_a_compiled_network_raises_the_same_words() -> None:
    class Network(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.ndim != 4:
                raise InputError(f"image has {image.ndim} axes: expected 4")
            return image

    network = torch.jit.script(Network())
    assert network(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 2, 2)
    with pytest.raises(torch.jit.Error, match="InputError: image has 2 axes: expected 4"):
        network(torch.zeros(2, 2))


def python_s_own(path: Path) -> list[str]:
    """Each `raise` of an error of Python's own, which would show as a mistake in the program."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        call = node.exc if isinstance(node, ast.Raise) else None
        name = getattr(getattr(call, "func", call), "id", "")
        if name != "NotImplementedError" and hasattr(builtins, name):
            found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {name}")
    return found


def test_every_error_that_the_package_raises_is_of_its_own_kinds() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    assert [line for path in paths for line in python_s_own(path)] == []


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
        assert error_display._without_user_traceback(record)
        assert bool(record.exc_info) is has_traceback


@pytest.mark.parametrize(("variable", "has_traceback"), [("", False), ("1", True)])
def test_stats_handler_logs_no_traceback_of_a_user_error(
    variable: str,
    has_traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its logger has an output of its own, beside those of the root."""
    monkeypatch.setenv(error_display.TRACEBACK, variable)
    logger = get_logger(error_display.STATS)
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(sys.stdout)])
    error_display.hide_user_tracebacks()
    engine = Engine(lambda engine, batch: refused())
    StatsHandler(iteration_log=False).attach(engine)
    with pytest.raises(UserError):
        engine.run([0])
    printed = capsys.readouterr().out
    assert "Exception: " in printed and ("Traceback" in printed) is has_traceback


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_text_of_a_file_holds_cannot_break_a_message_into_lines(kind: type) -> None:
    text = "a UID of 1.2\n3, \r\x1b[2J, \u2028 and \udcff"
    shown = "a UID of 1.2\\n3, \\r\\x1b[2J, \\u2028 and \\udcff"
    if issubclass(kind, error_display.ListedErrors):
        shown = shown.replace("\\n", "\n")
    assert str(kind(text)) == shown
    if issubclass(kind, OSError):
        assert str(kind(2, text, "a")) == f"[Errno 2] {shown}: 'a'"
    shown.encode()


def test_errors_that_were_raised_from_each_other_are_each_seen_once() -> None:
    """MONAI's error of a writer was raised from its error, and that again from MONAI's."""
    one, other = KeyError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert list(error_display.chain(one)) == [one, other]
    assert error_display.cause(other) is one
