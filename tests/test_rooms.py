"""The rooms of the package, and which of them each may import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ldseg_monai"
MAY_IMPORT = {
    "runtime": set(),
    "diffusion": {"runtime"},
    "networks": {"runtime", "diffusion"},
    "data": {"runtime"},
    "training": {"networks", "diffusion", "data", "runtime"},
    "inference": {"networks", "diffusion", "data", "runtime"},
    "bundle": {"networks", "data", "runtime"},
    "evaluation": {"inference", "networks", "data", "bundle", "runtime"},
    "clients": {
        "runtime", "diffusion", "networks", "data", "training", "inference", "bundle", "evaluation",
    },
    "tools": {
        "runtime", "diffusion", "networks", "data", "training", "inference", "bundle", "evaluation",
        "clients",
    },
}  # fmt: skip
MODULES = sorted(PACKAGE.glob("*/**/*.py"))


def imported(path: Path, root: Path = PACKAGE) -> Iterator[str]:
    """The rooms that a module imports from, wherever in the module, its own included."""
    package = path.relative_to(root.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == PACKAGE.name and parts[1] in MAY_IMPORT:
                yield parts[1]


def test_nothing_lies_beside_the_rooms() -> None:
    modules = {path.name for path in PACKAGE.glob("*.py")}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules == {"__init__.py"}
    assert folders == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_what_it_may(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    wrong = {
        str(path.relative_to(PACKAGE)): sorted(set(imported(path)) - allowed)
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] == room
    }
    assert {path: rooms for path, rooms in wrong.items() if rooms} == {}


def test_imports_are_seen_however_they_are_written(tmp_path: Path) -> None:
    lines = [
        "import ldseg_monai.tools",
        "from ldseg_monai import training",
        "from ..bundle import x",
    ]
    path = tmp_path / "ldseg_monai" / "data" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines))
    assert sorted(imported(path, tmp_path / "ldseg_monai")) == ["bundle", "tools", "training"]


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_each_room_has_a_face_that_says_what_it_is(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    assert ast.get_docstring(tree)
