"""From an inferer's tensor to label maps in the image's own geometry."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Invertd,
    InvertibleTransform,
    MapTransform,
    Transform,
)
from monai.transforms.utils import convert_applied_interp_mode
from monai.utils import ensure_tuple

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.inference.ensemble import case_uncertainty, most_probable_class
from ldseg_monai.runtime.errors import InputError


class SplitPredictiond(MapTransform):
    """Split what `SamplingInferer` returns into a label map and an ensemble's mean and SD maps.

    ``pred`` becomes the most probable class, uint8 ``(1, *spatial)``. For several samples,
    ``pred_mean`` (class probabilities, ``(classes, *spatial)``) and ``pred_sd`` (``(1, *spatial)``)
    appear beside it. Where the samples were kept, so does ``pred_samples`` (class probabilities,
    sample after sample, ``(samples * classes, *spatial)``).

    Args:
        keys: keys of predictions, each ``(classes, *spatial)`` logits, ``(classes + 1, *spatial)``
            of an ensemble, ``(classes + 1 + samples * classes, *spatial)`` of one whose samples
            were kept, or ``(1, *spatial)``, uint8, where an inferer has already chosen the class.
        num_classes: classes, background included.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: if a prediction has another number of channels.
    """

    def __init__(
        self, keys: KeysCollection, num_classes: int, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the keys split."""
        result = dict(data)
        for key in self.key_iterator(result):
            prediction = MetaTensor(
                result[key]
            )  # so that the maps can take the image's geometry when inverted
            channels = prediction.shape[0]
            if channels == 1 and prediction.dtype == torch.uint8:
                result[key] = prediction
                continue
            if not self._fits(channels):
                raise InputError(
                    f"{key} has {channels} channels: expected {self.num_classes} classes, one more "
                    f"for an ensemble, and {self.num_classes} for each sample that it kept; make "
                    "num_classes agree with the network's out_channels"
                )
            of_ensemble = self.num_classes + 1
            classes = prediction[: self.num_classes]
            result[key] = most_probable_class(classes, dim=0)
            if channels > self.num_classes:
                result[f"{key}_mean"] = classes
                result[f"{key}_sd"] = prediction[self.num_classes : of_ensemble]
            if channels > of_ensemble:
                result[f"{key}_samples"] = prediction[of_ensemble:]
        return result

    def _fits(self, channels: int) -> bool:
        """Whether a prediction has as many channels: classes, SD, and those of several samples."""
        samples, rest = divmod(channels - self.num_classes - 1, self.num_classes)
        return channels == self.num_classes or (rest == 0 and samples != 1 and samples >= 0)


class InvertLabeld(Transform):
    """Bring a label map back to the geometry of its image as the file has it.

    MONAI's `Invertd` resizes labels back with PyTorch's ``nearest``, which samples the corner of
    each voxel and so shifts the label by up to half a voxel; ``nearest-exact`` samples the center.

    Args:
        keys: keys of label maps.
        transform: the preprocessing that ``orig_keys`` went through.
        orig_keys: key of the image whose geometry is wanted.
    """

    def __init__(self, keys: KeysCollection, transform: Any, orig_keys: str = "image") -> None:
        self.orig_key = orig_keys
        self.invert = Invertd(
            keys, _invertible(transform, orig_keys), orig_keys=orig_keys, nearest_interp=False
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the label maps inverted, uint8."""
        image = data[self.orig_key]
        operations = [
            convert_applied_interp_mode(
                info, "nearest-exact" if info["class"] == "Resize" else "nearest"
            )
            for info in image.applied_operations
        ]
        relabeled = MetaTensor(image.as_tensor(), meta=image.meta, applied_operations=operations)
        result = self.invert({**data, self.orig_key: relabeled})
        result[self.orig_key] = image
        for key in self.invert.key_iterator(result):
            result[key] = result[key].to(torch.uint8)
        return result


class _Unchangedd(MapTransform, InvertibleTransform):
    """Changes nothing, and so has nothing to invert."""

    def __call__(self, data: Any) -> Any:
        return data

    def inverse(self, data: Any) -> Any:
        """Return the data."""
        return data


def _invertible(transform: Any, key: str) -> Any:
    """A preprocessing for MONAI's `Invertd`, which warns of one that has nothing to invert.

    Pictures that nothing resizes go through such a one.
    """
    if isinstance(transform, Compose):
        steps = transform.flatten().transforms
        if not any(isinstance(step, InvertibleTransform) for step in steps):
            return _Unchangedd(key)
    return transform


class DropSmallObjectsd(MapTransform):
    """Make background of the pieces of a class that are smaller than wanted.

    A piece holds together by sides, as in statistics and GeoJSON. MONAI's `RemoveSmallObjectsd` and
    `KeepLargestConnectedComponentd` need scikit-image, which a bundle runs without, and have one
    number for all classes.

    Args:
        keys: keys of label maps, ``(1, *spatial)``.
        smallest: pixels, or voxels, of the smallest piece that stays, of all classes or one for
            each class from 1 on; 1 keeps all.
        largest_only: classes of which the largest piece alone stays, the first of equal ones.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError: when called, for a label map with more classes than ``smallest`` has numbers.
    """

    def __init__(
        self,
        keys: KeysCollection,
        smallest: int | Sequence[int] = 1,
        largest_only: Sequence[int] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.smallest = smallest
        self.largest_only = largest_only

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` whose label maps have no smaller pieces."""
        result = dict(data)
        for key in self.key_iterator(result):
            if max(ensure_tuple(self.smallest)) > 1 or self.largest_only:
                result[key] = self._without_small(result[key])
        return result

    def _smallest_of(self, index: int) -> int:
        """Pixels or voxels of the smallest piece of a class that stays."""
        if isinstance(self.smallest, int):
            return self.smallest
        if index > len(self.smallest):
            raise InputError(
                f"smallest has {len(self.smallest)} numbers and the label map class {index}: "
                "expected one for each class from 1 on"
            )
        return self.smallest[index - 1]

    def _without_small(self, label: torch.Tensor) -> torch.Tensor:
        from scipy import ndimage  # which takes long to import

        kept = label.clone()
        classes = label[0].cpu().numpy()
        for index in np.unique(classes[classes > 0]).tolist():
            smallest, largest_only = self._smallest_of(index), index in self.largest_only
            if smallest == 1 and not largest_only:
                continue
            pieces, _ = ndimage.label(classes == index)
            sizes = np.bincount(pieces.ravel())
            stays = sizes >= smallest
            stays[0] = True  # what is not of the class
            if largest_only:
                stays[1:] &= np.arange(1, len(sizes)) == 1 + sizes[1:].argmax()
            kept[0][torch.from_numpy(~stays[pieces])] = 0
        return kept


class InvertMapsd(Invertd):
    """MONAI's `Invertd` for scores or the maps of an ensemble, if there are any.

    They are brought back to their image's geometry by interpolation. Where images are resized,
    bring back the scores before `SplitPredictiond` chooses the class: outlines are smooth then.

    Args:
        keys: keys of maps.
        transform: the preprocessing that ``orig_keys`` went through.
        orig_keys: key of the image whose geometry is wanted.
    """

    def __init__(self, keys: KeysCollection, transform: Any, orig_keys: str = "image") -> None:
        super().__init__(
            keys,
            _invertible(transform, orig_keys),
            orig_keys=orig_keys,
            nearest_interp=False,
            allow_missing_keys=True,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the keys that are there inverted."""
        maps = {key: MetaTensor(data[key]) for key in self.keys if key in data}
        return super().__call__({**data, **maps})


class SummarizeUncertaintyd(MapTransform):
    """Say in one number how uncertain a segmentation is.

    A client may ask which image to label next. Where an ensemble has left ``KEY_sd`` beside a label
    map, ``data[result_key]["uncertainty"]`` becomes what `case_uncertainty` says of the two. MONAI
    Label returns all of ``data["result"]`` to its clients. What `CheckKnownImaged` marked is in it
    too.

    Args:
        keys: keys of label maps.
        result_key: key of a dictionary of results, made if there is none.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self, keys: KeysCollection, result_key: str = "result", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.result_key = result_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the number, if there is an SD map."""
        result = dict(data)
        for key in self.key_iterator(result):
            said = dict(result.get(self.result_key, {}))
            if f"{key}_sd" in result:
                said["uncertainty"] = case_uncertainty(result[key], result[f"{key}_sd"])
            outside = getattr(result[key], "meta", {}).get(OUTSIDE)
            if outside:
                said[OUTSIDE] = outside
            if said:
                result[self.result_key] = said
        return result
