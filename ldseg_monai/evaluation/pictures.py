"""Pictures of a segmentation on its image, as arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation
from monai.utils import convert_to_tensor
from torch.nn import functional

from ldseg_monai.data.dicom.reader import NiftiOrDicomReader
from ldseg_monai.data.exports.label_map import COLORS
from ldseg_monai.data.formats import is_deep, is_volume, load_picture
from ldseg_monai.data.loaders import without_codec_warning
from ldseg_monai.runtime.errors import InputError

TRUTH = np.array([255, 255, 255])
# Evenly from low to high.
HEAT = np.array([[0, 0, 0], [110, 20, 130], [230, 60, 60], [255, 180, 40], [255, 255, 200]])
MAX_SD = 0.5  # of a probability


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
    if is_deep(picture.mode):  # which RGB would cut to 255
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
    return cast(torch.Tensor, Orientation("IPL", labels=None)(image))


def overlay(
    image: torch.Tensor,
    prediction: torch.Tensor,
    label: torch.Tensor | None = None,
    height: int = 384,
) -> np.ndarray:
    """Draw on an image the outlines of its segmentation (a color a class) and true label (white).

    Args:
        image: ``(C, *spatial)``; three channels are shown as RGB, else the first as gray.
        prediction: class indices ``(1, *spatial)``; a volume's affine, if it has one, gives the
            proportions.
        label: true class indices, or None.
        height: rows of the picture in pixels; each panel is scaled to it.

    Returns:
        RGB picture, uint8 ``(height, width, 3)``. A volume is cut in three planes through the
        middle of the label (or of the prediction where there is none), one panel each.
    """
    spacing = _spacing(prediction)
    volumes = [_plain(image), _plain(prediction), None if label is None else _plain(label)]
    cut_by = prediction if label is None else label
    cuts = _cuts(volumes, _plain(cut_by), spacing, height)
    panels = [_panel(shown, predicted, true, size) for (shown, predicted, true), size in cuts]
    return np.concatenate(panels, axis=1)


def sd_map(sd: torch.Tensor, label: torch.Tensor, height: int = 384) -> np.ndarray:
    """Scale the map of the samples' standard deviation to the size and the planes of an `overlay`.

    Args:
        sd: ``(1, *spatial)``; a volume's affine, if it has one, gives the proportions.
        label: what the overlay was cut by, ``(1, *spatial)``.
        height: as of `overlay`.

    Returns:
        The standard deviation, ``(height, width)``.

    Raises:
        ValueError: for maps of different shapes.
    """
    spacing = _spacing(sd)
    sd, label = _plain(sd), _plain(label)
    if sd.shape != label.shape:
        raise InputError(
            f"SD map of shape {list(sd.shape)}: expected the label's {list(label.shape)}; "
            "invert it to its geometry"
        )
    cuts = _cuts([sd], label, spacing, height)
    panels = [_scaled(plane, size, "bilinear")[0] for (plane,), size in cuts]
    return torch.cat(panels, dim=1).numpy()


def heat(values: np.ndarray, highest: float) -> np.ndarray:
    """Color values from 0 to the highest by `HEAT`: RGB, uint8, ``(*values, 3)``."""
    stops = np.linspace(0, highest, len(HEAT))
    channels = [np.interp(values, stops, channel) for channel in HEAT.T]
    return np.stack(channels, axis=-1).astype(np.uint8)


def fullest_plane(classes: torch.Tensor) -> tuple[int, int]:
    """Axis of ``(1, *spatial)`` and index there of the cut that shows the most of a label.

    The cuts go through its middle.
    """
    planes = list(enumerate(_center(classes), start=1))
    return max(planes, key=lambda plane: int((classes.select(*plane) > 0).sum()))


def label_map(classes: torch.Tensor) -> np.ndarray:
    """Fill class indices ``(rows, columns)`` with their colors, 0 with black: RGB, uint8."""
    filled = COLORS[(classes.numpy().astype(int) - 1) % len(COLORS)].astype(np.uint8)
    filled[classes.numpy() == 0] = 0
    return filled


def _plain(volume: torch.Tensor) -> torch.Tensor:
    return convert_to_tensor(volume, device="cpu", track_meta=False)


def _scaled(plane: torch.Tensor, size: list[int], mode: str) -> torch.Tensor:
    """Scale ``(C, rows, columns)`` to a size."""
    return functional.interpolate(plane[None].float(), size=size, mode=mode)[0]


def _spacing(volume: torch.Tensor) -> list[float]:
    """Size of a volume's voxel along each axis; that of a picture's pixel is 1."""
    if volume.ndim == 4 and isinstance(volume, MetaTensor):
        return volume.pixdim.tolist()
    return [1.0] * (volume.ndim - 1)


def _cuts(
    volumes: Sequence[torch.Tensor | None],
    label: torch.Tensor,
    spacing: Sequence[float],
    height: int,
) -> list[tuple[list[Any], list[int]]]:
    """The three planes of volumes through the middle of a label, with their size in pixels.

    Pictures stay whole.
    """
    extent = [side * length for side, length in zip(label.shape[1:], spacing, strict=True)]
    if len(extent) == 2:
        return [(list(volumes), _size(extent, height))]
    cuts = []
    for axis, index in enumerate(_center(label), start=1):
        planes = [None if volume is None else volume.select(axis, index) for volume in volumes]
        cuts.append((planes, _size(extent[: axis - 1] + extent[axis:], height)))
    return cuts


def _center(classes: torch.Tensor) -> list[int]:
    """Middle of a label ``(1, *spatial)``, or of the volume if it is empty."""
    marked = (classes[0] > 0).numpy()
    if not marked.any():
        return [side // 2 for side in marked.shape]
    middle = []
    for axis in range(marked.ndim):
        others = tuple(other for other in range(marked.ndim) if other != axis)
        weights = np.count_nonzero(marked, axis=others)  # faster than the mean of all places
        middle.append(round(np.average(np.arange(len(weights)), weights=weights)))
    return middle


def _size(extent: Sequence[float], height: int) -> list[int]:
    return [height, max(1, round(height * extent[1] / extent[0]))]


def _panel(
    image: torch.Tensor, prediction: torch.Tensor, label: torch.Tensor | None, size: list[int]
) -> np.ndarray:
    image = image if image.shape[0] == 3 else image[:1]
    image = _scaled(image, size, "bilinear")
    every = max(1, image.numel() // 20_000)  # sorting all of them takes longer than all the rest
    low, high = torch.quantile(image.flatten()[::every], torch.tensor([0.005, 0.995]))
    image = ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    values = (image * 255).byte().expand(3, -1, -1).numpy()
    panel = np.empty([*size, 3], np.uint8)
    for channel in range(3):  # faster than all at once
        panel[..., channel] = values[channel]
    if label is not None:
        for outline in _outlines(label, size):
            panel[outline] = TRUTH
    for index, outline in enumerate(_outlines(prediction, size)):
        panel[outline] = COLORS[index % len(COLORS)]
    return panel


def _outlines(classes: torch.Tensor, size: list[int]) -> list[np.ndarray]:
    """The inner edge of each class but the background, as masks of the given size.

    It is two pixels wide in 384 rows.
    """
    scaled = _scaled(classes, size, "nearest-exact")[0].numpy()
    masks = [scaled == index for index in range(1, int(classes.max()) + 1)]
    width = max(1, size[0] // 192)
    return [mask & ~_eroded(mask, width) for mask in masks]


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
