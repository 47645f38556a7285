from __future__ import annotations

from pathlib import Path

import pytest
from programs import tables

from benchmarks import report
from benchmarks.speed import compiled
from benchmarks.speed.measure import Result


def test_ratios_are_to_the_network_as_it_is() -> None:
    results = {"as it is": Result({0: 2.0}), "torch.compile": Result({0: 1.0})}
    rows = tables(compiled.table(results))[0]
    assert [(row["network"], row["times as it is"]) for row in rows] == [
        ("as it is", "1"),
        ("torch.compile", "0.5"),
    ]


@pytest.mark.slow
def test_compiled_network_is_timed(tiny: list[str], tmp_path: Path) -> None:
    compiled.main(tiny)
    rows = tables((tmp_path / f"compiled_{report.processor_kind()}.md").read_text())[0]
    assert [row["network"] for row in rows] == list(compiled.MODES)
    assert all(row["runs"] == "2" for row in rows)
