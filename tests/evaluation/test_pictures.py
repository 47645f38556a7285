from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from PIL import Image
from scipy.ndimage import minimum_filter

from ldseg_monai.evaluation.pictures import (
    COLORS,
    HEAT,
    TRUTH,
    _eroded,
    fullest_plane,
    heat,
    label_map,
    load_image,
    overlay,
    sd_map,
    upright,
)


def image(channels: int, *size: int) -> torch.Tensor:
    return torch.rand(channels, *size, generator=torch.Generator().manual_seed(0)) * 200


def square(start: int, side: int, index: int = 1, size: tuple[int, ...] = (20, 30)) -> torch.Tensor:
    classes = torch.zeros(1, *size, dtype=torch.uint8)
    classes[(0, *[slice(start, start + side)] * len(size))] = index
    return classes


def outline_of(start: int, side: int) -> np.ndarray:
    inner = np.zeros((20, 30), bool)
    inner[start : start + side, start : start + side] = True
    inner[start + 1 : start + side - 1, start + 1 : start + side - 1] = False
    return inner


def has_color(picture: np.ndarray, color: np.ndarray) -> np.ndarray:
    return (picture == color).all(axis=-1)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_outline_in_2d_has_the_color_of_its_class_and_nothing_else_is_drawn(
    index: int, channels: int
) -> None:
    background = overlay(image(channels, 20, 30), square(0, 0), height=20)
    picture = overlay(image(channels, 20, 30), square(4, 8, index), height=20)
    assert picture.shape == (20, 30, 3) and picture.dtype == np.uint8
    outline = outline_of(4, 8)
    assert has_color(picture, COLORS[index - 1])[outline].all()
    assert np.array_equal(picture[~outline], background[~outline])


def test_true_label_is_white_under_the_prediction() -> None:
    picture = overlay(image(1, 20, 30), square(4, 8), square(7, 10), height=20)
    predicted, true = outline_of(4, 8), outline_of(7, 10)
    assert has_color(picture, COLORS[0])[predicted].all()
    assert has_color(picture, TRUTH)[true & ~predicted].all()


def test_three_channels_are_shown_in_color_and_others_as_the_first_in_gray() -> None:
    empty = square(0, 0)
    rgb = image(3, 20, 30)
    assert np.ptp(overlay(rgb, empty, height=20), axis=-1).max() > 50
    correlation = np.corrcoef(
        overlay(rgb, empty, height=20).reshape(-1), rgb.movedim(0, -1).reshape(-1)
    )
    assert correlation[0, 1] > 0.99
    gray = overlay(image(2, 20, 30), empty, height=20)
    assert np.ptp(gray, axis=-1).max() == 0
    assert np.array_equal(gray, overlay(image(2, 20, 30)[:1], empty, height=20))


def test_picture_is_scaled_to_its_height() -> None:
    picture = overlay(image(1, 20, 30), square(4, 8), square(6, 8), height=80)
    assert picture.shape == (80, 120, 3)
    outline = has_color(picture, COLORS[0])
    assert outline[16, 16:48].all() and outline[47, 16:48].all() and not outline[20:44, 20:44].any()


@pytest.mark.parametrize("labeled", [False, True])
def test_volume_is_cut_in_three_planes_through_the_middle_of_the_label(labeled: bool) -> None:
    size = (16, 20, 24)
    volume, prediction, label = image(1, *size), square(2, 4, 1, size), square(10, 5, 1, size)
    picture = overlay(volume, prediction, label if labeled else None, height=48)
    center = 12 if labeled else 4  # of 10 to 14, or of 2 to 5, rounded to even
    planes = [
        tuple(
            part.select(axis, center)
            for part in (volume, prediction, *([label] if labeled else []))
        )
        for axis in (1, 2, 3)
    ]
    panels = [overlay(*plane, height=48) for plane in planes]
    assert [panel.shape[1] for panel in panels] == [
        58,
        72,
        60,
    ]  # 20 x 24, 16 x 24 and 16 x 20 at a height of 48
    assert np.array_equal(picture, np.concatenate(panels, axis=1))
    assert has_color(picture, TRUTH if labeled else COLORS[0]).sum() > 100


@pytest.mark.parametrize("size", [(20, 30), (8, 10, 12)])
@pytest.mark.parametrize("labeled", [False, True])
def test_empty_prediction_and_label_leave_the_image(size: tuple[int, ...], labeled: bool) -> None:
    empty = torch.zeros(1, *size, dtype=torch.uint8)
    picture = overlay(image(3, *size), empty, empty if labeled else None, height=40)
    assert picture.shape[0] == 40 and picture.dtype == np.uint8
    assert not has_color(picture, COLORS[0]).any()


def test_label_without_a_prediction_is_drawn() -> None:
    picture = overlay(image(1, 20, 30), square(0, 0), square(4, 8), height=20)
    assert has_color(picture, TRUTH)[outline_of(4, 8)].all()


def test_flat_image_and_metadata_and_float_classes_are_drawn() -> None:
    flat = MetaTensor(torch.full((1, 20, 30), 7.0))
    picture = overlay(flat, MetaTensor(square(4, 8).float()), MetaTensor(square(4, 8)), height=20)
    assert has_color(picture, COLORS[0])[outline_of(4, 8)].all()
    assert (picture[~outline_of(4, 8)] == 0).all()


def test_what_is_drawn_stays_as_it_was() -> None:
    volumes = [image(3, 20, 30), square(4, 8), square(6, 8)]
    before = [volume.clone() for volume in volumes]
    overlay(*volumes, height=20)
    assert all(torch.equal(*both) for both in zip(volumes, before, strict=True))


def test_outline_of_a_large_picture_is_two_pixels_wide() -> None:
    picture = overlay(image(1, 384, 400), square(100, 50, size=(384, 400)))
    outline = has_color(picture, COLORS[0])
    assert outline[100:102, 100:150].all() and outline[148:150, 100:150].all()
    assert not outline[102:148, 102:148].any() and outline.sum() == 50**2 - 46**2


def test_panels_of_a_volume_have_the_proportions_of_its_voxels() -> None:
    size = (10, 20, 30)
    volumes = [
        MetaTensor(volume, torch.diag(torch.tensor([4.0, 2.0, -1.0, 1.0])))
        for volume in (square(2, 6, 1, size),)
    ]
    picture = overlay(image(1, *size), *volumes, height=120)  # 40 x 40 x 30 mm
    assert picture.shape == (120, 90 + 90 + 120, 3)
    assert sd_map(volumes[0] * 0.25, square(2, 6, 1, size), height=120).shape == picture.shape[:2]


@pytest.mark.parametrize("size", [(20, 30), (20, 30, 24)])
def test_sd_map_lies_on_the_overlay(size: tuple[int, ...]) -> None:
    label = square(8, 6, 1, size)
    drawn = sd_map(label * 0.25, label, height=20)
    picture = overlay(torch.zeros(1, *size), square(0, 0, 1, size), label, height=20)
    assert drawn.shape == picture.shape[:2] and has_color(picture, TRUTH).any()
    assert (drawn[has_color(picture, TRUTH)] > 0.1).all()
    assert drawn.max() == pytest.approx(0.25) and drawn.min() == 0


def test_sd_map_of_another_geometry_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"SD map of shape \[1, 20, 31\]: expected the label's \[1, 20, 30\]"
    ):
        sd_map(torch.zeros(1, 20, 31), square(4, 8))


def test_heat_goes_from_its_first_color_to_its_last() -> None:
    colors = heat(np.array([[0.0, 0.1], [0.2, 0.3]]), highest=0.2)
    assert colors.dtype == np.uint8 and colors.shape == (2, 2, 3)
    assert (colors[0, 0] == HEAT[0]).all() and (colors[0, 1] == HEAT[2]).all()
    assert (colors[1] == HEAT[-1]).all()


def test_fullest_plane_shows_the_most_of_a_label() -> None:
    classes = torch.zeros(1, 12, 14, 16)
    classes[:, 2:10, 4:7, 3:9] = 2
    assert fullest_plane(classes) == (2, 5)
    assert fullest_plane(torch.zeros(1, 12, 14, 16))[1] in (6, 7, 8)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_eroded_mask_is_that_of_a_minimum_filter(width: int) -> None:
    mask = np.random.default_rng(width).random((31, 44)) < 0.97
    filtered = minimum_filter(mask, 2 * width + 1, mode="constant", cval=True)
    np.testing.assert_array_equal(_eroded(mask, width), filtered)


def test_label_map_has_the_colors_of_the_outlines() -> None:
    filled = label_map(torch.tensor([[0, 1], [2, 7]]))
    assert filled.dtype == np.uint8 and filled.tolist() == [
        [[0, 0, 0], COLORS[0].tolist()],
        [COLORS[1].tolist(), COLORS[0].tolist()],
    ]


def test_picture_of_16_bits_is_shown_in_its_range(tmp_path: Path) -> None:
    pixels = np.linspace(0, 40950, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    assert np.array_equal(load_image(str(tmp_path / "deep.png"))[0].numpy(), pixels)
    assert (
        len(np.unique(overlay(load_image(str(tmp_path / "deep.png")), torch.zeros(1, 20, 20))))
        > 100
    )


def test_picture_is_turned_upright_and_a_volume_of_unknown_axes_is_not() -> None:
    assert upright(torch.zeros(1, 30, 20)).shape == (1, 20, 30)
    assert upright(torch.zeros(1, 30, 20, 10)).shape == (1, 30, 20, 10)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SRA"])
def test_planes_of_a_volume_are_as_clinicians_look_at_them_however_it_is_stored(axes: str) -> None:
    marks = {"head": 3, "right": 2, "front": 1}  # each in one half of the patient
    volume = MetaTensor(torch.zeros(3, 4, 6, 8), affine=torch.eye(4))  # grows to R, A, S
    volume[0, :, :, 4:] = marks["head"]
    volume[1, 2:] = marks["right"]
    volume[2, :, 3:] = marks["front"]
    shown = upright(Orientation(axes, labels=None)(volume)).as_tensor()
    assert shown.shape == (3, 8, 6, 4)
    coronal, axial, sagittal = shown[:, :, 2, :], shown[:, 4], shown[..., 1]
    assert (coronal[0, :4] == marks["head"]).all() and not coronal[0, 4:].any()
    assert (coronal[1, :, :2] == marks["right"]).all() and not coronal[1, :, 2:].any()
    assert (axial[2, :3] == marks["front"]).all() and not axial[2, 3:].any()
    assert (axial[1, :, :2] == marks["right"]).all() and not axial[1, :, 2:].any()
    assert (sagittal[0, :4] == marks["head"]).all() and not sagittal[0, 4:].any()
    assert (sagittal[2, :, :3] == marks["front"]).all() and not sagittal[2, :, 3:].any()
