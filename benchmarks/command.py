"""What the command lines of the benchmarks share: a bundle, and a folder for the report."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldseg_monai.bundle import Bundle
from ldseg_monai.runtime.errors import show_errors_in_one_line
from ldseg_monai.runtime.ownership import make_folder
from ldseg_monai.runtime.signals import end_in_one_line

RESULTS = Path(__file__).parent / "results"
OWN = Path("runs", "benchmarks")  # of who measures, in the current folder, which git leaves alone


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that says the first line of a program's description.

    From now on an error that a person can put right ends the program in one line. So do Ctrl-C and
    SIGTERM, which also end the process that it runs, such as a training.
    """
    show_errors_in_one_line()
    end_in_one_line("benchmarks")
    return argparse.ArgumentParser(description=(description or "").split("\n")[0])


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the argument that all programs have: a bundle."""
    parser.add_argument(
        "bundle", type=bundle, help="folder of the bundle, or the name of one in ./bundles"
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add where the report goes; `folder_of` makes it."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--out", type=Path, help=f"folder for the report (default: {OWN.as_posix()}/BUNDLE)"
    )
    place.add_argument(
        "--record",
        action="store_true",
        help="write the report to benchmarks/results/BUNDLE of the repository, over the one there",
    )


def add_here(parser: argparse.ArgumentParser) -> None:
    """Add the option of a program that measures in processes of its own: see `measured_apart`."""
    parser.add_argument(
        "--here", action="store_true", help="measure in this process and print seconds as JSON"
    )


def measured_apart(program: str, argv: Sequence[str] | None, environment: Mapping[str, str]) -> Any:
    """Run a program again with ``--here``, and return what it prints as JSON in its last line.

    Args:
        program: name of the module below benchmarks, such as ``speed.waiting``.
        argv: its arguments; None for this process's own.
        environment: variables of the new process.
    """
    bundle, *options = sys.argv[1:] if argv is None else argv
    line = [sys.executable, "-m", f"benchmarks.{program}", bundle, "--here", *options]
    done = subprocess.run(
        line, env=dict(environment), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def bundle(text: str) -> Bundle:
    """The bundle that an argument names.

    Raises:
        argparse.ArgumentTypeError: if there is none.
    """
    try:
        return Bundle.find(text)
    except FileNotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def file_to_write(text: str) -> Path:
    """The file that an argument names, in a folder that is there.

    Raises:
        argparse.ArgumentTypeError: if its folder is not there.
    """
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is no folder: expected one; make it first")
    return path


def folder_of(arguments: argparse.Namespace) -> Path:
    """The folder for the report, made where missing; of a parser with `add_bundle`, `add_out`."""
    place = RESULTS if arguments.record else OWN
    folder: Path = arguments.out or place / arguments.bundle.name
    make_folder(folder)
    return folder
