from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from ldseg_monai.diffusion.schedulers import (
    PREDICTION_TYPES,
    TIMESTEP_SPACINGS,
    EvenlySpacedScheduler,
)
from ldseg_monai.runtime.errors import UserError

MONAI_S = ("epsilon", "sample", "v_prediction")  # prediction types
SCHEDULES = ("cosine", "linear", "quadratic")
MEAN, SD = 0.5, 0.3  # of the Gaussian data whose optimal denoiser is known
NUM_SAMPLES = 20_000

each_spacing = pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)

Model = Callable[[torch.Tensor, int], torch.Tensor]


def posterior_mean(abar: float) -> tuple[float, float]:
    """Offset and slope of E[z_0 | z_t], linear in z_t for data N(MEAN, SD^2)."""
    slope = SD**2 * math.sqrt(abar) / (SD**2 * abar + 1 - abar)
    return MEAN - slope * math.sqrt(abar) * MEAN, slope


def optimal_denoiser(alphas_cumprod: torch.Tensor, prediction_type: str) -> Model:
    def model(z: torch.Tensor, timestep: int) -> torch.Tensor:
        abar = float(alphas_cumprod[timestep])
        offset, slope = posterior_mean(abar)
        clean = offset + slope * z
        noise = (z - math.sqrt(abar) * clean) / math.sqrt(1 - abar)
        velocity = math.sqrt(abar) * noise - math.sqrt(1 - abar) * clean
        kinds = {"sample": clean, "epsilon": noise, "v_prediction": velocity, "flow": noise - clean}
        return kinds[prediction_type]

    return model


def closed_form(
    alphas_cumprod: torch.Tensor, timesteps: list[int], eta: int
) -> tuple[float, float]:
    """Mean and SD that the optimal denoiser's samples must have, from the papers' formulas and abar alone."""
    mean, variance = 0.0, 1.0
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        abar = float(alphas_cumprod[timestep])
        abar_next = 1.0 if following is None else float(alphas_cumprod[following])
        offset, slope = posterior_mean(abar)
        if eta == 0:  # Song et al., 2021, Eq. 12 with sigma 0: z_s = a * clean + b * z_t
            b = math.sqrt((1 - abar_next) / (1 - abar))
            a = math.sqrt(abar_next) - b * math.sqrt(abar)
            added = 0.0
        else:  # Ho et al., 2020, Eq. 7, its alpha_t being abar / abar_next where timesteps are left out
            alpha = abar / abar_next
            a = math.sqrt(abar_next) * (1 - alpha) / (1 - abar)
            b = math.sqrt(alpha) * (1 - abar_next) / (1 - abar)
            added = (1 - alpha) * (1 - abar_next) / (1 - abar)
        mean = a * offset + (a * slope + b) * mean
        variance = (a * slope + b) ** 2 * variance + added
    return mean, math.sqrt(variance)


def evenly_spaced(
    spacing: str, num_inference_steps: int, num_train_timesteps: int = 1000
) -> list[Fraction]:
    """The timesteps in exact fractions, less 1: they count from 1 where the indices count from 0."""
    gaps = num_inference_steps if spacing == "trailing" else max(num_inference_steps - 1, 1)
    end = 0 if spacing == "trailing" else 1
    step = Fraction(num_train_timesteps - end, gaps)
    return [num_train_timesteps - i * step - 1 for i in range(num_inference_steps)]


def sample(
    scheduler: DDIMScheduler, model: Model, num_inference_steps: int, **step_args
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(NUM_SAMPLES, 1, 1, dtype=torch.float64, generator=generator)
    scheduler.set_timesteps(num_inference_steps)
    for t in scheduler.timesteps:
        z, _ = scheduler.step(model(z, int(t)), int(t), z, generator=generator, **step_args)
    return z


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eta", [0, 1])
@pytest.mark.parametrize("num_inference_steps", [1, 2, 3, 10])
@each_spacing
def test_samples_of_the_optimal_denoiser_follow_the_closed_form(
    spacing: str, num_inference_steps: int, eta: int, schedule: str, prediction_type: str
) -> None:
    scheduler = EvenlySpacedScheduler(1000, schedule, prediction_type, eta, spacing)
    model = optimal_denoiser(scheduler.alphas_cumprod, prediction_type)
    z = sample(scheduler, model, num_inference_steps)
    timesteps = [round(timestep) for timestep in evenly_spaced(spacing, num_inference_steps)]
    mean, sd = closed_form(scheduler.alphas_cumprod, timesteps, eta)
    assert z.mean().item() == pytest.approx(mean, abs=1e-4 + 5 * sd / math.sqrt(NUM_SAMPLES))
    assert z.std().item() == pytest.approx(sd, rel=5 / math.sqrt(2 * NUM_SAMPLES), abs=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(("schedule", "eta"), [("cosine", 0), ("linear", 1), ("quadratic", 1)])
def test_all_timesteps_give_samples_of_the_data(
    schedule: str, eta: int, prediction_type: str
) -> None:
    scheduler = EvenlySpacedScheduler(200, schedule, prediction_type, eta)
    z = sample(scheduler, optimal_denoiser(scheduler.alphas_cumprod, prediction_type), 200)
    mean, sd = closed_form(scheduler.alphas_cumprod, list(reversed(range(200))), eta)
    assert z.mean().item() == pytest.approx(mean, abs=1e-4 + 5 * sd / math.sqrt(NUM_SAMPLES))
    assert z.std().item() == pytest.approx(sd, rel=5 / math.sqrt(2 * NUM_SAMPLES), abs=1e-4)
    assert z.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert z.std().item() == pytest.approx(SD, rel=0.03)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_float32_is_enough_for_the_optimal_denoiser(schedule: str, prediction_type: str) -> None:
    scheduler = EvenlySpacedScheduler(1000, schedule, prediction_type)
    model = optimal_denoiser(scheduler.alphas_cumprod, prediction_type)
    scheduler.set_timesteps(2)
    z = torch.randn(1000, 1, 1, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        z, _ = scheduler.step(model(z, int(t)), int(t), z)
    assert z.dtype == torch.float32
    assert z.mean().item() == pytest.approx(MEAN, abs=0.01) and z.std().item() < 0.02


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_two_trailing_steps_keep_spread_where_two_inclusive_ones_collapse_to_the_mean(
    prediction_type: str,
) -> None:
    spread = {}
    for spacing in TIMESTEP_SPACINGS:
        scheduler = EvenlySpacedScheduler(1000, "cosine", prediction_type, timestep_spacing=spacing)
        z = sample(scheduler, optimal_denoiser(scheduler.alphas_cumprod, prediction_type), 2)
        assert z.mean().item() == pytest.approx(MEAN, abs=0.01)
        spread[spacing] = z.std().item()
    # The first step leads from T, where nothing is known, to MEAN plus the noise of T/2: E[z_0 |
    # that] varies by
    abar = float(scheduler.alphas_cumprod[499])
    expected = SD**2 * math.sqrt(abar * (1 - abar)) / (SD**2 * abar + 1 - abar)
    assert spread["inclusive"] < 0.01
    assert spread["trailing"] == pytest.approx(expected, rel=0.03)
    assert spread["trailing"] > SD / 4


@pytest.mark.parametrize("prediction_type", MONAI_S)
def test_two_steps_of_monai_leave_the_noise_of_the_middle_in_the_sample(
    prediction_type: str,
) -> None:
    scheduler = DDIMScheduler(1000, "cosine", clip_sample=False, prediction_type=prediction_type)
    z = sample(scheduler, optimal_denoiser(scheduler.alphas_cumprod, prediction_type), 2)
    _, sd = closed_form(scheduler.alphas_cumprod, [999, 0], eta=0)
    assert sd < 0.01
    assert z.std().item() == pytest.approx(
        0.71, abs=0.02
    )  # if this fails, MONAI is repaired: drop our own class


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [
        ("linear", torch.linspace(1e-4, 2e-2, 1000)),
        ("quadratic", torch.linspace(1e-4**0.5, 2e-2**0.5, 1000) ** 2),
    ],
)
def test_schedule_has_the_betas_of_its_name(schedule: str, betas: torch.Tensor) -> None:
    torch.testing.assert_close(EvenlySpacedScheduler(1000, schedule).betas, betas)


def test_cosine_schedule_is_that_of_nichol_and_dhariwal() -> None:
    abar = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    expected = torch.tensor([a / abar[0] for a in abar[1:]])  # index i is their t = i + 1
    ours = EvenlySpacedScheduler(1000, "cosine").alphas_cumprod
    torch.testing.assert_close(ours[:-1], expected[:-1], rtol=1e-2, atol=1e-6)
    assert 0 < ours[-1] < 1e-8  # their beta is clipped at 0.999


@pytest.mark.parametrize("num_inference_steps", [1, 2, 4, 10])
def test_steps_of_a_rectified_flow_are_euler_s_on_the_straight_path(
    num_inference_steps: int,
) -> None:
    def flow(x: torch.Tensor, t: float) -> torch.Tensor:  # any field will do
        return torch.sin(3 * x) + 2 * t - 1

    scheduler = EvenlySpacedScheduler(1000, "rectified_flow", "flow", timestep_spacing="trailing")
    scheduler.set_timesteps(num_inference_steps)
    start = torch.linspace(-2, 2, 9).reshape(9, 1, 1)
    x, z = start.double(), start
    for step, index in enumerate(scheduler.indices):
        t = 1 - step / num_inference_steps
        x = x - flow(x, t) / num_inference_steps
        on_path = z * math.hypot(1 - t, t)  # z has variance 1, as noise and data of variance 1 do
        z, _ = scheduler.step(flow(on_path, t), index, z)
    torch.testing.assert_close(z.double(), x, rtol=0, atol=2e-6)


def test_target_of_a_rectified_flow_leads_back_to_the_clean_latent() -> None:
    scheduler = EvenlySpacedScheduler(1000, "rectified_flow", "flow")
    clean, noise = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)
    timesteps = torch.tensor([0, 250, 750, 999])
    noisy = scheduler.add_noise(clean, noise, timesteps)
    target = scheduler.target(clean, noise, timesteps)
    torch.testing.assert_close(target, noise - clean)
    found = scheduler.denoise(target, timesteps, noisy)
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-5)


def test_steps_of_an_exploding_variance_are_the_ancestral_ones() -> None:
    def denoised(x: torch.Tensor, sigma: float) -> torch.Tensor:  # any denoiser will do
        return torch.tanh(x / (1 + sigma)) - 0.3

    steps, generator = 12, torch.Generator().manual_seed(0)
    scheduler = EvenlySpacedScheduler(steps, "variance_exploding", eta=1.0, sigma_min=0.05)
    scheduler.set_timesteps(steps)
    sigmas = [0.05 * (5 / 0.05) ** (step / (steps - 1)) for step in range(steps)]
    z = torch.linspace(-2, 2, 9).reshape(9, 1, 1)
    x = z.double() * math.hypot(1, sigmas[-1])
    for index in scheduler.indices:
        sigma, before = sigmas[index], sigmas[index - 1] if index else 0.0
        noise = torch.randn(z.shape, generator=generator)
        score = (denoised(x, sigma) - x) / sigma**2
        spread = before * math.sqrt(sigma**2 - before**2) / sigma
        scaled = z * math.hypot(1, sigma)
        epsilon = (scaled - denoised(scaled, sigma)) / sigma
        z, _ = scheduler.step(epsilon, index, z, variance_noise=noise)
        x = x + (sigma**2 - before**2) * score + spread * noise
        torch.testing.assert_close(z.double() * math.hypot(1, before), x, rtol=1e-4, atol=1e-4)
    clean, noise = torch.randn(2, 1, 1, 3, 3)
    noisy = scheduler.add_noise(clean, noise, torch.tensor([7]))
    expected = clean + sigmas[7] * noise
    torch.testing.assert_close(noisy * math.hypot(1, sigmas[7]), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="expected 0 < sigma_min <= sigma_max"):
        EvenlySpacedScheduler(steps, "variance_exploding", sigma_min=6.0)


def test_noise_cannot_be_what_is_predicted_where_all_is_noise() -> None:
    with pytest.raises(ValueError, match="all noise at T: expected flow, sample or v_prediction"):
        EvenlySpacedScheduler(1000, "rectified_flow")


def test_schedule_args_reach_the_schedule() -> None:
    assert EvenlySpacedScheduler(10, "linear", beta_end=0.5).betas[-1].item() == pytest.approx(0.5)


@pytest.mark.parametrize("num_train_timesteps", [1, 2, 7, 1000])
@each_spacing
def test_timesteps_are_evenly_spaced_from_the_last_one_down(
    spacing: str, num_train_timesteps: int
) -> None:
    scheduler = EvenlySpacedScheduler(num_train_timesteps, timestep_spacing=spacing)
    for num_inference_steps in {*range(1, 41), 99, 333, 998, 999, 1000}:
        if num_inference_steps > num_train_timesteps:
            continue
        scheduler.set_timesteps(num_inference_steps)
        timesteps = scheduler.timesteps
        assert len(timesteps) == num_inference_steps
        assert timesteps[0] == num_train_timesteps - 1 and timesteps[-1] >= 0
        assert (timesteps.diff() < 0).all()
        exact = [
            float(timestep)
            for timestep in evenly_spaced(spacing, num_inference_steps, num_train_timesteps)
        ]
        assert (
            timesteps - torch.tensor(exact)
        ).abs().max() < 0.5 + 1e-3  # float32 may round a half the other way


@pytest.mark.parametrize(
    ("spacing", "num_inference_steps", "expected"),
    [
        ("inclusive", 1, [999]),
        ("inclusive", 2, [999, 0]),
        ("inclusive", 4, [999, 666, 333, 0]),
        ("trailing", 1, [999]),
        ("trailing", 2, [999, 499]),
        ("trailing", 3, [999, 666, 332]),
        ("trailing", 4, [999, 749, 499, 249]),
        ("trailing", 10, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
    ],
)
def test_spacing_gives_the_timesteps_of_its_name(
    spacing: str, num_inference_steps: int, expected: list[int]
) -> None:
    scheduler = EvenlySpacedScheduler(1000, timestep_spacing=spacing)
    scheduler.set_timesteps(num_inference_steps)
    assert scheduler.timesteps.tolist() == expected


@pytest.mark.parametrize("num_inference_steps", [2, 3, 7, 10, 30, 1000])
@each_spacing
def test_each_step_goes_to_the_next_timestep_of_the_list(
    spacing: str, num_inference_steps: int
) -> None:
    scheduler = EvenlySpacedScheduler(1000, prediction_type="sample", timestep_spacing=spacing)
    scheduler.set_timesteps(num_inference_steps)
    clean, noise = torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), -1.0)
    timesteps = scheduler.timesteps
    for now, following in zip(timesteps[:-1], timesteps[1:], strict=True):
        stepped, _ = scheduler.step(clean, int(now), scheduler.add_noise(clean, noise, now[None]))
        torch.testing.assert_close(
            stepped, scheduler.add_noise(clean, noise, following[None]), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("num_inference_steps", [1, 2, 5])
@each_spacing
def test_last_step_returns_the_clean_estimate(
    spacing: str, num_inference_steps: int, prediction_type: str, eta: float
) -> None:
    scheduler = EvenlySpacedScheduler(1000, "linear", prediction_type, eta, spacing)
    scheduler.set_timesteps(num_inference_steps)
    output, z = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)
    last = int(scheduler.timesteps[-1])
    result, clean = scheduler.step(output, last, z)
    assert torch.equal(result, clean)
    assert torch.equal(clean, scheduler.denoise(output, torch.tensor([last, last]), z))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", MONAI_S)
@pytest.mark.parametrize("timestep", [0, 1, 2, 500, 998, 999])
def test_eta_1_over_all_timesteps_is_ddpm(
    timestep: int, prediction_type: str, schedule: str
) -> None:
    ours = EvenlySpacedScheduler(1000, schedule, prediction_type, eta=1)
    theirs = DDPMScheduler(1000, schedule, clip_sample=False, prediction_type=prediction_type)
    ours.set_timesteps(1000)
    z = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    output = optimal_denoiser(ours.alphas_cumprod, prediction_type)(z, timestep)
    stepped, clean = ours.step(output, timestep, z, generator=torch.Generator().manual_seed(1))
    expected, expected_clean = theirs.step(
        output, timestep, z, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(clean, expected_clean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        stepped, expected, rtol=1e-3, atol=1e-4
    )  # MONAI's posterior is rounded to float32


@pytest.mark.parametrize(
    ("prediction_type", "eta", "expected"),
    [
        ("epsilon", 0.0, [-13.1836, -7.64397, -2.10431, 3.43534]),
        ("sample", 0.0, [-1.15048, -0.311852, 0.526778, 1.36541]),
        ("v_prediction", 0.0, [0.0149948, -0.0265942, -0.0681833, -0.109772]),
        ("sample", 1.0, [0.927066, -0.804131, 0.571903, 0.172377]),
    ],
)
def test_full_loop_gives_the_recorded_numbers(
    prediction_type: str, eta: float, expected: list[float]
) -> None:
    # recorded from the papers' formulas in float64, written without this class
    scheduler = EvenlySpacedScheduler(100, "linear", prediction_type, eta, beta_end=0.2)
    scheduler.set_timesteps(4)
    z = torch.tensor([-1.5, -0.5, 0.5, 1.5]).reshape(1, 1, 4)
    for t in scheduler.timesteps:
        output = 0.8 * z + 0.002 * t
        z, _ = scheduler.step(
            output, int(t), z, variance_noise=torch.tensor([1.0, -1.0, 0.5, 0.0]).reshape(1, 1, 4)
        )
    torch.testing.assert_close(z.flatten(), torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_denoise_inverts_add_noise(prediction_type: str, schedule: str) -> None:
    scheduler = EvenlySpacedScheduler(1000, schedule, prediction_type)
    timesteps = torch.tensor([0, 1, 300, 700, 990])
    clean, noise = torch.randn(2, 5, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    noisy = scheduler.add_noise(clean, noise, timesteps)
    velocity = scheduler.get_velocity(clean, noise, timesteps)
    kinds = {"epsilon": noise, "sample": clean, "v_prediction": velocity, "flow": noise - clean}
    output = kinds[prediction_type]
    torch.testing.assert_close(
        scheduler.denoise(output, timesteps, noisy), clean, rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_target_and_what_is_decoded_are_those_of_the_papers(prediction_type: str) -> None:
    scheduler = EvenlySpacedScheduler(1000, "cosine", prediction_type)
    timesteps = torch.tensor([0, 400, 999])
    clean, noise, output = torch.randn(3, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    abar = scheduler.alphas_cumprod[timesteps].reshape(3, 1, 1, 1)
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    target, decoded = {
        "epsilon": (noise, noisy - output),  # Zaman et al., Eq. 12 and 17
        "sample": (clean, output),
        "v_prediction": (  # Salimans and Ho, 2022
            abar.sqrt() * noise - (1 - abar).sqrt() * clean,
            abar.sqrt() * noisy - (1 - abar).sqrt() * output,
        ),
        # noisy - (1 - abar).sqrt() * (noise - clean) is both roots times the clean latent
        "flow": (
            noise - clean,
            (noisy - (1 - abar).sqrt() * output) / (abar.sqrt() + (1 - abar).sqrt()),
        ),
    }[prediction_type]
    torch.testing.assert_close(scheduler.target(clean, noise, timesteps), target)
    torch.testing.assert_close(scheduler.decodable(output, timesteps, noisy), decoded)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_what_is_decoded_of_a_right_prediction_is_the_clean_latent(prediction_type: str) -> None:
    scheduler = EvenlySpacedScheduler(1000, "linear", prediction_type)
    timesteps = torch.tensor([0, 999])
    clean, noise = torch.randn(2, 2, 1, 4, 5)
    right = scheduler.target(clean, noise, timesteps)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    torch.testing.assert_close(
        scheduler.decodable(right, timesteps, noisy), clean, rtol=0, atol=1e-5
    )


def test_variance_noise_stands_for_the_generator() -> None:
    scheduler = EvenlySpacedScheduler(1000, eta=1)
    scheduler.set_timesteps(2)
    output, z = torch.randn(2, 3, 1, 4, 4)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    given, _ = scheduler.step(output, 999, z, variance_noise=noise)
    drawn, _ = scheduler.step(output, 999, z, generator=torch.Generator().manual_seed(1))
    assert torch.equal(given, drawn)


def test_eta_of_a_step_overrides_the_scheduler() -> None:
    stochastic, plain = EvenlySpacedScheduler(1000, eta=1), EvenlySpacedScheduler(1000, eta=0)
    stochastic.set_timesteps(2)
    plain.set_timesteps(2)
    output, z = torch.randn(2, 3, 1, 4, 4)
    assert torch.equal(stochastic.step(output, 999, z, eta=0.0)[0], plain.step(output, 999, z)[0])


@pytest.mark.parametrize("num_inference_steps", [0, -1, 1001])
def test_number_of_steps_outside_1_to_t_is_refused(num_inference_steps: int) -> None:
    with pytest.raises(
        ValueError, match=f"num_inference_steps is {num_inference_steps}: expected 1 to 1000"
    ):
        EvenlySpacedScheduler(1000).set_timesteps(num_inference_steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"prediction_type": "noise"},
            "prediction_type is 'noise': expected one of epsilon, sample, v_prediction",
        ),
        (
            {"timestep_spacing": "leading"},
            "timestep_spacing is 'leading': expected inclusive or trailing",
        ),
        ({"eta": -0.1}, "eta is -0.1: expected 0"),
        ({"eta": 1.1}, "eta is 1.1: expected 0"),
        ({"eta": "all"}, "eta is 'all': expected 0"),
        ({"last_timestep": 0}, "last_timestep is 0: expected a share of T, above 0 and below 1"),
        ({"last_timestep": 1}, "last_timestep is 1: expected a share of T"),
        ({"last_timestep": "late"}, "last_timestep is 'late': expected a share of T"),
        ({"schedule": "cosin"}, "schedule is 'cosin': expected one of .*; did you mean cosine?"),
        ({"last_timesteps": 0.5}, "no argument last_timesteps .*; did you mean last_timestep?"),
        ({"betas": 1}, "no argument betas .* cosine, which takes num_train_timesteps, s;"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvenlySpacedScheduler(**arguments)


@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_last_step_may_begin_early_and_leads_to_the_clean_latent(steps: int, spacing: str) -> None:
    scheduler = EvenlySpacedScheduler(
        1000, prediction_type="sample", timestep_spacing=spacing, last_timestep=0.8
    )
    scheduler.set_timesteps(steps)
    expected = [999] if steps == 1 else np.linspace(999, 799, steps).round().tolist()
    assert scheduler.timesteps.tolist() == scheduler.indices == expected
    latent, clean = torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    found, _ = scheduler.step(clean, scheduler.indices[-1], latent)
    assert torch.equal(found, clean)


def test_last_step_is_within_the_timesteps_and_no_step_is_done_twice() -> None:
    for share in (0, 1, -0.5):
        with pytest.raises(ValueError, match="last_timestep is .*: expected a share of T"):
            EvenlySpacedScheduler(last_timestep=share)
    scheduler = EvenlySpacedScheduler(1000, last_timestep=0.8)
    scheduler.set_timesteps(201)
    assert len(set(scheduler.indices)) == 201
    with pytest.raises(ValueError, match="num_inference_steps is 202: expected 1 to 201"):
        scheduler.set_timesteps(202)
