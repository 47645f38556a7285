"""Files that an evaluation writes of a case, beside those of its segmentation."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from ldseg_monai.data.names import case_name
from ldseg_monai.runtime.errors import ExistingFileError
from ldseg_monai.runtime.files import note_saved, whole_file
from ldseg_monai.runtime.ownership import place_of

logger = logging.getLogger("ldseg_monai.evaluation")


class MeasureCased(MapTransform):
    """What transforms that measure a segmentation and write it down have in common.

    Args:
        keys: key of the label map, in the geometry of the image.
        output_dir: folder of the files.
        class_names: of the classes from 0 on, which is the background.
        image_key: key of the image in the same geometry, with the values of its file.
    """

    what = "measurements"  # for a message

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        class_names: Mapping[int, str],
        image_key: str = "original",
    ) -> None:
        super().__init__(keys)
        self.output_dir = output_dir
        self.class_names = class_names
        self.image_key = image_key

    def write(self, label: Any, ending: str, content: bytes) -> None:
        """Write ``NAME_ENDING`` of a case, and note it in the label's metadata.

        A file of this name that this program did not write is kept as it is, which is told.

        Args:
            label: label map with the metadata of its image.
            ending: what follows the case's name.
            content: of the file.

        Raises:
            OSError: if it cannot be written.
        """
        file = os.path.join(self.output_dir, f"{case_name(label.meta)}_{ending}")
        os.makedirs(self.output_dir, exist_ok=True)
        try:
            with whole_file(file, place_of(label.meta["filename_or_obj"])) as hidden:
                with open(hidden, "wb") as opened:
                    opened.write(content)
        except ExistingFileError:
            logger.warning(
                "%s is kept as it is, since this program did not write it so: no %s of this "
                "segmentation",
                file,
                self.what,
            )
        else:
            note_saved(label, file)
