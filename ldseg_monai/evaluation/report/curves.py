"""The curves that a training left in its folder."""

from __future__ import annotations

import math
import os


def training_curves(folder: str) -> dict[str, list[tuple[float, float]]]:
    """Read every scalar of a TensorBoard log; of a step that a resumed run did again, the last value.

    Args:
        folder: where the log is, or in ``rank0`` below it, where the first of several processes
            writes.

    Returns:
        Step and value of each point that is finite, by the scalar's name; empty if there is no log.
    """
    logs = [path for path in (folder, os.path.join(folder, "rank0")) if _has_log(path)]
    if not logs:
        return {}
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,  # here: it takes a second
    )

    log = EventAccumulator(logs[0], size_guidance={"scalars": 0, "images": 1}).Reload()
    curves = {}
    for tag in log.Tags()["scalars"]:
        values = {event.step: event.value for event in log.Scalars(tag)}
        curves[tag] = [
            (float(step), value) for step, value in sorted(values.items()) if math.isfinite(value)
        ]
    return {tag: points for tag, points in sorted(curves.items()) if points}


def _has_log(folder: str) -> bool:
    return os.path.isdir(folder) and any("tfevents" in name for name in os.listdir(folder))
