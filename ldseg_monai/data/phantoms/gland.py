"""Gland-like histology images with exact labels, from a seed.

The shapes and colors are invented, after the look of H&E stained colon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from ldseg_monai.data.phantoms.smooth_noise import Array, smooth_noise
from ldseg_monai.data.phantoms.stain import stained


@dataclass(frozen=True)
class Gland:
    """One gland: a star-shaped outline around a lumen; lengths in pixels, angles in radians."""

    row: float
    column: float
    radius: float
    elongation: float
    angle: float
    wave_size: NDArray[np.float64]
    wave_phase: NDArray[np.float64]
    lumen_fraction: float
    epithelium_width: float

    def polar(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Signed distance in pixels (negative inside) to the outline, and angle, of every pixel."""
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        down, right = rows - self.row, columns - self.column
        along = (np.cos(self.angle) * right + np.sin(self.angle) * down) / self.elongation
        across = (np.cos(self.angle) * down - np.sin(self.angle) * right) * self.elongation
        theta = np.arctan2(across, along)
        outline = self.radius * (1.0 + _waves(theta, self.wave_size, self.wave_phase))
        return (np.hypot(along, across) - outline).astype(np.float32), theta.astype(np.float32)


def gland_phantom(seed: int | Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Make one gland-like H&E image: rings of dark nuclei around pale lumens in pink stroma.

    Lymphocytes as dark as the rings and tears as pale as the lumens lie in the stroma, so that
    color is not enough.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.

    Returns:
        image `(H, W, 3)`, about 256 x 320, and label `(H, W)`: 0 stroma, 1..n one number for each
        gland.
    """
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(240, 273)), int(rng.integers(304, 337)))
    glands, label = _place_glands(rng, shape)
    hematoxylin, eosin = _stroma(rng, shape)
    texture = smooth_noise(rng, shape, 2.5)
    for number, gland in enumerate(glands, start=1):
        _paint_gland(rng, gland, label == number, texture, hematoxylin, eosin)
    return stained(rng, hematoxylin, eosin), label


def _draw_gland(rng: Generator, shape: tuple[int, int], base_radius: float) -> Gland:
    return Gland(
        row=rng.uniform(0.0, shape[0]),
        column=rng.uniform(0.0, shape[1]),
        radius=base_radius * rng.uniform(0.7, 1.35),
        elongation=rng.uniform(1.0, 1.35),
        angle=rng.uniform(0.0, np.pi),
        wave_size=rng.uniform(0.0, 1.0, 4) * np.array([0.10, 0.08, 0.05, 0.03]),
        wave_phase=rng.uniform(0.0, 2.0 * np.pi, 4),
        lumen_fraction=rng.uniform(0.2, 0.6),
        epithelium_width=rng.uniform(8.0, 12.0),
    )


def _place_glands(rng: Generator, shape: tuple[int, int]) -> tuple[list[Gland], NDArray[np.int32]]:
    """Drop glands until enough fit.

    They may touch, each pixel going to the nearer one, but hardly overlap.
    """
    wanted, base_radius = int(rng.integers(6, 12)), rng.uniform(28.0, 42.0)
    glands: list[Gland] = []
    label = np.zeros(shape, np.int32)
    nearest = np.full(shape, np.inf, np.float32)
    for _ in range(100):
        gland = _draw_gland(rng, shape, base_radius)
        if label[int(gland.row), int(gland.column)] > 0:
            continue
        distance, _ = gland.polar(shape)
        inside = distance < 0
        if inside.sum() < 600 or (inside & (label > 0)).sum() > 60:
            continue
        glands.append(gland)
        label[inside & (distance < nearest)] = len(glands)
        nearest = np.minimum(nearest, distance)
        if len(glands) == wanted:
            break
    return glands, _one_piece_each(label)


def _one_piece_each(label: NDArray[np.int32]) -> NDArray[np.int32]:
    """Drop the crumbs that a neighbor cut off a gland."""
    for number in range(1, int(label.max()) + 1):
        pieces, count = ndimage.label(label == number)
        if count > 1:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            label[(pieces > 0) & (pieces != sizes.argmax())] = 0
    return label


def _stroma(rng: Generator, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Stains of the stroma: fibers, spindle nuclei, crowds of lymphocytes and pale tears."""
    fibers = smooth_noise(rng, shape, (1.5, 5.0) if rng.random() < 0.5 else (5.0, 1.5))
    crowds = smooth_noise(rng, shape, 14.0)
    nuclei = smooth_noise(rng, shape, 1.5)
    tears = smooth_noise(rng, shape, 9.0) + 0.15 * fibers
    density = rng.uniform(1.2, 1.7) - 0.9 * np.maximum(crowds, 0.0)
    hematoxylin = 0.1 + 0.04 * crowds + 0.85 * expit(8.0 * (nuclei - density))
    eosin = 0.5 + 0.1 * fibers
    pale = expit(8.0 * (tears - rng.uniform(1.4, 2.0)))
    return hematoxylin * (1.0 - pale), eosin * (1.0 - 0.92 * pale)


def _paint_gland(
    rng: Generator,
    gland: Gland,
    mask: NDArray[np.bool_],
    texture: Array,
    hematoxylin: Array,
    eosin: Array,
) -> None:
    """Paint, in place, from the outline inward: a palisade of nuclei, pale cells, the lumen."""
    distance, theta = gland.polar(mask.shape)
    depth = np.maximum(-distance, 0.0)
    count = max(12, int(2.0 * np.pi * gland.radius / rng.uniform(4.5, 6.0)))
    position = (theta / (2.0 * np.pi) + 0.5) * count
    cell = np.floor(position).astype(int) % count
    nucleus_depth = 0.5 * gland.epithelium_width + rng.uniform(-2.0, 2.0, count)
    nucleus_dark = rng.uniform(0.7, 1.25, count)
    across = (position - np.floor(position) - 0.5) / 0.5
    along = (depth - nucleus_depth[cell]) / (0.5 * gland.epithelium_width)
    nucleus = nucleus_dark[cell] * expit(5.0 * (1.0 - across**2 - along**2))

    body = rng.uniform(0.05, 0.22) + 0.1 * texture
    lumen_edge = gland.epithelium_width + (1.0 - gland.lumen_fraction) * (
        gland.radius - gland.epithelium_width
    )
    lumen = expit((depth - lumen_edge + 2.0 * texture) / 0.8)
    ring = expit((gland.epithelium_width + 1.0 - depth) / 1.0)
    debris = rng.uniform(0.0, 0.15) + 0.1 * np.maximum(texture, 0.0)
    hematoxylin[mask] = (np.maximum(body + 0.25 * ring, nucleus) * (1.0 - lumen))[mask]
    eosin[mask] = ((rng.uniform(0.25, 0.5) + 0.1 * ring) * (1.0 - lumen) + debris * lumen)[mask]


def _waves(
    theta: NDArray[np.float64], size: NDArray[np.float64], phase: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of the harmonics 2, 3, ... of an outline."""
    harmonics = np.arange(2, 2 + len(size))
    waves = zip(harmonics, size, phase, strict=True)
    return np.asarray(sum(s * np.cos(n * theta + f) for n, s, f in waves))
