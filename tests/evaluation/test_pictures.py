from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from PIL import Image
from scipy.ndimage import minimum_filter

from ldseg_monai.data.formats import UNKNOWN_SIDES
from ldseg_monai.evaluation.pictures import (
    COLORS,
    HEAT,
    LEAST,
    MAX_SD,
    MOST,
    TRUTH,
    _eroded,
    cuts,
    fullest_plane,
    heat,
    label_map,
    load_image,
    outlined,
    overlay,
    shown,
    uncertain,
    upright,
    window,
)

SIDE = 24  # of a square that is drawn


def image(channels: int, *size: int) -> torch.Tensor:
    return torch.rand(channels, *size, generator=torch.Generator().manual_seed(0)) * 200


def square(start: int, side: int, index: int = 1, size: tuple[int, ...] = (20, 30)) -> torch.Tensor:
    classes = torch.zeros(1, *size, dtype=torch.uint8)
    classes[(0, *[slice(start, start + side)] * len(size))] = index
    return classes


def within(start: int, side: int, margin: int, size: tuple[int, int]) -> np.ndarray:
    """A square that is larger by a margin, or smaller by one below 0."""
    mask = np.zeros(size, bool)
    mask[(slice(start - margin, start + side + margin),) * 2] = True
    return mask


def ring(start: int, outer: int, inner: int, size: tuple[int, int] = (60, 90)) -> np.ndarray:
    """What is between two margins around a square."""
    return within(start, SIDE, outer, size) & ~within(start, SIDE, inner, size)


def has_color(picture: np.ndarray, color: np.ndarray) -> np.ndarray:
    return (picture == color).all(axis=-1)


@pytest.mark.parametrize("brightness", [0, 255])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_outline_has_its_color_and_a_dark_rim_on_white_and_on_black(
    index: int, brightness: int
) -> None:
    panel = np.full((60, 90, 3), brightness, np.uint8)
    drawn = outlined(panel, square(20, SIDE, index, (60, 90)))
    line = ring(20, 0, -2)
    rim = ring(20, 1, -3) & ~line
    assert has_color(drawn, COLORS[index - 1])[line].all()
    assert (drawn[rim] == 0).all()
    assert (drawn[~line & ~rim] == brightness).all()


def test_true_outline_shows_around_one_that_agrees_with_it() -> None:
    panel = np.full((60, 90, 3), 128, np.uint8)
    label = square(20, SIDE, size=(60, 90))
    drawn = outlined(panel, label, label)
    assert np.array_equal(has_color(drawn, TRUTH), ring(20, 2, 0))
    assert np.array_equal(has_color(drawn, COLORS[0]), ring(20, 0, -2))


def test_true_outline_between_two_classes_is_drawn_once() -> None:
    label = torch.zeros(1, 60, 90)
    label[:, 10:50, 10:40], label[:, 10:50, 40:70] = 1, 2
    drawn = outlined(np.zeros((60, 90, 3), np.uint8), torch.zeros(1, 60, 90), label)
    white = has_color(drawn, TRUTH)
    assert np.flatnonzero(white[30]).tolist() == [8, 9, 38, 39, 70, 71]


def test_classes_have_the_colors_that_are_given() -> None:
    panel = np.full((60, 90, 3), 128, np.uint8)
    drawn = outlined(panel, square(20, SIDE, 2, (60, 90)), colors=[(1, 2, 3), (4, 5, 6)])
    assert np.array_equal(has_color(drawn, np.array([4, 5, 6])), ring(20, 0, -2))


def test_a_color_picture_keeps_its_colors_and_others_are_shown_in_their_range() -> None:
    rgb = torch.randint(20, 200, (3, 20, 30))
    kept = shown(rgb, (20, 30), window([rgb]))
    np.testing.assert_allclose(kept, rgb.movedim(0, -1).numpy(), atol=1)
    dim = image(2, 20, 30) * 0.01 + 1000  # the second channel is not shown
    gray = shown(dim, (20, 30), window([dim]))
    assert np.ptp(gray, axis=-1).max() == 0 and (gray.min(), gray.max()) == (0, 255)
    assert np.corrcoef(gray[..., 0].ravel(), dim[0].ravel())[0, 1] > 0.99
    flat = torch.full((1, 20, 30), 7.0)
    assert (shown(flat, (20, 30), window([flat])) == 0).all()


@pytest.mark.parametrize(
    ("size", "scale"),
    [((20, 30), 14), ((LEAST, 300), 1), ((522, 775), 1), ((MOST + 2, 300), 0.5)],
)
def test_picture_is_drawn_in_its_own_grid(size: tuple[int, int], scale: float) -> None:
    ((cut,), drawn) = cuts([torch.zeros(3, *size)], torch.zeros(1, *size), torch.zeros(1, *size))
    assert drawn == scale and cut.size == (size[0] * scale, size[1] * scale)


def test_picture_is_outlined_in_whole_multiples_of_its_pixels() -> None:
    drawn = overlay(torch.full((1, 200, 300), 5.0), square(40, 80, size=(200, 300)))
    rows, columns = np.nonzero(has_color(drawn, COLORS[0]))
    assert drawn.shape == (400, 600, 3)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 239, 80, 239)


def anatomy(spacing: tuple[float, float, float], axes: str = "RAS") -> MetaTensor:
    """A label of 20 x 30 x 10 voxels to R, A, S, fullest in slices 5, 21 and 7, from 0 on."""
    label = MetaTensor(torch.zeros(1, 20, 30, 10), affine=np.diag([*spacing, 1.0]))
    label[:, 2:8, 15:26, 7] = 1
    label[:, 5, 15:26, 4:8] = 1
    label[:, 2:8, 21, 4:8] = 1
    return Orientation(axes, labels=None)(label)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SRA"])
def test_volume_is_cut_where_most_of_the_label_is_whatever_its_axes(axes: str) -> None:
    label = upright(anatomy((2.0, 1.0, 4.0), axes))
    drawn, scale = cuts([label, None], label, label)
    own = {"R": 5, "L": 19 - 5, "A": 21, "P": 29 - 21, "S": 7, "I": 9 - 7}
    number = {name: own[axis] + 1 for axis in axes for name in PLANES if axis in PLANES[name]}
    assert [cut.title for cut in drawn] == [
        f"axial, slice {number['axial']} of 10",
        f"coronal, slice {number['coronal']} of 30",
        f"sagittal, slice {number['sagittal']} of 20",
    ]
    assert scale == 10  # 40 x 30 x 40 mm
    assert [cut.size for cut in drawn] == [(300, 400), (400, 400), (400, 300)]
    assert [cut.sides for cut in drawn] == [tuple("RLAP"), tuple("RLSI"), tuple("APSI")]
    assert [int(cut.planes[0].sum()) for cut in drawn] == [66, 24, 44]
    assert drawn[0].planes[1] is None


PLANES = {"axial": "SI", "coronal": "AP", "sagittal": "RL"}


def test_direction_between_two_axes_of_the_body_has_the_letters_of_both() -> None:
    turned = np.eye(4)
    angle = np.deg2rad(30)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    label = upright(MetaTensor(torch.zeros(1, 20, 20, 20), affine=turned))
    axial = cuts([label], label, label)[0][0]
    assert axial.sides == ("RA", "LP", "AL", "PR")


def test_volume_whose_sides_are_not_known_has_no_letters() -> None:
    label = anatomy((2.0, 1.0, 4.0))
    label.meta[UNKNOWN_SIDES] = True
    drawn, scale = cuts([upright(label)], upright(label), upright(label))
    assert [cut.title for cut in drawn] == [
        "across axis 3, slice 8 of 10",
        "across axis 2, slice 22 of 30",
        "across axis 1, slice 6 of 20",
    ]
    assert scale == 10 and {letter for cut in drawn for letter in cut.sides} == {""}
    plain = label.as_tensor()
    assert cuts([plain], plain, plain)[0][0].title == "across axis 1, slice 6 of 20"


@pytest.mark.parametrize("size", [(20, 30), (8, 10, 12)])
def test_empty_label_is_cut_in_the_middle_and_leaves_the_image(size: tuple[int, ...]) -> None:
    empty = torch.zeros(1, *size, dtype=torch.uint8)
    drawn, _ = cuts([image(3, *size), empty], empty, empty)
    for cut in drawn:
        panel = shown(cut.planes[0], cut.size, (0, 255))
        assert np.array_equal(outlined(panel, cut.planes[1], cut.planes[1]), panel)
    if len(size) == 3:
        assert [cut.title[-12:] for cut in drawn] == [
            "slice 5 of 8",
            "lice 6 of 10",
            "lice 7 of 12",
        ]


def test_what_is_drawn_stays_as_it_was() -> None:
    volumes = [image(3, 20, 30), square(4, 8), square(6, 8)]
    before = [volume.clone() for volume in volumes]
    overlay(*volumes)
    assert all(torch.equal(*both) for both in zip(volumes, before, strict=True))


def test_sd_is_colored_over_the_anatomy_in_gray() -> None:
    panel = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    sd = torch.zeros(1, 40, 60)
    sd[:, :20], sd[:, 30:] = MAX_SD, MAX_SD / 2
    drawn = uncertain(panel, sd)
    gray = np.array([0.299, 0.587, 0.114]) @ [200, 100, 50]  # luma of ITU-R 601
    np.testing.assert_allclose(drawn[20:30], gray, atol=1)
    assert has_color(drawn, HEAT[-1])[:20].all()
    np.testing.assert_allclose(drawn[30:], np.broadcast_to(HEAT[2], (10, 60, 3)), atol=3)


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
    deep = load_image(str(tmp_path / "deep.png"))
    assert np.array_equal(deep[0].numpy(), pixels)
    assert len(np.unique(overlay(deep, torch.zeros(1, 20, 20)))) > 100


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
