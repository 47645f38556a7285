"""Several networks as one: each draws its share of the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import build, ldseg_config
from torch import nn

from ldseg_monai.inference import SamplingInferer, SlidingWindowSamplingInferer
from ldseg_monai.networks import DiffusionSegmenter, EnsembleSegmenter, load_weights, with_ensemble
from ldseg_monai.runtime.errors import InputError


def network(seed: int, **changes: Any) -> DiffusionSegmenter:
    torch.manual_seed(seed)
    config = ldseg_config(2, stem_stride=2, prediction_type="sample", **changes)
    made: DiffusionSegmenter = build(config).eval()
    return made


@pytest.fixture
def three(tmp_path: Path) -> list[DiffusionSegmenter]:
    return [network(seed) for seed in range(3)]


@pytest.mark.parametrize("samples", [3, 4, 7])
def test_samples_are_of_the_networks_in_turn(three: list[DiffusionSegmenter], samples: int) -> None:
    image = torch.randn(2, three[0].in_channels, 16, 24)
    ensemble = EnsembleSegmenter(three)
    noise = ensemble.seeded_noise(ensemble.noise_shape(image), 5, samples)
    with torch.no_grad():
        drawn = list(ensemble.draw(image, noise))
        assert len(drawn) == samples
        for sample, logits in enumerate(drawn):
            own = noise.of_samples(slice(sample, sample + 1))
            (alone,) = three[sample % 3].draw(image, own)
            torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


def test_mean_is_that_of_the_networks(three: list[DiffusionSegmenter]) -> None:
    image = torch.randn(1, three[0].in_channels, 16, 16)
    ensemble = EnsembleSegmenter(three)
    output = SamplingInferer(num_samples=3, amp=False)(image, ensemble)
    noise = ensemble.seeded_noise(ensemble.noise_shape(image), 0, 3)
    probabilities = []
    with torch.no_grad():
        for sample, one in enumerate(three):
            (logits,) = one.draw(image, noise.of_samples(slice(sample, sample + 1)))
            probabilities.append(logits.softmax(dim=1))
    classes = ensemble.out_channels
    mean = torch.stack(probabilities).mean(dim=0)
    torch.testing.assert_close(output[:, :classes], mean, rtol=1e-4, atol=1e-5)
    spread = torch.stack(probabilities).std(dim=0, correction=0).amax(dim=1, keepdim=True)
    torch.testing.assert_close(output[:, classes:], spread, rtol=1e-4, atol=1e-5)


def test_windows_take_an_ensemble(three: list[DiffusionSegmenter]) -> None:
    image = torch.randn(1, three[0].in_channels, 32, 16)
    windows = SlidingWindowSamplingInferer(
        SamplingInferer(num_samples=3, amp=False), roi_size=(16, 16), overlap=0
    )
    output = windows(image, EnsembleSegmenter(three))
    assert output.shape == (1, three[0].out_channels + 1, 32, 16)
    torch.testing.assert_close(output[:, :-1].sum(dim=1), torch.ones(1, 32, 16))


def test_fewer_samples_than_networks_are_refused(three: list[DiffusionSegmenter]) -> None:
    image = torch.randn(1, three[0].in_channels, 16, 16)
    with pytest.raises(
        InputError, match="2 samples of an ensemble of 3 networks: expected 3 or more"
    ):
        SamplingInferer(num_samples=2, amp=False)(image, EnsembleSegmenter(three))


def test_weights_of_the_bundle_go_into_the_first(tmp_path: Path) -> None:
    for seed in range(2):
        torch.save(network(seed).state_dict(), tmp_path / f"{seed}.pt")
    ensemble = with_ensemble(network(7), [str(tmp_path / "1.pt")])
    assert isinstance(ensemble, EnsembleSegmenter)
    load_weights(ensemble, str(tmp_path / "0.pt"))
    for seed, one in enumerate(ensemble.networks):
        for name, tensor in network(seed).state_dict().items():
            assert torch.equal(one.state_dict()[name], tensor)


def test_no_further_weights_leave_the_network_alone() -> None:
    one = nn.Linear(1, 1)  # whatever it is
    assert with_ensemble(one, []) is one


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    other = network(0, channels=[8, 8])
    torch.save(other.state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other.pt has weights of another size"):
        with_ensemble(network(0), [str(tmp_path / "other.pt")])
