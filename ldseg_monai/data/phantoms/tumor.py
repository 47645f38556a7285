"""Brain-like MR volumes of several sequences, with exact labels of edema and core, from a seed.

The shapes and contrasts are invented, after the look of the sequences of BraTS. No sequence alone
shows both classes: in FLAIR the core is as bright as the edema, in T1 with contrast the edema is
like the tissue around it, and vessels are as bright as the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import expit

from ldseg_monai.data.phantoms.smooth_noise import Array, smooth_noise

SPACING = 4.0  # mm, about
RADII = (66.0, 80.0, 60.0)  # of the brain, in mm: right, anterior, superior
CORE_SHARE = 0.6  # of the lesions, that have a core


class Contrast(NamedTuple):
    """Signal of each tissue, in arbitrary units; None where it is that of what lies below."""

    csf: float
    gray: float
    white: float
    edema: float | None
    core: float | None
    vessel: float | None


SEQUENCES = {
    "flair": Contrast(18.0, 85.0, 70.0, 135.0, 135.0, None),
    "t1ce": Contrast(25.0, 75.0, 105.0, None, 165.0, 165.0),
    "t1": Contrast(28.0, 75.0, 110.0, None, None, None),
    "t2": Contrast(170.0, 95.0, 72.0, 125.0, 125.0, 20.0),
}


def tumor_phantom(
    seed: int | Sequence[int], channels: int = 2
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Make one brain-like volume with one or two lesions: edema, some with a core.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.
        channels: how many of `SEQUENCES`, in their order and from the first on again; what the
            others show does not depend on it.

    Returns:
        image ``(*spatial, channels)``, ``(*spatial)`` of one; label (0 background, 1 edema, 2
        core), about 36 x 44 x 34 voxels; and the 4 x 4 affine from voxels to world (RAS, mm).
    """
    rng = np.random.default_rng(seed)
    shape = tuple(int(rng.integers(side - 2, side + 3)) for side in (36, 44, 34))
    affine = _affine(rng, shape)
    indices = np.moveaxis(np.indices(shape), 0, -1)  # (*shape, 3)
    places = (indices @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)
    places -= places.reshape(-1, 3).mean(axis=0)
    scale = np.array(RADII, np.float32) * rng.uniform(0.9, 1.0)
    depth = (np.linalg.norm(places / scale, axis=-1) - 1) * scale.min()  # in mm, negative inside
    depth = depth + 2.0 * smooth_noise(rng, shape, 3.0)
    folds = smooth_noise(rng, shape, 2.0)
    ventricles = _blobs(places, [[side * 9.0, 2.0, 8.0] for side in (-1, 1)], [9.0, 9.0])
    edema, core = _lesions(rng, places, scale)
    vessels = _vessels(rng, places, scale, edema)

    label = np.zeros(shape, np.uint8)
    label[(edema <= 0) & (depth <= 0)] = 1
    label[(core <= 0) & (depth <= 0)] = 2

    tissues = {
        "gray": depth,
        "white": np.maximum(depth + 12.0, 3.0 * folds - 2.0),
        "csf": ventricles,
        "vessel": vessels,
        "edema": np.maximum(edema, depth),
        "core": np.maximum(core, depth),
    }
    images = []
    for number in range(channels):
        sequence = [*SEQUENCES.values()][number % len(SEQUENCES)]
        signal = np.full(shape, 3.0, np.float32)
        for tissue, distance in tissues.items():
            value = getattr(sequence, tissue)
            if value is not None:
                signal += (value - signal) * expit(-distance / 1.0).astype(np.float32)
        # A generator of its own, so that a sequence is the same however many there are
        images.append(_scan(np.random.default_rng([*np.atleast_1d(seed), 1, number]), signal))
    return (images[0] if channels == 1 else np.stack(images, axis=-1)), label, affine


def _affine(rng: Generator, shape: Sequence[int]) -> NDArray[np.float64]:
    """Draw an affine from voxels to world, oblique; some axes are flipped."""
    flips = np.where(rng.random(3) < 0.3, -1.0, 1.0)
    angles = rng.uniform(2.0, 6.0, 3) * rng.choice([-1.0, 1.0], 3)
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = direction * (SPACING * rng.uniform(0.98, 1.02, 3) * flips)
    affine[:3, 3] = rng.uniform(-10.0, 10.0, 3) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _blobs(places: Array, centers: Sequence[Sequence[float]], radii: Sequence[float]) -> Array:
    """Signed distance in mm to balls."""
    distance = np.full(places.shape[:3], np.inf, np.float32)
    for center, radius in zip(centers, radii, strict=True):
        own = np.linalg.norm(places - np.array(center, np.float32), axis=-1) - radius
        distance = np.minimum(distance, own)
    return distance


def _lesions(rng: Generator, places: Array, scale: Array) -> tuple[Array, Array]:
    """Signed distances in mm to the edema, which includes the cores, and to the cores."""
    shape = places.shape[:3]
    centers, radii, core_centers, core_radii = [], [], [], []
    number = int(rng.integers(1, 3))
    for lesion in range(number):
        direction = rng.standard_normal(3)
        center = direction / np.linalg.norm(direction) * scale * rng.uniform(0.35, 0.6)
        radius = rng.uniform(22.0, 30.0)
        has_core = rng.random() < CORE_SHARE or lesion == 0  # the first always, so that none lacks
        core_radius = radius * rng.uniform(0.55, 0.68)
        offset = rng.standard_normal(3)
        offset *= (radius - core_radius - 2.0) / np.linalg.norm(offset)
        centers.append([*center])
        radii.append(radius)
        if has_core:
            core_centers.append([*(center + offset)])
            core_radii.append(core_radius)
    edema = _blobs(places, centers, radii) + 1.5 * smooth_noise(rng, shape, 2.0)
    core = _blobs(places, core_centers, core_radii) + 1.0 * smooth_noise(rng, shape, 1.5)
    return edema, np.maximum(core, edema)


def _vessels(rng: Generator, places: Array, scale: Array, edema: Array) -> Array:
    """Signed distance in mm to what is as bright as a core with contrast, outside of the edema."""
    centers, radii = [], []
    for _ in range(int(rng.integers(2, 4))):
        direction = rng.standard_normal(3)
        centers.append([*(direction / np.linalg.norm(direction) * scale * rng.uniform(0.4, 0.75))])
        radii.append(rng.uniform(9.0, 14.0))
    return np.maximum(_blobs(places, centers, radii), 4.0 - edema)


def _scan(rng: Generator, signal: Array) -> NDArray[np.int16]:
    """What the scanner adds: bias field, gain of any size, and Rician noise."""
    axes = np.ogrid[tuple(slice(-1.0, 1.0, complex(side)) for side in signal.shape)]
    slope = rng.uniform(-0.1, 0.1, 3)
    bias = np.exp(sum(weight * axis for weight, axis in zip(slope, axes, strict=True)))
    noise = rng.uniform(3.0, 5.0)
    real, imaginary = (noise * rng.standard_normal(signal.shape, np.float32) for _ in range(2))
    measured = rng.uniform(0.8, 4.0) * np.hypot(signal * bias + real, imaginary)
    return np.round(measured).astype(np.int16)
