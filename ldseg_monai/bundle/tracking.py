"""MONAI's tracking of experiments, as a command's `tracking` sets it up (MLflow, or one's own)."""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS
from monai.utils import ensure_tuple

from ldseg_monai.runtime.errors import InputError, MissingPackageError

MLFLOW = ("mlflow", "sqlalchemy", "alembic")  # the last two: its store in a file of SQLite
TRANSFORM, LOSS = "output_transform", "$lambda output: output['loss']"


def check_tracking(tracking: Any) -> None:
    """Check what is to track a run: MLflow with its packages, or settings of one's own.

    Raises:
        InputError: for a text that is neither MLflow's name nor a file.
        MissingPackageError: for a package of MLflow that is not there.
    """
    is_file = isinstance(tracking, str) and Path(tracking).is_file()
    if isinstance(tracking, str) and tracking not in DEFAULT_EXP_MGMT_SETTINGS and not is_file:
        names = ", ".join(DEFAULT_EXP_MGMT_SETTINGS)
        raise InputError(f"tracking is {tracking!r}: expected {names}, or a file of settings")
    missing = [name for name in MLFLOW if find_spec(name) is None]
    if tracking == "mlflow" and missing:
        raise MissingPackageError(
            f"--tracking mlflow takes {', '.join(missing)}: pip install 'ldseg_monai[tracking]', "
            "or leave it out; TensorBoard has the curves in any case"
        )


def tracking_ids(tracking: Any) -> set[str]:
    """Ids that settings of experiment tracking bring with them."""
    if tracking is None:
        return set()
    known: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS
    settings = known.get(tracking) if isinstance(tracking, str) else tracking
    if not isinstance(settings, dict):
        settings = ConfigParser.load_config_files(ensure_tuple(tracking))
    return set(settings.get("configs", {}))


def mend_tracking(parser: ConfigParser) -> None:
    """Let MONAI's tracking of experiments get the loss, and the config that is run (MONAI 1.6.1).

    ``from_engine(first=True)``, by which MLflow's handler gets the loss, gives a tuple where the
    output is a dictionary, as it is with ``decollate: false``. The path of the config that is
    written beside the results is no expression where ``output_dir`` is none, so that MLflow's
    handler finds no such file, and keeps none.
    """
    path = parser.get("save_execute_config")
    if isinstance(path, str) and not path.startswith("$"):
        folder, separator, name = path.rpartition(" + '/")
        if separator:
            parser["save_execute_config"] = os.path.join(folder, name.rstrip("'"))
    for index, handler in enumerate(parser.get("train#handlers", [])):
        if isinstance(handler, dict) and "from_engine(['loss']" in str(handler.get(TRANSFORM)):
            # A copy: the handler's own is MONAI's, for all runs of the process
            parser[f"train#handlers#{index}"] = {**handler, TRANSFORM: LOSS}


def remove_executed(parser: ConfigParser) -> None:
    """Remove the config that MONAI's tracking wrote, and its folder if nothing else is in it.

    It writes them before any of our code runs, and what is refused leaves nothing behind.
    """
    path = parser.get_parsed_content("save_execute_config")
    if path:
        Path(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # of others' files
            Path(path).parent.rmdir()
