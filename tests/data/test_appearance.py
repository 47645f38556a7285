"""What an image looks like, in numbers with known values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldseg_monai.data.appearance import (
    BINS,
    LEVELS,
    MARGIN,
    QUANTILES,
    SMALLEST_SD,
    Group,
    appearance,
    distance,
    fit,
    limit,
)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("shape", "parts"), [((1, 256, 256), 4), ((1, 80, 80, 80), 8)])
def test_halving_leaves_noise_the_share_that_a_mean_has(shape: tuple[int, ...], parts: int) -> None:
    shares = [(1 - 1 / parts) / parts**level for level in range(3)]  # var of a mean of n is 1 / n
    found = 10 ** appearance(noise(*shape))[:3]
    np.testing.assert_allclose(found, shares, rtol=0.1)


def test_quantiles_and_profiles_of_a_ramp_are_those_of_a_uniform_distribution() -> None:
    rows = torch.linspace(0, 1, 512)[:, None].expand(512, 512)[None]
    numbers = appearance(rows)
    half = 3**0.5  # a uniform distribution of SD 1 is from -sqrt(3) to sqrt(3)
    expected = half * (2 * np.array(QUANTILES) - 1)
    np.testing.assert_allclose(numbers[LEVELS : LEVELS + 5], expected, atol=0.01)
    np.testing.assert_allclose(
        numbers[9 : 9 + BINS], half * np.array([-0.75, -0.25, 0.25, 0.75]), atol=0.01
    )
    np.testing.assert_allclose(numbers[9 + BINS :], 0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 90, 70), (3, 90, 70), (1, 40, 30, 50)])
def test_scale_and_offset_of_intensities_say_nothing(shape: tuple[int, ...]) -> None:
    image = noise(*shape).cumsum(1)
    numbers = appearance(image)
    assert len(numbers) == {1: 17, 3: 19}[shape[0]] if len(shape) == 3 else len(numbers) == 9
    np.testing.assert_allclose(appearance(image * 7.5 + 300), numbers, rtol=1e-3, atol=1e-3)


def test_axes_of_a_volume_may_be_in_any_order() -> None:
    image = noise(1, 40, 32, 48).cumsum(2)
    turned = image.permute(0, 3, 1, 2).flip(1)
    np.testing.assert_allclose(appearance(turned), appearance(image), atol=1e-4)


def test_color_is_the_difference_of_the_channels_means() -> None:
    image = 100 + 10 * noise(1, 64, 64).expand(3, 64, 64).clone()
    assert appearance(image)[-2:].tolist() == [0, 0]
    image[0] += 30
    image[2] -= 10
    expected = np.array([30, -10]) / float(image.std())
    np.testing.assert_allclose(appearance(image)[-2:], expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 2, 9, 9)])
def test_small_and_constant_images_have_finite_numbers(shape: tuple[int, ...]) -> None:
    for image in (torch.zeros(shape), noise(*shape)):
        assert np.isfinite(appearance(image)).all()


def test_distance_is_the_root_mean_square_score_to_the_nearest_group() -> None:
    groups = {"a": Group([0, 0], [1, 2]), "b": Group([10, 10], [1, 1]), "c": Group([1.0], [1.0])}
    assert distance(np.array([3.0, 8.0]), groups) == pytest.approx(((3**2 + 4**2) / 2) ** 0.5)
    assert distance(np.array([10.0, 11.0]), groups) == pytest.approx(0.5**0.5)
    assert distance(np.array([1.0, 2.0, 3.0]), groups) == np.inf


def test_group_and_limit_are_of_the_images() -> None:
    numbers = np.random.default_rng(0).normal(5, 2, (400, 20))
    group = fit(numbers)
    np.testing.assert_allclose(group.mean, numbers.mean(0), rtol=1e-3)
    np.testing.assert_allclose(group.sd, numbers.std(0, ddof=1), rtol=1e-3)
    assert min(fit(np.ones((9, 3))).sd) == SMALLEST_SD
    # The mean square of 20 scores is a chi-squared variable of 20 degrees over 20: 37.57 at 99%
    assert limit(numbers) == pytest.approx(MARGIN * (37.57 / 20) ** 0.5, rel=0.05)
