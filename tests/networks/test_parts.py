from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ldseg_monai.networks import CDALDiscriminator, CDALGenerator, MedSegDiffDenoiser
from ldseg_monai.networks.blocks import (
    BatchStandardization,
    ResidualBlock,
    ResidualEncoder,
    SampleStandardization,
    SelfAttention,
)
from ldseg_monai.networks.ldseg.label_decoder import LabelDecoder
from ldseg_monai.networks.ldseg.latent_denoiser import LatentDenoiser
from ldseg_monai.runtime.errors import InputError

NORM = ("group", {"num_groups": 4})
CASES = [  # image size, stem stride, size of the latent with two levels
    ((16, 16), 1, (8, 8)),
    ((16, 12), 2, (4, 3)),
    ((16, 24), 4, (2, 3)),
    ((16, 16, 16), 1, (8, 8, 8)),
    ((16, 12, 8), 2, (4, 3, 2)),
    ((16, 24, 16), 4, (2, 3, 2)),
]


def label_encoder(spatial_dims: int, stem_stride: int = 1) -> ResidualEncoder:
    return ResidualEncoder(spatial_dims, 3, 2, (8, 16), stem_stride, norm=NORM)


def label_decoder(
    spatial_dims: int,
    stem_stride: int = 1,
    channels: tuple[int, ...] = (8, 16),
    image_channels: tuple[int, ...] | None = None,
) -> LabelDecoder:
    return LabelDecoder(spatial_dims, 2, 3, channels, stem_stride, 1, NORM, image_channels)


def image_features(size: tuple[int, ...], stem_stride: int, batch: int = 2) -> list[torch.Tensor]:
    """What an image encoder of two levels, of 5 and 7 channels, might return for an image of this size."""
    sizes = [[side // (stem_stride * halving) for side in size] for halving in (1, 2)]
    return [
        torch.randn(batch, channels, *sides) for channels, sides in zip((5, 7), sizes, strict=True)
    ]


def denoiser(spatial_dims: int, channels: tuple[int, ...] = (8, 16)) -> LatentDenoiser:
    return LatentDenoiser(
        spatial_dims, 2, 1, channels, 1, [level > 0 for level in range(len(channels))], 4, NORM
    )


PARTS = {
    LatentDenoiser: {"spatial_dims": 2, "latent_channels": 1, "embedding_channels": 1},
    LabelDecoder: {"spatial_dims": 2, "latent_channels": 1, "out_channels": 2},
    ResidualEncoder: {"spatial_dims": 2, "in_channels": 1, "out_channels": 2},
    CDALGenerator: {"spatial_dims": 2, "out_channels": 2},
    CDALDiscriminator: {"spatial_dims": 2, "in_channels": 2, "attention_level": 0},
    MedSegDiffDenoiser: {"spatial_dims": 2, "latent_channels": 1, "embedding_channels": 1},
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (8, "^channels is 8: expected a list, a number for each level"),
        ([], r"^channels is \[\]: expected a list, a number for each level"),
        ([8, 0], "^channels of level 1 is 0: expected a whole number, 1 or more"),
        ([8.0, 8], "^channels of level 0 is 8.0: expected a whole number, 1 or more"),
        ([8, 12], "^a level has 12 channels: expected a multiple of 8, the groups of its norm"),
    ],
)
def test_channels_that_no_network_can_have_are_refused_before_it_is_built(
    part: type[nn.Module], channels: object, message: str
) -> None:
    none = {} if part in (CDALDiscriminator, LabelDecoder) else {"attention_levels": [False] * 2}
    part(**PARTS[part], **none, channels=[8, 16])
    with pytest.raises(InputError, match=message):
        part(**PARTS[part], **none, channels=channels)


@pytest.mark.parametrize("part", PARTS)
def test_width_that_no_network_can_have_is_named(part: type[nn.Module]) -> None:
    for name in ("in_channels", "out_channels", "latent_channels", "embedding_channels"):
        if name in PARTS[part]:
            with pytest.raises(InputError, match=f"^{name} is -1: expected "):
                part(**{**PARTS[part], name: -1}, channels=[8, 16])


@pytest.mark.parametrize(("size", "stem_stride", "latent"), CASES)
def test_image_encoder_meets_the_latent(size, stem_stride: int, latent) -> None:
    encoder = ResidualEncoder(len(size), 3, 2, (8, 16), stem_stride, 1, [True, True], 4, NORM)
    embedding, features = encoder(torch.randn(2, 3, *size))
    assert embedding.shape == (2, 2, *latent)
    assert [tuple(feature.shape) for feature in features] == [
        (2, 8, *(side // stem_stride for side in size)),
        (2, 16, *latent),
    ]
    assert sum(isinstance(module, SelfAttention) for module in encoder.modules()) == 2
    assert encoder.stride == stem_stride * 2 and encoder.feature_channels == [8, 16]


@pytest.mark.parametrize(("size", "stem_stride", "latent"), CASES)
def test_label_encoder_gives_a_latent_that_can_be_standardized(
    size, stem_stride: int, latent
) -> None:
    encoder = label_encoder(len(size), stem_stride)
    assert not [module for module in encoder.modules() if isinstance(module, SelfAttention)]
    result = SampleStandardization()(encoder(torch.rand(2, 3, *size))[0])
    assert result.shape == (2, 2, *latent)
    flat = result.flatten(2)
    torch.testing.assert_close(flat.mean(-1), torch.zeros(2, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(flat.std(-1, correction=0), torch.ones(2, 2), rtol=0, atol=0.05)


def test_amount_of_foreground_stays_in_the_latent_when_it_is_standardized_over_the_batch() -> None:
    everywhere, nowhere = torch.zeros(2, 3, 16, 12)
    everywhere[1], nowhere[0] = 1, 1
    one_hot = torch.stack([everywhere, nowhere, everywhere, nowhere])
    torch.manual_seed(0)
    latent = label_encoder(2)(one_hot)[0]
    means = {
        "sample": SampleStandardization()(latent).mean([2, 3]),
        "batch": BatchStandardization(2)(latent).mean([2, 3]),
    }
    torch.testing.assert_close(means["sample"], torch.zeros(4, 2), rtol=0, atol=1e-5)
    assert ((means["batch"][0] - means["batch"][1]).abs() > 0.01).all()
    torch.testing.assert_close(means["batch"].mean(0), torch.zeros(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "stem_stride", "latent"), CASES)
def test_label_decoder_undoes_the_stride(size, stem_stride: int, latent) -> None:
    assert label_decoder(len(size), stem_stride)(torch.randn(2, 2, *latent)).shape == (2, 3, *size)


@pytest.mark.parametrize("latent", [(3, 2), (3, 2, 4)])
@pytest.mark.parametrize(("stem_stride", "interpolation"), [(2, 2), (4, 2), (4, 4)])
def test_label_decoder_ends_in_a_linear_interpolation(
    latent: tuple[int, ...], stem_stride: int, interpolation: int
) -> None:
    dims = len(latent)
    decoder = LabelDecoder(dims, 2, 3, (8, 16), stem_stride, norm=NORM, interpolation=interpolation)
    coarse: list[torch.Tensor] = []
    decoder.to_logits.register_forward_hook(lambda module, inputs, output: coarse.append(output))
    logits = decoder(torch.randn(2, 2, *latent))
    assert logits.shape == (2, 3, *(side * stem_stride * 2 for side in latent))
    expected = coarse[0]
    for axis in range(2, 2 + dims):  # the closed form, one axis after the other
        expected = interpolated(expected, axis, interpolation)
    torch.testing.assert_close(logits, expected)


def interpolated(values: torch.Tensor, axis: int, factor: int) -> torch.Tensor:
    """Between the middles of cells, and held beyond the last one."""
    number = values.shape[axis]
    places = (torch.arange(number * factor) + 0.5) / factor - 0.5
    below = places.clamp(0, number - 1).floor().long()
    above = (below + 1).clamp(max=number - 1)
    share = (places.clamp(0, number - 1) - below).reshape(-1, *[1] * (values.ndim - 1 - axis))
    low, high = values.index_select(axis, below), values.index_select(axis, above)
    return low * (1 - share) + high * share


@pytest.mark.parametrize("interpolation", [0, 3, 8])
def test_interpolation_divides_the_stem(interpolation: int) -> None:
    with pytest.raises(ValueError, match=f"interpolation is {interpolation}: expected a divisor"):
        LabelDecoder(2, 2, 3, (8, 16), 4, norm=NORM, interpolation=interpolation)


@pytest.mark.parametrize("channels", [(8,), (8, 16, 16)])
def test_label_decoder_takes_any_number_of_levels(channels: tuple[int, ...]) -> None:
    stride = 2 * 2 ** (len(channels) - 1)
    assert label_decoder(2, 2, channels)(torch.randn(1, 2, 3, 2)).shape == (
        1,
        3,
        3 * stride,
        2 * stride,
    )


@pytest.mark.parametrize("latent", [(8, 8), (5, 3), (2, 3), (4, 4, 4), (5, 3, 2), (2, 3, 7)])
@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 16, 16)])
def test_denoiser_keeps_any_latent_size(latent: tuple[int, ...], channels: tuple[int, ...]) -> None:
    network = denoiser(len(latent), channels)
    noisy, embedding = torch.randn(2, 2, *latent), torch.randn(2, 1, *latent)
    assert network(noisy, embedding, torch.tensor([0, 999])).shape == noisy.shape


@pytest.mark.parametrize("latent", [(5, 3), (4, 3, 2)])
def test_denoiser_depends_on_the_timestep_the_latent_and_the_embedding_of_its_own_sample(
    latent,
) -> None:
    network = denoiser(len(latent)).eval()
    inputs = [torch.randn(2, 2, *latent), torch.randn(2, 1, *latent), torch.tensor([100, 500])]
    before = network(*inputs)
    for index in range(3):
        changed = [tensor.clone() for tensor in inputs]
        changed[index][1] += 1
        after = network(*changed)
        torch.testing.assert_close(after[0], before[0])
        assert (after[1] - before[1]).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(8, 12), (4, 6, 5)])
@pytest.mark.parametrize("stem_stride", [2, 4])
def test_label_decoder_starts_as_linear_interpolation_of_coarse_logits(
    size, stem_stride: int
) -> None:
    upsampling = label_decoder(len(size), stem_stride).to_logits[-1]
    hidden = torch.randn(1, upsampling.in_channels, *size)
    mixing = upsampling.weight.sum(dim=list(range(2, 2 + len(size)))) / stem_stride ** len(size)
    coarse = torch.einsum("bi...,io->bo...", hidden, mixing) + upsampling.bias.reshape(
        1, -1, *[1] * len(size)
    )
    mode = "bilinear" if len(size) == 2 else "trilinear"
    expected = functional.interpolate(coarse, scale_factor=stem_stride, mode=mode)
    inside = (..., *[slice(stem_stride, -stem_stride)] * len(size))
    torch.testing.assert_close(upsampling(hidden)[inside], expected[inside])


image_levels = pytest.mark.parametrize(
    ("image_channels", "used"), [((5, 0), [0]), ((0, 7), [1]), ((5, 7), [0, 1])]
)


@pytest.mark.parametrize(("size", "stem_stride", "latent"), CASES)
@image_levels
def test_label_decoder_depends_on_the_image_features_of_the_levels_asked_for_only(
    size, stem_stride: int, latent, image_channels: tuple[int, int], used: list[int]
) -> None:
    decoder = label_decoder(len(size), stem_stride, image_channels=image_channels).eval()
    inputs, features = torch.randn(2, 2, *latent), image_features(size, stem_stride)
    before = decoder(inputs, features)
    assert before.shape == (2, 3, *size)
    for level in range(2):
        changed = [feature.clone() for feature in features]
        changed[level][1] = changed[level][1].flip(-1)
        after = decoder(inputs, changed)
        torch.testing.assert_close(after[0], before[0])
        assert ((after[1] - before[1]).abs().max() > 1e-3) == (level in used)


@image_levels
def test_image_features_of_zero_are_the_same_as_none(
    image_channels: tuple[int, int], used: list[int]
) -> None:
    decoder = label_decoder(2, 2, image_channels=image_channels)
    latent, features = torch.randn(2, 2, 4, 3), image_features((16, 12), 2)
    none = decoder(latent)
    assert torch.equal(decoder(latent, [torch.zeros_like(feature) for feature in features]), none)
    assert torch.equal(decoder(latent, []), none)
    assert not torch.allclose(decoder(latent, features), none, rtol=1e-2, atol=1e-2)


@image_levels
def test_image_features_are_added_to_what_the_level_is_given(
    image_channels: tuple[int, int], used: list[int]
) -> None:
    decoder = label_decoder(2, 2, image_channels=image_channels)
    latent, features = torch.randn(2, 2, 4, 3), image_features((16, 12), 2)
    hidden = decoder.from_latent(latent)
    for level, layer in zip((1, 0), decoder.levels, strict=True):
        hidden = layer.upsampling(hidden)
        if level in used:
            weight = layer.image.weight.flatten(1)
            hidden = hidden + torch.einsum("oi,bihw->bohw", weight, features[level])
        hidden = layer.blocks(hidden)
    torch.testing.assert_close(decoder(latent, features), decoder.to_logits(hidden))


def test_label_decoder_without_image_channels_has_the_weights_of_the_paper_and_ignores_features() -> (
    None
):
    decoder, other = label_decoder(2), label_decoder(2, image_channels=(0, 0))
    assert set(decoder.state_dict()) == set(other.state_dict())
    assert not [name for name in decoder.state_dict() if ".image." in name]
    latent = torch.randn(2, 2, 8, 6)
    assert torch.equal(decoder(latent, image_features((16, 12), 1)), decoder(latent))


def test_image_features_of_one_image_serve_several_latents() -> None:
    decoder = label_decoder(2, 2, image_channels=(5, 7))
    latents, features = torch.randn(3, 2, 4, 3), image_features((16, 12), 2, batch=1)
    repeated = [feature.expand(3, -1, -1, -1) for feature in features]
    torch.testing.assert_close(decoder(latents, features), decoder(latents, repeated))
    apart = torch.cat([decoder(latent, features) for latent in latents.split(1)])
    torch.testing.assert_close(decoder(latents, features), apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shown", [True, False])
def test_scripted_label_decoder_agrees(shown: bool) -> None:
    decoder = label_decoder(2, 2, image_channels=(5, 0))
    latent, features = torch.randn(2, 2, 4, 3), image_features((16, 12), 2) if shown else None
    torch.testing.assert_close(
        torch.jit.script(decoder)(latent, features), decoder(latent, features)
    )


def test_each_level_has_its_own_number_of_residual_blocks() -> None:
    numbers = [0, 1, 2]
    encoder = ResidualEncoder(2, 3, 2, (8, 16, 16), num_res_blocks=numbers, norm=NORM)
    decoder = LabelDecoder(2, 2, 3, (8, 16, 16), num_res_blocks=numbers, norm=NORM)
    coarsest_first = [level.blocks for level in decoder.levels]
    for level, blocks, number in zip(encoder.levels, coarsest_first[::-1], numbers, strict=True):
        assert [type(part) for part in level] == [nn.Conv2d] + [ResidualBlock] * number
        assert [type(part) for part in blocks] == [ResidualBlock] * number
    embedding, features = encoder(torch.randn(1, 3, 16, 16))
    assert decoder(embedding, features).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    "build",
    [
        lambda numbers: ResidualEncoder(2, 3, 2, (8, 16), num_res_blocks=numbers, norm=NORM),
        lambda numbers: LabelDecoder(2, 2, 3, (8, 16), num_res_blocks=numbers, norm=NORM),
    ],
)
def test_numbers_of_residual_blocks_for_other_levels_are_refused(build) -> None:
    with pytest.raises(ValueError, match="num_res_blocks has 3 entries: expected one number, or"):
        build([1, 1, 1])
