"""Where a training's weights go, when a client such as MONAI Label starts it from weights.

Such a client puts a loader of weights, MONAI's `CheckpointLoader`, before all other handlers. The
run then starts from those weights and saves the best over them; it has no checkpoint, since it is
not resumed and its cases grow from run to run.
"""

from __future__ import annotations

import os
from typing import Any

from ldseg_monai.networks.matching import check_weights
from ldseg_monai.networks.weights import read_state


def loads_weights(first_handler: Any) -> bool:
    """Whether a training's first handler is a client's loader of weights."""
    return hasattr(first_handler, "load_path")


def start_weights(first_handler: Any, initial_weights: str) -> str:
    """The file that a training starts from: that of a client's loader, else ``initial_weights``.

    Raises:
        ValueError: if the loader's file cannot be read, or is of another network: the loader itself
            would not name it.
    """
    if not loads_weights(first_handler):
        return initial_weights
    path = str(first_handler.load_path)
    state = read_state(path, "cpu")
    for name, network in first_handler.load_dict.items():
        check_weights(state.get(name, state), network, path)
    return path


def weights_path(first_handler: Any, output_dir: str) -> str:
    """The file of a training's best weights.

    It is the one that a client's loader reads, else ``output_dir/model.pt``.
    """
    if loads_weights(first_handler):
        return str(first_handler.load_path)
    return os.path.join(output_dir, "model.pt")
