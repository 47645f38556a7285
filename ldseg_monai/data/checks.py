"""What is wrong with an image or a label, by its voxels and its place in space."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ldseg_monai.runtime.errors import InputError

OUTSIDE = "outside_of_known"  # in an image's metadata: why the weights do not know it
BYTES = 4  # of a voxel in memory, float32
MAX_SHIFT = 0.5  # voxels between image and label: more, and outlines are wrong


def check_voxels(path: str, image: torch.Tensor, allow_constant: bool = False) -> None:
    """Check that an image shows something, in one pass over its voxels.

    Raises:
        ValueError: if it has no voxels, they are not finite, or all the same.
    """
    if not image.numel():
        raise InputError(
            f"{path} has no voxels (size {list(image.shape)}): expected 1 or more along each axis"
        )
    low, high = (float(value) for value in torch.aminmax(image))
    if not np.isfinite([low, high]).all():  # what is not finite is among the two
        raise InputError(
            f"{path} has voxels that are not finite (NaN or infinity): expected numbers; replace "
            "them"
        )
    if low == high and not allow_constant:
        raise InputError(
            f"every voxel of {path} is {low:g}: expected an image that shows something; remove it"
        )


def check_affine(path: str, affine: np.ndarray) -> None:
    """Check that an affine gives every voxel a place of its own.

    Raises:
        ValueError: if it is not finite, a spacing is 0, or its axes lie in one plane.
    """
    if not np.isfinite(affine).all():
        raise InputError(
            f"{path} has an affine that is not finite: expected mm; correct its header"
        )
    axes = affine[:-1, :-1]
    spacing = np.linalg.norm(axes, axis=0)
    if not (spacing > 0).all():
        raise InputError(
            f"{path} has a voxel spacing of {_numbers(spacing)}: expected positive mm; correct its "
            "header"
        )
    if abs(np.linalg.det(axes / spacing)) < 1e-3:
        raise InputError(
            f"{path} has axes that lie in one plane: expected three directions; correct its header"
        )


def check_memory(path: str, shape: Sequence[int]) -> None:
    """Check, before an image is read, that it fits into this machine's memory.

    Raises:
        ValueError: if it does not.
    """
    if (
        not hasattr(os, "sysconf")
        or not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= os.sysconf_names.keys()
    ):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = BYTES * int(np.prod([int(side) for side in shape], dtype=object))
    if size > memory:
        raise InputError(
            f"{path} has size {[int(side) for side in shape]}, {size / 1e9:.0f} GB in memory: "
            "expected less than this "
            f"machine's {memory / 1e9:.0f} GB; crop or resample it"
        )


def check_place(image_path: str, image: MetaTensor, label_path: str, label: MetaTensor) -> None:
    """Check that a label lies on its image, voxel on voxel.

    Both are ``(C, *spatial)`` as in their files.

    Raises:
        ValueError: if they differ in size, or a voxel's place by more than half a voxel.
    """
    size, other = (list(volume.shape[1:]) for volume in (image, label))
    if size != other:
        raise InputError(
            f"{label_path} has size {other} and its image {image_path} {size}: expected the same"
        )
    affine, label_affine = (np.asarray(volume.affine, dtype=float) for volume in (image, label))
    check_affine(label_path, label_affine)
    shift = largest_shift(affine, label_affine, size)
    if shift > MAX_SHIFT:
        raise InputError(
            f"{label_path} lies up to {shift:.3g} voxels beside its image {image_path}: expected "
            "the affine of the "
            "image; write the label with it"
        )


def largest_shift(affine: np.ndarray, other: np.ndarray, size: Sequence[int]) -> float:
    """Largest distance of a voxel's places by two affines, in voxels of the first: a corner's."""
    dims = len(size)
    corners = np.array(
        [[*corner, 1] for corner in itertools.product(*((0, side - 1) for side in size))],
        dtype=float,
    )
    corners = np.insert(corners, dims, np.zeros((affine.shape[0] - 1 - dims, 1)), axis=1)
    distances = np.linalg.norm((corners @ (affine - other).T)[:, :-1], axis=1)
    return float(distances.max() / np.linalg.norm(affine[:-1, :dims], axis=0).min())


class CheckImaged(MapTransform):
    """Check that images are what a network was made for, right after they are read.

    Any size will do: what is smaller than the network's window is padded or resized, what is larger
    goes through it in windows or is resized.

    Args:
        keys: keys of images, ``(C, *spatial)``.
        spatial_dims: axes of an image, 2 or 3.
        channels: channels that the network takes.
        allow_constant: whether all voxels may be the same, as in a part of a picture.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_dims: int,
        channels: int,
        allow_constant: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.allow_constant = allow_constant
        self.spatial_dims = spatial_dims
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` as it is.

        Raises:
            ValueError: for another number of axes or channels, an affine that no image has, or
                voxels that are not finite or all the same.
        """
        for key in self.key_iterator(dict(data)):
            image = MetaTensor(data[key])
            path = _path(image, key)
            if image.ndim - 1 != self.spatial_dims:
                raise InputError(
                    f"{path} has {image.ndim - 1} axes, of size {list(image.shape[1:])}: expected "
                    f"{self.spatial_dims}"
                )
            if image.shape[0] != self.channels:
                raise InputError(
                    f"{path} has {image.shape[0]} channels: expected {self.channels}; choose one, "
                    "or a bundle of such "
                    "images"
                )
            check_affine(path, np.asarray(image.affine, dtype=float))
            check_voxels(path, image.as_tensor(), self.allow_constant)
        return dict(data)


class CheckLabeld(MapTransform):
    """Check that labels hold class indices and lie on their images, before anything is resampled.

    A label without any class is no error, since what is looked for may be absent.

    Args:
        keys: keys of labels, ``(1, *spatial)``.
        num_classes: classes, background included.
        image_key: key of the image.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_classes: int,
        image_key: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.num_classes = num_classes
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` as it is.

        Raises:
            ValueError: for several channels, another size or place than the image's, or values that
                are no class.
        """
        for key in self.key_iterator(dict(data)):
            label, image = MetaTensor(data[key]), MetaTensor(data[self.image_key])
            path = _path(label, key)
            if label.shape[0] != 1:
                raise InputError(
                    f"{path} has {label.shape[0]} channels: expected 1, with a class index in each "
                    "voxel"
                )
            check_place(_path(image, self.image_key), image, path, label)
            self._check_values(path, label.as_tensor())
        return dict(data)

    def _check_values(self, path: str, label: torch.Tensor) -> None:
        low, high = (float(value) for value in torch.aminmax(label))
        whole = not label.is_floating_point() or torch.equal(
            label, label.round()
        )  # NaN is not equal to itself
        if whole and low >= 0 and high < self.num_classes:
            return
        values = label.unique()
        classes = torch.arange(self.num_classes).to(values)
        unknown = values[~torch.isin(values, classes)].tolist()
        raise InputError(
            f"{path} has the values {', '.join(f'{value:g}' for value in unknown[:5])}"
            f"{', ...' if len(unknown) > 5 else ''}: expected only classes, 0 to "
            f"{self.num_classes - 1}; correct the "
            "file, or num_classes"
        )


def _path(volume: MetaTensor, key: Hashable) -> str:
    """The file that a volume was read from, or its key where it comes from none."""
    return str(volume.meta.get("filename_or_obj") or key)


def _numbers(values: np.ndarray) -> str:
    return " x ".join(f"{value:g}" for value in values)
