"""What several ways to say where a segmentation is wrong are worth, beside what each costs.

For `benchmarks.accuracy.experiments`. A way gives each case class probabilities and maps of doubt:
the SD over several segmentations, or the entropy of the probabilities. Ways: samples of a diffusion
method, one softmax, an ensemble of networks, Monte Carlo dropout, several views of an image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.networks.utils import train_mode
from torch import nn

from benchmarks.accuracy.experiment import Experiment
from benchmarks.accuracy.quality import Calibration, cell, expected_dice, mean
from benchmarks.known_views import AS_IT_IS, KnownViews
from ldseg_monai.data.datalist import case_name
from ldseg_monai.evaluation.temperature import TEMPERATURES, Case, count, fit_temperature
from ldseg_monai.inference.ensemble import summarize
from ldseg_monai.networks.weights import load_weights, with_ensemble
from ldseg_monai.runtime.errors import InputError

Infer = Callable[[torch.Tensor, Any], torch.Tensor]
SD, ENTROPY = "SD", "entropy"
ONE_SOFTMAX = "one softmax"
LEAST = 1e-12  # probability below which a logarithm is not taken
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


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
        temperatures: at which the calibration is counted, too.
    """

    def __init__(self, has_spread: bool, temperatures: Sequence[float] = TEMPERATURES) -> None:
        self.temperatures = temperatures
        names = [SD, ENTROPY] if has_spread else [ENTROPY]
        self.by_map = {name: Calibration() for name in names}
        self.counted: list[Case] = []
        self.expected: list[float] = []  # Dice of each case, by its probabilities

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
        self.expected.append(expected_dice(mean))
        logits = mean[0].clamp(min=LEAST).log()
        self.counted.append(count(logits, label[0], self.temperatures))

    def add_cases(self, way: Way) -> list[str]:
        """Segment all cases in a way and count them; returns their names."""
        names = []
        for case in way.cases():
            maps = [case[key].as_tensor()[None] for key in ("pred_mean", "pred_sd", "label")]
            self.add(maps[0], maps[1], maps[2].long())
            names.append(case_name(case["image"].meta["filename_or_obj"]))
        return names

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
    yield Way(name, ONE_SOFTMAX, lambda: drawn(1, AS_IT_IS), False)
    if views.number > 1:
        yield Way(name, f"{views.number} views", lambda: drawn(views.number, views), True)
        if samples > views.number:
            yield Way(name, f"{samples} samples in views", lambda: drawn(samples, views), True)


def ways_of_peer(
    name: str, experiment: Experiment, views: KnownViews, passes: int
) -> Iterator[Way]:
    """The ways of a deterministic network.

    Args:
        name: of the network.
        experiment: its.
        views: those that are a way, too, if more than one.
        passes: with dropout on, where the network has any.
    """

    def run(infer: Infer) -> Iterator[dict[str, Any]]:
        experiment.inferer = infer
        yield from experiment.run(probabilities=True)

    plain = experiment.inferer
    yield Way(name, ONE_SOFTMAX, lambda: run(plain), False)
    if views.number > 1:
        yield Way(name, f"{views.number} views", lambda: run(in_views(plain, views)), True)
    if dropouts_of(experiment.network):
        dropped = with_dropout(plain, passes)
        yield Way(name, f"{passes} passes with dropout", lambda: run(dropped), True)


def way_of_ensemble(experiment: Experiment, further: list[str], each: int = 1) -> Way:
    """The way of an ensemble of a diffusion method, as ``--ensemble`` of ``ldseg`` has it.

    Args:
        experiment: of the first network, which becomes the ensemble.
        further: files of the other networks' weights.
        each: samples of each network.
    """

    def run() -> Iterator[dict[str, Any]]:
        experiment.sampler.num_samples = each * (1 + len(further))
        yield from experiment.run(probabilities=True)

    experiment.network = with_ensemble(experiment.network, further).eval()
    name = "a sample of each" if each == 1 else f"{each} samples of each"
    return Way(f"ensemble of {1 + len(further)}", name, run, True)


def way_of_peers(experiment: Experiment, further: list[str]) -> Way:
    """The way of an ensemble of a deterministic network (Lakshminarayanan et al., 2017).

    Args:
        experiment: of the first network, whose inferer becomes the ensemble's.
        further: files of the other networks' weights.
    """
    networks = [experiment.network]
    for path in further:
        networks.append(copy.deepcopy(experiment.network))
        load_weights(networks[-1], path)
    experiment.inferer = of_networks(experiment.inferer, networks)
    return Way(
        f"ensemble of {len(networks)}",
        "a softmax of each",
        lambda: experiment.run(probabilities=True),
        True,
    )


def of_networks(infer: Infer, networks: list[nn.Module]) -> Infer:
    """An inferer that shows an image to each of some networks, whichever it is called with.

    Returns:
        As of `in_views`.
    """

    def seen(image: torch.Tensor, network: Any) -> torch.Tensor:
        return torch.cat(summarize(infer(image, one) for one in networks), dim=1)

    return seen


def dropouts_of(network: nn.Module) -> list[nn.Module]:
    """A network's modules of dropout, but those that drop nothing."""
    found = [module for module in network.modules() if isinstance(module, DROPOUTS)]
    return [module for module in found if module.p > 0]


def with_dropout(infer: Infer, passes: int, seed: int = 0) -> Infer:
    """An inferer that leaves dropout on: Monte Carlo dropout (Gal and Ghahramani, 2016).

    All else stays as it is, such as the statistics of a batch normalization.

    Args:
        infer: of one pass.
        passes: of an image.
        seed: of what is dropped, the same for each image.

    Returns:
        As of `in_views`.

    Raises:
        InputError: when it is called with a network that has no dropout.
    """

    def seen(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
        dropouts = dropouts_of(network)
        if not dropouts:
            raise InputError(
                f"{type(network).__name__} has no dropout: expected a network with some, such as "
                "that of an overlay *_dropout.yaml"
            )
        with torch.random.fork_rng(), train_mode(*dropouts), torch.no_grad():
            torch.manual_seed(seed)
            return torch.cat(summarize(infer(image, network) for _ in range(passes)), dim=1)

    return seen


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
        judged = Judged(way.has_spread)
        names = judged.add_cases(way)
        error = judged.unseen_error()
        for doubt, calibration in judged.by_map.items():
            figures = {**figures_of(calibration, error), "expected Dice": mean(judged.expected)}
            rows.append(row_of(way.network, way.name, doubt, figures))
        columns |= columns_of(way.network, way.name, judged, names)
    return rows, columns


def columns_of(
    network: str, name: str, judged: Judged, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Dice and mean doubt of each case, by column and the case's name; as of `Way`."""
    columns = {}
    for doubt, calibration in judged.by_map.items():
        spreads, dice = zip(*calibration.per_case, strict=True)
        columns[f"{network}, {name}: {doubt}"] = dict(zip(names, spreads, strict=True))
        columns[f"{network}, {name}: Dice"] = dict(zip(names, dice, strict=True))
    return columns


def figures_of(calibration: Calibration, unseen_error: float) -> dict[str, float]:
    """The measures of a map of doubt, by the table's headings."""
    scores = calibration.scores()
    return {
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


def row_of(network: str, name: str, doubt: str, figures: Mapping[str, float]) -> dict[str, str]:
    """A row of the table."""
    named = {"network": network, "probabilities": name, "doubt": doubt}
    return {**named, **{name: cell(value) for name, value in figures.items()}}
