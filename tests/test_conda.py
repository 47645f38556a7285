"""The conda recipe says what setup.cfg does."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

import pytest
import yaml

from ldseg_monai import __version__

ROOT = Path(__file__).parents[1]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # other names in conda-forge


@pytest.fixture
def recipe() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docs" / "conda" / "recipe.yaml").read_text())


@pytest.fixture
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def conda(requirement: str) -> str:
    """A requirement of pip as conda writes it."""
    name, *bound = requirement.split()
    return " ".join([CONDA.get(name, name), "".join(bound)]).strip()


def test_packages_and_version_are_those_of_setup(
    recipe: dict[str, Any], setup: configparser.ConfigParser
) -> None:
    assert recipe["context"]["version"] == __version__
    needs = setup["options"]["install_requires"].split("\n")[1:]
    python, *run = recipe["requirements"]["run"]
    assert run == [conda(need) for need in needs]
    least = setup["options"]["python_requires"].removeprefix(">=").strip()
    assert recipe["context"]["python_min"] == least and python == "python >=${{ python_min }}"
    assert recipe["about"]["license"] == setup["metadata"]["license"]
    assert recipe["about"]["summary"] == setup["metadata"]["description"]


def test_command_is_that_of_setup(recipe: dict[str, Any], setup: configparser.ConfigParser) -> None:
    entries = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    assert recipe["build"]["python"]["entry_points"] == entries


def test_limits_of_extras_are_those_of_setup(
    recipe: dict[str, Any], setup: configparser.ConfigParser
) -> None:
    dicom = setup["options.extras_require"]["dicom"].replace("[libjpeg]", "").split("\n")[1:]
    assert recipe["requirements"]["run_constraints"] == [conda(need) for need in dicom]
