from __future__ import annotations

import copy
import doctest
import io
import math
from functools import partial

import pytest
import torch
from small_networks import image_of, tiny_cdal, tiny_discriminator
from torch import nn
from torch.nn import functional

from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.diffusion.schedulers import PosteriorScheduler
from ldseg_monai.networks.blocks import Downsampling, ResidualBlock, ResidualEncoder, SelfAttention
from ldseg_monai.networks.cdal import discriminator as cdal_discriminator
from ldseg_monai.networks.cdal import network as cdal
from ldseg_monai.networks.cdal.discriminator import SeparateDiscriminators
from ldseg_monai.networks.cdal.generator import CDALGenerator
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.networks.cdal.network import CDAL
from ldseg_monai.networks.segmenter import seeded_latents

CASES = [  # size of the image, further arguments
    ((16, 16), {}),
    ((16, 21), {"num_train_timesteps": 2, "stochastic": True}),
    ((13, 16), {"latent_size": 0, "channels": (8, 8, 16), "num_res_blocks": 2}),
    ((8, 12, 16), {"num_train_timesteps": 2}),
    ((9, 8, 6), {"latent_size": 0, "stochastic": True, "attention_levels": [False, False]}),
]
each_case = pytest.mark.parametrize(("size", "arguments"), CASES)
SIZES = [(16, 12), (8, 12, 6)]
each_size = pytest.mark.parametrize("size", SIZES)

three_levels = partial(tiny_discriminator, channels=(8, 12, 16))


def training_inputs(network: CDAL, size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "image": image_of(size),
        "noisy_label": torch.randn(2, 3, *size, generator=generator),
        "timesteps": torch.tensor([0, network.num_train_timesteps - 1]),
        "latent": torch.randn(2, network.latent_size, generator=generator),
    }


def only(inputs: dict[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
    return {name: value[index : index + 1] for name, value in inputs.items()}


class Oracle(nn.Module):
    """Knows the clean label; keeps the timesteps that it is told and the latents that it gets."""

    def __init__(self, clean: torch.Tensor) -> None:
        super().__init__()
        self.clean = clean
        self.timesteps: list[list[int]] = []
        self.latents: list[torch.Tensor] = []

    def forward(self, noisy_label, timesteps, latent, features) -> torch.Tensor:
        self.timesteps.append(timesteps.tolist())
        self.latents.append(latent)
        return self.clean


# Generator


@each_case
def test_segmentation_has_a_logit_for_every_class_and_voxel(
    size: tuple[int, ...], arguments: dict
) -> None:
    network = tiny_cdal(len(size), **arguments)
    with torch.no_grad():
        logits = network(image_of(size))
    assert logits.shape == (2, 3, *size) and logits.dtype == torch.float32
    assert logits.isfinite().all()


@each_case
def test_gradients_of_a_generator_pass_reach_every_parameter(
    size: tuple[int, ...], arguments: dict
) -> None:
    network = tiny_cdal(len(size), **arguments).train()
    prediction = network(**training_inputs(network, size))
    assert prediction.shape == (2, 3, *size)
    (prediction * torch.randn(prediction.shape)).sum().backward()
    unreached = [
        n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-5
    ]
    assert unreached == []


@each_case
def test_batch_of_two_is_two_batches_of_one(size: tuple[int, ...], arguments: dict) -> None:
    network = tiny_cdal(len(size), **arguments)
    inputs = training_inputs(network, size)
    with torch.no_grad():
        image = inputs["image"]
        apart = torch.cat([network(image[:1]), network(image[1:])])
        torch.testing.assert_close(network(image), apart, rtol=1e-4, atol=1e-4)
        apart = torch.cat([network(**only(inputs, index)) for index in range(2)])
        torch.testing.assert_close(network(**inputs), apart, rtol=1e-4, atol=1e-4)


@each_case
def test_segmentation_is_deterministic_and_leaves_the_global_random_state_alone(
    size: tuple[int, ...], arguments: dict
) -> None:
    network, image = tiny_cdal(len(size), **arguments), image_of(size)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = network(image)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert torch.equal(network(image), first)
        network.seed = 1
        assert not torch.allclose(network(image), first)


@each_size
@pytest.mark.parametrize("changed", ["image", "noisy_label", "timesteps", "latent"])
def test_every_input_changes_the_prediction_of_its_own_sample_only(
    size: tuple[int, ...], changed: str
) -> None:
    network = tiny_cdal(len(size))
    inputs = training_inputs(network, size)
    others = {**inputs, changed: inputs[changed].clone()}
    others[changed][1] -= 1
    with torch.no_grad():
        before, after = network(**inputs), network(**others)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1], rtol=1e-3, atol=1e-3)


def modulations(network: CDAL, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Scales and shifts of every residual block of the U-Net in one pass."""
    found: dict[str, torch.Tensor] = {}
    levels = nn.ModuleList([network.generator.down_levels, network.generator.up_levels])
    hooks = [
        block.scale_and_shift.register_forward_hook(
            lambda m, i, output, name=name: found.update({name: output})
        )
        for name, block in levels.named_modules()
        if isinstance(block, ResidualBlock)
    ]
    with torch.no_grad():
        network(**inputs)
    for hook in hooks:
        hook.remove()
    return found


@each_size
@pytest.mark.parametrize("channels", [(8, 16), (8, 8, 16)])
def test_latent_and_timestep_scale_and_shift_every_layer(
    size: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    network = tiny_cdal(len(size), channels=channels, num_res_blocks=2)
    inputs = training_inputs(network, size)
    before = modulations(network, inputs)
    assert len(before) == 2 * (2 * len(channels) - 1)
    for name in ("latent", "timesteps"):
        after = modulations(network, {**inputs, name: inputs[name] + 1})
        assert all(not torch.allclose(after[block], before[block], atol=1e-3) for block in before)


def test_without_a_latent_nothing_is_left_of_it() -> None:
    with_latent, without = tiny_cdal(), tiny_cdal(latent_size=0)
    for network, embeddings in ((with_latent, 2), (without, 1)):
        levels = [*network.generator.down_levels, *network.generator.up_levels]
        blocks = [block for level in levels for block in level.blocks]
        assert {block.scale_and_shift.in_features for block in blocks} == {embeddings * 4 * 8}
        assert any("mapping" in name for name, _ in network.named_parameters()) == (embeddings == 2)
    assert without.seeded_noise([3, 4, 4], 0, 3).latents.shape == (4, 1, 3, 0)
    image, noise = image_of((16, 12)), seeded_noise([3, 16, 12], 0)
    with torch.no_grad():
        first, second = (
            without.segment(image, noise, seeded_latents(0, seed, 1, 4)) for seed in (1, 2)
        )
        assert torch.equal(first, second)
        assert not torch.allclose(without.segment(image, -noise), first)
        first, second = (
            with_latent.segment(image, noise, seeded_latents(5, seed, 1, 4)) for seed in (1, 2)
        )
        assert not torch.allclose(first, second)


@each_size
def test_image_is_encoded_once_for_all_steps_and_at_its_own_size(size: tuple[int, ...]) -> None:
    network = tiny_cdal(len(size))
    shapes: list[tuple[int, ...]] = []
    network.image_encoder.register_forward_hook(
        lambda m, i, output: shapes.append(tuple(output[0].shape))
    )
    with torch.no_grad():
        network(image_of(size))
    assert shapes == [(2, 8, *size)]


@pytest.mark.parametrize(
    ("image_encoder", "message"),
    [
        ((3, 2, 8, (8,)), "gives spatial_dims 3, the generator's first level has 2: expected the"),
        ((2, 2, 4, (8,)), "gives channels 4, the generator's first level has 8: expected the same"),
        ((2, 2, 8, (8, 8)), "has a stride of 2: expected 1, the label's own size"),
    ],
)
def test_image_encoder_that_does_not_fit_the_generator_is_refused(
    image_encoder: tuple, message: str
) -> None:
    encoder = ResidualEncoder(*image_encoder)
    with pytest.raises(ValueError, match=f"image_encoder {message}"):
        CDAL(encoder, CDALGenerator(2, 3, (8, 32)), PosteriorScheduler())


def test_image_itself_may_stand_for_its_features() -> None:
    itself = Downsampling(2, in_channels=8, stride=1)
    generator = CDALGenerator(2, 3, (8, 16), num_head_channels=8)
    network = CDAL(itself, generator, PosteriorScheduler(2)).eval()
    image = torch.randn(1, 8, 12, 10)
    assert torch.equal(network.encode_image(image), image)
    with torch.no_grad():
        assert network(image).shape == (1, 3, 12, 10)


@pytest.mark.parametrize("attention_levels", [None, [True, False], [False, False]])
def test_attention_is_where_asked_or_in_the_last_level(attention_levels: list[bool] | None) -> None:
    levels = tiny_cdal(attention_levels=attention_levels).generator.down_levels
    found = [
        any(isinstance(module, SelfAttention) for module in level.modules()) for level in levels
    ]
    assert found == ([False, True] if attention_levels is None else attention_levels)


# Reverse process


@each_size
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("num_train_timesteps", [1, 2, 4])
def test_oracle_generator_gives_the_true_label_in_t_steps(
    size: tuple[int, ...], num_train_timesteps: int, stochastic: bool
) -> None:
    network = tiny_cdal(len(size), num_train_timesteps=num_train_timesteps, stochastic=stochastic)
    label = torch.randint(3, (2, 1, *size))
    oracle = network.generator = Oracle(network.encode_label(label))
    noise = seeded_noise([3, *size], 0, 1, network.num_draws())
    latents = seeded_latents(5, 0, 2, num_train_timesteps)
    sampled = network.sample_label(torch.zeros(2, 8, *size), noise, latents)
    torch.testing.assert_close(sampled, oracle.clean)
    assert torch.equal(label_logits(sampled).argmax(dim=1, keepdim=True), label)
    assert oracle.timesteps == [[t, t] for t in reversed(range(num_train_timesteps))]
    assert torch.equal(torch.stack(oracle.latents), latents)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("num_train_timesteps", [2, 4])
def test_samples_are_those_of_algorithm_2(num_train_timesteps: int, stochastic: bool) -> None:
    network = tiny_cdal(num_train_timesteps=num_train_timesteps, stochastic=stochastic)
    features = network.encode_image(image_of((16, 12)))
    noise = torch.randn(network.num_draws(), 2, 3, 16, 12)
    latents = torch.randn(num_train_timesteps, 2, 5)
    steps = range(1, num_train_timesteps + 1)
    rate = [
        0.1 / num_train_timesteps + 0.5 * 19.9 * (2 * t - 1) / num_train_timesteps**2 for t in steps
    ]
    alpha = {t: math.exp(-rate[t - 1]) for t in steps}
    abar = {t: math.prod(alpha[s] for s in range(1, t + 1)) for t in (0, *steps)}
    label = noise[0]
    with torch.no_grad():
        for number, t in enumerate(reversed(steps)):
            clean = network.generator(label, torch.full([2], t - 1), latents[number], features)
            beta = 1 - alpha[t]
            label = (
                math.sqrt(alpha[t]) * (1 - abar[t - 1]) / (1 - abar[t]) * label
                + math.sqrt(abar[t - 1]) * beta / (1 - abar[t]) * clean
            )
            if stochastic and t > 1:
                label = (
                    label + math.sqrt((1 - abar[t - 1]) / (1 - abar[t]) * beta) * noise[number + 1]
                )
        torch.testing.assert_close(
            network.sample_label(features, noise, latents), label, rtol=1e-4, atol=1e-4
        )


def test_draws_are_one_a_step_for_a_stochastic_process() -> None:
    assert [tiny_cdal(stochastic=stochastic).num_draws() for stochastic in (False, True)] == [1, 4]
    assert [tiny_cdal(stochastic=stochastic).num_draws(4) for stochastic in (False, True)] == [1, 4]


def test_latents_of_a_sample_do_not_depend_on_how_many_are_drawn_and_are_not_its_noise() -> None:
    network = tiny_cdal(latent_size=50, stochastic=True)
    field, latents = network.seeded_noise([3, 16, 12], 3, 4)
    assert field.shape == (4, 1, 4, 3, 16, 12) and latents.shape == (4, 1, 4, 50)
    fewer = network.seeded_noise([3, 16, 12], 3, 2)
    assert torch.equal(fewer.latents, latents[:, :, :2])
    assert torch.equal(fewer.field, field[:, :, :2])
    assert len({tuple(latent.tolist()) for latent in latents.flatten(0, 2)}) == 16
    assert not torch.isin(latents, field).any()


@pytest.mark.parametrize(
    ("stochastic", "draws", "steps", "message"),
    [
        (False, 2, 4, "noise has 2 draws: expected 1 for 4 steps"),
        (True, 1, 4, "noise has 1 draws: expected 4 for 4 steps"),
        (False, 1, 2, "latents of 2 steps: expected 4"),
    ],
)
def test_random_numbers_of_another_number_of_steps_are_refused(
    stochastic: bool, draws: int, steps: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_cdal(stochastic=stochastic).sample_label(
            torch.zeros(1, 8, 4, 4), torch.randn(draws, 1, 3, 4, 4), torch.randn(steps, 1, 5)
        )


# Labels and arguments


def test_logits_make_the_probabilities_that_the_label_stands_for() -> None:
    probability = torch.rand(2, 3, 4, 4).softmax(dim=1)
    torch.testing.assert_close(label_logits(2 * probability - 1).softmax(dim=1), probability)


def test_logits_keep_the_order_of_values_beyond_the_range() -> None:
    label = torch.tensor([[-1.4, 1.1, 1.3], [-3.0, -1.0, 0.5]])
    logits = label_logits(label)
    assert logits.isfinite().all()
    assert logits.argmax(dim=1).tolist() == [2, 2] and (logits[0, 1] > logits[0, 0])
    torch.testing.assert_close(logits.softmax(dim=1)[1], torch.tensor([1e-3, 1e-3, 0.75]) / 0.752)


@each_size
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_label_is_1_where_a_class_is_and_minus_1_elsewhere(
    size: tuple[int, ...], dtype: torch.dtype
) -> None:
    label = torch.randint(3, (2, 1, *size)).to(dtype)
    clean = tiny_cdal(len(size)).encode_label(label)
    assert clean.shape == (2, 3, *size) and clean.dtype == torch.float32
    for index in range(3):
        assert torch.equal(clean[:, index : index + 1], torch.where(label == index, 1.0, -1.0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_class_that_the_network_does_not_know_is_refused(dtype: torch.dtype) -> None:
    label = torch.randint(3, (2, 1, 4, 4)).to(dtype)
    label[1, 0, 3, 2] = 3
    with pytest.raises(
        ValueError, match=r"label has classes \d to 3: expected 0 to 2; set out_channels"
    ):
        tiny_cdal().encode_label(label)


def test_label_of_another_size_than_the_image_is_refused() -> None:
    network = tiny_cdal()
    inputs = {**training_inputs(network, (16, 12)), "image": image_of((16, 1))}  # would broadcast
    with pytest.raises(
        ValueError, match=r"label of size \[16, 12\]: expected the image's \[16, 1\]"
    ):
        network(**inputs)


def test_noisy_label_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="without timesteps or latent: expected both"):
        tiny_cdal()(image_of((16, 12)), torch.zeros(2, 3, 16, 12))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims is 1: expected 2 or 3"),
        ({"out_channels": 1}, "out_channels is 1: expected 2 or more"),
        ({"latent_size": -1}, "latent_size is -1: expected a whole number, 0 or more"),
        ({"num_train_timesteps": 0}, "num_train_timesteps is 0: expected 1 or more"),
        ({"samples_in_pass": 0}, "samples_in_pass is 0: expected 1 or more"),
        (
            {"attention_levels": [True]},
            "attention_levels has 1 entries: expected one for each of the 2 levels",
        ),
        ({"num_head_channels": 5}, "num_head_channels is 5: expected a divisor of 16 channels"),
        ({"beta_min": 0.0}, "beta_min is 0.0 and beta_max 20.0: expected 0 < beta_min <= beta_max"),
        (
            {"beta_max": 0.01},
            "beta_min is 0.1 and beta_max 0.01: expected 0 < beta_min <= beta_max",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_cdal(**arguments)


@pytest.mark.parametrize("steps", [1, 5])
def test_number_of_steps_other_than_the_trainings_is_refused(steps: int) -> None:
    message = f"num_inference_steps is {steps}: expected 4, the steps in training"
    with pytest.raises(ValueError, match=message):
        tiny_cdal().num_draws(steps)
    with pytest.raises(ValueError, match=message):
        CDAL.check_steps(steps, 4)
    CDAL.check_steps(4, 4)


@each_case
def test_saved_script_segments_like_the_eager_network(
    size: tuple[int, ...], arguments: dict
) -> None:
    network = tiny_cdal(len(size), **arguments)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    image = image_of(size)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.jit.load(file)(image), network(image), rtol=1e-4, atol=1e-4
        )


@each_size
@pytest.mark.parametrize("build", [tiny_cdal, three_levels])
def test_weights_are_in_the_channels_last_layout(size: tuple[int, ...], build) -> None:
    layout = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    wide = [
        p for p in build(len(size)).parameters() if p.ndim > 2 and p.shape[1] > 1 and p.shape[2] > 1
    ]
    assert wide and all(weight.is_contiguous(memory_format=layout) for weight in wide)


def test_copy_and_state_dict_carry_everything() -> None:
    network = tiny_cdal()
    image = image_of((16, 12))
    other = tiny_cdal()
    for weight in other.parameters():
        nn.init.normal_(weight)
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(other(image), network(image))
        assert torch.equal(copy.deepcopy(network)(image), network(image))


# Discriminator


def pair(size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    previous, noisy = torch.randn(2, 2, 3, *size, generator=generator)
    return {"previous_label": previous, "noisy_label": noisy, "timesteps": torch.tensor([0, 3])}


@each_size
@pytest.mark.parametrize("attention_level", [0, 1, 2])
def test_discriminator_judges_each_pair_by_both_labels_and_the_timestep(
    size: tuple[int, ...], attention_level: int
) -> None:
    discriminator = three_levels(len(size), attention_level=attention_level)
    inputs = pair(size)
    with torch.no_grad():
        logits, attention = discriminator(**inputs), discriminator.attention_map(**inputs)
        assert logits.shape == (2, 1) and attention.shape == (2, 1, *size)
        for name in inputs:
            others = {**inputs, name: inputs[name].clone()}
            others[name][1] -= 1
            for before, after in (
                (logits, discriminator(**others)),
                (attention, discriminator.attention_map(**others)),
            ):
                assert torch.equal(after[0], before[0])
                assert not torch.allclose(after[1], before[1], rtol=1e-4, atol=1e-4)


@each_size
def test_gradients_of_the_judgment_reach_every_parameter(size: tuple[int, ...]) -> None:
    discriminator = three_levels(len(size)).train()
    (discriminator(**pair(size)) * torch.tensor([[1.0], [-0.7]])).sum().backward()
    unreached = [
        n
        for n, p in discriminator.named_parameters()
        if p.grad is None or not p.grad.abs().max() > 1e-5
    ]
    assert unreached == []


@each_size
@pytest.mark.parametrize("level", [0, 1, 2])
def test_attention_map_is_the_upsampled_channel_mean_of_the_chosen_level(
    size: tuple[int, ...], level: int
) -> None:
    discriminator = three_levels(len(size), attention_level=level)
    features: list[torch.Tensor] = []
    discriminator.levels[level].register_forward_hook(lambda m, i, output: features.append(output))
    with torch.no_grad():
        attention = discriminator.attention_map(**pair(size))
        discriminator(**pair(size))
    assert torch.equal(*features)  # the features by which it judges
    assert features[0].shape == (2, (8, 12, 16)[level], *(-(-side // 2**level) for side in size))
    mean = sum(features[0].unbind(1)) / features[0].shape[1]
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    expected = functional.interpolate(mean[:, None], size=size, mode=mode, align_corners=False)
    torch.testing.assert_close(attention, expected)
    if level == 0:
        torch.testing.assert_close(attention[:, 0], mean)


def test_each_timestep_may_have_a_discriminator_of_its_own() -> None:
    arguments = {"spatial_dims": 2, "in_channels": 3, "channels": (8, 16), "attention_level": 1}
    several = SeparateDiscriminators(num_train_timesteps=4, **arguments)
    inputs = pair((16, 12))  # of the timesteps 0 and 3
    for ask in ("forward", "attention_map"):
        found = getattr(several, ask)(**inputs)
        for index, timestep in enumerate((0, 3)):
            alone = getattr(several.discriminators[timestep], ask)(**inputs)
            assert torch.equal(found[index], alone[index])
    several(**inputs).sum().backward()
    heard = []
    for one in several.discriminators:
        gradients = [parameter.grad for parameter in one.parameters()]
        assert all(gradient is not None for gradient in gradients)  # as DDP wants it
        heard.append(any(gradient.any() for gradient in gradients))
    assert heard == [True, False, False, True]
    with pytest.raises(ValueError, match="num_train_timesteps is 0: expected 1 or more"):
        SeparateDiscriminators(num_train_timesteps=0, **arguments)


@pytest.mark.parametrize("level", [-1, 3])
def test_level_that_there_is_not_is_refused(level: int) -> None:
    with pytest.raises(ValueError, match=f"attention_level is {level}: expected 0 to 2, a level"):
        three_levels(attention_level=level)


def test_discriminator_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="spatial_dims is 4: expected 2 or 3"):
        three_levels(4)


@pytest.mark.parametrize("module", [cdal, cdal_discriminator])
def test_examples_in_the_documentation_run(module) -> None:
    results = doctest.testmod(module)
    assert results.attempted and not results.failed
