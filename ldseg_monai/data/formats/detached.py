"""Headers whose voxels are in files beside them: MetaImage, NRRD, Analyze and MIRAX."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

HEADERS = (".mha", ".mhd", ".nrrd", ".nhdr")
# The field of a MetaImage or NRRD that names its files, and what follows it
DATA_FILE = re.compile(r"^[ \t]*(?:ElementDataFile\s*[=:]|data ?file:)(.*)((?:\n.*)*)", re.I | re.M)
NUMBER = re.compile(r"%0?\d*d")  # in a pattern of names, as of C
LONGEST = 2**16  # bytes of a header that are read


def data_files(header: str, others: Iterable[str]) -> list[str]:
    """Those files beside a header that hold its voxels.

    Args:
        header: path of any file; what is no such header has none.
        others: paths of what may be such files.
    """
    folder = os.path.dirname(header)
    start, ending = os.path.splitext(header)
    if ending.lower() == ".hdr":  # of Analyze, or of a pair of NIfTI
        pair = (f"{start}.img".lower(), f"{start}.img.gz".lower())
        return [path for path in others if path.lower() in pair]
    patterns = []
    for name in _named(header):
        parts = [re.escape(part) for part in NUMBER.split(name)]
        patterns.append(re.compile(r"\d+".join(parts)))
    found: list[str] = []
    if not patterns:
        return found
    for path in others:
        name = os.path.relpath(path, folder)
        if any(pattern.fullmatch(name) for pattern in patterns):
            found.append(path)
    return found


def voxel_files(image: str) -> list[str]:
    """The files that hold an image's voxels: its own, or those beside it that its header names.

    Those of a MIRAX slide are in the folder of its name.

    Args:
        image: path of a file.
    """
    folder = os.path.dirname(image)
    start, ending = os.path.splitext(image)
    if ending.lower() == ".mrxs" and os.path.isdir(start):  # a slide's small head
        return [image, *sorted(entry.path for entry in os.scandir(start) if entry.is_file())]
    names = _named(image)
    beside = [os.path.join(folder, name) for name in names]
    if any(map(NUMBER.search, names)):
        beside = data_files(image, [entry.path for entry in os.scandir(folder or os.curdir)])
    return sorted(filter(os.path.isfile, set(beside))) or [image]


def _named(header: str) -> list[str]:
    """Names, or patterns of names, of the files that a MetaImage's or NRRD's header names."""
    if not header.lower().endswith(HEADERS):
        return []
    try:
        with open(header, encoding="latin-1") as file:
            field = DATA_FILE.search(file.read(LONGEST))
    except OSError:  # which is told when it is read
        return []
    if field is None:
        return []
    value, following = field[1].strip(), field[2]
    names = [value, value.split(" ")[0]]  # alone, or with the numbers of a pattern
    if value.upper().startswith("LIST"):
        names = [line.strip() for line in following.split("\n")]
    return [name for name in names if name and name.upper() != "LOCAL"]
