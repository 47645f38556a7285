"""DICOM objects that refer to the series that they are of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ldseg_monai.data.dicom.reader import SERIES_UID
from ldseg_monai.data.dicom.segmentation import check_geometry
from ldseg_monai.data.dicom.series import read_series
from ldseg_monai.data.exports.label_map import File, LabelMap
from ldseg_monai.runtime.errors import one_line, printable

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger("ldseg_monai.data.exports.of_series")


def file_of_series(
    label: LabelMap,
    ending: str,
    what: str,
    make: Callable[[Sequence[Dataset]], Callable[[str], None]],
) -> Iterator[File]:
    """The file of an object of a DICOM series; where it cannot take one, a warning instead.

    Args:
        label: of the series.
        ending: of the file's name.
        what: the object is called.
        make: the object of the series' slices; returns what writes it to a path.

    Raises:
        ValueError: if the label map is not in the geometry of its series.
    """
    folder = label.meta["filename_or_obj"]
    # Files that cannot be read are left out: the reader has answered for them.
    slices = read_series(folder, label.meta[SERIES_UID], skip_unreadable=True)
    check_geometry(label.voxels.shape, label.affine, slices)
    write = None
    try:
        write = make(slices)
    except Exception as error:  # libraries raise many kinds for headers that they refuse
        logger.warning(
            "no %s of %s can be written (%s): the result is in the other files",
            what,
            printable(str(folder)),
            printable(one_line(error)),
        )
    yield ending, write
