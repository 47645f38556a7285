"""The colors of hematoxylin and eosin."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from ldseg_monai.data.phantoms.smooth_noise import Array

# Optical density per unit of stain in R, G, B: near those of Ruifrok and Johnston (2001), the eosin
# warmer.
HEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.95, 0.22)


def stained(rng: Generator, hematoxylin: Array, eosin: Array) -> NDArray[np.uint8]:
    """Turn amounts of stain into color (Beer-Lambert) in a laboratory's own hue and strength."""
    vectors = np.array([HEMATOXYLIN, EOSIN]) * rng.uniform(0.85, 1.15, (2, 3))
    strength = rng.uniform([0.95, 0.75], [1.5, 1.25])
    amounts = np.stack([hematoxylin, eosin], axis=-1) * strength
    density = ndimage.gaussian_filter(np.maximum(amounts, 0.0) @ vectors, (0.7, 0.7, 0.0))
    color = 245.0 * np.exp(-density) + rng.normal(0.0, 4.0, density.shape)
    return np.clip(np.round(color), 0, 255).astype(np.uint8)
