"""Resampling of volumes slab by slab, since MONAI keeps 24 bytes a voxel for its origin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from monai.utils import MetaKeys

VOXELS = 8_000_000  # of a slab


def resample(image: MetaTensor, affine: torch.Tensor, size: Sequence[int], mode: str) -> MetaTensor:
    """Resample as MONAI's `SpatialResample` does with a border that goes on, in less memory.

    Rounding may differ, and with ``nearest`` a voxel that lies halfway between two may go to the
    other.

    Args:
        image: ``(C, *spatial)`` with the affine of its axes.
        affine: that is wanted.
        size: spatial size that is wanted.
        mode: interpolation, ``bilinear`` or ``nearest``.

    Returns:
        float32 ``(C, *size)`` with the affine; other metadata are the image's.
    """
    source = np.asarray(image.affine, dtype=float)
    wanted = np.asarray(affine, dtype=float)
    voxels = image.as_tensor()
    if list(voxels.shape[1:]) == list(size) and np.allclose(source, wanted, atol=1e-3):
        result = voxels.float()
    else:
        result = torch.empty([len(voxels), *size], device=voxels.device)
        depth = max(1, VOXELS // math.prod(size[1:]))
        for start in range(0, size[0], depth):
            stop = min(start + depth, size[0])
            first, last = _range(
                np.linalg.solve(source, wanted), [range(start, stop), *map(range, size[1:])]
            )
            first = min(max(first, 0), voxels.shape[1] - 1)
            last = min(max(last, first + 1), voxels.shape[1])
            part = MetaTensor(
                voxels[:, first:last], affine=torch.as_tensor(source @ _shift(first, len(source)))
            )
            place = torch.as_tensor(wanted @ _shift(start, len(source)))
            slab = SpatialResample(mode, "border", dtype="float64")(
                part, place, [stop - start, *size[1:]]
            )
            result[:, start:stop] = MetaTensor(slab).as_tensor()
    meta = {**image.meta, MetaKeys.AFFINE: torch.as_tensor(wanted)}
    return MetaTensor(result, meta=meta, applied_operations=list(image.applied_operations))


def _range(matrix: np.ndarray, positions: Sequence[range]) -> tuple[int, int]:
    """First and last position along the first axis that a block comes from, with neighbors."""
    corners = [
        [*corner, 1] for corner in itertools.product(*((axis[0], axis[-1]) for axis in positions))
    ]
    places = (np.array(corners) @ matrix.T)[:, 0]
    return math.floor(places.min()) - 1, math.ceil(places.max()) + 2


def _shift(distance: int, length: int) -> np.ndarray:
    """Matrix of a shift along the first axis."""
    matrix = np.eye(length)
    matrix[0, -1] = distance
    return matrix
