"""What a Dice alone hides about an LDSeg: use of the latent, effect of noise, worth of the spread.

For the other programs of this folder. Everything is measured on the network's grid, on pairs
``(image, label)`` of shapes ``(1, C, *spatial)`` and ``(1, 1, *spatial)``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from monai.metrics import compute_dice
from monai.networks.utils import one_hot

from benchmarks.accuracy.latent import denoised_from_middle, share_between_cases
from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.evaluation.temperature import BINS, calibration_error, confidence_bins
from ldseg_monai.inference.ensemble import case_uncertainty, summarize
from ldseg_monai.networks.ldseg.network import LDSeg

Pair = tuple[torch.Tensor, torch.Tensor]
STEPS = (1, 2, 10)
NUM_SAMPLES = 8
NUM_BINS = 10000
LEAST_SPREAD = 1e-10  # below it, spreads are not told apart
TO_A_HUMAN = 0.1  # share of the cases, the least sure ones


def foreground_dice(scores: torch.Tensor, label: torch.Tensor) -> float:
    """Mean Dice of the classes that the label has, as of `MeanCaseDice`; NaN for an empty label.

    Args:
        scores: of the classes, ``(1, classes, *spatial)``.
        label: class indices, ``(1, 1, *spatial)``.
    """
    return label_dice(scores.float().max(dim=1, keepdim=True).indices, label, scores.shape[1])


def label_dice(prediction: torch.Tensor, label: torch.Tensor, classes: int) -> float:
    """`foreground_dice` of a segmentation in class indices ``(1, 1, *spatial)``."""
    masks = [one_hot(mask.long(), classes) for mask in (prediction, label)]
    return compute_dice(*masks, include_background=False).nanmean().item()


def expected_dice(probabilities: torch.Tensor) -> float:
    r"""Mean Dice that class probabilities expect of their own most probable classes.

    The expectations are those of the Dice's numerator and denominator: for a class that was found
    at the voxels S, :math:`2 \sum_S p / (|S| + \sum p)`. Probabilities that are too sure of the
    foreground expect too much. Much background hides that from the calibration error.

    Args:
        probabilities: ``(1, classes, *spatial)``.

    Returns:
        Mean over the foreground classes that were found; NaN if none was.
    """
    found = one_hot(probabilities.max(dim=1, keepdim=True).indices, probabilities.shape[1])
    p, s = (values[0, 1:].flatten(1).double() for values in (probabilities, found))
    sizes = s.sum(dim=1)
    return (2 * (p * s).sum(dim=1) / (p.sum(dim=1) + sizes))[sizes > 0].mean().item()


def with_noise(image: torch.Tensor, sigma: float, index: int) -> torch.Tensor:
    """The image under Gaussian noise of this SD, the same for each network: the case seeds it."""
    return image + sigma * torch.randn(
        image.shape, generator=torch.Generator().manual_seed(index)
    ).to(image.device)


def known(values: Iterable[float]) -> list[float]:
    """Those that are not NaN."""
    return [value for value in values if not math.isnan(value)]


def mean(values: Iterable[float]) -> float:
    """Mean of the known ones; NaN if there is none."""
    return statistics.fmean(some) if (some := known(values)) else math.nan


def deviation(values: Iterable[float]) -> float:
    """Standard deviation (over n - 1) of the known ones; NaN if there are not two."""
    return statistics.stdev(some) if len(some := known(values)) > 1 else math.nan


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each column over the cases that have it."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: mean(values) for name, values in columns.items()}


class Calibration:
    """How the spread and the mean probability relate to errors, voxel by voxel over all cases.

    Voxels are counted in bins of the spread's logarithm (for its ranks: where samples are sure, it
    is far below its largest, 1) and of the confidence, so that nothing grows with their number.
    """

    def __init__(self) -> None:
        self.by_spread = torch.zeros(2, NUM_BINS, dtype=torch.float64)  # right, wrong
        self.sums = torch.zeros(2, dtype=torch.float64)
        self.by_confidence = torch.zeros(3, BINS, dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)
        self.per_case: list[tuple[float, float]] = []

    def add(self, mean: torch.Tensor, deviation: torch.Tensor, label: torch.Tensor) -> None:
        """Count a case.

        Args:
            mean: probabilities, ``(1, classes, *spatial)``.
            deviation: their SD, or another score of doubt from 0 to 1, ``(1, 1, *spatial)``.
            label: class indices, ``(1, 1, *spatial)``.
        """
        confidence, prediction = mean.max(dim=1, keepdim=True)
        wrong = (prediction != label).flatten()
        spread = deviation.flatten()
        for kind, chosen in enumerate((~wrong, wrong)):
            limits = math.log(LEAST_SPREAD), 0.0
            self.by_spread[kind] += torch.histc(
                spread[chosen].double().log().clamp(*limits), NUM_BINS, *limits
            )
            self.sums[kind] += spread[chosen].double().sum()
        self.by_confidence += confidence_bins(confidence, ~wrong)
        truth = one_hot(label.long(), mean.shape[1])
        self.squares += (mean.double() - truth).square().sum()
        self.per_case.append(
            (case_uncertainty(prediction, deviation), foreground_dice(mean, label))
        )

    def add_counts(self, counts: Mapping[str, Any]) -> None:
        """Count what another one did: its ``vars``."""
        for name, value in counts.items():
            setattr(self, name, getattr(self, name) + value)

    def scores(self) -> dict[str, float]:
        """SD on right and wrong voxels, its area under the ROC for wrong ones, ECE."""
        right, wrong = self.by_spread
        below = right.cumsum(0) - right
        area = (wrong * (below + right / 2)).sum() / (wrong.sum() * right.sum())
        pairs = torch.tensor(self.per_case)
        correlation = torch.corrcoef(pairs[pairs.isfinite().all(dim=1)].T)[0, 1]
        means = self.sums / self.by_spread.sum(dim=1)
        return {
            "SD wrong": means[1].item(),
            "SD right": means[0].item(),
            "AUROC": area.item(),
            "ECE": calibration_error(self.by_confidence),
            "SD-Dice r": correlation.item(),
        }

    def brier(self) -> float:
        """Brier's score (1950): squared error of the probabilities, summed over the classes.

        Returns:
            Its mean over the voxels, from 0 to 2.
        """
        return (self.squares / self.by_spread.sum()).item()

    def rank_correlation(self) -> float:
        """Spearman's rank correlation of a case's spread with its Dice; NaN where there is none."""
        from scipy.stats import rankdata

        spreads, dice = self._known_cases()
        if len(dice) < 2:
            return math.nan
        ranks = torch.from_numpy(rankdata([spreads, dice], axis=1))
        return torch.corrcoef(ranks)[0, 1].item()

    def surest_dice(self) -> float:
        """Mean Dice of the cases that are left when a human takes the least sure, `TO_A_HUMAN`."""
        spreads, dice = self._known_cases()
        taken = math.ceil(TO_A_HUMAN * len(dice))
        order = sorted(range(len(dice)), key=spreads.__getitem__)
        return mean(dice[index] for index in order[: len(dice) - taken])

    def _known_cases(self) -> tuple[list[float], list[float]]:
        """Spread and Dice of the cases that have a Dice."""
        cases = [(spread, dice) for spread, dice in self.per_case if not math.isnan(dice)]
        return [spread for spread, _ in cases], [dice for _, dice in cases]


@torch.no_grad()
def ldseg_scores(network: LDSeg, pairs: list[Pair], sigmas: list[float]) -> dict[str, float]:
    """Every figure of a row, averaged over the pairs, in eval mode and under the autocast wanted.

    Args:
        network: the network.
        pairs: images and labels.
        sigmas: standard deviations of the noise, in the units of the network's input.
    """
    latents = [network.encode_label(label) for _, label in pairs]
    rows, calibration = [], Calibration()
    for index, (image, label) in enumerate(pairs):
        own, other = latents[index], latents[index - 1]
        if other.shape != own.shape:
            raise ValueError(
                f"cases of sizes {list(own.shape)}, {list(other.shape)}: expected one size, to "
                "swap latents"
            )
        embedding, features = network.encode_image(image)
        row = {
            "ceiling": foreground_dice(network.label_decoder(own), label),
            "swapped": foreground_dice(network.label_decoder(other, features), label),
        }
        noise = seeded_noise(list(own.shape[1:]), 0)
        for name, clean in (("own at T/2", own), ("other at T/2", other)):
            decoded = network.label_decoder(
                denoised_from_middle(network, clean, embedding, noise[0]), features
            )
            row[name] = foreground_dice(decoded, label)
        shape = network.noise_shape(image)
        for steps in STEPS:
            draws = network.seeded_noise(shape, 0, 1, steps)
            (logits,) = network.draw(image, draws, steps)
            row[f"K = {steps}"] = foreground_dice(network.enlarge(logits), label)
        for sigma in sigmas:
            noisy = with_noise(image, sigma, index)
            row[f"noise {sigma:g}"] = foreground_dice(network.segment(noisy), label)
        samples = network.draw(image, network.seeded_noise(shape, 0, NUM_SAMPLES))
        probabilities, spread = summarize(map(network.enlarge, samples))
        row[f"mean of {NUM_SAMPLES}"] = foreground_dice(probabilities, label)
        calibration.add(probabilities, spread, label)
        rows.append(row)
    return {
        **average(rows),
        "between cases": share_between_cases(torch.cat(latents)),
        **calibration.scores(),
    }


@torch.no_grad()
def peer_scores(
    network: torch.nn.Module, pairs: list[Pair], sigmas: list[float]
) -> dict[str, float]:
    """The figures that a deterministic network has: Dice, also under noise, and calibration.

    Its own say on where it is wrong is the standard deviation of a draw from its softmax, ``sqrt(p
    (1 - p))``.
    """
    rows, calibration = [], Calibration()
    for index, (image, label) in enumerate(pairs):
        logits = network(image)
        row = {"K = 1": foreground_dice(logits, label)}
        for sigma in sigmas:
            noisy = with_noise(image, sigma, index)
            row[f"noise {sigma:g}"] = foreground_dice(network(noisy), label)
        probabilities = logits.float().softmax(dim=1)
        spread = (probabilities * (1 - probabilities)).sqrt().amax(dim=1, keepdim=True)
        calibration.add(probabilities, spread, label)
        rows.append(row)
    return {**average(rows), **calibration.scores()}


def cell(value: float | None) -> str:
    """A figure as a table shows it: three decimals below 10, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
