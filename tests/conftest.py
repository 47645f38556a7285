from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--realdata", type=Path, metavar="DIR", help="folder of real data; runs the tests marked realdata")


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


@pytest.fixture
def realdata(pytestconfig: pytest.Config) -> Path:
    """The folder of real data, one folder a data set."""
    return pytestconfig.getoption("--realdata")
