"""A bundle's YAML file as text, changed in places so that its comments and its layout stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


class ConfigText:
    r"""The text of a config written as the bundles' are: a knob a line, a component a block that its indentation ends.

    Args:
        text: the file's content.

    Attributes:
        lines: the content as it is now.

    Example:
        >>> config = ConfigText("seed: 0  # of all\nsteps:\n- _target_: Flip\n  axis: 0\n- _target_: Crop\n")
        >>> config.set_knob("seed", "3")
        >>> config.replace_components("Flip", [])
        1
        >>> print(config.text, end="")
        seed: 3  # of all
        steps:
        - _target_: Crop
    """

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    @property
    def text(self) -> str:
        """The content as one string."""
        return "\n".join(self.lines) + "\n"

    def has_knob(self, name: str) -> bool:
        """Whether there is a line `name: value` at the top level."""
        return any(line.startswith(f"{name}: ") for line in self.lines)

    def set_knob(self, name: str, value: str, comment: str | None = None) -> None:
        """Give a knob another value, as YAML writes it, and another comment, or the one that it has.

        Raises:
            KeyError: if there is no such knob.
        """
        for index, line in enumerate(self.lines):
            if line.startswith(f"{name}: "):
                kept = line[line.index("  # ") :] if "  # " in line else ""
                self.lines[index] = (
                    f"{name}: {value}{kept if comment is None else f'  # {comment}'}"
                )
                return
        raise KeyError(f"no knob {name}")

    def add_knob(self, name: str, value: str, comment: str, after: str) -> None:
        """Write a new knob below another one.

        Raises:
            KeyError: if there is no such other knob.
        """
        for index, line in enumerate(self.lines):
            if line.startswith(f"{after}: "):
                self.lines.insert(index + 1, f"{name}: {value}  # {comment}")
                return
        raise KeyError(f"no knob {after}")

    def replace_components(self, target: str, block: Sequence[str], where: str = "") -> int:
        """Put other lines in the place of each list item of a component; none to drop it.

        Args:
            target: the `_target_` of the items.
            block: lines without the list's indentation.
            where: text that an item has to hold.

        Returns:
            How many items there were.
        """
        return self._edit_components(target, where, lambda item: list(block))

    def add_after_components(self, target: str, block: Sequence[str], where: str = "") -> int:
        """Put lines below each list item of a component; arguments as of `replace_components`."""
        return self._edit_components(target, where, lambda item: [*item, *block])

    def replace_below(self, start: str, block: Sequence[str]) -> None:
        """Put other lines in the place of those below the line that starts with a text, as far as they are indented."""
        result: list[str] = []
        margin = ""
        for line in self.lines:
            if margin and line.startswith(margin):
                continue
            margin = ""
            result.append(line)
            if line.startswith(start):
                margin = " " * (len(line) - len(line.lstrip()) + 1)
                result += block
        self.lines = result

    def substitute(self, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> None:
        """Replace a regular expression in every line; the replacement may be of several lines."""
        self.lines = [
            part for line in self.lines for part in re.sub(pattern, replacement, line).split("\n")
        ]

    def drop_lines(self, start: str) -> None:
        """Drop every line that starts with a text."""
        self.lines = [line for line in self.lines if not line.startswith(start)]

    def _edit_components(
        self, target: str, where: str, edit: Callable[[list[str]], list[str]]
    ) -> int:
        result: list[str] = []
        index = count = 0
        while index < len(self.lines):
            start = re.match(rf"( *)- _target_: {re.escape(target)}(?=\s|$)", self.lines[index])
            end = index + 1
            if start:
                margin = start[1]
                while end < len(self.lines) and self.lines[end].startswith(margin + "  "):
                    end += 1
                item = [line[len(margin) :] for line in self.lines[index:end]]
                if where in "\n".join(item):
                    count += 1
                    result += [margin + line for line in edit(item)]
                    index = end
                    continue
            result += self.lines[index:end]
            index = end
        self.lines = result
        return count
