from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from small_networks import convolution_dtypes, count_calls, noisy_ldseg, pair_of
from torch.nn import functional

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.inference.samplers import SamplingInferer, turn, turn_back
from ldseg_monai.networks import EnsembleSegmenter
from ldseg_monai.runtime.errors import InputError

each_eta = pytest.mark.parametrize("eta", [0.0, 1.0])


@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("num_samples", [1, 2])
def test_sampling_computes_in_bfloat16_on_the_cpu_if_asked(
    num_samples: int, amp: bool, dtype: torch.dtype
) -> None:
    network = noisy_ldseg()
    image, _ = pair_of((16, 24))
    exact = SamplingInferer(num_samples, amp=False)(image, network)
    seen = convolution_dtypes(network)
    result = SamplingInferer(num_samples, amp=amp)(image, network)
    assert seen == {dtype}
    assert not result.requires_grad
    if num_samples == 1:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
            assert torch.equal(result, network.segment(image))
    torch.testing.assert_close(result.float(), exact, rtol=0.1, atol=0.1)


def test_sd_of_samples_that_contradict_each_other_is_one_half() -> None:
    network = noisy_ldseg()
    with torch.no_grad():  # the decoder is made to be certain of one class or of another
        network.label_decoder.to_logits[-1].weight.mul_(1e6)
    result = SamplingInferer(8, amp=False)(pair_of((16, 24))[0], network)
    assert 0.45 < result[:, 3:].max() <= 0.5


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 8)])
@pytest.mark.parametrize("members", [1, 2])
def test_what_samples_say_is_brought_up_once(size: tuple[int, ...], members: int) -> None:
    networks = [noisy_ldseg(len(size), interpolation=2) for _ in range(members)]
    network = networks[0] if members == 1 else EnsembleSegmenter(networks)
    image, _ = pair_of(size)
    noise = network.seeded_noise(network.noise_shape(image), 3, 4)
    with torch.no_grad():
        own = list(network.draw(image, noise))
        coarse = torch.stack(own).softmax(dim=2)
        drawn = torch.stack(list(map(network.enlarge, own))).softmax(dim=2)
    assert coarse.shape[3:] == tuple(side // 2 for side in size) and drawn.shape[3:] == size
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    mean = functional.interpolate(coarse.mean(0).log(), scale_factor=2, mode=mode).softmax(dim=1)
    deviation = coarse.std(0, correction=0).amax(1, keepdim=True)
    deviation = functional.interpolate(deviation, scale_factor=2, mode=mode)
    result = SamplingInferer(4, seed=3, amp=False, keep_samples=True)(image, network)
    torch.testing.assert_close(result[:, :3], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result[:, 3:4], deviation, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(result[:, 4:].unflatten(1, (4, 3)).transpose(0, 1), drawn)


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 8)])
def test_samples_that_agree_say_together_what_each_says(size: tuple[int, ...]) -> None:
    network = noisy_ldseg(len(size), interpolation=2, prediction_type="sample")
    with torch.no_grad():  # the denoiser hears no noise
        for parameter in network.denoiser.to_latent.parameters():
            parameter.zero_()
    image, _ = pair_of(size)
    one = SamplingInferer(1, amp=False)(image, network).softmax(dim=1)
    several = SamplingInferer(3, amp=False)(image, network)
    torch.testing.assert_close(several[:, :3], one)
    assert several[:, 3].max() < 1e-4


def test_a_certain_class_is_brought_up_without_a_nan() -> None:
    network = noisy_ldseg(interpolation=2)
    with torch.no_grad():
        network.label_decoder.to_logits[-1].weight.mul_(1e6)
    result = SamplingInferer(4, amp=False)(pair_of((16, 24))[0], network)
    assert result.isfinite().all()
    torch.testing.assert_close(result[:, :3].sum(1), torch.ones(2, 16, 24))


@pytest.mark.parametrize("num_samples", [1, 3])
def test_image_is_encoded_once_and_its_samples_are_denoised_in_one_batch(num_samples: int) -> None:
    network = noisy_ldseg(num_inference_steps=5)
    encoded, denoised, decoded = map(
        count_calls,
        (
            network.image_encoder,
            network.denoiser.time_embedding,
            network.label_decoder.levels[0],
        ),
    )
    SamplingInferer(num_samples, amp=False)(pair_of((16, 24))[0], network)
    assert encoded == [2]
    assert denoised == [2 * num_samples] * 5
    assert decoded == [2] * num_samples


@each_eta
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("amp", [False, True])
def test_repeated_call_gives_the_same_bytes_and_leaves_the_global_random_state_alone(
    amp: bool, num_samples: int, eta: float
) -> None:
    network, inferer = noisy_ldseg(eta=eta), SamplingInferer(num_samples, amp=amp)
    image, _ = pair_of((16, 24))
    first = inferer(image, network)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(inferer(image, network), first)
    assert torch.equal(torch.get_rng_state(), state)


@each_eta
@pytest.mark.parametrize("num_samples", [1, 2])
def test_number_of_steps_may_differ_from_the_networks_own(num_samples: int, eta: float) -> None:
    two, five = (noisy_ldseg(eta=eta, num_inference_steps=steps) for steps in (2, 5))
    image, _ = pair_of((16, 24))
    before = SamplingInferer(num_samples, amp=False)(image, two)
    overridden = SamplingInferer(num_samples, num_inference_steps=5, amp=False)(image, two)
    assert torch.equal(overridden, SamplingInferer(num_samples, amp=False)(image, five))
    assert not torch.allclose(overridden, before, atol=1e-4)
    assert torch.equal(SamplingInferer(num_samples, amp=False)(image, two), before)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("num_samples", [1, 2, 10])
def test_kept_samples_follow_a_mean_and_sd_that_are_the_same_bytes(
    num_samples: int, turned: bool
) -> None:
    network, image = noisy_ldseg(eta=1.0), pair_of((16, 24))[0]
    settings = {"num_samples": num_samples, "amp": False, "turned": turned}
    without = SamplingInferer(**settings)(image, network)
    kept = SamplingInferer(**settings, keep_samples=True)(image, network)
    if num_samples == 1:
        assert torch.equal(kept, without)
        return
    assert kept.shape == (2, 3 + 1 + num_samples * 3, 16, 24)
    assert torch.equal(kept[:, :4], without)
    samples = kept[:, 4:].unflatten(1, (num_samples, 3))
    torch.testing.assert_close(samples.sum(2), torch.ones(2, num_samples, 16, 24))
    torch.testing.assert_close(samples.mean(1), kept[:, :3])
    deviation = samples.std(1, correction=0).amax(1, keepdim=True)
    torch.testing.assert_close(deviation, kept[:, 3:4], rtol=1e-3, atol=1e-4)


def test_each_kept_sample_is_what_is_drawn_with_its_noise_alone() -> None:
    network, image = noisy_ldseg(eta=1.0), pair_of((16, 24))[0]
    sampler = SamplingInferer(3, amp=False, keep_samples=True)
    samples = sampler(image, network)[:, 4:].unflatten(1, (3, 3))
    noise = sampler.seeded_noise(network, network.noise_shape(image))
    for index in range(3):
        own = noise.of_samples(slice(index, index + 1))
        alone = SamplingInferer(amp=False)(image, network, noise=own).softmax(1)
        torch.testing.assert_close(samples[:, index], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("orientation", range(8))
def test_each_orientation_is_another_and_can_be_undone(orientation: int) -> None:
    picture = torch.arange(12).view(1, 3, 4)
    turned = turn(picture, orientation)
    assert torch.equal(turn_back(turned, orientation), picture)
    others = [turn(picture, other) for other in range(8) if other != orientation]
    assert not any(torch.equal(turned, other) for other in others)


def test_mean_over_the_orientations_turns_with_the_picture() -> None:
    network, inferer = noisy_ldseg(), SamplingInferer(8, amp=False, turned=True)
    image = pair_of((16, 24))[0]
    field = torch.randn(1, 1, 1, *network.noise_shape(image)).expand(-1, -1, 8, -1, -1, -1)
    noise = Noise(field, torch.empty(2, 1, 8, 0))
    expected = inferer(image, network, noise=noise)
    assert expected[:, 3:].max() > 0.01  # the network itself is not the same in all orientations
    for orientation in range(1, 8):
        own = Noise(turn(field, orientation), noise.latents)
        turned = inferer(turn(image, orientation), network, noise=own)
        torch.testing.assert_close(turn_back(turned, orientation), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own_noise", [False, True])
def test_sample_sees_the_picture_and_its_own_noise_in_its_orientation(own_noise: bool) -> None:
    network, image = noisy_ldseg(eta=1.0), pair_of((16, 24))[0]
    field = torch.randn(2, 2 if own_noise else 1, 10, *network.noise_shape(image))
    noise = Noise(field, torch.empty(2, 1, 10, 0))
    result = SamplingInferer(10, amp=False, turned=True)(image, network, noise=noise)
    probabilities = []
    for index in range(10):
        own = Noise(turn(field[:, :, [index]], index % 8), noise.latents[:, :, [index]])
        plain = SamplingInferer(amp=False)(turn(image, index % 8), network, noise=own)
        probabilities.append(turn_back(plain, index % 8).softmax(1))
    torch.testing.assert_close(
        result[:, :3], torch.stack(probabilities).mean(0), rtol=1e-4, atol=1e-5
    )


def test_first_sample_is_of_the_picture_as_it_is_and_each_orientation_is_encoded_once() -> None:
    network, image = noisy_ldseg(), pair_of((16, 24))[0]
    assert torch.equal(
        SamplingInferer(1, turned=True)(image, network), SamplingInferer(1)(image, network)
    )
    encoded = count_calls(network.image_encoder)
    for number, orientations in ((3, 3), (20, 8)):
        encoded.clear()
        SamplingInferer(number, turned=True)(image, network)
        assert encoded == [2] * orientations


def test_volumes_are_not_turned() -> None:
    with pytest.raises(
        ValueError, match="turned is for pictures: got 3 axes, expected 2; set turned to false"
    ):
        SamplingInferer(2, turned=True)(pair_of((8, 16, 8))[0], noisy_ldseg(3))


@pytest.mark.parametrize("num_samples", [0, -1, 2.5, "3", "x", None, [2], True, float("nan")])
def test_number_of_samples_that_is_none_is_refused(num_samples: Any) -> None:
    told = re.escape(f"num_samples is {num_samples!r}: expected a whole number, 1 or more")
    with pytest.raises(InputError, match=told):
        SamplingInferer(num_samples)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "5", None, [1], True])
def test_seed_that_is_none_is_refused(seed: Any) -> None:
    told = re.escape(f"seed is {seed!r}: expected a whole number from 0 to {2**63 - 1}")
    with pytest.raises(InputError, match=told):
        SamplingInferer(seed=seed)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_sampling_refuses_what_the_network_refuses(num_samples: int) -> None:
    network, image = noisy_ldseg(), pair_of((16, 24))[0]
    with pytest.raises(ValueError, match="image size 16x21: expected multiples of 4; pad to 16x24"):
        SamplingInferer(num_samples)(image[..., :21], network)
    with pytest.raises(ValueError, match="num_inference_steps is 1001: expected 1 to 1000"):
        SamplingInferer(num_samples, num_inference_steps=1001)(image, network)
    noise = Noise(torch.randn(2, 1, num_samples, 2, 4, 6), torch.empty(2, 1, num_samples, 0))
    with pytest.raises(ValueError, match="noise has 2 draws: expected 1 for 2 steps"):
        SamplingInferer(num_samples)(image, network, noise=noise)
    with pytest.raises(TypeError, match="expected at most noise"):
        SamplingInferer()(image, network, label=image)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_logits_that_are_not_finite_are_no_segmentation(num_samples: int) -> None:
    network = noisy_ldseg()
    with torch.no_grad():  # as a training leaves it that diverged
        network.label_decoder.to_logits[-1].weight.fill_(torch.nan)
    with pytest.raises(RuntimeError, match="logits that are not finite .* did not diverge"):
        SamplingInferer(num_samples, amp=False)(pair_of((16, 24))[0], network)
