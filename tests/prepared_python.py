"""Commands of Python in processes of their own, from an interpreter that has imported MONAI already.

Importing it takes seconds, a small run of a test less. So one interpreter imports it once and is
forked for each command, whose process then has arguments, folder, environment, output, process
group and exit code of its own, as a new one has. What an import does, and the variables that
PyTorch reads then, do not show: where they matter, tests start an interpreter.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import IO

from monai.bundle import config_parser
from monai.bundle.config_parser import CheckKeyDuplicatesYamlLoader
from torch.distributed.launcher import api as launcher
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser
from yaml.resolver import Resolver

TORCHRUN = "torch.distributed.run"
PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(
    [
        "monai.bundle",
        "ldseg_monai.tools.cli",
        "ldseg_monai.training",
        "ldseg_monai.evaluation",
        "ldseg_monai.clients",
        "torch._dynamo",  # which an optimizer needs
        TORCHRUN,
        __name__,
    ]
)


class Command:
    """A running `python -m`, with what tests use of `subprocess.Popen`.

    Args:
        arguments: the module, and its own arguments.
        cwd: folder that it runs in; None for that of this process.
        env: its environment; None for that of this process.
        stdout: open file that it prints to, instead of `printed`.
        errors_apart: whether `printed` is without what goes to the standard error.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: IO | None = None,
        errors_apart: bool = False,
    ) -> None:
        self.args = arguments
        self._printed = stdout or self._new_file()
        self._errors = self._new_file() if errors_apart else self._printed
        outputs = (_path(self._printed), _path(self._errors))
        given = (arguments, cwd or Path.cwd(), dict(env or os.environ), outputs)
        self._process = PREPARED.Process(target=_serve, args=given)
        self._process.start()
        self.pid = self._process.pid

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.join()

    def _new_file(self) -> IO:
        file = tempfile.TemporaryFile("w+")
        weakref.finalize(self, file.close)
        return file

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._process.exitcode

    @property
    def printed(self) -> str:
        """What it printed so far."""
        return Path(_path(self._printed)).read_text()

    @property
    def errors(self) -> str:
        """What it wrote to the standard error so far."""
        return Path(_path(self._errors)).read_text()

    def poll(self) -> int | None:
        """`returncode`, by the name that `subprocess.Popen` has for it."""
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Its exit code, when it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout)
        return self.returncode

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for something that it does while it runs."""
        deadline = time.monotonic() + 300
        while not happened():
            assert self.returncode is None, f"it ended before {what}:\n{self.printed[-6000:]}"
            assert time.monotonic() < deadline, f"it runs without {what}"
            time.sleep(0.002)

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, and not to those that it started."""
        os.kill(self.pid, number)


def _start(arguments: Sequence[str], stdout: IO, stderr: int) -> Command:
    assert list(arguments[:2]) == [sys.executable, "-m"] and stderr == subprocess.STDOUT
    return Command(*arguments[2:], stdout=stdout)


def _run(
    arguments: Sequence[str], stdout: IO, stderr: int, check: bool
) -> subprocess.CompletedProcess:
    with _start(arguments, stdout, stderr) as command:
        done = subprocess.CompletedProcess(arguments, command.wait())
    if check:
        done.check_returncode()
    return done


# What programs that start commands of Python may take for the module `subprocess`.
LIKE_SUBPROCESS = SimpleNamespace(Popen=_start, run=_run, STDOUT=subprocess.STDOUT)


def _path(file: IO) -> str:
    """By which other processes open a file, that of no name too (Linux)."""
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _serve(
    arguments: tuple[str, ...], cwd: Path, env: dict[str, str], outputs: tuple[str, str]
) -> None:
    """What the process of a command does."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # to the system's own, also for its loaders
    for stream, path in enumerate(outputs, start=1):
        with open(path, "a") as file:
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ |= env
    os.chdir(cwd)
    if arguments[0] == TORCHRUN:
        # It starts an interpreter for each worker: here they are forked as well.
        launcher.elastic_launch = functools.partial(_launch, launcher.elastic_launch)
    _run_module(*arguments)


def _launch(launch: Callable, config: launcher.LaunchConfig, entrypoint: str) -> Callable:
    return launch(replace(config, start_method="fork"), _work)


def _work(*arguments: str) -> None:
    """What a worker does, given the arguments of an interpreter."""
    _run_module(*arguments[arguments.index("-m") + 1 :])


class _Loader(CParser, CheckKeyDuplicatesYamlLoader):
    """MONAI's loader with libyaml's parser, which reads a config in a seventh of the time."""

    def __init__(self, stream: IO) -> None:
        CParser.__init__(self, stream)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


def _run_module(module: str, *arguments: str) -> None:
    """What an interpreter does with `-m`, until it ends."""
    config_parser.CheckKeyDuplicatesYamlLoader = _Loader
    # Fire asks for the source of each frame, and uses none: half a second with MONAI's modules
    inspect.stack = functools.partial(inspect.stack, context=0)
    sys.argv[1:] = arguments
    sys.path[0] = os.getcwd()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
