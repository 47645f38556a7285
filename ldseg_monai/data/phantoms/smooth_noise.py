"""Smooth random fields: the irregularity of every phantom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]


def smooth_noise(rng: Generator, shape: tuple[int, ...], sigma: float | Sequence[float]) -> Array:
    """Gaussian noise of SD 1 that is smooth over `sigma` voxels."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=3.0
    )
    return noise / noise.std()
