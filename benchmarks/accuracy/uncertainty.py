"""What several ways to say where a segmentation is wrong are worth, beside what each costs.

For `benchmarks.accuracy.experiments`. A way gives each case class probabilities and maps of doubt:
the SD over several segmentations, or the entropy of the probabilities. Ways: samples of a diffusion
method, one softmax, an ensemble of networks, several views of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from benchmarks.accuracy.quality import Calibration, cell, mean
from benchmarks.known_views import AS_IT_IS, KnownViews
from ldseg_monai.data.datalist import case_name
from ldseg_monai.evaluation.temperature import Case, count, fit_temperature
from ldseg_monai.inference.ensemble import summarize
from ldseg_monai.networks.weights import with_ensemble
from ldseg_monai.runtime.errors import InputError

if TYPE_CHECKING:
    from benchmarks.accuracy.experiments import Experiment

Infer = Callable[[torch.Tensor, Any], torch.Tensor]
SD, ENTROPY = "SD", "entropy"
LEAST = 1e-12  # probability below which a logarithm is not taken


class Way(NamedTuple):
    """A way to segment with a say on where it is wrong.

    Args:
        network: whose it is.
        name: what is done.
        cases: segments the cases, as of `Experiment.run`.
        has_spread: whether there are several segmentations, and so an SD.
    """

    network: str
    name: str
    cases: Callable[[], Iterable[dict[str, Any]]]
    has_spread: bool


class Judged:
    """What a way's probabilities and its maps of doubt are worth, over all cases.

    Args:
        has_spread: whether there is an SD beside the entropy.
    """

    def __init__(self, has_spread: bool) -> None:
        names = [SD, ENTROPY] if has_spread else [ENTROPY]
        self.by_map = {name: Calibration() for name in names}
        self.counted: list[Case] = []

    def add(self, mean: torch.Tensor, deviation: torch.Tensor, label: torch.Tensor) -> None:
        """Count a case.

        Args:
            mean: probabilities, ``(1, classes, *spatial)``.
            deviation: their SD, ``(1, 1, *spatial)``; of no use without spread.
            label: class indices, ``(1, 1, *spatial)``.
        """
        maps = {SD: deviation, ENTROPY: entropy(mean)}
        for name, calibration in self.by_map.items():
            calibration.add(mean, maps[name], label)
        self.counted.append(count(mean[0].clamp(min=LEAST).log(), label[0]))

    def unseen_error(self) -> float:
        """Calibration error with each case at the temperature that fits the others best.

        Returns:
            NaN of one case, or where no temperature fits.
        """
        try:
            return fit_temperature(self.counted).error_unseen
        except InputError:  # the best one is beyond those there are to choose from
            return math.nan


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Shannon's entropy of class probabilities, over its largest: 0 where sure, 1 where all equal.

    Args:
        probabilities: ``(B, classes, *spatial)``.

    Returns:
        ``(B, 1, *spatial)``.
    """
    total = torch.special.entr(probabilities).sum(dim=1, keepdim=True)
    return (total / math.log(probabilities.shape[1])).clamp(0, 1)


def ways_of(name: str, experiment: Experiment, samples: int, views: KnownViews) -> Iterator[Way]:
    """The ways of a bundle's own network.

    Args:
        name: of the network.
        experiment: its.
        samples: drawn of each case, where several are.
        views: those that are a way, too, if more than one.
    """

    def drawn(number: int, seen: KnownViews) -> Iterator[dict[str, Any]]:
        sampler = experiment.sampler
        sampler.num_samples = number
        seen.let_see(sampler)
        yield from experiment.run(probabilities=True)

    yield Way(name, f"{samples} samples", lambda: drawn(samples, AS_IT_IS), True)
    yield Way(name, "one softmax", lambda: drawn(1, AS_IT_IS), False)
    if views.number > 1:
        yield Way(name, f"{views.number} views", lambda: drawn(views.number, views), True)
        if samples > views.number:
            yield Way(name, f"{samples} samples in views", lambda: drawn(samples, views), True)


def ways_of_peer(name: str, experiment: Experiment, views: KnownViews) -> Iterator[Way]:
    """The ways of a deterministic network; arguments as of `ways_of`."""

    def run(infer: Infer) -> Iterator[dict[str, Any]]:
        experiment.inferer = infer
        yield from experiment.run(probabilities=True)

    plain = experiment.inferer
    yield Way(name, "one softmax", lambda: run(plain), False)
    if views.number > 1:
        yield Way(name, f"{views.number} views", lambda: run(in_views(plain, views)), True)


def way_of_ensemble(experiment: Experiment, further: list[str]) -> Way:
    """The way of an ensemble, one sample of each network, as ``--ensemble`` of ``ldseg`` has it.

    Args:
        experiment: of the first network, which becomes the ensemble.
        further: files of the other networks' weights.
    """

    def run() -> Iterator[dict[str, Any]]:
        experiment.sampler.num_samples = 1 + len(further)
        yield from experiment.run(probabilities=True)

    experiment.network = with_ensemble(experiment.network, further).eval()
    return Way(f"ensemble of {1 + len(further)}", "a sample of each", run, True)


def in_views(infer: Infer, views: KnownViews) -> Infer:
    """An inferer of a peer that shows it each image in several views, as `SamplingInferer` does.

    Returns:
        One that gives the mean of the class probabilities and one channel of their SD.
    """

    def seen(image: torch.Tensor, network: Any) -> torch.Tensor:
        own = views.of_images(image.ndim - 2)
        logits = (view.bring_back(infer(view.show(image), network)) for view in own)
        return torch.cat(summarize(logits), dim=1)

    return seen


def judge(ways: Iterable[Way]) -> tuple[list[dict[str, str]], dict[str, dict[str, float]]]:
    """Segment all cases in every way.

    Returns:
        The table's rows, one a map of doubt; Dice and mean doubt of each case, by column and name.
    """
    rows, columns = [], {}
    for way in ways:
        judged, names = Judged(way.has_spread), []
        for case in way.cases():
            maps = [case[key].as_tensor()[None] for key in ("pred_mean", "pred_sd", "label")]
            judged.add(maps[0], maps[1], maps[2].long())
            names.append(case_name(case["image"].meta["filename_or_obj"]))
        error = judged.unseen_error()
        for doubt, calibration in judged.by_map.items():
            rows.append(row_of(way, doubt, calibration, error))
            spreads, dice = zip(*calibration.per_case, strict=True)
            columns[f"{way.network}, {way.name}: {doubt}"] = dict(zip(names, spreads, strict=True))
            columns[f"{way.network}, {way.name}: Dice"] = dict(zip(names, dice, strict=True))
    return rows, columns


def row_of(way: Way, doubt: str, calibration: Calibration, unseen_error: float) -> dict[str, str]:
    """A row of the table."""
    scores = calibration.scores()
    figures = {
        "AUROC": scores["AUROC"],
        "wrong": scores["SD wrong"],
        "right": scores["SD right"],
        "ECE": scores["ECE"],
        "ECE, tempered": unseen_error,
        "Brier": calibration.brier(),
        "rank correlation": calibration.rank_correlation(),
        "Dice": mean(dice for _, dice in calibration.per_case),
        "Dice of the surest": calibration.surest_dice(),
    }
    named = {"network": way.network, "probabilities": way.name, "doubt": doubt}
    return {**named, **{name: cell(value) for name, value in figures.items()}}
