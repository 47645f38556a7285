"""What a training keeps on disk: its best weights, and the state that it goes on from."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch.nn.parallel import DistributedDataParallel

from ldseg_monai.data.datalist import case_name
from ldseg_monai.networks.weights import read_state
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.files import save_whole
from ldseg_monai.runtime.ownership import take_folder


class SaveBest:
    """Evaluator handler that saves a network, as a plain state dict, at each best key metric.

    Args:
        path: file to write.
        network: network to save.
    """

    def __init__(self, path: str, network: torch.nn.Module) -> None:
        self.path = path
        self.network = network
        self.best = -math.inf

    def attach(self, engine: Engine) -> None:
        """Compare at the end of each validation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @idist.one_rank_only()
    def __call__(self, engine: Engine) -> None:
        """Compare now, and save if better."""
        score = engine.state.metrics[engine.state.key_metric_name]  # type: ignore[attr-defined]
        if score > self.best:
            self.best = float(score)
            save_whole(
                {name: value.cpu() for name, value in self.network.state_dict().items()}, self.path
            )
            engine.logger.info(
                "epoch %d: best %s so far, saved %s", engine.state.epoch, self.best, self.path
            )

    def state_dict(self) -> dict[str, float]:
        """The best score."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from an earlier run's best score."""
        self.best = state["best"]


class ResumableCheckpoint:
    """Trainer handler that keeps a run's last state in one file, and goes on from it.

    Args:
        path: file of the checkpoint.
        objects: everything with a state dict that a resumed run needs, by name, or None for what
            this run goes without; the trainer is added. Networks may be wrapped in
            ``DistributedDataParallel``: the checkpoint is the same.
        cases: the training cases, by whose names a run is told from one on other data.
        interval: epochs between two checkpoints; the last epoch has one too.
        map_location: device to load to.
    """

    def __init__(
        self,
        path: str,
        objects: dict[str, Any | None],
        cases: Sequence[dict[str, Any]],
        interval: int = 1,
        map_location: str | torch.device = "cpu",
    ) -> None:
        self.path = path
        self.objects = {
            name: item.module if isinstance(item, DistributedDataParallel) else item
            for name, item in objects.items()
            if item is not None
        }
        self.cases = sorted(case_name(case["image"]) for case in cases)
        self.interval = interval
        self.map_location = map_location

    def attach(self, engine: Engine) -> None:
        """Load at the start; save at the end of epochs, after the handlers attached before."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore every object, if there is a checkpoint and the run has not begun.

        A trainer that is run again goes on from what it holds: in federated learning, the server's
        weights.

        Raises:
            ValueError: if the checkpoint is of a run on other cases, of other objects, or of
                another network.
        """
        take_folder(os.path.dirname(self.path))
        if engine.state.iteration or not os.path.isfile(self.path):
            return
        state = read_state(self.path, self.map_location)
        advice = "choose another output_dir to start anew, or delete the checkpoint"
        if state.get("cases") != self.cases:
            raise InputError(
                f"{self.path} is of a run on {state.get('cases')}: expected one on {self.cases}; "
                f"{advice}"
            )
        max_epochs = engine.state.max_epochs
        parts = {**self.objects, "trainer": engine}
        if set(state) != {*parts, "cases"}:
            got = sorted(set(state) - {"cases"})
            raise InputError(
                f"{self.path} is of another kind of run, with {got}: expected {sorted(parts)}; "
                f"{advice}"
            )
        place = state["trainer"]
        # In steps: an epoch has another number of them where another number of processes runs.
        place["iteration"] = place["iteration"] // place["epoch_length"] * engine.state.epoch_length
        place["epoch_length"] = engine.state.epoch_length
        try:
            for name, target in parts.items():
                target.load_state_dict(state[name])
        except RuntimeError as error:
            raise InputError(
                f"{self.path} is of another network: expected this run's; {advice}"
            ) from error
        engine.state.max_epochs = max_epochs
        engine.logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)
        if max_epochs is not None and engine.state.epoch >= max_epochs:
            engine.logger.warning(
                "nothing left to train: all %d epochs are done; raise max_epochs or %s",
                max_epochs,
                advice,
            )

    @idist.one_rank_only()
    def save(self, engine: Engine) -> None:
        """Write the checkpoint, if this epoch has one."""
        if engine.state.epoch % self.interval and engine.state.epoch != engine.state.max_epochs:
            return
        states = {
            name: item.state_dict() for name, item in {**self.objects, "trainer": engine}.items()
        }
        save_whole({**states, "cases": self.cases}, self.path)
