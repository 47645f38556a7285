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
from ldseg_monai.networks import FittedNetwork, MedT, MSUNet, SwinUNet
from ldseg_monai.networks.peers.medt import PATCHES, GatedAxialAttention
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
        (lambda: MedT(2, 3, 2, channels=[4, 8, 8], num_heads=2, span=32), 16, {}),
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


PEERS = ("basic_unet", "unetpp", "vnet", "swin_unetr", "swin_unet", "nnunet", "msu_net", "medt")


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", ["ldseg_glas", "ldseg_echo", "cdal_hippocampus"])
def test_peers_of_a_bundle_segment_its_images(name: str, peer: str) -> None:
    bundle = Bundle.find(name)
    overlay = f"baselines/{peer}.yaml"
    if not (bundle.configs / overlay).is_file():
        pytest.skip("MSU-Net and MedT are of pictures")
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
    with pytest.raises(ValueError, match="spatial_dims is 3: expected 2"):
        MedT(3, 1, 2)
    with pytest.raises(ValueError, match="three blocks or more"):
        MedT(2, 1, 2, channels=[8, 8])
    with pytest.raises(ValueError, match="num_heads is 3 of 8 channels"):
        GatedAxialAttention(8, 3, 4, axis=2)


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


def lines_attended(network: GatedAxialAttention, line: torch.Tensor) -> torch.Tensor:
    """Eq. 3 of MedT, number by number, for a line ``(C, L)`` as long as the network's positions."""
    length, half = line.shape[1], network.width // 2
    gate_q, gate_k, gate_p, gate_v = network.gates
    found = torch.zeros_like(line)
    for head in range(network.num_heads):
        rows = network.to_all.weight[2 * network.width * head : 2 * network.width * (head + 1)]
        query, key, value = (rows @ line).split([half, half, network.width])
        for i in range(length):
            logits, values = [], []
            for j in range(length):
                seen = network.positions[:, j - i + length - 1]
                of_query, of_key, of_value = seen.split([half, half, network.width])
                logits.append(query[:, i] @ key[:, j] + gate_q * query[:, i] @ of_query
                    + gate_k * key[:, j] @ of_key)  # fmt: skip
                values.append(gate_v * value[:, j] + gate_p * of_value)
            weights = torch.stack(logits).softmax(dim=0)
            place = slice(network.width * head, network.width * (head + 1))
            found[place, i] = (weights[:, None] * torch.stack(values)).sum(dim=0)
    return found


@pytest.mark.parametrize("axis", [2, 3])
def test_axial_attention_is_the_papers_equation_along_its_axis(axis: int) -> None:
    torch.manual_seed(0)
    network = GatedAxialAttention(8, 2, span=5, axis=axis)
    x = torch.randn(1, 8, 5, 3) if axis == 2 else torch.randn(1, 8, 3, 5)
    with torch.no_grad():
        network.gates.copy_(torch.tensor([0.7, -0.4, 1.5, 0.9]))
        found = network(x)
        for place in range(3):
            one = (0, slice(None), slice(None), place) if axis == 2 else (0, slice(None), place)
            assert torch.allclose(found[one], lines_attended(network, x[one]), atol=1e-5)
        network.gates[:3] = 0  # without positions the places of a line are a set
        order = torch.tensor([3, 0, 4, 1, 2])
        turned = network(x.index_select(axis, order))
        assert torch.allclose(turned, network(x).index_select(axis, order), atol=1e-5)


def test_local_branch_of_medt_sees_each_patch_by_itself() -> None:
    torch.manual_seed(0)
    network = MedT(2, 1, 2, channels=[4, 8, 8], num_heads=2, span=32).eval()
    network.whole.forward = lambda image: 0  # the local branch alone
    picture = torch.rand(1, 1, 32, 48)
    other = picture.clone()
    other[0, 0, 9, 30] += 1  # in the second row and third column of patches
    with torch.no_grad():
        changed = (network(other) - network(picture)).abs().sum(dim=(0, 1)) > 0
    rows, columns = 32 // PATCHES, 48 // PATCHES
    inside = changed[rows : 2 * rows, 2 * columns : 3 * columns]
    assert inside.any() and inside.sum() == changed.sum()
