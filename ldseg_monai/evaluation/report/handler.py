"""When the page is written, and where what it shows comes from."""

from __future__ import annotations

import io
import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import ignite.distributed as idist
import monai
import torch
from ignite.engine import Engine, Events
from PIL import Image

from ldseg_monai import __version__
from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.data.datalist import case_name
from ldseg_monai.evaluation.report.curves import training_curves
from ldseg_monai.evaluation.report.page import page
from ldseg_monai.evaluation.report.sections import (
    case_section,
    head_section,
    score_section,
    training_section,
    trajectory_section,
)
from ldseg_monai.evaluation.report.trajectory import Trajectory, record_trajectory, sampler_of
from ldseg_monai.evaluation.scores import CaseScores, case_means
from ldseg_monai.runtime.errors import MissingFileError
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.runtime.processes import unwrapped

WIDEST = 1600  # columns of a picture in the page; the linked one is whole


class Report:
    """Evaluator handler that writes ``report.html`` beside the scores.

    The overlays are those that `SaveOverlay` left in the same folder: of a few cases they are in
    the file, small where they are large, and of all cases linked. The case of median Dice is
    segmented once more to show its reverse process.

    Args:
        scores: the handler that scores the cases; it and `SaveOverlay` have to be attached before
            this one.
        bundle_root: folder of the bundle, whose ``configs/metadata.json`` names it.
        training_dir: folder with the TensorBoard log of the training that made the weights.
        settings: what the head of the page says of the run, by name.
    """

    def __init__(
        self,
        scores: CaseScores,
        bundle_root: str,
        training_dir: str,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.scores = scores
        self.bundle_root = bundle_root
        self.training_dir = training_dir or "."
        self.settings = dict(settings or {})

    def attach(self, engine: Engine) -> None:
        """Write the page when the run is complete."""
        engine.add_event_handler(Events.STARTED, self.check)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def check(self) -> None:
        """Look for the folder of the training.

        Raises:
            FileNotFoundError: if it is not there.
        """
        if not os.path.isdir(self.training_dir):
            raise MissingFileError(
                f"training_dir {self.training_dir} does not exist: expected the output_dir of the "
                "training that made the weights; leave it out to go without training curves"
            )

    def write(self, engine: Engine) -> None:
        """Write the page, in the first process, of the cases of all."""
        if idist.get_rank() > 0:
            return
        rows, bundle, classes = self.scores.rows, Bundle(self.bundle_root), self.scores.class_names
        shown = shown_cases(rows)
        middle = _middle_case(shown)
        links = self._links(sorted({str(row["case"]) for row in rows}))
        pictures = self._pictures(shown, links)
        title = f"{bundle.title}: evaluation"
        about = {"bundle": _version(bundle), **self.settings, **_facts(engine)}
        if self.scores.outside:
            told = [f"{name}: {why}" for name, why in sorted(self.scores.outside.items())]
            about["outside of what the weights know"] = ". ".join(told)
        curves = training_curves(self.training_dir)
        sections = [
            head_section(title, about),
            score_section(rows, classes, self.scores.tell_trained_on()),
            case_section(shown, rows, classes, pictures, links, _why_no_sd_map(engine)),
            trajectory_section(middle, _trajectory(engine, middle), classes),
            training_section(self.training_dir, curves),
        ]
        path = os.path.join(self.scores.output_dir, "report.html")
        with whole_file(path) as hidden, open(hidden, "w", encoding="utf-8") as file:
            file.write(page(title, sections))
        engine.logger.info("wrote %s", path)

    def _links(self, names: Iterable[str]) -> dict[str, str]:
        """The file of each case's picture, as seen from the page."""
        files = {name: f"{name}_overlay.png" for name in names}
        folder = self.scores.output_dir
        return {
            name: file for name, file in files.items() if os.path.isfile(os.path.join(folder, file))
        }

    def _pictures(self, names: Iterable[str], links: Mapping[str, str]) -> dict[str, bytes]:
        """The pictures of a few cases as PNG files of at most `WIDEST` columns."""
        pictures = {}
        for name in names:
            if name not in links:
                continue
            path = os.path.join(self.scores.output_dir, links[name])
            with Image.open(path) as picture:
                if picture.width <= WIDEST:
                    with open(path, "rb") as file:
                        pictures[name] = file.read()
                    continue
                small, content = picture.convert("RGB"), io.BytesIO()
                small.thumbnail((WIDEST, picture.height))
                small.save(content, "PNG")
                pictures[name] = content.getvalue()
        return pictures


def shown_cases(rows: Sequence[dict]) -> dict[str, str]:
    """Names of the cases of worst, median and best mean Dice, and which of these each is.

    Of an even number of cases, the better of the middle two is the median; of fewer than three
    there is none. Cases without a Dice are left out.
    """
    dice = {
        name: scores["dice"]
        for name, scores in case_means(rows).items()
        if math.isfinite(scores["dice"])
    }
    ranked = sorted(dice, key=lambda name: (dice[name], name))
    if len(ranked) < 3:
        return dict(
            zip(ranked, ("Worst", "Best") if len(ranked) == 2 else ("The only case",), strict=False)
        )
    return {ranked[0]: "Worst", ranked[len(ranked) // 2]: "Median", ranked[-1]: "Best"}


def _middle_case(shown: Mapping[str, str]) -> str | None:
    """Name of the median case; of the first one where there is none, None of no case."""
    for name, role in shown.items():
        if role == "Median":
            return name
    return next(iter(shown), None)


def _version(bundle: Bundle) -> str:
    """What a bundle is called, its version, and where it is."""
    parts = [bundle.title, bundle.metadata.get("version"), f"({bundle.root})"]
    return " ".join(part for part in parts if part)


def _facts(engine: Engine) -> dict[str, Any]:
    """What the head says of every run."""
    network, sampler = _network(engine), _sampler(engine)
    facts: dict[str, Any] = {"network": type(network).__name__}
    if sampler is not None:
        facts["samples of each image"] = sampler.num_samples
        if sampler.turned:
            facts["views of each image"] = "its eight orientations"
        elif sampler.mirrored_axes:
            facts["views of each image"] = f"mirrored along axes {list(sampler.mirrored_axes)}"
        own = getattr(network, "num_inference_steps", getattr(network, "num_train_timesteps", None))
        facts["reverse steps K"] = sampler.num_inference_steps or own
    facts["date"] = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    facts["versions"] = (
        f"ldseg_monai {__version__}, MONAI {monai.__version__}, PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )
    if os.path.basename(sys.argv[0]) == "ldseg":
        facts["command"] = " ".join(map(_quoted, ["ldseg", *sys.argv[1:]]))
    elif "monai.bundle" in sys.orig_argv:
        facts["command"] = " ".join(map(_quoted, sys.orig_argv))
    return facts


def _trajectory(engine: Engine, name: str | None) -> Trajectory | None:
    """The reverse process of the case of this name, which is read again."""
    dataset = getattr(engine.state.dataloader, "dataset", None)
    network = _network(engine)
    for number, case in enumerate(getattr(dataset, "data", [])):
        if network is not None and case_name(case["image"]) == name:
            image = cast(Any, dataset)[number]["image"][None]
            return record_trajectory(
                cast(Any, engine).inferer, network, image.to(cast(Any, engine.state).device)
            )
    return None


def _why_no_sd_map(engine: Engine) -> str:
    """Why the pictures do not show where samples differ; "" where they do."""
    sampler = _sampler(engine)
    if sampler is None:
        return "No map of uncertainty: this network draws no samples."
    if sampler.num_samples > 1:
        return ""
    return (
        "No map of uncertainty: one sample of each image was drawn; --num_samples 5 draws five and "
        "maps their SD."
    )


def _network(engine: Engine) -> torch.nn.Module | None:
    return unwrapped(getattr(engine, "network", None))


def _sampler(engine: Engine) -> Any:
    return sampler_of(getattr(engine, "inferer", None))


def _quoted(argument: str) -> str:
    """An argument as a shell takes it, in double quotes where that is easier to read."""
    return (
        f'"{argument}"'
        if "'" in argument and not set(argument) & set('"$`\\!')
        else shlex.quote(argument)
    )
