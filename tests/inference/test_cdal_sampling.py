from __future__ import annotations

import weakref
from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.schedulers import DDPMScheduler
from small_networks import (
    RecordingSampler,
    Wrapper,
    convolution_dtypes,
    count_calls,
    image_of,
    tiny_cdal,
    tiny_discriminator,
)

from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.diffusion.schedulers import PosteriorScheduler
from ldseg_monai.inference.ensemble import summarize
from ldseg_monai.inference.samplers import CDALSamplingInferer
from ldseg_monai.inference.slices import SliceSamplingInferer
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.networks.cdal.network import CDAL
from ldseg_monai.training.inferers import CDALTrainingInferer

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
each_process = pytest.mark.parametrize("stochastic", [False, True])
each_number = pytest.mark.parametrize("num_samples", [1, 3])

tiny = partial(tiny_cdal, num_train_timesteps=2)


# Schedule and posterior


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


# What a diffused label says


def test_logits_make_the_probabilities_that_the_label_stands_for() -> None:
    probability = torch.rand(2, 3, 4, 4).softmax(dim=1)
    torch.testing.assert_close(label_logits(2 * probability - 1).softmax(dim=1), probability)


def test_logits_keep_the_order_of_values_beyond_the_range() -> None:
    label = torch.tensor([[-1.4, 1.1, 1.3], [-3.0, -1.0, 0.5]])
    logits = label_logits(label)
    assert logits.isfinite().all()
    assert logits.argmax(dim=1).tolist() == [2, 2] and (logits[0, 1] > logits[0, 0])
    torch.testing.assert_close(logits.softmax(dim=1)[1], torch.tensor([1e-3, 1e-3, 0.75]) / 0.752)


def test_summary_is_the_mean_and_the_deviation_of_the_most_uncertain_class() -> None:
    logits = torch.randn(5, 2, 3, 4, 4)
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


# Inferers


def probabilities(
    network: CDAL, image: torch.Tensor, num_samples: int, seed: int = 0
) -> torch.Tensor:
    """The samples' class probabilities, one by one: ``(samples, B, classes, *spatial)``."""
    noise = seeded_noise(network.noise_shape(image), seed, num_samples, network.num_draws())
    latents = network.seeded_latents(seed, num_samples)
    with torch.no_grad():
        logits = [
            network.segment(image, noise[:, i : i + 1], latents[:, i : i + 1])
            for i in range(num_samples)
        ]
    return torch.stack(logits).softmax(dim=2)


@each_process
@each_size
def test_one_sample_is_the_networks_own_segmentation(
    size: tuple[int, ...], stochastic: bool
) -> None:
    network, image = tiny(len(size), stochastic=stochastic, seed=7), image_of(size)
    with torch.no_grad():
        expected = network(image)
    result = CDALSamplingInferer(seed=7, amp=False)(image, network)
    assert result.shape == (2, 3, *size)
    assert torch.equal(result, expected)


@each_process
@each_size
def test_several_samples_are_their_mean_and_deviation(
    size: tuple[int, ...], stochastic: bool
) -> None:
    network, image = tiny(len(size), stochastic=stochastic), image_of(size)
    samples = probabilities(network, image, 4, seed=5)
    result = CDALSamplingInferer(4, seed=5, amp=False)(image, network)
    assert result.shape == (2, 4, *size)
    torch.testing.assert_close(result[:, :3], samples.mean(0), rtol=1e-4, atol=1e-5)
    deviation = samples.std(0, correction=0).amax(1)
    torch.testing.assert_close(result[:, 3], deviation, rtol=1e-3, atol=1e-4)
    assert deviation.max() > 1e-3  # the samples differ


@each_process
@each_size
@each_number
def test_same_seed_gives_an_image_the_same_result_in_any_batch(
    num_samples: int, size: tuple[int, ...], stochastic: bool
) -> None:
    network, image = tiny(len(size), stochastic=stochastic), image_of(size, batch=3)
    inferer = CDALSamplingInferer(num_samples, seed=2, amp=False)
    together = inferer(image, network)
    apart = torch.cat([inferer(one, network) for one in image.split(1)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    torch.manual_seed(5)
    assert torch.equal(inferer(image, network), together)
    other = CDALSamplingInferer(num_samples, seed=3, amp=False)(image, network)
    assert not torch.allclose(other, together, atol=1e-4)


def test_image_is_encoded_once_and_every_sample_takes_all_steps() -> None:
    network = tiny()
    encoded, denoised = map(
        count_calls, (network.generator.image_encoder, network.generator.from_label)
    )
    CDALSamplingInferer(3)(image_of((16, 13)), network)
    assert encoded == [2]
    assert denoised == [2] * 2 * 3


@each_process
@pytest.mark.parametrize(("samples_in_pass", "passes"), [(2, [4, 4, 2]), (5, [10]), (9, [10])])
def test_samples_may_share_a_pass(
    samples_in_pass: int, passes: list[int], stochastic: bool
) -> None:
    network, image = tiny(stochastic=stochastic), image_of((16, 13))
    one_by_one = CDALSamplingInferer(5, amp=False)(image, network)
    denoised = count_calls(network.generator.from_label)
    together = CDALSamplingInferer(5, amp=False, samples_in_pass=samples_in_pass)(image, network)
    assert denoised == [number for number in passes for _ in range(2)]
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)


@each_number
@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_amp_samples_in_bfloat16_and_returns_float32(
    amp: bool, dtype: torch.dtype, num_samples: int
) -> None:
    network = tiny()
    seen = convolution_dtypes(network)
    assert (
        CDALSamplingInferer(num_samples, amp=amp)(image_of((16, 13)), network).dtype
        == torch.float32
    )
    assert seen == {dtype}


@each_number
def test_metadata_and_a_wrapper_change_nothing(num_samples: int) -> None:
    network, image, inferer = tiny(), image_of((16, 13)), CDALSamplingInferer(num_samples)
    result = inferer(MetaTensor(image), Wrapper(network))
    assert type(result) is torch.Tensor
    assert torch.equal(result, inferer(image, network))


@each_number
@each_process
def test_noise_may_be_given_for_each_image(stochastic: bool, num_samples: int) -> None:
    network, inferer = tiny(stochastic=stochastic), CDALSamplingInferer(num_samples, amp=False)
    image = image_of((16, 13))
    noise = torch.randn(network.num_draws(), 2 * num_samples, *network.noise_shape(image))
    apart = [
        inferer(image[i : i + 1], network, noise=noise[:, i * num_samples :][:, :num_samples])
        for i in range(2)
    ]
    torch.testing.assert_close(
        inferer(image, network, noise=noise), torch.cat(apart), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(apart[0], inferer(image[:1], network), atol=1e-4)


def test_what_would_be_ignored_or_cannot_be_done_is_refused() -> None:
    network, image = tiny(), image_of((16, 13))
    with pytest.raises(TypeError, match="expected at most noise"):
        CDALSamplingInferer()(image, network, label=image)
    with pytest.raises(
        ValueError, match="num_inference_steps is 3: expected 2, the steps in training"
    ):
        CDALSamplingInferer(num_inference_steps=3)(image, network)
    with pytest.raises(ValueError, match="noise has 2 draws: expected 1 for 2 steps"):
        CDALSamplingInferer()(image, network, noise=torch.randn(2, 1, 3, 16, 13))
    with pytest.raises(ValueError, match="num_samples is 0: expected 1 or more"):
        CDALSamplingInferer(0)
    with pytest.raises(ValueError, match="samples_in_pass is 0: expected 1 or more"):
        CDALSamplingInferer(samples_in_pass=0)


@each_process
@each_number
def test_windows_see_the_noise_of_their_place_and_the_latents_of_their_sample(
    num_samples: int, stochastic: bool
) -> None:
    network = tiny(stochastic=stochastic)

    class Recorder(RecordingSampler, CDALSamplingInferer):
        """Samples with cDAL."""

    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(27.0), indexing="ij")
    sampler = Recorder(num_samples, amp=False)
    image = torch.stack([rows, columns])[None]
    result = SlidingWindowSamplingInferer(sampler, roi_size=12, overlap=0.5, sw_batch_size=3)(
        image, network
    )
    assert result.shape == (1, 3 if num_samples == 1 else 4, 20, 27)
    field = sampler.draw_noise(network, [3, 20, 27])
    for window, noise in sampler.windows:
        row, column = (int(start) for start in window[:, 0, 0])
        assert torch.equal(noise, field[..., row : row + 12, column : column + 12])
    assert len(sampler.windows) > 4


@each_size
@each_number
def test_number_of_windows_in_a_batch_does_not_matter(
    num_samples: int, size: tuple[int, ...]
) -> None:
    network, sampler = tiny(len(size)), CDALSamplingInferer(num_samples, amp=False)
    image = image_of(tuple(side + 3 for side in size), batch=1)
    one, more = (
        SlidingWindowSamplingInferer(sampler, roi_size=size, sw_batch_size=number, overlap=0.25)(
            image, network
        )
        for number in (1, 3)
    )
    torch.testing.assert_close(more, one, rtol=1e-4, atol=1e-5)


@each_number
def test_volume_is_segmented_slice_by_slice_in_batches(num_samples: int) -> None:
    network, sampler, volume = (
        tiny(),
        CDALSamplingInferer(num_samples, amp=False),
        image_of((16, 13, 5)),
    )
    encoded = count_calls(network.generator.image_encoder)
    result = SliceSamplingInferer(sampler, roi_size=(16, 13), spatial_dim=2, sw_batch_size=4)(
        volume, network
    )
    assert encoded == [4, 4, 2]  # of 2 volumes of 5 slices
    expected = torch.stack([sampler(cut, network) for cut in volume.unbind(-1)], dim=-1)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


# Passes of training


@pytest.mark.parametrize(
    ("size", "amp", "dtype"),
    [
        ((16, 13), True, torch.bfloat16),
        ((16, 13), False, torch.float32),
        ((4, 13), True, torch.bfloat16),
        ((6, 8, 8), True, torch.bfloat16),
    ],
)
def test_training_passes_are_in_bfloat16_if_asked_and_return_float32(
    size: tuple[int, ...], amp: bool, dtype: torch.dtype
) -> None:
    inferer, label, timesteps = (
        CDALTrainingInferer(amp),
        torch.randn(2, 3, *size),
        torch.tensor([0, 1]),
    )
    network, judge = tiny(len(size)).train(), tiny_discriminator(len(size)).train()
    inputs = {"noisy_label": label, "timesteps": timesteps, "latent": torch.randn(2, 5)}
    seen = convolution_dtypes(network), convolution_dtypes(judge)
    prediction = inferer(image_of(size), Wrapper(network), **inputs)
    logits = inferer(label, judge, label, timesteps)
    assert seen == ({dtype}, {dtype})
    assert prediction.dtype == logits.dtype == torch.float32
    assert prediction.shape == label.shape and logits.shape == (2, 1)
    if not amp:
        assert torch.equal(prediction, network(image_of(size), **inputs))


def test_turned_sample_has_its_own_noise_and_random_latent() -> None:
    network, image = tiny(stochastic=True), image_of((16, 12))
    noise = seeded_noise(network.noise_shape(image), 0, 9, network.num_draws())
    latents = network.seeded_latents(0, 9)
    expected = []
    for index in range(9):
        quarters, mirrored = index % 4, 4 <= index < 8
        turned, own = (
            (part.flip(-1) if mirrored else part).rot90(quarters, (-2, -1))
            for part in (image, noise)
        )
        with torch.no_grad():
            logits = network.segment(
                turned, own[:, index : index + 1], latents[:, index : index + 1]
            )
        back = logits.rot90(-quarters, (-2, -1))
        expected.append((back.flip(-1) if mirrored else back).softmax(1))
    result = CDALSamplingInferer(9, amp=False, turned=True)(image, network)
    torch.testing.assert_close(result[:, :3], torch.stack(expected).mean(0), rtol=1e-4, atol=1e-5)
