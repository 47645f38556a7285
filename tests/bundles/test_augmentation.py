"""Augmentation of every bundle: an image and its label must be turned, flipped and cut alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from config_files import REPOSITORY
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, RandCoarseDropoutd
from workplace import TINY

# What changes gray values or colors alone; a transform that is not named here has to leave an image
# like its label.
INTENSITY = {
    "RandStaind",
    "RandScaleIntensityd",
    "RandShiftIntensityd",
    "ScaleIntensityRanged",
    "RandBiasFieldd",
    "RandGaussianSmoothd",
    "RandGaussianNoised",
    "RandAdjustContrastd",
    "RandHistogramShiftd",
    "RandCoarseDropoutd",
    "RandSimulateLowResolutiond",
    "RandScaleIntensityFixedMeand",
}
CONFIGS = REPOSITORY / "bundles"
OVERLAYS = {  # configs with an augmentation of their own: bundle, and path below its configs/
    (path.parts[0], "/".join(path.parts[2:]))
    for path in (path.relative_to(CONFIGS) for path in CONFIGS.glob("*/configs/**/*.yaml"))
    if "\nrandom_transforms:" in (CONFIGS / path).read_text() and path.name != "train.yaml"
}


def steps_of(bundle: str, overlay: str = "") -> tuple[ConfigParser, list[Any]]:
    """A bundle's training config, and the transforms of its augmentation that move voxels.

    With an overlay the augmentation is the overlay's.
    """
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / bundle / "configs" / "train.yaml"))
    if overlay:
        own = ConfigParser.load_config_file(str(CONFIGS / bundle / "configs" / overlay))
        mine = ("random_transforms", "plane_size", "image_dims")
        parser.update({name: own[name] for name in mine if name in own})
    if bundle == "ldseg_knee3d":
        parser["spatial_size"] = [64, 80, 56]  # as the others', which takes a fraction of the time
    steps = parser["random_transforms"]
    moving = [
        parser.get_parsed_content(f"random_transforms#{index}")
        for index, step in enumerate(steps)
        if isinstance(step, dict) and step["_target_"].split(".")[-1] not in INTENSITY
    ]
    return parser, moving


def painted(size: list[int], channels: int, classes: int) -> dict[str, MetaTensor]:
    """A label of boxes, each of another class, and an image of the classes as gray values."""
    label = torch.zeros(1, *size)
    for index in range(1, classes):
        label[
            (
                0,
                *[
                    slice(side * (index + 1 + axis) // 9, side * (index + 4) // 9)
                    for axis, side in enumerate(size)
                ],
            )
        ] = index
    return {
        "image": MetaTensor(label.repeat(channels, *[1] * len(size))),
        "label": MetaTensor(label.to(torch.uint8)),
    }


@pytest.mark.parametrize(
    ("bundle", "overlay"), [*((bundle, "") for bundle in sorted(TINY)), *sorted(OVERLAYS)]
)
def test_image_and_label_stay_together(bundle: str, overlay: str) -> None:
    parser, moving = steps_of(bundle, overlay)
    classes = parser["num_classes"]
    channels = parser.get_parsed_content("network_def").in_channels
    size = parser["spatial_size"] if "spatial_size" in parser else [522, 775]
    pair = painted(size, channels, classes)
    augment = Compose(moving).set_random_state(0)
    same, moved = [], 0
    for _ in range(12):
        draw = augment({key: value.clone() for key, value in pair.items()})
        image, label = draw["image"], draw["label"]
        assert image.shape[1:] == label.shape[1:] and label.shape[0] == 1
        shown = image[:1].round().clamp(0, classes - 1)
        either = (shown > 0) | (label > 0)
        if not either.any():  # a crop beside the boxes
            continue
        same.append(((shown == label) & either).sum().item() / either.sum().item())
        moved += not (label.shape == pair["label"].shape and torch.equal(label, pair["label"]))
    assert moved > 2
    assert min(same) > 0.75


def test_hippocampus_learns_to_do_without_slices() -> None:
    """Whole planes across each of the three axes are black in some draws, and the label stays."""
    parser, _ = steps_of("ldseg_hippocampus")
    others = parser["random_transforms"]
    configs = CONFIGS / "ldseg_hippocampus" / "configs"
    parser.read_config(
        [str(configs / name) for name in ("train.yaml", "ablations/missing_slices.yaml")]
    )
    assert parser["random_transforms"][: len(others)] == others
    steps = parser.get_parsed_content("random_transforms")
    losing = Compose([step for step in steps if isinstance(step, RandCoarseDropoutd)])
    losing.set_random_state(0)
    size, draws = parser["spatial_size"], 100
    lost_axes, clean = [], 0
    for _ in range(draws):
        draw = losing({"image": torch.zeros(1, *size), "label": torch.ones(1, *size)})
        assert draw["label"].all()
        lost = draw["image"][0] != 0
        planes = [
            lost.flatten(1).all(1),
            lost.transpose(0, 1).flatten(1).all(1),
            lost.all(0).all(0),
        ]
        per_axis = [int(plane.sum()) for plane in planes]
        lost_axes += [axis for axis, number in enumerate(per_axis) if number]
        assert max(per_axis) <= 12 and (per_axis != [0, 0, 0]) == bool(lost.any())
        clean += not lost.any()
    assert set(lost_axes) == {0, 1, 2}
    assert clean > draws / 2
