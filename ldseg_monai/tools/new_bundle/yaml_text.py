"""A config as a tree whose comments and layout stay when it is written again (ruamel.yaml)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.error import CommentMark
from ruamel.yaml.tokens import CommentToken

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


# Values by key


def set_value(config: CommentedMap, key: str, value: Any, comment: str | None = None) -> None:
    """Give a key that is there another value, and another comment, or the one that it has.

    Raises:
        KeyError: if there is no such key.
    """
    if key not in config:
        raise KeyError(f"no {key}")
    _carry_tail(config[key], value)
    config[key] = _in_brackets(value)
    if comment is not None:
        config.ca.items.pop(key, None)
        config.yaml_add_eol_comment(comment, key)


def add_value(
    config: CommentedMap, key: str, value: Any, after: str | None, comment: str | None = None
) -> None:
    """Write a new key below another one, or first of all.

    Raises:
        KeyError: if there is no such other key.
    """
    if after is not None and after not in config:
        raise KeyError(f"no {after}")
    position = 0 if after is None else list(config).index(after) + 1
    config.insert(position, key, _in_brackets(value), comment)


def rename_key(config: CommentedMap, key: str, new: str) -> None:
    """Call a key otherwise; its value, its comments and its place stay."""
    position, value, comments = list(config).index(key), config[key], config.ca.items.pop(key, None)
    del config[key]
    config.insert(position, new, value)
    if comments is not None:
        config.ca.items[new] = comments


def add_argument(component: CommentedMap, key: str, value: Any) -> None:
    """Give a component in braces one more argument, before its last one.

    What follows the closing brace, such as a comment on the next component, belongs to the last.
    """
    component.insert(len(component) - 1, key, _in_brackets(value))


def set_comment_above(config: CommentedMap, key: str, comment: str | None) -> None:
    """Put another comment on the line above a key that is below a component in braces, or none."""
    keys = list(config)
    above = config[keys[keys.index(key) - 1]]
    last = next(reversed(above))
    above.ca.items.pop(last, None)
    if comment is not None:
        above.ca.items[last] = [None, None, _token(f"\n# {comment}\n"), None]


# Components


def component(text: str) -> Any:
    """A component from its text, such as ``{_target_: Resized, keys: image}``."""
    return load_config(text)


def nodes(config: Any) -> Iterator[Any]:
    """Every mapping and list of a config."""
    if isinstance(config, dict):
        yield config
        for value in config.values():
            yield from nodes(value)
    elif isinstance(config, list):
        yield config
        for value in config:
            yield from nodes(value)


def components(config: Any, target: str) -> list[CommentedMap]:
    """Every component of a name, whatever the package that it is in."""
    return [node for node in nodes(config) if is_component(node, target)]


def is_component(node: Any, target: str) -> bool:
    """Whether a node is a component of a name."""
    return isinstance(node, dict) and str(node.get("_target_")).rpartition(".")[2] == target


def replace_items(
    config: Any, target: str, others: Sequence[Any], where: Callable[[Any], bool] = bool
) -> int:
    """Put others in the place of every list item that is a component of a name; none to drop it.

    Args:
        config: the config.
        target: name of the component.
        others: the new items.
        where: which of them; all if not given.

    Returns:
        How many there were.
    """
    count = 0
    for sequence in nodes(config):
        if not isinstance(sequence, list):
            continue
        for index in reversed(range(len(sequence))):
            if is_component(sequence[index], target) and where(sequence[index]):
                count += 1
                del sequence[index]
                for other in reversed(others):
                    sequence.insert(index, other)
    return count


def substitute(config: Any, old: str, new: str) -> None:
    """Replace a text in every text of a config."""
    for node in nodes(config):
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            if isinstance(value, str) and old in value:
                node[key] = type(value)(value.replace(old, new))


def _in_brackets(value: Any) -> Any:
    """A plain list as one that is written in brackets."""
    if isinstance(value, list) and not isinstance(value, CommentedSeq):
        value = CommentedSeq(value)
        value.fa.set_flow_style()
    return value


def _carry_tail(old: Any, new: Any) -> None:
    """Let what follows the closing brace of a component follow that in its place, too."""
    if not (isinstance(old, CommentedMap) and isinstance(new, CommentedMap) and old):
        return
    tail = old.ca.items.get(next(reversed(old)))
    if tail is not None:
        new.ca.items[next(reversed(new))] = tail


def _token(text: str) -> CommentToken:
    return CommentToken(text, start_mark=CommentMark(0))


# Layout


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
    return yaml


def _null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


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
