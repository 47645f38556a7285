from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer, SlidingWindowInferer
from small_networks import RecordingSampler, Wrapper, convolution_dtypes, count_calls
from torch import nn

from ldseg_monai.diffusion.draws import draw_per_sample
from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.inference.autocast import AutocastInferer
from ldseg_monai.inference.samplers import SamplingInferer, turn, turn_back
from ldseg_monai.inference.slices import SliceSamplingInferer
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.training.inferers import TrainingInferer

SIZES = [(16, 24), (8, 16, 8)]
each_size = pytest.mark.parametrize("size", SIZES)
each_eta = pytest.mark.parametrize("eta", [0.0, 1.0])
each_network = pytest.mark.parametrize(
    "arguments", [{}, {"decoder_image_levels": [True, True]}], ids=["blind", "seeing"]
)


def tiny(spatial_dims: int = 2, **arguments) -> LDSeg:
    """A network of stride 4 whose latent depends on the noise."""
    torch.manual_seed(0)
    defaults = {
        "in_channels": 2,
        "out_channels": 3,
        "channels": (8, 16),
        "stem_stride": 2,
        "denoiser_channels": (8, 16),
        "num_head_channels": 4,
        "norm": ("group", {"num_groups": 4}),
        "latent_channels": 2,
        "prediction_type": "v_prediction",
        "decode_clean": True,
    }
    return LDSeg(spatial_dims, **{**defaults, **arguments}).eval()


def pair(size: tuple[int, ...], batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 2, *size, generator=generator)
    return image, torch.randint(3, (batch, 1, *size), generator=generator)


def draw_samples(
    network: LDSeg, image: torch.Tensor, num_samples: int, seed: int = 0
) -> torch.Tensor:
    """The samples' class probabilities, one by one: ``(samples, B, classes, *spatial)``."""
    noise = seeded_noise(network.noise_shape(image), seed, num_samples, network.num_draws())
    with torch.no_grad():
        logits = [
            network.segment(image, noise[:, index : index + 1]) for index in range(num_samples)
        ]
    return torch.stack(logits).softmax(dim=2)


class Recorder:
    """Stands for a network in training: keeps what it is called with."""

    def __init__(self) -> None:
        self.scheduler = SimpleNamespace(num_train_timesteps=1000)

    def __call__(self, image: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
        self.image, self.kwargs = image, kwargs
        return {"logits": image}


# Training


@pytest.mark.parametrize("amp", [False, True])
@each_size
def test_training_returns_the_networks_dictionary(size: tuple[int, ...], amp: bool) -> None:
    network = tiny(len(size)).train()
    image, label = pair(size)
    torch.manual_seed(3)
    output = TrainingInferer(amp)(image, network, label=label)
    assert set(output) == {"logits", "prediction", "target", "reconstruction"}
    if not amp:
        torch.manual_seed(3)
        timesteps = draw_per_sample(2, lambda each: torch.randint(1000, [], generator=each))
        expected = network(image, label, timesteps)
        assert all(torch.equal(output[name], expected[name]) for name in expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_the_samples_is_trained_at_the_last_timestep_and_the_others_at_a_uniform_one(
    share: float,
) -> None:
    network = Recorder()
    torch.manual_seed(0)
    TrainingInferer(pure_noise_share=share)(torch.zeros(20_000, 1, 1, 1), network)
    timesteps = network.kwargs["timesteps"]
    last = timesteps == 999
    assert last.float().mean().item() == pytest.approx(share, abs=0.02)
    if share < 1:
        counts = timesteps[~last].bincount(minlength=999)
        assert len(counts) == 999 and counts.min() > 0
        fifths = torch.stack([part.sum() for part in counts.float().tensor_split(5)])
        torch.testing.assert_close(fifths / fifths.sum(), torch.full((5,), 0.2), rtol=0, atol=0.02)
    else:
        assert last.all()


@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("size", [(16, 24), (20, 16, 8)])
def test_training_computes_in_bfloat16_on_the_cpu_if_asked(
    size: tuple[int, ...], amp: bool, dtype
) -> None:
    network = tiny(len(size)).train()
    seen = convolution_dtypes(network)
    image, label = pair(size)
    output = TrainingInferer(amp)(image, network, label=label)
    assert seen == {dtype}
    assert output["logits"].dtype == dtype
    assert output["prediction"].dtype == output["target"].dtype == torch.float32
    sum(tensor.float().square().mean() for tensor in output.values()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


def test_training_shows_the_decoder_every_image_unless_told_otherwise() -> None:
    image, label = pair((16, 16))
    shown = []
    for arguments in ({}, {"image_dropout": 0.0}, {"image_dropout": 1.0}):
        network = tiny(decoder_image_levels=[True, True], **arguments).train()
        torch.manual_seed(3)
        shown.append(TrainingInferer(amp=False)(image, network, label=label)["logits"])
    assert network.image_dropout == 1.0 and tiny().image_dropout == 0.0
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[0], shown[2])


def test_training_network_gets_plain_tensors() -> None:
    network = Recorder()
    image, label = pair((4, 4))
    TrainingInferer()(MetaTensor(image), network, label=MetaTensor(label), name="knee")
    assert type(network.image) is torch.Tensor and torch.equal(network.image, image)
    assert type(network.kwargs["label"]) is torch.Tensor and torch.equal(
        network.kwargs["label"], label
    )
    assert network.kwargs["name"] == "knee"


def test_training_calls_the_wrapper_and_not_the_network_in_it() -> None:
    wrapper = Wrapper(tiny())
    calls = count_calls(wrapper)
    image, label = pair((16, 16))
    assert "logits" in TrainingInferer()(image, wrapper, label=label)
    assert calls == [2]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_of_pure_noise_must_be_one(share: float) -> None:
    with pytest.raises(ValueError, match=f"pure_noise_share is {share}: expected 0 to 1"):
        TrainingInferer(pure_noise_share=share)


# Autocast


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))


class RecordingInferer(Inferer):
    """Keeps what it is called with, and whether autocast was on."""

    def __call__(
        self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        self.called_with = (inputs, network, args, kwargs)
        self.autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        return torch.tensor([1.5, -2.0], dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "inferer", [SimpleInferer(), SlidingWindowInferer(16, overlap=0.5)], ids=["simple", "windows"]
)
def test_autocast_returns_what_the_inferer_returns(inferer: Inferer) -> None:
    network, (image, _) = small_cnn(), pair((24, 32))
    exact = inferer(image, network)
    assert torch.equal(AutocastInferer(inferer, amp=False)(image, network), exact)
    seen = convolution_dtypes(network)
    result = AutocastInferer(inferer)(image, network)
    assert seen == {torch.bfloat16}
    assert result.dtype == torch.float32
    assert not torch.equal(result, exact)
    torch.testing.assert_close(result, exact, rtol=0.05, atol=0.05)


def test_autocast_result_is_what_the_network_said_in_bfloat16() -> None:
    network, (image, _) = small_cnn(), pair((16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        expected = network(image)
    assert expected.dtype == torch.bfloat16
    assert torch.equal(AutocastInferer(SimpleInferer())(image, network), expected.float())


@pytest.mark.parametrize("amp", [True, False])
def test_autocast_passes_plain_tensors_and_every_argument_on_and_ends_with_the_call(
    amp: bool,
) -> None:
    inferer, network = RecordingInferer(), small_cnn()
    image, _ = pair((4, 4))
    result = AutocastInferer(inferer, amp)(MetaTensor(image), network, 1, name="knee")
    assert result.dtype == torch.float32 and result.tolist() == [1.5, -2.0]
    inputs, called, args, kwargs = inferer.called_with
    assert type(inputs) is torch.Tensor and torch.equal(inputs, image)
    assert called is network and args == (1,) and kwargs == {"name": "knee"}
    assert inferer.autocast[0] == amp
    assert not amp or inferer.autocast[1] == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


def test_autocast_trains_in_float32_weights() -> None:
    network, (image, label) = small_cnn(), pair((16, 16))
    logits = AutocastInferer(SimpleInferer())(image, network)
    nn.functional.cross_entropy(logits, label[:, 0]).backward()
    exact = torch.autograd.grad(
        nn.functional.cross_entropy(network(image), label[:, 0]), list(network.parameters())
    )
    for parameter, expected in zip(network.parameters(), exact, strict=True):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert torch.cosine_similarity(parameter.grad.flatten(), expected.flatten(), dim=0) > 0.999


# Sampling


@each_eta
@each_size
@each_network
def test_one_sample_is_the_networks_own_segmentation(
    arguments: dict, size: tuple[int, ...], eta: float
) -> None:
    network = tiny(len(size), eta=eta, num_inference_steps=3, seed=5, **arguments)
    image, _ = pair(size)
    with torch.no_grad():
        expected = network.segment(image)
        assert torch.equal(SamplingInferer(seed=5, amp=False)(image, network), expected)
        with torch.autocast("cpu", torch.bfloat16):
            expected = network.segment(image)
        assert torch.equal(SamplingInferer(seed=5, amp=True)(image, network), expected)


@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("num_samples", [1, 2])
def test_sampling_computes_in_bfloat16_on_the_cpu_if_asked(
    num_samples: int, amp: bool, dtype: torch.dtype
) -> None:
    network = tiny()
    image, _ = pair((16, 24))
    exact = SamplingInferer(num_samples, amp=False)(image, network)
    seen = convolution_dtypes(network)
    result = SamplingInferer(num_samples, amp=amp)(image, network)
    assert seen == {dtype}
    assert not result.requires_grad
    torch.testing.assert_close(result.float(), exact, rtol=0.1, atol=0.1)


@each_eta
@each_size
@each_network
def test_ensemble_is_the_mean_and_the_largest_sd_of_its_separate_samples(
    arguments: dict, size: tuple[int, ...], eta: float
) -> None:
    network = tiny(len(size), eta=eta, **arguments)
    image, _ = pair(size)
    samples = draw_samples(network, image, 4, seed=7)
    result = SamplingInferer(4, seed=7, amp=False)(image, network)
    assert result.shape == (2, 4, *size) and result.dtype == torch.float32
    torch.testing.assert_close(result[:, :3], samples.mean(0), rtol=1e-4, atol=1e-5)
    deviation = samples.std(0, correction=0).amax(1, keepdim=True)
    torch.testing.assert_close(result[:, 3:], deviation, rtol=1e-3, atol=1e-5)
    assert result[:, 3:].min() >= 0 and 1e-3 < result[:, 3:].max() <= 0.5
    torch.testing.assert_close(result[:, :3].sum(1), torch.ones(2, *size))


def test_sd_of_samples_that_contradict_each_other_is_one_half() -> None:
    network = tiny()
    with torch.no_grad():  # the decoder is made to be certain of one class or of another
        network.label_decoder.to_logits[-1].weight.mul_(1e6)
    result = SamplingInferer(8, amp=False)(pair((16, 24))[0], network)
    assert 0.45 < result[:, 3:].max() <= 0.5


@pytest.mark.parametrize("num_samples", [1, 3])
def test_image_is_encoded_once_and_its_samples_are_denoised_in_one_batch(num_samples: int) -> None:
    network = tiny(num_inference_steps=5)
    encoded, denoised, decoded = map(
        count_calls,
        (
            network.image_encoder.encoder,
            network.denoiser.time_embedding,
            network.label_decoder.levels[0],
        ),
    )
    SamplingInferer(num_samples)(pair((16, 24))[0], network)
    assert encoded == [2]
    assert denoised == [2 * num_samples] * 5
    assert decoded == [2] * num_samples


@each_eta
def test_sample_does_not_depend_on_how_many_are_drawn(eta: float) -> None:
    network = tiny(eta=eta)
    image, _ = pair((16, 24))
    one = SamplingInferer(1, amp=False)(image, network).softmax(1)
    two, three = (SamplingInferer(number, amp=False)(image, network)[:, :3] for number in (2, 3))
    samples = [one, 2 * two - one, 3 * three - 2 * two]
    torch.testing.assert_close(
        torch.stack(samples), draw_samples(network, image, 3), rtol=1e-3, atol=1e-5
    )


@each_eta
@each_size
@pytest.mark.parametrize("num_samples", [1, 3])
@each_network
def test_batch_of_two_is_two_batches_of_one(
    arguments: dict, num_samples: int, size: tuple[int, ...], eta: float
) -> None:
    network, inferer = (
        tiny(len(size), eta=eta, **arguments),
        SamplingInferer(num_samples, amp=False),
    )
    image, _ = pair(size)
    apart = torch.cat([inferer(image[:1], network), inferer(image[1:], network)])
    torch.testing.assert_close(inferer(image, network), apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(apart[0], apart[1], atol=1e-3)


@each_eta
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("amp", [False, True])
def test_repeated_call_gives_the_same_bytes_and_leaves_the_global_random_state_alone(
    amp: bool, num_samples: int, eta: float
) -> None:
    network, inferer = tiny(eta=eta), SamplingInferer(num_samples, amp=amp)
    image, _ = pair((16, 24))
    first = inferer(image, network)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(inferer(image, network), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_another_seed_gives_other_samples(num_samples: int) -> None:
    network = tiny()
    image, _ = pair((16, 24))
    zero, one = (
        SamplingInferer(num_samples, seed=seed, amp=False)(image, network) for seed in (0, 1)
    )
    assert not torch.allclose(zero, one, atol=1e-2)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_metadata_does_not_change_the_numbers(num_samples: int) -> None:
    network, inferer = tiny(), SamplingInferer(num_samples)
    image, _ = pair((16, 24))
    assert torch.equal(inferer(MetaTensor(image), network), inferer(image, network))


@each_eta
@pytest.mark.parametrize("num_samples", [1, 2])
def test_number_of_steps_may_differ_from_the_networks_own(num_samples: int, eta: float) -> None:
    two, five = (tiny(eta=eta, num_inference_steps=steps) for steps in (2, 5))
    image, _ = pair((16, 24))
    before = SamplingInferer(num_samples, amp=False)(image, two)
    overridden = SamplingInferer(num_samples, num_inference_steps=5, amp=False)(image, two)
    assert torch.equal(overridden, SamplingInferer(num_samples, amp=False)(image, five))
    assert not torch.allclose(overridden, before, atol=1e-4)
    assert torch.equal(SamplingInferer(num_samples, amp=False)(image, two), before)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_noise_may_be_given_for_each_image(num_samples: int) -> None:
    network, inferer = tiny(eta=1.0), SamplingInferer(num_samples, amp=False)
    image, _ = pair((16, 24))
    noise = torch.randn(2, 2 * num_samples, *network.noise_shape(image))
    apart = [
        inferer(image[i : i + 1], network, noise=noise[:, i * num_samples :][:, :num_samples])
        for i in range(2)
    ]
    torch.testing.assert_close(
        inferer(image, network, noise=noise), torch.cat(apart), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("num_samples", [1, 2])
def test_network_in_a_wrapper_gives_the_same(num_samples: int) -> None:
    network, inferer = tiny(), SamplingInferer(num_samples)
    image, _ = pair((16, 24))
    assert torch.equal(inferer(image, Wrapper(network)), inferer(image, network))


@pytest.mark.parametrize("orientation", range(8))
def test_each_orientation_is_another_and_can_be_undone(orientation: int) -> None:
    picture = torch.arange(12).view(1, 3, 4)
    turned = turn(picture, orientation)
    assert torch.equal(turn_back(turned, orientation), picture)
    others = [turn(picture, other) for other in range(8) if other != orientation]
    assert not any(torch.equal(turned, other) for other in others)


def test_mean_over_the_orientations_turns_with_the_picture() -> None:
    network, inferer = tiny(), SamplingInferer(8, amp=False, turned=True)
    image = pair((16, 24))[0]
    noise = torch.randn(1, 1, *network.noise_shape(image)).expand(-1, 8, -1, -1, -1)
    expected = inferer(image, network, noise=noise)
    assert expected[:, 3:].max() > 0.01  # the network itself is not the same in all orientations
    for orientation in range(1, 8):
        turned = inferer(turn(image, orientation), network, noise=turn(noise, orientation))
        torch.testing.assert_close(turn_back(turned, orientation), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own_noise", [False, True])
def test_sample_sees_the_picture_and_its_own_noise_in_its_orientation(own_noise: bool) -> None:
    network, image = tiny(eta=1.0), pair((16, 24))[0]
    noise = torch.randn(2, 20 if own_noise else 10, *network.noise_shape(image))
    result = SamplingInferer(10, amp=False, turned=True)(image, network, noise=noise)
    probabilities = []
    for index in range(10):
        own = noise[:, [index, 10 + index]] if own_noise else noise[:, [index]]
        plain = SamplingInferer(amp=False)(
            turn(image, index % 8), network, noise=turn(own, index % 8)
        )
        probabilities.append(turn_back(plain, index % 8).softmax(1))
    torch.testing.assert_close(
        result[:, :3], torch.stack(probabilities).mean(0), rtol=1e-4, atol=1e-5
    )


def test_first_sample_is_of_the_picture_as_it_is_and_each_orientation_is_encoded_once() -> None:
    network, image = tiny(), pair((16, 24))[0]
    assert torch.equal(
        SamplingInferer(1, turned=True)(image, network), SamplingInferer(1)(image, network)
    )
    encoded = count_calls(network.image_encoder.encoder)
    for number, orientations in ((3, 3), (20, 8)):
        encoded.clear()
        SamplingInferer(number, turned=True)(image, network)
        assert encoded == [2] * orientations


def test_volumes_are_not_turned() -> None:
    with pytest.raises(
        ValueError, match="turned is for pictures: got 3 axes, expected 2; set turned to false"
    ):
        SamplingInferer(2, turned=True)(pair((8, 16, 8))[0], tiny(3))


@pytest.mark.parametrize("num_samples", [0, -1])
def test_sampling_without_samples_is_refused(num_samples: int) -> None:
    with pytest.raises(ValueError, match=f"num_samples is {num_samples}: expected 1 or more"):
        SamplingInferer(num_samples)


@pytest.mark.parametrize("num_samples", [1, 2])
def test_sampling_refuses_what_the_network_refuses(num_samples: int) -> None:
    network, image = tiny(), pair((16, 24))[0]
    with pytest.raises(ValueError, match="image size 16x21: expected multiples of 4; pad to 16x24"):
        SamplingInferer(num_samples)(image[..., :21], network)
    with pytest.raises(ValueError, match="num_inference_steps is 1001: expected 1 to 1000"):
        SamplingInferer(num_samples, num_inference_steps=1001)(image, network)
    with pytest.raises(ValueError, match="noise has 2 draws: expected 1 for 2 steps"):
        SamplingInferer(num_samples)(image, network, noise=torch.randn(2, num_samples, 2, 4, 6))


# Sliding windows


def grid(size: tuple[int, ...], batch: int = 1) -> torch.Tensor:
    """An image whose first two channels say where each pixel is."""
    return (
        torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"))[None, :2]
        .float()
        .repeat(batch, 1, 1, 1)
    )


def field_of(sampler: SamplingInferer, network: LDSeg, size: tuple[int, ...]) -> torch.Tensor:
    """The noise of a whole image, up to where the latent of its last window of 16 ends."""
    return sampler.draw_noise(
        network, [network.latent_channels] + [round((side - 16) / 4) + 4 for side in size]
    )


@each_eta
@each_size
@pytest.mark.parametrize("num_samples", [1, 3])
def test_one_window_is_sampled_as_an_image_without_windows(
    num_samples: int, size: tuple[int, ...], eta: float
) -> None:
    network, sampler = tiny(len(size), eta=eta), SamplingInferer(num_samples, seed=4, amp=False)
    image, _ = pair(size)
    result = SlidingWindowSamplingInferer(sampler, roi_size=size, mode="constant")(image, network)
    torch.testing.assert_close(result, sampler(image, network), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 2])
@each_eta
def test_windows_aligned_to_the_stride_see_the_same_noise_where_they_overlap(
    eta: float, num_samples: int
) -> None:
    network, sampler = tiny(eta=eta), RecordingSampler(num_samples)
    size = (32, 40)
    SlidingWindowSamplingInferer(sampler, roi_size=16, overlap=0.5)(grid(size), network)
    assert len(sampler.windows) == 3 * 4
    seen = torch.full((network.num_draws(), num_samples, 2, 8, 10), torch.nan)
    overlaps = 0
    for window, noise in sampler.windows:
        row, column = (int(start) // 4 for start in window[:, 0, 0])
        area = seen[..., row : row + 4, column : column + 4]
        known = ~area.isnan()
        overlaps += int(known.sum() > 0)
        assert torch.equal(area[known], noise[known])
        area.copy_(noise)
    assert overlaps > 6
    assert torch.equal(seen, field_of(sampler, network, size))
    assert len(seen.unique()) == seen.numel()


def test_other_windows_see_the_noise_of_the_nearest_position() -> None:
    network, sampler = tiny(), RecordingSampler()
    size = (31, 37)
    SlidingWindowSamplingInferer(sampler, roi_size=(16, 16), overlap=0.25)(grid(size), network)
    field, starts = field_of(sampler, network, size), set()
    for window, noise in sampler.windows:
        start = tuple(int(corner) for corner in window[:, 0, 0])
        row, column = (round(side / 4) for side in start)
        assert torch.equal(noise, field[..., row : row + 4, column : column + 4])
        starts.add(start)
    assert any(side % 4 for start in starts for side in start)


@pytest.mark.parametrize(
    ("size", "roi_size"),
    [
        ((10, 13), (16, 16)),  # smaller than the window
        ((40, 9), (16, 16)),
        ((31, 37), 16),  # not multiples of the stride
        ((17, 16), (16, 16)),
        ((24, 32), (16, -1)),  # the whole of an axis
        ((9, 21, 14), (8, 16, 8)),
        ((5, 6, 7), 8),
    ],
)
@pytest.mark.parametrize("num_samples", [1, 2])
def test_image_of_any_size_is_segmented(size: tuple[int, ...], roi_size, num_samples: int) -> None:
    network = tiny(len(size))
    image, _ = pair(size)
    inferer = SlidingWindowSamplingInferer(
        SamplingInferer(num_samples), roi_size=roi_size, mode="gaussian"
    )
    result = inferer(image, network)
    assert result.shape == (2, 3 if num_samples == 1 else 4, *size)
    assert result.isfinite().all()
    if num_samples > 1:
        torch.testing.assert_close(result[:, :3].sum(1), torch.ones(2, *size), rtol=0, atol=0.02)
        assert result[:, 3].min() >= 0 and result[:, 3].max() <= 0.51
    assert torch.equal(inferer(image, network), result)


@each_eta
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("sw_batch_size", [2, 4, 100])
@each_network
def test_number_of_windows_in_a_batch_does_not_matter(
    arguments: dict, sw_batch_size: int, num_samples: int, eta: float
) -> None:
    network, sampler = tiny(eta=eta, **arguments), SamplingInferer(num_samples, amp=False)
    image, _ = pair((30, 24))
    one, more = (
        SlidingWindowSamplingInferer(sampler, roi_size=16, sw_batch_size=number, overlap=0.5)(
            image, network
        )
        for number in (1, sw_batch_size)
    )
    torch.testing.assert_close(more, one, rtol=1e-4, atol=1e-5)


@each_network
def test_windows_of_a_batch_of_two_are_those_of_two_batches_of_one(arguments: dict) -> None:
    network = tiny(**arguments)
    inferer = SlidingWindowSamplingInferer(
        SamplingInferer(2, amp=False), roi_size=16, sw_batch_size=4, overlap=0.5
    )
    image, _ = pair((30, 24))
    apart = torch.cat([inferer(image[:1], network), inferer(image[1:], network)])
    torch.testing.assert_close(inferer(image, network), apart, rtol=1e-4, atol=1e-5)


def test_windows_take_metadata_and_wrapped_networks() -> None:
    network, inferer = tiny(), SlidingWindowSamplingInferer(SamplingInferer(2), roi_size=16)
    image, _ = pair((20, 24))
    assert torch.equal(inferer(MetaTensor(image), Wrapper(network)), inferer(image, network))


@pytest.mark.parametrize("buffer_dim", [0, 1, -1])
def test_label_of_one_sample_is_its_most_probable_class(buffer_dim: int) -> None:
    network, (image, _) = tiny(), pair((30, 24))
    windows = partial(SlidingWindowSamplingInferer, roi_size=16, overlap=0.5, buffer_dim=buffer_dim)
    label = windows(SamplingInferer(), as_label=True)(image, network)
    assert label.dtype == torch.uint8
    assert torch.equal(label[:, 0].long(), windows(SamplingInferer())(image, network).argmax(1))
    ensemble = windows(SamplingInferer(2), as_label=True)(image, network)
    assert torch.equal(ensemble, windows(SamplingInferer(2))(image, network))


@pytest.mark.parametrize(
    "inferer",
    [TrainingInferer(), SamplingInferer(), SlidingWindowSamplingInferer(SamplingInferer(), 16)],
)
def test_network_of_another_kind_is_refused(inferer: Inferer) -> None:
    with pytest.raises(
        ValueError,
        match="network is a Identity: expected an LDSeg or a CDAL; a peer's overlay comes",
    ):
        inferer(torch.zeros(1, 1, 16, 16), torch.nn.Identity())


def test_options_of_monai_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="with_coord is true: expected false"):
        SlidingWindowSamplingInferer(SamplingInferer(), 16, with_coord=True)
    with pytest.raises(ValueError, match="buffer_steps is 2: expected none"):
        SlidingWindowSamplingInferer(SamplingInferer(), 16, buffer_steps=2)


def test_window_that_does_not_fit_the_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="image size 18x18: expected multiples of 4; pad to 20x20"):
        SlidingWindowSamplingInferer(SamplingInferer(), roi_size=18)(pair((40, 40))[0], tiny())


def test_arguments_that_would_be_ignored_are_refused() -> None:
    network, (image, _) = tiny(), pair((16, 16))
    with pytest.raises(TypeError, match="expected at most noise"):
        SamplingInferer()(image, network, label=image)
    with pytest.raises(TypeError, match="expected nothing else"):
        SlidingWindowSamplingInferer(SamplingInferer(), (8, 8))(image, network, noise=image)


# Slices


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_volume_is_segmented_slice_by_slice_in_batches(num_samples: int, axis: int) -> None:
    network, sampler = tiny(), SamplingInferer(num_samples, amp=False)
    volume, _ = pair((16, 16, 16))
    volume = volume[tuple(slice(7 if dimension == axis + 2 else None) for dimension in range(5))]
    denoised = count_calls(network.image_encoder.encoder)
    result = SliceSamplingInferer(sampler, roi_size=(16, 16), spatial_dim=axis, sw_batch_size=4)(
        volume, network
    )
    assert denoised == [4, 4, 4, 2]  # of 2 volumes of 7 slices
    expected = torch.stack([sampler(cut, network) for cut in volume.unbind(axis + 2)], dim=axis + 2)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_slices_take_metadata_and_wrapped_networks_and_nothing_else() -> None:
    network, inferer = (
        tiny(),
        SliceSamplingInferer(SamplingInferer(2), roi_size=(16, 16), spatial_dim=2),
    )
    volume, _ = pair((16, 12, 3))
    assert torch.equal(inferer(MetaTensor(volume), Wrapper(network)), inferer(volume, network))
    with pytest.raises(TypeError, match="beside inputs and network: expected nothing else"):
        inferer(volume, network, noise=volume)
