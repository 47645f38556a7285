"""Scores of each case against its original label, and their file."""

from __future__ import annotations

import csv
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.handlers import MeanDice
from monai.metrics.utils import get_edge_surface_distance
from monai.networks.utils import one_hot
from monai.utils import convert_to_tensor

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.trained_cases import TrainedCases, digest, tell_trained_on
from ldseg_monai.runtime.errors import counted
from ldseg_monai.runtime.files import whole_file

SCORES = ("dice", "iou", "precision", "recall", "hd95", "asd", "surface_dice")
DISTANCES = ("hd95", "asd")  # the scores that have a unit
TOLERANCE = 1.0  # of the surface Dice, in the unit of distances
COUNTS = ("overlap_voxels", "predicted_voxels", "true_voxels")  # of a class in a case
# Of metrics.csv
COLUMNS = ("case", "class", "name", *SCORES, "unit", "trained_on", OUTSIDE, *COUNTS)
POOLED = SCORES[:4]  # the scores that classes have together
UNITS = {2: "pixel", 3: "mm"}  # of distances, by an image's axes: a picture's file has no spacing
SEEN = {True: "yes", False: "no", None: "unknown"}


def class_scores(
    prediction: torch.Tensor, label: torch.Tensor, spacing: Sequence[float]
) -> dict[str, float]:
    """Score one class of one case.

    Args:
        prediction: mask of the class, ``(*spatial)``, bool.
        label: true mask, ``(*spatial)``, bool.
        spacing: size of a voxel along each axis, in mm or, of a picture, in pixels.

    Returns:
        ``dice``, ``iou``, ``precision``, ``recall`` and those of `surface_scores`. A score with
        nothing to measure is NaN: of a class that the label does not have, all but the precision,
        which is 0 where it was found all the same. MONAI's ``ignore_empty`` so has the Dice, by
        which a training chooses its weights. A class that was missed has no distance, and a surface
        Dice of 0.
    """
    both = (prediction & label).sum().item()
    predicted, true = prediction.sum().item(), label.sum().item()
    scores = {
        "dice": _ratio(2 * both, predicted + true) if true else math.nan,
        "iou": _ratio(both, predicted + true - both) if true else math.nan,
        "precision": _ratio(both, predicted),
        "recall": _ratio(both, true),
        "hd95": math.nan,
        "asd": math.nan,
        "surface_dice": 0.0 if true else math.nan,
    }
    if predicted and true:
        area = (prediction | label).nonzero()
        first, last = (area.amin(0) - 1).clamp(min=0), area.amax(0) + 2
        crop = tuple(map(slice, first.tolist(), last.tolist()))
        scores |= surface_scores(prediction[crop], label[crop], spacing)
    return scores


def surface_scores(
    prediction: torch.Tensor, label: torch.Tensor, spacing: Sequence[float]
) -> dict[str, float]:
    """Score the surfaces of one class of one case.

    They are what MONAI's ``compute_hausdorff_distance``, ``compute_average_surface_distance`` and
    ``compute_surface_dice`` say; distances, which take nearly all the time, are measured once for
    the three. A surface is made of voxels of the mask beside others. Each counts the same, whatever
    the size of its faces, so that with anisotropic voxels the fine axes count more.

    Args:
        prediction: mask of the class, ``(*spatial)``, bool, with a voxel at least.
        label: true mask alike.
        spacing: as of `class_scores`.

    Returns:
        In the unit of ``spacing``: ``hd95``, the 95th percentile of the distance from one surface
        to the other, the larger one of the two directions; ``asd``, the mean of the distances in
        both directions. And ``surface_dice``, the share of both surfaces that is no further than
        `TOLERANCE` from the other one.
    """
    with warnings.catch_warnings():  # MONAI 1.6 itself gives an argument that it has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        _, distances, _ = get_edge_surface_distance(
            prediction, label, spacing=list(spacing), symmetric=True
        )
    both = torch.cat(list(distances))
    return {
        "hd95": max(of_one.quantile(0.95).item() for of_one in distances),
        "asd": both.mean().item(),
        "surface_dice": (both <= TOLERANCE).double().mean().item(),
    }


def voxel_counts(prediction: torch.Tensor, label: torch.Tensor) -> dict[str, int]:
    """Voxels of two masks, ``(*spatial)``, bool: of both, of the prediction, of the label."""
    masks = (prediction & label, prediction, label)
    return {name: int(mask.sum()) for name, mask in zip(COUNTS, masks, strict=True)}


def pooled_scores(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Dice, IoU, precision and recall of several classes of one case together.

    Their voxels are added up before the ratios are taken, so that a large class counts more. A
    voxel of one class that was taken for another is an error.

    Args:
        rows: of the classes, with `COUNTS`.
    """
    counts = dict.fromkeys(COUNTS, 0)
    for row in rows:
        for name in COUNTS:
            counts[name] += int(row[name])
    both, predicted, true = (counts[name] for name in COUNTS)
    return {
        "dice": _ratio(2 * both, predicted + true) if true else math.nan,
        "iou": _ratio(both, predicted + true - both) if true else math.nan,
        "precision": _ratio(both, predicted),
        "recall": _ratio(both, true),
    }


class MeanCaseDice(MeanDice):
    """MONAI's handler of the mean Dice, for the key metric of a training's validation.

    It is that of `summarize`: the mean over the cases of each case's mean over the classes that its
    label has. MONAI's own is 0 where no label has a class, which looks like a score; this is NaN,
    which is better than nothing and never the best.

    Args:
        num_classes: classes, background included.
        output_transform: what takes prediction and label, class indices, from the engine's output.
    """

    def __init__(self, num_classes: int, output_transform: Callable) -> None:
        super().__init__(
            include_background=False, num_classes=num_classes, output_transform=output_transform
        )

    def compute(self) -> float:
        """The mean over all cases since the last reset."""
        super().compute()  # keeps the details of each case
        dice = cast(torch.Tensor, self.metric_fn.get_buffer())  # (cases, classes), NaN for none
        return dice.nanmean(dim=1).nanmean().item()


class CaseScores:
    """Evaluator handler: writes ``metrics.csv``, one row a case and class, and ``summary.json``.

    Reads the evaluator's decollated output: ``pred`` and ``label``, class indices ``(1, *spatial)``
    in the image's own geometry, ``label`` with its affine, beside ``image`` with its file's name.
    The background has no row. The rows are in the order of the cases' names; where several
    processes share the cases, the first writes the rows of all. Each row says whether the weights
    were trained on its case: yes, no or unknown, and why they do not know such images, if so.

    Args:
        output_dir: folder of the two files.
        num_classes: classes, background included.
        class_names: names of the classes by index; ``class 1``... where it has none.
        weights: file of the weights that are scored, or files of an ensemble's; None where it is
            not known.
    """

    def __init__(
        self,
        output_dir: str,
        num_classes: int,
        class_names: Mapping[int, str] | None = None,
        weights: str | Sequence[str] | None = None,
    ) -> None:
        self.output_dir = output_dir
        self.num_classes = num_classes
        given = class_names or {}
        self.class_names = {
            index: given.get(index, f"class {index}") for index in range(1, num_classes)
        }
        self.weights = weights
        self.trained: TrainedCases | None = None
        self.rows: list[dict[str, str | int | float]] = []
        self.outside: dict[str, str] = {}  # why the weights do not know a case, by its name

    def attach(self, engine: Engine) -> None:
        """Score each iteration's cases and write the files when the run is complete."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.begin)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.score)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def begin(self) -> None:
        """Forget an earlier run, and read which cases the weights were trained on."""
        self.rows.clear()
        self.outside.clear()
        self.trained = TrainedCases.read(self.weights) if self.weights else None

    def score(self, engine: Engine) -> None:
        """Add the rows of one iteration's cases."""
        for case in cast(list[dict[str, Any]], engine.state.output):
            label = case["label"]
            spacing = label.pixdim.tolist()[: label.ndim - 1]
            image = case["image"].meta["filename_or_obj"]
            seen = self.trained.has(image) if self.trained else None
            about = {"unit": UNITS[label.ndim - 1], "trained_on": SEEN[seen]}
            about[OUTSIDE] = case["image"].meta.get(OUTSIDE, "")
            if about[OUTSIDE]:
                self.outside[case_name(case["image"])] = about[OUTSIDE]
            prediction, truth = self._masks(case["pred"]), self._masks(label)
            for index in range(1, self.num_classes):
                scores = class_scores(prediction[index], truth[index], spacing)
                row: dict[str, str | int | float] = {"case": case_name(image), "class": index}
                row["name"] = self.class_names[index]
                counts = voxel_counts(prediction[index], truth[index])
                self.rows.append({**row, **scores, **about, **counts})

    def _masks(self, classes: torch.Tensor) -> torch.Tensor:
        """A mask of each class, ``(classes, *spatial)``."""
        classes = convert_to_tensor(classes, track_meta=False).long()
        return one_hot(classes, self.num_classes, dim=0).bool()

    def write(self, engine: Engine) -> None:
        """Write both files, log the means, and set the engine's metric ``val_mean_dice``."""
        rows = chain.from_iterable(cast(list, idist.all_gather(self.rows)))
        self.rows = sorted(rows, key=lambda row: (row["case"], row["class"]))
        summary = summarize(self.rows)
        for index, of_class in summary["classes"].items():
            of_class["name"] = self.class_names[int(index)]
        told = self.tell_trained_on()
        summary["trained_on"] = told
        summary["weights"] = digest(self.weights) if self.weights else ""
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
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        path = os.path.join(self.output_dir, "summary.json")
        with whole_file(path) as hidden, open(hidden, "w") as file:
            json.dump(summary, file, indent=2)
        engine.logger.info("wrote %s: %s", table, json.dumps(summary["all"]))
        engine.logger.info("%s", told)

    def tell_trained_on(self) -> str:
        """Say on how many of the scored cases the weights were trained."""
        names = {str(row["case"]): row["trained_on"] == SEEN[True] for row in self.rows}
        return tell_trained_on(self.trained, names)


def summarize(rows: Sequence[dict]) -> dict:
    """Mean and SD over the cases of each score: by class, and (``all``) of each case's mean.

    Scores that are NaN are left out; ``n`` says how many were not, ``cases`` how many cases there
    were. One value alone has no SD. A class that was missed has no surface distance: read ``hd95``
    and ``asd`` with their ``n``, in the unit that ``units`` has. ``tolerance`` is that of
    ``surface_dice``. ``pooled`` is of each case's `pooled_scores` of all classes.
    """
    by_class = {}
    for index in sorted({row["class"] for row in rows}):
        by_class[str(index)] = _statistics([row for row in rows if row["class"] == index])
    means = case_means(rows)
    units = sorted({row["unit"] for row in rows})
    return {
        "cases": len(means),
        "units": dict.fromkeys(DISTANCES, " or ".join(units)),
        "tolerance": {"surface_dice": " or ".join(f"{TOLERANCE:g} {unit}" for unit in units)},
        "classes": by_class,
        "all": _statistics([*means.values()]),
        "pooled": _pooled(rows),
    }


def mean_text(summary: Mapping[str, Any]) -> str:
    """The mean scores of a ``summary.json``, in one line."""
    told = []
    for score, heading in {"dice": "Dice", "iou": "IoU", "hd95": "HD95"}.items():
        mean = summary["all"][score]["mean"]
        if mean is not None:
            unit = f" {summary['units']['hd95']}" if score == "hd95" else ""
            told.append(f"{heading} {mean:.4f}{unit}")
    return f"{', '.join(told) or 'no scores'}: means of {counted(summary['cases'], 'case')}"


def _pooled(rows: Sequence[dict]) -> dict[str, dict[str, float | None]]:
    """Mean, SD and number of the cases' `pooled_scores`."""
    by_case: dict[str, list[dict]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    pooled = [pooled_scores(classes) for classes in by_case.values()]
    return {score: _mean_sd(pooled, score) for score in POOLED}


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
        "sd": finite.std().item() if len(finite) > 1 else None,  # one value has no spread
        "n": len(finite),
    }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
