"""What cases are called: in splits, tables, reports and the names of files that are written."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from monai.utils import ensure_tuple

from ldseg_monai.data.formats import PICTURE_ENDINGS, SLIDE_ENDINGS, VOLUME_ENDINGS
from ldseg_monai.runtime.errors import InputError

EXTENSIONS = (*VOLUME_ENDINGS, ".ome.tif", ".ome.tiff", *PICTURE_ENDINGS, *SLIDE_ENDINGS)
LONGEST = 180  # bytes of a name, so that a file system (255) has room for what follows it
DIGITS = 8  # of the digest that ends a name which was too long
CHANNEL = re.compile(r"(.+)_(\d{4})")  # what nnU-Net calls a channel: name of the case, number
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
        image: path of the image, those of several files that are its channels, `[folder, Series
            Instance UID]` of a DICOM series among others, or an image's metadata.
    """
    path, *series = image_place(image)
    absolute = os.path.abspath(path)
    return _given.get((absolute, *series)) or _given.get((absolute,)) or _short(_own_name(image))


def channel_files(image: Any) -> list[str]:
    """The files of an image that has several, each a channel; none of any other image.

    Args:
        image: as of `case_name`.
    """
    if isinstance(getattr(image, "meta", image), Mapping):
        return []
    parts = [os.fspath(part) for part in ensure_tuple(image)]
    if len(parts) > 1 and all(part.lower().endswith(EXTENSIONS) for part in parts):
        return parts
    return []


def parts_of_channels(names: Sequence[str]) -> tuple[str, list[str]]:
    """What the names of an image's channels share, and what is left of each.

    ``a_t1`` and ``a_t2`` share ``a``, up to the last sign between words, and ``t1`` and ``t2`` are
    left.
    Where they share no word, it is the first name, and nothing is left.
    """
    if len(set(names)) == 1:
        return names[0], [""] * len(names)
    common = os.path.commonprefix(list(names))
    shared = re.sub(r"[^_\-. ]*$", "", common)
    rest = [name[len(shared) :] for name in names]
    if not shared.rstrip("_-. "):
        return names[0], [""] * len(names)
    return shared.rstrip("_-. "), rest


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
        images: as of `case_name`, each once. Channels are known by the first of their files.
        root: the data set's folder.
        given: names that the data set itself gives, by path and, of a series among others, UID.

    Returns:
        The names, in the order of the images.

    Raises:
        ValueError: if two have one name all the same.
    """
    places = [image_place(image) for image in images]
    plain = [_own_name(image) for image in images]
    wanted = []
    for place, name in zip(places, plain, strict=True):
        wanted.append(_short((given or {}).get(place) or name))
    counts = Counter(wanted)
    owner: dict[str, str] = {}
    for place, own, name in zip(places, plain, wanted, strict=True):
        if counts[name] > 1:
            is_series = len(place) > 1  # which its UID tells from others of its folder
            name = _whole_name(place, root, own if is_series else name)
        if name in owner:
            raise InputError(
                f"two files for case {name!r}, {owner[name]} and {place[0]}: expected one; remove "
                "one"
            )
        owner[name] = place[0]
    for place, name in zip(places, owner, strict=True):
        _given[(os.path.abspath(place[0]), *place[1:])] = name
    return list(owner)


def image_place(image: Any) -> tuple[str, ...]:
    """Path of an image, of channels the first, and of a DICOM series among others its UID."""
    meta = getattr(image, "meta", image)
    if isinstance(meta, Mapping):
        series = meta.get("dicom_series_uid")
        return (os.fspath(meta["filename_or_obj"]), *filter(None, [series]))
    return tuple(channel_files(image)[:1] or [os.fspath(part) for part in ensure_tuple(image)])


def _own_name(image: Any) -> str:
    """Name of an image's file; of channels, what their files' names share."""
    files = channel_files(image)
    if not files:
        return plain_name(image_place(image)[0])
    return parts_of_channels([plain_name(file) for file in files])[0]


def _whole_name(place: tuple[str, ...], root: PathLike, name: str) -> str:
    """Name by the path below the data set's folder, as short as a file system takes it."""
    path, *series = place
    folders = os.path.relpath(os.path.dirname(path) or os.curdir, root).split(os.sep)
    parts = [part for part in folders if part not in (os.curdir, os.pardir)]
    return _short("_".join([*parts, name, *series]))


def _short(name: str) -> str:
    """A name that a file system takes, and what follows it: a long one ends in its digest."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:DIGITS]
    kept = encoded[: LONGEST - DIGITS - 1].decode(errors="ignore")
    return f"{kept}_{digest}"
