"""Paired tests against values that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ldseg_monai.evaluation.paired import (
    bootstrap_interval,
    compare,
    p_of_t_test,
    p_of_wilcoxon,
    pooled,
)


def test_t_test_of_three_differences() -> None:
    # Mean 2, SD 1: t = 2 sqrt(3), and with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    assert p_of_t_test([1.0, 2.0, 3.0]) == pytest.approx(1 - math.sqrt(12 / 14))


@pytest.mark.parametrize("number", [5, 6, 7])
def test_least_p_of_wilcoxon_is_of_one_sign(number: int) -> None:
    differences = [float(rank) for rank in range(1, number + 1)]
    assert p_of_wilcoxon(differences) == pytest.approx(2 / 2**number)
    assert p_of_wilcoxon([-one for one in differences]) == pytest.approx(2 / 2**number)


def test_wilcoxon_counts_the_signs_of_the_ranks() -> None:
    # The sum of the negative ranks is 1; of the 16 signings two have 0 or 1, and as many mirrored
    assert p_of_wilcoxon([-1.0, 2.0, 3.0, 4.0]) == pytest.approx(4 / 16)


def test_equal_differences_have_no_spread_whatever_their_rounding() -> None:
    differences = [0.8 - 0.7, 0.9 - 0.8, 0.4 - 0.3]
    assert len(set(differences)) > 1
    assert math.isnan(p_of_t_test(differences))
    assert p_of_wilcoxon([0.1 + 0.2 - 0.3, 0.0]) == 1.0
    assert math.isnan(p_of_t_test([0.1]))


def test_interval_is_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(0.3, 0.1, 400)
    low, high = bootstrap_interval(values.tolist())
    width = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - width, values.mean() + width), abs=0.001)
    assert bootstrap_interval(values.tolist()) == (low, high)
    assert bootstrap_interval(values.tolist(), seed=1) != (low, high)
    # Both values, or twice one of them: a quarter each
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
    assert all(map(math.isnan, bootstrap_interval([1.0])))


def test_cases_of_a_group_are_one() -> None:
    values = {"a": 1.0, "b": 3.0, "c": 5.0, "p": 7.0}
    assert pooled(values, {"a": "p", "b": "p"}) == [2.0, 5.0, 7.0]
    assert pooled(values, {}) == [1.0, 3.0, 5.0, 7.0]


def test_comparison_is_of_the_cases_that_both_have_a_score_of() -> None:
    a = {"a": 0.5, "b": 0.7, "c": math.nan, "d": 0.1, "only": 0.0}
    b = {"a": 0.6, "b": 0.9, "c": 0.3, "d": math.nan, "other": 1.0}
    found = compare(a, b)
    assert found.n == 2
    assert (found.a, found.b) == pytest.approx((0.6, 0.75))
    assert (found.difference, found.low, found.high) == pytest.approx((0.15, 0.1, 0.2))
    pooled_first = compare(a, b, {"a": "one", "b": "one"})
    assert pooled_first.n == 1 and pooled_first.difference == pytest.approx(0.15)
    nothing = compare({"a": math.nan}, {"a": 1.0})
    assert nothing.n == 0 and all(map(math.isnan, nothing[1:]))
