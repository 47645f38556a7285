"""What a training keeps on disk: its best weights, and the state that it goes on from."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.utils import ensure_tuple
from torch.nn.parallel import DistributedDataParallel

from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.leftovers import some
from ldseg_monai.data.trained_cases import TrainedCases
from ldseg_monai.networks.weights import read_state
from ldseg_monai.runtime.errors import InputError, counted
from ldseg_monai.runtime.files import save_whole
from ldseg_monai.runtime.ownership import take_folder
from ldseg_monai.runtime.signals import advise_at_end


class SaveBest:
    """Evaluator handler that saves a network, as a plain state dict, at each best key metric.

    The names and digests of the cases that it was trained on go beside it, with the metric
    (`TrainedCases`). A metric that is NaN, since there was nothing to measure, is never the best.

    Args:
        path: file to write.
        network: network to save.
        cases: the training cases; None where they are not known.
        initial_weights: file that the training starts from, whose own training cases count too; ""
            for none.
    """

    def __init__(
        self,
        path: str,
        network: torch.nn.Module,
        cases: Sequence[Mapping[str, Any]] | None = None,
        initial_weights: str = "",
    ) -> None:
        self.path = path
        self.network = network
        self.cases = cases
        self.initial_weights = initial_weights
        self.trained: TrainedCases | None = None
        self.earlier: TrainedCases | None = None  # of the run that this one goes on from
        self.best = -math.inf
        self.epoch = 0
        self.name = ""  # of the metric

    def attach(self, engine: Engine) -> None:
        """Compare at the end of each validation.

        Raises:
            InputError: if what is beside the initial weights cannot be read.
        """
        if self.cases is not None and self.initial_weights:
            TrainedCases.read(self.initial_weights)  # needed at the first best: too late to tell
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    @idist.one_rank_only()
    def __call__(self, engine: Engine) -> None:
        """Compare now, and save if better."""
        self.name = engine.state.key_metric_name  # type: ignore[attr-defined]
        score = engine.state.metrics[self.name]
        if score > self.best:
            self.best, self.epoch = float(score), engine.state.epoch
            self._write_cases()
            save_whole(
                {name: value.cpu() for name, value in self.network.state_dict().items()}, self.path
            )
            engine.logger.info(
                "epoch %d: best %s so far, saved %s", engine.state.epoch, self.best, self.path
            )

    def _write_cases(self) -> None:
        """Say beside the weights what they were trained on; images are read once, for digests."""
        if self.cases is None:
            return
        if self.trained is None:
            self.trained = TrainedCases.of(self.cases)
            if self.initial_weights:
                self.trained = self.trained.started_from(self.initial_weights)
            if self.earlier is not None:  # their images may be others by now
                self.trained = self.trained.joined(self.earlier)
        score = f"{self.name} {self.best:.4f} in epoch {self.epoch}"
        dataclasses.replace(self.trained, score=score).write(self.path)

    def state_dict(self) -> dict[str, Any]:
        """The best score, its epoch and its name."""
        return {"best": self.best, "epoch": self.epoch, "name": self.name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an earlier run's best score, and from its cases.

        Raises:
            InputError: if what is beside the earlier weights cannot be read.
        """
        self.best = state["best"]
        self.epoch, self.name = state.get("epoch", self.epoch), state.get("name", self.name)
        if self.cases is not None:
            self.earlier = TrainedCases.read(self.path)


class ResumableCheckpoint:
    """Trainer handler that keeps a run's last state in one file, and goes on from it.

    Args:
        path: file of the checkpoint.
        objects: everything with a state dict that a resumed run needs, by name, or None for what
            this run goes without; the trainer is added. Networks may be wrapped in
            ``DistributedDataParallel``: the checkpoint is the same.
        cases: the training cases, by whose names a run is told from one on other data. Of their
            files, those of another size than at the checkpoint are told.
        interval: epochs between two checkpoints; the last epoch has one too.
        map_location: device to load to.
        settings: of `ldseg_monai.bundle.run_settings`: what a run that goes on may not change, and
            what it may, which is told. None to compare nothing.
    """

    def __init__(
        self,
        path: str,
        objects: dict[str, Any | None],
        cases: Sequence[dict[str, Any]],
        interval: int = 1,
        map_location: str | torch.device = "cpu",
        settings: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self.path = path
        self.settings = dict(settings or {})
        self.objects = {
            name: item.module if isinstance(item, DistributedDataParallel) else item
            for name, item in objects.items()
            if item is not None
        }
        self.cases = sorted(case_name(case["image"]) for case in cases)
        self.files = {case_name(case["image"]): _file_sizes(case) for case in cases}
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
            ValueError: if the checkpoint is of a run on other cases, of other objects, of another
                network, or of other settings that it would restore.
        """
        take_folder(os.path.dirname(self.path))
        advise_at_end(self.advice)
        if engine.state.iteration or not os.path.isfile(self.path):
            return
        state = read_state(self.path, self.map_location)
        advice = "choose another output_dir to start anew, or delete the checkpoint"
        if state.get("cases") != self.cases:
            earlier, now = set(state.get("cases") or ()), set(self.cases)
            changes = {"with": earlier - now, "without": now - earlier}
            told = " and ".join(f"{how} {some(names)}" for how, names in changes.items() if names)
            raise InputError(
                f"{self.path} is of a run on {counted(len(earlier), 'other case')}, {told}: "
                f"expected one on these {len(now)}; {advice}"
            )
        max_epochs = engine.state.max_epochs
        parts = {**self.objects, "trainer": engine}
        if set(state) - {"settings", "files"} != {*parts, "cases"}:
            got = sorted(set(state) - {"cases", "settings", "files"})
            raise InputError(
                f"{self.path} is of another kind of run, with {got}: expected {sorted(parts)}; "
                f"{advice}"
            )
        changed = self._compare_settings(state.get("settings"), advice)
        place = state["trainer"]
        # In steps: an epoch has another number of them where another number of processes runs.
        place["iteration"] = place["iteration"] // place["epoch_length"] * engine.state.epoch_length
        place["epoch_length"] = engine.state.epoch_length
        try:
            for name, target in parts.items():
                target.load_state_dict(state[name])
        except (RuntimeError, InputError) as error:
            raise InputError(
                f"{self.path} is of another network: expected this run's; {advice}"
            ) from error
        engine.state.max_epochs = max_epochs
        engine.logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)
        for line in changed:
            engine.logger.info("from here on %s", line)
        files = state.get("files", self.files)  # of none in a checkpoint of before 0.3.0
        others = [name for name in self.cases if files.get(name) != self.files[name]]
        if others:
            engine.logger.warning(
                "the image or label of %s has another size than at the checkpoint (%s): what was "
                "learned of the earlier one stays; %s",
                counted(len(others), "case"),
                some(others),
                advice,
            )
        if max_epochs is not None and engine.state.epoch >= max_epochs:
            engine.logger.warning(
                "nothing left to train: %s done; raise max_epochs or %s",
                counted(max_epochs, "epoch"),
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
        about = {"cases": self.cases, "files": self.files, "settings": self.settings}
        save_whole({**states, **about}, self.path)

    def advice(self) -> str:
        """How to go on if the run is stopped now."""
        if not os.path.isfile(self.path):
            return f"no epoch is complete, so there is no checkpoint {self.path} yet"
        place = read_state(self.path, "cpu")["trainer"]
        epoch = place["iteration"] // place["epoch_length"]
        return f"{self.path} has all up to epoch {epoch}: the same command goes on from it"

    def _compare_settings(
        self, earlier: Mapping[str, dict[str, Any]] | None, advice: str
    ) -> list[str]:
        """Compare this run's settings with those that a checkpoint was made with.

        Returns:
            What is another than before, and used.

        Raises:
            ValueError: for what is another than before, and would be restored.
        """
        if not earlier or not self.settings:  # a checkpoint of before 0.3.0, or a run of a client
            return []
        differing = _differences(earlier["restored"], self.settings["restored"])
        if differing:
            told = "; ".join(f"{name} {old}, got {new}" for name, old, new in differing)
            raise InputError(
                f"{self.path} is of a run with {told}: what it restores would override that; go "
                f"on with what the run has, or {advice}"
            )
        used = _differences(earlier["used"], self.settings["used"])
        return [f"{name} is {new}, before it was {old}" for name, old, new in used]


def _file_sizes(case: Mapping[str, Any]) -> list[int]:
    """Bytes of each file of a case; a client's may be none. Times change as data are copied."""
    paths = [path for part in case.values() for path in ensure_tuple(part)]
    files = [path for path in paths if isinstance(path, (str, os.PathLike))]
    return [os.path.getsize(path) for path in files if os.path.isfile(path)]


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Names of what differs, with the value before and now, for a person to read."""
    differing = []
    for name in sorted(earlier.keys() | now.keys()):
        old, new = (
            repr(values[name]) if name in values else "not given" for values in (earlier, now)
        )
        if old != new:
            differing.append((name, old, new))
    return differing
