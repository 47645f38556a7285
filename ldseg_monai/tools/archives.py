"""Zip archives of images or of a bundle, as folders."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ldseg_monai.data.datalist import folders_in
from ldseg_monai.data.formats.kinds import unreadable
from ldseg_monai.data.leftovers import is_beside, is_hidden
from ldseg_monai.data.names import EXTENSIONS
from ldseg_monai.runtime.errors import BusyFolderError, InputError
from ldseg_monai.runtime.ownership import Claim
from ldseg_monai.runtime.shown import told_as

ZIP = ".zip"
DEEPEST = 3  # archives in archives
PART = 1 << 20  # bytes that are read at once
OF_WINDOWS = 0  # in an entry of a zip: what made it
DIGITS = 16  # of the digest that an archive's folder is called by


@contextlib.contextmanager
def unpacked(path: str | os.PathLike[str]) -> Iterator[str]:
    """A folder with what a zip holds, archives in it unpacked too; anything else is itself.

    It lies in the user's cache (``XDG_CACHE_HOME``), readable by the user alone, and is removed at
    the end. Its place depends on the archive's path and content alone, so that a second run finds
    the images where the first one did; only of two at the same time, one has another.

    Args:
        path: of the archive, or of any file or folder.

    Raises:
        ValueError: if the archive cannot be read, is encrypted, or holds more than fits.
    """
    path = os.fspath(path)
    if os.path.isdir(path) or not path.lower().endswith(ZIP):
        yield path
        return
    claim = _claim(_cache() / _digest(path), path)
    place = Path(claim.folder)
    folder = place / Path(path).stem
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir(mode=0o700)
        _unpack(path, folder)
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        claim.release()
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def told_as_archives(archives: Mapping[str, str]) -> Iterator[None]:
    """Let log messages and a `UserError` meanwhile name archives, not the folders they are in.

    Args:
        archives: path of each archive, by the folder that it is unpacked to.
    """
    with told_as(lambda text: as_archives(text, archives)):
        yield


def as_archives(text: str, archives: Mapping[str, str]) -> str:
    """A text with the paths of archives in place of those of the folders they are unpacked to.

    Of one that was unpacked before, and is another now, the name alone is known.
    """
    for folder, path in archives.items():
        text = text.replace(folder, path)
    for cache in {str(_cache()), os.path.realpath(_cache())}:
        text = re.sub(rf"{re.escape(cache)}/[0-9a-f]{{{DIGITS}}}(_\d+)?/", "an earlier ", text)
    return text


def _claim(place: Path, path: str) -> Claim:
    """A folder that no other process unpacks to: the wanted one, or one of this process' own."""
    process = os.getpid()
    claim = Claim(str(place), path, str(process), 0)
    try:
        claim.take()
    except BusyFolderError:
        claim = Claim(f"{place}_{process}", path, str(process), 0)
        claim.take()
    return claim


def _cache() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(cache, "ldseg_monai", "unpacked")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _digest(path: str) -> str:
    digest = hashlib.sha256(os.path.realpath(path).encode())
    with open(path, "rb") as file:
        while part := file.read(PART):
            digest.update(part)
    return digest.hexdigest()[:DIGITS]


def _unpack(path: str, folder: Path, depth: int = 1, named: str = "") -> None:
    """Unpack an archive and those in it, each beside its file, which is removed.

    Args:
        path: of the archive.
        folder: that it is unpacked into.
        depth: 1 for the outermost.
        named: what messages call it; "" for its path.
    """
    named = named or path
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if any(info.flag_bits & 1 for info in infos):
                raise InputError(f"{named} is encrypted: expected a plain zip; unpack it yourself")
            needed, free = sum(info.file_size for info in infos), shutil.disk_usage(folder).free
            if needed > free:
                raise InputError(
                    f"{named} holds {needed / 1e9:.1f} GB: expected less than the {free / 1e9:.1f} "
                    f"GB free in {folder}; set XDG_CACHE_HOME to a larger disk"
                )
            there: set[str] = set()
            for info in infos:
                if info.create_system == OF_WINDOWS:  # where some programs write its separators
                    info.filename = info.filename.replace("\\", "/")
                placed = archive.extract(info, folder)
                if not info.is_dir():  # an archive's times, by which finished cases are known
                    if placed in there:
                        raise InputError(
                            f"{named} holds {info.filename} twice: expected files of different "
                            "names; unpack it yourself, each to a folder of its own"
                        )
                    there.add(placed)
                    moment = time.mktime((*info.date_time, 0, 0, -1))
                    os.utime(placed, (moment, moment))
    except InputError:
        raise
    except Exception as error:  # zipfile and zlib raise several kinds
        raise unreadable([named], error) from error
    for inner in sorted(folder.glob("**/*")):
        if not inner.is_file() or not inner.name.lower().endswith(ZIP):
            continue
        if depth == DEEPEST:
            raise InputError(
                f"{named} holds archives in archives, more than {DEEPEST} deep: expected fewer; "
                "unpack it yourself"
            )
        place = _free(inner.with_suffix(""))
        place.mkdir()
        _unpack(str(inner), place, depth + 1, f"{inner.name} in {named}")
        inner.unlink()


def places_in(folder: str) -> list[str]:
    """The folders of an unpacked archive that hold images, as `find_cases` takes them.

    Folders that hold one folder and nothing else are gone past. Those of a data set, with
    ``images/`` or ``dataset.json``, are the folder itself; so is one whose files may be DICOM,
    which is looked for in all folders below.
    """
    root = _only_folder(Path(folder))
    folder = str(root)
    if (root / "images").is_dir() or (root / "dataset.json").is_file():
        return [folder]
    places: list[str] = []
    may_be_dicom = False
    for below in folders_in(root):
        names = [entry.name for entry in os.scandir(below) if entry.is_file()]
        if any(name.lower().endswith(EXTENSIONS) for name in names):
            places.append(below)
        may_be_dicom |= any(not is_beside(name) and not is_hidden(name) for name in names)
    if may_be_dicom and folder not in places:
        places.append(folder)
    return places or [folder]


def _free(place: Path) -> Path:
    """A name that nothing has yet."""
    number = 1
    free = place
    while free.exists():
        number += 1
        free = place.with_name(f"{place.name}_{number}")
    return free


def _only_folder(folder: Path) -> Path:
    """The folder that holds all, past folders that hold one folder and nothing else."""
    entries = [entry for entry in folder.iterdir() if entry.name != "__MACOSX"]
    if len(entries) == 1 and entries[0].is_dir():
        return _only_folder(entries[0])
    return folder
