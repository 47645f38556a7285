"""Label maps of volumes as MHA and NRRD."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.exports.label_map import File, LabelMap
from ldseg_monai.runtime.files import unwritable


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
    save_itk(image, path)


def save_itk(image: Any, path: str) -> None:
    """Write an image of SimpleITK, compressed, and read it back.

    On a disk that is full ITK may write half a file, and say nothing.

    Raises:
        OSError: if what is in the file is not the image.
    """
    import SimpleITK as sitk

    try:
        sitk.WriteImage(image, path, useCompression=True)
        written = sitk.GetArrayFromImage(sitk.ReadImage(path))
        whole = np.array_equal(written, sitk.GetArrayViewFromImage(image))
    except RuntimeError:  # ITK's own
        whole = False
    if not whole:
        raise unwritable(path, OSError(errno.EIO, "not all of it, as on a disk that is full"))
