"""Label maps of volumes as MHA and NRRD."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.exports.label_map import File, LabelMap


def itk_files(label: LabelMap, ending: str) -> Iterator[File]:
    """The file ``NAME_label`` with class indices.

    Args:
        label: of a volume.
        ending: of the file, ``mha`` or ``nrrd``.
    """
    yield f"label.{ending}", partial(write_itk, label)


def write_itk(label: LabelMap, path: str) -> None:
    """Write class indices by SimpleITK, compressed, in mm left, posterior, superior."""
    import SimpleITK as sitk

    axes = label.lps[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(label.voxels.T))  # slices, rows, columns
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(label.lps[:3, 3].tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    if label.remark:
        image.SetMetaData(OUTSIDE, label.remark)
    sitk.WriteImage(image, path, useCompression=True)
