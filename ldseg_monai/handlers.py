"""Ignite handlers that MONAI lacks, each attached from a bundle's YAML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence, Sized
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import MetaTensor
from monai.data.utils import create_file_basename
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.handlers import ValidationHandler
from PIL import Image
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.draws import SeededSampler
from ldseg_monai.data.writers import note_saved, unwritable
from ldseg_monai.dicom import SERIES_UID
from ldseg_monai.processes import unwrapped
from ldseg_monai.visualize import load_image, overlay, upright
from ldseg_monai.weights import read_state


class Progress(ProgressBar):
    """Ignite's progress bar of each epoch, with the trainer's loss."""

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Show the bar of an engine's epochs."""
        super().attach(engine, output_transform=lambda output: {"loss": output["loss"]})


class GradientClipping:
    """Scale the gradients down to a total norm, before each step of the optimizer.

    Args:
        network: whose gradients.
        max_norm: largest 2-norm of all gradients together.
        report: file that says which files a batch was of whose loss or gradients are not finite; None for none.

    Raises:
        RuntimeError: for such a batch, before it reaches the weights.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float, report: str | None = None) -> None:
        self.network = network
        self.max_norm = max_norm
        self.report = report

    def attach(self, engine: Engine) -> None:
        """Clip after each backward pass of a MONAI trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip now."""
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
        if not norm.isfinite():
            self._stop(engine)

    def _stop(self, engine: Engine) -> None:
        state, batch = engine.state, cast(dict[str, Any], engine.state.batch)
        loss = cast(dict[str, Any], state.output)["loss"].item()
        files = {name: _file_names(value) for name, value in batch.items() if isinstance(value, MetaTensor)}
        batches = cast(list, idist.all_gather({"loss": str(loss), "files": files}))  # gradients are those of all
        batches = [batch for batch in batches if not math.isfinite(float(batch["loss"]))] or batches
        if self.report is not None and idist.get_rank() == 0:
            os.makedirs(os.path.dirname(self.report) or ".", exist_ok=True)
            with open(self.report, "w") as file:
                json.dump({"epoch": state.epoch, "iteration": state.iteration, "batches": batches}, file, indent=2)
        idist.barrier()  # a launcher ends all processes as soon as one fails
        told = "; ".join(f"the loss is {batch['loss']} on {batch['files']}" for batch in batches)
        raise RuntimeError(
            f"gradients are not finite in epoch {state.epoch}, iteration {state.iteration}: {told}; look at these "
            "files, or lower learning_rate and start again"
        )


def _file_names(value: MetaTensor) -> list[str]:
    """Where the images of a batch come from."""
    names = value.meta.get("filename_or_obj", [])
    return [names] if isinstance(names, str) else [str(name) for name in names]


class Reseed:
    """Make every random number of a run depend on the seed and its place in the run alone, so that it can resume.

    The cases of an epoch and their augmentation follow from the epoch; timesteps and noise from the iteration. Every
    process gets the same state: what differs between the samples of a batch, `draw_per_sample` draws.

    Args:
        seed: seed of the run.
        sampler: a `SeededSampler`.
    """

    def __init__(self, seed: int, sampler: SeededSampler) -> None:
        self.seed = seed
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Seed at the start of each epoch, before the loader's next pass begins, and of each iteration."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.seed_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self.seed_iteration)

    def seed_epoch(self, engine: Engine) -> None:
        """Seed what the loader draws."""
        self.sampler.set_epoch(engine.state.epoch)

    def seed_iteration(self, engine: Engine) -> None:
        """Seed what the network draws."""
        torch.manual_seed(self.seed + 1009 * engine.state.iteration)


def average_weights(network: torch.nn.Module, num_iterations: int, share: float = 0.1) -> AveragedModel:
    """Make the exponential average of a network's weights, for `UpdateAverage` to keep.

    Args:
        network: the network in training, plain or wrapped in ``DistributedDataParallel``.
        num_iterations: optimizer steps of the whole run.
        share: share of the run that the average spans, at most 1000 steps (a decay of 0.999). Until it has seen so many
            it spans about half of those seen, so that a short run forgets its start too.

    Returns:
        Torch's averaged model, whose ``module`` has the averaged weights and whose state says how many it has seen.
    """
    span = min(1000.0, max(4.0, share * num_iterations))

    def average(averaged: Any, current: Any, num_averaged: torch.Tensor | int) -> None:
        if torch.is_floating_point(averaged[0]):
            torch._foreach_lerp_(averaged, current, max(1 / span, 2 / (int(num_averaged) + 2)))
        else:  # counters, such as batch normalization's
            torch._foreach_copy_(averaged, current)

    return AveragedModel(unwrapped(network), multi_avg_fn=average, use_buffers=True)


class UpdateAverage:
    """Trainer handler that takes the network's weights into their average after each step.

    Args:
        average: of `average_weights`.
        network: the network in training.
    """

    def __init__(self, average: AveragedModel, network: torch.nn.Module) -> None:
        self.average = average
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Update at the end of each iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Update now."""
        self.average.update_parameters(unwrapped(self.network))


class SaveBest:
    """Evaluator handler that saves a network as a plain state dict whenever the key metric is the best so far.

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
            save_whole({name: value.cpu() for name, value in self.network.state_dict().items()}, self.path)
            engine.logger.info("epoch %d: best %s so far, saved %s", engine.state.epoch, self.best, self.path)

    def state_dict(self) -> dict[str, float]:
        """The best score."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from an earlier run's best score."""
        self.best = state["best"]


class ValidateAtEnd(ValidationHandler):
    """MONAI's handler for the last epoch, where that is not one of its interval's.

    Args:
        validator: the evaluator.
        interval: epochs between two validations.
    """

    def attach(self, engine: Engine) -> None:
        """Validate when the run's last epoch is complete.

        Raises:
            ValueError: if the validator has no cases.
        """
        loader = cast(Evaluator, self.validator).data_loader
        if isinstance(loader, Sized) and not len(loader):
            raise ValueError(
                "no cases to validate on: expected one or more; add cases (of fewer than 3, MONAI Label's val_split of "
                "0.2 leaves none), or leave more of them to validation"
            )
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.validate_last)

    def validate_last(self, engine: Engine) -> None:
        """Validate, if this is the last epoch and its interval has not done so."""
        if engine.state.epoch == engine.state.max_epochs and engine.state.epoch % self.interval:
            self(engine)


class Checkpoint:
    """Trainer handler that keeps the last state of a run in one file and goes on from it if it is there.

    Args:
        path: file of the checkpoint.
        objects: everything with a state dict that a resumed run needs, by name, or None for what this run goes without;
            the trainer is added. Networks may be wrapped in ``DistributedDataParallel``: the checkpoint is the same.
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
        """Load at the start of a run; save at the end of epochs, after the handlers attached before."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore every object, if there is a checkpoint and the run has not begun.

        A trainer that is run again goes on from what it holds: in federated learning, the server's weights.

        Raises:
            ValueError: if the checkpoint is of a run on other cases, of other objects, or of another network.
        """
        if engine.state.iteration or not os.path.isfile(self.path):
            return
        state = read_state(self.path, self.map_location)
        advice = "choose another output_dir to start anew, or delete the checkpoint"
        if state.get("cases") != self.cases:
            raise ValueError(f"{self.path} is of a run on {state.get('cases')}: expected one on {self.cases}; {advice}")
        max_epochs = engine.state.max_epochs
        parts = {**self.objects, "trainer": engine}
        if set(state) != {*parts, "cases"}:
            got = sorted(set(state) - {"cases"})
            raise ValueError(f"{self.path} is of another kind of run, with {got}: expected {sorted(parts)}; {advice}")
        place = state["trainer"]
        # In steps: an epoch has another number of them where another number of processes runs.
        place["iteration"] = place["iteration"] // place["epoch_length"] * engine.state.epoch_length
        place["epoch_length"] = engine.state.epoch_length
        try:
            for name, target in parts.items():
                target.load_state_dict(state[name])
        except RuntimeError as error:
            raise ValueError(f"{self.path} is of another network: expected this run's; {advice}") from error
        engine.state.max_epochs = max_epochs
        engine.logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)
        if max_epochs is not None and engine.state.epoch >= max_epochs:
            engine.logger.warning(
                "nothing left to train: all %d epochs are done; raise max_epochs or %s", max_epochs, advice
            )

    @idist.one_rank_only()
    def save(self, engine: Engine) -> None:
        """Write the checkpoint, if this epoch has one."""
        if engine.state.epoch % self.interval and engine.state.epoch != engine.state.max_epochs:
            return
        states = {name: item.state_dict() for name, item in {**self.objects, "trainer": engine}.items()}
        save_whole({**states, "cases": self.cases}, self.path)


def save_whole(state: dict, path: str) -> None:
    """Write a state dict so that a file of this name is always whole.

    Raises:
        OSError: if it cannot be written, for example because the disk is full.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(f"{path}.partial", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # else a machine that stops may have renamed a file whose content it never wrote
        os.replace(f"{path}.partial", path)
    except OSError as error:
        raise unwritable(path, error) from error


class SaveOverlay:
    """Evaluator handler that draws each segmentation on its image, as a PNG file and in TensorBoard.

    Reads the evaluator's decollated output: ``pred`` (a picture's with or without its channel) and, if there,
    ``label``, in the geometry of the image's file, which is read again, since the engine's own image went through the
    preprocessing.

    Args:
        output_dir: folder of the pictures, ``CASE_overlay.png``, each validation over the last.
        max_cases: pictures drawn in one run; None for all.
        tensorboard_dir: folder of a TensorBoard log that the pictures also go to; None for none.
    """

    def __init__(self, output_dir: str, max_cases: int | None = None, tensorboard_dir: str | None = None) -> None:
        self.output_dir = output_dir
        self.max_cases = max_cases
        self.tensorboard_dir = tensorboard_dir
        self.drawn = 0

    def attach(self, engine: Engine) -> None:
        """Draw the cases of each iteration."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.draw)

    def start(self) -> None:
        """Begin to count anew."""
        self.drawn = 0

    def draw(self, engine: Engine) -> None:
        """Draw the cases of one iteration."""
        for case in cast(list[dict[str, Any]], engine.state.output):
            if self.max_cases is not None and self.drawn >= self.max_cases:
                return
            self.drawn += 1
            meta = case["image"].meta
            path = meta["filename_or_obj"]
            pred, label = case["pred"], case.get("label")
            pred = upright(pred[None] if pred.ndim == 2 else pred)
            label = None if label is None else upright(label)
            picture = overlay(load_image(path, meta.get(SERIES_UID, "")), pred, label)
            file = create_file_basename("overlay", path, self.output_dir, separate_folder=False) + ".png"
            partial = f"{file}.{idist.get_rank()}.partial"  # processes that validate the same cases draw the same
            try:
                Image.fromarray(picture).save(partial, "PNG", compress_level=1)  # a quarter of the default's time
                os.replace(partial, file)
            except OSError as error:
                raise unwritable(file, error) from error
            note_saved(case["pred"], file)
            if self.tensorboard_dir is not None:
                with SummaryWriter(self.tensorboard_dir) as writer:
                    writer.add_image(f"overlay/{case_name(path)}", picture, engine.state.epoch, dataformats="HWC")
