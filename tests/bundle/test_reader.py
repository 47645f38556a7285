"""What the package reads off MONAI's own frames: a test that fails here means that MONAI moved."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from ldseg_monai.bundle import reader
from ldseg_monai.bundle.reader import FIND_BUNDLE_ROOT, Reader, find_reader, make_importable

TARGET = {"_target_": "ldseg_monai.bundle.reader.find_reader"}
FOUND: list[Reader] = []
ROOTS: list[str] = []


def keep(found: Reader, root: str) -> None:
    FOUND.append(found)
    ROOTS.append(root)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config whose `initialize` finds out who reads it."""
    FOUND.clear()
    ROOTS.clear()
    monkeypatch.setattr(reader, "keep", keep, raising=False)
    content = {
        "imports": ["$import traceback"],
        "seed": 0,
        "found": TARGET,
        "root": FIND_BUNDLE_ROOT,
        "initialize": [
            {"_target_": "ldseg_monai.bundle.reader.keep", "found": "@found", "root": "@root"}
        ],
        "run": ["$@seed"],
    }
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    path = tmp_path / "mine" / "configs" / "config.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_nobody_reads_a_config() -> None:
    assert find_reader() == Reader(None, None)


def test_reader_of_a_config_alone_is_its_parser() -> None:
    parser = ConfigParser({"found": TARGET, "list": ["@found"]})
    assert parser.get_parsed_content("list")[0] == Reader(parser, None)
    inner = ConfigParser({"found": TARGET})
    outer = ConfigParser({"found": lambda: inner.get_parsed_content("found"), "call": "$@found()"})
    assert outer.get_parsed_content("call").parser is inner


def test_reader_of_a_workflow_is_its_parser(config: str) -> None:
    workflow = ConfigWorkflow(config_file=config, logging_file=False, seed=3)
    workflow.initialize()
    assert FOUND == [Reader(workflow.parser, None)] and FOUND[0].parser["seed"] == 3


def test_reader_of_a_command_has_the_names_that_were_given(config: str, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"seed": 1, "absent": 2}))
    given: dict[str, Any] = {"config_file": config, "args_file": str(arguments), "seed": 3}
    monai.bundle.run(logging_file=False, **given)
    (found,) = FOUND
    assert found.parser is not None and found.parser["seed"] == 3
    expected = {"config_file": config, "seed": 3, "absent": 2}
    assert found.command is not None and expected.items() <= found.command.items()


def test_expression_finds_the_folder_of_the_bundle(config: str) -> None:
    workflow = ConfigWorkflow(config_file=config, logging_file=False)
    workflow.initialize()
    assert ROOTS == [str(Path(config).parents[1])]
    alone = ConfigParser({"imports": ["$import traceback"], "root": FIND_BUNDLE_ROOT})
    assert alone.get_parsed_content("root") == "."


def test_folder_is_importable_once_and_hides_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    monkeypatch.chdir(tmp_path)
    make_importable(tmp_path, ".")
    assert sys.path == [*before, str(tmp_path)]
