"""A config as a tree whose comments and layout stay when it is written again (ruamel.yaml)."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.emitter import Emitter
from yaml import ScalarNode
from yaml.resolver import Resolver

TEXT = "tag:yaml.org,2002:str"
WIDTH = 120
UNWRAPPED = 100_000  # ruamel.yaml breaks lines anywhere, within a list of three numbers too


def load_config(text: str) -> Any:
    """Read a config; its mappings and lists know their comments, and whether they are in braces."""
    return _yaml().load(text)


def dump_config(config: Any) -> str:
    """Write a config as the bundles' are written.

    What stands in braces is on one line, or wrapped at its commas.
    """
    file = StringIO()
    _yaml().dump(config, file)
    lines: list[str] = []
    for line in file.getvalue().splitlines():
        lines += wrapped(line)
    return "\n".join(lines) + "\n"


class _Emitter(Emitter):
    """Writes a comment two spaces behind what it is on, however long that has become."""

    def write_comment(self, comment: Any, pre: bool = False) -> None:
        if comment.value.startswith("#") and self.column and not pre:
            comment.start_mark.column = self.column + 2
        super().write_comment(comment, pre)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Emitter = _Emitter
    yaml.width = UNWRAPPED
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _null)
    yaml.representer.add_representer(str, _text)
    return yaml


def _null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _text(representer: Any, value: str) -> Any:
    """A text in quotes where MONAI's reader (PyYAML, YAML 1.1) would take it for something else."""
    tag = Resolver().resolve(ScalarNode, value, (True, False))
    style = None if tag == TEXT else "'"
    return representer.represent_scalar(TEXT, value, style=style)


def wrapped(line: str, width: int = WIDTH) -> Iterator[str]:
    """Break a line that is too long at the commas of its braces or brackets.

    Further lines begin two columns in from its content. It is broken between the entries of the
    outermost pair, and within an entry only if that alone is too long. A comment does not count.
    """
    opening = next((index for index, _, depth in _flow_marks(line) if depth == 1), None)
    if opening is None or line.lstrip().startswith("#"):
        yield line
        return
    content = line.lstrip(" -")
    margin = " " * (len(line) - len(content) + 2)
    current = ""
    for entry in _entries(line, depth=1):
        if _fits(current + entry, width):
            current += entry
            continue
        if current:
            yield current.rstrip()
        current = margin + entry if current else entry
        if _fits(current, width):
            continue
        *whole, current = _filled(current, margin, width)
        yield from whole
    yield current


def _filled(text: str, margin: str, width: int) -> Iterator[str]:
    """The lines of one entry that is too long, broken between its own entries."""
    current = ""
    for entry in _entries(text, depth=None):
        if current and not _fits(current + entry, width):
            yield current.rstrip()
            current = margin
        current += entry
    yield current


def _fits(text: str, width: int) -> bool:
    return len(text.split("  # ")[0].rstrip()) <= width


def _entries(line: str, depth: int | None) -> Iterator[str]:
    """A line's text cut after each comma and space at a depth of braces; None for any depth."""
    start = 0
    for index, mark, at in _flow_marks(line):
        if mark == "," and depth in (at, None) and line[index : index + 2] == ", ":
            yield line[start : index + 2]
            start = index + 2
    yield line[start:]


def _flow_marks(line: str) -> Iterator[tuple[int, str, int]]:
    """Each brace, bracket and comma outside of quotes and comments: place, itself, how deep."""
    depth, quote = 0, ""
    for index, letter in enumerate(line):
        if quote:
            if letter == quote and line[index - 1] != "\\":
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and line[index - 1 : index] in ("", " "):
            return
        elif letter in "{[":
            depth += 1
            yield index, letter, depth
        elif letter in "]}":
            yield index, letter, depth
            depth -= 1
        elif letter == ",":
            yield index, letter, depth
