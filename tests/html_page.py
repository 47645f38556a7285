"""An HTML page as a browser would take it apart."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

LOADING = ("src", "href", "srcset", "data", "poster", "action", "background", "xlink:href")
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, text and tables of a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.titles: list[str] = []  # what is shown on hover
        self.style = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == [], "a tag is left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "title" and "svg" in self.open:
            self.titles.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
        elif self.open[-1:] == ["title"] and "svg" in self.open:
            self.titles[-1] += data
        else:
            self.text += data
            if {"td", "th"} & set(self.open):
                self.tables[-1][-1][-1] += data

    def images(self) -> dict[str, np.ndarray]:
        """Every picture, decoded, by its alternative text."""
        pictures = {}
        for attributes in (attributes for tag, attributes in self.tags if tag == "img"):
            kind, _, data = (attributes["src"] or "").partition("base64,")
            assert kind == "data:image/png;"
            alt = attributes["alt"]
            assert alt and alt not in pictures
            pictures[alt] = np.asarray(
                Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            )
        return pictures

    def links(self) -> list[str]:
        """Where its links lead to, in order."""
        return [attributes["href"] or "" for tag, attributes in self.tags if tag == "a"]

    def loaded(self) -> list[str]:
        """What a browser would fetch for it, or run."""
        values = [
            value or ""
            for tag, attributes in self.tags
            for name, value in attributes.items()
            if name in LOADING and not (tag == "a" and name == "href")  # which waits for a click
        ]
        wanted = [value for value in values if not value.startswith("data:")]
        styles = [self.style, *(attributes.get("style") or "" for _, attributes in self.tags)]
        wanted += [style for style in styles if "url(" in style or "@import" in style]
        wanted += [
            tag
            for tag, _ in self.tags
            if tag in ("script", "link", "iframe", "object", "embed", "base")
        ]
        return wanted + [
            name for _, attributes in self.tags for name in attributes if name.startswith("on")
        ]
