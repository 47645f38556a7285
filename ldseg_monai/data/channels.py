"""Images whose channels are files of their own, such as the sequences of an MR study.

nnU-Net calls the files of a case ``CASE_0000``, ``CASE_0001`` and so on. One file may hold all
channels too, in its fourth axis.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nibabel as nib
from monai.utils import ensure_tuple

from ldseg_monai.data.formats.kinds import NIFTI_ENDINGS, is_volume
from ldseg_monai.data.names import (
    CHANNEL,
    case_name,
    channel_files,
    parts_of_channels,
    plain_name,
)
from ldseg_monai.runtime.errors import InputError, counted

LOOKED_AT = 5  # cases whose channels are counted before any work


def join_channels(paths: Iterable[str], channels: int | None = None) -> list[tuple[str, Any]]:
    """Put the files ``CASE_0000``, ``CASE_0001``... of one folder together, as one image.

    A ``CASE_0000`` that has all channels, in its fourth axis, is the whole image.

    Args:
        paths: of image files.
        channels: how many files an image has; None for however many there are.

    Returns:
        The name of each image, and its path, or the paths of its channels in their order. Whatever
        is called otherwise stays an image of its own.

    Raises:
        ValueError: if a case lacks a channel, has too many, or they are pictures.
    """
    numbered: dict[tuple[str, str], dict[int, str]] = {}
    others: list[tuple[str, Any]] = []
    for path in paths:
        name = plain_name(path)
        found = CHANNEL.fullmatch(name)
        if found is None:
            others.append((name, path))
            continue
        files = numbered.setdefault((os.path.dirname(path), found[1]), {})
        other = files.setdefault(int(found[2]), path)
        if other != path:
            raise InputError(f"{other} and {path} are the same channel: expected one; remove one")
    joined: list[tuple[str, Any]] = []
    for (_, case), files in numbered.items():
        is_whole = list(files) == [0] and count_channels(files[0]) == channels
        if not is_whole:
            require_all(case, files, channels or max(files) + 1)
        image = [files[number] for number in sorted(files)]
        if len(image) > 1 and not all(map(is_volume, image)):
            raise InputError(
                f"case {case} has {len(image)} files, {', '.join(image)}: expected volumes where "
                "each is a channel; a picture is one file"
            )
        joined.append((case, image if len(image) > 1 else image[0]))
    return joined + others


def require_all(case: str, files: Mapping[int, str], channels: int) -> None:
    """Check that a case has a file of each channel.

    Raises:
        ValueError: if it lacks one, or has one too many.
    """
    if sorted(files) == list(range(channels)):
        return
    there = ", ".join(f"{number:04d}" for number in sorted(files))
    wanted = "0000" if channels == 1 else f"0000 to {channels - 1:04d}"
    raise InputError(
        f"case {case} has the channels {there}, such as {files[min(files)]}: expected {wanted}, a "
        "file each; add or remove files"
    )


def count_channels(image: Any) -> int | None:
    """Channels of an image, by its files and its header; None where these do not say.

    Args:
        image: as of `case_name`. A picture has one, whatever its colors; so has a DICOM series.
    """
    files = channel_files(image)
    if files:
        return len(files)
    path = os.fspath(ensure_tuple(image)[0])
    if os.path.isdir(path):
        return 1
    if not path.lower().endswith(NIFTI_ENDINGS):
        return None
    try:
        shape = nib.load(path).header.get_data_shape()  # type: ignore[attr-defined]
    except Exception:  # of many kinds; whoever reads it whole says what is wrong
        return None
    beyond = [side for side in shape[3:] if side != 1]
    return beyond[0] if beyond else 1


def require_channels(cases: Sequence[Mapping[str, Any]], channels: int) -> None:
    """Check that a data set is of as many channels as a network takes, before any work.

    The first cases are looked at. Where some of them fit, others are told when they are read.

    Raises:
        ValueError: if none of them fits.
    """
    counts = [count_channels(case["image"]) for case in cases[:LOOKED_AT]]
    if not counts or channels in counts or None in counts:
        return
    name, first = case_name(cases[0]["image"]), counts[0]
    advice = "choose one channel, or a bundle of as many"
    if channels > 1:
        advice = (
            "give a file of each, in the order of the training (CASE_0000, CASE_0001 or a list in "
            "dataset.json), or one file with a fourth axis"
        )
    raise InputError(
        f"{name} has {channels_text(first or 1)}: expected {channels}, as the network takes; "
        f"{advice}"
    )


def channels_text(count: int) -> str:
    """A number of channels in words."""
    return counted(count, "channel")


def names_of_files(images: Iterable[Any]) -> list[str]:
    """What the names of files say of the channels, such as t1 and t2 of ``a_t1`` and ``a_t2``.

    Returns:
        A name of each channel; none where the cases do not agree, or their names are numbers.
    """
    found: set[tuple[str, ...]] = set()
    for image in images:
        _, rest = parts_of_channels([plain_name(file) for file in channel_files(image)] or [""])
        found.add(tuple(rest))
    names = found.pop()
    if found or not all(names) or all(name.isdigit() for name in names):
        return []
    return list(names)
