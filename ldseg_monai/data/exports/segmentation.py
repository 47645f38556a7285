"""Label maps as DICOM segmentations whose pixels are the classes: LABELMAP, of Supplement 243.

Beside the BINARY one that a series gets anyway, with a frame for each class and slice. Its SOP
class is one of its own, so that programs which know the older one alone do not read it wrong: they
do not read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ldseg_monai.data.dicom.segmentation import (
    dicom_segmentation,
    mark_outside,
    segment_descriptions,
)
from ldseg_monai.data.exports.label_map import File, LabelMap
from ldseg_monai.data.exports.of_series import file_of_series

if TYPE_CHECKING:
    from pydicom import Dataset


def labelmap_files(label: LabelMap) -> Iterator[File]:
    """The file ``NAME_labelmap.dcm``; where the series cannot take one, a warning instead.

    Raises:
        ValueError: if the label map is not in the geometry of its series.
    """

    def make(slices: Sequence[Dataset]) -> Callable[[str], None]:
        labels = label.voxels.transpose(2, 1, 0)  # (slices, rows, columns)
        descriptions = segment_descriptions(label.metadata, label.output)
        item = dicom_segmentation(labels, slices, descriptions, label.metadata, "LABELMAP")
        mark_outside(item, label.metadata, label.meta)
        return item.save_as

    return file_of_series(label, "labelmap.dcm", "LABELMAP segmentation", make)
