"""Chest X-rays from the front with exact labels of the lungs, from a seed.

The shapes and densities are invented, after the look of radiographs that are taken standing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.special import expit

from ldseg_monai.data.phantoms.smooth_noise import Array, smooth_noise

Points = list[tuple[float, float]]

COARSE = 4  # pixels in one where something is very smooth
FINER = 2  # times as many pixels for what Pillow draws, whose edges are hard
# Strokes of letters in a box of width and height 1, from its top left
LETTERS: dict[str, list[Points]] = {
    "L": [[(0, 0), (0, 1), (0.8, 1)]],
    "R": [[(0, 1), (0, 0), (0.7, 0), (0.8, 0.25), (0.7, 0.5), (0, 0.5)], [(0.3, 0.5), (0.8, 1)]],
    "A": [[(0, 1), (0.4, 0), (0.8, 1)], [(0.2, 0.6), (0.6, 0.6)]],
    "P": [[(0, 1), (0, 0), (0.7, 0), (0.8, 0.25), (0.7, 0.5), (0, 0.5)]],
}


@dataclass(frozen=True)
class Chest:
    """One chest.

    Lengths are in half widths of the rib cage: `across` from the spine, the patient's left
    positive, and `down` from the apex of the lungs.
    """

    apex: float
    shoulder_drop: float
    lung_height: float
    left_lower: float
    sulcus: float
    mediastinum: float
    knob: float
    heart_size: float
    heart_across: float
    heart_angle: float
    rib_spacing: float
    rib_drop: float
    rib_width: float
    flank: float
    armpit: float
    neck: float

    @classmethod
    def draw(cls, rng: Generator) -> Chest:
        """Draw one."""
        return cls(
            apex=rng.uniform(0.4, 0.5),
            shoulder_drop=rng.uniform(1.9, 2.6),
            lung_height=rng.uniform(1.2, 1.5),
            left_lower=rng.uniform(0.03, 0.12),
            sulcus=rng.uniform(0.25, 0.42),
            mediastinum=rng.uniform(0.15, 0.21),
            knob=rng.uniform(0.05, 0.13),
            heart_size=rng.uniform(0.38, 0.5),
            heart_across=rng.uniform(0.1, 0.2),
            heart_angle=rng.uniform(0.5, 0.9),
            rib_spacing=rng.uniform(0.17, 0.2),
            rib_drop=rng.uniform(0.7, 0.95),
            rib_width=rng.uniform(0.03, 0.042),
            flank=rng.uniform(0.1, 0.2),
            armpit=rng.uniform(0.6, 0.95),
            neck=rng.uniform(0.3, 0.38),
        )

    def cage(self, down: Array) -> Array:
        """Half width of the rib cage."""
        fall = np.clip(1.0 - down / self.lung_height, 0.0, 1.0)
        return self.apex + (1.0 - self.apex) * (1.0 - fall**self.shoulder_drop) ** 0.55

    def diaphragm(self, across: Array) -> Array:
        """Height of the two domes, which fall steeply to the sides."""
        side = np.abs(across)
        lateral = np.clip((side - 0.45) / 0.55, 0.0, None)
        medial = np.clip((0.45 - side) / 0.45, 0.0, None)
        top = self.lung_height + self.left_lower * expit(across / 0.05)
        return top + self.sulcus * lateral**2.6 + 0.12 * medial**2

    def middle(self, across: Array, down: Array) -> Array:
        """Half width of the mediastinum: at the left with the aorta, closing above the lungs."""
        left = self.knob * np.exp(-(((down - 0.42) / 0.1) ** 2))
        left = left + 0.07 * np.exp(-(((down - 0.66) / 0.12) ** 2))
        toward_heart = np.clip((down - 0.6) / (self.lung_height - 0.85), 0.0, 1.0)
        left = left + 0.7 * self.heart_size * toward_heart
        right = 0.04 * np.exp(-(((down - 0.7) / 0.25) ** 2))
        width = self.mediastinum + np.where(across > 0, left, right)
        fall = np.clip(1.0 - down / 0.22, 0.0, 1.0)
        return width + (self.apex - width) * (1.0 - np.sqrt(1.0 - fall**2))

    def heart(self, across: Array, down: Array) -> NDArray[np.bool_]:
        """Where the heart is: an ellipse whose tip points to the left and down."""
        right, below = across - self.heart_across, down - self.lung_height + 0.28
        along = math.cos(self.heart_angle) * right + math.sin(self.heart_angle) * below
        over = math.cos(self.heart_angle) * below - math.sin(self.heart_angle) * right
        return np.hypot(along / 1.2, over / 0.85) < self.heart_size

    def body(self, across: Array, down: Array) -> NDArray[np.bool_]:
        """Where skin is around: neck, shoulders and trunk, and arms that leave the picture."""
        side = np.abs(across)
        shoulder = -0.15 + 0.12 * (side - 0.9) - 0.45 * np.exp((self.neck - side) / 0.2)
        arm = np.clip((self.armpit - down) / 0.55, 0.0, None)
        trunk = 1.0 + self.flank + 0.04 * (down - 1.0) + 0.45 * arm**2
        return (side < self.neck) | ((down > shoulder) & (side < trunk))


@dataclass(frozen=True)
class View:
    """Where the chest is in the picture."""

    shape: tuple[int, int]
    row: float  # of the apex of the lungs
    column: float  # of the spine
    rows: float  # pixels for each half width of the rib cage
    columns: float
    angle: float  # radians

    @classmethod
    def draw(cls, rng: Generator, chest: Chest) -> View:
        """Draw one that has the lungs whole."""
        height, above = int(rng.integers(300, 381)), rng.uniform(0.2, 0.5)
        below = chest.lung_height + chest.left_lower + chest.sulcus + rng.uniform(0.05, 0.4)
        rows = height / (above + below)
        half = rng.uniform(1.1, 1.4)
        width = int(np.clip(2.0 * half * rows * rng.uniform(0.85, 1.15), 300, 380))
        return cls(
            shape=(height, width),
            row=above * rows,
            column=width * rng.uniform(0.47, 0.53),
            rows=rows,
            columns=width / (2.0 * half),
            angle=rng.normal(0.0, 0.025),
        )

    def places(self, rng: Generator) -> tuple[Array, Array]:
        """`across` and `down` of every pixel, warped so that the sides of the body differ."""
        rows, columns = np.indices(self.shape, np.float32)
        right, below = (columns - self.column) / self.columns, (rows - self.row) / self.rows
        warps = [0.012 * _clouds(rng, self.shape, 22.0) for _ in range(2)]
        across = math.cos(self.angle) * right + math.sin(self.angle) * below + warps[0]
        down = math.cos(self.angle) * below - math.sin(self.angle) * right + warps[1]
        return across, down

    def pixels(self, points: Points) -> Points:
        """Columns and rows, on the finer grid, of points `(across, down)`."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        found: Points = []
        for across, down in points:
            right, below = cosine * across - sine * down, sine * across + cosine * down
            column, row = self.column + self.columns * right, self.row + self.rows * below
            found.append((FINER * column, FINER * row))
        return found


class Parts(NamedTuple):
    """Where the parts of a chest are, `(H, W)` each."""

    lungs: NDArray[np.bool_]
    middle: NDArray[np.bool_]  # mediastinum and heart
    below: NDArray[np.bool_]  # the diaphragm


def thorax_phantom(seed: int | Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Make one chest X-ray from the front: two dark lungs behind ribs, around a bright heart.

    Air around the body, in the trachea and in the stomach is as dark as the lungs, and ribs,
    clavicles, vessels and infiltrates in the lungs are as bright as what is around, so that gray
    levels are not enough.

    Args:
        seed: a number or a sequence of numbers; equal seeds give bit-equal arrays.

    Returns:
        image and label, both `(H, W)` of 300 to 430 pixels a side: 0 outside, 1 the patient's right
        lung, which is at the left of the picture, 2 the left one. What lies behind the heart and
        the diaphragm is not labeled.
    """
    rng = np.random.default_rng(seed)
    chest = Chest.draw(rng)
    view = View.draw(rng, chest)
    across, down = view.places(rng)
    parts = _parts(chest, across, down)
    label = np.where(across < 0, 1, 2).astype(np.int32) * parts.lungs
    density = _soft_tissue(rng, chest, view, across, down, parts)
    density += _ribs(rng, chest, across, down)
    density += _other_bones(rng, chest, view)
    image = _exposed(rng, density)
    _write_letters(rng, image)
    return _bordered(rng, image, label)


def _parts(chest: Chest, across: Array, down: Array) -> Parts:
    """Find the parts of a chest; each lung is in one piece."""
    side = np.abs(across)
    cage = chest.cage(down)
    middle = (side < chest.middle(across, down)) | chest.heart(across, down)
    below = down > chest.diaphragm(across)
    inside = (down > 0) & (side < cage - 0.04) & ~middle & ~below
    pieces, _ = ndimage.label(inside)
    lungs = np.zeros_like(inside)
    for lung in (across < 0, across > 0):
        sizes = np.bincount(pieces[lung & inside])
        lungs |= lung & (pieces == sizes.argmax())
    return Parts(lungs, middle & (down > 0) & ~below, below & (side < cage))


def _soft_tissue(
    rng: Generator, chest: Chest, view: View, across: Array, down: Array, parts: Parts
) -> Array:
    """Density without bones: the thicker, the brighter; air is dark."""
    side, pixels = np.abs(across), view.rows  # of a half width
    body = chest.body(across, down)
    density = 0.55 * _blurred(body, 1.0) + 0.35 * _blurred(body, 0.12 * pixels)
    middle = 0.18 * _blurred(parts.middle, 1.2) + 0.22 * _blurred(parts.middle, 0.12 * pixels)
    density += middle * expit((down - 0.12) / 0.06)
    # Thin at neck and shoulders, thick below; the beam is stronger at one side
    density += rng.uniform(0.1, 0.35) * (down - 1.0) + rng.uniform(-0.12, 0.12) * across
    density += 0.32 * _blurred(parts.below, 0.015 * pixels)

    edges = _blurred(parts.lungs, 1.2)
    air = 0.22 * edges + 0.4 * _blurred(parts.lungs, 0.08 * pixels)
    behind = expit((chest.lung_height + 0.2 - down) / 0.05)  # the dome
    air += 0.18 * _blurred(parts.below, 0.1 * pixels) * behind
    density -= rng.uniform(0.6, 0.9) * air
    trachea = (side < 0.065) & (down < 0.55) & (down > -0.35)
    density -= 0.16 * _blurred(trachea, 0.02 * pixels)
    density -= rng.uniform(0.2, 0.45) * _gas(rng, chest, across, down, pixels)
    density += 0.22 * _vessels(rng, chest, view) * (0.15 + 0.85 * edges)
    if rng.random() < 0.6:  # infiltrates
        clouds = _clouds(rng, view.shape, 0.1 * pixels)
        density += 0.3 * expit(5.0 * (clouds - rng.uniform(0.5, 1.5))) * edges
    if rng.random() < 0.4:  # breasts
        lower = np.hypot(side - 0.55, (down - 0.85) / 1.1) < 0.45
        density += rng.uniform(0.06, 0.14) * _blurred(lower, 0.03 * pixels)
    return density


def _blurred(mask: NDArray[np.bool_], sigma: float) -> Array:
    """A mask from 0 to 1 with a soft edge."""
    if sigma < 2 * COARSE:
        return ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=2.5)
    small = Image.fromarray(mask.astype(np.float32)).reduce(COARSE)
    coarse = ndimage.gaussian_filter(np.asarray(small), sigma / COARSE, mode="nearest")
    return _enlarged(coarse, mask.shape)


def _clouds(rng: Generator, shape: tuple[int, int], sigma: float) -> Array:
    """Noise of SD 1 that is smooth over many pixels."""
    coarse = (shape[0] // COARSE + 1, shape[1] // COARSE + 1)
    return _enlarged(smooth_noise(rng, coarse, sigma / COARSE), shape)


def _enlarged(coarse: Array, shape: tuple[int, ...]) -> Array:
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR))


def _gas(rng: Generator, chest: Chest, across: Array, down: Array, pixels: float) -> Array:
    """The stomach's gas bubble below the left dome, over a level of fluid; gas of the bowel."""
    center = rng.uniform(0.4, 0.55)
    top = chest.lung_height + chest.left_lower + rng.uniform(0.07, 0.12)
    width, height = rng.uniform(0.15, 0.3), rng.uniform(0.12, 0.22)
    bubble = np.hypot((across - center) / width, (down - top - height) / height) < 1.0
    if rng.random() < 0.6:
        bubble &= down < top + height * rng.uniform(0.9, 1.5)
    for _ in range(rng.integers(0, 4)):
        column, row = rng.uniform(0.2, 0.8), top + rng.uniform(0.4, 0.7)
        bubble |= np.hypot(across - column, (down - row) * 1.3) < rng.uniform(0.04, 0.1)
    return _blurred(bubble, 0.018 * pixels)


def _vessels(rng: Generator, chest: Chest, view: View) -> Array:
    """Trees of vessels that leave the two hila, and the hila."""
    layer, pen = _layer(view)
    for side in (-1.0, 1.0):
        row = 0.72 if side < 0 else 0.66
        hilum = (side * (chest.mediastinum + 0.06), row)
        for _ in range(11):
            _branch(rng, view, pen, hilum, rng.uniform(-1.3, 1.5), side, 0.035)
    return ndimage.gaussian_filter(_coarse(layer), 0.9, truncate=2.5)


def _branch(
    rng: Generator,
    view: View,
    pen: ImageDraw.ImageDraw,
    start: tuple[float, float],
    angle: float,
    side: float,
    width: float,
) -> None:
    """Draw a vessel and what it divides into, thinner and fainter."""
    if width < 0.006:
        return
    points = [start]
    for _ in range(3):
        angle += rng.normal(0.0, 0.12)
        across = points[-1][0] + side * 0.055 * np.cos(angle)
        points.append((across, points[-1][1] + 0.055 * np.sin(angle)))
    pixels = max(1, round(FINER * view.columns * width))
    pen.line(view.pixels(points), fill=int(60 + 4500 * width), width=pixels)
    for turn in (-0.3, 0.25):
        if rng.random() < 0.75:
            _branch(rng, view, pen, points[-1], angle + turn, side, 0.66 * width)


def _layer(view: View) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture to draw on, finer than the image, and what draws."""
    layer = Image.new("L", (FINER * view.shape[1], FINER * view.shape[0]))
    return layer, ImageDraw.Draw(layer)


def _coarse(layer: Image.Image) -> Array:
    """What was drawn, from 0 to 1, with soft edges."""
    return np.asarray(layer.reduce(FINER), np.float32) / 255.0


def _ribs(rng: Generator, chest: Chest, across: Array, down: Array) -> Array:
    """Ribs: rings that hang from the spine on an oval cage, seen from the front.

    At the angle a from the spine a rib is at ``across = cage * sin(a)`` and has fallen by
    ``rib_drop * (1 - cos(a)) / 2``; a lateral part is seen along its length, which is brighter.
    """
    reach = np.clip(np.abs(across) / chest.cage(np.maximum(down, 0.05)), 0.0, 1.02)
    cosine = np.sqrt(np.clip(1.0 - reach**2, 0.02, 1.0))
    slope = 0.5 * chest.rib_drop * reach / cosine
    rim = np.clip(0.6 / np.sqrt(cosine), 0.6, 1.3) * expit((1.0 - reach) / 0.008)
    shift = rng.uniform(-0.02, 0.02) * np.sign(across)
    behind = down + shift - 0.5 * chest.rib_drop * (1.0 - cosine)
    before = down + shift - 0.5 * chest.rib_drop * (1.0 + cosine)
    strength = rng.uniform(0.16, 0.28)
    posterior = _bands(chest, behind, slope, chest.rib_width) * expit((reach - 0.12) / 0.03)
    anterior = _bands(chest, before, slope, 1.15 * chest.rib_width) * expit((reach - 0.5) / 0.05)
    return strength * rim * (posterior + 0.6 * anterior)


def _bands(
    chest: Chest, origin: NDArray[np.floating], slope: NDArray[np.floating], width: float
) -> NDArray[np.floating]:
    """Bands about one rib spacing apart, with a bright rim of compact bone."""
    number = np.clip(np.round(origin / chest.rib_spacing), 0, 10)
    distance = np.abs(origin - number * chest.rib_spacing) / np.sqrt(1.0 + slope**2)
    return (0.65 + 0.35 * (distance / width) ** 2) * expit((width - distance) / 0.006)


def _other_bones(rng: Generator, chest: Chest, view: View) -> Array:
    """Spine, clavicles, shoulder blades and upper arms."""
    layer, pen = _layer(view)

    def bone(points: Points, width: float, bright: int) -> None:
        """Draw a tube: bright rims of compact bone around a paler middle."""
        placed, pixels = view.pixels(points), FINER * view.columns * width
        pen.line(placed, fill=bright, width=round(pixels), joint="curve")
        pen.line(placed, fill=int(0.65 * bright), width=round(0.7 * pixels), joint="curve")

    tilt = rng.uniform(-0.1, 0.15)
    for side in (-1.0, 1.0):
        blade = [(1.1, 0.05), (1.02, 0.45), (0.9, 0.85), (0.8, 0.4), (0.92, 0.1)]
        placed = view.pixels([(side * across, down) for across, down in blade])
        pen.polygon(placed, fill=40)
        pen.line([*placed[:3]], fill=110, width=round(0.03 * FINER * view.columns))
        bone([(side * 1.27, 0.1), (side * 1.4, 0.5), (side * 1.55, 1.0)], 0.17, 110)
        head = view.pixels([(side * 1.22 - 0.13, -0.03), (side * 1.22 + 0.13, 0.23)])
        pen.ellipse([*head[0], *head[1]], fill=90, outline=130, width=FINER)
        curve = [(0.12, 0.2), (0.3, 0.13), (0.5, 0.09), (0.7, 0.03), (0.9, -0.04), (1.1, -0.03)]
        bone([(side * across, down - tilt * across) for across, down in curve], 0.065, 140)
    return 0.32 * ndimage.gaussian_filter(_coarse(layer), 0.8) + _spine(chest, view)


def _spine(chest: Chest, view: View) -> Array:
    layer, pen = _layer(view)
    for number in range(22):
        top = 0.155 * number - 0.6
        width = 0.085 + 0.003 * number
        box = [(-width, top), (width, top), (width, top + 0.12), (-width, top + 0.12)]
        pen.polygon(view.pixels(box), fill=100, outline=150, width=2 * FINER)
        process = [(-0.015, top + 0.08), (0.0, top + 0.06), (0.015, top + 0.08), (0.0, top + 0.14)]
        pen.polygon(view.pixels(process), fill=170)
    return 0.22 * ndimage.gaussian_filter(_coarse(layer), 1.0)


def _exposed(rng: Generator, density: Array) -> NDArray[np.uint8]:
    """What film and scanner make of density: their own contrast and brightness, and noise."""
    low, high = map(float, np.percentile(density, [1.0, 99.5]))
    scaled = np.clip((density - low) / (high - low), 0.0, 1.1)
    gray = rng.uniform(0.0, 30.0) + rng.uniform(190.0, 235.0) * scaled ** rng.uniform(0.7, 1.6)
    grain = smooth_noise(rng, density.shape, 0.6)
    gray += rng.uniform(1.5, 5.0) * grain + 3.0 * smooth_noise(rng, density.shape, 3.0)
    return np.clip(np.round(gray), 0, 255).astype(np.uint8)


def _write_letters(rng: Generator, image: NDArray[np.uint8]) -> None:
    """Write marks, in place, as bright as metal, in an upper corner."""
    row = rng.uniform(0.03, 0.1) * image.shape[0]
    for text in ("L", "R", "AP")[: rng.integers(0, 4)]:
        size = rng.integers(9, 18)
        picture = Image.new("L", (image.shape[1], image.shape[0]))
        pen = ImageDraw.Draw(picture)
        left = 0.08 if text == "R" else 0.82
        column = left * image.shape[1]
        top = row + 25 * (text == "AP")
        for letter in text:
            for stroke in LETTERS[letter]:
                points = [(column + size * 0.8 * x, top + size * y) for x, y in stroke]
                pen.line(points, fill=255, width=2)
            column += size
        np.maximum(image, np.asarray(picture), out=image)


def _bordered(
    rng: Generator, image: NDArray[np.uint8], label: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Sometimes with black borders, of a film that does not fill the scanner."""
    if rng.random() < 0.6:
        return image, label
    at_sides = rng.random() < 0.7
    widths = [tuple(int(width) for width in rng.integers(4, 25, 2)), (0, 0)]
    if at_sides:
        widths.reverse()
    return np.pad(image, widths), np.pad(label, widths)
