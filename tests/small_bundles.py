"""Configs of the repository's bundles with networks small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).parents[1] / "bundles"


def write_config(folder: Path, bundle: str, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Write a config of a bundle with changes, by id, below the ``configs`` of another folder.

    Returns:
        Its content.
    """
    parser = ConfigParser(ConfigParser.load_config_file(str(BUNDLES / bundle / "configs" / name)))
    parser.update(changes)
    content: dict[str, Any] = {key: value for key, value in parser.get().items() if key != "_meta_"}
    path = folder / "configs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return content
