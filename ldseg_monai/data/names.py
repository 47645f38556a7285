"""What cases are called: in splits, tables, reports and the names of files that are written."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from monai.utils import ensure_tuple

from ldseg_monai.data.formats import PICTURE_ENDINGS, VOLUME_ENDINGS
from ldseg_monai.runtime.errors import InputError

EXTENSIONS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)
LONGEST = 180  # bytes of a name, so that a file system (255) has room for what follows it
DIGITS = 8  # of the digest that ends a name which was too long
PathLike = str | os.PathLike[str]

# Names that a data list gave, where the file's own is not enough. They are of the process, since
# MONAI hands nothing but an image's path from the reader to those who name results by it.
_given: dict[tuple[str, ...], str] = {}


def case_name(image: Any) -> str:
    """Name of a case: its file's without folder and ending, `a/knee.1.nii.gz` -> `knee.1`.

    Where the data list has several files or folders of that name, each is called by its whole path
    below the data set's folder (see `name_cases`). A name that is too long for what is written ends
    in a digest.

    Args:
        image: path of the image, `[folder, Series Instance UID]` of a DICOM series among others, or
            an image's metadata.
    """
    path, *series = _place(image)
    absolute = os.path.abspath(path)
    return _given.get((absolute, *series)) or _given.get((absolute,)) or _short(plain_name(path))


def plain_name(path: PathLike) -> str:
    """Name of a file or folder without the folders that it is in, and without an image's ending.

    Letters with accents are one character each: systems write them in two ways, which look alike.
    """
    name = unicodedata.normalize("NFC", os.path.basename(os.fspath(path)))
    extension = next((end for end in EXTENSIONS if name.lower().endswith(end)), "")
    return name[: len(name) - len(extension)]


def name_cases(
    images: Sequence[Any], root: PathLike, given: Mapping[tuple[str, ...], str] | None = None
) -> list[str]:
    """Name the cases of a data set, each by a name of its own, which `case_name` then gives.

    Args:
        images: as of `case_name`, each once.
        root: the data set's folder.
        given: names that the data set itself gives, by path and, of a series among others, UID.

    Returns:
        The names, in the order of the images.

    Raises:
        ValueError: if two have one name all the same.
    """
    places = [_place(image) for image in images]
    wanted = [_short((given or {}).get(place) or plain_name(place[0])) for place in places]
    counts = Counter(wanted)
    owner: dict[str, str] = {}
    for place, name in zip(places, wanted, strict=True):
        if counts[name] > 1:
            name = _whole_name(place, root)
        if name in owner:
            raise InputError(
                f"two files for case {name!r}, {owner[name]} and {place[0]}: expected one; remove "
                "one"
            )
        owner[name] = place[0]
    for place, name in zip(places, owner, strict=True):
        _given[(os.path.abspath(place[0]), *place[1:])] = name
    return list(owner)


def _place(image: Any) -> tuple[str, ...]:
    """Path of an image and, of a DICOM series among others, its UID."""
    meta = getattr(image, "meta", image)
    if isinstance(meta, Mapping):
        series = meta.get("dicom_series_uid")
        return (os.fspath(meta["filename_or_obj"]), *filter(None, [series]))
    return tuple(os.fspath(part) for part in ensure_tuple(image))


def _whole_name(place: tuple[str, ...], root: PathLike) -> str:
    """Name by the path below the data set's folder, as short as a file system takes it."""
    path, *series = place
    folders = os.path.relpath(os.path.dirname(path) or os.curdir, root).split(os.sep)
    parts = [part for part in folders if part not in (os.curdir, os.pardir)]
    return _short("_".join([*parts, plain_name(path), *series]))


def _short(name: str) -> str:
    """A name that a file system takes, and what follows it: a long one ends in its digest."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:DIGITS]
    kept = encoded[: LONGEST - DIGITS - 1].decode(errors="ignore")
    return f"{kept}_{digest}"
