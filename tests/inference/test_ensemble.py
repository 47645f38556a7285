from __future__ import annotations

import weakref

import pytest
import torch

from ldseg_monai.inference.ensemble import PART, case_uncertainty, most_probable_class, summarize


@pytest.mark.parametrize("classes", [2, 3])
def test_summary_is_the_mean_and_the_deviation_of_the_most_uncertain_class(classes: int) -> None:
    logits = torch.randn(5, 2, classes, 4, 4)
    mean, deviation = summarize(iter(logits))
    probability = logits.softmax(dim=2)
    torch.testing.assert_close(mean, probability.mean(0))
    torch.testing.assert_close(
        deviation, probability.std(0, correction=0).amax(1, keepdim=True), rtol=1e-4, atol=1e-5
    )


def test_logits_of_a_sample_are_gone_when_the_next_is_asked_for() -> None:
    drawn: list[weakref.ref[torch.Tensor]] = []

    def draw() -> torch.Tensor:
        assert [sample for sample in drawn if sample() is not None] == []
        logits = torch.randn(1, 2, 3, 3)
        drawn.append(weakref.ref(logits))
        return logits

    summarize(draw() for _ in range(6))
    assert len(drawn) == 6


def test_uncertainty_is_the_mean_deviation_of_foreground_and_doubtful_background() -> None:
    label = torch.tensor([[[0, 0, 1], [2, 0, 0]]], dtype=torch.uint8)
    deviation = torch.tensor([[[0.04, 0.3, 0.0], [0.2, 0.06, 0.01]]])
    assert case_uncertainty(label, deviation) == pytest.approx((0.3 + 0.0 + 0.2 + 0.06) / 4)
    assert case_uncertainty(label, deviation, threshold=0.1) == pytest.approx((0.3 + 0.0 + 0.2) / 3)


def test_image_without_foreground_and_doubt_has_no_uncertainty() -> None:
    assert case_uncertainty(torch.zeros(1, 4, 4), torch.full([1, 4, 4], 0.05)) == 0


@pytest.mark.parametrize("dim", [0, 1])
def test_most_probable_class_is_that_of_argmax_on_axes_of_any_length(dim: int) -> None:
    for length in (1, PART, 2 * PART + 3):
        scores = torch.randn([2] * dim + [4, length, 5], generator=torch.Generator().manual_seed(0))
        label = most_probable_class(scores, dim)
        assert label.dtype == torch.uint8
        assert torch.equal(label.long(), scores.argmax(dim, keepdim=True))
