"""Reading and checking in one step, on files whose content is known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, Orientationd
from PIL import Image

from ldseg_monai.data import LoadImagePictured, LoadImageVolumed, SaveImagePictured

VOLUME = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def volume(tmp_path: Path) -> dict[str, str]:
    """An image, and a label with the values 0, 3 and 7."""
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")}
    label = np.zeros((2, 3, 4), np.int16)
    label[0, 0] = [0, 3, 7, 7]
    for name, values in (("image", VOLUME), ("label", label)):
        nib.save(nib.Nifti1Image(values, np.diag([-2.0, 1, 1, 1])), paths[name])
    return paths


@pytest.fixture
def picture(tmp_path: Path) -> dict[str, str]:
    """A picture of 4 columns and 3 rows in colors, and a label with the numbers of two glands."""
    colors = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    glands = np.array([[0, 1, 1, 0], [0, 0, 2, 2], [0, 0, 0, 0]], np.uint8)
    paths = {name: str(tmp_path / f"{name}.png") for name in ("image", "label")}
    Image.fromarray(colors).save(paths["image"])
    Image.fromarray(glands).save(paths["label"])
    return paths


def test_values_of_label_files_become_classes_in_bytes(volume: dict[str, str]) -> None:
    load = LoadImageVolumed(["image", "label"], num_classes=3, label_values=[0, 3, 7])
    case = load(volume)
    assert torch.equal(case["image"].as_tensor(), torch.from_numpy(VOLUME)[None])
    assert case["label"].dtype == torch.uint8
    assert case["label"][0, 0, 0].tolist() == [0, 1, 2, 2] and case["label"].sum() == 5


def test_a_value_that_is_no_class_is_refused(volume: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="has the values 3, 7: expected only classes, 0 to 2"):
        LoadImageVolumed(["image", "label"], num_classes=3)(volume)


def test_whatever_is_not_0_is_the_class_where_labels_are_instances(picture: dict[str, str]) -> None:
    case = LoadImagePictured(["image", "label"], num_classes=2, instances=True)(picture)
    assert case["image"].shape == (3, 4, 3) and case["image"].dtype == torch.float32
    assert case["label"].dtype == torch.uint8
    assert case["label"][0].T.tolist() == [[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_pictures_have_the_channels_of_the_mode(
    picture: dict[str, str], mode: str, channels: int
) -> None:
    assert LoadImagePictured("image", mode=mode)(picture)["image"].shape[0] == channels


def test_an_image_of_other_channels_or_without_contrast_is_refused(
    volume: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="has 1 channels: expected 2"):
        LoadImageVolumed("image", channels=2)(volume)
    blank = str(tmp_path / "blank.png")
    Image.new("RGB", (5, 5), "white").save(blank)
    with pytest.raises(ValueError, match="every voxel of .* is 255"):
        LoadImagePictured("image")({"image": blank})
    assert LoadImagePictured("image", allow_constant=True)({"image": blank})["image"].min() == 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "without num_classes: expected the number of classes"),
        ({"num_classes": 2, "label_values": [0, 3], "instances": True}, "expected one of them"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    for kind in (LoadImageVolumed, LoadImagePictured):
        with pytest.raises(ValueError, match=message):
            kind(["image", "label"], **arguments)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode 'CMYK': expected one of RGB, L, I"):
        LoadImagePictured("image", mode="CMYK")


def test_clients_know_it_as_what_reads_files() -> None:
    # MONAI Deploy by the class's name, MONAI Label by its kind and keys
    for load in (LoadImageVolumed("image"), LoadImagePictured("image")):
        assert isinstance(load, LoadImaged) and "LoadImage" in type(load).__name__
        assert load.keys == ("image",)


def test_what_comes_after_it_can_be_inverted(volume: dict[str, str]) -> None:
    steps = Compose([LoadImageVolumed("image"), Orientationd("image", "RAS", labels=None)])
    case = steps(volume)
    assert not torch.equal(case["image"].as_tensor(), torch.from_numpy(VOLUME)[None])
    case["pred"] = MetaTensor(case["image"].as_tensor())
    back = Invertd("pred", steps, orig_keys="image")(case)["pred"]
    assert torch.equal(back.as_tensor(), torch.from_numpy(VOLUME)[None])


def test_it_reads_in_a_worker_of_a_loader(picture: dict[str, str]) -> None:
    load = LoadImagePictured(["image", "label"], num_classes=3)
    (batch,) = DataLoader(Dataset([picture], load), num_workers=1)
    assert batch["label"].unique().tolist() == [0, 1, 2]


def test_nothing_warns_of_a_codec_that_nobody_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoadImageVolumed(["image", "label"], num_classes=2, dicom=True)


@pytest.mark.parametrize(("mean", "written"), [([0.4, 0.6], 0.6), ([0.5, 0.25, 0.25], 0.5)])
def test_mean_of_a_picture_is_written_as_the_probability_of_any_class(
    tmp_path: Path, mean: list[float], written: float
) -> None:
    meta = {"filename_or_obj": "slide.png"}
    maps = {
        "pred": MetaTensor(torch.ones(1, 4, 5), meta=meta),
        "pred_mean": MetaTensor(torch.tensor(mean)[:, None, None].expand(-1, 4, 5), meta=meta),
        "pred_sd": MetaTensor(torch.full((1, 4, 5), 0.5), meta=meta),
    }
    SaveImagePictured("pred", str(tmp_path))(maps)
    for name, value in (("label", 1), ("mean", int(255 * written)), ("sd", 127)):
        assert (np.asarray(Image.open(tmp_path / f"slide_{name}.png")) == value).all()
