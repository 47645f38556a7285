from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks import (
    BatchStandardization,
    CaseStandardization,
    Downsampling,
    ResidualBlock,
    ResidualEncoder,
    SampleStandardization,
    SelfAttention,
    SubPixelConvTranspose2d,
    TimestepEmbedding,
    normalization,
)

NORM = ("group", {"num_groups": 4})
SIZES = [(6, 5), (4, 3, 5)]  # of feature maps, in 2D and 3D


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("out_channels", [8, 16])
@pytest.mark.parametrize("norm", [NORM, "instance", "batch"])
def test_residual_block_keeps_the_size(
    size: tuple[int, ...], out_channels: int, norm: tuple | str
) -> None:
    block = ResidualBlock(len(size), 8, out_channels, norm)
    assert block(torch.randn(2, 8, *size)).shape == (2, out_channels, *size)


@pytest.mark.parametrize("size", SIZES)
def test_residual_block_is_its_shortcut_when_its_last_convolution_is_zero(
    size: tuple[int, ...],
) -> None:
    block = ResidualBlock(len(size), 8, 8, NORM)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    x = torch.randn(2, 8, *size)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("size", SIZES)
def test_residual_block_with_time_depends_on_each_sample_of_it(size: tuple[int, ...]) -> None:
    block = ResidualBlock(len(size), 8, 8, NORM, embedding_channels=12).eval()
    x, time = torch.randn(2, 8, *size), torch.randn(2, 12)
    changed = time.clone()
    changed[1] += 1
    before, after = block(x, time), block(x, changed)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("both_norms", [False, True])
def test_embedding_modulates_what_the_norms_return(both_norms: bool) -> None:
    block = ResidualBlock(2, 8, 16, NORM, embedding_channels=12, both_norms=both_norms).eval()
    x, embedding = torch.randn(2, 8, 6, 5), torch.randn(2, 12)

    def modulated(hidden: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
        scale, shift = layer(functional.silu(embedding))[..., None, None].chunk(2, dim=1)
        return (1 + scale) * hidden + shift

    hidden = block.norm1(x)
    if both_norms:
        hidden = modulated(hidden, block.scale_and_shift_first)
    hidden = modulated(block.norm2(block.conv1(functional.silu(hidden))), block.scale_and_shift)
    expected = block.shortcut(x) + block.conv2(functional.silu(hidden))
    torch.testing.assert_close(block(x, embedding), expected)
    assert (block.scale_and_shift_first is not None) == both_norms


def test_residual_block_with_time_asks_for_it() -> None:
    with pytest.raises(AssertionError, match="pass the timestep embedding"):
        ResidualBlock(2, 8, 8, NORM, embedding_channels=12)(torch.randn(1, 8, 4, 4))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_head_channels", [4, 8, 16])
def test_attention_keeps_the_shape(size: tuple[int, ...], num_head_channels: int) -> None:
    attention = SelfAttention(16, num_head_channels)
    assert attention.attention.num_heads == 16 // num_head_channels
    assert attention(torch.randn(2, 16, *size)).shape == (2, 16, *size)


def test_attention_rounds_alike_in_every_batch() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(64, 32).eval()
    x = torch.randn(4, 64, 10, 14, dtype=torch.bfloat16).to(
        memory_format=torch.channels_last
    )  # as a convolution's
    nn.init.normal_(attention.attention.in_proj_bias)  # added before or after rounding
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = attention(x)
        parts = [torch.cat([attention(part) for part in x.split(size)]) for size in (1, 2, 3)]
    assert [torch.equal(whole, part) for part in parts] == [True] * 3


@pytest.mark.parametrize("size", SIZES)
def test_attention_lets_every_position_see_every_other_of_its_sample_only(
    size: tuple[int, ...],
) -> None:
    attention = SelfAttention(8, 4).eval()
    x = torch.randn(2, 8, *size)
    changed = x.clone()
    changed[1].flatten(1)[:, 0] += torch.randn(8)
    difference = (attention(changed) - attention(x)).abs().amax(dim=1).flatten(1)
    assert (difference[0] == 0).all()
    assert (difference[1] > 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_attention_moves_with_the_positions(size: tuple[int, ...]) -> None:
    attention = SelfAttention(8, 4).eval()
    x = torch.randn(1, 8, *size)
    torch.testing.assert_close(attention(x.flip(2)), attention(x).flip(2), rtol=1e-4, atol=1e-5)


def test_timestep_embedding_tells_timesteps_apart() -> None:
    embedding = TimestepEmbedding(8, 32)
    embedded = embedding(torch.tensor([0, 1, 500, 998, 999, 0]))
    assert embedded.shape == (6, 32)
    torch.testing.assert_close(embedded[0], embedded[5])
    distances = torch.cdist(embedded[:5], embedded[:5]) + torch.eye(5)
    assert distances.min() > 1e-3


@pytest.mark.parametrize(
    ("size", "channels", "stem_stride", "expected"),
    [
        ((16, 12), (8, 16), 1, (8, 6)),
        ((16, 12), (8, 16), 2, (4, 3)),
        ((16, 24), (8, 16), 4, (2, 3)),
        ((16, 8), (8, 8, 16), 1, (4, 2)),
        ((16, 12, 8), (8, 16), 1, (8, 6, 4)),
        ((16, 12, 8), (8, 16), 2, (4, 3, 2)),
        ((16, 24, 8), (8,), 4, (4, 6, 2)),
    ],
)
@pytest.mark.parametrize("num_res_blocks", [1, 2])
def test_encoder_divides_the_size_by_its_stride(
    size, channels, stem_stride, expected, num_res_blocks: int
) -> None:
    attends = [level > 0 for level in range(len(channels))]
    encoder = ResidualEncoder(
        len(size), 3, 2, channels, stem_stride, num_res_blocks, attends, 4, NORM
    )
    latent, features = encoder(torch.randn(2, 3, *size))
    assert latent.shape == (2, 2, *expected)
    halvings = [2 ** (len(channels) - 1 - level) for level in range(len(channels))]
    expected_features = [
        (2, width, *(side * times for side in expected))
        for width, times in zip(channels, halvings, strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == expected_features


def test_features_of_the_encoder_are_what_its_latent_is_made_of() -> None:
    encoder = ResidualEncoder(2, 3, 2, (8, 12, 16), 2, 1, [False] * 3, 4, NORM)
    latent, features = encoder(torch.randn(2, 3, 16, 24))
    torch.testing.assert_close(encoder.to_latent(features[-1]), latent)
    for level in (1, 2):
        torch.testing.assert_close(encoder.levels[level](features[level - 1]), features[level])


def test_encoder_has_attention_where_asked() -> None:
    encoder = ResidualEncoder(2, 3, 1, (8, 8, 8), 1, 1, [False, True, False], 4, NORM)
    found = [
        any(isinstance(block, SelfAttention) for block in level.modules())
        for level in encoder.levels
    ]
    assert found == [False, True, False]


@pytest.mark.parametrize("size", SIZES)
def test_sample_standardization_gives_each_channel_of_each_sample_mean_0_and_sd_1(
    size: tuple[int, ...],
) -> None:
    offset, scale = torch.randn(2, 3, 2, *[1] * len(size)) * 5
    standardized = SampleStandardization()(
        offset + (scale.abs() + 0.5) * torch.randn(3, 2, *size)
    ).flatten(2)
    torch.testing.assert_close(standardized.mean(-1), torch.zeros(3, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        standardized.std(-1, correction=0), torch.ones(3, 2), rtol=0, atol=1e-3
    )


def test_sample_standardization_of_a_flat_latent_is_zero() -> None:
    assert torch.equal(
        SampleStandardization()(torch.full((1, 1, 4, 4), 3.0)), torch.zeros(1, 1, 4, 4)
    )


def test_sample_standardization_works_in_float32() -> None:
    assert (
        SampleStandardization()(torch.randn(1, 1, 4, 4, dtype=torch.bfloat16)).dtype
        == torch.float32
    )


def fields(number: int, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Latents of two channels with means -3 and 5 and SDs 0.5 and 4, over the samples and over the positions."""
    sizes = torch.tensor([0.5, 4.0]).reshape(1, 2, *[1] * len(size))
    between, within = (
        torch.randn(number, 2, *shape, generator=generator) for shape in ([1] * len(size), size)
    )
    means = torch.tensor([-3.0, 5.0]).reshape(sizes.shape)
    return means + sizes * (between + within) / 2**0.5


@pytest.mark.parametrize("size", SIZES)
def test_batch_standardization_gives_each_channel_of_a_batch_mean_0_and_sd_1(
    size: tuple[int, ...],
) -> None:
    latent = fields(4, size, torch.Generator().manual_seed(0))
    standardized = BatchStandardization(2)(latent).transpose(0, 1).flatten(1)
    torch.testing.assert_close(standardized.mean(1), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(standardized.std(1, correction=0), torch.ones(2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_batch_standardization_evaluates_with_the_statistics_of_the_training_batches(
    size: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = BatchStandardization(2)
    for _ in range(1000):
        layer(fields(8, size, generator))
    layer.eval()
    standardized = layer(fields(2000, size, generator)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(standardized.mean(1), torch.zeros(2), rtol=0, atol=0.1)
    torch.testing.assert_close(standardized.std(1), torch.ones(2), rtol=0, atol=0.1)
    latent = fields(3, size, generator)
    torch.testing.assert_close(layer(latent), torch.cat([layer(one) for one in latent.split(1)]))


@pytest.mark.parametrize("momentum", [0.01, 0.2])
def test_batch_standardization_moves_its_statistics_by_the_momentum(momentum: float) -> None:
    layer = BatchStandardization(2, momentum)
    mean, variance = torch.zeros(2), torch.ones(2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        latent = fields(4, (6, 5), generator)
        layer(latent)
        mean += momentum * (latent.mean([0, 2, 3]) - mean)
        variance += momentum * (latent.var([0, 2, 3]) - variance)
    torch.testing.assert_close(layer.mean, mean)
    torch.testing.assert_close(layer.variance, variance)
    layer.eval()(latent)
    torch.testing.assert_close(layer.mean, mean)
    torch.testing.assert_close(layer.variance, variance)


def test_batch_standardization_keeps_a_samples_own_mean_which_sample_standardization_loses() -> (
    None
):
    foreground = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(4, 1, 1, 1).expand(-1, -1, 4, 4)
    kept = BatchStandardization(1)(foreground)
    torch.testing.assert_close(kept, 2 * foreground - 1, rtol=0, atol=1e-4)
    assert torch.equal(SampleStandardization()(foreground), torch.zeros(4, 1, 4, 4))


@pytest.mark.parametrize("training", [True, False])
def test_batch_standardization_works_in_float32(training: bool) -> None:
    layer = BatchStandardization(2).train(training)
    latent = fields(4, (6, 5), torch.Generator().manual_seed(0)).bfloat16()
    standardized = layer(latent)
    assert standardized.dtype == layer.mean.dtype == layer.variance.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(latent).dtype == torch.float32
    if training:
        assert standardized.mean([0, 2, 3]).abs().max() < 1e-5  # bfloat16 would be off by 1e-3


def test_batch_standardization_learns_nothing_and_keeps_its_statistics_in_the_state_dict() -> None:
    layer = BatchStandardization(2)
    assert not list(layer.parameters())
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "mean": (2,),
        "variance": (2,),
    }


@pytest.mark.parametrize("training", [True, False])
def test_batch_standardization_passes_gradients_to_the_latent(training: bool) -> None:
    layer = BatchStandardization(2).train(training)
    latent = fields(4, (6, 5), torch.Generator().manual_seed(0)).requires_grad_()
    (layer(latent) * torch.randn(4, 2, 6, 5)).sum().backward()
    assert latent.grad is not None and (latent.grad.abs().amax([1, 2, 3]) > 0).all()


def cases(number: int, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Latents that are one constant picture but for a little: what a standardization per sample leaves."""
    picture = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(9))
    return picture + 0.1 * torch.randn(number, 2, *size, generator=generator)


@pytest.mark.parametrize("size", SIZES)
def test_case_standardization_removes_the_constant_picture_and_keeps_what_differs(
    size: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = CaseStandardization(2, size, momentum=0.02)
    for _ in range(600):
        layer(cases(8, size, generator))
    standardized = layer.eval()(cases(1000, size, generator))
    assert standardized.mean(0).std() < 0.2  # the picture has SD 10 in these units
    between = standardized.var(0).mean(dim=list(range(1, len(size) + 1)))
    torch.testing.assert_close(between, torch.ones(2), rtol=0, atol=0.1)


def test_case_standardization_trains_as_it_evaluates_but_for_the_update() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = CaseStandardization(2, (6, 5))
    for _ in range(50):
        layer(cases(8, (6, 5), generator))
    batch = cases(4, (6, 5), generator)
    trained = layer(batch)
    torch.testing.assert_close(layer.eval()(batch), trained)


def test_case_standardization_learns_in_training_mode_only() -> None:
    layer = CaseStandardization(2, (6, 5))
    batch = cases(4, (6, 5), torch.Generator().manual_seed(0))
    layer.eval()(batch)
    assert (layer.mean == 0).all() and (layer.variance == 1).all()
    layer.train()(batch)
    assert (layer.mean != 0).all() and (layer.variance != 1).all()


def test_case_standardization_keeps_its_statistics_in_the_state_dict() -> None:
    layer = CaseStandardization(2, (6, 5))
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "mean": (1, 2, 6, 5),
        "variance": (1, 2, 1, 1),
    }


def test_case_standardization_passes_gradients_to_the_latent_and_none_to_its_statistics() -> None:
    layer = CaseStandardization(2, (6, 5))
    latent = cases(4, (6, 5), torch.Generator().manual_seed(0)).requires_grad_()
    (layer(latent) * torch.randn(4, 2, 6, 5)).sum().backward()
    assert latent.grad is not None and latent.grad.abs().sum() > 0
    assert not layer.mean.requires_grad and not layer.variance.requires_grad


def test_case_standardization_needs_the_shape_of_the_latent() -> None:
    with pytest.raises(TypeError, match="latent_shape"):
        CaseStandardization(2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 2, 6, 6), r"latent of shape \[6, 6\]: expected \[6, 5\], the latent_shape"),
        ((4, 2, 1, 5), r"latent of shape \[1, 5\]: expected \[6, 5\]"),  # would broadcast
        ((4, 2, 6, 5, 1), r"latent of shape \[6, 5, 1\]: expected \[6, 5\]"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_case_standardization_refuses_another_shape(
    shape: tuple[int, ...], message: str, training: bool
) -> None:
    layer = CaseStandardization(2, (6, 5)).train(training)
    with pytest.raises(ValueError, match=message):
        layer(torch.randn(shape))
    assert (layer.mean == 0).all()


@pytest.mark.parametrize("size", [(6, 8), (4, 6, 8)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_group_norm_is_pytorchs_in_every_layout(
    size: tuple[int, ...], training: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    ours = normalization(NORM, len(size), 8).train(training)
    reference = nn.GroupNorm(4, 8)
    with torch.no_grad():
        reference.weight.copy_(torch.rand(8))
        reference.bias.copy_(torch.rand(8))
    ours.load_state_dict(reference.state_dict())
    last = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    layout = last if channels_last else torch.contiguous_format
    x = torch.randn(2, 8, *size).contiguous(memory_format=layout)
    results = []
    for norm in (ours, reference):
        own = x.clone().requires_grad_()
        normalized = norm(own)
        assert normalized.is_contiguous(memory_format=layout)
        (normalized * torch.arange(8.0).reshape([8] + [1] * len(size))).square().sum().backward()
        results.append((normalized, own.grad, norm.weight.grad, norm.bias.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_group_norm_trains_in_the_layout_in_which_that_is_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layouts = []

    def group_norm(x: torch.Tensor, *args: object) -> torch.Tensor:
        layouts.append(x.is_contiguous())
        return x

    norm = normalization(NORM, 2, 8)
    monkeypatch.setattr(nn.functional, "group_norm", group_norm)
    x = torch.randn(2, 8, 6, 4).contiguous(memory_format=torch.channels_last)
    norm.train()(x)
    norm.eval()(x)
    assert layouts == [True, False]


@pytest.mark.parametrize(
    ("norm", "kind"), [("instance", nn.InstanceNorm2d), ("batch", nn.BatchNorm2d)]
)
def test_other_normalizations_are_pytorchs(norm: str, kind: type) -> None:
    assert type(normalization(norm, 2, 8)) is kind


@pytest.mark.parametrize("size", [(8, 12), (8, 12, 4)])
def test_downsampling_takes_the_value_in_the_middle_of_each_patch(size: tuple[int, ...]) -> None:
    x = torch.arange(float(torch.tensor(size).prod())).reshape(1, 1, *size)
    smaller, features = Downsampling(len(size), in_channels=1, stride=4)(x)
    assert features == []
    assert torch.equal(smaller, x[(..., *[slice(2, None, 4)] * len(size))])


def test_downsampling_says_what_an_encoder_says_of_itself() -> None:
    stand_in = Downsampling(3, in_channels=4, stride=2)
    assert (stand_in.spatial_dims, stand_in.stride) == (3, 2)
    assert stand_in.out_channels == stand_in.in_channels == 4
    assert stand_in.feature_channels == []
    with pytest.raises(ValueError, match="spatial_dims is 4: expected 2 or 3"):
        Downsampling(4, in_channels=1, stride=2)


@pytest.mark.parametrize("stride", [2, 4, 6])
def test_subpixel_convolution_is_the_transposed_one(stride: int) -> None:
    ours = SubPixelConvTranspose2d(5, 3, stride).double()
    plain = nn.ConvTranspose2d(5, 3, 2 * stride, stride, stride // 2).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 7, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), plain(x))
    weights = torch.randn(2, 3, 7 * stride, 4 * stride, dtype=torch.float64)
    for one in (ours, plain):
        (one(x) * weights).sum().backward()
    assert ours.weight.grad is not None and ours.bias is not None and plain.bias is not None
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
    torch.testing.assert_close(ours.bias.grad, plain.bias.grad)
