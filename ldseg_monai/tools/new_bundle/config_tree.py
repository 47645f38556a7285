"""Changes of a config that is a tree: the comments and the layout of the rest stay.

`load_config` reads such a tree, and `dump_config` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.tokens import CommentToken

from ldseg_monai.runtime.errors import InputError
from ldseg_monai.tools.new_bundle.yaml_text import load_config

# Values by key


def set_value(config: CommentedMap, key: str, value: Any, comment: str | None = None) -> None:
    """Give a key that is there another value, and another comment, or the one that it has.

    Raises:
        InputError: if there is no such key.
    """
    if key not in config:
        raise InputError(f"the config has no {key}: expected the template's own layout")
    config[key] = _in_brackets(value)
    if comment is not None:
        below = _cut_lines_below(config, key)
        _set_token(config, key, f"# {comment}\n{below}")


def add_value(
    config: CommentedMap, key: str, value: Any, after: str | None, comment: str | None = None
) -> None:
    """Write a new key below another one, or first of all.

    Raises:
        InputError: if there is no such other key.
    """
    if after is not None and after not in config:
        raise InputError(f"the config has no {after}: expected the template's own layout")
    below = _cut_lines_below(config, after) if after is not None else ""
    position = 0 if after is None else list(config).index(after) + 1
    config.insert(position, key, _in_brackets(value))
    if comment is not None or below:
        _set_token(config, key, (f"# {comment}" if comment else "") + "\n" + below)


def rename_key(config: CommentedMap, key: str, new: str) -> None:
    """Call a key otherwise; its value, its comments and its place stay."""
    position, value, comments = list(config).index(key), config[key], config.ca.items.pop(key, None)
    del config[key]
    config.insert(position, new, value)
    if comments is not None:
        config.ca.items[new] = comments


def add_argument(component: CommentedMap, key: str, value: Any) -> None:
    """Give a component one more argument, before its last one.

    Lines below a component that is written as a block belong to its last argument.
    """
    component.insert(len(component) - 1, key, _in_brackets(value))


def set_comment_above(config: CommentedMap, key: str, comment: str | None) -> None:
    """Put another comment on the line above a key, or none."""
    keys = list(config)
    above = config[keys[keys.index(key) - 1]]
    if isinstance(above, CommentedMap) and not above.fa.flow_style():  # it would have the comment
        _cut_lines_below(above, next(reversed(above)))
    own = config.ca.items.setdefault(key, [None, None, None, None])
    own[1] = None if comment is None else [_token(f"# {comment}\n")]


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


def replace_items(config: Any, target: str, others: Sequence[Any]) -> None:
    """Put others in the place of every list item that is a component of a name; none to drop it."""
    for sequence in nodes(config):
        if not isinstance(sequence, list):
            continue
        for index in reversed(range(len(sequence))):
            if is_component(sequence[index], target):
                del sequence[index]
                for other in reversed(others):
                    sequence.insert(index, other)


def substitute(config: Any, old: str, new: str) -> None:
    """Replace a text in every text of a config."""
    for node in nodes(config):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in list(items):
            if isinstance(value, str) and old in value:
                node[key] = type(value)(value.replace(old, new))


def _in_brackets(value: Any) -> Any:
    """A plain list as one that is written in brackets."""
    if isinstance(value, list) and not isinstance(value, CommentedSeq):
        value = CommentedSeq(value)
        value.fa.set_flow_style()
    return value


def _cut_lines_below(config: CommentedMap, key: str) -> str:
    """Take the blank lines and comments between a value that is no component and the next key.

    They are a part of the comment that may be behind the value.
    """
    tokens = config.ca.items.get(key)
    if not tokens or tokens[2] is None:
        return ""
    line, _, below = tokens[2].value.partition("\n")
    _set_token(config, key, f"{line}\n")
    return below


def _set_token(config: CommentedMap, key: str, text: str) -> None:
    """Write what is behind a value: a comment or nothing, the line's end, and lines below."""
    tokens = config.ca.items.setdefault(key, [None, None, None, None])
    tokens[2] = _token(text) if text.strip() or text.count("\n") > 1 else None


def _token(text: str) -> CommentToken:
    return CommentToken(text, start_mark=CommentMark(0))
