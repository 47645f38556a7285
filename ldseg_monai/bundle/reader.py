"""What is reading a config: MONAI tells it to none of the components that it makes."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser, create_workflow, update_kwargs


class Reader(NamedTuple):
    """Who makes a component.

    Attributes:
        parser: the whole config, with its overrides; None where no config is being read.
        command: what `monai.bundle.run` was given: ``config_file`` and the overrides by their ids;
            None where another client reads the config.
    """

    parser: ConfigParser | None
    command: dict[str, Any] | None


def find_reader() -> Reader:
    """Find what is making the component that calls this.

    MONAI gives a component its arguments alone: neither the config that they are of, nor the names
    on the command line, of which it takes any in silence. Both are known only where the call comes
    from, so this walks up the stack, the one place of the package that does. It rests on two
    functions of MONAI, `ConfigParser.get_parsed_content` and `create_workflow`, and on the names of
    their variables; tests/bundle/test_reader.py fails where another version of MONAI has others.
    """
    parser: ConfigParser | None = None
    for frame, _ in traceback.walk_stack(None):
        values = frame.f_locals
        if parser is None and frame.f_code is ConfigParser.get_parsed_content.__code__:
            parser = values["self"]
        if frame.f_code is create_workflow.__code__:
            given = {"config_file": values["config_file"], **values["kwargs"]}
            return Reader(parser, update_kwargs(values["args_file"], **given))
    return Reader(parser, None)


# The same walk as an expression, for the configs of an exported bundle: they have to find the
# folder of the package that goes with them before anything can be imported from it. MONAI's
# workflow alone knows where the config is; elsewhere it is the current directory.
FIND_BUNDLE_ROOT = (
    "$str(next((frame.f_locals['self'].config_root_path.parent"
    " for frame, _ in traceback.walk_stack(None)"
    " if isinstance(frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)), '.'))"
)


def make_importable(*folders: str | Path) -> None:
    """Let a ``_target_`` name what is in the Python files of some folders, such as a bundle's.

    MONAI puts a bundle's folder on Python's path only when `ConfigWorkflow.run` begins, too late
    for what `initialize` makes. The folders come last on the path, so that they hide no package.
    """
    for folder in folders:
        path = str(Path(folder).absolute())
        if path not in sys.path:
            sys.path.append(path)
