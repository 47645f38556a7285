"""Paired comparison of two segmenters by their scores on the same cases."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.stats import ttest_1samp, wilcoxon

Case = TypeVar("Case", bound=Hashable)
DECIMALS = 12  # of a difference; what is beyond them is rounding, and would part equal ones
RESAMPLES, BATCH = 10_000, 100  # of the bootstrap, and how many of them are drawn at once
CONFIDENCE = 0.95


class Comparison(NamedTuple):
    """How two segmenters, A and B, differ in one score; NaN where something is not defined.

    Attributes:
        n: pairs of cases, or of groups such as patients.
        a: mean of A.
        b: mean of B.
        difference: mean of B minus A.
        low: lower end of the difference's 95% bootstrap interval.
        high: its upper end.
        t_test: p of the two-sided paired t-test.
        wilcoxon: p of Wilcoxon's two-sided signed-rank test.
    """

    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    t_test: float
    wilcoxon: float


def compare(
    a: Mapping[Case, float],
    b: Mapping[Case, float],
    groups: Mapping[Case, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare one score of two segmenters on the cases of which both have it.

    Args:
        a: score of each case by A; NaN for none.
        b: by B.
        groups: of cases that are no samples of their own, such as patients: see `pooled`.
        seed: of the bootstrap.
    """
    cases = [case for case in a if case in b and math.isfinite(b[case] - a[case])]
    of_a = pooled({case: a[case] for case in cases}, groups or {})
    of_b = pooled({case: b[case] for case in cases}, groups or {})
    differences = [second - first for first, second in zip(of_a, of_b, strict=True)]
    if not differences:
        return Comparison(0, *[math.nan] * 7)
    low, high = bootstrap_interval(differences, seed)
    return Comparison(
        len(differences),
        float(np.mean(of_a)),
        float(np.mean(of_b)),
        float(np.mean(differences)),
        low,
        high,
        p_of_t_test(differences),
        p_of_wilcoxon(differences),
    )


def pooled(values: Mapping[Case, float], groups: Mapping[Case, str]) -> list[float]:
    """The mean of each group's values; a case without a group is one of its own."""
    members: dict[tuple[bool, Hashable], list[float]] = {}
    for case, value in values.items():
        members.setdefault((case in groups, groups.get(case, case)), []).append(value)
    return [float(np.mean(own)) for own in members.values()]


def p_of_wilcoxon(differences: Sequence[float]) -> float:
    """P of Wilcoxon's two-sided signed-rank test; 1 where all are 0, by which SciPy would divide.

    Args:
        differences: of pairs, one or more.
    """
    rounded = np.round(differences, DECIMALS)
    return float(wilcoxon(rounded).pvalue) if rounded.any() else 1.0


def p_of_t_test(differences: Sequence[float]) -> float:
    """P of the two-sided paired t-test; NaN of one difference, or of equal ones: without spread.

    Args:
        differences: of pairs, one or more.
    """
    rounded = np.round(differences, DECIMALS)
    return float(ttest_1samp(rounded, 0.0).pvalue) if np.ptp(rounded) else math.nan


def bootstrap_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95% interval of a mean, by the percentiles of its bootstrap; NaN of one difference.

    Args:
        differences: of pairs, which are drawn with replacement.
        seed: of the draws.
    """
    values, random = np.asarray(differences), np.random.default_rng(seed)
    if len(values) < 2:
        return math.nan, math.nan
    means = []
    for _ in range(RESAMPLES // BATCH):
        drawn = random.integers(len(values), size=(BATCH, len(values)))
        means.append(values[drawn].mean(axis=1))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [outside, 1 - outside])
    return float(low), float(high)
