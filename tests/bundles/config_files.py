"""The YAML files of the bundles: which there are, and which go on top of which."""

from __future__ import annotations

import re
from pathlib import Path

from monai.bundle import ConfigParser

from ldseg_monai.bundle.components import references

REPOSITORY = Path(__file__).parents[2]
STANDALONE = ("train.yaml", "inference.yaml")
CONFIGS = sorted((REPOSITORY / "bundles").glob("[!._]*/configs/**/*.yaml"))
OVERLAYS = [path for path in CONFIGS if path.name not in STANDALONE]


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY / "bundles"))


def load(*paths: Path) -> ConfigParser:
    """The merged, unparsed content of config files."""
    return ConfigParser(ConfigParser.load_config_files([str(path) for path in paths]))


def load_config(bundle: str, name: str) -> ConfigParser:
    return load(REPOSITORY / "bundles" / bundle / "configs" / name)


def reached(config: ConfigParser, *ids: str) -> set[str]:
    """What ids refer to, directly or by what they refer to; of a client's options, the options alone."""
    found: set[str] = set()
    waiting = list(ids)
    while waiting:
        for name in references(config[waiting.pop()]) - found:
            found.add(name)
            if not name.startswith("displayable_configs"):
                waiting.append(name)
    return found


def head(path: Path) -> list[str]:
    """The comment lines that a file begins with."""
    lines = path.read_text().splitlines()
    return lines[
        : next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    ]


def command(path: Path) -> str:
    """The command in a file's head."""
    commands = [line.lstrip("# ") for line in head(path) if "monai.bundle run" in line]
    assert len(commands) == 1, (
        f"{name_of(path)} should begin with comments, one of them its command, not {commands}"
    )
    return commands[0]


def bases(overlay: Path) -> list[Path]:
    """The files that an overlay goes on top of, as its command names them."""
    paths = [REPOSITORY / name for name in re.findall(r"[\w./-]+\.yaml", command(overlay))]
    assert paths[-1:] == [overlay], f"the command should end with this file, it names {paths}"
    assert paths[0].name in STANDALONE, (
        f"the command should begin with {' or '.join(STANDALONE)}, it names {paths}"
    )
    return paths[:-1]


def overlays_on(bundle: str, base: str) -> list[list[str]]:
    """For each overlay of a bundle on this base, the files of its command, as paths below configs/."""
    folder = REPOSITORY / "bundles" / bundle / "configs"
    stacks = [[*bases(path), path] for path in OVERLAYS if path.is_relative_to(folder)]
    return [
        [str(path.relative_to(folder)) for path in stack]
        for stack in stacks
        if stack[0].name == base
    ]
