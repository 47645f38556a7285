"""How full the lines of some code are: characters a line, and comprehensions per 100 lines.

    python -m benchmarks.code_lines [FOLDER ...]

Blank lines and lines of nothing but a comment or a docstring do not count, nor does indentation.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import command, report

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


class Count(NamedTuple):
    """Lines of code, their characters, and the comprehensions in them."""

    lines: int
    characters: int
    comprehensions: int


def count(source: str) -> Count:
    """Count the code of a Python file."""
    tree = ast.parse(source)
    numbers = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            numbers |= set(range(token.start[0], token.end[0] + 1))
    for first, last in docstrings(tree):
        numbers -= set(range(first, last + 1))
    lines = source.splitlines()
    code = [lines[number - 1].strip() for number in sorted(numbers)]
    comprehensions = [node for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS)]
    return Count(len(code), sum(map(len, code)), len(comprehensions))


def docstrings(tree: ast.AST) -> Iterable[tuple[int, int]]:
    """First and last line of each docstring."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            text = body[0].value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield text.lineno, text.end_lineno or text.lineno


def count_files(paths: Iterable[Path]) -> Count:
    """Count the code of some files together."""
    total = Count(0, 0, 0)
    for path in paths:
        total = Count(*map(sum, zip(total, count(path.read_text()), strict=True)))
    return total


def table(folder: Path) -> str:
    """A row for each folder in a package, and one for the whole.

    Raises:
        FileNotFoundError: if there is no code.
    """
    files = sorted(folder.rglob("*.py"))
    if not files:
        raise FileNotFoundError(f"no Python files in {folder}: expected a package")
    parts: dict[str, list[Path]] = {}
    for path in files:
        first, *rest = path.relative_to(folder).parts
        parts.setdefault(first if rest else ".", []).append(path)
    rows = []
    for name, paths in {**parts, f"all of {folder.name}": files}.items():
        own = count_files(paths)
        lines = max(own.lines, 1)  # an empty file has none
        row = {"folder": name, "lines": str(own.lines)}
        row["characters a line"] = f"{own.characters / lines:.1f}"
        row["comprehensions per 100 lines"] = f"{100 * own.comprehensions / lines:.1f}"
        rows.append(row)
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table of each folder."""
    parser = command.argument_parser(__doc__)
    parser.add_argument("folders", type=Path, nargs="*", default=[Path("ldseg_monai")])
    for folder in parser.parse_args(argv).folders:
        print(table(folder))


if __name__ == "__main__":
    main()
