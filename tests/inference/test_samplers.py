from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from small_networks import convolution_dtypes, count_calls, noisy_ldseg, pair_of
from torch.nn import functional

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.views import orientations
from ldseg_monai.networks import DiffusionSegmenter, EnsembleSegmenter
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


@pytest.mark.parametrize(
    ("num_samples", "turned"), [(1, False), (2, False), (10, False), (8, True), (10, True)]
)
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


def test_mean_over_the_orientations_turns_with_the_picture() -> None:
    network, inferer = noisy_ldseg(), SamplingInferer(8, amp=False, turned=True)
    image = pair_of((16, 24))[0]
    field = torch.randn(1, 1, 1, *network.noise_shape(image)).expand(-1, -1, 8, -1, -1, -1)
    noise = Noise(field, torch.empty(2, 1, 8, 0))
    expected = inferer(image, network, noise=noise)
    assert expected[:, 3:].max() > 0.01  # the network itself is not the same in all orientations
    for view in orientations()[1:]:
        own = Noise(view.show(field), noise.latents)
        turned = inferer(view.show(image), network, noise=own)
        torch.testing.assert_close(view.bring_back(turned), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own_noise", [False, True])
def test_sample_sees_the_picture_and_its_own_noise_in_its_orientation(own_noise: bool) -> None:
    network, image = noisy_ldseg(eta=1.0), pair_of((16, 24))[0]
    field = torch.randn(2, 2 if own_noise else 1, 10, *network.noise_shape(image))
    noise = Noise(field, torch.empty(2, 1, 10, 0))
    result = SamplingInferer(10, amp=False, turned=True)(image, network, noise=noise)
    probabilities = []
    for index in range(10):
        view = orientations()[index % 8]
        own = Noise(view.show(field[:, :, [index]]), noise.latents[:, :, [index]])
        plain = SamplingInferer(amp=False)(view.show(image), network, noise=own)
        probabilities.append(view.bring_back(plain).softmax(1))
    torch.testing.assert_close(
        result[:, :3], torch.stack(probabilities).mean(0), rtol=1e-4, atol=1e-5
    )


def test_first_sample_is_of_the_picture_as_it_is_and_each_orientation_is_encoded_once() -> None:
    network, image = noisy_ldseg(), pair_of((16, 24))[0]
    inferer = SamplingInferer(8, amp=False, turned=True, keep_samples=True)
    first = SamplingInferer(1, amp=False)(image, network).softmax(1)
    torch.testing.assert_close(inferer(image, network)[:, 4:7], first, rtol=1e-4, atol=1e-5)
    encoded = count_calls(network.image_encoder)
    for number in (8, 20):
        encoded.clear()
        SamplingInferer(number, turned=True)(image, network)
        assert encoded == [2] * 8


def test_volumes_are_not_turned() -> None:
    with pytest.raises(
        ValueError, match="turned is for pictures: got 3 axes, expected 2; set turned to false"
    ):
        SamplingInferer(2, turned=True)(pair_of((8, 16, 8))[0], noisy_ldseg(3))


class Marks(DiffusionSegmenter):
    """Certain of class 1 where the image is bright and, if told so, before a place on an axis."""

    def __init__(self, spatial_dims: int, sides: dict[int, int] | None = None) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels, self.out_channels = spatial_dims, 1, 2
        self.num_train_timesteps = self.num_inference_steps = 1
        self.sides = sides or {}

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        return [1, *image.shape[2:]]

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        return 1

    def draw(self, image: torch.Tensor, noise: Noise, *args: Any, **kwargs: Any) -> Any:
        marked = image > 0
        for axis, place in self.sides.items():
            marked.narrow(axis + 2, 0, place).fill_(True)
        for _ in range(noise.field.shape[2]):
            yield torch.cat([torch.zeros_like(image), 200.0 * marked - 100], dim=1)


@pytest.mark.parametrize(
    ("axes", "size"), [((0,), (4, 6)), ((2,), (4, 6, 8)), ((0, 1, 2), (4, 6, 8))]
)
def test_network_that_does_not_mind_mirrors_gives_the_same_in_all_of_them(
    axes: tuple[int, ...], size: tuple[int, ...]
) -> None:
    image = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    inferer = SamplingInferer(2 ** len(axes), amp=False, mirrored_axes=axes)
    result = inferer(image, Marks(len(size)))
    torch.testing.assert_close(result[:, 1:2], (image > 0).float())
    torch.testing.assert_close(result[:, 2:], torch.zeros_like(image))


def test_network_that_marks_one_side_shows_which_mirror_images_it_saw() -> None:
    size = (4, 6, 8)
    image = torch.full((1, 1, *size), -1.0)
    network = Marks(3, {0: 1, 2: 3})  # a slab at the begin of the first and of the last axis
    inferer = SamplingInferer(8, amp=False, mirrored_axes=[0, 2], keep_samples=True)
    samples = inferer(image, network)[0, 3:].unflatten(0, (8, 2))[:, 1]
    views = [(1, 3), (1, -3), (-1, 3), (-1, -3)]  # two samples of each
    for number, sample in enumerate(samples):
        marked = []
        for axis, place in zip((0, 2), views[number // 2], strict=True):
            slab = torch.zeros(size, dtype=torch.bool)
            begin = 0 if place > 0 else size[axis] + place
            slab.narrow(axis, begin, abs(place)).fill_(True)
            marked.append(slab)
        torch.testing.assert_close(sample, (marked[0] | marked[1]).float())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_mean_over_mirror_images_is_mirrored_with_the_volume_and_its_noise(eta: float) -> None:
    network = noisy_ldseg(3, eta=eta)
    inferer = SamplingInferer(4, amp=False, mirrored_axes=[0, 1])
    image = pair_of((8, 16, 8))[0]
    field = torch.randn(2, 1, 1, *network.noise_shape(image))
    field = field[: network.num_draws()].expand(-1, -1, 4, -1, -1, -1, -1)
    noise = Noise(field, torch.empty(2, 1, 4, 0))
    expected = inferer(image, network, noise=noise)
    assert expected[:, 3:].max() > 0.01  # the network itself is not the same in all views
    for axes in ([-3], [-2], [-3, -2]):
        own = Noise(field.flip(axes), noise.latents)
        mirrored = inferer(image.flip(axes), network, noise=own)
        torch.testing.assert_close(mirrored.flip(axes), expected, rtol=1e-4, atol=1e-5)
    other = inferer(image.flip([-1]), network, noise=Noise(field.flip([-1]), noise.latents))
    assert not torch.allclose(other.flip([-1]), expected, atol=1e-3)  # along which none is seen


def test_each_network_of_an_ensemble_sees_each_view() -> None:
    image = torch.full((1, 1, 4, 6, 8), -1.0)
    ensemble = EnsembleSegmenter([Marks(3, {0: 1}), Marks(3, {2: 3})])
    inferer = SamplingInferer(4, amp=False, mirrored_axes=[0])
    mean = inferer(image, ensemble)[0, 1]
    expected = torch.zeros(4, 6, 8)
    expected[0], expected[-1] = 0.25, 0.25
    expected[:, :, :3] += 0.5
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mirrored_axes": [3]}, "mirrored_axes is [3] of an image with 3 axes: expected"),
        ({"mirrored_axes": [-1]}, "expected different ones from 0 to 2"),
        ({"mirrored_axes": [0, 0]}, "mirrored_axes is [0, 0]"),
        ({"mirrored_axes": [0, 1]}, "num_samples is 2 with 4 views: expected 4 or more"),
    ],
)
def test_views_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        SamplingInferer(2, **settings)(torch.zeros(1, 1, 4, 6, 8), Marks(3))


def test_views_are_of_one_kind_and_each_is_seen() -> None:
    with pytest.raises(InputError, match="turned is true and mirrored_axes is .* one of them"):
        SamplingInferer(8, turned=True, mirrored_axes=[0])
    with pytest.raises(InputError, match="num_samples is 7 with 8 views: expected 8 or more"):
        SamplingInferer(7, turned=True)(torch.zeros(1, 1, 4, 6), Marks(2))


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
