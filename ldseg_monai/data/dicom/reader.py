"""DICOM series as images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from ldseg_monai.data.dicom.frames import FRAME_GROUPS, decoding, group_of, mirrored
from ldseg_monai.data.dicom.series import RESCALE, read_dicom, read_series, slice_affine
from ldseg_monai.data.readers import NiftiReader
from ldseg_monai.runtime.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

SERIES_UID = "dicom_series_uid"  # in the metadata of an image that was read from DICOM


class _Place(NamedTuple):
    """Where a DICOM series is."""

    folder: str
    series_uid: str = ""


class NiftiOrDicomReader(NiftiReader):
    """The reader of volumes that also reads a DICOM series where it is given a folder.

    A series becomes ``(columns, rows, slices)`` in RAS, with the modality's rescaling applied, its
    slices sorted along their normal, be they files or frames of an enhanced image. An item may be
    ``[folder, series_uid]`` where the folder has several. What is no volume is an error (see
    `ldseg_monai.data.sorted_slices`), which MONAI's own readers of DICOM do not raise.

    Args:
        skip_unreadable: whether a series is read without files that cannot be read.
        args, kwargs: of `NiftiReader`.
    """

    def __init__(self, *args: Any, skip_unreadable: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_unreadable = skip_unreadable

    def verify_suffix(self, filename: Any) -> bool:
        """Tell whether the reader is for this file or folder."""
        return os.path.isdir(ensure_tuple(filename)[0]) or super().verify_suffix(filename)

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the paths, or the place of a series."""
        names = super().read(data)
        return _Place(*names) if os.path.isdir(names[0]) else names

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return voxels and metadata.

        Raises:
            ValueError: if a folder has no such series, the series is no volume, or a slice's pixels
                cannot be decoded.
        """
        if not isinstance(img, _Place):
            return super().get_data(img)
        slices = read_series(*img, skip_unreadable=self.skip_unreadable)
        volume = _voxels(slices).transpose(2, 1, 0)  # (columns, rows, slices)
        return volume, {
            MetaKeys.AFFINE: slice_affine(slices),
            MetaKeys.ORIGINAL_AFFINE: slice_affine(slices),
            MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # no channels
            SERIES_UID: str(slices[0].SeriesInstanceUID),
        }


def _voxels(slices: Sequence[Dataset]) -> np.ndarray:
    """Rescaled voxels, float32 ``(slices, rows, columns)``, read file by file.

    Raises:
        ValueError: as of `_pixels`.
    """
    places = defaultdict(list)
    for place, item in enumerate(slices):
        places[item.filename].append(place)
    voxels = np.empty((len(slices), slices[0].Rows, slices[0].Columns), np.float32)
    for path, own in places.items():
        frames = [getattr(slices[place], "frame", 0) for place in own]
        voxels[own] = _pixels(path)[frames]
    return voxels


def _whole_scale(said: Dataset) -> Dataset:
    """What says how values are scaled, with both numbers: pydicom passes over one alone."""
    given = [name for name in RESCALE if said.get(name) not in (None, "")]
    if len(given) != 1 or "ModalityLUTSequence" in said:
        return said
    from pydicom import Dataset

    scale = Dataset()
    scale.RescaleSlope, scale.RescaleIntercept = 1, 0
    scale.add(said[given[0]])
    return scale


def _pixels(path: str) -> np.ndarray:
    """Rescaled pixels of one file, float32 ``(frames, rows, columns)``, the brightest the largest.

    Those of MONOCHROME1, whose largest is the darkest, are mirrored in the range that their bits
    have, before they are rescaled.

    Raises:
        ValueError: for pixels that are no gray, lie in higher bits than the lowest ones, or cannot
            be decoded.
    """
    from pydicom.pixels import apply_modality_lut

    with decoding(path):
        item = read_dicom(path)
        kind = str(item.get("PhotometricInterpretation", "MONOCHROME2"))
        if kind not in ("MONOCHROME1", "MONOCHROME2"):
            raise InputError(
                f"{path} has pixels of the kind {kind}: expected gray, MONOCHROME1 or MONOCHROME2"
            )
        high = item.get("HighBit")
        if high is not None and high != item.get("BitsStored", high + 1) - 1:
            raise InputError(  # pydicom takes the lowest bits, wherever the values are
                f"{path} has HighBit {high} and BitsStored {item.BitsStored}: expected a HighBit "
                f"of {item.BitsStored - 1}; correct it, or write the values anew"
            )
        pixels = item.pixel_array.reshape(-1, item.Rows, item.Columns)
        if kind == "MONOCHROME1":
            pixels = mirrored(pixels, item)
        rescaled = np.empty(pixels.shape, np.float32)
        for number, frame in enumerate(pixels):
            said = item
            if FRAME_GROUPS in item:
                own = item[FRAME_GROUPS].value[number]
                said = group_of(item, own, "PixelValueTransformationSequence")
            rescaled[number] = apply_modality_lut(frame, _whole_scale(said))
        return rescaled
