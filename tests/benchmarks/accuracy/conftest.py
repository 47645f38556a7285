"""A small bundle with data, which several programs are run on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from small_bundles import write_config
from small_networks import SMALL_HIPPOCAMPUS

from ldseg_monai.data.trained_cases import TrainedCases

BUNDLE = "ldseg_hippocampus"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small volumes of noise around a bright and a dark slab; the last exceeds the window."""
    folder = tmp_path_factory.mktemp("data")
    for index, length in enumerate((16, 16, 20)):
        label = np.zeros((16, length, 16), dtype=np.uint8)
        label[4:8, 3:-3, 2:-2], label[8:12, 3:-3, 2 + index :] = 1, 2
        image = (
            np.random.default_rng(index).normal(size=label.shape)
            + 3 * (label == 1)
            - 3 * (label == 2)
        )
        for kind, volume in (("images", image.astype(np.float32)), ("labels", label)):
            (folder / kind).mkdir(exist_ok=True)
            nib.save(
                nib.Nifti1Image(volume, np.diag([1.0, 2.0, 1.0, 1.0])),
                folder / kind / f"case{index}.nii.gz",
            )
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hippocampus bundle, small, with untrained weights of LDSeg and of its UNet."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    small = {**SMALL_HIPPOCAMPUS, "spatial_size": [16, 16, 16], "amp": False, "mirror_axes": [0]}
    small["network_def#label_decoder#image_channels"] = small["network_def#image_encoder#channels"]
    write_config(folder, BUNDLE, "train.yaml", small)
    write_config(folder, BUNDLE, "evaluate.yaml", {})
    write_config(folder, BUNDLE, "baselines/unet.yaml", {"network_def#channels": [4, 8, 16]})
    (folder / "configs" / "metadata.json").write_text("{}")
    for weights, files in (
        ("models/model.pt", ["train.yaml"]),
        ("unet.pt", ["train.yaml", "baselines/unet.yaml"]),
    ):
        parser = ConfigParser()
        parser.read_config([str(folder / "configs" / name) for name in files])
        (folder / weights).parent.mkdir(exist_ok=True)
        torch.manual_seed(0)
        torch.save(parser.get_parsed_content("network_def").state_dict(), folder / weights)
        TrainedCases(frozenset({("case0", "")})).write(folder / weights)
    return folder
