"""One transform that reads an image and its label, makes classes of the label, and checks both.

Their class names hold `LoadImage`, and they are derived from MONAI's `LoadImaged`: MONAI Deploy
tells by the name what reads files, MONAI Label by the class.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader
from monai.transforms import AsDiscreted, CastToTyped, LoadImaged, MapTransform
from monai.utils import ensure_tuple

from ldseg_monai.data.checks import CheckImaged, CheckLabeld
from ldseg_monai.data.client_results import prepare_client_result
from ldseg_monai.data.dicom.reader import NiftiOrDicomReader
from ldseg_monai.data.formats import LabelReading
from ldseg_monai.data.readers import (
    LabelPictureReader,
    LabelVolumeReader,
    NiftiReader,
    PictureReader,
)
from ldseg_monai.data.transforms import ClassIndicesd
from ldseg_monai.runtime.errors import InputError


@contextmanager
def without_codec_warning() -> Iterator[None]:
    """Silence one warning while MONAI's `LoadImage` is built.

    Beside the reader that it is given it builds all of its own (MONAI 1.6), and that of NVIDIA's
    codec warns where the codec is not installed, though nothing asked for it.
    """
    codec = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = codec.level
    codec.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "NvImgCodecPydicomReader")
            yield
    finally:
        codec.setLevel(level)


class LoadChecked(LoadImaged):
    """Read an image and perhaps its label, and check them.

    Args:
        keys: key of the image and, where labels are read, that of the label.
        reader: of the image.
        label_reader: makes the reader of the label from what is known of its values.
        check: of the image.
        num_classes: classes, background included; only where labels are read.
        label_values: values in label files that become the classes 0, 1..., numbers or colors such
            as ``#800000``; None where they are the classes.
        instances: whether labels are instance ids: whatever is not 0 is class 1.

    Raises:
        ValueError: if there is a label's key but no `num_classes`, or both `label_values` and
            `instances`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reader: Any,
        label_reader: Callable[[LabelReading], Any],
        check: CheckImaged,
        num_classes: int | None,
        label_values: Sequence[int | str] | None,
        instances: bool,
    ) -> None:
        image_key, *label_keys = ensure_tuple(keys)
        self.image_key = image_key
        self.after: list[MapTransform] = [check]
        with without_codec_warning():
            super().__init__(image_key, reader=reader, ensure_channel_first=True)
        if not label_keys:
            return
        if num_classes is None:
            raise InputError(
                f"keys {[image_key, *label_keys]} without num_classes: expected the number of "
                "classes, background included, where labels are read"
            )
        if label_values is not None and instances:
            raise InputError(
                f"label_values {list(label_values)} and instances: expected one of them; labels "
                "are classes or instance ids"
            )
        known: Sequence[int | str] | None = label_values
        if known is None and not instances:
            known = range(num_classes)
        read_label = label_reader(LabelReading(known, instances))
        with without_codec_warning():
            load_label = LoadImaged(
                label_keys, reader=read_label, dtype=np.int32, ensure_channel_first=True
            )
        to_classes: list[MapTransform] = []
        if label_values is not None:
            to_classes = [ClassIndicesd(label_keys, label_values)]
        if instances:
            to_classes = [AsDiscreted(label_keys, threshold=0.5)]
        check_label = CheckLabeld(label_keys, num_classes, image_key)
        as_bytes = CastToTyped(label_keys, torch.uint8)
        self.after = [load_label, *to_classes, check, check_label, as_bytes]

    def __call__(
        self, data: Mapping[Hashable, Any], reader: ImageReader | None = None
    ) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with the image and the label read.

        The image is float32 ``(C, *spatial)``, the label uint8 ``(1, *spatial)``.

        Raises:
            ValueError, FileNotFoundError: as of the readers, `CheckImaged`, `ClassIndicesd`,
                `CheckLabeld` and `prepare_client_result`.
        """
        result = super().__call__(data, reader)
        for step in self.after:
            result = step(result)
        prepare_client_result(result, result[self.image_key])
        return result


class LoadImageVolumed(LoadChecked):
    """Read and check a volume, and perhaps its label: NIfTI, MHA, NRRD, or a DICOM series.

    Args:
        keys: key of the image and, where labels are read, that of the label.
        channels: channels that the network takes.
        num_classes: classes, background included; only where labels are read.
        label_values: values in label files that become the classes 0, 1...; None where they are
            the classes.
        instances: whether labels are instance ids: whatever is not 0 is class 1.
        dicom: whether the image may be a folder with a DICOM series.
        skip_unreadable: whether a DICOM series is read without files that cannot be read.
        allow_constant: whether all voxels of the image may be the same.
        require_codes: whether a NIfTI without a form code, which does not say where right and left
            are, is an error.

    Raises:
        ValueError: if there is a label's key but no `num_classes`, or both `label_values` and
            `instances`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: int = 1,
        num_classes: int | None = None,
        label_values: Sequence[int | str] | None = None,
        instances: bool = False,
        dicom: bool = False,
        skip_unreadable: bool = False,
        allow_constant: bool = False,
        require_codes: bool = False,
    ) -> None:
        reader = (
            NiftiOrDicomReader(require_codes, skip_unreadable=skip_unreadable)
            if dicom
            else NiftiReader(require_codes)
        )
        check = CheckImaged(ensure_tuple(keys)[0], 3, channels, allow_constant)
        label_reader = partial(LabelVolumeReader, require_codes=require_codes)
        super().__init__(keys, reader, label_reader, check, num_classes, label_values, instances)


class LoadImagePictured(LoadChecked):
    """Read and check a picture, and perhaps its label.

    Args:
        keys: key of the image and, where labels are read, that of the label.
        mode: what every picture is converted to, as Pillow names it: `RGB` for three channels of 8
            bits, `L` for one, `I` for one of more bits.
        num_classes: classes, background included; only where labels are read.
        label_values: values in label files that become the classes 0, 1..., numbers or colors such
            as ``#800000``; None where they are the classes.
        instances: whether labels are instance ids: whatever is not 0 is class 1.
        allow_constant: whether all pixels of the image may be the same, as in a part of a picture.

    Raises:
        ValueError: for an unknown mode, if there is a label's key but no `num_classes`, or both
            `label_values` and `instances`.
    """

    CHANNELS = {"RGB": 3, "L": 1, "I": 1}

    def __init__(
        self,
        keys: KeysCollection,
        mode: str = "RGB",
        num_classes: int | None = None,
        label_values: Sequence[int | str] | None = None,
        instances: bool = False,
        allow_constant: bool = False,
    ) -> None:
        if mode not in self.CHANNELS:
            raise InputError(f"mode {mode!r}: expected one of {', '.join(self.CHANNELS)}")
        check = CheckImaged(ensure_tuple(keys)[0], 2, self.CHANNELS[mode], allow_constant)
        super().__init__(
            keys,
            PictureReader(mode),
            LabelPictureReader,
            check,
            num_classes,
            label_values,
            instances,
        )
