"""Headers whose voxels are in files beside them: MetaImage, NRRD and Analyze."""

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
    if ending.lower() not in HEADERS:
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
    patterns = []
    for name in filter(None, names):
        parts = [re.escape(part) for part in NUMBER.split(name)]
        patterns.append(re.compile(r"\d+".join(parts)))
    found = []
    for path in others:
        name = os.path.relpath(path, folder)
        if any(pattern.fullmatch(name) for pattern in patterns):
            found.append(path)
    return found
