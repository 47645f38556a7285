"""Pictures of a segmentation on its image, as arrays."""

from __future__ import annotations

import os

import numpy as np
import torch
from monai.networks.utils import one_hot
from monai.transforms import LoadImage
from monai.utils import convert_to_tensor
from PIL import Image
from torch.nn import functional

from ldseg_monai.dicom import NiftiOrDicomReader

COLORS = np.array([[255, 80, 60], [70, 170, 255], [255, 200, 40], [130, 230, 90], [210, 110, 255], [60, 230, 220]])
TRUTH = np.array([255, 255, 255])


def load_image(path: str, series_uid: str = "") -> torch.Tensor:
    """Read an image to be shown: a volume as its file has it, or a picture as RGB, ``(3, rows, columns)``.

    Args:
        path: NIfTI file, folder of a DICOM series, or file of a picture.
        series_uid: Series Instance UID, where the folder has several.
    """
    if path.lower().endswith((".nii", ".nii.gz")) or os.path.isdir(path):
        item = [path, series_uid] if series_uid else path
        volume = LoadImage(NiftiOrDicomReader(), image_only=True, ensure_channel_first=True)(item)
        return volume.transpose(1, 2) if volume.ndim == 3 else volume
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).movedim(-1, 0)


def overlay(
    image: torch.Tensor, prediction: torch.Tensor, label: torch.Tensor | None = None, height: int = 384
) -> np.ndarray:
    """Draw the outlines of a segmentation (a color a class) and of the true label (white) on an image.

    Args:
        image: ``(C, *spatial)``; three channels are shown as RGB, else the first as gray.
        prediction: class indices ``(1, *spatial)``.
        label: true class indices, or None.
        height: rows of the picture in pixels; each panel is scaled to it.

    Returns:
        RGB picture, uint8 ``(height, width, 3)``. A volume is cut in three planes through the middle of the label (or
        of the prediction where there is none), one panel each.
    """
    image, prediction, label = (
        convert_to_tensor(volume, device="cpu", track_meta=False) for volume in (image, prediction, label)
    )
    if image.ndim == 3:
        return _panel(image, prediction, label, height)
    marked = (prediction if label is None else label)[0] > 0
    positions = marked.nonzero() if marked.any() else torch.tensor(marked.shape)[None] // 2
    center = positions.float().mean(dim=0).round().int().tolist()
    panels = []
    for axis, index in enumerate(center, start=1):
        true = None if label is None else label.select(axis, index)
        panels.append(_panel(image.select(axis, index), prediction.select(axis, index), true, height))
    return np.concatenate(panels, axis=1)


def _panel(image: torch.Tensor, prediction: torch.Tensor, label: torch.Tensor | None, height: int) -> np.ndarray:
    size = [height, max(1, round(height * image.shape[2] / image.shape[1]))]
    image = image.float() if image.shape[0] == 3 else image[:1].float().expand(3, -1, -1)
    every = max(1, image.numel() // 1_000_000)  # quantile has a limit, and needs no more
    low, high = torch.quantile(image.flatten()[::every], torch.tensor([0.005, 0.995]))
    image = ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    image = functional.interpolate(image[None], size=size, mode="bilinear")[0]
    panel = (image.movedim(0, -1) * 255).byte().numpy()
    if label is not None:
        for outline in _outlines(label, size):
            panel[outline] = TRUTH
    for index, outline in enumerate(_outlines(prediction, size)):
        panel[outline] = COLORS[index % len(COLORS)]
    return panel


def _outlines(classes: torch.Tensor, size: list[int]) -> list[np.ndarray]:
    """The inner edge of each class but the background, as masks of the given size."""
    scaled = functional.interpolate(classes[None].float(), size=size, mode="nearest-exact")[0]
    masks = one_hot(scaled.long(), int(classes.max()) + 1, dim=0)[1:].float()
    if not len(masks):
        return []
    eroded = -functional.max_pool2d(-masks[None], kernel_size=3, stride=1, padding=1)[0]
    return list((masks > eroded).numpy())
