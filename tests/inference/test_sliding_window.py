from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from small_networks import RecordingSampler, Wrapper, noisy_ldseg, pair_of, tiny_cdal

from ldseg_monai.inference import sliding_window as module
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.sliding_window import (
    SliceSamplingInferer,
    SlidingWindowSamplingInferer,
)
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.training.inferers import TrainingInferer

SIZES = [(16, 24), (8, 16, 8)]
each_size = pytest.mark.parametrize("size", SIZES)
each_eta = pytest.mark.parametrize("eta", [0.0, 1.0])
each_network = pytest.mark.parametrize(
    "arguments", [{}, {"decoder_image_levels": [True, True]}], ids=["blind", "seeing"]
)


def grid(size: tuple[int, ...], batch: int = 1) -> torch.Tensor:
    """An image whose first two channels say where each pixel is."""
    return (
        torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"))[None, :2]
        .float()
        .repeat(batch, 1, 1, 1)
    )


def field_of(sampler: SamplingInferer, network: LDSeg, size: tuple[int, ...]) -> torch.Tensor:
    """The noise of a whole image, up to where the latent of its last window of 16 ends."""
    sides = [round((side - 16) / 4) + 4 for side in size]
    return sampler.seeded_noise(network, [network.latent_channels, *sides]).field


@pytest.mark.parametrize("num_samples", [1, 2])
@each_eta
def test_windows_aligned_to_the_stride_see_the_same_noise_where_they_overlap(
    eta: float, num_samples: int
) -> None:
    network, sampler = noisy_ldseg(eta=eta), RecordingSampler(num_samples, amp=False)
    size = (32, 40)
    SlidingWindowSamplingInferer(sampler, roi_size=16, overlap=0.5)(grid(size), network)
    assert len(sampler.windows) == 3 * 4
    seen = torch.full((network.num_draws(), 1, num_samples, 2, 8, 10), torch.nan)
    overlaps = 0
    for window, noise in sampler.windows:
        row, column = (int(start) // 4 for start in window[:, 0, 0])
        area = seen[..., row : row + 4, column : column + 4]
        known = ~area.isnan()
        overlaps += int(known.sum() > 0)
        assert torch.equal(area[known], noise.field[known])
        area.copy_(noise.field)
    assert overlaps > 6
    assert torch.equal(seen, field_of(sampler, network, size))
    assert len(seen.unique()) == seen.numel()


def test_other_windows_see_the_noise_of_the_nearest_position() -> None:
    network, sampler = noisy_ldseg(), RecordingSampler(amp=False)
    size = (31, 37)
    SlidingWindowSamplingInferer(sampler, roi_size=(16, 16), overlap=0.25)(grid(size), network)
    field, starts = field_of(sampler, network, size), set()
    for window, noise in sampler.windows:
        start = tuple(int(corner) for corner in window[:, 0, 0])
        row, column = (round(side / 4) for side in start)
        assert torch.equal(noise.field, field[..., row : row + 4, column : column + 4])
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
    network = noisy_ldseg(len(size))
    image, _ = pair_of(size)
    inferer = SlidingWindowSamplingInferer(
        SamplingInferer(num_samples, amp=False), roi_size=roi_size, mode="gaussian"
    )
    result = inferer(image, network)
    assert result.shape == (2, 3 if num_samples == 1 else 4, *size)
    assert result.isfinite().all()
    if num_samples > 1:
        torch.testing.assert_close(result[:, :3].sum(1), torch.ones(2, *size), rtol=0, atol=0.02)
        assert result[:, 3].min() >= 0 and result[:, 3].max() <= 0.51
    assert torch.equal(inferer(image, network), result)


@pytest.mark.parametrize("sw_batch_size", [2, 4, 100])
def test_number_of_windows_in_a_batch_does_not_matter(sw_batch_size: int) -> None:
    network, sampler = noisy_ldseg(eta=1.0), SamplingInferer(3, amp=False)
    image, _ = pair_of((30, 24))
    one, more = (
        SlidingWindowSamplingInferer(sampler, roi_size=16, sw_batch_size=number, overlap=0.5)(
            image, network
        )
        for number in (1, sw_batch_size)
    )
    torch.testing.assert_close(more, one, rtol=1e-4, atol=1e-5)


@each_network
def test_windows_of_a_batch_of_two_are_those_of_two_batches_of_one(arguments: dict) -> None:
    network = noisy_ldseg(**arguments)
    inferer = SlidingWindowSamplingInferer(
        SamplingInferer(2, amp=False), roi_size=16, sw_batch_size=4, overlap=0.5
    )
    image, _ = pair_of((30, 24))
    apart = torch.cat([inferer(image[:1], network), inferer(image[1:], network)])
    torch.testing.assert_close(inferer(image, network), apart, rtol=1e-4, atol=1e-5)


def test_windows_take_metadata_and_wrapped_networks() -> None:
    network, inferer = (
        noisy_ldseg(),
        SlidingWindowSamplingInferer(SamplingInferer(2, amp=False), roi_size=16),
    )
    image, _ = pair_of((20, 24))
    assert torch.equal(inferer(MetaTensor(image), Wrapper(network)), inferer(image, network))


@pytest.mark.parametrize("buffer_dim", [0, 1, -1])
def test_label_of_one_sample_is_its_most_probable_class(buffer_dim: int) -> None:
    network, (image, _) = noisy_ldseg(), pair_of((30, 24))
    windows = partial(SlidingWindowSamplingInferer, roi_size=16, overlap=0.5, buffer_dim=buffer_dim)
    one, two = SamplingInferer(amp=False), SamplingInferer(2, amp=False)
    label = windows(one, as_label=True)(image, network)
    assert label.dtype == torch.uint8
    assert torch.equal(label[:, 0].long(), windows(one)(image, network).argmax(1))
    ensemble = windows(two, as_label=True)(image, network)
    assert torch.equal(ensemble, windows(two)(image, network))


@pytest.mark.parametrize(
    "inferer",
    [TrainingInferer(), SamplingInferer(), SlidingWindowSamplingInferer(SamplingInferer(), 16)],
)
def test_network_of_another_kind_is_refused(inferer: Inferer) -> None:
    with pytest.raises(
        ValueError,
        match="network is a Identity: expected a DiffusionSegmenter, .* a peer's overlay comes",
    ):
        inferer(torch.zeros(1, 1, 16, 16), torch.nn.Identity())


def test_options_of_monai_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="with_coord is true: expected false"):
        SlidingWindowSamplingInferer(SamplingInferer(), 16, with_coord=True)
    with pytest.raises(ValueError, match="buffer_steps is 2: expected none"):
        SlidingWindowSamplingInferer(SamplingInferer(), 16, buffer_steps=2)


def test_window_that_does_not_fit_the_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="image size 18x18: expected multiples of 4; pad to 20x20"):
        SlidingWindowSamplingInferer(SamplingInferer(), roi_size=18)(
            pair_of((40, 40))[0], noisy_ldseg()
        )


def test_arguments_that_would_be_ignored_are_refused() -> None:
    network, (image, _) = noisy_ldseg(), pair_of((16, 16))
    with pytest.raises(TypeError, match="expected nothing else"):
        SlidingWindowSamplingInferer(SamplingInferer(), (8, 8))(image, network, noise=image)


# cDAL


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_windows_see_the_noise_of_their_place_and_the_latents_of_their_sample(
    num_samples: int, stochastic: bool
) -> None:
    network = tiny_cdal(num_train_timesteps=2, stochastic=stochastic)
    sampler = RecordingSampler(num_samples, amp=False)
    result = SlidingWindowSamplingInferer(sampler, roi_size=12, overlap=0.5, sw_batch_size=3)(
        grid((20, 27)), network
    )
    assert result.shape == (1, 3 if num_samples == 1 else 4, 20, 27)
    field, latents = sampler.seeded_noise(network, [3, 20, 27])
    for window, noise in sampler.windows:
        row, column = (int(start) for start in window[:, 0, 0])
        assert torch.equal(noise.field, field[..., row : row + 12, column : column + 12])
        assert torch.equal(noise.latents, latents)
    assert len(sampler.windows) > 4


def test_a_volume_is_segmented_plane_by_plane() -> None:
    network = noisy_ldseg()
    sampler = SamplingInferer(num_samples=2, amp=False)
    volume = torch.rand(2, network.image_encoder.in_channels, 16, 24, 3)
    planes = SliceSamplingInferer(sampler, roi_size=(16, 24), sw_batch_size=2)(volume, network)
    for index in range(3):
        wanted = sampler(volume[..., index], network)
        assert torch.allclose(planes[..., index], wanted, atol=1e-5)


@pytest.mark.parametrize(
    "views", [{"num_samples": 3}, {"num_samples": 8, "turned": True}, {"mirrored_axes": [0]}]
)
def test_windows_come_together_sample_by_sample(views: dict[str, Any]) -> None:
    network, image = noisy_ldseg(eta=1.0), pair_of((32, 40))[0][:1]
    settings = {"num_samples": 2, "amp": False, **views}
    number = settings["num_samples"]
    result, kept = (
        SlidingWindowSamplingInferer(sampler, roi_size=16, overlap=0.5)(image, network)
        for sampler in (
            SamplingInferer(**settings),
            SamplingInferer(**settings, keep_samples=True),
        )
    )
    assert kept.shape == (1, 3 + 1 + number * 3, 32, 40)
    assert torch.equal(kept[:, :4], result)
    samples = kept[:, 4:].unflatten(1, (number, 3))
    torch.testing.assert_close(samples.mean(1), result[:, :3])
    torch.testing.assert_close(samples.sum(2), torch.ones(1, number, 32, 40))
    if number == 3:  # which differ by their noise alone, whatever their number
        one = SamplingInferer(2, amp=False, keep_samples=True)
        first = SlidingWindowSamplingInferer(one, roi_size=16, overlap=0.5)(image, network)[:, 4:7]
        torch.testing.assert_close(samples[:, 0], first, rtol=1e-4, atol=1e-5)


def test_planes_of_a_volume_keep_their_samples() -> None:
    network = noisy_ldseg()
    sampler = SamplingInferer(num_samples=2, amp=False, keep_samples=True)
    volume = torch.rand(1, network.image_encoder.in_channels, 16, 24, 3)
    planes = SliceSamplingInferer(sampler, roi_size=(16, 24), sw_batch_size=2)(volume, network)
    assert planes.shape == (1, 3 + 1 + 2 * 3, 16, 24, 3)
    for index in range(3):
        assert torch.allclose(planes[..., index], sampler(volume[..., index], network), atol=1e-5)


def test_the_noise_of_a_large_image_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    model, size = noisy_ldseg(), (96, 32)
    inferer = SlidingWindowSamplingInferer(SamplingInferer(seed=3), (32, 32), overlap=0)
    channels, columns, rows = inferer.noise_field_shape(model, size)
    image = torch.rand(1, model.in_channels, 32, 32).tile(1, 1, 3, 1)
    different = inferer(image, model)
    monkeypatch.setattr(module, "FIELD", columns // 3)
    assert inferer.noise_field_shape(model, size) == [channels, columns // 3, rows]
    first, second, third = inferer(image, model).split(32, dim=2)
    assert torch.equal(first, second) and torch.equal(first, third)
    assert not torch.equal(different[:, :, :32], different[:, :, 32:64])
    monkeypatch.setattr(module, "FIELD", 1)  # a window's own noise is always whole
    assert inferer.noise_field_shape(model, size)[1] == columns // 3
