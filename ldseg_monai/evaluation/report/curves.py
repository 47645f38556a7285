"""The curves that a training left in its folder."""

from __future__ import annotations

import math
import os


def training_curves(folder: str) -> dict[str, list[tuple[float, float]]]:
    """Read every scalar of a TensorBoard log.

    Of a step that a resumed run did again, the last value counts.

    Args:
        folder: where the log is, or in ``rank0`` below it, where the first of several processes
            writes.

    Returns:
        Step and value of each point that is finite, by the scalar's name; empty if there is no log.
    """
    logs = [path for path in (folder, os.path.join(folder, "rank0")) if _has_log(path)]
    if not logs:
        return {}
    # Here: the import takes a second.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(logs[0], size_guidance={"scalars": 0, "images": 1}).Reload()
    curves = {}
    for tag in log.Tags()["scalars"]:
        values = {event.step: event.value for event in log.Scalars(tag)}
        points = [(float(step), value) for step, value in sorted(values.items())]
        curves[tag] = [point for point in points if math.isfinite(point[1])]
    return {tag: points for tag, points in sorted(curves.items()) if points}


def _has_log(folder: str) -> bool:
    return os.path.isdir(folder) and any("tfevents" in name for name in os.listdir(folder))
