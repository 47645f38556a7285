"""Label maps for the kinds of files that they are written as, and a bundle's metadata for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

CLASSES = {"0": "background", "1": "femur", "2": "left/right lump", "3": "absent"}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique(mirrored: bool = False) -> np.ndarray:
    """An affine of three voxel sizes and no axis along the patient's."""
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (25.0, -40.0, 70.0), degrees=True).as_matrix()
    affine[:3, :3] = turn * [0.7, 1.1, -1.6 if mirrored else 1.6]
    affine[:3, 3] = [-20.0, 35.5, -112.25]
    return affine


def label_of(path: Path | str, voxels: np.ndarray, affine: np.ndarray | None = None, **meta: Any):
    """A label map `(1, *spatial)` of the image at a path."""
    said = {"filename_or_obj": str(path), **meta}
    values = torch.as_tensor(voxels.astype(np.uint8))[None]
    return MetaTensor(values, affine=np.eye(4) if affine is None else affine, meta=said)


def write_metadata(folder: Path) -> str:
    """A `metadata.json` with `CLASSES`."""
    outputs = {"pred": {"channel_def": CLASSES}}
    content = {"name": "A method of two steps", "version": "1.2.3"}
    content |= {"network_data_format": {"outputs": outputs}}  # type: ignore[dict-item]
    (folder / "metadata.json").write_text(json.dumps(content))
    return str(folder / "metadata.json")


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Classes 0 to 2 without any order, with holes, at the border and at corners of each other."""
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
