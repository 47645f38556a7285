"""Transforms of images and labels that MONAI lacks."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    InvertibleTransform,
    MapTransform,
    RandomizableTransform,
    Spacing,
)
from monai.utils import TraceKeys, convert_to_tensor

from ldseg_monai.data.formats import value_name, value_names, value_number
from ldseg_monai.data.resampling import resample
from ldseg_monai.runtime.errors import InputError

logger = logging.getLogger("ldseg_monai.data")


class ClassIndicesd(MapTransform):
    """Turn the values of label files into class indices, and refuse a value that is none of them.

    MONAI's `MapLabelValued` would let an unknown value pass as the class of the same number.

    Args:
        keys: keys of labels.
        label_values: value of the background and of each class, a number or a color such as
            ``#800000``; the first becomes 0, the next 1...
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_values: Sequence[int | str],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        numbers = torch.tensor([value_number(value) for value in label_values])
        if len(numbers.unique()) < len(numbers):
            raise InputError(
                f"label_values {list(label_values)}: expected a different value for each class"
            )
        self.label_values, self.classes = numbers.sort()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with class indices, int64.

        Raises:
            ValueError: for a value that is no class.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            label = MetaTensor(result[key])
            values = label.as_tensor().contiguous()
            indices = torch.bucketize(values, self.label_values.to(values)).clamp(
                max=len(self.label_values) - 1
            )
            unknown = values[self.label_values[indices] != values].unique().tolist()
            if unknown:
                expected = [value_name(value) for value in self.label_values.tolist()]
                raise InputError(
                    f"{key} {label.meta.get('filename_or_obj', '')} has the values "
                    f"[{value_names(unknown)}]: expected only [{', '.join(expected)}]; correct the "
                    "file, or label_values"
                )
            result[key] = MetaTensor(
                self.classes[indices], meta=label.meta, applied_operations=label.applied_operations
            )
        return result


class VoxelSpacingd(MapTransform, InvertibleTransform):
    """Resample images to a voxel size.

    MONAI's `Spacingd` fails beside entries that merely begin with a key's name, such as MONAI
    Label's ``image_path``, and takes ten times the memory.

    Args:
        keys: keys of images.
        pixdim: size of a voxel along each axis in mm; None for that of each image.
        mode: interpolation.
        allow_missing_keys: whether a missing key is passed over.
        tolerance: share of ``pixdim`` by which the size of a voxel may differ, so that the image is
            left as it is; None for none.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float] | None,
        mode: str = "bilinear",
        allow_missing_keys: bool = False,
        tolerance: float | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixdim = pixdim
        self.mode = mode
        self.tolerance = tolerance
        self.spacing = Spacing(pixdim or 1.0, mode=mode, lazy=True)
        self.told = False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the images resampled."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = cast(MetaTensor, convert_to_tensor(result[key], track_meta=True))
            if self._fits(image):
                result[key] = image
                unchanged: dict[str, Any] = {"mode": self.mode, "affine": None}
                self.push_transform(image, orig_size=image.shape[1:], extra_info=unchanged)
                continue
            planned = cast(MetaTensor, self.spacing(image))
            size = [int(side) for side in planned.peek_pending_shape()]
            result[key] = resample(image, planned.peek_pending_affine(), size, self.mode)
            before = {"mode": self.mode, "affine": image.affine}
            self.push_transform(result[key], orig_size=image.shape[1:], extra_info=before)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the images brought back."""
        result = dict(data)
        for key in self.key_iterator(result):
            info = self.pop_transform(result[key])
            before = info[TraceKeys.EXTRA_INFO]
            if before["affine"] is None:
                continue
            result[key] = resample(
                result[key], before["affine"], info[TraceKeys.ORIG_SIZE], before["mode"]
            )
        return result

    def _fits(self, image: MetaTensor) -> bool:
        """Whether an image is left as it is; where it is the first that is not, say so."""
        if self.pixdim is None:
            return True
        if self.tolerance is None:
            return False
        size = image.pixdim.double()[: len(self.pixdim)]
        wanted = torch.tensor(self.pixdim, dtype=torch.double)
        if bool(((size - wanted).abs() <= self.tolerance * wanted).all()):
            return True
        if not self.told:
            self.told = True
            logger.warning(
                "%s has voxels of %s mm: resampled to the %s mm that the weights know, and the "
                "result back; other images likewise",
                image.meta.get("filename_or_obj", "an image"),
                " x ".join(f"{side:.3g}" for side in size.tolist()),
                " x ".join(f"{side:g}" for side in self.pixdim),
            )
        return False


class RandStaind(RandomizableTransform, MapTransform):
    """Change how strongly a slide of H&E is stained, at random (Tellez et al., 2018).

    The picture is separated into what hematoxylin, eosin and a rest absorb (Ruifrok and Johnston,
    2001); each amount is scaled and shifted, and the picture put together again.

    Args:
        keys: keys of RGB pictures, ``(3, *spatial)``, 0 to 255.
        prob: probability of a change.
        sigma: largest change: amounts are multiplied by ``1 - sigma`` to ``1 + sigma`` and shifted
            by ``-sigma`` to ``sigma`` of an optical density of 1.
        allow_missing_keys: whether a missing key is passed over.
    """

    ABSORPTION = (
        (0.65, 0.70, 0.29),
        (0.07, 0.99, 0.11),
        (0.27, 0.57, 0.78),
    )  # of each stain in red, green, blue

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        sigma: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.sigma = sigma

    def randomize(self, data: Any = None) -> None:
        """Draw whether, how much to scale and how much to shift."""
        super().randomize(None)
        self.scale = self.R.uniform(1 - self.sigma, 1 + self.sigma, 3)
        self.shift = self.R.uniform(-self.sigma, self.sigma, 3)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the pictures stained anew.

        Raises:
            ValueError: for a picture without three channels.
        """
        result = dict(data)
        self.randomize()
        if not self._do_transform:
            return result
        for key in self.key_iterator(result):
            picture = result[key]
            if picture.shape[0] != 3:
                raise InputError(
                    f"{key} has {picture.shape[0]} channels: expected red, green and blue"
                )
            stains = torch.tensor(self.ABSORPTION, dtype=torch.float32)
            stains = stains / stains.norm(dim=1, keepdim=True)
            change = (
                torch.linalg.inv(stains)
                @ torch.diag(torch.as_tensor(self.scale, dtype=torch.float32))
                @ stains
            )
            offset = torch.as_tensor(self.shift, dtype=torch.float32) @ stains
            density = -torch.log((picture.float() + 1) / 256)
            changed = torch.einsum("c...,cd->d...", density, change) + offset.reshape(
                [3] + [1] * (picture.ndim - 1)
            )
            result[key] = (256 * torch.exp(-changed) - 1).clamp(0, 255)
        return result
