"""Pictures of a segmentation on its image, as arrays: planes, outlines, maps."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation
from monai.utils import convert_to_tensor
from PIL import Image
from torch.nn import functional

from ldseg_monai.data.dicom.reader import NiftiOrDicomReader
from ldseg_monai.data.exports.label_map import COLORS
from ldseg_monai.data.formats import UNKNOWN_SIDES, is_deep, is_volume, load_picture
from ldseg_monai.data.loaders import without_codec_warning

TRUTH = np.array([255, 255, 255])
# Evenly from low to high; black would look like a shadow of the anatomy
HEAT = np.array([[90, 40, 200], [160, 30, 150], [230, 60, 60], [255, 180, 40], [255, 255, 200]])
MAX_SD = 0.5  # of a probability
OPAQUE = 0.1  # SD from which on its color hides the anatomy
LEAST, MOST = 400, 1280  # pixels along the longest side of what is drawn
OBLIQUE = 0.34  # of a direction along an axis of the body: less, of 20 degrees, has no letter
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # against and along each of the affine's axes
PLANES = ("axial", "coronal", "sagittal")  # across the axes of an upright volume
FILE_AFFINE = "file_affine"  # in the metadata of an upright volume: the affine of its file


@dataclass(frozen=True)
class Cut:
    """A picture, or a plane of a volume, with all that is drawn of it.

    Attributes:
        planes: of each volume, ``(C, rows, columns)``; None of those that are not there.
        size: rows and columns that it is drawn in.
        title: which plane it is; "" of a picture.
        sides: what is at the left, the right, the top and the bottom, such as ``R``; nothing where
            it is not known.
    """

    planes: list[Any]
    size: tuple[int, int]
    title: str = ""
    sides: tuple[str, ...] = ()


def load_image(path: str, series_uid: str = "") -> torch.Tensor:
    """Read an image to be shown.

    It is `upright`: of a picture ``(3 or 1, rows, columns)``.

    Args:
        path: file of a volume or a picture, or folder of a DICOM series.
        series_uid: Series Instance UID, where the folder has several.
    """
    if is_volume(path) or os.path.isdir(path):
        item = [path, series_uid] if series_uid else path
        reader = NiftiOrDicomReader(skip_unreadable=True)  # the loader has answered for them
        with without_codec_warning():
            load = LoadImage(reader, image_only=True, ensure_channel_first=True)
        return upright(load(item))
    picture = load_picture(path)
    if is_deep(picture.mode) or picture.mode == "L":  # RGB would cut the former to 255
        return torch.from_numpy(np.array(picture, dtype=np.float32))[None]
    return torch.from_numpy(np.array(picture.convert("RGB"))).movedim(-1, 0)


def upright(image: torch.Tensor) -> torch.Tensor:
    """Turn an image, a label or a map so that its planes are as clinicians look at them.

    Of a picture the rows come first, ``(C, rows, columns)``; MONAI's readers give the columns. A
    volume with an affine gets axes that grow to the feet, to the back and to the patient's left,
    so that every plane has the head, or the front, at the top and the patient's right at the left
    (a sagittal one the front). A volume without one stays as it is.
    """
    if image.ndim == 3:
        return image.transpose(1, 2)
    if not isinstance(image, MetaTensor):
        return image
    turned = cast(MetaTensor, Orientation("IPL", labels=None)(image))
    turned.meta[FILE_AFFINE] = image.affine
    return turned


def cuts(
    volumes: Sequence[torch.Tensor | None], grid: torch.Tensor, by: torch.Tensor
) -> tuple[list[Cut], float]:
    """Cut volumes in three planes, each where it shows the most of a label; pictures stay whole.

    They are drawn in their own grid: in the least whole multiple of it that has 400 pixels along
    its longest side, or in a whole part where there are more than 1,280. All planes of a volume
    have one scale, and its voxels their proportions.

    Args:
        volumes: `upright`, ``(C, *spatial)`` each.
        grid: one of them, whose affine and metadata, if it has any, say how large and where it is.
        by: the label, ``(1, *spatial)``.

    Returns:
        The cuts, and how many pixels a mm is drawn in, or a voxel where its size is not known.
    """
    spacing = _spacing(grid)
    extent = [side * length for side, length in zip(grid.shape[1:], spacing, strict=True)]
    finest = min(spacing)
    scale = _zoom(max(extent) / finest) / finest
    sides = [max(1, round(length * scale)) for length in extent]
    plain = [None if volume is None else _plain(volume) for volume in volumes]
    if grid.ndim == 3:
        return [Cut(plain, (sides[0], sides[1]))], scale
    found = []
    for axis, index in enumerate(_fullest(_plain(by))):
        planes = [None if volume is None else volume.select(axis + 1, index) for volume in plain]
        rows, columns = (other for other in range(3) if other != axis)
        letters = (*_letters(grid, columns), *_letters(grid, rows))
        size = sides[rows], sides[columns]
        found.append(Cut(planes, size, _title(grid, axis, index), letters))
    return found, scale


def window(images: Sequence[torch.Tensor]) -> tuple[float, float]:
    """The values that are shown as black and as white, the same in all planes of a volume.

    Those of a color picture are its own, 0 and 255; of others they are nearly the range.

    Args:
        images: planes, ``(C, rows, columns)``, as of `shown`.
    """
    every = max(1, sum(image.numel() for image in images) // 60_000)  # all take longer to sort
    parts = [_gray_or_color(image).flatten()[::every].float() for image in images]
    values = torch.cat(parts)
    if len(images[0]) == 3 and float(values.max()) <= 255:
        return 0.0, 255.0
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995])).tolist()
    return low, high


def shown(image: torch.Tensor, size: Sequence[int], values: tuple[float, float]) -> np.ndarray:
    """An image as it is seen: RGB, uint8, ``(*size, 3)``.

    Args:
        image: ``(C, rows, columns)``; three channels are shown as RGB, else the first as gray.
        size: rows and columns of the picture.
        values: of black and of white.
    """
    low, high = values
    image = _scaled(_gray_or_color(image), size, "bilinear")
    image = ((image - low) / max(high - low, 1e-6)).clamp(0, 1)
    bright = (image * 255).round().byte().expand(3, -1, -1).numpy()
    panel = np.empty([*size, 3], np.uint8)
    for channel in range(3):  # faster than all at once
        panel[..., channel] = bright[channel]
    return panel


def outlined(
    panel: np.ndarray,
    prediction: torch.Tensor,
    label: torch.Tensor | None = None,
    colors: Sequence[Sequence[int]] | np.ndarray = COLORS,
) -> np.ndarray:
    """Draw on an image the outlines of its segmentation (a color a class) and true label (white).

    Those of the segmentation run inside of its edge and those of the true label outside, so that
    both show where they agree. A black rim lets them show on white as well.

    Args:
        panel: RGB, uint8 ``(rows, columns, 3)``.
        prediction: class indices, ``(1, rows, columns)`` of its own grid.
        label: true class indices, or None.
        colors: red, green, blue of the classes from 1 on; the first again where there are more.

    Returns:
        Another picture like the panel.
    """
    size = panel.shape[:2]
    width = max(2, max(size) // 512)
    classes = _scaled(prediction, size, "nearest-exact")[0].numpy()
    true = np.zeros(size, bool)
    if label is not None:
        true = _outer_edges(_scaled(label, size, "nearest-exact")[0].numpy(), width)
    masks = [classes == index for index in range(1, int(classes.max()) + 1)]
    found = [mask & ~_eroded(mask, width) for mask in masks]
    lines = true.copy()
    for line in found:
        lines |= line
    drawn = panel.copy()
    drawn[_dilated(lines, width // 2)] = 0
    drawn[true] = TRUTH
    for index, line in enumerate(found):
        drawn[line] = colors[index % len(colors)]
    return drawn


def overlay(
    image: torch.Tensor, prediction: torch.Tensor, label: torch.Tensor | None = None
) -> np.ndarray:
    """Draw on a picture the outlines of its segmentation and true label, as `outlined` does.

    Args:
        image: `upright`, ``(C, rows, columns)``.
        prediction: class indices, ``(1, rows, columns)``.
        label: true class indices, or None.

    Returns:
        RGB, uint8, in the size that `cuts` says.
    """
    ((cut,), _) = cuts([image, prediction, label], prediction, prediction)
    image, prediction, label = cut.planes
    return outlined(shown(image, cut.size, window([image])), prediction, label)


def uncertain(panel: np.ndarray, sd: torch.Tensor) -> np.ndarray:
    """Draw where samples differ over an image in gray, by the colors of `translucent`.

    Args:
        panel: RGB, uint8 ``(rows, columns, 3)``.
        sd: standard deviation of a probability, ``(1, rows, columns)`` of its own grid.

    Returns:
        Another picture like the panel.
    """
    share = _scaled(sd, panel.shape[:2], "bilinear")[0].clamp(0, MAX_SD) / MAX_SD
    level = (share * 255).round().byte().numpy()
    gray = np.asarray(Image.fromarray(panel).convert("L"), np.float32)
    colors, opacity = translucent(256)
    over = (colors * opacity[:, None]).astype(np.float32)[level]  # (rows, columns, 3)
    under = gray * (1 - opacity).astype(np.float32)[level]  # (rows, columns)
    return (over + under[..., None]).round().astype(np.uint8)


def translucent(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Colors of the SD in even steps from 0 to `MAX_SD`, ``(steps, 3)``, and their opacities.

    Where nothing differs, the anatomy shows.
    """
    values = np.linspace(0, MAX_SD, steps)
    return heat(values, MAX_SD), np.clip(values / OPAQUE, 0, 1)


def ramp(steps: int) -> np.ndarray:
    """The colors of `translucent` as they are over gray anatomy: RGB, uint8, ``(steps, 3)``."""
    colors, opacity = translucent(steps)
    mixed = colors * opacity[:, None] + 128 * (1 - opacity[:, None])
    return mixed.astype(np.uint8)


def heat(values: np.ndarray, highest: float) -> np.ndarray:
    """Color values from 0 to the highest by `HEAT`: RGB, uint8, ``(*values, 3)``."""
    stops = np.linspace(0, highest, len(HEAT))
    channels = [np.interp(values, stops, channel) for channel in HEAT.T]
    return np.stack(channels, axis=-1).astype(np.uint8)


def fullest_plane(classes: torch.Tensor) -> tuple[int, int]:
    """Axis of ``(1, *spatial)`` and index there of the cut that shows the most of a label."""
    planes = list(enumerate(_fullest(classes), start=1))
    return max(planes, key=lambda plane: int((classes.select(*plane) > 0).sum()))


def label_map(classes: torch.Tensor) -> np.ndarray:
    """Fill class indices ``(rows, columns)`` with their colors, 0 with black: RGB, uint8."""
    filled = COLORS[(classes.numpy().astype(int) - 1) % len(COLORS)].astype(np.uint8)
    filled[classes.numpy() == 0] = 0
    return filled


def _plain(volume: torch.Tensor) -> torch.Tensor:
    return convert_to_tensor(volume, device="cpu", track_meta=False)


def _scaled(plane: torch.Tensor, size: Sequence[int], mode: str) -> torch.Tensor:
    """Scale ``(C, rows, columns)`` to a size."""
    if tuple(plane.shape[1:]) == tuple(size):
        return plane.float()
    return functional.interpolate(plane[None].float(), size=list(size), mode=mode)[0]


def _gray_or_color(image: torch.Tensor) -> torch.Tensor:
    return image if image.shape[0] == 3 else image[:1]


def _spacing(volume: torch.Tensor) -> list[float]:
    """Size of a volume's voxel along each axis; that of a picture's pixel is 1."""
    if volume.ndim == 4 and isinstance(volume, MetaTensor):
        return volume.pixdim.tolist()
    return [1.0] * (volume.ndim - 1)


def _zoom(longest: float) -> float:
    """How many pixels are drawn of one, where the longest side has so many: see `cuts`."""
    if longest < LEAST:
        return math.ceil(LEAST / longest)
    return 1 / math.ceil(longest / MOST)


def _fullest(classes: torch.Tensor) -> list[int]:
    """Along each axis of a label ``(1, *spatial)`` the index of the plane with the most of it.

    Of several it is the middle one, and so it is where the label is empty.
    """
    marked = (classes[0] > 0).numpy()
    found = []
    for axis in range(marked.ndim):
        others = tuple(other for other in range(marked.ndim) if other != axis)
        areas = np.count_nonzero(marked, axis=others)
        best = np.flatnonzero(areas == areas.max())
        found.append(int(best[len(best) // 2]))
    return found


def is_oriented(volume: torch.Tensor) -> bool:
    """Whether it is known where a volume's right and left are."""
    return isinstance(volume, MetaTensor) and not volume.meta.get(UNKNOWN_SIDES)


def _letters(volume: torch.Tensor, axis: int) -> tuple[str, str]:
    """What is where an axis begins and where it ends, such as R and L, by a volume's affine.

    A direction between two axes of the body has the letters of both, the nearer one first.
    """
    if not is_oriented(volume):
        return "", ""
    direction = np.asarray(cast(MetaTensor, volume).affine[:3, axis], float)
    direction = direction / np.linalg.norm(direction)  # the affine stays as it is
    begins = ends = ""
    for along in np.argsort(-np.abs(direction)):
        if abs(direction[along]) > OBLIQUE:
            against, with_it = LETTERS[along][:: 1 if direction[along] > 0 else -1]
            begins, ends = begins + against, ends + with_it
    return begins, ends


def _title(volume: torch.Tensor, axis: int, index: int) -> str:
    """Which plane of a volume it is, and which slice of its file, from 1 on."""
    size = volume.shape[axis + 1]
    number, name = index, f"across axis {axis + 1}"
    if isinstance(volume, MetaTensor):
        own = np.asarray(volume.meta.get(FILE_AFFINE, volume.affine), float)
        place = np.linalg.solve(own, np.asarray(volume.affine, float))  # voxel to the file's voxel
        along = int(np.abs(place[:3, axis]).argmax())
        number = round(place[along, axis] * index + place[along, 3])
        name = PLANES[axis] if is_oriented(volume) else f"across axis {along + 1}"
    return f"{name}, slice {number + 1} of {size}"


def _outer_edges(classes: np.ndarray, width: int) -> np.ndarray:
    """What is next to a class and is background, or a class of a lower number."""
    edges = np.zeros(classes.shape, bool)
    for index in range(1, int(classes.max()) + 1):
        edges |= _dilated(classes == index, width) & (classes < index)
    return edges


def _dilated(mask: np.ndarray, width: int) -> np.ndarray:
    """Add to a mask ``(rows, columns)`` what is so near to it."""
    return ~_eroded(~mask, width)


def _eroded(mask: np.ndarray, width: int) -> np.ndarray:
    """Take from a mask ``(rows, columns)`` what is so near to its edge; the border is none.

    It is a minimum filter over a square, ten times faster than SciPy's.
    """
    for _ in range(2):  # along the rows, then along the columns
        smaller = mask.copy()
        for step in range(1, width + 1):
            smaller[step:] &= mask[:-step]
            smaller[:-step] &= mask[step:]
        mask = smaller.T
    return mask
