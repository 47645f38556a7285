"""What the command lines of the benchmarks share: a bundle, and a folder for the report."""

from __future__ import annotations

import argparse
from pathlib import Path

from ldseg_monai.bundle import Bundle

RESULTS = Path(__file__).parent / "results"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that says the first line of a program's description."""
    return argparse.ArgumentParser(description=(description or "").split("\n")[0])


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the argument that all programs have: a bundle."""
    parser.add_argument(
        "bundle", type=bundle, help="folder of the bundle, or the name of one in ./bundles"
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add where the report goes; `folder_of` makes it."""
    parser.add_argument(
        "--out", type=Path, help="folder for the report (default: benchmarks/results/BUNDLE)"
    )


def bundle(text: str) -> Bundle:
    """The bundle that an argument names.

    Raises:
        argparse.ArgumentTypeError: if there is none.
    """
    try:
        return Bundle.find(text)
    except FileNotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def folder_of(arguments: argparse.Namespace) -> Path:
    """The folder for the report, made where missing; of a parser with `add_bundle`, `add_out`."""
    folder: Path = arguments.out or RESULTS / arguments.bundle.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
