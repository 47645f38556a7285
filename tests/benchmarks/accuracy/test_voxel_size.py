from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import small_networks as networks
import torch
from small_data import write_cuts

from benchmarks.accuracy.voxel_size import VoxelSizes, write_resampled
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import paired_datalist

ROOT = Path(__file__).parents[3]


def test_resampled_case_is_in_its_place(tmp_path: Path) -> None:
    write_cuts(tmp_path / "data", 3, num=1)
    (case,) = paired_datalist(tmp_path / "data")
    paths = write_resampled(case, 2.0, tmp_path)
    image, label = (nib.load(paths[key]) for key in ("image", "label"))
    np.testing.assert_allclose(image.header.get_zooms(), [2, 2, 2], atol=0.05)
    assert image.shape == label.shape and set(np.unique(label.dataobj)) <= {0, 1, 2}
    middle = [
        nib.affines.apply_affine(volume.affine, (np.array(volume.shape) - 1) / 2)
        for volume in (image, nib.load(case["image"]))
    ]
    np.testing.assert_allclose(*middle, atol=2)


def test_every_score_is_there(tmp_path: Path) -> None:
    write_cuts(tmp_path / "data", 3, num=1)
    (case,) = paired_datalist(tmp_path / "data")
    overrides = {**networks.SMALL["ldseg_hippocampus"], "spatial_size": [32, 24, 28], "amp": False}
    bundle = Bundle(ROOT / "bundles" / "ldseg_hippocampus")
    torch.manual_seed(0)
    config = bundle.config("train.yaml", **overrides)
    weights = tmp_path / "model.pt"
    torch.save(config.get_parsed_content("network_def").state_dict(), weights)
    row = VoxelSizes(bundle, weights, **overrides).row(case, 1.5)
    assert list(row) == ["Dice", "as it is", "limit"]
    assert row["limit"] == pytest.approx(1, abs=0.1)
    assert all(0 <= value <= 1 for value in row.values())
