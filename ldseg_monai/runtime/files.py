"""Files that are always whole, and what was written of an image."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from monai.utils import MetaKeys, ensure_tuple

from ldseg_monai.runtime import ownership
from ldseg_monai.runtime.errors import FileError, UserError


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


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str],
    of: str | None = None,
    root: str | os.PathLike[str] | None = None,
    new: bool = False,
) -> Iterator[str]:
    """Let a file be written so that one of its name is always whole, and is nobody else's.

    It is written under a hidden name in the same folder and renamed when it is on the disk.

    Args:
        path: of the file.
        of: what the file is made of, such as the path of an image. None for what the command that
            has the folder works on (see `ldseg_monai.runtime.claim`); where no command has it, as
            where another client writes, nothing is asked and nothing noted.
        root: folder of the note; None for the file's own.
        new: whether there must be no file of this name, also when the file is whole: another
            command may have written one meanwhile.

    Yields:
        The hidden name to write under, with the ending of ``path``.

    Raises:
        FileExistsError: for a file that is there and not this program's, or was changed since;
            where ``new``, for any.
        OSError: if it cannot be written, for example because the disk is full.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    hidden = os.path.join(folder, f"{ownership.PARTIAL}{os.getpid()}.{name}")
    claim = ownership.claim_of(folder)
    if of is None and claim is not None:
        of = claim.of
    try:
        if claim is not None:
            claim.take()
        if of is not None:
            ownership.require_own([path], of, root)
        if new:
            ownership.require_new(path)
        yield hidden
        with open(hidden, "rb") as file:
            # Else a machine that stops may have renamed a file whose content it never wrote.
            os.fsync(file.fileno())
        if new:
            ownership.require_new(path)
        if of is not None:
            ownership.note_written(path, of, hidden, root)
        os.replace(hidden, path)
    except UserError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        Path(hidden).unlink(missing_ok=True)


def save_whole(state: dict, path: str | os.PathLike[str], new: bool = False) -> None:
    """Write a state dict so that a file of this name is always whole.

    Args:
        state: the state dict.
        path: of the file.
        new: as of `whole_file`.

    Raises:
        OSError: as of `whole_file`.
    """
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    with whole_file(path, new=new) as hidden, open(hidden, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # PyTorch's own, as it ends a file that could not be written
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
