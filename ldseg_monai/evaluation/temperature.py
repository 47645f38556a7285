"""Temperature scaling: probabilities that are right as often as they say.

Guo et al., ICML 2017, Section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ldseg_monai.runtime.errors import InputError

TEMPERATURES = tuple(2 ** (step / 8) for step in range(-16, 33))  # 1/4 to 16
UNCHANGED = TEMPERATURES.index(1)
BINS = 15  # of the confidence


class Case(NamedTuple):
    """What a case says at each temperature."""

    likelihood: torch.Tensor  # (temperatures,): negative log-likelihood, summed over voxels
    bins: torch.Tensor  # (temperatures, 3, BINS): as of `confidence_bins`


class Fit(NamedTuple):
    """A temperature, and the expected calibration error (ECE) without and with it."""

    cases: int
    temperature: float
    error_before: float
    error_after: float
    error_unseen: float  # each case at the temperature of the others; NaN of a single case


def fit_temperature(cases: Sequence[Case]) -> Fit:
    """Choose the temperature under which the labels of all cases' voxels are the most likely.

    Raises:
        ValueError: without a case, or if it is the least or the largest that there is to choose
            from.
    """
    if not cases:
        raise InputError("there is no case to fit to: expected at least one")
    likelihoods = torch.stack([case.likelihood for case in cases])
    bins = torch.stack([case.bins for case in cases])
    best = int(likelihoods.sum(0).argmin())
    if best in (0, len(TEMPERATURES) - 1):
        raise InputError(
            f"no temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g} fits best, it would "
            "be beyond: are these the weights of such images, and the labels right?"
        )
    of_others = (likelihoods.sum(0) - likelihoods).argmin(dim=1)
    unseen = torch.stack(
        [of_case[index] for of_case, index in zip(bins, of_others, strict=True)]
    ).sum(0)
    total = bins.sum(0)
    return Fit(
        len(cases),
        TEMPERATURES[best],
        calibration_error(total[UNCHANGED]),
        calibration_error(total[best]),
        calibration_error(unseen) if len(cases) > 1 else float("nan"),
    )


def calibration_error(bins: torch.Tensor) -> float:
    """Expected calibration error (Naeini et al., 2015).

    Args:
        bins: as of `confidence_bins`.
    """
    voxels, confidence, right = bins
    return ((confidence - right).abs().sum() / voxels.sum()).item()


def count(
    logits: torch.Tensor, label: torch.Tensor, temperatures: Sequence[float] = TEMPERATURES
) -> Case:
    """Count a case at every temperature, or at some.

    Args:
        logits: ``(classes, *spatial)``.
        label: class of each voxel, ``(1, *spatial)``.
        temperatures: others than all are for no `fit_temperature`.
    """
    logits, label = logits.flatten(1).float(), label.flatten().long()
    right = logits.argmax(dim=0) == label
    likelihood = torch.zeros(len(temperatures), dtype=torch.float64)
    bins = torch.zeros(len(temperatures), 3, BINS, dtype=torch.float64)
    for index, temperature in enumerate(temperatures):
        logarithms = (logits / temperature).log_softmax(dim=0)
        likelihood[index] = -logarithms.gather(0, label[None]).sum(dtype=torch.float64)
        bins[index] = confidence_bins(logarithms.amax(dim=0).exp(), right)
    return Case(likelihood, bins)


def confidence_bins(confidence: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Count voxels by the probability of their most probable class.

    MONAI's `calibration_binning` counts in float32, where a bin stops growing at 2 ** 24 voxels: a
    whole slide's background has more.

    Args:
        confidence: that probability.
        right: whether the class is the label's, of the same shape.

    Returns:
        ``(3, BINS)``: voxels, sum of their confidence, how many are right; float64.
    """
    confidence = confidence.flatten().double()
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    counted = torch.stack([torch.ones_like(confidence), confidence, right.flatten().double()])
    bins = torch.zeros(3, BINS, dtype=torch.float64)
    return bins.scatter_add_(1, which.expand(3, -1), counted)
