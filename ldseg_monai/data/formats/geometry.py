"""Where voxels are, and how much memory they take."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np

from ldseg_monai.runtime.errors import InputError

BYTES = 4  # of a voxel in memory, float32


def check_affine(path: str, affine: np.ndarray) -> None:
    """Check that an affine gives every voxel a place of its own.

    Raises:
        ValueError: if it is not finite, a spacing is 0, or its axes lie in one plane.
    """
    if not np.isfinite(affine).all():
        raise InputError(
            f"{path} has an affine that is not finite: expected mm; correct its header"
        )
    axes = affine[:-1, :-1]
    spacing = np.linalg.norm(axes, axis=0)
    if not (spacing > 0).all():
        raise InputError(
            f"{path} has a voxel spacing of {times(spacing)}: expected positive mm; correct its "
            "header"
        )
    if abs(np.linalg.det(axes / spacing)) < 1e-3:
        raise InputError(
            f"{path} has axes that lie in one plane: expected three directions; correct its header"
        )


def check_memory(path: str, shape: Sequence[int]) -> None:
    """Check, before an image is read, that it fits into this machine's memory.

    Raises:
        ValueError: if it does not.
    """
    if (
        not hasattr(os, "sysconf")
        or not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys()
    ):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = BYTES * int(np.prod([int(side) for side in shape], dtype=object))
    if size > memory:
        raise InputError(
            f"{path} has size {[int(side) for side in shape]}, {size / 1e9:.0f} GB in memory: "
            "expected less than this "
            f"machine's {memory / 1e9:.0f} GB; crop or resample it"
        )


def largest_shift(affine: np.ndarray, other: np.ndarray, size: Sequence[int]) -> float:
    """Largest distance of a voxel's places by two affines, in voxels of the first: a corner's."""
    dims = len(size)
    corners = np.array(
        [[*corner, 1] for corner in itertools.product(*((0, side - 1) for side in size))],
        dtype=float,
    )
    corners = np.insert(corners, dims, np.zeros((affine.shape[0] - 1 - dims, 1)), axis=1)
    distances = np.linalg.norm((corners @ (affine - other).T)[:, :-1], axis=1)
    return float(distances.max() / np.linalg.norm(affine[:-1, :dims], axis=0).min())


def times(values: np.ndarray) -> str:
    """Numbers as a size is written, such as ``1 x 1 x 2``."""
    return " x ".join(f"{value:g}" for value in values)
