"""The first thing that a bundle does: look at what it was given.

`python -m monai.bundle run` above all takes whatever it is given.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from ldseg_monai.bundle.arguments import NULLS, REFERS
from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.bundle.components import check_targets, has_id
from ldseg_monai.bundle.knobs import (
    EPOCHS,
    check_apart,
    check_epochs,
    check_output_dir,
    check_values,
    idle_knobs,
    keep_texts,
    use_threads,
)
from ldseg_monai.bundle.names import check_names
from ldseg_monai.bundle.reader import find_reader, make_importable
from ldseg_monai.bundle.tracking import check_tracking, mend_tracking, remove_executed
from ldseg_monai.data.datalist import find_cases, image_folder
from ldseg_monai.data.listed_cases import compare_channel_names
from ldseg_monai.networks.weights import require_weights
from ldseg_monai.runtime.errors import (
    InputError,
    UserError,
    show_errors_in_one_line,
)
from ldseg_monai.runtime.ownership import claim, place_of, require_own
from ldseg_monai.runtime.signals import end_in_one_line
from ldseg_monai.runtime.threads import finish_thread_pools

logger = logging.getLogger("ldseg_monai.bundle")

CURVES = "tensorboard_dir"
METADATA = "configs/metadata.json"


def check_command() -> None:
    """Check the config whose `initialize` calls this; nothing is written.

    PyTorch computes in as many threads as the knob `threads` says. From now on, a ``_target_`` can
    name what is in a Python file in the bundle's folder or beside a config. Values are checked
    whoever reads the config. Where it is a MONAI command (`monai.bundle.run`), the names of its
    overrides, of its overlays' keys and of its components are checked too, whether its
    `bundle_root` is the bundle's, its `output_dir` can be written to and is apart from its images,
    whether another command has it, whether it has files that are not this command's, and whether
    there are weights at its `model_path`; in a process that is nothing but this command, errors,
    Ctrl-C and SIGTERM show as one line from now on.

    Raises:
        InputError: for a knob that does not exist, a value that no run could use, another
            `bundle_root` than the bundle's, or an `output_dir` among the images.
        OSError: for an `output_dir` that cannot be written to, is in use or has files of others, or
            a missing `model_path`.
    """
    if getattr(sys.modules["__main__"].__spec__, "name", None) == "monai.bundle.__main__":
        show_errors_in_one_line()
        end_in_one_line()
        atexit.register(finish_thread_pools)
    parser, command = find_reader()
    if parser is None:
        return
    if "imports" in parser and parser["imports"] in NULLS:
        raise InputError(
            "imports is null, which the expressions of the config need: expected a list, such as "
            "[$import os]; leave it out to keep the bundle's own"
        )
    keep_texts(parser)
    files: list[str] = []
    if command is not None:
        files = [str(path) for path in ensure_tuple(command.pop("config_file"))]
        if "bundle_root" not in command:
            _set_bundle_root(parser, files)
    folders = [Path(file).parent for file in files]
    if "bundle_root" in parser:
        folders.insert(0, Path(parser.get_parsed_content("bundle_root")))
    make_importable(*folders)
    if command is None:
        check_values(parser)
        use_threads(parser)
        return
    epochs = command.get(EPOCHS, 1)
    if not str(epochs).startswith(REFERS):  # set by a client, and told by the knob's rule
        check_epochs(epochs)
    check_names(files, command, command.get("tracking"))
    _check_run(parser, command)
    _check_bundle_root(parser, files)
    check_targets(parser.config, folders)
    check_values(parser)
    use_threads(parser)
    _check_places(parser)
    _check_channel_names(parser)
    if command.get("tracking"):
        mend_tracking(parser)
        try:
            check_tracking(command["tracking"])
        except UserError:
            remove_executed(parser)
            raise
    idle = idle_knobs(parser, command)
    if idle and os.environ.get("RANK", "0") == "0":  # the processes are not joined yet
        logger.warning("knobs without effect here: %s", ", ".join(idle))
    _claim_output(parser, files, command)


def _check_run(parser: ConfigParser, command: Mapping[str, Any]) -> None:
    """Check that a command that says what is run runs something.

    Raises:
        InputError: for a value that is neither an expression nor a component.
    """
    for name in dict.fromkeys([str(command.get("run_id", "run")), "run"]):
        if name in command and not any(map(_does_something, ensure_tuple(parser[name]))):
            said = "null" if parser[name] in NULLS else repr(parser[name])
            raise InputError(
                f"{name} is {said}, by which nothing is run: expected an expression that runs "
                f"something; leave --{name} out to run what the config says"
            )


def _does_something(item: Any) -> bool:
    """Whether an item of what is run is an expression, or refers to one, or is a component."""
    if isinstance(item, str):
        return item.startswith(REFERS) and item not in NULLS
    return isinstance(item, dict) and "_target_" in item


def _set_bundle_root(parser: ConfigParser, files: Sequence[str]) -> None:
    """Let `bundle_root` be the folder of the bundle that a config file lies in.

    A config looks for its bundle in ``./bundles`` alone, and else takes the current directory. The
    first may be another of that name, and the second anything. What else it may name is kept.
    """
    if "bundle_root" not in parser:
        return
    root = parser.get_parsed_content("bundle_root")
    bundle = _bundle_of(files)
    if bundle is None or Path(root).resolve() == bundle.resolve():
        return
    if root in (".", f"bundles/{bundle.name}") or not Path(root, METADATA).is_file():
        parser["bundle_root"] = str(bundle)
        parser.parse(reset=True)  # MONAI is at `initialize`, whose other items it looks for then


def _check_bundle_root(parser: ConfigParser, files: Sequence[str]) -> None:
    """Check that `bundle_root` is a bundle's folder, where a config file lies in one."""
    if "bundle_root" not in parser:
        return
    root = parser.get_parsed_content("bundle_root")
    bundle = _bundle_of(files)
    if bundle is not None and not Path(root, METADATA).is_file():
        raise InputError(
            f"bundle_root is {root!r}, which has no {METADATA}: expected the folder of the bundle "
            f"of the config; leave --bundle_root out, or give {bundle}"
        )


def _bundle_of(files: Sequence[str]) -> Path | None:
    """Folder of the bundle that the first config file that lies in one is of."""
    for file in files:
        bundle = Path(file).absolute().parents[1]
        if (bundle / METADATA).is_file():
            return bundle
    return None


def _check_places(parser: ConfigParser) -> None:
    """Check the files and folders of a config: see `check_command`."""
    if "output_dir" in parser:
        output_dir = parser.get_parsed_content("output_dir")
        check_output_dir(output_dir)
        for place in _data_places(parser):
            check_apart(output_dir, place)
    curves = parser[CURVES] if has_id(parser, CURVES) else None
    if isinstance(curves, str) and not curves.startswith(REFERS):  # to a rank, which comes later
        check_output_dir(curves, CURVES)
    if "model_path" in parser:
        require_weights(parser.get_parsed_content("model_path"))
    further = parser.get_parsed_content("ensemble") if has_id(parser, "ensemble") else ()
    for path in ensure_tuple(further):
        require_weights(path)


def _data_places(parser: ConfigParser) -> tuple[str, ...]:
    """The files and folders that a config's `dataset_dir` names, which may be none."""
    named = parser.get_parsed_content("dataset_dir") if has_id(parser, "dataset_dir") else ""
    return tuple(ensure_tuple(named)) if named else ()


def _check_channel_names(parser: ConfigParser) -> None:
    """Check that the channels of a data set come in the bundle's order, as far as names tell.

    Raises:
        InputError: if they do not, or as of `find_cases`.
    """
    channels = parser.get_parsed_content("load#channels") if has_id(parser, "load#channels") else 1
    if channels == 1 or "bundle_root" not in parser:
        return
    names = Bundle(parser.get_parsed_content("bundle_root")).channel_names
    for place in _data_places(parser):
        if os.path.isdir(place) or place.endswith(".json"):
            compare_channel_names(find_cases(place, False, channels=channels), names)


def _claim_output(parser: ConfigParser, files: Sequence[str], command: Mapping[str, Any]) -> None:
    """Claim the `output_dir` of a command, and check what it would write over: see `claim`.

    Files that it writes once, rather than for each case, are those that its config lists under
    ``writes``.
    """
    if "output_dir" not in parser:
        return
    output_dir = parser.get_parsed_content("output_dir")
    places = sorted(place_of(image_folder(place)) for place in _data_places(parser))
    of = ", ".join(places) or "generated phantoms"
    same_for_all = {name: value for name, value in command.items() if name != "rank"}
    rank = parser.get_parsed_content("rank") if "rank" in parser else os.environ.get("RANK", 0)
    claim(output_dir, of, json.dumps([files, same_for_all], default=str, sort_keys=True), int(rank))
    writes = parser.get_parsed_content("writes") if "writes" in parser else []
    require_own([Path(output_dir, name) for name in writes], of)
