from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ldseg_monai.tools.new_bundle.sizing import fit_grid, fit_window, surviving_dice


def cases(*shapes, spacing=None) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(shapes)
    return array, np.broadcast_to(np.array(spacing or [1.0] * array.shape[1]), array.shape)


@pytest.mark.parametrize(
    ("shape", "spacing", "limit", "grid"),
    [
        ((31, 50, 40), (1, 1, 1), 1e6, [32, 48, 40]),  # fits: the nearest multiples of 8
        (
            (512, 512, 32),
            (0.5, 0.5, 8.0),
            128 * 128 * 32,
            [128, 128, 32],
        ),  # the fine axes give way, the coarse stays
        ((256, 128), (1, 1), 128 * 64, [128, 64]),
        ((3, 100, 100), (1, 1, 1), 1e6, [16, 104, 104]),  # two cells at least
    ],
)
def test_grid_is_the_median_case_under_the_limit(shape, spacing, limit, grid) -> None:
    got = fit_grid(*cases(shape, spacing=spacing), limit, 8)
    assert math.prod(got) <= max(limit, math.prod(grid))
    assert np.abs(np.array(got) - grid).max() <= 8


def test_window_holds_every_case_where_that_fits() -> None:
    assert fit_window(*cases((31, 50, 40), (33, 48, 40)), limit=40 * 52 * 40, multiple=4) == [
        36,
        52,
        40,
    ]


def test_window_of_larger_volumes_is_a_cube_in_mm_that_no_axis_exceeds() -> None:
    window = fit_window(*cases((200, 200, 50), spacing=(1, 1, 2.0)), limit=64 * 64 * 32, multiple=4)
    assert math.prod(window) <= 64 * 64 * 32
    assert window == [64, 64, 32]
    assert fit_window(*cases((200, 200, 8)), limit=64 * 64 * 8, multiple=4) == [64, 64, 8]


@pytest.mark.parametrize("dims", [2, 3])
def test_structure_that_fills_cells_survives_and_one_below_a_cell_does_not(dims: int) -> None:
    label = torch.zeros([32] * dims, dtype=torch.int16)
    label[8:24, 8:24] = 1
    label[0] = 2  # one voxel thick
    large, thin = surviving_dice(label, 3, 8)
    assert large > 0.8 and thin == 0
    assert surviving_dice(label, 3, 1) == [1, 1]


def test_dice_is_against_the_label_before_its_resize() -> None:
    label = torch.zeros([32, 32], dtype=torch.int16)
    label[:, ::4] = 1  # gone in a grid of a quarter
    label[8:24, 8:24] = 2
    stripes, square = surviving_dice(label, 3, 1, grid=[16, 8])
    assert stripes < 0.5 and square == 1


def test_absent_class_has_no_dice() -> None:
    label = torch.zeros([8, 8], dtype=torch.int16)
    label[:4] = 1
    one, absent = surviving_dice(label, 3, 2)
    assert one == 1 and math.isnan(absent)
