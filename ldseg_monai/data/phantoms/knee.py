"""Knee-like MR volumes with exact labels, from a seed.

The shapes and contrasts are invented, after the look of water-excited knee MR.
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

# Signal in the arbitrary units of an MR image whose joint fluid is near 130. Fat is suppressed: as
# dark as bone.
AIR, BONE, MUSCLE, CARTILAGE, FLUID, FASCIA = 2.0, 20.0, 40.0, 90.0, 130.0, 70.0
WIDENING = 1.45  # from left to right, of the shapes as they are drawn below


@dataclass(frozen=True)
class KneeParameters:
    """What differs from knee to knee; lengths in mm, in a frame centered on the joint line.

    Frame axes: `lr` grows to the lateral side, `ap` to the front, `si` upward.
    """

    scale: float
    condyle_half_width: float
    condyle_depth: float
    notch_width: float
    tibia_half_width: float
    eminence_height: float
    plateau_slope: float
    femur_cartilage: float
    tibia_cartilage: float
    cartilage_overlap: float
    patella_height: float
    limb_half_width: float
    surface_roughness: float

    @classmethod
    def draw(cls, rng: Generator) -> KneeParameters:
        """Draw one knee."""
        return cls(
            scale=rng.uniform(0.9, 1.08),
            condyle_half_width=rng.uniform(12.0, 14.0),
            condyle_depth=rng.uniform(25.0, 29.0),
            notch_width=rng.uniform(6.0, 9.0),
            tibia_half_width=rng.uniform(26.0, 29.5),
            eminence_height=rng.uniform(4.0, 8.0),
            plateau_slope=rng.uniform(0.0, 0.15),
            femur_cartilage=rng.uniform(2.4, 3.4),
            tibia_cartilage=rng.uniform(2.2, 3.2),
            cartilage_overlap=rng.uniform(0.6, 1.4),
            patella_height=rng.uniform(12.0, 24.0),
            limb_half_width=rng.uniform(36.0, 43.0),
            surface_roughness=rng.uniform(0.4, 0.9),
        )


@dataclass(frozen=True)
class KneeFrame:
    """Coordinates of every voxel in the knee's own frame, in mm."""

    lr: Array
    ap: Array
    si: Array


def knee_phantom(
    seed: int | Sequence[int],
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Make one knee-like volume: femur above, tibia below, each labeled with its cartilage.

    The anatomy is drawn in world coordinates through the affine, so image, label and affine always
    agree.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.

    Returns:
        image, label (0 background, 1 femur with cartilage, 2 tibia with cartilage), both about 96 x
        48 x 72 voxels (back to front, up and down, left to right, each possibly flipped), and the 4
        x 4 affine from voxels to world (RAS, mm). The field of view is that of a crop around the
        joint: about 86 x 38 x 108 mm.
    """
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(92, 101)), int(rng.integers(46, 51)), int(rng.integers(68, 77)))
    affine = _oblique_affine(rng, shape)
    parameters = KneeParameters.draw(rng)
    frame = _knee_frame(rng, shape, affine, parameters.scale)
    rough_femur, rough_tibia = (
        parameters.surface_roughness * smooth_noise(rng, shape, 4.0) for _ in range(2)
    )

    femur = _femur_distance(frame, parameters) + rough_femur
    tibia = _tibia_distance(frame, parameters) + rough_tibia
    femur_with_cartilage = femur - parameters.femur_cartilage * _femur_articular(frame)
    tibia_with_cartilage = tibia - parameters.tibia_cartilage * _tibia_articular(frame, parameters)

    label = np.zeros(shape, np.uint8)
    label[(femur_with_cartilage <= 0) & (femur_with_cartilage <= tibia_with_cartilage)] = 1
    label[(tibia_with_cartilage <= 0) & (tibia_with_cartilage < femur_with_cartilage)] = 2

    signal = _soft_tissue(rng, frame, parameters, femur, tibia)
    for bone, with_cartilage in ((femur, femur_with_cartilage), (tibia, tibia_with_cartilage)):
        _blend(signal, with_cartilage, CARTILAGE * rng.uniform(0.85, 1.15))
        _blend(signal, bone, BONE * rng.uniform(0.85, 1.15))
    return _scan(rng, signal), label, affine


def _oblique_affine(rng: Generator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Draw an affine from voxels to world.

    It is anisotropic, oblique by a few degrees and off the origin; some axes are flipped.
    """
    spacing = np.array([0.9, 0.8, 1.5]) * rng.uniform(0.94, 1.06, 3)
    back_down_right = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    flips = np.where(rng.random(3) < 0.3, -1.0, 1.0)
    angles = rng.uniform(2.0, 8.0, 3) * rng.choice([-1.0, 1.0], 3)
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ back_down_right
    affine = np.eye(4)
    affine[:3, :3] = direction * (spacing * flips)
    center = rng.uniform(15.0, 60.0, 3) * rng.choice([-1.0, 1.0], 3)
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _knee_frame(
    rng: Generator, shape: tuple[int, int, int], affine: NDArray[np.float64], scale: float
) -> KneeFrame:
    """Place a left or right knee in the field of view, turned by up to 9 degrees, shifted by mm."""
    side = rng.choice([-1.0, 1.0])
    pose = Rotation.from_euler("xyz", rng.uniform(-9.0, 9.0, 3), degrees=True).as_matrix()
    shift = rng.uniform([-4.0, -5.0, -4.0], [4.0, 5.0, 4.0])
    center = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    turn = np.diag([side / WIDENING, 1.0, 1.0]) @ pose.T / scale
    to_knee = turn @ affine[:3, :3]
    offset = turn @ (affine[:3, 3] - center - shift)
    i, j, k = (axis.astype(np.float32) for axis in np.ogrid[tuple(map(slice, shape))])
    lr, ap, si = (np.float32(a) * i + np.float32(b) * j + np.float32(c) * k for a, b, c in to_knee)
    origin = offset.astype(np.float32)
    return KneeFrame(lr + origin[0], ap + origin[1], si + origin[2])


def _femur_distance(frame: KneeFrame, p: KneeParameters) -> Array:
    """Signed distance in mm (negative inside) of the femur's bone.

    It has two condyles, a metaphysis, a notch and a groove.
    """
    width, depth = p.condyle_half_width, p.condyle_depth
    medial = _ellipsoid(frame, center=(-0.9 * width, -5.0, 20.0), radii=(1.1 * width, depth, 20.0))
    lateral = _ellipsoid(
        frame, center=(0.9 * width, -3.0, 19.0), radii=(1.05 * width, depth + 1.0, 19.0)
    )
    metaphysis = _ellipsoid(frame, center=(0.0, 0.0, 42.0), radii=(2.0 * width, 24.0, 32.0))
    notch = _ellipsoid(frame, center=(0.0, -18.0, 4.0), radii=(p.notch_width, 24.0, 17.0))
    groove = _ellipsoid(frame, center=(0.0, 27.0, 14.0), radii=(7.0, 7.0, 26.0))
    bone = _smooth_union(_smooth_union(medial, lateral, 4.0), metaphysis, 5.0)
    return _smooth_difference(_smooth_difference(bone, notch, 2.0), groove, 3.0)


def _plateau_height(frame: KneeFrame, p: KneeParameters) -> Array:
    """Height in mm of the tibia's upper surface: it slopes to the back, with an eminence."""
    gap = p.femur_cartilage + p.tibia_cartilage - p.cartilage_overlap
    eminence = p.eminence_height * np.exp(-((frame.lr / 4.5) ** 2) - ((frame.ap + 2.0) / 10.0) ** 2)
    bowl = 0.004 * (frame.ap + 4.0) ** 2
    return (eminence + bowl - gap + p.plateau_slope * (frame.ap + 4.0)).astype(np.float32)


def _tibia_distance(frame: KneeFrame, p: KneeParameters) -> Array:
    """Signed distance in mm of the tibia's bone: an elliptic head that narrows downward."""
    taper = 1.0 - 0.3 * expit((-frame.si - 20.0) / 5.0)
    half_width, half_depth = p.tibia_half_width * taper, 23.0 * taper
    radius = np.sqrt((frame.lr / half_width) ** 2 + ((frame.ap + 3.0) / half_depth) ** 2)
    wall = (radius - 1.0) * half_depth
    return -_smooth_union(-wall, _plateau_height(frame, p) - frame.si, 3.0)


def _femur_articular(frame: KneeFrame) -> Array:
    """Where the femur carries cartilage, 0 to 1: on both condyles, not on notch and flanks."""
    low = expit((22.0 - frame.si) / 2.0)
    notch = expit((5.0 - np.abs(frame.lr)) / 0.8) * expit((4.0 - frame.ap) / 1.5)
    flanks = expit((np.abs(frame.lr) - 23.0) / 1.0)
    return low * (1.0 - notch) * (1.0 - flanks)


def _tibia_articular(frame: KneeFrame, p: KneeParameters) -> Array:
    """Where the tibia carries cartilage, 0 to 1: on the plateau, beside the eminence."""
    top = expit((frame.si - _plateau_height(frame, p) + 3.0) / 0.7)
    return top * expit((np.abs(frame.lr) - 6.0) / 0.8) * expit((23.0 - np.abs(frame.lr)) / 1.0)


def _soft_tissue(
    rng: Generator, frame: KneeFrame, p: KneeParameters, femur: Array, tibia: Array
) -> Array:
    """Signal around the bones; fat, muscle bands, patella and fibula are as dark as they are."""
    shape = frame.lr.shape
    streaks = smooth_noise(rng, shape, (1.2, 5.0, 1.2))
    patches = smooth_noise(rng, shape, 5.0)
    limb = (
        np.hypot(frame.lr / p.limb_half_width, (frame.ap + 2.0) / 47.0) - 1.0
    ) * p.limb_half_width
    nearest_bone = np.minimum(femur, tibia)

    signal = np.full(shape, AIR, np.float32)
    _blend(signal, limb, FASCIA)
    _blend(signal, limb + 1.5, BONE + 5.0 * streaks)  # subcutaneous fat
    _blend(signal, limb + 5.5 + patches, FASCIA)
    _blend(signal, limb + 7.0 + patches, MUSCLE * (1.0 + 0.2 * streaks))
    planes = 2.0 * (0.25 - patches)  # of fat, between bands of muscle
    _blend(signal, planes, BONE + 3.0 * streaks, within=limb + 7.0)
    _blend(signal, nearest_bone - 1.5 - 0.8 * patches, 0.8 * FASCIA, within=limb + 3.0)  # capsule
    synovium = np.maximum(femur, tibia) - 9.0 - 2.0 * patches
    _blend(signal, synovium, FLUID * (0.55 + 0.15 * streaks), within=limb + 3.0)

    pad = _ellipsoid(frame, center=(0.0, 30.0, 0.0), radii=(16.0, 8.0, 10.0))
    _blend(signal, pad + patches, BONE + 4.0 * streaks)
    patella = _ellipsoid(frame, center=(2.0, 37.0, p.patella_height), radii=(17.0, 8.0, 14.0))
    patella = patella + 0.5 * patches
    behind = np.abs(frame.lr - 2.0) + frame.ap - 45.0
    _blend(signal, np.maximum(patella - 2.5, behind), 0.9 * CARTILAGE)
    _blend(signal, patella, BONE)
    fibula = (np.hypot(frame.lr - 24.0, frame.ap + 27.0) - 6.5) + np.maximum(frame.si + 12.0, 0.0)
    _blend(signal, fibula - 1.5, 0.8 * FASCIA)
    _blend(signal, fibula, BONE)
    return signal


def _scan(rng: Generator, signal: Array) -> NDArray[np.int16]:
    """What the scanner adds: trabecular and tissue texture, bias field, gain, and Rician noise."""
    shape = signal.shape
    textured = signal * (1.0 + 0.12 * smooth_noise(rng, shape, 0.8))
    axes = np.ogrid[tuple(slice(-1.0, 1.0, complex(n)) for n in shape)]
    slope, bow = rng.uniform(-0.25, 0.25, 3), rng.uniform(-0.2, 0.2, 3)
    bias = np.exp(sum(s * x + b * x**2 for s, b, x in zip(slope, bow, axes, strict=True)))
    noise = rng.uniform(4.0, 8.0)
    real, imaginary = (noise * rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    measured = rng.uniform(0.8, 1.4) * np.hypot(textured * bias + real, imaginary)
    return np.round(measured).astype(np.int16)


def _ellipsoid(
    frame: KneeFrame, center: tuple[float, float, float], radii: tuple[float, float, float]
) -> Array:
    """Signed distance in mm to an ellipsoid, to first order."""
    axes = zip((frame.lr, frame.ap, frame.si), center, radii, strict=True)
    scaled = [(x - c) / r for x, c, r in axes]
    level: Array = np.sqrt(sum(x * x for x in scaled))
    gradient: Array = np.sqrt(sum((x / r) ** 2 for x, r in zip(scaled, radii, strict=True)))
    return level * (level - 1.0) / (gradient + np.float32(1e-6))


def _smooth_union(a: Array, b: Array, radius: float) -> Array:
    """Union of two signed distances whose seam is rounded over `radius` mm."""
    overlap = np.maximum(radius - np.abs(a - b), 0.0) / radius
    return np.minimum(a, b) - 0.25 * radius * overlap**2


def _smooth_difference(a: Array, b: Array, radius: float) -> Array:
    """What of `a` lies outside `b`, with the edge rounded over `radius` mm."""
    return -_smooth_union(-a, b, radius)


def _blend(
    signal: Array, distance: Array, value: Array | float, within: Array | None = None
) -> None:
    """Paint `value`, in place, where `distance` (and `within`) is negative.

    The edge, of partial volume, is about 1 mm wide.
    """
    inside = distance if within is None else np.maximum(distance, within)
    signal += (value - signal) * expit(-inside / 0.35)
