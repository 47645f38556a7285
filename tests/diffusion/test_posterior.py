from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDPMScheduler

from ldseg_monai.diffusion.schedulers import PosteriorScheduler

# Worked out from the formulas of Algorithms 1 and 2 for beta_min 0.1 and beta_max 20, for t = 1 to
# T: beta_t, abar_t, what the posterior's mean takes of x_0 and of x_t, and its variance.
NUMBERS = {
    2: [
        (0.920936, 7.906381e-02, 1.0, 0.0, 0.0),
        (0.999454, 4.318575e-05, 0.281041, 0.021524, 0.920473),
    ],
    4: [
        (0.476320, 5.236797e-01, 1.0, 0.0, 0.0),
        (0.849023, 7.906381e-02, 0.667149, 0.200967, 0.439126),
        (0.956473, 3.441407e-03, 0.269873, 0.192799, 0.883892),
        (0.987451, 4.318575e-05, 0.057930, 0.111641, 0.984095),
    ],
}
SIZES = [(16, 13), (8, 12, 6)]
each_size = pytest.mark.parametrize("size", SIZES)
each_t = pytest.mark.parametrize("num_timesteps", [2, 4])


@each_t
def test_schedule_is_that_of_the_papers_formula(num_timesteps: int) -> None:
    scheduler = PosteriorScheduler(num_timesteps)
    betas, products = torch.tensor(NUMBERS[num_timesteps])[:, :2].unbind(1)
    torch.testing.assert_close(scheduler.betas, betas, rtol=0, atol=1e-6)
    torch.testing.assert_close(scheduler.alphas_cumprod, products, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        scheduler.alphas, 1 - betas.double(), rtol=0, atol=1e-6, check_dtype=False
    )
    torch.testing.assert_close(scheduler.alphas.cumprod(0), products, rtol=1e-5, atol=0)


def test_noise_rates_are_arguments_of_the_schedule() -> None:
    flat = PosteriorScheduler(2, beta_min=2.0, beta_max=2.0)
    torch.testing.assert_close(flat.alphas, torch.full([2], 0.367879))  # exp(-2 / 2)
    assert (
        not PosteriorScheduler(2, "linear_beta").alphas_cumprod.isclose(flat.alphas_cumprod).any()
    )


@each_t
def test_all_schedules_end_at_the_same_noise(num_timesteps: int) -> None:
    assert PosteriorScheduler(num_timesteps).alphas_cumprod[-1].item() == pytest.approx(
        4.318575e-05, rel=1e-5
    )


@each_t
@each_size
def test_posterior_has_the_mean_and_variance_of_the_papers_formulas(
    size: tuple[int, ...], num_timesteps: int
) -> None:
    clean, noisy = torch.randn(2, num_timesteps, 3, *size)
    timesteps = torch.arange(num_timesteps).flip(0)  # a timestep for each sample
    mean, variance = PosteriorScheduler(num_timesteps).posterior(clean, noisy, timesteps)
    assert mean.shape == clean.shape and variance.shape == (num_timesteps, *[1] * clean[0].ndim)
    for sample, index in enumerate(timesteps.tolist()):
        _, _, of_clean, of_noisy, expected = NUMBERS[num_timesteps][index]
        torch.testing.assert_close(
            mean[sample], of_clean * clean[sample] + of_noisy * noisy[sample], rtol=0, atol=1e-5
        )
        assert variance[sample].item() == pytest.approx(expected, abs=1e-6)


@each_t
def test_posterior_is_the_one_by_which_monai_steps(num_timesteps: int) -> None:
    monai = DDPMScheduler(
        num_timesteps, "variance_preserving", prediction_type="sample", clip_sample=False
    )
    ours = PosteriorScheduler(num_timesteps)
    clean, noisy = torch.randn(2, 1, 2, 4, 5)
    for index in range(num_timesteps):
        now = torch.tensor([index])
        mean, variance = ours.posterior(clean, noisy, now)
        torch.testing.assert_close(mean, monai._get_mean(index, clean, noisy))
        torch.testing.assert_close(
            variance.flatten()[0], monai._get_variance(index), rtol=1e-5, atol=1e-9
        )
        torch.manual_seed(0)
        stepped, _ = monai.step(clean, index, noisy)
        torch.manual_seed(0)
        torch.testing.assert_close(
            ours.sample_previous(clean, noisy, now, torch.randn(noisy.shape)), stepped
        )


@each_t
def test_pairs_have_the_joint_distribution_of_the_forward_process(num_timesteps: int) -> None:
    """Section 2.2 makes x_{t-1} of x_0 and x_t of x_{t-1}; x_t of x_0 and x_{t-1} of both is the same."""
    scheduler, number = PosteriorScheduler(num_timesteps), 100_000
    clean = torch.full([number, 1], 0.8)
    for index in range(1, num_timesteps):
        now = torch.full([number], index)
        noisy = scheduler.add_noise(clean, torch.randn(number, 1), now)
        previous = scheduler.sample_previous(clean, noisy, now, torch.randn(number, 1))
        abar_before, beta = NUMBERS[num_timesteps][index - 1][1], NUMBERS[num_timesteps][index][0]
        forward = abar_before**0.5 * clean + (1 - abar_before) ** 0.5 * torch.randn(number, 1)
        pushed = (1 - beta) ** 0.5 * forward + beta**0.5 * torch.randn(number, 1)
        ours, theirs = torch.cat([previous, noisy], 1), torch.cat([forward, pushed], 1)
        torch.testing.assert_close(ours.mean(0), theirs.mean(0), rtol=0, atol=0.02)
        torch.testing.assert_close(ours.T.cov(), theirs.T.cov(), rtol=0, atol=0.03)


def test_step_to_the_clean_label_takes_no_noise() -> None:
    clean, noisy, noise = torch.randn(3, 2, 3, 4, 4)
    first = torch.zeros(2, dtype=torch.long)
    for draw in (None, noise):
        torch.testing.assert_close(
            PosteriorScheduler(4).sample_previous(clean, noisy, first, draw), clean
        )


def test_step_without_noise_is_the_mean() -> None:
    scheduler, (clean, noisy) = PosteriorScheduler(4), torch.randn(2, 2, 3, 4, 4)
    timesteps = torch.tensor([3, 1])
    mean, variance = scheduler.posterior(clean, noisy, timesteps)
    assert torch.equal(scheduler.sample_previous(clean, noisy, timesteps), mean)
    ones = torch.ones_like(clean)
    drawn = scheduler.sample_previous(clean, noisy, timesteps, ones)
    torch.testing.assert_close(drawn - mean, variance.sqrt() * ones)


@pytest.mark.parametrize("num_timesteps", [0, -1])
def test_number_of_timesteps_below_1_is_refused(num_timesteps: int) -> None:
    with pytest.raises(ValueError, match=f"num_train_timesteps is {num_timesteps}: expected 1"):
        PosteriorScheduler(num_timesteps)
