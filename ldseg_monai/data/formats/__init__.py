"""What a file is, and what it holds: the one place that every command asks.

Training, evaluation, inference, strips, new-bundle, calibrate and the clients all read images and
labels through these functions, so that what one of them takes, the others take too.
"""

from ldseg_monai.data.formats.detached import data_files, voxel_files
from ldseg_monai.data.formats.kinds import (
    PICTURE_ENDINGS,
    SLIDE_ENDINGS,
    TIFF_ENDINGS,
    VOLUME_ENDINGS,
    is_volume,
    tell_once,
    unreadable,
)
from ldseg_monai.data.formats.labels import (
    COLOR,
    LabelReading,
    label_picture,
    value_counts,
    value_name,
    value_names,
    value_number,
)
from ldseg_monai.data.formats.pictures import MICROMETERS, in_mode, is_deep, load_picture
from ldseg_monai.data.formats.slides import Slide, Tissue, is_slide, is_stack
from ldseg_monai.data.formats.volumes import (
    Volume,
    forms_text,
    header_with_forms,
    least_shift,
    load_volume,
    read_voxels,
    readings,
    spread,
)

UNKNOWN_SIDES = "unknown_sides"  # in the metadata of a volume: that nothing says where its left is
FORMS = "nifti_forms"  # in the metadata of an image that was read from NIfTI: `forms_text`

__all__ = [
    "COLOR",
    "FORMS",
    "LabelReading",
    "MICROMETERS",
    "PICTURE_ENDINGS",
    "SLIDE_ENDINGS",
    "Slide",
    "TIFF_ENDINGS",
    "Tissue",
    "UNKNOWN_SIDES",
    "VOLUME_ENDINGS",
    "Volume",
    "data_files",
    "forms_text",
    "header_with_forms",
    "in_mode",
    "is_deep",
    "is_slide",
    "is_stack",
    "is_volume",
    "label_picture",
    "least_shift",
    "load_picture",
    "load_volume",
    "read_voxels",
    "readings",
    "spread",
    "tell_once",
    "unreadable",
    "value_counts",
    "value_name",
    "value_names",
    "value_number",
    "voxel_files",
]
