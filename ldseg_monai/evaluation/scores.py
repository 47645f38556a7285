"""Scores of each case against its original label, and their file."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from itertools import chain
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.metrics import compute_hausdorff_distance
from monai.networks.utils import one_hot
from monai.utils import convert_to_tensor

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.datalist import case_name
from ldseg_monai.runtime.files import whole_file

SCORES = ("dice", "iou", "precision", "recall", "hd95_mm")


def class_scores(
    prediction: torch.Tensor, label: torch.Tensor, spacing: Sequence[float]
) -> dict[str, float]:
    """Score one class of one case.

    Args:
        prediction: mask of the class, ``(*spatial)``, bool.
        label: true mask, ``(*spatial)``, bool.
        spacing: size of a voxel along each axis in mm.

    Returns:
        ``dice``, ``iou``, ``precision``, ``recall`` and ``hd95_mm``, the 95th percentile of the
        surface distance: the larger one of the two directions (MONAI's definition). A score with
        nothing to measure (such as any for a class absent from both) is NaN.
    """
    both = (prediction & label).sum().item()
    predicted, true = prediction.sum().item(), label.sum().item()
    scores = {
        "dice": _ratio(2 * both, predicted + true),
        "iou": _ratio(both, predicted + true - both),
        "precision": _ratio(both, predicted),
        "recall": _ratio(both, true),
        "hd95_mm": math.nan,
    }
    if predicted and true:
        area = (prediction | label).nonzero()
        first, last = (area.amin(0) - 1).clamp(min=0), area.amax(0) + 2
        crop = tuple(map(slice, first.tolist(), last.tolist()))
        distance = compute_hausdorff_distance(
            prediction[crop][None, None],
            label[crop][None, None],
            include_background=True,
            percentile=95,
            spacing=list(spacing),
        )
        scores["hd95_mm"] = distance.item()
    return scores


class CaseScores:
    """Evaluator handler: writes ``metrics.csv``, one row a case and class, and ``summary.json``.

    Reads the evaluator's decollated output: ``pred`` and ``label``, class indices ``(1, *spatial)``
    in the image's own geometry, ``label`` with its affine, beside ``image`` with its file's name.
    The background has no row. The rows are in the order of the cases' names; where several
    processes share the cases, the first writes the rows of all.

    Args:
        output_dir: folder of the two files.
        num_classes: classes, background included.
    """

    def __init__(self, output_dir: str, num_classes: int) -> None:
        self.output_dir = output_dir
        self.num_classes = num_classes
        self.rows: list[dict[str, str | int | float]] = []
        self.outside: dict[str, str] = {}  # why the weights do not know a case, by its name

    def attach(self, engine: Engine) -> None:
        """Score each iteration's cases and write the files when the run is complete."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.score)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self) -> None:
        """Begin anew."""
        self.rows.clear()
        self.outside.clear()

    def score(self, engine: Engine) -> None:
        """Add the rows of one iteration's cases."""
        for case in cast(list[dict[str, Any]], engine.state.output):
            label = case["label"]
            spacing = label.pixdim.tolist()[: label.ndim - 1]
            name = case_name(case["image"].meta["filename_or_obj"])
            if OUTSIDE in case["image"].meta:
                self.outside[name] = case["image"].meta[OUTSIDE]
            prediction, truth = self._masks(case["pred"]), self._masks(label)
            for index in range(1, self.num_classes):
                scores = class_scores(prediction[index], truth[index], spacing)
                self.rows.append({"case": name, "class": index, **scores})

    def _masks(self, classes: torch.Tensor) -> torch.Tensor:
        """A mask of each class, ``(classes, *spatial)``."""
        classes = convert_to_tensor(classes, track_meta=False).long()
        return one_hot(classes, self.num_classes, dim=0).bool()

    def write(self, engine: Engine) -> None:
        """Write both files, log the means, and set the engine's metric ``val_mean_dice``."""
        rows = chain.from_iterable(cast(list, idist.all_gather(self.rows)))
        self.rows = sorted(rows, key=lambda row: (row["case"], row["class"]))
        summary = summarize(self.rows)
        for part in cast(list, idist.all_gather(self.outside)):
            self.outside |= part
        if self.outside:
            summary[OUTSIDE] = dict(sorted(self.outside.items()))
        engine.state.metrics["val_mean_dice"] = summary["all"]["dice"]["mean"]
        if idist.get_rank() > 0:
            return
        os.makedirs(self.output_dir, exist_ok=True)
        table = os.path.join(self.output_dir, "metrics.csv")
        with whole_file(table) as hidden, open(hidden, "w", newline="") as file:
            writer = csv.DictWriter(file, ["case", "class", *SCORES])
            writer.writeheader()
            writer.writerows(self.rows)
        path = os.path.join(self.output_dir, "summary.json")
        with whole_file(path) as hidden, open(hidden, "w") as file:
            json.dump(summary, file, indent=2)
        engine.logger.info("wrote %s: %s", table, json.dumps(summary["all"]))


def summarize(rows: Sequence[dict]) -> dict:
    """Mean and SD over the cases of each score: by class, and (``all``) of each case's mean.

    Scores that are NaN are left out; ``n`` says how many were not, ``cases`` how many cases there
    were. A class that was missed has no surface distance: read ``hd95_mm`` with its ``n``.
    """
    by_class = {}
    for index in sorted({row["class"] for row in rows}):
        by_class[str(index)] = _statistics([row for row in rows if row["class"] == index])
    means = case_means(rows)
    return {"cases": len(means), "classes": by_class, "all": _statistics([*means.values()])}


def case_means(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Each case's mean over the classes of each score, NaN where no class has the score."""
    by_case: dict[str, list[dict]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    means = {}
    for name, classes in sorted(by_case.items()):
        statistics = _statistics(classes)
        means[name] = {score: _or_nan(statistics[score]["mean"]) for score in SCORES}
    return means


def _statistics(rows: Sequence[dict]) -> dict[str, dict[str, float | None]]:
    """Mean, SD and number of each score's finite values."""
    return {score: _mean_sd(rows, score) for score in SCORES}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _mean_sd(rows: Sequence[dict], score: str) -> dict[str, float | None]:
    values = [row[score] for row in rows if math.isfinite(row[score])]
    finite = torch.tensor(values, dtype=torch.double)
    if not len(finite):
        return {"mean": None, "sd": None, "n": 0}
    return {
        "mean": finite.mean().item(),
        "sd": finite.std().item() if len(finite) > 1 else 0.0,
        "n": len(finite),
    }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
