"""Networks that segment in one pass, in a bundle's place."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks.nets import BasicUNetPlusPlus, DynUNet, SwinUNETR, VNet
from torch import nn

from ldseg_monai.bundle import Bundle
from ldseg_monai.inference import AutocastInferer
from ldseg_monai.networks import FittedNetwork, MSUNet, SwinUNet
from ldseg_monai.networks.peers.msu_net import TwoScales
from ldseg_monai.networks.peers.swin_unet import PatchExpanding

PICTURE = torch.rand(1, 3, 50, 37)


def plus_plus() -> nn.Module:
    return BasicUNetPlusPlus(2, 3, 2, features=(4, 4, 8, 8, 16, 4), norm="instance")


def swin() -> nn.Module:
    return SwinUNETR(3, 2, feature_size=12, spatial_dims=2)


def supervised() -> nn.Module:
    return DynUNet(2, 3, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 4, 8, 8],
        deep_supervision=True, deep_supr_num=2)  # fmt: skip


@pytest.mark.parametrize(
    ("network", "multiple", "channels"),
    [
        (plus_plus, 16, {}),
        (swin, 32, {}),
        (lambda: VNet(2, 4, 2), 16, {"in_channels": 3, "channels": 4}),
        (lambda: MSUNet(2, 3, 2, channels=[4, 8, 8]), 4, {}),
        (lambda: SwinUNet(2, 3, 2, channels=6, num_heads=[1, 2]), 8, {}),
        (supervised, 8, {}),
    ],
)
def test_logits_are_of_the_picture_whatever_its_size(network, multiple, channels) -> None:
    torch.manual_seed(0)
    fitted = FittedNetwork(network(), multiple, **channels).eval()
    assert fitted(PICTURE).shape == (1, 2, 50, 37)


def test_a_size_that_fits_is_left_to_the_network() -> None:
    torch.manual_seed(0)
    network = swin().eval()
    picture = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(FittedNetwork(network, 32)(picture), network(picture))


def test_deep_supervision_trains_on_all_outputs_and_segments_by_the_first() -> None:
    torch.manual_seed(0)
    network = FittedNetwork(supervised(), 8, all_outputs=True)
    outputs = AutocastInferer(SimpleInferer(), True)(PICTURE, network)  # as a training has it
    assert all(one.dtype == torch.float32 for one in outputs)
    outputs = network(PICTURE)
    assert isinstance(outputs, list) and [one.shape for one in outputs] == [(1, 2, 50, 37)] * 3
    label = (torch.rand(1, 1, 50, 37) > 0.5).float()
    plain = DiceCELoss(to_onehot_y=True, softmax=True)
    wanted = sum(plain(one, label) / 2**level for level, one in enumerate(outputs))
    assert torch.isclose(DeepSupervisionLoss(plain)(outputs, label), wanted)
    assert isinstance(network.eval()(PICTURE), torch.Tensor)


PEERS = ("basic_unet", "unetpp", "vnet", "swin_unetr", "swin_unet", "nnunet", "msu_net")


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", ["ldseg_glas", "ldseg_echo", "cdal_hippocampus"])
def test_peers_of_a_bundle_segment_its_images(name: str, peer: str) -> None:
    bundle = Bundle.find(name)
    overlay = f"baselines/{peer}.yaml"
    if not (bundle.configs / overlay).is_file():
        pytest.skip("MSU-Net is of pictures")
    config = bundle.config("train.yaml", "baselines/unet.yaml", overlay)
    network = config.get_parsed_content("network_def").eval()
    image = bundle.metadata["network_data_format"]["inputs"]["image"]
    sides = [20, 34, 17][: len(image["spatial_shape"])]
    with torch.no_grad():
        logits = network(torch.rand(1, image["num_channels"], *sides))
    assert logits.shape == (1, config.get_parsed_content("num_classes"), *sides)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple is 0"):
        FittedNetwork(nn.Identity(), 0)
    with pytest.raises(ValueError, match="expected in_channels, of the pictures, too"):
        FittedNetwork(nn.Identity(), 1, channels=4)
    with pytest.raises(ValueError, match="two levels or more"):
        MSUNet(2, 1, 2, channels=[8])
    with pytest.raises(ValueError, match="two levels or more"):
        SwinUNet(2, 1, 2, num_heads=[3])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_block_of_msu_net_sees_kernels_of_3_and_7_side_by_side(dims: int) -> None:
    block = TwoScales(dims, 2, 4)
    kernels = [
        layer.kernel_size[0]
        for layer in block.modules()
        if isinstance(layer, (nn.Conv2d, nn.Conv3d))
    ]
    assert kernels == [3, 3, 7, 7, 1]
    # A point reaches as far as two convolutions of 7 do
    for layer in block.modules():
        if isinstance(layer, (nn.InstanceNorm2d, nn.InstanceNorm3d)):
            layer.forward = lambda x: x
    image = torch.zeros(1, 2, *[21] * dims)
    point = image.clone()
    point[(0, 0, *[10] * dims)] = 1
    with torch.no_grad():
        reached = (block(point) - block(image)).abs().sum(dim=(0, 1)).nonzero()
    assert reached.min(dim=0).values.tolist() == [4] * dims
    assert reached.max(dim=0).values.tolist() == [16] * dims


def test_msu_net_has_the_papers_levels() -> None:
    network = MSUNet(2, 1, 2)
    assert [block.join.conv.out_channels for block in network.down] == [32, 64, 128, 256, 512]


@pytest.mark.parametrize("dims", [2, 3])
def test_expanded_patches_are_neighbors(dims: int) -> None:
    expand = PatchExpanding(dims, 3, 2, factor=2)
    expand.norm = nn.Identity()
    x = torch.rand(1, *[3, 4, 2][:dims], 3)
    with torch.no_grad():
        found, channels = expand(x), x @ expand.linear.weight.T
    assert found.shape == (1, *[6, 8, 4][:dims], 2)
    for place in torch.cartesian_prod(*[torch.arange(side) for side in found.shape[1:-1]]).tolist():
        number = 0
        for index in place:  # which of the patch's pixels it is, the last axis fastest
            number = 2 * number + index % 2
        patch = channels[(0, *[index // 2 for index in place])]
        assert torch.equal(found[(0, *place)], patch[2 * number : 2 * number + 2])


def test_swin_unet_is_of_the_known_size_and_sees_other_windows() -> None:
    network = SwinUNet(2, 3, 9)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == 27.17  # as comparisons with Cao et al.'s give it
    torch.manual_seed(0)
    small = SwinUNet(2, 1, 2, channels=6, num_heads=[1, 2], window=2).eval()
    picture = torch.zeros(1, 1, 64, 64)
    point = picture.clone()
    point[0, 0, 30, 30] = 1
    with torch.no_grad():
        reached = (small(point) - small(picture)).abs().sum(dim=(0, 1)).nonzero()
    assert reached.min() < 24 and 40 < reached.max() < 63  # a window of the first level has 8
