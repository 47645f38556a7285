from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Invertd,
    KeepLargestConnectedComponentd,
    LoadImaged,
    Orientationd,
    Resized,
    SaveImaged,
    Spacingd,
)
from scipy.spatial.transform import Rotation

from ldseg_monai.data.transforms import ClassIndicesd, RandStaind, VoxelSpacingd
from ldseg_monai.inference.postprocessing import (
    DropSmallObjectsd,
    InvertLabeld,
    SplitPredictiond,
    SummarizeUncertaintyd,
)
from ldseg_monai.runtime.errors import InputError

SHAPE = (90, 104, 34)
SPACING = (0.8, 0.7, 3.0)

# ClassIndicesd


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int16])
def test_label_values_become_indices(dtype: torch.dtype) -> None:
    label = MetaTensor(torch.tensor([[[0, 3, 7], [7, 3, 0]]], dtype=dtype), affine=2 * torch.eye(4))
    result = ClassIndicesd("label", [0, 3, 7])({"label": label, "name": "a"})["label"]
    assert result.tolist() == [[[0, 1, 2], [2, 1, 0]]]
    assert torch.equal(result.affine, label.affine) and label.max() == 7


@pytest.mark.parametrize("value", [1, 5, 9])
def test_value_that_is_no_class_is_refused(value: int) -> None:
    label = MetaTensor(torch.tensor([[[0, 3, value]]]), meta={"filename_or_obj": "labels/a.png"})
    with pytest.raises(
        ValueError, match=rf"labels/a.png has the values \[{value}\]: expected only \[0, 3, 7\]"
    ):
        ClassIndicesd("label", [0, 3, 7])({"label": label})


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


@pytest.mark.parametrize("size", [(6, 5), (4, 3, 5)])
def test_samples_that_were_kept_are_beside_the_maps(size: tuple[int, ...]) -> None:
    maps = prediction(3 + 1 + 2 * 3, size)
    result = SplitPredictiond("pred", 3)({"pred": maps})
    assert list(result) == ["pred", "pred_mean", "pred_sd", "pred_samples"]
    assert np.array_equal(result["pred"].numpy()[0], maps[:3].numpy().argmax(axis=0))
    parts = [result[f"pred_{part}"].as_tensor() for part in ("mean", "sd", "samples")]
    assert torch.equal(torch.cat(parts), maps) and len(parts[1]) == 1 and len(parts[2]) == 6


def test_each_key_is_split_and_the_input_stays_as_it_was() -> None:
    data = {"a": MetaTensor(prediction(2)), "b": MetaTensor(prediction(3))}
    before = copy.deepcopy(data)
    result = SplitPredictiond(["a", "b"], 2)(data)
    assert set(result) == {"a", "b", "b_mean", "b_sd"}
    assert set(data) == {"a", "b"} and all(torch.equal(data[key], before[key]) for key in data)


@pytest.mark.parametrize("channels", [2, 5, 7, 9])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(
        ValueError,
        match=f"pred has {channels} channels: expected 3 classes, one more for an ensemble",
    ):
        SplitPredictiond("pred", 3)({"pred": prediction(channels)})


def test_label_that_the_inferer_has_chosen_stays() -> None:
    label = torch.randint(3, (1, 4, 5), dtype=torch.uint8)
    result = SplitPredictiond("pred", 3)({"pred": label})
    assert list(result) == ["pred"] and isinstance(result["pred"], MetaTensor)
    assert torch.equal(result["pred"].as_tensor(), label)
    with pytest.raises(ValueError, match="1 channels: expected 3"):
        SplitPredictiond("pred", 3)({"pred": label.float()})


def test_missing_key_is_passed_over_only_if_allowed() -> None:
    assert SplitPredictiond("pred", 3, allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="pred"):
        SplitPredictiond("pred", 3)({"other": 1})


# InvertLabeld


def affine_of(oblique: bool, flips: tuple[int, int, int]) -> np.ndarray:
    affine = np.eye(4)
    rotation = (
        Rotation.from_euler("xyz", [8, -12, 5], degrees=True).as_matrix() if oblique else np.eye(3)
    )
    permuted = np.eye(3)[[2, 0, 1]]  # the file's first axis points along another of the patient's
    affine[:3, :3] = rotation @ permuted @ np.diag(np.array(SPACING) * flips)
    affine[:3, 3] = [-31.5, 12.25, 100.125]
    return affine.astype(np.float32).astype(float)  # as a NIfTI file can hold it


@pytest.fixture(
    params=[(True, (-1, 1, -1)), (True, (1, 1, 1)), (False, (1, -1, 1))],
    ids=["oblique", "plain", "flip"],
)
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


def preprocess(
    case: dict[str, str], spatial_size: tuple[int, ...]
) -> tuple[dict[str, Any], Compose]:
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
def test_inverted_label_is_saved_with_the_very_affine_of_the_image(
    case, spatial_size, tmp_path: Path
) -> None:
    data, transform = preprocess(case, spatial_size)
    result = InvertLabeld("pred", transform)(data)
    save = SaveImaged(
        "pred",
        output_dir=tmp_path,
        output_dtype=torch.uint8,
        separate_folder=False,
        print_log=False,
    )
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


# DropSmallObjectsd


def test_pieces_below_the_smallest_are_background_whatever_their_class() -> None:
    label = torch.zeros(1, 6, 8, dtype=torch.uint8)
    label[0, :2, :2] = 1  # 4 pixels
    label[0, 2, 2] = 1  # which touches them at a corner alone
    label[0, 0, 2:4] = 2  # beside class 1
    label[0, 4:, 5:] = 2  # 6 pixels
    label[0, 5, 6] = 1  # in it
    given = MetaTensor(label, meta={"filename_or_obj": "a.png"})
    expected = label.clone()
    expected[0, 2, 2] = expected[0, 5, 6] = 0
    expected[0, 0, 2:4] = 0
    dropped = DropSmallObjectsd("pred", 3)({"pred": given})["pred"]
    assert torch.equal(dropped.as_tensor(), expected) and dropped.dtype == torch.uint8
    assert dropped.meta["filename_or_obj"] == "a.png"
    assert torch.equal(given.as_tensor(), label)
    assert DropSmallObjectsd("pred", 1)({"pred": given})["pred"] is given


def test_each_class_has_its_own_smallest_piece() -> None:
    label = torch.zeros(1, 5, 9, dtype=torch.uint8)
    label[0, 0, :3], label[0, 2, :2] = 1, 1  # pieces of 3 and 2 pixels
    label[0, 0, 4:7], label[0, 2, 4:6] = 2, 2
    label[0, 4, 4] = 3
    dropped = DropSmallObjectsd("pred", [3, 1, 2])({"pred": label})["pred"]
    expected = label.clone()
    expected[0, 2, :2] = expected[0, 4, 4] = 0
    assert torch.equal(dropped, expected)
    with pytest.raises(InputError, match="2 numbers and the label map class 3: expected one for"):
        DropSmallObjectsd("pred", [3, 1])({"pred": label})


def test_of_some_classes_the_largest_piece_alone_stays() -> None:
    label = torch.zeros(1, 6, 9, dtype=torch.uint8)
    label[0, 0, :3], label[0, 2, :2], label[0, 3, 2] = 1, 1, 1  # the last two touch at a corner
    label[0, 0, 4:7], label[0, 2, 4:7], label[0, 4, 4:6] = 2, 2, 2  # the first two are equal
    label[0, 5, 8], label[0, 0, 8] = 3, 3
    dropped = DropSmallObjectsd("pred", largest_only=[1, 2])({"pred": label})["pred"]
    expected = label.clone()
    expected[0, 2:5, :7] = 0
    assert torch.equal(dropped, expected)
    too_small = DropSmallObjectsd("pred", [4, 1, 1], largest_only=[1])({"pred": label})["pred"]
    assert not (too_small == 1).any() and torch.equal(too_small > 1, label > 1)


def test_largest_pieces_are_monais() -> None:
    pytest.importorskip("skimage.measure")
    label = torch.randint(0, 4, (1, 7, 8, 9), generator=torch.Generator().manual_seed(3))
    label = label.to(torch.uint8)
    for classes in ([1], [1, 3]):
        theirs = KeepLargestConnectedComponentd("pred", classes, False, connectivity=1)
        dropped = DropSmallObjectsd("pred", largest_only=classes)({"pred": label})["pred"]
        assert torch.equal(dropped, theirs({"pred": label.clone()})["pred"])
        assert (dropped != label).any()


def test_what_stays_are_the_larger_regions_of_each_class() -> None:
    measure = pytest.importorskip("skimage.measure")
    label = torch.randint(0, 3, (1, 9, 10, 11), generator=torch.Generator().manual_seed(0))
    label = label.to(torch.uint8)
    dropped = DropSmallObjectsd("pred", 5)({"pred": label})["pred"]
    assert 0 < (dropped != label).sum() < (label > 0).sum()
    for index in (1, 2):
        regions = measure.regionprops(measure.label((label[0] == index).numpy(), connectivity=1))
        sizes = [int(region.area) for region in regions]
        assert int((dropped == index).sum()) == sum(size for size in sizes if size >= 5)
        large = [tuple(region.coords[0]) for region in regions if region.area >= 5]
        assert all(dropped[0][place] == index for place in large)


# RandStaind

HEMATOXYLIN, EOSIN, REST = STAINS = [  # Ruifrok and Johnston, 2001, as vectors of length 1
    np.array(absorption) / np.linalg.norm(absorption)
    for absorption in ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
]


class FixedStain(RandStaind):
    """Scales and shifts by what it is told."""

    def __init__(
        self, scale: tuple[float, ...] = (1, 1, 1), shift: tuple[float, ...] = (0, 0, 0)
    ) -> None:
        super().__init__("image")
        self.told = scale, shift

    def randomize(self, data: Any = None) -> None:
        self._do_transform = True
        self.scale, self.shift = self.told


def picture(size: tuple[int, ...] = (6, 5), low: float = 0, high: float = 255) -> torch.Tensor:
    return low + (high - low) * torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


def density(rgb: torch.Tensor) -> np.ndarray:
    """Optical density of each pixel, ``(pixels, 3)``."""
    return -np.log((rgb.double().numpy().reshape(3, -1).T + 1) / 256)


def stained(amounts: np.ndarray) -> torch.Tensor:
    """Picture ``(3, pixels, 1)`` of amounts of hematoxylin, eosin and rest, ``(pixels, 3)``."""
    return torch.from_numpy(256 * np.exp(-amounts @ np.array(STAINS)) - 1).T[..., None]


def test_stain_of_scale_1_and_shift_0_is_the_picture() -> None:
    rgb = picture((32, 32)).round()
    for transform in (FixedStain(), RandStaind("image", prob=1.0, sigma=0.0)):
        torch.testing.assert_close(transform({"image": rgb})["image"], rgb, rtol=0, atol=0.05)
    every = torch.arange(256.0).expand(3, 256)
    assert torch.equal(FixedStain()({"image": every})["image"].round(), every)


def test_stain_without_probability_leaves_the_very_data() -> None:
    data = {"image": MetaTensor(picture()), "label": torch.zeros(1)}
    result = RandStaind("image", prob=0.0)(data)
    assert all(result[key] is data[key] for key in data)


@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        ((1.1, 1, 1), (0, 0, 0)),
        ((0.9, 1.2, 1.05), (0, 0, 0)),
        ((1, 1, 1), (0.1, 0, 0)),
        ((0.8, 1.1, 1), (0.05, 0.1, 0.02)),
    ],
)
def test_each_stain_is_scaled_and_shifted_by_its_own_numbers(scale: tuple, shift: tuple) -> None:
    amounts = np.random.default_rng(0).uniform(0, 0.9, (40, 3))
    result = FixedStain(scale, shift)({"image": stained(amounts)})["image"]
    expected = stained(amounts * scale + shift)
    assert expected.min() > 0 and expected.max() < 255
    np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=0, atol=0.01)


@pytest.mark.parametrize("factor", [0.7, 0.9, 1.2])
def test_stains_scaled_alike_scale_the_optical_density(factor: float) -> None:
    rgb = picture((20, 20), high=254)
    result = FixedStain((factor,) * 3)({"image": rgb})["image"]
    expected = factor * density(rgb)
    unclipped = 256 * np.exp(-expected) - 1 > 0.1
    assert 0.9 < unclipped.mean()
    np.testing.assert_allclose(
        density(result)[unclipped], expected[unclipped], rtol=1e-3, atol=1e-5
    )
    assert (result.numpy().reshape(3, -1).T[~unclipped] < 0.2).all()


@pytest.mark.parametrize("stain", range(3), ids=["hematoxylin", "eosin", "rest"])
def test_one_stains_factor_moves_the_optical_density_in_its_direction_by_its_amount(
    stain: int,
) -> None:
    rgb = picture((20, 20), low=80, high=200)
    scale = np.ones(3)
    scale[stain] = 1.2
    result = FixedStain(tuple(scale))({"image": rgb})["image"]
    assert 0 < result.min() and result.max() < 255
    moved = density(result) - density(rgb)
    amounts = np.linalg.solve(np.array(STAINS).T, density(rgb).T)[stain]
    np.testing.assert_allclose(moved, 0.2 * amounts[:, None] * STAINS[stain], rtol=0, atol=1e-4)
    assert np.abs(moved).max() > 0.05


def test_picture_of_one_stain_alone_does_not_change_with_another() -> None:
    amounts = np.outer(np.linspace(0, 2, 30), [0, 1, 0])
    rgb = stained(amounts)
    result = FixedStain((0.5, 1, 1.5))({"image": rgb})["image"]
    np.testing.assert_allclose(result.numpy(), rgb.numpy(), rtol=0, atol=0.01)
    assert np.abs((FixedStain((1, 1.1, 1))({"image": rgb})["image"] - rgb).numpy()).max() > 5


@pytest.mark.parametrize("size", [(6, 5), (4, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_stained_picture_keeps_its_shape_range_and_metadata(
    size: tuple[int, ...], dtype: torch.dtype
) -> None:
    rgb = picture(size)
    rgb.flatten()[:10] = torch.tensor([0.0, 255.0]).repeat(5)
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    image = MetaTensor(rgb.to(dtype), affine=affine, meta={"filename_or_obj": "tissue.png"})
    before, label = image.clone(), torch.ones(1, *size)
    data = {"image": image, "label": label}
    transform = RandStaind("image", prob=1.0, sigma=0.5).set_random_state(seed=0)
    for _ in range(20):
        result = transform(data)
        assert result["image"].shape == (3, *size) and result["image"].dtype == torch.float32
        assert result["image"].min() >= 0 and result["image"].max() <= 255
        assert result["image"].meta["filename_or_obj"] == "tissue.png"
        assert torch.equal(result["image"].affine, affine)
        assert result["label"] is label
        assert torch.equal(data["image"], before)


def test_stain_follows_from_the_seed() -> None:
    rgb = picture()

    def run(seed: int) -> list[torch.Tensor]:
        transform = RandStaind("image", prob=0.5).set_random_state(seed=seed)
        return [transform({"image": rgb})["image"] for _ in range(40)]

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(one, same) for one, same in zip(first, again, strict=True))
    assert any(not torch.equal(one, different) for one, different in zip(first, other, strict=True))
    changed = [one for one in first if one is not rgb]
    assert 10 < len(changed) < 30
    assert len({str(one) for one in changed}) == len(changed)


@pytest.mark.parametrize("sigma", [0.05, 0.15])
def test_amounts_change_by_up_to_sigma(sigma: float) -> None:
    rgb = picture((4, 4), low=80, high=120)
    transform = RandStaind("image", prob=1.0, sigma=sigma).set_random_state(seed=0)
    before = np.linalg.solve(np.array(STAINS).T, density(rgb).T)
    scales, shifts = [], []
    for _ in range(100):
        after = np.linalg.solve(np.array(STAINS).T, density(transform({"image": rgb})["image"]).T)
        fits = [np.polyfit(before[stain], after[stain], 1) for stain in range(3)]
        scales.append([fit[0] for fit in fits])
        shifts.append([fit[1] for fit in fits])
    for numbers, center in ((np.array(scales), 1), (np.array(shifts), 0)):
        assert np.abs(numbers - center).max() <= sigma + 1e-3
        assert (np.ptp(numbers, axis=0) > 1.8 * sigma).all()
        assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 0.35


def test_pictures_of_one_case_are_stained_alike() -> None:
    rgb = picture()
    result = RandStaind(["a", "b"], prob=1.0)({"a": rgb, "b": rgb.clone()})
    assert torch.equal(result["a"], result["b"]) and not torch.equal(result["a"], rgb)


@pytest.mark.parametrize("channels", [1, 4])
def test_stain_of_a_picture_without_three_channels_is_refused(channels: int) -> None:
    with pytest.raises(
        ValueError, match=f"image has {channels} channels: expected red, green and blue"
    ):
        RandStaind("image", prob=1.0)({"image": torch.zeros(channels, 4, 4)})


def test_missing_picture_is_passed_over_only_if_allowed() -> None:
    assert RandStaind("image", prob=1.0, allow_missing_keys=True)({"other": 1}) == {"other": 1}
    with pytest.raises(KeyError, match="image"):
        RandStaind("image", prob=1.0)({"other": 1})


# SummarizeUncertaintyd


def test_uncertainty_of_an_ensemble_is_among_the_results() -> None:
    label = torch.ones(1, 2, 2, dtype=torch.uint8)
    data = {
        "pred": label,
        "pred_sd": MetaTensor(torch.tensor([[[0.1, 0.2], [0.3, 0.0]]])),
        "result": {"other": 1},
    }
    result = SummarizeUncertaintyd("pred")(data)
    assert result["result"] == {"other": 1, "uncertainty": pytest.approx(0.15)}
    assert json.dumps(result["result"])  # as a client sends it
    assert data["result"] == {"other": 1}


def test_one_sample_says_nothing_of_uncertainty() -> None:
    data = {"pred": torch.ones(1, 2, 2)}
    assert set(SummarizeUncertaintyd("pred")(data)) == {"pred"}


# VoxelSpacingd


def volume() -> MetaTensor:
    image = torch.rand(1, 12, 10, 9, generator=torch.Generator().manual_seed(0))
    return MetaTensor(
        image, affine=affine_of(True, (1, -1, 1)), meta={"filename_or_obj": "knee.nii.gz"}
    )


def test_voxel_size_is_what_spacingd_makes_of_it_and_inverts_alike() -> None:
    ours, theirs = (
        VoxelSpacingd("image", (1.0, 0.9, 2.0)),
        Spacingd("image", (1.0, 0.9, 2.0), mode="bilinear"),
    )
    one, other = ours({"image": volume()}), theirs({"image": volume()})
    assert torch.equal(one["image"], other["image"]) and torch.equal(
        one["image"].affine, other["image"].affine
    )
    back, expected = ours.inverse(one)["image"], theirs.inverse(other)["image"]
    assert torch.equal(back, expected) and back.shape == volume().shape
    torch.testing.assert_close(back.affine, volume().affine)


def test_voxel_size_stands_what_monai_label_puts_beside_an_image() -> None:
    data = {"image": volume(), "image_path": "/data/knee.nii.gz"}
    with pytest.raises(AttributeError, match="'str' object has no attribute 'update'"):
        Spacingd("image", (1.0, 0.9, 2.0))(data)
    assert VoxelSpacingd("image", (1.0, 0.9, 2.0))(data)["image_path"] == "/data/knee.nii.gz"
