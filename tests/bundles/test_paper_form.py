"""What ablations/paper.yaml makes of each bundle is what its paper describes."""

from __future__ import annotations

import pytest
import torch
from config_files import REPOSITORY, load
from monai.bundle import ConfigParser
from monai.transforms import Compose

from ldseg_monai.networks.blocks import (
    ResidualBlock,
    ResidualEncoder,
    SampleStandardization,
    SelfAttention,
)

# Four down-samplings of the sizes in the paper; of bundles whose data it has not, of their own
LDSEG = {
    "ldseg_knee3d": ([1, 256, 128, 128], [16, 8, 8]),
    "ldseg_glas": ([3, 512, 512], [32, 32]),
    "ldseg_echo": ([1, 768, 512], [48, 32]),
    "ldseg_hippocampus": ([1, 48, 64, 48], [3, 4, 3]),
    "ldseg_monuseg": ([3, 256, 256], [16, 16]),
    "ldseg_cxr": ([1, 256, 256], [16, 16]),
}
# T, and the side of the features that make the attention map of 256 pixels (Section 3.2)
CDAL = {"cdal_hippocampus": (2, None), "cdal_monuseg": (4, 32), "cdal_cxr": (2, 16)}


def paper(bundle: str) -> ConfigParser:
    configs = REPOSITORY / "bundles" / bundle / "configs"
    return load(configs / "train.yaml", configs / "ablations" / "paper.yaml")


def has_attention(part: torch.nn.Module) -> bool:
    return any(isinstance(module, SelfAttention) for module in part.modules())


@pytest.mark.parametrize("bundle", LDSEG)
def test_ldseg_is_the_papers(bundle: str) -> None:
    config = paper(bundle)
    network = config.get_parsed_content("network_def")
    size, latent = LDSEG[bundle]
    assert network.noise_shape(torch.empty(1, *size)) == [1, *latent]
    assert network.image_encoder.out_channels == 1
    assert network.denoiser.from_latent.in_channels == 2  # the noisy latent beside the embedding
    levels = [has_attention(level) for level in network.image_encoder.levels]
    assert levels == [False, False, False, True, True]
    assert has_attention(network.denoiser)
    assert not has_attention(network.label_encoder) and not has_attention(network.label_decoder)
    assert not network.label_decoder.sees_image and not network.decode_clean
    assert isinstance(network.standardization, SampleStandardization)
    assert isinstance(network.after_step, SampleStandardization)
    assert network.scheduler.prediction_type == "epsilon"
    assert network.scheduler.timesteps.tolist() == [999, 0]  # T and 1
    assert not network.start_at_mean
    loss = config.get_parsed_content("loss")
    assert (loss.segmentation.lambda_dice, loss.mse_weight) == (2, 1)
    assert loss.reconstruction_weight == 0
    assert config.get_parsed_content("train#inferer").pure_noise_share == 0


@pytest.mark.parametrize("bundle", CDAL)
def test_cdal_is_the_papers(bundle: str) -> None:
    config = paper(bundle)
    network = config.get_parsed_content("network_def")
    steps, attention_side = CDAL[bundle]
    assert not network.stochastic and network.scheduler.num_train_timesteps == steps
    assert isinstance(network.image_encoder, ResidualEncoder)
    if attention_side:
        discriminator = config.get_parsed_content("discriminator_def")
        label = torch.zeros(1, 2, 256, 256)
        sides: list[int] = []
        level = discriminator.levels[discriminator.attention_level]
        level.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
        discriminator.attention_map(label, label, torch.tensor([0]))
        assert sides == [attention_side]
    assert config.get_parsed_content("loss").segmentation_weight == 0
    trainer = config["train#trainer"]
    papers = {"normalize_attention": False, "rollout_share": 0, "pairs": "same_noise",
        "discriminator_steps": 2}  # fmt: skip
    for name, value in papers.items():
        assert trainer[name] == f"@{name}" and config[name] == value
    blocks = [part for part in network.generator.modules() if isinstance(part, ResidualBlock)]
    assert blocks and all(block.scale_and_shift_first is not None for block in blocks)


@pytest.mark.parametrize("bundle", CDAL)
def test_segdiff_is_one_network_in_all_bundles(bundle: str) -> None:
    def network_of(name: str, overlay: str) -> dict:
        path = REPOSITORY / "bundles" / name / "configs" / "baselines" / overlay
        parts = ConfigParser.load_config_file(path)["network_def"]
        for part in parts.values():
            if isinstance(part, dict):  # what the images are like
                part.pop("spatial_dims", None)
        parts["image_encoder"].pop("in_channels")
        return parts

    assert network_of(bundle, "segdiff_rrdb.yaml") == network_of("ldseg_glas", "segdiff.yaml")


def test_glands_may_be_resized_to_one_size() -> None:
    configs = REPOSITORY / "bundles" / "ldseg_glas" / "configs"
    config = load(configs / "train.yaml", configs / "ablations" / "resized.yaml")
    config["crop_size"] = [32, 32]
    label = torch.zeros(1, 40, 24)
    label[:, :20] = 1
    pair = {"image": 255 * label.expand(3, -1, -1), "label": label}
    _, *steps = config.get_parsed_content("train#deterministic_transforms")  # the first loads
    drawn = Compose(steps)(pair)
    assert drawn["image"].shape == (3, 32, 32)
    assert (drawn["label"][:, :16] == 1).all() and not drawn["label"][:, 16:].any()
    seen = Compose(config.get_parsed_content("image_transforms"))({"image": pair["image"]})
    assert seen["image"].shape == (3, 32, 32)
    assert seen["image"].min() == -1 and seen["image"].max() == 1
    assert config.get_parsed_content("validate#inferer").roi_size == [32, 32]
