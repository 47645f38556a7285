"""Files that an evaluation writes of a case, beside those of its segmentation."""

from __future__ import annotations

import logging
import os
from typing import Any

from ldseg_monai.data.names import case_name
from ldseg_monai.runtime.errors import ExistingFileError
from ldseg_monai.runtime.files import note_saved, whole_file
from ldseg_monai.runtime.ownership import place_of

logger = logging.getLogger("ldseg_monai.evaluation")


def write_case_file(label: Any, output_dir: str, ending: str, content: bytes, what: str) -> None:
    """Write ``NAME_ENDING`` of a case, and note it in the label's metadata.

    A file of this name that this program did not write is kept as it is, which is told.

    Args:
        label: label map with the metadata of its image.
        output_dir: folder of the file, made if it is not there.
        ending: what follows the case's name.
        content: of the file.
        what: what the file is, for the message.

    Raises:
        OSError: if it cannot be written.
    """
    file = os.path.join(output_dir, f"{case_name(label.meta)}_{ending}")
    os.makedirs(output_dir, exist_ok=True)
    try:
        with whole_file(file, place_of(label.meta["filename_or_obj"])) as hidden:
            with open(hidden, "wb") as opened:
                opened.write(content)
    except ExistingFileError:
        logger.warning(
            "%s is kept as it is, since this program did not write it so: no %s of this "
            "segmentation",
            file,
            what,
        )
    else:
        note_saved(label, file)
