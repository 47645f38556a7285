"""What tests of the commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from workplace import restored_process


@pytest.fixture
def process_left_as_it_was() -> Iterator[None]:
    with restored_process():
        yield
