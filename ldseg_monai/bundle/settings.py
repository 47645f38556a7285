"""What a training knows of its own config: what a checkpoint would restore, and what comes next."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple

from ldseg_monai.bundle.components import dependencies, has_id
from ldseg_monai.bundle.names import KINDS, SECTIONS
from ldseg_monai.bundle.reader import find_reader

# Where a run is and by how many processes, which changes nothing of it.
PLACES = {
    "bundle_root",
    "device",
    "network",
    "output_dir",
    "processes",
    "save_execute_config",
    "threads",
}
# Which a checkpoint's weights replace
START = ("initial_weights", "partial_weights", "imagenet_weights")
# What only the training takes.
OF_TRAINING = {*START, "output_dir", "run_id", "tracking"}


def run_settings(restored: Sequence[str], without: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Give the values of the config that is being read, for a checkpoint to be compared by.

    A component of a config, for `ldseg_monai.training.ResumableCheckpoint`.

    Args:
        restored: ids whose effect a checkpoint restores, whatever their values are, such as the
            optimizer; the weights that a run starts from are among them. What they refer to is
            included, and what that refers to.
        without: ids that are followed no further.

    Returns:
        Values by id: ``restored``, and ``used`` of all others. Both are empty where no config is
        being read.
    """
    parser, _ = find_reader()
    if parser is None:
        return {"restored": {}, "used": {}}
    known = [name for name in (*restored, *START) if has_id(parser, name)]
    items = dependencies(parser, known, without)
    kept = {name: value for item in items for name, value in _values(items[item], item)}
    others: dict[str, Any] = {}
    for name, content in parser.get().items():
        if name not in SECTIONS | PLACES | {"tensorboard_dir", "tensorboard", KINDS}:
            others |= dict(_values(content, name))
    used = {name: value for name, value in others.items() if name not in kept}
    return {"restored": kept, "used": used}


def next_command(bundle_root: str, output_dir: str) -> str:
    """Give the command that scores what the training that is being read will write.

    Args:
        bundle_root: folder of the bundle.
        output_dir: of the training.

    Returns:
        The command; "" where a client trains, or the bundle has no ``evaluate.yaml``.
    """
    _, command = find_reader()
    evaluate = Path(bundle_root, "configs", "evaluate.yaml")
    if command is None or not evaluate.is_file():
        return ""
    files = [str(path) for path in ensure_tuple(command.pop("config_file"))]
    arguments = {*inspect.signature(ConfigWorkflow).parameters} - {"override"}
    parts = [f'python -m monai.bundle run --config_file "{[*files, str(evaluate)]}"']
    values = {name: command[name] for name in command if name not in arguments | OF_TRAINING}
    values |= {"model_path": f"{output_dir}/model.pt", "output_dir": f"{output_dir}/scores"}
    for name, value in (values | {"part": "val"}).items():
        text = value if isinstance(value, str) else repr(value)
        parts.append(f"--{name} {shlex.quote(text)}")
    return " ".join(parts)


def _values(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The plain values in a config's content, by their ids; a list of plain values is one."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _values(value, f"{name}#{key}")
    elif isinstance(content, list) and not all(map(_is_plain, content)):
        for index, value in enumerate(content):
            yield from _values(value, f"{name}#{index}")
    elif isinstance(content, list) or _is_plain(content):
        yield name, content


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))
