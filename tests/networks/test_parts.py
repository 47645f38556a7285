from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ldseg_monai.networks import ImageEncoder, LabelDecoder, LabelEncoder, LatentDenoiser
from ldseg_monai.networks.blocks import CaseStandardization, SampleStandardization, SelfAttention

NORM = ("group", {"num_groups": 4})
CASES = [  # image size, stem stride, size of the latent with two levels
    ((16, 16), 1, (8, 8)),
    ((16, 12), 2, (4, 3)),
    ((16, 24), 4, (2, 3)),
    ((16, 16, 16), 1, (8, 8, 8)),
    ((16, 12, 8), 2, (4, 3, 2)),
    ((16, 24, 16), 4, (2, 3, 2)),
]


def label_encoder(spatial_dims: int, stem_stride: int = 1, latent_channels: int = 2, **norm_args) -> LabelEncoder:
    return LabelEncoder(spatial_dims, 3, latent_channels, (8, 16), stem_stride, 1, NORM, **norm_args)


def label_decoder(spatial_dims: int, stem_stride: int = 1, channels: tuple[int, ...] = (8, 16)) -> LabelDecoder:
    return LabelDecoder(spatial_dims, 2, 3, channels, stem_stride, 1, NORM)


def denoiser(spatial_dims: int, channels: tuple[int, ...] = (8, 16)) -> LatentDenoiser:
    return LatentDenoiser(spatial_dims, 2, 1, channels, 1, [level > 0 for level in range(len(channels))], 4, NORM)


@pytest.mark.parametrize(("size", "stem_stride", "latent"), CASES)
def test_image_encoder_meets_the_latent(size, stem_stride: int, latent) -> None:
    encoder = ImageEncoder(len(size), 3, 2, (8, 16), stem_stride, 1, [True, True], 4, NORM)
    assert encoder(torch.randn(2, 3, *size)).shape == (2, 2, *latent)
    assert sum(isinstance(module, SelfAttention) for module in encoder.modules()) == 2


@pytest.mark.parametrize(("size", "stem_stride", "latent"), CASES)
def test_label_encoder_standardizes_each_channel_of_each_sample(size, stem_stride: int, latent) -> None:
    result = label_encoder(len(size), stem_stride)(torch.rand(2, 3, *size))
    assert result.shape == (2, 2, *latent)
    flat = result.flatten(2)
    torch.testing.assert_close(flat.mean(-1), torch.zeros(2, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(flat.std(-1, correction=0), torch.ones(2, 2), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("norm_args", "layer"),
    [
        ({}, SampleStandardization),
        ({"latent_norm": "sample"}, SampleStandardization),
        ({"latent_norm": "cases", "latent_shape": (8, 6)}, CaseStandardization),
    ],
)
def test_label_encoder_ends_in_the_standardization_asked_for(norm_args: dict, layer: type) -> None:
    encoder = label_encoder(2, **norm_args)
    assert type(encoder.standardization) is layer
    assert encoder(torch.rand(2, 3, 16, 12)).shape == (2, 2, 8, 6)


@pytest.mark.parametrize(
    ("norm_args", "message"),
    [
        ({"latent_norm": "batch"}, "latent_norm is 'batch': expected one of sample, cases"),
        ({"latent_norm": "cases"}, "latent_norm is 'cases' and latent_shape None: expected a latent_shape"),
        ({"latent_norm": "sample", "latent_shape": (8, 8)}, "none with 'sample'"),
        ({"latent_shape": (8, 8)}, "none with 'sample'"),
    ],
)
def test_label_encoder_refuses_wrong_arguments(norm_args: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_encoder(2, **norm_args)


@pytest.mark.parametrize(("size", "stem_stride", "latent"), CASES)
def test_label_decoder_undoes_the_stride(size, stem_stride: int, latent) -> None:
    assert label_decoder(len(size), stem_stride)(torch.randn(2, 2, *latent)).shape == (2, 3, *size)


@pytest.mark.parametrize("channels", [(8,), (8, 16, 16)])
def test_label_decoder_takes_any_number_of_levels(channels: tuple[int, ...]) -> None:
    stride = 2 * 2 ** (len(channels) - 1)
    assert label_decoder(2, 2, channels)(torch.randn(1, 2, 3, 2)).shape == (1, 3, 3 * stride, 2 * stride)


@pytest.mark.parametrize("latent", [(8, 8), (5, 3), (2, 3), (4, 4, 4), (5, 3, 2), (2, 3, 7)])
@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 16, 16)])
def test_denoiser_keeps_any_latent_size(latent: tuple[int, ...], channels: tuple[int, ...]) -> None:
    network = denoiser(len(latent), channels)
    noisy, embedding = torch.randn(2, 2, *latent), torch.randn(2, 1, *latent)
    assert network(noisy, embedding, torch.tensor([0, 999])).shape == noisy.shape


@pytest.mark.parametrize("latent", [(5, 3), (4, 3, 2)])
def test_denoiser_depends_on_the_timestep_the_latent_and_the_embedding_of_its_own_sample(latent) -> None:
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
def test_label_decoder_starts_as_linear_interpolation_of_coarse_logits(size, stem_stride: int) -> None:
    upsampling = label_decoder(len(size), stem_stride).to_logits[-1]
    hidden = torch.randn(1, upsampling.in_channels, *size)
    mixing = upsampling.weight.sum(dim=list(range(2, 2 + len(size)))) / stem_stride ** len(size)
    coarse = torch.einsum("bi...,io->bo...", hidden, mixing) + upsampling.bias.reshape(1, -1, *[1] * len(size))
    mode = "bilinear" if len(size) == 2 else "trilinear"
    expected = functional.interpolate(coarse, scale_factor=stem_stride, mode=mode)
    inside = (..., *[slice(stem_stride, -stem_stride)] * len(size))
    torch.testing.assert_close(upsampling(hidden)[inside], expected[inside])
