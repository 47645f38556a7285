from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DynUNet
from small_networks import ldseg_config

from benchmarks.speed import workload
from benchmarks.speed.workload import Workload
from ldseg_monai.bundle import Bundle

TRAIN = """
num_classes: 2
batch_size: 4
crop_size: [32, 32]
"""


@pytest.fixture
def glands(tmp_path: Path) -> Workload:
    """A bundle of pictures in color."""
    configs = tmp_path / "glands" / "configs"
    configs.mkdir(parents=True)
    network = ldseg_config(in_channels=3, out_channels="@num_classes")
    (configs / "train.yaml").write_text(TRAIN + json.dumps({"network_def": network})[1:-1])
    image = {"spatial_shape": [64, 96]}
    (configs / "metadata.json").write_text(
        json.dumps({"network_data_format": {"inputs": {"image": image}}})
    )
    return Workload(Bundle(configs.parent))


def test_everything_is_read_from_the_bundle(glands: Workload) -> None:
    assert glands.name == "glands"
    assert (glands.spatial_size, glands.training_size, glands.batch_size) == ((64, 96), (32, 32), 4)
    assert glands.network()(glands.image(glands.spatial_size)).shape == (1, 2, 64, 96)


def test_precision_is_that_of_the_bundles_inference(glands: Workload) -> None:
    (glands.bundle.configs / "inference.yaml").write_text("amp: true\n")
    assert glands.precision == "bfloat16"
    assert Workload(glands.bundle, overrides={"amp": False}).precision == "float32"


def test_size_and_overrides_replace_what_the_bundle_says(glands: Workload) -> None:
    work = Workload(glands.bundle, size=(16, 16), overrides={"num_classes": 5})
    assert work.spatial_size == work.training_size == (16, 16)
    assert work.network().out_channels == 5


def test_size_that_the_metadata_leaves_open_is_asked_for(glands: Workload) -> None:
    path = glands.bundle.configs / "metadata.json"
    path.write_text(path.read_text().replace("96", '"*"'))
    with pytest.raises(ValueError, match="--size"):
        _ = Workload(Bundle(glands.bundle.root)).spatial_size


@pytest.mark.parametrize(
    "name", [name for name in workload.PEERS if name not in ("VNet", "SwinUNETR")]
)
def test_peer_gives_a_logit_for_every_class_and_pixel(glands: Workload, name: str) -> None:
    size = (32, 48)
    output = workload.peer_call(glands, name, size, amp=False, layout="channels last")()
    output = output[0] if isinstance(output, list) else output
    assert isinstance(output, torch.Tensor)
    assert output.shape == (1, 2, *workload.padded(size, workload.PEERS[name].stride))


def test_vnet_of_a_color_picture_fails_with_its_reason(glands: Workload) -> None:
    with pytest.raises(ValueError, match="should be divisible by in_channels"):
        workload.peer_call(glands, "VNet", (32, 32), amp=False, layout="channels last")


def test_layouts_agree(glands: Workload) -> None:
    outputs = [
        build()
        for build in workload.layouts(workload.peer_call, glands, "UNet", (32, 32), False).values()
    ]
    logits = [call() for call in outputs]
    torch.testing.assert_close(logits[0], logits[1])


def test_pixel_diffusion_predicts_the_label_channels_on_the_image_grid(glands: Workload) -> None:
    output = workload.pixel_diffusion_call(glands, (16, 20), True, "channels last")()
    assert isinstance(output, torch.Tensor)
    assert output.shape == (1, 2, 16, 24)


@pytest.mark.parametrize(
    ("size", "strides", "filters"),
    [  # what nnU-Net plans for patches of these sizes
        ((512, 512), [[1, 1], *[[2, 2]] * 7], [32, 64, 128, 256, 512, 512, 512, 512]),
        ((128, 128, 128), [[1, 1, 1], *[[2, 2, 2]] * 5], [32, 64, 128, 256, 320, 320]),
        ((16, 64, 16), [[1, 1, 1], *[[2, 2, 2]] * 2, *[[1, 2, 1]] * 2], [32, 64, 128, 256, 320]),
    ],
)
def test_dynunet_has_the_shape_of_nnunet(
    size: tuple[int, ...], strides: list, filters: list[int]
) -> None:
    network = workload.PEERS["DynUNet"].make(len(size), 1, 2, size)
    assert isinstance(network, DynUNet)
    assert (network.strides, network.filters) == (strides, filters)
