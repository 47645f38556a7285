"""What makes pixel diffusions of LDSeg: SegDiff, SDF-DDPM and MedSegDiff."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from ldseg_monai.diffusion import EvenlySpacedScheduler
from ldseg_monai.networks import (
    DistanceLogits,
    Downsampling,
    LatentDenoiser,
    LDSeg,
    MedSegDiffDenoiser,
    OneHotLabel,
    OneHotLogits,
    RRDBEncoder,
    SignedDistance,
)
from ldseg_monai.networks.pixel.medsegdiff import FrequencyParser
from ldseg_monai.training import LSegDiffLoss

NORM = ("group", {"num_groups": 4})


def segdiff() -> LDSeg:
    torch.manual_seed(0)
    return LDSeg(
        label_encoder=OneHotLabel(2, 2),
        standardization=torch.nn.Identity(),
        image_encoder=RRDBEncoder(2, 3, 8, num_blocks=1, growth=4),
        denoiser=LatentDenoiser(2, 2, 8, [8, 16], num_head_channels=8, norm=NORM),
        label_decoder=OneHotLogits(2, 2),
        scheduler=EvenlySpacedScheduler(100, "linear", "epsilon", beta_start=1e-3, beta_end=0.2),
    )


def sdf_ddpm() -> LDSeg:
    torch.manual_seed(0)
    return LDSeg(
        label_encoder=SignedDistance(2, 2, 5),
        standardization=torch.nn.Identity(),
        image_encoder=Downsampling(2, 3, 1),
        denoiser=LatentDenoiser(2, 2, 3, [8, 16], num_head_channels=8, norm=NORM),
        label_decoder=DistanceLogits(2, 2, 5),
        scheduler=EvenlySpacedScheduler(1000, "linear", "epsilon"),
    )


def medsegdiff() -> LDSeg:
    torch.manual_seed(0)
    return LDSeg(
        label_encoder=OneHotLabel(2, 2),
        standardization=torch.nn.Identity(),
        image_encoder=Downsampling(2, 3, 1),
        denoiser=MedSegDiffDenoiser(2, 2, 3, [8, 16], 1, num_head_channels=8, norm=NORM),
        label_decoder=OneHotLogits(2, 2),
        scheduler=EvenlySpacedScheduler(1000, "linear", "epsilon"),
    )


METHODS = pytest.mark.parametrize("method", [segdiff, sdf_ddpm, medsegdiff])


@METHODS
def test_it_trains_by_the_noise_alone_and_segments_at_any_size(method) -> None:
    network = method()
    image, label = torch.randn(2, 3, 24, 21), torch.randint(0, 2, (2, 1, 24, 21))
    draws = network.training_draws(image)
    output, noise = network(image, label, draws), draws.noise
    assert noise.shape == (2, 2, 24, 21)
    assert torch.equal(output["target"], noise)  # what is predicted is the noise
    loss = LSegDiffLoss()(output, label)
    torch.testing.assert_close(loss, (output["prediction"] - noise).square().mean())
    loss.backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert network.eval()(image).shape == (2, 2, 24, 21)


@METHODS
def test_scripted_network_segments_alike(method) -> None:
    network, image = method().eval(), torch.randn(1, 3, 16, 24)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_one_hot_label_comes_back_from_its_logits() -> None:
    label = torch.randint(0, 3, (2, 1, 8, 9))
    classes = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    diffused, _ = OneHotLabel(2, 3)(classes)
    assert set(diffused.unique().tolist()) == {-1, 1}
    decoder = OneHotLogits(3, 3)
    before = decoder(diffused)
    assert torch.equal(before.argmax(dim=1, keepdim=True), label)
    decoder.scale_logits(4.0)
    torch.testing.assert_close(decoder(diffused), before / 4)


@pytest.mark.parametrize("dims", [2, 3])
def test_distance_of_a_half_plane_is_that_to_its_edge(dims: int) -> None:
    mask = torch.zeros(1, 2, *[12] * dims)
    mask[:, 1, 5:] = 1  # rows 5 to 11
    mask[:, 0] = 1 - mask[:, 1]
    distances, _ = SignedDistance(dims, 2, truncation=4)(mask)
    rows = torch.arange(12) + 0.5 - 5  # from the edge, which lies at row 5
    expected = (rows.clamp(-4, 4) / 4).reshape([12] + [1] * (dims - 1)).expand([12] * dims)
    torch.testing.assert_close(distances[0, 1], expected)
    torch.testing.assert_close(distances[0, 0], -expected)


def test_distance_is_scipy_s() -> None:
    mask = torch.rand(20, 30, generator=torch.Generator().manual_seed(0)) > 0.7
    classes = torch.stack([~mask, mask])[None].float()
    distances, _ = SignedDistance(2, 2, truncation=3)(classes)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    signed = np.where(mask, inside - 0.5, 0.5 - outside)
    np.testing.assert_allclose(distances[0, 1].numpy(), signed.clip(-3, 3) / 3, atol=1e-6)
    assert torch.equal(DistanceLogits(2, 2, 3)(distances).argmax(dim=1)[0].bool(), mask)


def test_class_that_is_nowhere_is_at_its_full_distance() -> None:
    classes = torch.zeros(1, 3, 6, 6)
    classes[:, 0] = 1
    distances, _ = SignedDistance(2, 3)(classes)
    assert distances[0, 0].eq(1).all() and distances[0, 1:].eq(-1).all()


@pytest.mark.parametrize("size", [(8, 8), (9, 14), (64, 40)])
def test_frequency_parser_starts_as_nothing_and_its_lowest_frequency_is_the_mean(
    size: tuple[int, int],
) -> None:
    parser, x = FrequencyParser(2), torch.randn(1, 2, *size)
    torch.testing.assert_close(parser(x), x, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        parser.weight.zero_()
        rows, _ = parser.weight.shape[2:]
        parser.weight[:, :, rows // 2 - 6 : rows // 2 + 6, :6] = (
            1  # zero frequency is in the middle
        )
    constant = torch.full((1, 2, *size), 3.0)
    torch.testing.assert_close(parser(constant), constant, rtol=0.01, atol=0)
    fastest = torch.ones(size)
    fastest[::2] = -1
    fastest[:, ::2] *= -1
    assert parser(fastest.expand(1, 2, *size))[..., : size[1] // 2 * 2].abs().max() < 0.6


def test_rrdb_encoder_is_its_first_features_where_its_last_convolution_is_zero() -> None:
    encoder, image = RRDBEncoder(2, 3, 8, num_blocks=2, growth=4), torch.randn(1, 3, 10, 13)
    for weight in encoder.to_features.parameters():
        torch.nn.init.zeros_(weight)
    features, others = encoder(image)
    torch.testing.assert_close(features, encoder.from_image(image))
    assert others == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SignedDistance(2, 2, 0.5), "truncation is 0.5: expected 1 pixel or more"),
        (lambda: OneHotLogits(2, 3), "latent_channels is 2 and out_channels 3: expected the same"),
        (lambda: RRDBEncoder(2, 3, 8, 0), "num_blocks is 0: expected 1 or more"),
        (lambda: MedSegDiffDenoiser(3, 2, 1), "spatial_dims is 3: expected 2"),
    ],
)
def test_bad_arguments_are_errors(make, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
