"""Label maps as DICOM segmentations whose pixels are the classes: LABELMAP, of Supplement 243.

Beside the BINARY one that a series gets anyway, with a frame for each class and slice. Its SOP
class is one of its own, so that programs which know the older one alone do not read it wrong: they
do not read it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ldseg_monai.data.dicom.reader import SERIES_UID
from ldseg_monai.data.dicom.segmentation import (
    check_geometry,
    dicom_segmentation,
    mark_outside,
    segment_descriptions,
)
from ldseg_monai.data.dicom.series import read_series
from ldseg_monai.data.exports.label_map import File, LabelMap
from ldseg_monai.runtime.errors import one_line, printable

logger = logging.getLogger("ldseg_monai.data.exports.segmentation")


def labelmap_files(label: LabelMap) -> Iterator[File]:
    """The file ``NAME_labelmap.dcm``; where the series cannot take one, a warning instead.

    Raises:
        ValueError: if the label map is not in the geometry of its series.
    """
    folder = label.meta["filename_or_obj"]
    # Files that cannot be read are left out: the reader has answered for them.
    slices = read_series(folder, label.meta[SERIES_UID], skip_unreadable=True)
    check_geometry(label.voxels.shape, label.affine, slices)
    write = None
    try:
        labels = label.voxels.transpose(2, 1, 0)  # (slices, rows, columns)
        descriptions = segment_descriptions(label.metadata, label.output)
        item = dicom_segmentation(labels, slices, descriptions, label.metadata, "LABELMAP")
        mark_outside(item, label.metadata, label.meta)
        write = item.save_as
    except Exception as error:  # highdicom raises many kinds for headers that it refuses
        logger.warning(
            "no LABELMAP segmentation of %s can be written (%s): the result is in the other files",
            printable(str(folder)),
            printable(one_line(error)),
        )
    yield "labelmap.dcm", write
