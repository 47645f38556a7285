from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

BUNDLES = sorted(path.name for path in (Path(__file__).parents[1] / "bundles").iterdir())


if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # as many threads as processes; those started by tests inherit it
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--realdata",
        type=Path,
        metavar="DIR",
        help="folder of real data; runs the tests marked realdata",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not config.getoption("--slow"):
        reasons["slow"] = "slow: run with --slow"
    if config.getoption("--realdata") is None:
        reasons["realdata"] = "needs real data: run with --realdata DIR"
    if not torch.cuda.is_available():
        reasons["gpu"] = "needs a GPU"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


class TogetherByBundle(LoadScopeScheduling):
    """Gives all tests of a bundle, and all others of a file, to one process: they share what takes long to make."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, name = nodeid.partition("::")
        return next(
            (bundle for bundle in BUNDLES if f"[{bundle}" in name or f"-{bundle}" in name), file
        )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How `pytest -n 2` shares out the tests."""
    return TogetherByBundle(config, log)


@pytest.fixture
def realdata(pytestconfig: pytest.Config) -> Path:
    """The folder of real data, one folder a data set."""
    return pytestconfig.getoption("--realdata")
