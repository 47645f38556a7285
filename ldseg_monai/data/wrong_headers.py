"""Headers of a published data set that do not say where the body is.

A data set may have been published as bare arrays whose headers were made up. Where a bundle's
metadata say what such headers look like and what is true instead, its images are taken as what they
are, and so are images of other sources whose headers are right.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
from nibabel.orientations import axcodes2ornt

from ldseg_monai.runtime.errors import InputError

logger = logging.getLogger("ldseg_monai.data")

SAME = 1e-3  # mm by which an affine may differ from the one that a header is known by


class WrongHeader(NamedTuple):
    """An entry of ``wrong_headers`` in a bundle's metadata.

    Attributes:
        size: voxels along each axis of the array.
        axcodes: what the header says of the axes, such as ``LPS``; they are straight.
        voxel_mm: and of a voxel's sides.
        true_axcodes: what is true.
        true_voxel_mm: what is true.
    """

    size: Sequence[int]
    axcodes: str
    voxel_mm: Sequence[float]
    true_axcodes: str
    true_voxel_mm: Sequence[float]

    def fits(self, affine: np.ndarray, size: Sequence[int]) -> bool:
        """Whether an image has this header, wherever its origin is."""
        if list(size) != list(self.size):
            return False
        return np.allclose(affine[:3, :3], _axes(self.axcodes, self.voxel_mm), atol=SAME)

    def corrected(self, affine: np.ndarray) -> np.ndarray:
        """The true affine, ``(4, 4)``; its origin, which is not known, stays."""
        true = affine.copy()
        true[:3, :3] = _axes(self.true_axcodes, self.true_voxel_mm)
        return true


def read_wrong_headers(metadata: str) -> list[WrongHeader]:
    """Read what a bundle declares.

    Args:
        metadata: its ``metadata.json``; where there is none, nothing is declared.

    Raises:
        InputError: for an entry that is none of `WrongHeader`.
    """
    if not os.path.isfile(metadata):
        return []
    with open(metadata, encoding="utf-8") as file:
        declared = json.load(file).get("wrong_headers", [])
    for entry in declared:
        if entry.keys() != set(WrongHeader._fields):
            raise InputError(
                f"wrong_headers of {metadata} has an entry of {', '.join(sorted(entry))}: expected "
                f"{', '.join(WrongHeader._fields)}"
            )
    return [WrongHeader(**entry) for entry in declared]


def fitting_header(
    headers: Sequence[WrongHeader], affine: np.ndarray, size: Sequence[int]
) -> WrongHeader | None:
    """The entry that an image fits; None where its header is to be taken as it is."""
    for header in headers:
        if header.fits(affine, size):
            return header
    return None


class CorrectHeaderd(MapTransform, InvertibleTransform):
    """Give images the true affine where their header is one that a bundle knows to be wrong.

    The inverse gives results the header of the image's file again.

    Args:
        keys: keys of volumes.
        metadata: the bundle's ``metadata.json``, whose ``wrong_headers`` count.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self, keys: KeysCollection, metadata: str, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.headers = read_wrong_headers(metadata)
        self.told = False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with true affines."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = MetaTensor(result[key])
            before = image.affine.clone()
            affine = np.asarray(before, dtype=float)
            header = fitting_header(self.headers, affine, image.shape[1:])
            if header is not None:
                image.affine = torch.as_tensor(header.corrected(affine)).to(before)
                self._tell(image, header)
            self.push_transform(image, orig_size=image.shape[1:], extra_info={"affine": before})
            result[key] = image
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the affines of the files."""
        result = dict(data)
        for key in self.key_iterator(result):
            info = self.pop_transform(result[key])
            result[key].affine = info[TraceKeys.EXTRA_INFO]["affine"]
        return result

    def _tell(self, image: MetaTensor, header: WrongHeader) -> None:
        if self.told:
            return
        self.told = True
        logger.info(
            "%s has the header of the published crops, which is not true: its axes are taken as "
            "%s, its voxels as %s mm; other images likewise",
            image.meta.get("filename_or_obj", "an image"),
            header.true_axcodes,
            " x ".join(f"{side:g}" for side in header.true_voxel_mm),
        )


def _axes(axcodes: str, voxel_mm: Sequence[float]) -> np.ndarray:
    """Columns of an affine, ``(3, 3)``, in RAS, of straight axes."""
    orientation = axcodes2ornt(tuple(axcodes))  # for each column: axis of the body, direction
    axes = np.zeros((3, 3))
    for column, (row, direction) in enumerate(orientation):
        axes[int(row), column] = direction * voxel_mm[column]
    return axes
