"""The bundles of the repository by their kinds: what costs much is tested with one bundle of each."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Hashable
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "bundles"
QUICK = "ldseg_glas"  # whose trainings take least
BUNDLES = sorted(
    (path.name for path in FOLDER.glob("[!._]*") if path.is_dir()),
    key=lambda name: (name != QUICK, name),
)

COSTLY_FIXTURES = {"trained"}  # and those made of them

Kind = Callable[[str], Hashable]


@functools.cache
def dims(bundle: str) -> int:
    """Dimensions of a bundle's images."""
    metadata = json.loads((FOLDER / bundle / "configs" / "metadata.json").read_text())
    return len(metadata["network_data_format"]["inputs"]["image"]["spatial_shape"])


@functools.cache
def network(bundle: str) -> str:
    """What learns and segments."""
    config = yaml.safe_load((FOLDER / bundle / "configs" / "inference.yaml").read_text())
    return config["network_def"]["_target_"]


def method(bundle: str) -> tuple[str, int]:
    """The network, and the dimensions of its images."""
    return network(bundle), dims(bundle)


@functools.cache
def geometry(bundle: str) -> tuple[int, bool]:
    """What happens to an image's grid: its dimensions, and whether it is resized."""
    text = (FOLDER / bundle / "configs" / "inference.yaml").read_text()
    return dims(bundle), "_target_: Resized" in text


def alike(bundle: str) -> None:
    """All bundles are of one kind."""


def first_of_each(kind: Kind, bundles: list[str] = BUNDLES) -> list[str]:
    """The first bundle of each kind, in the order given."""
    firsts: dict[Hashable, str] = {}
    for bundle in bundles:
        firsts.setdefault(kind(bundle), bundle)
    return list(firsts.values())


def is_repeated(item: pytest.Item) -> bool:
    """Whether a costly test is of a bundle whose kind an earlier bundle stands for.

    Costly are the tests marked so, the kind being what the mark has as `by`, and those of
    COSTLY_FIXTURES.
    """
    mark = item.get_closest_marker("costly")
    if mark is None and not COSTLY_FIXTURES & set(getattr(item, "fixturenames", ())):
        return False
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else []
    bundles = {value for value in parameters if isinstance(value, str)} & set(BUNDLES)
    kind = mark.kwargs.get("by", method) if mark else method
    return bool(bundles - set(first_of_each(kind)))
