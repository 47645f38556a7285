"""What is wrong with an image or a label, by its voxels and its place in space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys

from ldseg_monai.data.formats import FORMS, least_shift, readings, tell_once, value_names
from ldseg_monai.data.formats.geometry import check_affine, largest_shift
from ldseg_monai.runtime.errors import InputError

OUTSIDE = "outside_of_known"  # in an image's metadata: why the weights do not know it
MARK = "outside of known images"  # what a file with such a segmentation begins its remark with
LARGEST = 1e15  # of a voxel: squares of more leave float32, and the image would become 0
SMALLEST = 1e-15  # of the difference between voxels, for the same reason
STEPS = 100  # of float32, at least, from the darkest voxel to the brightest
MAX_SHIFT = 0.5  # voxels between image and label: more, and outlines are wrong


def remark(meta: Mapping[Any, Any] | None) -> str:
    """What a file with a result says of its image: why the weights do not know it, "" if they do.

    Args:
        meta: of the image, or of what was made of it.
    """
    why = (meta or {}).get(OUTSIDE)
    return f"{MARK}: {why}" if why else ""


def check_voxels(path: str, image: torch.Tensor, allow_constant: bool = False) -> None:
    """Check that an image shows something, in one pass over its voxels.

    Raises:
        ValueError: if it has no voxels, they are not finite, too large, or all the same.
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
    if max(-low, high) > LARGEST:
        raise InputError(
            f"{path} has voxels from {low:g} to {high:g}: expected up to {LARGEST:g}, of which a "
            "mean can be taken; replace those that are no measurement"
        )
    if allow_constant:
        return
    if low == high:
        raise InputError(
            f"every voxel of {path} is {low:g}: expected an image that shows something; remove it"
        )
    step = float(np.spacing(np.float32(max(-low, high))))
    if high - low < max(SMALLEST, STEPS * step):
        raise InputError(
            f"{path} has voxels from {low:.9g} to {high:.9g}, a difference that is lost in 32 "
            "bits: expected an image that shows something; scale it, or subtract what all have"
        )


def check_channels(path: str, image: torch.Tensor, allow_constant: bool = False) -> None:
    """Check that each channel of a volume ``(C, *spatial)`` shows something.

    Raises:
        ValueError: as of `check_voxels`, which names the channel where there are several.
    """
    for number, channel in enumerate(image):
        what = path if len(image) == 1 else f"channel {number} of {path}"
        check_voxels(what, channel, allow_constant)


def check_place(
    image_path: str, image: MetaTensor, label_path: str, label: MetaTensor
) -> MetaTensor:
    """Check that a label lies on its image, voxel on voxel.

    Both are ``(C, *spatial)`` as in their files. Where a header has two forms, or no code, one of
    its affines has to fit.

    Returns:
        The label, with the image's affine where another than the one that is used here fits.

    Raises:
        ValueError: if they differ in size, or a voxel's place by more than half a voxel.
    """
    places = []
    for volume in (image, label):
        size = volume.shape[1:]
        affine = np.asarray(volume.affine, dtype=float)
        places.append((size, readings(affine, volume.meta.get(FORMS), size)))
    check_affine(label_path, places[1][1][0])
    if require_one_place(image_path, *places[0], label_path, *places[1]):
        return label
    meta = {**label.meta, MetaKeys.AFFINE: image.affine, MetaKeys.ORIGINAL_AFFINE: image.affine}
    return MetaTensor(label.as_tensor(), meta=meta, applied_operations=label.applied_operations)


def require_one_place(
    image_path: str,
    size: Sequence[int],
    image_readings: Sequence[np.ndarray],
    label_path: str,
    label_size: Sequence[int],
    label_readings: Sequence[np.ndarray],
) -> bool:
    """Check that a label lies on its image: the rule of every command.

    Args:
        image_path: of the image's file.
        size: of its spatial axes.
        image_readings: the affines by which programs may see it, as of `readings`.
        label_path: of the label's file.
        label_size: of its spatial axes.
        label_readings: as of the image.

    Returns:
        Whether the affines that are used here fit; else others do, which is said.

    Raises:
        ValueError: if they differ in size, or a voxel's place by more than half a voxel.
    """
    if list(size) != list(label_size):
        raise InputError(
            f"{label_path} has size {list(label_size)} and its image {image_path} {list(size)}: "
            "expected the same; write the label on the voxels of its image"
        )
    shift = largest_shift(image_readings[0], label_readings[0], size)
    if shift <= MAX_SHIFT:
        return True
    if least_shift(image_readings, label_readings, size) > MAX_SHIFT:
        raise InputError(
            f"{label_path} lies up to {shift:.3g} voxels beside its image {image_path}: expected "
            "the affine of the image; write the label with it"
        )
    tell_once(f"{label_path} lies on its image {image_path} by another form of a header: taken so")
    return False


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
                advice = "choose one" if self.channels == 1 else "give a file of each"
                raise InputError(
                    f"{path} has {image.shape[0]} channels: expected {self.channels}; {advice}, or "
                    "take a bundle of such images"
                )
            check_affine(path, np.asarray(image.affine, dtype=float))
            if self.spatial_dims == 2:  # of which a color may be the same everywhere
                check_voxels(path, image.as_tensor(), self.allow_constant)
            else:
                check_channels(path, image.as_tensor(), self.allow_constant)
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
        """Return a copy of ``data``, with the label's affine as of `check_place`.

        Raises:
            ValueError: for several channels, another size or place than the image's, or values that
                are no class.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            label, image = MetaTensor(data[key]), MetaTensor(data[self.image_key])
            path = _path(label, key)
            if label.shape[0] != 1:
                raise InputError(
                    f"{path} has {label.shape[0]} channels: expected 1, with a class index in each "
                    "voxel"
                )
            placed = check_place(_path(image, self.image_key), image, path, label)
            self._check_values(path, label.as_tensor())
            if placed is not label:
                result[key] = placed
        return result

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
            f"{path} has the values {value_names(unknown)}: expected only classes, 0 to "
            f"{self.num_classes - 1}; correct the file, or num_classes, or name its values in "
            "label_values"
        )


def _path(volume: MetaTensor, key: Hashable) -> str:
    """The file that a volume was read from, or its key where it comes from none."""
    return str(volume.meta.get("filename_or_obj") or key)
