"""What an image looks like, in numbers with known values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ldseg_monai.data.appearance import (
    BINS,
    LEAST,
    LEVELS,
    MARGIN,
    QUANTILES,
    SIDE,
    SMALLEST_SD,
    SMALLEST_SHRINKAGE,
    Group,
    appearance,
    nearest,
    resized,
    shrunk_correlation,
)
from ldseg_monai.runtime.errors import InputError


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def group(mean: list[float], sd: list[float], limit: float = np.inf, between: float = 0) -> Group:
    correlation = np.full((len(mean), len(mean)), between)
    np.fill_diagonal(correlation, 1)
    return Group(np.array(mean), np.array(sd), correlation, limit)


@pytest.mark.parametrize(("shape", "axes"), [((1, 256, 256), 2), ((1, 80, 80, 80), 3)])
def test_levels_of_noise_are_what_its_interpolated_means_leave(
    shape: tuple[int, ...], axes: int
) -> None:
    # A voxel's own mean, of 2 along each axis, has the weight 3/4 along each, the next one 1/4
    of_means = (10 / 16 / 2) ** axes
    shared = (3 / 4 / 2) ** axes
    shares = [(1 - 2 * shared + of_means) / 2 ** (axes * level) for level in range(3)]
    found = 10 ** appearance(noise(*shape))[:3]
    np.testing.assert_allclose(found, shares, rtol=0.1)


def test_halving_an_image_moves_its_levels_by_one() -> None:
    image = noise(3, 256, 192).cumsum(1)
    half = functional.avg_pool2d(image, 2)
    for start, whole, part in (
        (0, image.mean(0), half.mean(0)),
        (LEVELS + 5, image.mean(0), half.mean(0)),  # of red less green, in the gray one's variance
    ):
        levels = slice(start, start + LEVELS)
        variances = float(np.log10(whole.var() / part.var()))
        np.testing.assert_allclose(
            appearance(half)[levels][:-1], appearance(image)[levels][1:] + variances, atol=1e-4
        )


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


@pytest.mark.parametrize("shape", [(1, 40, 32, 48), (3, 64, 80)])
def test_axes_of_a_volume_and_of_a_picture_in_colors_may_be_in_any_order(
    shape: tuple[int, ...],
) -> None:
    image = noise(*shape).cumsum(2)
    turned = image.transpose(1, -1).flip(1)
    np.testing.assert_allclose(appearance(turned), appearance(image), atol=1e-4)


def test_colors_are_the_differences_of_the_channels() -> None:
    image = 100 + 10 * noise(1, 64, 64).expand(3, 64, 64).clone()
    least = [np.log10(LEAST)] * LEVELS
    np.testing.assert_allclose(appearance(image)[-2 * LEVELS - 2 :], [*least, 0, *least, 0])
    image[0] += 30
    image[2] -= 10
    expected = np.array([30, -10]) / float(image.std())
    np.testing.assert_allclose(appearance(image)[[-LEVELS - 2, -1]], expected, rtol=1e-4)
    image[0] += 3 * (image[1] - 100)  # so that gray is twice green, less a constant
    levels = appearance(image)
    red = levels[-2 * LEVELS - 2 : -LEVELS - 2]  # thrice green, beside twice green
    np.testing.assert_allclose(red, levels[:LEVELS] + 2 * np.log10(3 / 2), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 3, 4), (1, 2, 9, 9)])
def test_small_and_constant_images_have_finite_numbers(shape: tuple[int, ...]) -> None:
    for image in (torch.zeros(shape), noise(*shape)):
        assert np.isfinite(appearance(image)).all()
        assert np.isfinite(appearance(resized(image))).all()


def test_an_image_at_twice_the_scale_is_the_same_one_resized() -> None:
    image = functional.avg_pool2d(noise(1, 1024, 1024).cumsum(1), 4)
    double = functional.interpolate(image[None], scale_factor=2, mode="bilinear")[0]
    assert resized(double).shape == (1, SIDE[2], SIDE[2])
    assert resized(noise(1, 30, 40, 50)).shape == (1, SIDE[3], SIDE[3], SIDE[3])
    away = np.abs(appearance(resized(double)) - appearance(image))
    assert away.max() < 0.3 < np.abs(appearance(double) - appearance(image)).max()


def test_distance_is_mahalanobis_and_the_nearest_group_is_that_of_the_least_share() -> None:
    groups = {
        "a": group([0, 0], [1, 2], limit=2),
        "b": group([10, 10], [1, 1], limit=0.5),
        "c": group([1.0], [1.0]),
    }
    assert nearest(np.array([3.0, 8.0]), groups) == (pytest.approx((25 / 2) ** 0.5), 2)
    assert nearest(np.array([10.0, 11.0]), groups) == (pytest.approx(0.5**0.5), 0.5)
    assert nearest(np.array([1.0, 2.0, 3.0]), groups)[0] == np.inf
    # Along the correlation r, scores s, s have the squared distance 2 s^2 / (1 + r)
    along = group([0, 0], [1, 1], between=0.6).distance(np.array([2.0, 2.0]))
    assert along == pytest.approx((2 * 2**2 / 1.6 / 2) ** 0.5)
    against = group([0, 0], [1, 1], between=0.6).distance(np.array([2.0, -2.0]))
    assert against == pytest.approx((2 * 2**2 / 0.4 / 2) ** 0.5)


def test_group_and_limit_are_of_the_images() -> None:
    draw = np.random.default_rng(0)
    numbers = draw.normal(5, 2, (400, 20))
    found = Group.fit(numbers)
    np.testing.assert_allclose(found.mean, numbers.mean(0))
    np.testing.assert_allclose(found.sd, numbers.std(0, ddof=1))
    assert Group.fit(np.ones((9, 3))).sd.tolist() == [SMALLEST_SD] * 3
    # The mean square of 20 scores is a chi-squared variable of 20 degrees over 20: 37.57 at 99%
    assert found.limit == pytest.approx(MARGIN * (37.57 / 20) ** 0.5, rel=0.06)


def test_a_file_has_a_group_rounded_and_others_are_refused() -> None:
    draw = np.random.default_rng(0)
    found = Group.fit(draw.normal(size=(12, 4)) @ draw.normal(size=(4, 4)))
    declared = found.declared()
    again = Group.read(declared, "it")
    assert again.limit == found.limit
    for name in ("mean", "sd", "correlation"):
        np.testing.assert_allclose(getattr(again, name), getattr(found, name), rtol=1e-3, atol=6e-5)
    wrong: dict[str, object] = {"correlation": "0.5", "sd": [1, 2], "limit": None, "mean": ["a"]}
    for name, value in wrong.items():
        with pytest.raises(InputError, match="expected mean, sd, correlation and limit"):
            Group.read(declared | {name: value}, "it")
    singular = {"mean": [0, 0], "sd": [1, 1], "correlation": "1", "limit": 2}
    with pytest.raises(InputError, match="it cannot be read"):
        Group.read(singular, "it")


@pytest.mark.parametrize("count", [8, 30, 300])
def test_correlations_shrink_as_far_as_the_images_differ_in_them(count: int) -> None:
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(count, 6)) @ (np.eye(6) + 0.7)
    scores = (numbers - numbers.mean(0)) / numbers.std(0)
    sample = np.corrcoef(numbers.T)
    errors = []  # of each image's products, as the paper writes them
    for one in scores:
        errors.append(np.square(np.outer(one, one) - sample).sum() / count**2)
    shrinkage = min(1, sum(errors) / np.square(sample - np.eye(6)).sum())
    expected = (1 - shrinkage) * sample + shrinkage * np.eye(6)
    np.testing.assert_allclose(shrunk_correlation(scores), expected)


def test_correlations_can_always_be_inverted() -> None:
    alike = np.repeat(np.random.default_rng(0).normal(size=(50_000, 1)), 3, axis=1)
    found = shrunk_correlation((alike - alike.mean(0)) / alike.std(0))
    np.testing.assert_allclose(found[0], [1, 1 - SMALLEST_SHRINKAGE, 1 - SMALLEST_SHRINKAGE])
