"""The count of config lines, on files whose lines are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.config_lines import MAIN, table


def test_lines_that_say_something_are_counted_and_equal_ones_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        configs = tmp_path / name / "configs"
        (configs / "ablations").mkdir(parents=True)
        for file in MAIN:
            (configs / file).write_text(
                "# head\n\nseed: 0  # of all\nnetwork:\n  seed: 0  # of all\n"
            )
        (configs / "ablations" / "other.yaml").write_text(f"seed: {len(name)}\nof: {name}\n")
    printed = table(tmp_path)
    assert "| train.yaml | 3 | 3 |" in printed
    assert "main configs: 36 lines in 12 files, 2 distinct" in printed
    assert "all configs: 40 lines in 14 files, 5 distinct" in printed


def test_a_folder_without_bundles_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder of bundles"):
        table(tmp_path)
