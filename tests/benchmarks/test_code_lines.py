from __future__ import annotations

from pathlib import Path

import pytest
from programs import tables

from benchmarks import code_lines

SOURCE = '''"""Head,
of two lines."""

import os  # why


def evens(numbers):
    """Some."""
    # all of them
    text = """a

    b"""
    return [n for n in {n for n in numbers}]
'''


def test_code_is_counted_without_docstrings_comments_and_indentation() -> None:
    lines = ["import os  # why", "def evens(numbers):", 'text = """a', "", 'b"""']
    lines.append("return [n for n in {n for n in numbers}]")
    counted = code_lines.count(SOURCE)
    assert counted == (len(lines), sum(map(len, lines)), 2)


def test_table_has_each_folder_and_the_whole(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "part").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "part" / "one.py").write_text("x = 1\n")
    (package / "part" / "two.py").write_text("y = [i for i in x]\n")
    (rows,) = tables(code_lines.table(package))
    assert [list(row.values()) for row in rows] == [
        [".", "0", "0.0", "0.0"],
        ["part", "2", "11.5", "50.0"],
        ["all of package", "2", "11.5", "50.0"],
    ]


def test_a_folder_without_code_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a package"):
        code_lines.table(tmp_path)
