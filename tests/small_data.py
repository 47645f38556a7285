"""Data sets of a few small cases, written to a folder."""

from __future__ import annotations

import functools
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from ldseg_monai.data.phantoms.echo import echo_phantom
from ldseg_monai.data.phantoms.gland import gland_phantom
from ldseg_monai.data.phantoms.knee import knee_phantom


def write_volume(
    folder: Path,
    name: str,
    image: np.ndarray,
    label: np.ndarray,
    affine: np.ndarray | None = None,
    label_affine: np.ndarray | None = None,
) -> None:
    affine = np.eye(4) if affine is None else affine
    places = {"images": affine, "labels": affine if label_affine is None else label_affine}
    for kind, array in (("images", image), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, places[kind]), folder / kind / f"{name}.nii.gz")


def write_picture(folder: Path, name: str, image: np.ndarray, label: np.ndarray) -> None:
    for kind, array in (("images", image), ("labels", label)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{name}.png")


def write_cuts(folder: Path, dims: int, num: int = 4, num_classes: int = 2) -> None:
    """Write `case_000` and so on: cut-outs of phantoms, with all of their classes.

    They take a small part of a phantom's time, and have its oblique affine. Pictures are of glands,
    and of more than two classes of a heart.
    """
    for index in range(num):
        name = f"case_{index:03d}"
        if dims == 3:
            write_volume(folder, name, *knee_cut(index))
        elif num_classes > 2:
            write_picture(folder, name, *echo_cut(index))
        else:
            write_picture(folder, name, *gland_cut(index))


@functools.cache
def knee_cut(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, label and affine."""
    image, label, affine = knee_phantom([0, index])
    cut = around_the_middle(label, (40, 28, 28))
    start = np.eye(4)
    start[:3, 3] = [axis.start for axis in cut]
    return image[cut].copy(), label[cut].copy(), affine @ start


@functools.cache
def gland_cut(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask."""
    picture, glands = gland_phantom([0, index])
    cut = around_the_middle(glands, (90, 140))
    return picture[cut].copy(), (glands[cut] > 0).astype(np.uint8)


@functools.cache
def echo_cut(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Gray picture and mask of four classes."""
    picture, label = echo_phantom([0, index])
    cut = around_the_middle(label, (180, 140))
    return picture[cut].copy(), label[cut].copy()


def around_the_middle(label: np.ndarray, size: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of an array around the middle of what is labeled."""
    cut = []
    for places, side, length in zip(label.nonzero(), size, label.shape, strict=True):
        start = int(np.clip(places.mean() - side / 2, 0, length - side))
        cut.append(slice(start, start + side))
    return tuple(cut)


def write_boxes(
    folder: Path, dims: int, values: tuple[int, ...] = (1, 3), num: int = 4, low: float = 0.0
) -> None:
    """Write noisy images of two boxes side by side, whose label values are given; sizes differ by case.

    Beside them, a table of patients: two cases each.
    """
    rng = np.random.default_rng(0)
    lines = ["case,patient,age"]
    for index in range(num):
        shape = (24, 20 + index, 28)[:dims] if dims == 3 else (64, 96 + index)
        label = np.zeros(shape, np.int16)
        box = tuple(slice(side // 4, 3 * side // 4) for side in shape[1:])
        for part, value in enumerate(values):
            width = shape[0] // 2 // len(values)
            label[
                (slice(shape[0] // 4 + part * width, shape[0] // 4 + (part + 1) * width), *box)
            ] = value
        level = np.searchsorted((0, *values), label) * 60
        image = level + rng.normal(60, 5, shape)
        if dims == 3:
            write_volume(folder, f"box_{index}", (image + low).astype(np.float32), label)
        else:
            write_picture(folder, f"box_{index}", image.astype(np.uint8), label.astype(np.uint8))
        lines.append(f"box_{index},patient {index // 2},{50 + index}")
    (folder / "info.csv").write_text("\n".join(lines) + "\n")
