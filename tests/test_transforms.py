from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, Orientationd, Resized, SaveImaged
from scipy.spatial.transform import Rotation

from ldseg_monai.transforms import InvertLabeld, SplitPredictiond

SHAPE = (90, 104, 34)
SPACING = (0.8, 0.7, 3.0)

# SplitPredictiond


def prediction(channels: int, size: tuple[int, ...] = (4, 3, 5)) -> torch.Tensor:
    return torch.rand(channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(6, 5), (4, 3, 5)])
def test_logits_become_the_most_probable_class(size: tuple[int, ...]) -> None:
    logits = prediction(3, size) - 5
    result = SplitPredictiond("pred", 3)({"pred": logits, "name": "knee"})
    assert set(result) == {"pred", "name"}
    assert result["pred"].shape == (1, *size) and result["pred"].dtype == torch.uint8
    assert np.array_equal(result["pred"].numpy()[0], logits.numpy().argmax(axis=0))


@pytest.mark.parametrize("size", [(6, 5), (4, 3, 5)])
def test_ensemble_becomes_label_mean_and_sd(size: tuple[int, ...]) -> None:
    maps = prediction(4, size)
    maps[3] += 10  # the SD is no class, however large
    result = SplitPredictiond("pred", 3)({"pred": maps})
    assert np.array_equal(result["pred"].numpy()[0], maps[:3].numpy().argmax(axis=0))
    assert torch.equal(result["pred_mean"].as_tensor(), maps[:3])
    assert torch.equal(result["pred_sd"].as_tensor(), maps[3:])


def test_each_key_is_split_and_the_input_stays_as_it_was() -> None:
    data = {"a": MetaTensor(prediction(2)), "b": MetaTensor(prediction(3))}
    before = copy.deepcopy(data)
    result = SplitPredictiond(["a", "b"], 2)(data)
    assert set(result) == {"a", "b", "b_mean", "b_sd"}
    assert set(data) == {"a", "b"} and all(torch.equal(data[key], before[key]) for key in data)


@pytest.mark.parametrize("channels", [2, 5])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"pred has {channels} channels: expected 3 classes, one more for an ensemble"):
        SplitPredictiond("pred", 3)({"pred": prediction(channels)})


def test_missing_key_is_passed_over_only_if_allowed() -> None:
    assert SplitPredictiond("pred", 3, allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="pred"):
        SplitPredictiond("pred", 3)({"other": 1})


# InvertLabeld


def affine_of(oblique: bool, flips: tuple[int, int, int]) -> np.ndarray:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [8, -12, 5], degrees=True).as_matrix() if oblique else np.eye(3)
    permuted = np.eye(3)[[2, 0, 1]]  # the file's first axis points along another of the patient's
    affine[:3, :3] = rotation @ permuted @ np.diag(np.array(SPACING) * flips)
    affine[:3, 3] = [-31.5, 12.25, 100.125]
    return affine.astype(np.float32).astype(float)  # as a NIfTI file can hold it


@pytest.fixture(params=[(True, (-1, 1, -1)), (True, (1, 1, 1)), (False, (1, -1, 1))], ids=["oblique", "plain", "flip"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A NIfTI pair of an image and a label of two touching, curved structures."""
    positions = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in SHAPE], indexing="ij"))
    radius = np.sqrt((positions**2 * np.array([2.0, 1.6, 1.8]).reshape(3, 1, 1, 1)).sum(0))
    label = (radius < 0.9).astype(np.uint8)
    label[(radius < 0.9) & (positions[0] + 0.5 * positions[1] ** 2 > 0.15)] = 2
    image = label * 100.0 + np.random.default_rng(0).normal(0, 5, SHAPE)
    files = {}
    for name, volume in (("image", image.astype(np.float32)), ("label", label)):
        files[name] = str(tmp_path / f"knee_{name}.nii.gz")
        nib.save(nib.Nifti1Image(volume, affine_of(*request.param)), files[name])
    return files


def preprocess(case: dict[str, str], spatial_size: tuple[int, ...]) -> tuple[dict[str, Any], Compose]:
    """The image and, as a perfect network would predict it, the label in the image's resized geometry."""
    keys = ["image", "label"]
    transform = Compose(
        [
            LoadImaged(keys, ensure_channel_first=True),
            Orientationd(keys, axcodes="SPL", labels=None),
            Resized(keys, spatial_size=spatial_size, mode=["trilinear", "nearest-exact"]),
        ]
    )
    data = transform(case)
    return {"image": data["image"], "pred": MetaTensor(data["label"].as_tensor())}, transform


def dice(prediction: torch.Tensor, label: np.ndarray, index: int) -> float:
    a, b = prediction.numpy()[0] == index, label == index
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("spatial_size", [(125, 81, 37), (94, 135, 26), (112, 112, 36)])
def test_label_comes_back_to_the_files_geometry_better_than_with_monais_invertd(
    case: dict[str, str], spatial_size: tuple[int, ...]
) -> None:
    data, transform = preprocess(case, spatial_size)
    theirs = Invertd("pred", transform, orig_keys="image", nearest_interp=True)(dict(data))["pred"]
    ours = InvertLabeld("pred", transform)(data)["pred"]
    file = nib.load(case["label"])
    label = np.asarray(file.dataobj)
    assert ours.shape == (1, *SHAPE) and ours.dtype == torch.uint8
    np.testing.assert_allclose(ours.affine.numpy(), file.affine, rtol=0, atol=1e-12)
    for index in (1, 2):
        assert dice(ours, label, index) > 0.97
        assert dice(ours, label, index) > dice(theirs, label, index)


def test_label_in_the_same_grid_comes_back_without_a_change(case: dict[str, str]) -> None:
    oriented = LoadImaged("image", ensure_channel_first=True)(case)
    size = Orientationd("image", axcodes="SPL", labels=None)(oriented)["image"].shape[1:]
    data, transform = preprocess(case, tuple(size))
    restored = InvertLabeld("pred", transform)(data)["pred"]
    assert np.array_equal(restored.numpy()[0], np.asarray(nib.load(case["label"]).dataobj))


def test_inverting_leaves_its_input_and_the_image_as_they_were(case: dict[str, str]) -> None:
    data, transform = preprocess(case, (112, 112, 36))
    before, operations = copy.deepcopy(data), str(data["image"].applied_operations)
    result = InvertLabeld("pred", transform)(data)
    assert set(data) == {"image", "pred"}
    assert str(data["image"].applied_operations) == operations
    assert result["image"] is data["image"]
    for key, value in data.items():
        assert torch.equal(value, before[key]) and torch.equal(value.affine, before[key].affine)


@pytest.mark.parametrize("spatial_size", [(125, 81, 37), (94, 135, 26), (112, 112, 36)])
def test_inverted_label_is_saved_with_the_very_affine_of_the_image(case, spatial_size, tmp_path: Path) -> None:
    data, transform = preprocess(case, spatial_size)
    result = InvertLabeld("pred", transform)(data)
    save = SaveImaged("pred", output_dir=tmp_path, output_dtype=torch.uint8, separate_folder=False, print_log=False)
    save(result)
    saved, file = nib.load(tmp_path / "knee_image_trans.nii.gz"), nib.load(case["label"])
    assert saved.shape == SHAPE and saved.get_data_dtype() == np.uint8
    assert np.array_equal(saved.affine, file.affine)
    assert np.array_equal(np.asarray(saved.dataobj), result["pred"].numpy()[0])


def test_split_and_invert_bring_every_map_of_an_ensemble_back(case: dict[str, str]) -> None:
    data, transform = preprocess(case, (94, 135, 26))
    one_hot = torch.cat([data["pred"] == index for index in range(3)]).float().as_tensor()
    data["pred"] = torch.cat([one_hot, torch.full_like(one_hot[:1], 0.25)])
    split = SplitPredictiond("pred", 3)(data)
    maps = Invertd(["pred_mean", "pred_sd"], transform, orig_keys="image", nearest_interp=False)
    result = maps(InvertLabeld("pred", transform)(split))
    file = nib.load(case["label"])
    assert dice(result["pred"], np.asarray(file.dataobj), 2) > 0.97
    assert result["pred_mean"].shape == (3, *SHAPE) and result["pred_sd"].shape == (1, *SHAPE)
    for name in ("pred_mean", "pred_sd"):
        np.testing.assert_allclose(result[name].affine.numpy(), file.affine)
    torch.testing.assert_close(result["pred_sd"].as_tensor(), torch.full((1, *SHAPE), 0.25))
