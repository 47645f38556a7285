"""Hippocampus-like MR volumes with exact labels of the two parts, from a seed.

The shapes and contrasts are invented, after the look of T1-weighted MR of the temporal lobe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import expit

from ldseg_monai.data.phantoms.smooth_noise import Array, smooth_noise

# Signal in the arbitrary units of an MR image whose white matter is near 110.
CSF, GRAY, WHITE = 22.0, 72.0, 110.0
POINTS = 24  # of the center line


@dataclass(frozen=True)
class HippocampusParameters:
    """What differs from one to the next; lengths in mm.

    Frame axes: right, anterior, superior, centered between the ends, of a right hippocampus.
    """

    length: float
    head_radius: float
    body_radius: float
    tail_radius: float
    bend: float
    rise: float
    border: float
    surface_roughness: float

    @classmethod
    def draw(cls, rng: Generator) -> HippocampusParameters:
        """Draw one."""
        return cls(
            length=rng.uniform(32.0, 38.0),
            head_radius=rng.uniform(5.8, 7.2),
            body_radius=rng.uniform(4.0, 5.0),
            tail_radius=rng.uniform(2.4, 3.4),
            bend=rng.uniform(2.5, 5.0),
            rise=rng.uniform(5.0, 9.0),
            border=rng.uniform(0.36, 0.46),
            surface_roughness=rng.uniform(0.3, 0.6),
        )


def hippocampus_phantom(
    seed: int | Sequence[int],
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Make one hippocampus-like volume: a bent body with a thick head, in two labeled parts.

    The anatomy is drawn in world coordinates through the affine, so image, label and affine always
    agree. An amygdala as gray as the head touches it, so that gray levels are not enough.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.

    Returns:
        image, label (0 background, 1 anterior, 2 posterior), both about 35 x 50 x 35 voxels (left
        to right, back to front, up, each possibly flipped), and the 4 x 4 affine from voxels to
        world (RAS, mm).
    """
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(33, 38)), int(rng.integers(47, 53)), int(rng.integers(33, 38)))
    affine = _affine(rng, shape)
    parameters = HippocampusParameters.draw(rng)
    places = _frame(rng, shape, affine)  # (*shape, 3)
    rough = parameters.surface_roughness * smooth_noise(rng, shape, 2.0)
    line, radii = _center_line(parameters)
    distance, along = _tube(places, line, radii)
    distance = distance + rough

    label = np.zeros(shape, np.uint8)
    label[(distance <= 0) & (along < parameters.border)] = 1
    label[(distance <= 0) & (along >= parameters.border)] = 2

    signal = _surroundings(rng, places, line, radii)
    _blend(signal, distance, GRAY * rng.uniform(0.95, 1.05))
    return _scan(rng, signal), label, affine


def _affine(rng: Generator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Draw an affine from voxels of about 1 mm to world, oblique; some axes are flipped."""
    spacing = rng.uniform(0.97, 1.03, 3)
    flips = np.where(rng.random(3) < 0.3, -1.0, 1.0)
    angles = rng.uniform(2.0, 7.0, 3) * rng.choice([-1.0, 1.0], 3)
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = direction * (spacing * flips)
    center = rng.uniform(15.0, 40.0, 3) * rng.choice([-1.0, 1.0], 3)
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _frame(rng: Generator, shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Array:
    """Places of all voxels in the frame of a left or right one, turned and shifted a little."""
    side = rng.choice([-1.0, 1.0])
    pose = Rotation.from_euler("xyz", rng.uniform(-7.0, 7.0, 3), degrees=True).as_matrix()
    center = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    shift = rng.uniform(-2.0, 2.0, 3)
    indices = np.moveaxis(np.indices(shape), 0, -1)  # (*shape, 3)
    world = indices @ affine[:3, :3].T + affine[:3, 3]
    places = (world - center - shift) @ pose * [side, 1.0, 1.0]
    return places.astype(np.float32)


def _center_line(p: HippocampusParameters) -> tuple[Array, Array]:
    """Points of the center line from front to back, ``(POINTS, 3)``, and the radius at each."""
    t = np.linspace(0.0, 1.0, POINTS)
    right = p.bend * np.sin(np.pi * (0.15 + 0.75 * t)) - 0.6 * p.bend
    front = p.length * (0.5 - t) * 0.8 - 2.5  # since the head is thicker
    up = p.rise * t**2 - 0.4 * p.rise
    narrowing = expit((t - 0.35) / 0.07)
    radius = p.head_radius + (p.body_radius - p.head_radius) * narrowing
    radius = radius + (p.tail_radius - p.body_radius) * np.clip((t - 0.45) / 0.55, 0.0, 1.0)
    return np.stack([right, front, up], axis=1).astype(np.float32), radius.astype(np.float32)


def _tube(places: Array, line: Array, radii: Array) -> tuple[Array, Array]:
    """Signed distance in mm to a tube flattened from above, and where on its line, from 0 to 1."""
    flattened = np.array([1.0, 1.0, 1.25], np.float32)
    shape = places.shape[:3]
    distance = np.full(shape, np.inf, np.float32)
    along = np.zeros(shape, np.float32)
    for number, (point, radius) in enumerate(zip(line, radii, strict=True)):
        here = np.linalg.norm((places - point) * flattened, axis=-1) - radius
        nearer = here < distance
        distance[nearer] = here[nearer]
        along[nearer] = number / (len(line) - 1)
    return distance, along


def _surroundings(rng: Generator, places: Array, line: Array, radii: Array) -> Array:
    """Signal around it: white matter, the ventricle's horn, cistern, cortex and amygdala."""
    shape = places.shape[:3]
    right, front, up = np.moveaxis(places, -1, 0)
    folds = smooth_noise(rng, shape, 3.0)
    patches = smooth_noise(rng, shape, 4.0)
    signal = np.full(shape, WHITE, np.float32)

    _blend(signal, up + 11.0 + 2.5 * folds, GRAY)  # the cortex below
    _blend(signal, up + 15.0 + 2.0 * folds, CSF)
    _blend(signal, right + 10.5 + 1.5 * patches, GRAY)  # and to the middle, as is the cistern
    _blend(signal, right + 13.0 + 2.0 * patches, CSF)
    horn, along = _tube(places, line + np.array([2.5, 0.0, 2.0], np.float32), radii - 0.6)
    _blend(signal, np.maximum(horn + 0.4 * patches, 0.2 - along), CSF * rng.uniform(0.9, 1.3))
    amygdala = line[0] + [-1.5, 3.0, 7.5]
    distance = np.linalg.norm((places - amygdala) / [1.0, 1.15, 0.9], axis=-1)
    _blend(signal, distance - rng.uniform(5.0, 6.5) + 0.5 * folds, GRAY)
    upper = np.hypot(right - 4.0, up - 15.0) - 3.5 + 0.8 * patches
    _blend(signal, np.maximum(upper, front - 12.0), GRAY)  # a nucleus, as gray
    return signal


def _scan(rng: Generator, signal: Array) -> NDArray[np.int16]:
    """What the scanner adds: texture, bias field, gain of any size, and Rician noise."""
    shape = signal.shape
    textured = signal * (1.0 + 0.05 * smooth_noise(rng, shape, 0.8))
    axes = np.ogrid[tuple(slice(-1.0, 1.0, complex(side)) for side in shape)]
    slope = rng.uniform(-0.12, 0.12, 3)
    bias = np.exp(sum(weight * axis for weight, axis in zip(slope, axes, strict=True)))
    noise = rng.uniform(3.0, 5.0)
    real, imaginary = (noise * rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    measured = rng.uniform(0.8, 4.0) * np.hypot(textured * bias + real, imaginary)
    return np.round(measured).astype(np.int16)


def _blend(signal: Array, distance: Array, value: float) -> None:
    """Paint `value`, in place, where `distance` is negative; the edge is about 1 mm wide."""
    signal += (value - signal) * expit(-distance / 0.35).astype(np.float32)
