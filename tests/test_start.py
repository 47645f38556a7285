"""What a start costs: nothing is imported that is not used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted(path.parent.name for path in (ROOT / "ldseg_monai").glob("*/__init__.py"))
# Packages, and parts of them, that only some commands need
HEAVY = [
    "SimpleITK",
    "highdicom",
    "jinja2",
    "matplotlib",
    "onnx",
    "pandas",
    "pydicom",
    "scipy.interpolate",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.spatial",
    "scipy.stats",
    "skimage",
    "tensorboard",
    "tifffile",
    "torch.utils.tensorboard",
]
IMPORTS = """
import importlib, json, sys
import monai.bundle
before = set(sys.modules)
found = {}
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    found[name] = sorted(set(sys.modules) - before)
print(json.dumps(found))
"""


def run(*arguments: str) -> str:
    """What a process of Python says that is given these arguments."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """What is there after each room, and those before it, beside what MONAI imports itself."""
    names = ["ldseg_monai", *(f"ldseg_monai.{room}" for room in ROOMS)]
    found: dict[str, list[str]] = json.loads(run("-c", IMPORTS, json.dumps(names)))
    return found


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_a_room_brings_nothing_heavy(imported: dict[str, list[str]], room: str) -> None:
    modules = imported[f"ldseg_monai.{room}".rstrip(".")]
    assert any(name.startswith("ldseg_monai") for name in modules)
    heavy = [name for name in modules if any(f"{name}.".startswith(f"{one}.") for one in HEAVY)]
    assert heavy == []


def test_command_line_is_read_before_torch_and_numpy_are_imported() -> None:
    lines = "from ldseg_monai.tools.cli import main; main(['export']); import sys, os"
    shown = "print({'torch', 'numpy', 'monai'} & set(sys.modules), os.environ['OMP_WAIT_POLICY'])"
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for policy, expected in ((None, "passive"), ("active", "active")):
        given = {"OMP_WAIT_POLICY": policy} if policy else {}
        done = subprocess.run(
            [sys.executable, "-c", f"{lines}; {shown}"],
            env={**variables, **given, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"set() {expected}\n"
        assert done.stderr.count("\n") == 1  # of the arguments that are missing


def test_the_package_hands_on_what_people_ask_for() -> None:
    import ldseg_monai
    from ldseg_monai.bundle import Bundle
    from ldseg_monai.clients.segmenter import Segmenter

    assert ldseg_monai.Bundle is Bundle and ldseg_monai.Segmenter is Segmenter
    assert not hasattr(ldseg_monai, "Segmentor")
