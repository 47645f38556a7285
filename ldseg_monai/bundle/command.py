"""The first thing that a bundle does, for `python -m monai.bundle run` above all: look at what it was given."""

from __future__ import annotations

import atexit
import sys
import threading
import traceback
from multiprocessing.dummy import DummyProcess
from typing import Any

from monai.bundle import ConfigWorkflow, create_workflow, update_kwargs
from monai.utils import ensure_tuple

from ldseg_monai.bundle.knobs import check_apart, check_names, check_output_dir, check_values
from ldseg_monai.networks.weights import require_weights
from ldseg_monai.runtime.errors import show_errors_in_one_line

CASE_SECONDS = 60.0  # the most that is waited for one case to be read


def check_command() -> None:
    """Check the knobs of the workflow whose `initialize` calls this; nothing is written.

    Values are checked whoever runs the workflow. Where it is a MONAI command (`monai.bundle.run`),
    the names of its overrides and of its overlays' keys are checked too, whether its `output_dir`
    can be written to and is apart from its images, and whether there are weights at its
    `model_path`; in a process that is nothing but this command, errors show as one line from now
    on.

    Raises:
        ValueError: for a knob that does not exist, a value that no run could use, or an
            `output_dir` among the images.
        OSError: for an `output_dir` that cannot be written to, or a missing `model_path`.
    """
    # MONAI gives `initialize` neither the workflow nor the names on the command line: they are
    # where it is called from.
    if getattr(sys.modules["__main__"].__spec__, "name", None) == "monai.bundle.__main__":
        show_errors_in_one_line()
        atexit.register(finish_thread_pools)
    workflow: ConfigWorkflow | None = None
    command: dict[str, Any] | None = None
    for frame, _ in traceback.walk_stack(None):
        values = frame.f_locals
        if workflow is None and isinstance(values.get("self"), ConfigWorkflow):
            workflow = values["self"]
        if frame.f_code is create_workflow.__code__:
            command = update_kwargs(
                values["args_file"], config_file=values["config_file"], **values["kwargs"]
            )
            break
    if command is not None:
        files = [str(path) for path in ensure_tuple(command.pop("config_file"))]
        check_names(files, command, command.get("tracking"))
    if workflow is not None:
        check_values(workflow.parser)
        check_files = (
            {"output_dir": check_output_dir, "model_path": require_weights}
            if command is not None
            else {}
        )
        for name, check in check_files.items():
            if name in workflow.parser:
                check(workflow.parser.get_parsed_content(name))
        if (
            command is not None
            and workflow.parser.get("dataset_dir")
            and "output_dir" in workflow.parser
        ):
            check_apart(*map(workflow.parser.get_parsed_content, ("output_dir", "dataset_dir")))


def finish_thread_pools() -> None:
    """Wait, at exit, for the case that a thread of a pool is at: such pools fill MONAI's `CacheDataset`.

    An error in one case ends the process while the pool is at the next one. Python cuts a thread
    off where it is then, and if that is inside of torch, the process is aborted (exit code 134)
    after the error was told.
    """
    for thread in threading.enumerate():
        if isinstance(thread, DummyProcess):
            thread.join(CASE_SECONDS)
