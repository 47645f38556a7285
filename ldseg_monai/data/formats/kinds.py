"""The kinds of files that are read, told by their endings in any case."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from ldseg_monai.runtime.errors import InputError, MissingFileError

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")
VOLUME_ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS)
PICTURE_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
TIFF_ENDINGS = (".tif", ".tiff")
SLIDE_ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".bif")  # of scanners; theirs may be TIFF too
PathLike = str | os.PathLike[str]

logger = logging.getLogger("ldseg_monai.data")
_told: set[str] = set()


def is_volume(path: PathLike) -> bool:
    """Whether a file is a volume by its ending; else it is a picture."""
    return os.fspath(path).lower().endswith(VOLUME_ENDINGS)


def tell_once(message: str, kind: str = "") -> None:
    """Warn, unless this process has warned of the same.

    Args:
        message: what to say.
        kind: what the message is about; of each kind the first message alone is said. "" where each
            message is a kind of its own.
    """
    key = kind or message
    if key not in _told:
        _told.add(key)
        logger.warning(message)


def require_file(path: str) -> None:
    """Check that a file is there.

    Raises:
        FileNotFoundError: if it is not.
    """
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: expected a file with an image")
    if not os.path.isfile(path):
        raise MissingFileError(f"there is no file {path}: expected an image")


def unreadable(paths: Sequence[str], error: Exception) -> ValueError:
    """The error for files that a library could not read, with its reason."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{', '.join(paths)} cannot be read ({reason}): expected a whole file of the kind that its "
        "ending says; copy or write it again, or remove it"
    )
