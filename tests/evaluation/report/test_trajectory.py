from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet
from small_networks import RecordingSampler, image_of, small_ldseg, tiny_cdal
from torch import nn

from ldseg_monai.evaluation.report.trajectory import record_trajectory, sampler_of
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.networks.ldseg.network import LDSeg

STRIDE = 4


def tiny_ldseg(**arguments) -> LDSeg:
    defaults = {
        "channels": (8, 8, 16),
        "latent_channels": 3,
        "decoder_image_levels": [True, False, False],
    }
    return small_ldseg(**{**defaults, **arguments}).eval()


def hooks(network: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()
    )


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ldseg_goes_from_the_seeds_noise_through_every_latent_to_the_label(eta: float) -> None:
    network, image = (
        tiny_ldseg(num_inference_steps=3, eta=eta, timestep_spacing="trailing"),
        image_of((16, 24), batch=1),
    )
    inferer = SamplingInferer(num_samples=4, seed=5, amp=False)
    found = record_trajectory(inferer, network, image)
    assert found is not None and found.timesteps == [1000, 667, 333, 0]
    noise = inferer.seeded_noise(network, [3, 4, 6]).field[:, 0, :1]
    assert torch.equal(found.states[0], noise[0, 0])
    with torch.no_grad():
        embedding, features = network.encode_image(image)
        assert torch.equal(found.states[-1:], network.sample_latent(embedding, noise, 3))
        decoded = [
            network.label_decoder(state[None], features).argmax(dim=1)[0] for state in found.states
        ]
    assert torch.equal(found.labels, torch.stack(decoded))
    alone = SamplingInferer(num_samples=1, seed=5, amp=False)(image, network)
    assert torch.equal(found.labels[-1], alone.argmax(dim=1)[0])
    assert inferer.num_samples == 4


@pytest.mark.parametrize("samples_in_pass", [1, 3])
def test_cdal_goes_from_noise_to_the_label_itself(samples_in_pass: int) -> None:
    network = tiny_cdal(num_train_timesteps=4, stochastic=True, samples_in_pass=samples_in_pass)
    image, inferer = image_of((12, 10), batch=1), SamplingInferer(3, seed=2, amp=False)
    found = record_trajectory(inferer, network, image)
    assert found is not None and found.timesteps == [4, 3, 2, 1, 0]
    field, latents = network.seeded_noise([3, 12, 10], seed=2)
    assert torch.equal(found.states[0], field[0, 0, 0])
    with torch.no_grad():
        features = network.encode_image(image)
        label = network.sample_label(features, field[:, 0], latents[:, 0])
    assert torch.equal(found.states[-1:], label)
    assert torch.equal(found.labels, label_logits(found.states).argmax(dim=1))


@pytest.mark.parametrize("window_batch_size", [1, 4])
def test_of_several_windows_the_one_with_the_most_foreground_is_kept(
    window_batch_size: int,
) -> None:
    network, image = tiny_ldseg(), image_of((48, 32), batch=1)
    sampler = RecordingSampler(seed=1, amp=False)
    inferer = SlidingWindowSamplingInferer(
        sampler, roi_size=(16, 16), sw_batch_size=window_batch_size, overlap=0.0
    )
    inferer(image, network)
    labels = [
        SamplingInferer(amp=False)(window[None], network, noise=noise).argmax(dim=1)
        for window, noise in sampler.windows
    ]
    foreground = [int((label > 0).sum()) for label in labels]
    assert len(set(foreground)) > 1
    found = record_trajectory(inferer, network, image)
    assert found is not None
    assert torch.equal(found.labels[-1], labels[foreground.index(max(foreground))][0])
    assert found.states.shape == (3, 3, 16 // STRIDE, 16 // STRIDE)


def test_long_process_is_shown_by_states_evenly_spaced() -> None:
    network = tiny_ldseg(timestep_spacing="trailing")
    inferer = SamplingInferer(num_inference_steps=20, amp=False)
    found = record_trajectory(inferer, network, image_of((16, 16), batch=1), max_states=5)
    assert found is not None and found.timesteps == [1000, 750, 500, 250, 0]
    assert len(found.states) == len(found.labels) == 5


@pytest.mark.parametrize("image_channels", [2, 5])  # five make the network fail
def test_network_is_left_as_it_was(image_channels: int) -> None:
    network = tiny_ldseg().train()
    image = torch.zeros(1, image_channels, 16, 16)
    if image_channels == 2:
        record_trajectory(SamplingInferer(amp=False), network, image)
    else:
        with pytest.raises(ValueError, match=r"expected \[B, 2, \.\.\.\]"):
            record_trajectory(SamplingInferer(amp=False), network, image)
    assert hooks(network) == 0 and network.training
    torch.jit.script(network)


def test_other_networks_and_inferers_have_none() -> None:
    unet = UNet(2, 2, 3, (8, 16), (2,))
    assert record_trajectory(SimpleInferer(), unet, image_of((16, 16), 1)) is None
    assert record_trajectory(SimpleInferer(), tiny_ldseg(), image_of((16, 16), 1)) is None
    assert sampler_of(None) is None
