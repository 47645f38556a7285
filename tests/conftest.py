"""How all tests run: with which threads, which of them, and which process runs which."""

from __future__ import annotations

import os

# Before PyTorch is loaded, which reads both then; the processes that tests start inherit them. One
# thread each: two processes share two cores, and another number of threads rounds otherwise. A
# thread that waits for others sleeps: on a busy machine, spinning takes longer than the work.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bundle_kinds import BUNDLES, is_repeated
from xdist.scheduler import LoadScopeScheduling


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--realdata",
        type=Path,
        metavar="DIR",
        help="folder of real data; runs the tests marked realdata",
    )


# Files whose tests take most, beside those of the bundles.
LONGEST = (
    "tests/tools/test_export.py",
    "tests/benchmarks/accuracy/test_study.py",
    "tests/benchmarks/accuracy/test_cross_validation.py",
    "tests/clients/test_segmenter.py",
    "tests/tools/test_predict.py",
    "tests/tools/test_doors.py",
    "tests/tools/new_bundle/test_write.py",
    "tests/training/test_cdal_trainer.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest takes the tests that -m asks for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what costs much and another bundle shows; skip what is not asked for.

    What takes longest comes first, so that no process has it at the end, when the others are done.
    """
    import torch  # which the process that only shares out the tests does not need

    reasons = {}
    if not config.getoption("--slow"):
        reasons["slow"] = "slow: run with --slow"
    if config.getoption("--realdata") is None:
        reasons["realdata"] = "needs real data: run with --realdata DIR"
    if not torch.cuda.is_available():
        reasons["gpu"] = "needs a GPU"
    for item in items:
        if is_repeated(item):
            item.add_marker("slow")
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(
        key=lambda item: (not item.nodeid.startswith(LONGEST), scope(item.nodeid) not in BUNDLES)
    )


def scope(nodeid: str) -> str:
    """The bundle that a test is of, or its file."""
    file, _, name = nodeid.partition("::")
    return next(
        (bundle for bundle in BUNDLES if f"[{bundle}" in name or f"-{bundle}" in name), file
    )


class TogetherByBundle(LoadScopeScheduling):
    """Gives all tests of a bundle, and all others of a file, to one process: they share what takes long to make."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How `pytest -n 2` shares out the tests."""
    config.option.loadscopereorder = False  # by their number, which says little of their time
    return TogetherByBundle(config, log)


@pytest.fixture
def realdata(pytestconfig: pytest.Config) -> Path:
    """The folder of real data, one folder a data set."""
    return pytestconfig.getoption("--realdata")


@pytest.fixture(scope="session", autouse=True)
def configs_are_parsed_once() -> Iterator[None]:
    """Keep what MONAI makes of a config's text and of its own modules, a tenth of a second each time.

    Tests read few texts, often.
    """
    from monai.bundle import ConfigParser
    from monai.bundle.config_item import ComponentLocator

    parse, find = ConfigParser.load_config_file, ComponentLocator._find_classes_or_functions
    parsed: dict[tuple[str, str], bytes] = {}
    found: dict[tuple[str, ...], dict[str, list]] = {}

    def load(filepath: Any, **options: Any) -> dict[str, Any]:
        path = Path(filepath)
        if options or not path.is_file():
            return parse(filepath, **options)
        key = (path.suffix, path.read_text())
        if key not in parsed:
            parsed[key] = pickle.dumps(parse(filepath))
        return pickle.loads(parsed[key])  # a copy, faster than by `copy.deepcopy`

    def find_once(self: ComponentLocator, modules: Sequence[str]) -> dict[str, list]:
        key = tuple(sorted(modules))
        if key not in found:
            found[key] = find(self, modules)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigParser, "load_config_file", staticmethod(load))
        patch.setattr(ComponentLocator, "_find_classes_or_functions", find_once)
        yield
