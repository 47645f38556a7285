"""Ultrasound pictures of a heart with exact labels of three parts, and of a beat, from a seed.

The shapes and echoes are invented, after the look of the apical four-chamber view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from ldseg_monai.data.phantoms.smooth_noise import Array, smooth_noise
from ldseg_monai.runtime.errors import InputError

# Echoes in dB; a picture shows those of about -50 to 0.
BLOOD, TISSUE, MUSCLE, WALL, VALVE = -41.0, -25.0, -19.0, -17.0, -9.0
BEAMS, SAMPLES = 160, 320  # of the sector: angles and depths
ELLIPSE = 0.62  # of the ventricle's length is above the middle of the ellipse that it is cut from
SYSTOLE = 0.4  # of a beat
DEPTH = 160.0  # mm of the sector


@dataclass(frozen=True)
class Heart:
    """One heart at one moment.

    Lengths are in depths of the sector. The ventricle's axis leaves its apex downward; `along` is
    measured on it, `over` at a right angle to it, toward the lateral wall.
    """

    apex_right: float
    apex_down: float
    tilt: float  # radians
    length: float
    width: float  # half of it
    wall: float
    bend: float
    ripple: float
    phase: float
    slope: float  # of the valves' plane
    atrium_width: float  # half of it, in that of the ventricle
    atrium_length: float
    right_width: float  # half of the right ventricle's
    valve_angle: float  # radians that the mitral valve is open
    ejection: float  # fraction of the cavity's area at end-diastole

    @classmethod
    def draw(cls, rng: Generator) -> Heart:
        """Draw one at end-diastole."""
        return cls(
            apex_right=rng.uniform(-0.02, 0.06),
            apex_down=rng.uniform(0.15, 0.2),
            tilt=rng.uniform(-0.08, 0.16),
            length=rng.uniform(0.42, 0.5),
            width=rng.uniform(0.115, 0.15),
            wall=rng.uniform(0.045, 0.06),
            bend=rng.uniform(-0.15, 0.25),
            ripple=rng.uniform(0.0, 0.1),
            phase=rng.uniform(0.0, 2.0 * np.pi),
            slope=rng.uniform(-0.15, 0.15),
            atrium_width=rng.uniform(0.9, 1.1),
            atrium_length=rng.uniform(0.2, 0.28),
            right_width=rng.uniform(0.07, 0.11),
            valve_angle=0.0,
            ejection=rng.uniform(0.3, 0.6),
        )

    def contracted(self, contraction: float, valve_angle: float = 0.0) -> Heart:
        """The heart at a contraction from 0, end-diastole, to 1, end-systole.

        The cavity shrinks along and across its axis by factors whose product is
        ``1 - contraction * ejection``; the apex stays, the wall thickens, the atrium fills.
        """
        area = 1.0 - contraction * self.ejection
        length = area**0.3
        width = area / length
        return replace(
            self,
            length=self.length * length,
            width=self.width * width,
            wall=self.wall * (1.0 + 0.9 * (1.0 - area)),
            slope=self.slope * length / width,
            atrium_width=self.atrium_width / width * (1.0 + 0.1 * contraction),
            atrium_length=self.atrium_length + 0.5 * self.length * (1.0 - length),
            right_width=self.right_width * (1.0 - 0.25 * contraction),
            valve_angle=valve_angle,
        )

    def axes(self, right: Array, down: Array) -> tuple[Array, Array, Array]:
        """`along`, `over`, and how far below the plane of the valves, of places in the sector.

        The bends of the axis shift places across it alone, so that they leave areas as they are.
        """
        x, y = right - self.apex_right, down - self.apex_down
        along = math.sin(self.tilt) * x + math.cos(self.tilt) * y
        over = math.cos(self.tilt) * x - math.sin(self.tilt) * y
        part: Array = np.clip(along / self.length, 0.0, 1.0)
        wave = self.ripple * np.sin(2.0 * np.pi * part + self.phase)
        over = over - self.width * (self.bend * np.sin(np.pi * part) + wave)
        below = along - self.length - self.slope * over
        return along, over, below

    def ventricle(self, along: Array, over: Array, below: Array, thicker: float) -> Array:
        """Signed distance, negative inside, to the left ventricle grown by `thicker`."""
        middle = ELLIPSE * self.length
        return np.maximum(
            _ellipse(along - middle, over, middle + thicker, self.width + thicker), below
        )

    def mouth(self) -> float:
        """Half the cavity's width at the plane of the valves."""
        return self.width * math.sqrt(1.0 - (1.0 / ELLIPSE - 1.0) ** 2)

    def atrium(self, over: Array, below: Array) -> Array:
        """Signed distance to the left atrium, whose mouth is a little wider than the cavity."""
        mouth = self.mouth() + 0.015
        width = max(self.width * self.atrium_width, 1.04 * mouth)
        above = math.sqrt(1.0 - (mouth / width) ** 2)  # of the half length
        half = self.atrium_length / (1.0 + above)
        return np.maximum(_ellipse(below - above * half, over, half, width), -below)

    def right_side(self, along: Array, over: Array, below: Array) -> tuple[Array, Array]:
        """Signed distances to the right ventricle and the right atrium."""
        over = over + self.width + self.wall + self.right_width
        half = 0.42 * self.length
        # Of the two atria, which a septum divides
        overlap = (
            self.width * (self.atrium_width - 1.0) - self.wall + 0.35 * self.right_width + 0.02
        )
        narrow = self.right_width * np.clip(0.35 + along / self.length, 0.3, 1.2)
        ventricle = _ellipse(along - 0.64 * self.length, over, half, narrow)
        atrium = _ellipse(
            below - 0.45 * self.atrium_length,
            over - 0.2 * self.right_width + max(0.0, overlap),
            0.55 * self.atrium_length,
            1.15 * self.right_width,
        )
        return np.maximum(ventricle, below), np.maximum(atrium, -below)


def _ellipse(along: Array, over: Array, half_length: float, half_width: Array | float) -> Array:
    """About the signed distance to an ellipse, negative inside."""
    u, v = along / half_length, over / half_width
    radius = np.hypot(u, v)
    return (radius - 1.0) * radius / (np.hypot(u / half_length, v / half_width) + 1e-6)


@dataclass(frozen=True)
class Sector:
    """The fan that the probe sees, in a picture whose columns and rows may differ in spacing."""

    shape: tuple[int, int]
    half_angle: float  # radians

    @classmethod
    def draw(cls, rng: Generator) -> Sector:
        """Draw one."""
        shape = (int(rng.integers(285, 316)), int(rng.integers(245, 276)))
        return cls(shape, rng.uniform(0.62, 0.72))

    def places(self) -> tuple[Array, Array]:
        """How far right of the probe and down from it each pixel is, in depths of the sector."""
        height, width = self.shape
        rows, columns = np.indices(self.shape, np.float32)
        right = (columns - 0.5 * (width - 1)) * (2.02 * math.sin(self.half_angle) / width)
        return right, (rows + 1.0) / (height - 4.0)

    def beams(self) -> tuple[Array, Array]:
        """Angle and depth of every sample, ``(SAMPLES, BEAMS)``."""
        depths = np.linspace(0.0, 1.0, SAMPLES, dtype=np.float32)
        angles = np.linspace(-self.half_angle, self.half_angle, BEAMS, dtype=np.float32)
        depth, angle = np.meshgrid(depths, angles, indexing="ij")
        return angle, depth

    def inside(self) -> NDArray[np.bool_]:
        """Where the fan is."""
        right, down = self.places()
        depth = np.hypot(right, down)
        return (depth < 1.0) & (depth > 0.02) & (np.abs(right) < down * math.tan(self.half_angle))

    def picture(self, samples: Array) -> NDArray[np.uint8]:
        """Bring samples from 0 to 1, ``(SAMPLES, BEAMS)``, into the fan; black around it."""
        right, down = self.places()
        angle, depth = np.arctan2(right, down), np.hypot(right, down)
        beam = (angle / self.half_angle + 1.0) * (0.5 * (BEAMS - 1))
        found = ndimage.map_coordinates(
            samples, [depth * (SAMPLES - 1), beam], order=1, mode="nearest"
        )
        return (self.inside() * np.clip(np.round(255.0 * found), 0, 255)).astype(np.uint8)


@dataclass(frozen=True)
class Scanner:
    """What machine and window between the ribs add, fields of ``(SAMPLES, BEAMS)``."""

    gain: Array  # dB, with shadows and the loss at the sides and in the depth
    haze: Array  # amplitude of what echoes between probe and skin
    patches: Array  # dB, by which the muscle differs from place to place
    waves: list[Array]  # two speckles, each of two parts
    window: float  # dB that black to white are
    bright: float  # dB

    @classmethod
    def draw(cls, rng: Generator, sector: Sector) -> Scanner:
        """Draw one."""
        angle, depth = sector.beams()
        side = angle / sector.half_angle
        gain = rng.uniform(-10.0, 0.0) * (depth - 0.5) - rng.uniform(2.0, 12.0) * side**4
        gain = gain + rng.uniform(-4.0, 4.0) * side
        for _ in range(rng.integers(1, 4)):  # shadows of ribs and lung
            beam = np.exp(-(((side - rng.uniform(-1.0, 1.0)) / rng.uniform(0.05, 0.15)) ** 2))
            gain = gain - rng.uniform(5.0, 18.0) * beam * expit((depth - 0.1) / 0.05)
        layers = 1.0 + 0.5 * np.cos(2.0 * np.pi * depth / rng.uniform(0.025, 0.05))
        near = np.exp(-((depth / rng.uniform(0.1, 0.22)) ** 2))
        haze = 10.0 ** (rng.uniform(-24.0, -14.0) / 20.0) * near * layers
        haze = haze + 10.0 ** (rng.uniform(-52.0, -42.0) / 20.0)  # noise, everywhere
        shape = (SAMPLES, BEAMS)
        grain = (rng.uniform(0.8, 1.2), rng.uniform(1.2, 1.9))  # along the beam and the arc
        return cls(
            gain=gain.astype(np.float32),
            haze=haze.astype(np.float32),
            patches=rng.uniform(3.5, 7.0) * smooth_noise(rng, shape, (14.0, 8.0)),
            waves=[smooth_noise(rng, shape, grain) for _ in range(4)],
            window=rng.uniform(44.0, 56.0),
            bright=rng.uniform(4.0, 15.0),
        )

    def shown(self, echoes: Array, turn: float = 0.0) -> Array:
        """Brightness from 0 to 1 of echoes in dB under speckle, which changes with `turn`.

        The speckle is the amplitude of a complex Gaussian field. A turn mixes two such fields
        so that at every turn it has the same distribution.
        """
        cosine, sine = math.cos(turn), math.sin(turn)
        real = cosine * self.waves[0] + sine * self.waves[1]
        imaginary = cosine * self.waves[2] + sine * self.waves[3]
        speckle = np.hypot(real, imaginary)
        amplitude = (10.0 ** ((echoes + self.gain) / 20.0) + self.haze) * speckle
        level = 20.0 * np.log10(amplitude + 1e-4)
        return np.clip(1.0 + (level + self.bright - 8.0) / self.window, 0.0, 1.0)


def echo_phantom(seed: int | Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make one apical four-chamber-like picture: speckle in a fan, a dark cavity in bright muscle.

    The other chambers and shadows are as dark as the cavity, some of the muscle drops out, and
    haze lies near the probe, so that gray levels are not enough. Columns and rows differ in
    spacing.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.

    Returns:
        image and label, both `(H, W)`, about 300 x 260: 0 background, 1 cavity of the left
        ventricle, 2 its muscle, 3 left atrium. The moment of the beat differs from seed to seed.
    """
    rng = np.random.default_rng(seed)
    heart, sector = Heart.draw(rng), Sector.draw(rng)
    scanner = Scanner.draw(rng, sector)
    contraction = rng.uniform(0.0, 1.0)
    opening = max(0.0, rng.uniform(-0.7, 0.9))  # closed in nearly half of them
    heart = heart.contracted(contraction, opening)
    echoes = _echoes(heart, sector, scanner)
    return sector.picture(scanner.shown(echoes)), _label(heart, sector)


def beating_ventricle(
    seed: int | Sequence[int], num_frames: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make the frames of one beat, from end-diastole, frame 0, and back almost to it.

    The cavity's area falls smoothly to `end_systole(num_frames)`, where the share
    `ejection_fraction(seed)` of it is gone, and rises again.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.
        num_frames: frames of the beat, 2 or more; the next beat begins one frame after the last.

    Returns:
        frames and labels, both `(T, H, W)`, as of `echo_phantom`.

    Raises:
        ValueError: fewer than 2 frames.
    """
    if num_frames < 2:
        raise InputError(f"num_frames {num_frames}: expected 2 or more, the first and the least")
    rng = np.random.default_rng(seed)
    relaxed, sector = Heart.draw(rng), Sector.draw(rng)
    scanner = Scanner.draw(rng, sector)
    least = end_systole(num_frames)
    frames: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    for frame in range(num_frames):
        filling = max(0.0, (frame - least) / (num_frames - least))
        phase = 1.0 + filling if frame > least else frame / least
        opening = 0.9 * math.sin(math.pi * filling)
        heart = relaxed.contracted(0.5 - 0.5 * math.cos(math.pi * phase), opening)
        echoes = _echoes(heart, sector, scanner)
        turn = 2.0 * np.pi * frame / num_frames
        frames.append(sector.picture(scanner.shown(echoes, turn)))
        labels.append(_label(heart, sector))
    return np.stack(frames), np.stack(labels)  # (T, H, W) each


def end_systole(num_frames: int) -> int:
    """The frame of `beating_ventricle` with the smallest cavity."""
    return max(1, round(SYSTOLE * num_frames))


def ejection_fraction(seed: int | Sequence[int]) -> float:
    """Share of the cavity's area that `beating_ventricle` ejects, 0.3 to 0.6."""
    return Heart.draw(np.random.default_rng(seed)).ejection


def frame_spacing(seed: int | Sequence[int]) -> tuple[float, float]:
    """Width and height in mm of a pixel of `beating_ventricle`."""
    rng = np.random.default_rng(seed)
    Heart.draw(rng)
    right, down = Sector.draw(rng).places()
    return DEPTH * float(right[0, 1] - right[0, 0]), DEPTH * float(down[1, 0] - down[0, 0])


def _label(heart: Heart, sector: Sector) -> NDArray[np.uint8]:
    along, over, below = heart.axes(*sector.places())
    label = np.zeros(sector.shape, np.uint8)
    label[heart.atrium(over, below) < 0] = 3
    label[heart.ventricle(along, over, below, heart.wall) < 0] = 2
    label[heart.ventricle(along, over, below, 0.0) < 0] = 1
    return label * sector.inside()


def _echoes(heart: Heart, sector: Sector, scanner: Scanner) -> Array:
    """What the tissues echo, in dB, ``(SAMPLES, BEAMS)``."""
    angle, depth = sector.beams()
    along, over, below = heart.axes(depth * np.sin(angle), depth * np.cos(angle))
    echoes = np.full(depth.shape, TISSUE, np.float32) + 0.8 * scanner.patches
    cavity = heart.ventricle(along, over, below, 0.0)
    muscle = heart.ventricle(along, over, below, heart.wall)
    atrium = heart.atrium(over, below)
    right_ventricle, right_atrium = heart.right_side(along, over, below)

    for chamber, thickness in ((right_ventricle, 0.03), (right_atrium, 0.015), (atrium, 0.015)):
        _blend(echoes, chamber - thickness, WALL + scanner.patches)
    _blend(echoes, muscle, MUSCLE + scanner.patches)
    pericardium = np.abs(muscle - 0.008) - 0.008
    pericardium[over < 0] = 1.0  # beside the lateral wall alone
    _blend(echoes, pericardium, VALVE + scanner.patches)
    for chamber in (right_ventricle, right_atrium, atrium, cavity):
        _blend(echoes, chamber, BLOOD + 0.3 * scanner.patches)
    for leaflet in _leaflets(heart, over, below):
        _blend(echoes, leaflet, VALVE + 0.6 * scanner.patches)
    bottom = np.abs(below - heart.atrium_length - 0.025 + 0.3 * over**2) - 0.012
    _blend(echoes, bottom, VALVE + 1.2 * scanner.patches)
    return echoes


def _leaflets(heart: Heart, over: Array, below: Array) -> list[Array]:
    """Signed distances to the mitral valve's two leaflets and to the closed tricuspid one."""
    mouth = heart.mouth()
    found: list[Array] = []
    for side in (-1.0, 1.0):
        inward, up = mouth - side * over, -below  # from the leaflet's hinge
        angle = heart.valve_angle + 0.12
        on = math.cos(angle) * inward + math.sin(angle) * up
        off = math.cos(angle) * up - math.sin(angle) * inward
        found.append(np.maximum(np.abs(off) - 0.006, np.abs(on - 0.5 * mouth) - 0.5 * mouth))
    middle = over + heart.width + heart.wall + heart.right_width
    found.append(np.maximum(np.abs(below) - 0.005, np.abs(middle) - heart.right_width))
    return found


def _blend(echoes: Array, distance: NDArray[np.floating], value: Array) -> None:
    """Set echoes, in place, where `distance` is negative, with a soft edge."""
    echoes += (value - echoes) * expit(-distance / 0.004)
