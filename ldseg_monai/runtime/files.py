"""Files that are always whole, and what was written of an image."""

from __future__ import annotations

import os
from typing import Any

import torch
from monai.utils import MetaKeys, ensure_tuple

from ldseg_monai.runtime.errors import FileError


def note_saved(image: Any, path: str | os.PathLike[str]) -> None:
    """Add a file to those in an image's metadata, where MONAI's `SaveImage` notes its own."""
    if hasattr(image, "meta"):
        image.meta[MetaKeys.SAVED_TO] = [*saved_files(image), os.fspath(path)]


def saved_files(image: Any) -> list[str]:
    """The files that the metadata of an image names as written of it."""
    return [
        os.fspath(path)
        for path in ensure_tuple(getattr(image, "meta", {}).get(MetaKeys.SAVED_TO) or ())
    ]


def unwritable(path: Any, error: OSError) -> OSError:
    """The error for a file that could not be written.

    Python's own names the file only if it cannot be opened.
    """
    return FileError(
        error.errno,
        f"{os.fspath(path)} cannot be written ({error.strerror or error}): make room, or choose "
        "another output_dir",
    )


def save_whole(state: dict, path: str) -> None:
    """Write a state dict so that a file of this name is always whole.

    Raises:
        OSError: if it cannot be written, for example because the disk is full.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(f"{path}.partial", "wb") as file:
            torch.save(state, file)
            file.flush()
            # Else a machine that stops may have renamed a file whose content it never wrote.
            os.fsync(file.fileno())
        os.replace(f"{path}.partial", path)
    except OSError as error:
        raise unwritable(path, error) from error
