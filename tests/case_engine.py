"""An engine that passes cases on, as an evaluator has them when they are segmented and postprocessed."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines.utils import IterationEvents


def case_engine() -> Engine:
    """Each batch of data is a list of cases, which handlers of MODEL_COMPLETED see as the output."""

    def complete(engine: Engine, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        engine.state.output = cases
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return cases

    engine = Engine(complete)
    engine.register_events(*IterationEvents)
    return engine
