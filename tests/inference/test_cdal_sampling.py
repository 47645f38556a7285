from __future__ import annotations

from functools import partial

import pytest
import torch
from small_networks import convolution_dtypes, count_calls, image_of, tiny_cdal

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.inference.samplers import SamplingInferer

SIZES = [(16, 13), (8, 12, 6)]
each_size = pytest.mark.parametrize("size", SIZES)
each_process = pytest.mark.parametrize("stochastic", [False, True])
each_number = pytest.mark.parametrize("num_samples", [1, 3])

tiny = partial(tiny_cdal, num_train_timesteps=2)


def test_image_is_encoded_once_and_every_sample_takes_all_steps() -> None:
    network = tiny()
    encoded, denoised = map(count_calls, (network.image_encoder, network.generator.from_label))
    SamplingInferer(3, amp=False)(image_of((16, 13)), network)
    assert encoded == [2]
    assert denoised == [2] * 2 * 3


@each_process
@pytest.mark.parametrize(("samples_in_pass", "passes"), [(2, [4, 4, 2]), (5, [10]), (9, [10])])
def test_samples_may_share_a_pass(
    samples_in_pass: int, passes: list[int], stochastic: bool
) -> None:
    network, image = tiny(stochastic=stochastic), image_of((16, 13))
    one_by_one = SamplingInferer(5, amp=False)(image, network)
    denoised = count_calls(network.generator.from_label)
    network.samples_in_pass = samples_in_pass
    together = SamplingInferer(5, amp=False)(image, network)
    assert denoised == [number for number in passes for _ in range(2)]
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)


@each_number
@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_amp_samples_in_bfloat16_and_returns_float32(
    amp: bool, dtype: torch.dtype, num_samples: int
) -> None:
    network = tiny()
    seen = convolution_dtypes(network)
    assert SamplingInferer(num_samples, amp=amp)(image_of((16, 13)), network).dtype == torch.float32
    assert seen == {dtype}


def test_what_the_network_cannot_do_is_refused() -> None:
    network, image = tiny(), image_of((16, 13))
    with pytest.raises(
        ValueError, match="num_inference_steps is 3: expected 2, the steps in training"
    ):
        SamplingInferer(num_inference_steps=3)(image, network)
    noise = Noise(torch.randn(2, 1, 1, 3, 16, 13), torch.randn(2, 1, 1, 5))
    with pytest.raises(ValueError, match="noise has 2 draws: expected 1 for 2 steps"):
        SamplingInferer()(image, network, noise=noise)
    with pytest.raises(ValueError, match="latents of 1 steps: expected 2"):
        SamplingInferer()(image, network, noise=Noise(noise.field[:1], noise.latents[:1]))


def test_turned_sample_has_its_own_noise_and_random_latent() -> None:
    network, image = tiny(stochastic=True), image_of((16, 12))
    noise, latents = network.seeded_noise(network.noise_shape(image), seed=0, num_samples=9)
    noise, latents = noise[:, 0], latents[:, 0]
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
    result = SamplingInferer(9, amp=False, turned=True)(image, network)
    torch.testing.assert_close(result[:, :3], torch.stack(expected).mean(0), rtol=1e-4, atol=1e-5)
