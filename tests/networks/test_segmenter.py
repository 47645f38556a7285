from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, load_net_with_metadata
from small_networks import RecordingSampler, Wrapper, noisy_ldseg, tiny_cdal
from third_method import FewSteps

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.evaluation.report.trajectory import record_trajectory
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.networks import CDAL, LDSeg
from ldseg_monai.networks.segmenter import DiffusionSegmenter, State, diffusion_segmenter
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.tools.export import Segmenter, export

THIRD_METHOD = Path(__file__).parents[1] / "third_method.py"


def few_steps(**arguments) -> FewSteps:
    torch.manual_seed(0)
    return FewSteps(2, in_channels=2, out_channels=3, **arguments).eval()


cdal = partial(tiny_cdal, num_train_timesteps=2)
MEMBERS = {  # every method in its forms, and the size of an image
    "LDSeg": (noisy_ldseg, (16, 24)),
    "LDSeg, stochastic": (partial(noisy_ldseg, eta=1.0, num_inference_steps=3), (16, 24)),
    "LDSeg in 3D that sees the image": (
        partial(noisy_ldseg, 3, decoder_image_levels=[True, True]),
        (8, 16, 8),
    ),
    "LDSeg that interpolates": (partial(noisy_ldseg, interpolation=2), (16, 24)),
    "cDAL": (cdal, (16, 13)),
    "cDAL, stochastic, in 3D": (partial(cdal, 3, stochastic=True), (8, 12, 6)),
    "cDAL without z": (partial(cdal, latent_size=0, stochastic=True), (16, 13)),
    "a third method": (few_steps, (15, 11)),
}
Build = Callable[..., DiffusionSegmenter]
each_member = pytest.mark.parametrize(("build", "size"), MEMBERS.values(), ids=MEMBERS.keys())


def images_of(size: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(1))


def drawn(network: DiffusionSegmenter, image: torch.Tensor, noise: Noise) -> torch.Tensor:
    """The samples' class logits, ``(samples, B, classes, *spatial)``."""
    with torch.no_grad():
        return torch.stack(list(map(network.enlarge, network.draw(image, noise))))


@each_member
def test_it_says_what_it_is_and_what_noise_it_takes(build: Build, size: tuple[int, ...]) -> None:
    network, image = build(), images_of(size)
    assert (network.spatial_dims, network.in_channels, network.out_channels) == (len(size), 2, 3)
    assert 1 <= network.num_inference_steps <= network.num_train_timesteps
    channels, *latent = network.noise_shape(image)
    assert latent == [side // network.stride for side in size]
    noise = network.seeded_noise([channels, *latent], seed=4, num_samples=3)
    assert noise.field.shape == (network.num_draws(), 1, 3, channels, *latent)
    assert noise.latents.shape == (network.num_inference_steps, 1, 3, network.latent_size)
    assert diffusion_segmenter(Wrapper(network)) is network


@each_member
def test_one_sample_is_the_networks_own_segmentation(build: Build, size: tuple[int, ...]) -> None:
    network, image = build(), images_of(size)
    network.seed = 5
    with torch.no_grad():
        expected = network(image)
        assert expected.shape == (2, 3, *size) and expected.dtype == torch.float32
        assert torch.equal(network.segment(image), expected)
    assert torch.equal(SamplingInferer(seed=5, amp=False)(image, network), expected)


@each_member
def test_samples_of_one_pass_are_those_that_are_drawn_one_by_one(
    build: Build, size: tuple[int, ...]
) -> None:
    network, image = build(), images_of(size)
    noise = network.seeded_noise(network.noise_shape(image), seed=7, num_samples=3)
    one_by_one = drawn(network, image, noise)
    with torch.no_grad():
        together = network.segment(image, noise.field[:, 0], noise.latents[:, 0], num_samples=3)
        by_seed = network.segment(image, num_samples=3, seed=7)
    together = together.unflatten(0, (2, 3)).transpose(0, 1)  # (samples, B, classes, *spatial)
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-4)
    assert torch.equal(by_seed.unflatten(0, (2, 3)).transpose(0, 1), together)


@each_member
def test_ensemble_is_the_mean_and_the_largest_sd_of_its_samples(
    build: Build, size: tuple[int, ...]
) -> None:
    network, image = build(), images_of(size)
    noise = network.seeded_noise(network.noise_shape(image), seed=7, num_samples=4)
    with torch.no_grad():
        samples = torch.stack(list(network.draw(image, noise))).softmax(dim=2)
    result = SamplingInferer(4, seed=7, amp=False)(image, network)
    assert result.shape == (2, 4, *size) and result.dtype == torch.float32
    mean, deviation = samples.mean(0), samples.std(0, correction=0).amax(1)
    if samples.shape[3:] != size:  # see test_samplers.py
        mean = network.enlarge(mean.log()).softmax(dim=1)
        deviation = network.enlarge(deviation[:, None])[:, 0]
    torch.testing.assert_close(result[:, :3], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result[:, 3], deviation, rtol=1e-3, atol=1e-4)
    assert 1e-3 < deviation.max() <= 0.5  # the samples differ


@each_member
def test_sample_does_not_depend_on_how_many_are_drawn(build: Build, size: tuple[int, ...]) -> None:
    network, image = build(), images_of(size)
    shape = network.noise_shape(image)
    one, three = (drawn(network, image, network.seeded_noise(shape, 2, n)) for n in (1, 3))
    torch.testing.assert_close(three[:1], one, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(three[1], three[0], rtol=1e-2, atol=1e-2)


@each_member
@pytest.mark.parametrize("num_samples", [1, 3])
def test_image_gives_the_same_result_in_any_batch(
    num_samples: int, build: Build, size: tuple[int, ...]
) -> None:
    network, image = build(), images_of(size, batch=3)
    inferer = SamplingInferer(num_samples, seed=2, amp=False)
    together = inferer(image, network)
    apart = torch.cat([inferer(one, network) for one in image.split(1)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@each_member
def test_seed_alone_says_what_is_drawn(build: Build, size: tuple[int, ...]) -> None:
    network, image = build(), images_of(size)
    inferer = SamplingInferer(2, seed=2, amp=False)
    first = inferer(image, network)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(inferer(image, network), first)
    assert torch.equal(torch.get_rng_state(), state)
    other = SamplingInferer(2, seed=3, amp=False)(image, network)
    assert not torch.allclose(other, first, atol=1e-3)


@each_member
@pytest.mark.parametrize("num_samples", [1, 2])
def test_noise_may_be_given_for_each_image(
    num_samples: int, build: Build, size: tuple[int, ...]
) -> None:
    network, image = build(), images_of(size)
    inferer = SamplingInferer(num_samples, amp=False)
    field = torch.randn(network.num_draws(), 2, num_samples, *network.noise_shape(image))
    steps = network.num_inference_steps
    noise = Noise(field, torch.randn(steps, 2, num_samples, network.latent_size))
    apart = []
    for one in (slice(0, 1), slice(1, 2)):
        own = Noise(noise.field[:, one], noise.latents[:, one])
        apart.append(inferer(image[one], network, noise=own))
    together = inferer(image, network, noise=noise)
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together, inferer(image, network), atol=1e-3)


@each_member
def test_metadata_and_a_wrapper_change_nothing(build: Build, size: tuple[int, ...]) -> None:
    network, image, inferer = build(), images_of(size), SamplingInferer(2, amp=False)
    result = inferer(MetaTensor(image), Wrapper(network))
    assert type(result) is torch.Tensor
    assert torch.equal(result, inferer(image, network))


@each_member
@pytest.mark.parametrize("num_samples", [1, 2])
def test_windows_are_segmented_with_the_noise_of_their_place(
    num_samples: int, build: Build, size: tuple[int, ...]
) -> None:
    network = build()
    whole = tuple(side + 4 for side in size)
    sampler = RecordingSampler(num_samples, seed=3, amp=False)
    windows = partial(SlidingWindowSamplingInferer, sampler, size, overlap=0.25)
    image = images_of(whole, batch=1)
    result = windows(sw_batch_size=1)(image, network)
    assert len(sampler.windows) == 2 ** len(size)
    assert result.shape == (1, 3 if num_samples == 1 else 4, *whole)
    sides = [side // network.stride + 4 // network.stride for side in size]
    shape = [network.noise_shape(image)[0], *sides]
    everywhere = network.seeded_noise(shape, 3, num_samples)
    last = everywhere.field[(..., *[slice(4 // network.stride, None)] * len(size))]
    assert torch.equal(sampler.windows[-1][1].field, last)
    assert all(torch.equal(noise.latents, everywhere.latents) for _, noise in sampler.windows)
    at_once = windows(sw_batch_size=3)(image, network)
    torch.testing.assert_close(at_once, result, rtol=1e-4, atol=1e-4)


@each_member
def test_one_window_is_segmented_as_an_image(build: Build, size: tuple[int, ...]) -> None:
    network, image, sampler = build(), images_of(size), SamplingInferer(2, amp=False)
    result = SlidingWindowSamplingInferer(sampler, size, mode="constant")(image, network)
    torch.testing.assert_close(result, sampler(image, network), rtol=1e-4, atol=1e-5)


@each_member
def test_callback_is_told_every_state_and_how_to_decode_it(
    build: Build, size: tuple[int, ...]
) -> None:
    network, image = build(), images_of(size)
    noise = network.seeded_noise(network.noise_shape(image), seed=0)
    told: list[State] = []
    with torch.no_grad():
        (logits,) = network.draw(image, noise, callback=told.append)
        (without,) = network.draw(image, noise)
        decoded = told[-1].decode(told[-1].value)
    timesteps = [state.timestep for state in told]
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert timesteps[0] == network.num_train_timesteps and timesteps[-1] == 0
    assert len(told) == network.num_inference_steps + 1
    assert torch.equal(told[0].value, noise.of_images(2).field[0, :, 0])
    assert torch.equal(logits, without)
    torch.testing.assert_close(decoded, network.enlarge(logits))


@each_member
def test_way_from_noise_to_label_is_recorded(build: Build, size: tuple[int, ...]) -> None:
    network, image = build(), images_of(size, batch=1)
    inferer = SamplingInferer(num_samples=3, seed=5, amp=False)
    found = record_trajectory(inferer, network, image)
    assert found is not None
    assert len(found.timesteps) == network.num_inference_steps + 1
    shape = network.noise_shape(image)
    assert torch.equal(found.states[0], network.seeded_noise(shape, 5).field[0, 0, 0])
    first = SamplingInferer(seed=5, amp=False)(image, network)
    assert torch.equal(found.labels[-1], first.argmax(dim=1)[0])


@each_member
def test_it_can_be_scripted_with_its_whole_process(build: Build, size: tuple[int, ...]) -> None:
    network, image = build(), images_of(size)
    scripted = torch.jit.script(Segmenter(network, num_samples=2, seed=3).eval())
    with torch.no_grad():
        for _ in range(2):  # from the second call on, the code is optimized
            result = scripted(image)
    noise = network.seeded_noise(network.noise_shape(image), 3, 2)
    expected = drawn(network, image, noise).softmax(dim=2).mean(0)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3, 16, 24), torch.float32, r"shape \[2, 3, 16, 24\]: expected \[B, 2, \.\.\.\]"),
        ((2, 16, 24), torch.float32, "with 2 spatial axes"),
        ((2, 2, 16, 24, 8), torch.float32, "with 2 spatial axes"),
        ((2, 2, 16, 24), torch.uint8, "expected floating-point numbers"),
    ],
)
@pytest.mark.parametrize("build", [noisy_ldseg, cdal], ids=["LDSeg", "cDAL"])
def test_image_of_other_axes_or_type_is_refused(
    build: Build, shape: tuple[int, ...], dtype: torch.dtype, message: str, scripted: bool
) -> None:
    network: Any = build()
    if scripted:  # whose error is a torch.jit.Error that says the same
        network = torch.jit.script(Segmenter(network, num_samples=2, seed=3).eval())
    with torch.no_grad(), pytest.raises(Exception, match=message) as caught:
        network(torch.zeros(shape, dtype=dtype))
    assert scripted or caught.type is InputError


@pytest.mark.parametrize("made", [noisy_ldseg, tiny_cdal])
def test_start_at_the_mean_is_of_one_sample_alone(made: Callable[..., Any]) -> None:
    drawn, at_mean = made(), made(start_at_mean=True)
    at_mean.load_state_dict(drawn.state_dict())
    image, amp = images_of((16, 24)), {"amp": False}
    noise = drawn.seeded_noise(drawn.noise_shape(image), 0)
    zero = Noise(noise.field * 0, noise.latents * 0)
    with torch.no_grad():
        expected = SamplingInferer(**amp)(image, drawn, noise=zero)
        assert not torch.allclose(expected, SamplingInferer(**amp)(image, drawn), atol=1e-3)
        for seed in (0, 7):  # which has no say
            torch.testing.assert_close(SamplingInferer(seed=seed, **amp)(image, at_mean), expected)
        torch.testing.assert_close(at_mean(image), expected)
        if made is noisy_ldseg:  # PyTorch cannot save another network after a run of cDAL's
            scripted = torch.jit.script(Segmenter(at_mean, num_samples=1, seed=3).eval())
            torch.testing.assert_close(scripted(image), expected.softmax(dim=1))
        several = SamplingInferer(3, seed=4, keep_samples=True, **amp)
        torch.testing.assert_close(several(image, at_mean), several(image, drawn))


@pytest.mark.parametrize("steps", [0, 11])
@pytest.mark.parametrize(
    "build", [partial(noisy_ldseg, num_train_timesteps=10), few_steps], ids=["LDSeg", "third"]
)
def test_steps_beyond_those_in_training_are_refused(build: Build, steps: int) -> None:
    network = build()
    message = f"num_inference_steps is {steps}: expected 1 to 10"
    with pytest.raises(ValueError, match=message):
        network.num_draws(steps)
    with pytest.raises(ValueError, match=message):
        type(network).check_steps(steps, 10)
    with pytest.raises(ValueError, match=message):
        SamplingInferer(num_inference_steps=steps)(images_of((8, 8)), network)
    type(network).check_steps(10, 10)
    assert network.num_draws(10) == 1


@pytest.mark.parametrize("build", [cdal, few_steps], ids=["cDAL", "third"])
def test_network_without_logits_of_its_own_says_so(build: Build) -> None:
    network = build()
    kind = type(network).__name__
    with pytest.raises(ValueError, match=f"network is a {kind}, which has no logits to scale"):
        network.scale_logits(2.0)


def test_temperature_divides_the_logits_of_an_ldseg() -> None:
    network, image = noisy_ldseg(decoder_image_levels=[True, True]), images_of((16, 24))
    with torch.no_grad():
        before = network(image)
        network.scale_logits(1.6)
        torch.testing.assert_close(1.6 * network(image), before, rtol=1e-4, atol=1e-5)


def test_what_a_method_does_not_define_is_an_error() -> None:
    network, image = DiffusionSegmenter(), images_of((4, 4))
    network.num_inference_steps = 1
    for ask in (
        lambda: network.noise_shape(image),
        lambda: network.num_draws(),
        lambda: network.draw(image, Noise(image, image)),
        lambda: network.segment(image),
    ):
        with pytest.raises(NotImplementedError):
            ask()


def test_peer_is_no_diffusion_segmenter() -> None:
    with pytest.raises(ValueError, match="network is a Linear: expected a DiffusionSegmenter"):
        diffusion_segmenter(torch.nn.Linear(2, 2))


def test_third_method_is_a_file_and_its_name_in_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    shutil.copy(THIRD_METHOD, bundle / "my_method.py")
    (bundle / "configs" / "inference.yaml").write_text(
        """
num_samples: 2
network_def:
  _target_: my_method.FewSteps
  spatial_dims: 2
  in_channels: 2
  out_channels: 3
inferer:
  _target_: ldseg_monai.inference.SlidingWindowSamplingInferer
  sampler:
    _target_: ldseg_monai.inference.SamplingInferer
    num_samples: '@num_samples'
    amp: false
  roi_size: [12, 12]
"""
    )
    inputs = {"image": {"num_channels": 2, "spatial_shape": ["*", "*"]}}
    metadata = {"version": "1.0.0", "network_data_format": {"inputs": inputs}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    monkeypatch.syspath_prepend(bundle)
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.yaml"))
    network = config.get_parsed_content("network_def").eval()
    assert isinstance(network, DiffusionSegmenter) and type(network).__module__ == "my_method"
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    image = images_of((20, 17), batch=1)
    result = config.get_parsed_content("inferer")(image, network)
    assert result.shape == (1, 4, 20, 17) and result[:, 3].max() > 0

    export(bundle, tmp_path / "segmenter.ts")
    scripted, _, _ = load_net_with_metadata(str(tmp_path / "segmenter.ts"))
    with torch.no_grad():
        probabilities = scripted(image)
    expected = SamplingInferer(2, amp=False)(image, network)[:, :3]
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-5)


def test_methods_of_the_package_follow_the_protocol() -> None:
    assert issubclass(LDSeg, DiffusionSegmenter) and issubclass(CDAL, DiffusionSegmenter)
