"""Histology images of many nuclei with exact labels, from a seed.

The shapes and colors are invented, after the look of H&E stained tissue at 40 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import expit

from ldseg_monai.data.phantoms.smooth_noise import Array, smooth_noise
from ldseg_monai.data.phantoms.stain import stained

MOST = 250  # nuclei, so that a byte numbers them


@dataclass(frozen=True)
class Nucleus:
    """One nucleus: an ellipse with two waves; lengths in pixels, angles in radians."""

    row: float
    column: float
    radius: float
    elongation: float
    angle: float
    wave: float
    phase: float

    def distance(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], Array]:
        """Signed distance in pixels, negative inside, in a box around it, and the box."""
        reach = int(1.8 * self.radius * self.elongation) + 2
        top, left = max(0, int(self.row) - reach), max(0, int(self.column) - reach)
        box = (slice(top, top + 2 * reach), slice(left, left + 2 * reach))
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        down, right = rows[box] - self.row, columns[box] - self.column
        along = (np.cos(self.angle) * right + np.sin(self.angle) * down) / self.elongation
        across = (np.cos(self.angle) * down - np.sin(self.angle) * right) * self.elongation
        theta = np.arctan2(across, along)
        outline = self.radius * (1 + self.wave * np.cos(2 * theta + self.phase))
        return box, (np.hypot(along, across) - outline).astype(np.float32)


def nuclei_phantom(seed: int | Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Make one H&E-like image of nuclei: dark and pale ones, crowded and alone, on pink tissue.

    Pigment as dark as the nuclei, and shadows that lie below the focus, are no nuclei, so that
    color is not enough.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.

    Returns:
        image `(H, W, 3)`, about 256 x 320, and label `(H, W)`: 0 other tissue, 1..n one number for
        each nucleus.
    """
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(240, 273)), int(rng.integers(304, 337)))
    hematoxylin, eosin = _tissue(rng, shape)
    label = np.zeros(shape, np.int32)
    texture = smooth_noise(rng, shape, 1.2)
    crowds = smooth_noise(rng, shape, 25.0)
    size, wanted = rng.uniform(5.0, 9.0), int(rng.integers(60, 160))
    count = 0
    for _ in range(12 * wanted):
        nucleus = _draw_nucleus(rng, shape, size)
        here = crowds[int(nucleus.row), int(nucleus.column)]
        if rng.random() > expit(2.0 * here + 0.5):
            continue
        box, distance = nucleus.distance(shape)
        inside = distance < 0
        if inside.sum() < 30 or (label[box][inside] > 0).mean() > 0.05:
            continue
        count += 1
        mask = inside & (label[box] == 0)
        label[box][mask] = count
        _paint(rng, distance, mask, texture[box], hematoxylin[box])
        if count == min(wanted, MOST):
            break
    return stained(rng, hematoxylin, eosin), label


def _draw_nucleus(rng: Generator, shape: tuple[int, int], size: float) -> Nucleus:
    return Nucleus(
        row=rng.uniform(0.0, shape[0]),
        column=rng.uniform(0.0, shape[1]),
        radius=size * rng.uniform(0.65, 1.4),
        elongation=rng.uniform(1.0, 1.4),
        angle=rng.uniform(0.0, np.pi),
        wave=rng.uniform(0.0, 0.12),
        phase=rng.uniform(0.0, 2 * np.pi),
    )


def _tissue(rng: Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Stains of the tissue: fibers, pale gaps, pigment and what lies below the focus."""
    fibers = smooth_noise(rng, shape, (2.0, 6.0) if rng.random() < 0.5 else (6.0, 2.0))
    gaps = expit(8.0 * (smooth_noise(rng, shape, 12.0) - rng.uniform(1.0, 1.8)))
    shadows = np.maximum(smooth_noise(rng, shape, 6.0) - 1.0, 0.0)
    pigment = expit(12.0 * (smooth_noise(rng, shape, 0.9) - 2.6))
    hematoxylin = 0.12 + 0.05 * fibers + 0.2 * shadows + 0.9 * pigment
    eosin = rng.uniform(0.4, 0.7) + 0.12 * fibers
    return hematoxylin * (1.0 - gaps), eosin * (1.0 - 0.9 * gaps)


def _paint(
    rng: Generator,
    distance: Array,
    mask: NDArray[np.bool_],
    texture: Array,
    hematoxylin: Array,
) -> None:
    """Paint a nucleus in place: a dark rim around a body of its own darkness, with chromatin."""
    rim = expit((distance + 2.0) / 0.6)
    body = rng.uniform(0.3, 0.9)
    dark = body + 0.25 * rim + 0.15 * texture
    hematoxylin[mask] = np.maximum(dark, 0.2)[mask]
