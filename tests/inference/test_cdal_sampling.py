from __future__ import annotations

from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from small_networks import Wrapper, convolution_dtypes, count_calls, image_of, tiny_cdal

from ldseg_monai.diffusion.noise import Noise, seeded_noise
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.cdal.network import CDAL

SIZES = [(16, 13), (8, 12, 6)]
each_size = pytest.mark.parametrize("size", SIZES)
each_process = pytest.mark.parametrize("stochastic", [False, True])
each_number = pytest.mark.parametrize("num_samples", [1, 3])

tiny = partial(tiny_cdal, num_train_timesteps=2)


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
