from __future__ import annotations

import copy
import doctest
import io
from typing import Any

import pytest
import torch
from monai.networks import one_hot
from small_networks import NETWORKS, build, ldseg_config, pair_of, small_ldseg
from torch import nn

from ldseg_monai.diffusion.draws import Draws
from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.diffusion.schedulers import (
    PREDICTION_TYPES,
    TIMESTEP_SPACINGS,
    EvenlySpacedScheduler,
)
from ldseg_monai.networks.blocks import ResidualBlock
from ldseg_monai.networks.ldseg import network as ldseg
from ldseg_monai.networks.ldseg.network import NEIGHBORS, LDSeg

CASES = [  # size of the image, stem stride, further arguments
    ((16, 16), 1, {}),
    ((16, 12), 1, {"prediction_type": "sample", "eta": 1.0, "num_inference_steps": 3}),
    ((16, 24), 2, {"prediction_type": "v_prediction", "restandardize": True, "schedule": "linear"}),
    (
        (16, 24),
        4,
        {
            "latent_norm": "cases",
            "latent_shape": (2, 3),
            "latent_channels": 3,
            "embedding_channels": 2,
        },
    ),
    (
        (32, 48),
        4,
        {
            "latent_norm": "cases",
            "latent_shape": [4, 6],
            "num_res_blocks": 2,
            "schedule": "quadratic",
        },
    ),
    (
        (16, 16, 16),
        1,
        {"num_inference_steps": 1, "latent_norm": "cases", "latent_shape": (8, 8, 8)},
    ),
    ((16, 12, 8), 2, {"prediction_type": "sample", "latent_channels": 2}),
    (
        (16, 24, 32),
        4,
        {"prediction_type": "v_prediction", "eta": 0.5, "denoiser_attention_levels": [True, True]},
    ),
    (
        (16, 24),
        2,
        {"latent_norm": "batch", "label_channels": (8, 12), "timestep_spacing": "trailing"},
    ),
    (
        (16, 24),
        2,
        {"decoder_image_levels": [True, True], "image_dropout": 0.0, "prediction_type": "sample"},
    ),
    (
        (16, 12, 8),
        1,
        {
            "latent_norm": "batch",
            "decoder_image_levels": [True, False],
            "image_dropout": 0.0,
            "label_channels": (12, 8),
            "decoder_channels": (8, 12),
            "num_res_blocks": 2,
            "label_res_blocks": 1,
            "denoiser_res_blocks": 1,
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "num_inference_steps": 3,
        },
    ),
]
each_case = pytest.mark.parametrize(("size", "stem_stride", "arguments"), CASES)
each_prediction_type = pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)


def tiny(spatial_dims: int = 2, **arguments) -> LDSeg:
    return small_ldseg(spatial_dims, **{"decode_clean": True, **arguments})


def draws_for(
    network: LDSeg, image: torch.Tensor, timesteps: tuple[int, ...] = (100, 700)
) -> Draws:
    """Random numbers of a training pass on some images."""
    noise = torch.randn(len(image), *network.noise_shape(image))
    none = torch.zeros(len(image), dtype=torch.bool)
    return Draws(torch.tensor(timesteps), noise, torch.rand(len(image)), none)


class Oracle(nn.Module):
    """Knows the clean latent, and predicts what a denoiser should from the timestep it is told."""

    def __init__(self, clean: torch.Tensor, scheduler: EvenlySpacedScheduler) -> None:
        super().__init__()
        self.clean, self.scheduler = clean, scheduler

    def forward(
        self, noisy: torch.Tensor, embedding: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        abar = self.scheduler.alphas_cumprod[timesteps].reshape([-1] + [1] * (noisy.ndim - 1))
        noise = (noisy - abar.sqrt() * self.clean) / (1 - abar).sqrt()
        velocity = abar.sqrt() * noise - (1 - abar).sqrt() * self.clean
        kinds = {"epsilon": noise, "sample": self.clean, "v_prediction": velocity}
        kinds["flow"] = noise - self.clean
        return kinds[self.scheduler.prediction_type]


@each_case
def test_segmentation_has_a_logit_for_every_class_and_voxel(
    size, stem_stride: int, arguments: dict
) -> None:
    network = tiny(len(size), stem_stride=stem_stride, **arguments).eval()
    with torch.no_grad():
        logits = network(pair_of(size)[0])
    assert logits.shape == (2, 3, *size) and logits.dtype == torch.float32
    assert logits.isfinite().all()


@each_case
def test_training_pass_returns_what_the_loss_needs(size, stem_stride: int, arguments: dict) -> None:
    outputs = tiny(len(size), stem_stride=stem_stride, **arguments)(*pair_of(size))
    latent = (2, arguments.get("latent_channels", 1), *(side // (2 * stem_stride) for side in size))
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "logits": (2, 3, *size),
        "prediction": latent,
        "target": latent,
        "reconstruction": (2, 3, *size),
    }
    assert all(tensor.isfinite().all() for tensor in outputs.values())


@each_case
def test_gradients_of_a_training_pass_reach_every_parameter(
    size, stem_stride: int, arguments: dict
) -> None:
    network = tiny(len(size), stem_stride=stem_stride, **arguments)
    image, label = pair_of(size)
    outputs = network(image, label, draws_for(network, image, (300, 600)))
    assert not outputs.pop("target").requires_grad  # a constant, as the paper's noise is
    sum((value * torch.randn(value.shape)).sum() for value in outputs.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    without = {name for name, p in network.named_parameters() if p.grad.abs().max() < 1e-4}
    last_block = len(network.label_encoder.levels[-1]) - 1
    canceled_by_the_standardization = {"to_latent.bias", f"levels.1.{last_block}.conv2.bias"}
    assert without <= {f"label_encoder.{name}" for name in canceled_by_the_standardization}


@each_case
def test_batch_of_two_is_two_batches_of_one(size, stem_stride: int, arguments: dict) -> None:
    network = tiny(len(size), stem_stride=stem_stride, **arguments).eval()
    image, label = pair_of(size)
    draws = draws_for(network, image)
    apart = []
    with torch.no_grad():
        torch.testing.assert_close(
            network(image), torch.cat([network(image[:1]), network(image[1:])])
        )
        together = network(image, label, draws)
        for one in (slice(0, 1), slice(1, 2)):
            own = Draws(*[numbers[one] for numbers in draws])
            apart.append(network(image[one], label[one], own))
    for name, tensor in together.items():
        torch.testing.assert_close(
            tensor, torch.cat([one[name] for one in apart]), rtol=1e-4, atol=1e-4
        )


@each_case
def test_segmentation_is_deterministic_and_leaves_the_global_random_state_alone(
    size, stem_stride: int, arguments: dict
) -> None:
    network = tiny(len(size), stem_stride=stem_stride, **arguments).eval()
    image, _ = pair_of(size)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = network(image)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(network(image), first)


@pytest.mark.parametrize("size", [(16, 24), (16, 12, 8)])
@each_prediction_type
def test_image_changes_the_segmentation_of_its_own_sample_only(size, prediction_type: str) -> None:
    network = tiny(len(size), prediction_type=prediction_type).eval()
    image, _ = pair_of(size)
    changed = image.clone()
    changed[1] = changed[1].flip(-1)
    with torch.no_grad():
        before, after = network(image), network(changed)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_noise_and_seed_change_the_segmentation(eta: float) -> None:
    image, _ = pair_of((16, 12))
    network = tiny(prediction_type="v_prediction", eta=eta).eval()
    with torch.no_grad():
        default = network(image)
        noise = seeded_noise(network.noise_shape(image), network.seed, 1, network.num_draws())
        assert torch.equal(network.segment(image, noise), default)
        assert not torch.allclose(network.segment(image, -noise), default)
        assert not torch.allclose(network.segment(image, seed=1), default)
        network.seed = 1
        assert not torch.allclose(network(image), default)


def test_each_image_of_a_batch_may_have_its_own_noise() -> None:
    image = pair_of((16, 12), 1)[0].expand(3, -1, -1, -1)
    network = tiny(prediction_type="v_prediction").eval()
    noise = seeded_noise(network.noise_shape(image), 0, 2)[:, [0, 1, 0]]
    with torch.no_grad():
        first, second, third = network.segment(image, noise)
    torch.testing.assert_close(third, first)
    assert not torch.allclose(second, first)


@pytest.mark.parametrize(
    ("num_inference_steps", "eta", "schedule", "latent"),
    [
        (1, 0.0, "linear", (8, 6)),
        (1, 1.0, "cosine", (4, 3, 5)),
        (2, 0.0, "cosine", (4, 3, 5)),
        (3, 1.0, "linear", (8, 6)),
        (10, 0.0, "linear", (4, 3, 5)),
        (10, 1.0, "cosine", (8, 6)),
    ],
)
@each_prediction_type
def test_oracle_denoiser_gives_the_clean_latent(
    prediction_type: str,
    num_inference_steps: int,
    eta: float,
    schedule: str,
    latent: tuple[int, ...],
) -> None:
    network = tiny(
        len(latent),
        prediction_type=prediction_type,
        num_inference_steps=num_inference_steps,
        eta=eta,
        schedule=schedule,
        latent_channels=2,
    ).eval()
    clean = torch.randn(2, 2, *latent)
    network.denoiser = Oracle(clean, network.scheduler)
    noise = seeded_noise([2, *latent], 0, 1, network.num_draws())
    sampled = network.sample_latent(torch.zeros(2, 1, *latent), noise)
    worst = (
        0.03 if prediction_type == "epsilon" and num_inference_steps == 1 else 1e-3
    )  # abar at T is about 1e-9
    torch.testing.assert_close(sampled, clean, rtol=0, atol=worst)


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("sees_image", [False, True])
@torch.no_grad()
def test_samples_decoded_together_are_those_decoded_one_by_one(
    sees_image: bool, batch_size: int
) -> None:
    network = small_ldseg(decoder_image_levels=[sees_image, sees_image]).eval()
    assert network.decoded_together > 1
    image = torch.randn(batch_size, 2, 16, 16)
    noise = network.seeded_noise(network.noise_shape(image), 0, 11)
    sizes: list[int] = []
    decoder: Any = network.label_decoder
    decoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    together = list(network.draw(image, noise))
    assert sizes == ([8, 3] if batch_size == 1 else [2] * 11)
    network.decoded_together = 1
    alone = list(network.draw(image, noise))
    assert len(together) == len(alone) == 11
    for logits, expected in zip(together, alone, strict=True):
        assert logits.shape == (batch_size, 3, 16, 16)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_draws_are_one_a_step_for_a_stochastic_process() -> None:
    networks = [tiny(eta=eta, num_inference_steps=5) for eta in (0.0, 0.5, 1.0)]
    assert [network.num_draws() for network in networks] == [1, 5, 5]
    assert [network.num_draws(7) for network in networks] == [1, 7, 7]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_number_of_steps_may_be_given_for_one_latent(eta: float) -> None:
    two, five = (
        tiny(prediction_type="sample", eta=eta, num_inference_steps=steps).eval()
        for steps in (2, 5)
    )
    embedding = torch.randn(1, 1, 8, 6)
    short, long = (seeded_noise([1, 8, 6], 0, 1, network.num_draws()) for network in (two, five))
    with torch.no_grad():
        before = two.sample_latent(embedding, short)
        assert torch.equal(
            two.sample_latent(embedding, long, 5), five.sample_latent(embedding, long)
        )
        assert torch.equal(two.sample_latent(embedding, short), before)


@pytest.mark.parametrize(
    ("eta", "draws", "steps", "message"),
    [
        (0.0, 2, None, "noise has 2 draws: expected 1 for 2 steps"),
        (0.0, 5, 5, "noise has 5 draws: expected 1 for 5 steps"),
        (1.0, 1, None, "noise has 1 draws: expected 2 for 2 steps"),
        (0.5, 2, 5, "noise has 2 draws: expected 5 for 5 steps"),
    ],
)
def test_noise_of_another_number_of_draws_is_refused(
    eta: float, draws: int, steps: int | None, message: str
) -> None:
    network = tiny(eta=eta).eval()
    with pytest.raises(ValueError, match=message):
        network.sample_latent(torch.zeros(1, 1, 8, 6), seeded_noise([1, 8, 6], 0, 1, draws), steps)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_restandardize_gives_the_sampled_latent_mean_0_and_sd_1(eta: float) -> None:
    network = tiny(latent_channels=2, restandardize=True, eta=eta, num_inference_steps=3).eval()
    image, _ = pair_of((16, 12))
    with torch.no_grad():
        noise = seeded_noise(network.noise_shape(image), 0, 1, network.num_draws())
        latent = network.sample_latent(network.encode_image(image)[0], noise).flatten(2)
    torch.testing.assert_close(latent.mean(-1), torch.zeros(2, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(latent.std(-1, correction=0), torch.ones(2, 2), rtol=0, atol=1e-3)


@each_prediction_type
def test_target_and_decoded_latent_follow_the_prediction_type(prediction_type: str) -> None:
    network = tiny(prediction_type=prediction_type, latent_channels=2).eval()
    image, label = pair_of((16, 12))
    draws = draws_for(network, image, (200, 800))
    timesteps, noise = draws.timesteps, draws.noise
    with torch.no_grad():
        outputs = network(image, label, draws)
        clean = network.encode_label(label)
        abar = network.scheduler.alphas_cumprod[timesteps].reshape(2, 1, 1, 1)
        signal, spread = abar.sqrt(), (1 - abar).sqrt()
        noisy, prediction = signal * clean + spread * noise, outputs["prediction"]
        torch.testing.assert_close(
            prediction, network.denoiser(noisy, network.encode_image(image)[0], timesteps)
        )
        target, decoded = {
            "epsilon": (noise, noisy - prediction),
            "sample": (clean, prediction),
            "v_prediction": (signal * noise - spread * clean, signal * noisy - spread * prediction),
            "flow": (noise - clean, (noisy - spread * prediction) / (signal + spread)),
        }[prediction_type]
        torch.testing.assert_close(outputs["target"], target)
        torch.testing.assert_close(
            outputs["logits"], network.label_decoder(decoded), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(outputs["reconstruction"], network.label_decoder(clean))


def test_clean_latent_is_decoded_only_when_asked() -> None:
    assert set(tiny(decode_clean=False)(*pair_of((16, 16)))) == {"logits", "prediction", "target"}


def test_training_pass_draws_timesteps_and_noise_from_the_global_generator() -> None:
    network = tiny().eval()
    with torch.no_grad():
        first, second = network(*pair_of((16, 16))), network(*pair_of((16, 16)))
        assert not torch.allclose(first["target"], second["target"])
        again = []
        for _ in range(2):
            torch.manual_seed(3)
            again.append(network(*pair_of((16, 16))))
    assert all(torch.equal(again[0][name], again[1][name]) for name in again[0])


@pytest.mark.parametrize("chosen", [[True, False], [True, True]])
def test_own_estimates_are_what_the_second_step_of_sampling_sees(chosen: list[bool]) -> None:
    network = tiny(prediction_type="sample", timestep_spacing="trailing").eval()
    image, label = pair_of((16, 16))
    noise = torch.randn(1, 2, *network.noise_shape(image))
    states: dict[int, torch.Tensor] = {}
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        embedding, _ = network.encode_image(image)
        network.sample_latent(embedding, noise, 2, states.__setitem__)
        network.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        timestep = network.scheduler.indices[1]
        draws = Draws(torch.full([2], timestep), noise[0], torch.ones(2), torch.tensor(chosen))
        output = network(image, label, draws)
        clean = network.encode_label(label)
        of_label = network.scheduler.add_noise(clean, noise[0], draws.timesteps)
    assert torch.equal(seen[0], noise[0][chosen])  # the first step, at T, of those alone
    for sample, is_own in enumerate(chosen):
        wanted = states[timestep + 1] if is_own else of_label
        torch.testing.assert_close(seen[1][sample], wanted[sample], atol=1e-3, rtol=0)
    torch.testing.assert_close(output["target"], clean)  # which the network learns all the same
    assert not torch.allclose(states[timestep + 1], of_label, atol=1e-2)


def test_no_own_estimate_is_made_for_the_last_timestep() -> None:
    network = tiny(prediction_type="sample").eval()
    image, label = pair_of((16, 16))
    passes: list[int] = []
    network.denoiser.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    draws = network.training_draws(image)._replace(
        timesteps=torch.tensor([999, 500]), rollout=torch.ones(2, dtype=torch.bool)
    )
    network(image, label, draws)
    assert passes == [1, 2]


def test_own_estimates_are_of_networks_that_predict_the_clean_latent() -> None:
    network = tiny(prediction_type="v_prediction")
    image, label = pair_of((16, 16))
    with pytest.raises(ValueError, match="predicts v_prediction: expected 0, or prediction_type"):
        draws = network.training_draws(image)._replace(rollout=torch.ones(2, dtype=torch.bool))
        network(image, label, draws)


def test_timestep_changes_the_prediction() -> None:
    network = tiny().eval()
    latent, embedding = torch.randn(2, 1, 1, 8, 6)
    with torch.no_grad():
        early, late = (network.denoiser(latent, embedding, torch.tensor([t])) for t in (10, 900))
    assert not torch.allclose(early, late, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32])
def test_label_latent_does_not_depend_on_the_type_of_the_label(dtype: torch.dtype) -> None:
    network = tiny(latent_channels=2).eval()
    _, label = pair_of((16, 12))
    latent = network.encode_label(label)
    assert torch.equal(network.encode_label(label.to(dtype)), latent)
    torch.testing.assert_close(latent.flatten(2).mean(-1), torch.zeros(2, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        latent.flatten(2).std(-1, correction=0), torch.ones(2, 2), rtol=0, atol=0.01
    )


@pytest.mark.parametrize("size", [(16, 12), (16, 12, 8)])
def test_label_is_encoded_as_one_channel_a_class(size: tuple[int, ...]) -> None:
    network = tiny(len(size)).eval()
    _, label = pair_of(size)
    encoded = network.label_encoder(one_hot(label, num_classes=3))[0]
    assert torch.equal(network.encode_label(label), network.standardization(encoded))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_class_that_the_network_does_not_know_is_refused(dtype: torch.dtype) -> None:
    network = tiny()
    image, label = pair_of((16, 12))
    label[1, 0, 3, 4] = 3
    with pytest.raises(
        ValueError, match=r"label has classes \d to 3: expected 0 to 2; set out_channels"
    ):
        network.encode_label(label.to(dtype))
    with pytest.raises(ValueError, match="label has classes"):
        network(image, label.to(dtype))


def test_label_latent_of_another_size_than_the_latent_shape_is_refused_but_not_the_image() -> None:
    network = tiny(latent_norm="cases", latent_shape=(8, 8)).eval()
    image, label = pair_of((16, 12))
    with pytest.raises(ValueError, match=r"latent of shape \[8, 6\]: expected \[8, 8\]"):
        network(image, label)
    with torch.no_grad():
        assert network(image).shape == (2, 3, 16, 12)


@pytest.mark.parametrize(
    ("size", "stem_stride", "message"),
    [
        ((15, 16), 1, "image size 15x16: expected multiples of 2; pad to 16x16"),
        ((17, 20), 4, "image size 17x20: expected multiples of 8; pad to 24x24"),
        ((16, 12, 10), 2, "image size 16x12x10: expected multiples of 4; pad to 16x12x12"),
    ],
)
def test_image_that_does_not_fit_is_told_the_size_to_pad_to(
    size, stem_stride: int, message: str
) -> None:
    network = tiny(len(size), stem_stride=stem_stride).eval()
    image, label = pair_of(size)
    with pytest.raises(ValueError, match=message):
        network(image)
    with pytest.raises(ValueError, match=message):
        network(image, label)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims is 1: expected 2 or 3"),
        ({"stem_stride": 3}, "stem_stride is 3: expected a power of two"),
        ({"stem_stride": 0}, "stem_stride is 0: expected a power of two"),
        (
            {"attention_levels": [True]},
            "attention_levels has 1 entries: expected one for each of the 2 levels",
        ),
        (
            {"denoiser_attention_levels": [True] * 3},
            "attention_levels has 3 entries: expected one for each of the 2 levels",
        ),
        ({"num_head_channels": 5}, "num_head_channels is 5: expected a divisor of 8 channels"),
        ({"num_head_channels": 16}, "num_head_channels is 16: expected a divisor of 8 channels"),
        (
            {"decoder_image_levels": [True]},
            "image_channels has 1 entries: expected one for each of the 2 levels",
        ),
        (
            {"decoder_image_levels": []},
            "image_channels has 0 entries: expected one for each of the 2 levels",
        ),
        ({"image_dropout": -0.1}, "image_dropout is -0.1: expected 0 to 1"),
        ({"image_dropout": 1.1}, "image_dropout is 1.1: expected 0 to 1"),
        (
            {"image_dropout": 0.5},
            "image_dropout is 0.5, but the decoder gets no image features: expected 0",
        ),
        (
            {"timestep_spacing": "leading"},
            "timestep_spacing is 'leading': expected inclusive or trailing",
        ),
        ({"prediction_type": "x0"}, "prediction_type is 'x0': expected one of"),
        ({"eta": 2.0}, "eta is 2.0: expected 0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0: expected 1 to 1000"),
        (
            {"num_inference_steps": 11, "num_train_timesteps": 10},
            "num_inference_steps is 11: expected 1 to 10",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


SEEING = {"decoder_image_levels": [True, False], "timestep_spacing": "trailing"}


@pytest.mark.parametrize(
    ("prediction_type", "eta", "arguments"),
    [
        ("epsilon", 0.0, {}),
        ("epsilon", 1.0, SEEING),
        ("sample", 1.0, {}),
        ("v_prediction", 0.0, SEEING),
    ],
)
def test_scripted_network_segments_like_the_eager_one(
    prediction_type: str, eta: float, arguments: dict
) -> None:
    network = tiny(
        prediction_type=prediction_type, eta=eta, num_inference_steps=3, **arguments
    ).eval()
    scripted = torch.jit.script(network)
    image, _ = pair_of((16, 24))
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), network(image), rtol=1e-4, atol=1e-4)


def test_scripted_network_checks_the_size_too() -> None:
    scripted = torch.jit.script(tiny(stem_stride=4).eval())
    with (
        torch.no_grad(),
        pytest.raises(torch.jit.Error, match="image size 17x20: expected .* of 8; pad to 24x24"),
    ):
        scripted(pair_of((17, 20))[0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"latent_norm": "cases", "latent_shape": (2, 3, 2)},
        {"restandardize": True},
        {
            "prediction_type": "sample",
            "label_channels": (4, 8),
            "decoder_image_levels": [True, True],
        },
    ],
)
def test_saved_script_segments_like_the_eager_one_in_3d(arguments: dict) -> None:
    network = tiny(3, stem_stride=4, **arguments).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    image, _ = pair_of((16, 24, 16))
    with torch.no_grad():
        torch.testing.assert_close(
            torch.jit.load(file)(image), network(image), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"latent_norm": "cases", "latent_shape": (8, 8)},
        {"latent_norm": "batch", "decoder_image_levels": [True] * 2},
    ],
)
def test_state_dict_loads_with_weights_only(arguments: dict) -> None:
    network, other = tiny(**arguments), tiny(**arguments)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    image, label = pair_of((16, 16))
    network(image, label)  # moves the running statistics, if there are any
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(other.eval()(image), network.eval()(image))
        assert torch.equal(other.encode_label(label), network.encode_label(label))


@pytest.mark.parametrize(
    ("spatial_dims", "layout"),
    [(2, torch.channels_last), (3, torch.channels_last_3d)],
    ids=["2d", "3d"],
)
def test_weights_are_channels_last(spatial_dims: int, layout: torch.memory_format) -> None:
    weights = [p for p in tiny(spatial_dims).parameters() if p.ndim == spatial_dims + 2]
    assert weights and all(weight.is_contiguous(memory_format=layout) for weight in weights)


def test_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(ldseg)
    assert result.attempted > 0 and result.failed == 0


def test_label_of_another_size_than_the_image_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"label of size \[16, 12\]: expected the image's \[16, 16\]"
    ):
        tiny()(pair_of((16, 16))[0], pair_of((16, 12))[1])


@pytest.mark.parametrize(
    ("norm_args", "kind"),
    [
        ({"latent_norm": "cases", "latent_shape": (8, 8)}, "CaseStandardization"),
        ({"latent_norm": "batch"}, "BatchStandardization"),
    ],
)
def test_standardizing_again_per_sample_does_not_go_with_other_statistics(
    norm_args: dict, kind: str
) -> None:
    message = f"restandardize works per sample: expected a SampleStandardization, not {kind}"
    with pytest.raises(ValueError, match=message):
        tiny(restandardize=True, **norm_args)


def test_timestep_spacing_is_that_of_the_reverse_process() -> None:
    seen: dict[str, list[int]] = {}
    for spacing in TIMESTEP_SPACINGS:
        network = tiny(timestep_spacing=spacing).eval()
        seen[spacing] = []
        network.denoiser.register_forward_pre_hook(
            lambda module, inputs, told=seen[spacing]: told.extend(inputs[2].tolist())
        )
        with torch.no_grad():
            network(pair_of((16, 12), 1)[0])
    assert seen == {"inclusive": [999, 0], "trailing": [999, 499]}


# Parts


def widths(part: nn.Module) -> set[int]:
    """Channels that the convolutions of a part put out."""
    return {layer.out_channels for layer in part.modules() if isinstance(layer, nn.Conv2d)}


def res_blocks(part: nn.Module) -> int:
    return sum(isinstance(block, ResidualBlock) for block in part.modules())


def test_each_part_is_of_its_own_width_and_depth() -> None:
    network = tiny(
        num_res_blocks=3,
        label_channels=(4, 12),
        decoder_channels=(20, 24),
        label_res_blocks=1,
        denoiser_channels=(8, 16),
        denoiser_res_blocks=2,
    )
    assert widths(network.image_encoder) >= {8, 16} and res_blocks(network.image_encoder) == 6
    assert widths(network.label_encoder) == {4, 12, 1} and res_blocks(network.label_encoder) == 2
    assert widths(network.label_decoder) == {20, 24, 3} and res_blocks(network.label_decoder) == 2
    assert res_blocks(network.denoiser) == res_blocks(tiny(num_res_blocks=2).denoiser)
    assert set(network(*pair_of((16, 16)))) == {"logits", "prediction", "target", "reconstruction"}


def test_weights_are_named_after_the_parts() -> None:
    network = tiny(latent_norm="cases", latent_shape=(8, 8))
    parts = {name.split(".")[0] for name in network.state_dict()}
    assert parts == {
        "image_encoder",
        "label_encoder",
        "standardization",
        "denoiser",
        "label_decoder",
    }


CASES_3D = {"_target_": NETWORKS + "CaseStandardization", "channels": 1, "latent_shape": (8, 8, 8)}
BATCH_OF_3 = {"_target_": NETWORKS + "BatchStandardization", "channels": 3}
MISFITS = [  # part, what is changed in its config, what the error says of it
    (
        "label_encoder",
        {"spatial_dims": 3},
        "spatial_dims 3",
        "2, the spatial_dims of image_encoder",
    ),
    ("denoiser", {"spatial_dims": 3}, "spatial_dims 3", "2, the spatial_dims of image_encoder"),
    (
        "label_decoder",
        {"spatial_dims": 3},
        "spatial_dims 3",
        "2, the spatial_dims of image_encoder",
    ),
    ("standardization", CASES_3D, "spatial_dims 3", "2, the spatial_dims of image_encoder"),
    ("label_encoder", {"stem_stride": 2}, "stride 4", "2, the stride of image_encoder"),
    ("label_decoder", {"channels": (8, 8, 8)}, "stride 4", "2, the stride of image_encoder"),
    (
        "denoiser",
        {"embedding_channels": 3},
        "embedding_channels 3",
        "1, the out_channels of image_encoder",
    ),
    ("standardization", BATCH_OF_3, "channels 3", "1, the out_channels of label_encoder"),
    (
        "denoiser",
        {"latent_channels": 3},
        "latent_channels 3",
        "1, the out_channels of label_encoder",
    ),
    (
        "label_decoder",
        {"latent_channels": 3},
        "latent_channels 3",
        "1, the out_channels of label_encoder",
    ),
    ("label_decoder", {"out_channels": 4}, "out_channels 4", "3, the in_channels of label_encoder"),
]


@pytest.mark.parametrize(("part", "change", "has", "expected"), MISFITS)
def test_parts_that_do_not_fit_are_both_named(
    part: str, change: dict, has: str, expected: str
) -> None:
    config = ldseg_config()
    config[part].update(change)
    message = f"^{part} has {has}: expected {expected}; change one of them$"
    with pytest.raises(ValueError, match=message):
        build(config)


def test_every_pair_of_neighbors_is_tried() -> None:
    tried = {(part, has.split()[0], expected.split()[-1]) for part, _, has, expected in MISFITS}
    assert tried == {(other, attribute, one) for one, _, other, attribute in NEIGHBORS}


def test_part_that_says_nothing_of_itself_is_taken_at_its_word() -> None:
    network = build({**ldseg_config(), "standardization": {"_target_": "torch.nn.Identity"}})
    _, label = pair_of((16, 16))
    encoded = network.label_encoder(one_hot(label, num_classes=3))[0]
    assert torch.equal(network.encode_label(label), encoded)


@pytest.mark.parametrize(
    ("image_channels", "message"),
    [
        ([8, 8], r"\[8, 8\]: expected 0 or the image encoder's own, \[8, 16\], for each level"),
        ([0, 8], r"\[0, 8\]: expected 0 or the image encoder's own, \[8, 16\], for each level"),
        ([0, 16], None),
    ],
)
def test_decoder_that_expects_other_features_is_refused(
    image_channels: list[int], message: str | None
) -> None:
    config = ldseg_config()
    config["label_decoder"]["image_channels"] = image_channels
    if message is None:
        assert build(config).decoder_sees_image
    else:
        with pytest.raises(ValueError, match=f"label_decoder has image_channels {message}"):
            build(config)


# A decoder that sees the image


def training_logits(network: LDSeg, batch: int = 2) -> torch.Tensor:
    """Logits of a training pass whose random numbers are the same at every call."""
    torch.manual_seed(5)
    with torch.no_grad():
        return network(*pair_of((16, 24), batch))["logits"]


def cut_image(network: LDSeg) -> LDSeg:
    """A copy of the network whose decoder makes nothing of the image's features."""
    blind = copy.deepcopy(network)
    for level in blind.label_decoder.levels:
        if level.image is not None:
            nn.init.zeros_(level.image.weight)
    return blind


@pytest.mark.parametrize("levels", [[True, False], [False, True], [True, True]])
def test_image_features_change_the_segmentation(levels: list[bool]) -> None:
    network = tiny(decoder_image_levels=levels, prediction_type="sample").eval()
    image, _ = pair_of((16, 24))
    with torch.no_grad():
        embedding, features = network.encode_image(image)
        latent = network.sample_latent(embedding, seeded_noise(network.noise_shape(image), 0))
        torch.testing.assert_close(network(image), network.label_decoder(latent, features))
        torch.testing.assert_close(cut_image(network)(image), network.label_decoder(latent))
        assert not torch.allclose(
            network(image), network.label_decoder(latent), rtol=1e-2, atol=1e-2
        )


def test_decoder_of_the_paper_gets_no_features() -> None:
    network, other = tiny(), tiny(decoder_image_levels=[False, False])
    assert set(network.state_dict()) == set(other.state_dict())
    for each in (network, other):
        assert each.encode_image(pair_of((16, 24))[0])[1] == []


@pytest.mark.parametrize(
    ("training", "image_dropout"), [(True, 0.0), (False, 0.0), (False, 0.5), (False, 1.0)]
)
def test_image_is_always_shown_without_dropout_and_in_eval_mode(
    training: bool, image_dropout: float
) -> None:
    network = tiny(decoder_image_levels=[True, True], image_dropout=image_dropout).train(training)
    logits = training_logits(network)
    always = tiny(decoder_image_levels=[True, True], image_dropout=0.0).train(training)
    torch.testing.assert_close(logits, training_logits(always))
    difference = (logits - training_logits(cut_image(network))).abs().amax([1, 2, 3])
    assert (difference > 0.01).all()


def test_image_that_is_always_dropped_does_not_reach_the_logits_in_training() -> None:
    network = tiny(decoder_image_levels=[True, True], image_dropout=1.0)
    logits = training_logits(network)
    assert torch.equal(training_logits(cut_image(network)), logits)
    network.eval()
    assert not torch.allclose(
        training_logits(cut_image(network)), training_logits(network), atol=0.01
    )


@pytest.mark.parametrize("image_dropout", [0.25, 0.5])
def test_image_is_dropped_where_the_chance_is_below_its_share_at_all_levels_together(
    image_dropout: float,
) -> None:
    network = tiny(decoder_image_levels=[True, True], image_dropout=image_dropout)
    image, label = pair_of((16, 24), 5)
    draws = draws_for(network, image, (100, 200, 300, 400, 500))
    draws = draws._replace(chance=torch.tensor([0.2, 0.9, 0.25, 0.49, 0.5]))
    with torch.no_grad():
        logits, hidden = (
            each(image, label, draws)["logits"] for each in (network, cut_image(network))
        )
        network.image_dropout = 0.0
        shown = network(image, label, draws)["logits"]
    for index, chance in enumerate(draws.chance):
        expected, other = (hidden, shown) if chance < image_dropout else (shown, hidden)
        torch.testing.assert_close(logits[index], expected[index], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(logits[index], other[index], atol=1e-2)


@pytest.mark.parametrize("training", [True, False])
def test_reconstruction_never_sees_the_image(training: bool) -> None:
    network = tiny(decoder_image_levels=[True, True], image_dropout=0.0).train(training)
    image, label = pair_of((16, 24))
    draws = draws_for(network, image)
    with torch.no_grad():
        before, after = (network(picture, label, draws) for picture in (image, image.flip(-1)))
        expected = network.label_decoder(network.encode_label(label))
    torch.testing.assert_close(after["reconstruction"], before["reconstruction"])
    torch.testing.assert_close(before["reconstruction"], expected)
    assert not torch.allclose(after["logits"], before["logits"], atol=0.01)


@pytest.mark.parametrize(("image_dropout", "reached"), [(0.0, True), (1.0, False)])
def test_gradients_reach_the_features_projection_and_the_encoder_through_it_if_the_image_is_shown(
    image_dropout: float, reached: bool
) -> None:
    network = tiny(decoder_image_levels=[True, False], image_dropout=image_dropout)
    features = network.image_encoder.levels[0][0].weight
    for parameter in network.denoiser.parameters():
        nn.init.zeros_(parameter)  # the other way from the image to the logits
    network(*pair_of((16, 24)))["logits"].square().sum().backward()
    projection = network.label_decoder.levels[1].image.weight
    assert (projection.grad.abs().max() > 1e-3) == reached
    assert (features.grad.abs().max() > 1e-3) == reached


def downsampling(channels: int, stride: int) -> dict[str, Any]:
    """The config of what stands in for an encoder."""
    target = NETWORKS + "Downsampling"
    return {"_target_": target, "spatial_dims": 2, "in_channels": channels, "stride": stride}


@pytest.mark.parametrize(("label", "image"), [(True, False), (False, True), (False, False)])
def test_encoders_may_be_replaced_by_downsampling(label: bool, image: bool) -> None:
    parts: dict[str, Any] = {}
    if not label:
        parts["label_encoder"] = downsampling(channels=3, stride=4)
    if not image:
        parts["image_encoder"] = downsampling(channels=2, stride=4)
    network = tiny(
        stem_stride=2,
        latent_channels=3,
        embedding_channels=2,
        prediction_type="sample",
        **parts,
    )
    classes = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    classes[..., 8:, :] = 1
    classes[..., 8:] = 2
    picture = torch.randn(1, 2, 16, 16)
    output = network(picture, classes)
    sum(value.sum() for name, value in output.items() if name != "target").backward()
    assert any("image_encoder" in name for name, _ in network.named_parameters()) == image
    assert any("label_encoder" in name for name, _ in network.named_parameters()) == label
    if not image:
        assert torch.equal(network.encode_image(picture)[0], picture[..., 2::4, 2::4])
    if not label:
        latent = network.encode_label(classes)
        centers = classes[0, 0, 2::4, 2::4].long()
        for index in range(3):
            inside, outside = latent[0, index][centers == index], latent[0, index][centers != index]
            assert inside.std() < 1e-4 and outside.std() < 1e-4 and inside.mean() > outside.mean()


def test_features_of_an_image_that_is_not_encoded_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"image_channels \[8, 0\]: expected 0 for .* encoder has no features"
    ):
        tiny(
            embedding_channels=2,
            image_encoder=downsampling(channels=2, stride=2),
            decoder_image_levels=[True, False],
        )
