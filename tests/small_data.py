"""Data sets of a few small cases, written to a folder."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image


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
