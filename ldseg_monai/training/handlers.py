"""What a training does at its events, each handler attached from a bundle's YAML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence, Sized
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import MetaTensor
from monai.engines import Evaluator
from monai.engines.utils import IterationEvents
from monai.handlers import ValidationHandler

from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.draws import SeededSampler
from ldseg_monai.data.split import require_different_images
from ldseg_monai.runtime.errors import InputError, RunError, counted
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.training.resume import SaveBest

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SHOWN = 5  # cases that a message names
WHY = {"training": "learn it", "validation": "score it, which chooses the weights"}


class RequireClasses:
    """Trainer handler that refuses parts of the data in which a class cannot be learned or scored.

    Each class has to be in a case that trains and in one that validates: weights that are chosen by
    a score which leaves a class out are chosen by chance. It reads the cases of a part until every
    class was seen, which in most data sets is after the first.

    Nor may an image be in both parts, which `Split` refuses, and a client such as MONAI Label not.

    Args:
        training: the training cases.
        validation: the validation cases.
        load: what reads a case, with class indices in ``label``.
        num_classes: classes, background included.
        class_names: names of the classes by their index, for the message.
    """

    def __init__(
        self,
        training: Sequence[Mapping[str, Any]],
        validation: Sequence[Mapping[str, Any]],
        load: Callable[[dict], Mapping[Any, Any]],
        num_classes: int,
        class_names: Mapping[int, str] | None = None,
    ) -> None:
        self.parts = {"training": training, "validation": validation}
        self.load = load
        self.num_classes = num_classes
        self.class_names = class_names or {}

    def attach(self, engine: Engine) -> None:
        """Look before the first epoch."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Look now.

        Raises:
            ValueError: if there is nothing to train on, a part has cases, and none with one of the
                classes, or both have one image.
        """
        if not self.parts["training"]:
            raise InputError(
                "no cases to train on: expected one or more; add cases, or leave fewer of them to "
                "validation (MONAI Label's val_split is their share)"
            )
        require_different_images(*self.parts.values())
        for part, cases in self.parts.items():
            missing = self._missing_classes(cases)
            if not cases or not missing:
                continue
            if len(missing) == self.num_classes - 1:
                what = f"every label of the {len(cases)} {part} cases is 0"
            else:
                what = f"no label of the {len(cases)} {part} cases has {self._named(missing)}"
            raise InputError(
                f"{what}, such as {cases[0]['label']}: expected every class from 1 on in one of "
                f"them, to {WHY[part]}; {self._advice(part, missing)}"
            )

    def _missing_classes(self, cases: Sequence[Mapping[str, Any]]) -> set[int]:
        """The classes that no case has."""
        missing = set(range(1, self.num_classes))
        for case in cases:
            missing -= self._classes(case)
            if not missing:
                break
        return missing

    def _classes(self, case: Mapping[str, Any]) -> set[int]:
        return {int(value) for value in self.load(dict(case))["label"].unique()}

    def _advice(self, part: str, missing: set[int]) -> str:
        """Where the missing classes are, and what to do."""
        (other,) = self.parts.keys() - {part}
        having = [case for case in self.parts[other] if self._classes(case) & missing]
        if not having:
            return f"no {other} case has it either: correct the labels, or num_classes"
        names = [case_name(case["image"]) for case in having[:SHOWN]]
        more = ", ..." if len(having) > SHOWN else ""
        return (
            f"of the {other} cases {', '.join(names)}{more} would do: choose other val_cases, fold "
            "or seed"
        )

    def _named(self, classes: set[int]) -> str:
        """Classes with their names."""
        named = []
        for index in sorted(classes):
            name = self.class_names.get(index)
            named.append(f"class {index}" + (f" ({name})" if name else ""))
        return " or ".join(named)


class Conclude:
    """Trainer handler that says at the end which weights are the best, and what comes next.

    Args:
        best: what saved them.
        next_command: the command that scores them; "" for none.
    """

    def __init__(self, best: SaveBest, next_command: str = "") -> None:
        self.best = best
        self.next_command = next_command

    def attach(self, engine: Engine) -> None:
        """Say it when the last epoch is complete."""
        engine.add_event_handler(Events.COMPLETED, self)

    @idist.one_rank_only()
    def __call__(self, engine: Engine) -> None:
        """Say it now."""
        epochs = counted(engine.state.epoch, "epoch")
        if not self.best.epoch:
            engine.logger.warning("trained %s; none was validated", epochs)
            return
        engine.logger.info(
            "trained %s; the weights of epoch %d are the best, %s %.4f: %s",
            epochs,
            self.best.epoch,
            self.best.name,
            self.best.best,
            self.best.path,
        )
        if self.next_command:
            engine.logger.info("score them on the validation cases: %s", self.next_command)


class Progress(ProgressBar):
    """Ignite's progress bar of each epoch, with the trainer's loss."""

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        """Show the bar of an engine's epochs."""
        super().attach(engine, output_transform=lambda output: {"loss": output["loss"]})


class TensorBoard:
    """TensorBoard's writer for MONAI's handlers, whose file comes with the first curve.

    MONAI's handlers begin a file when they are made, which a training that is refused before its
    first epoch would leave behind.

    Args:
        log_dir: folder of the file.
    """

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir

    @cached_property
    def writer(self) -> SummaryWriter:
        """PyTorch's writer."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.log_dir)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # which Python itself asks for, as in copying
            return super().__getattribute__(name)
        return getattr(self.writer, name)


class GradientClipping:
    """Scale the gradients down to a total norm, before each step of the optimizer.

    Args:
        network: whose gradients.
        max_norm: largest 2-norm of all gradients together.
        report: file that says which files a batch was of whose loss or gradients are not finite;
            None for none.

    Raises:
        RuntimeError: for such a batch, before it reaches the weights.
    """

    def __init__(
        self, network: torch.nn.Module, max_norm: float, report: str | None = None
    ) -> None:
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
        files = {
            name: _file_names(value)
            for name, value in batch.items()
            if isinstance(value, MetaTensor)
        }
        batches = cast(
            list, idist.all_gather({"loss": str(loss), "files": files})
        )  # gradients are those of all
        batches = [batch for batch in batches if not math.isfinite(float(batch["loss"]))] or batches
        if self.report is not None and idist.get_rank() == 0:
            os.makedirs(os.path.dirname(self.report) or ".", exist_ok=True)
            with whole_file(self.report) as hidden, open(hidden, "w") as file:
                json.dump(
                    {"epoch": state.epoch, "iteration": state.iteration, "batches": batches},
                    file,
                    indent=2,
                )
        idist.barrier()  # a launcher ends all processes as soon as one fails
        told = "; ".join(f"the loss is {batch['loss']} on {batch['files']}" for batch in batches)
        raise RunError(
            f"gradients are not finite in epoch {state.epoch}, iteration {state.iteration}: "
            f"{told}; look at these "
            "files, or lower learning_rate and start again"
        )


def _file_names(value: MetaTensor) -> list[str]:
    """Where the images of a batch come from."""
    names = value.meta.get("filename_or_obj", [])
    return [names] if isinstance(names, str) else [str(name) for name in names]


class Reseed:
    """Make each random number depend on the seed and its place in the run, which can so resume.

    The cases of an epoch and their augmentation follow from the epoch; timesteps and noise from the
    iteration. Every process gets the same state: what differs between the samples of a batch,
    `draw_per_sample` draws.

    Args:
        seed: seed of the run.
        sampler: a `SeededSampler`.
    """

    def __init__(self, seed: int, sampler: SeededSampler) -> None:
        self.seed = seed
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Seed at the start of each epoch, before the loader begins, and of each iteration."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.seed_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self.seed_iteration)

    def seed_epoch(self, engine: Engine) -> None:
        """Seed what the loader draws."""
        self.sampler.set_epoch(engine.state.epoch)

    def seed_iteration(self, engine: Engine) -> None:
        """Seed what the network draws."""
        torch.manual_seed(self.seed + 1009 * engine.state.iteration)


class Validate(ValidationHandler):
    """MONAI's handler that validates every so many epochs, and after the last one too.

    Args:
        validator: the evaluator.
        interval: epochs between two validations.
    """

    def __init__(self, validator: Evaluator, interval: int) -> None:
        super().__init__(interval, validator)

    def attach(self, engine: Engine) -> None:
        """Validate when an epoch is complete.

        Raises:
            ValueError: if the validator has no cases.
        """
        loader = cast(Evaluator, self.validator).data_loader
        if isinstance(loader, Sized) and not len(loader):
            raise InputError(
                "no cases to validate on: expected one or more; add cases (of fewer than 3, MONAI "
                "Label's val_split of "
                "0.2 leaves none), or leave more of them to validation"
            )
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.validate_if_due)

    def validate_if_due(self, engine: Engine) -> None:
        """Validate, if this epoch is one of the interval's or the last."""
        epoch = engine.state.epoch
        if epoch % self.interval == 0 or epoch == engine.state.max_epochs:
            self(engine)
