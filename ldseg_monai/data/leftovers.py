"""What a data set holds that is not used: told once, in one line, whatever the command."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable

import ignite.distributed as idist

from ldseg_monai.data.names import EXTENSIONS
from ldseg_monai.runtime.errors import MissingFileError
from ldseg_monai.runtime.ownership import NOTES

logger = logging.getLogger("ldseg_monai.data")

# Texts and tables lie beside every data set: no image was ever meant by them
TEXTS = (".txt", ".md", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".xlsx", ".xls", ".ods",
    ".xml", ".html", ".htm", ".pdf", ".doc", ".docx", ".yaml", ".yml",
    ".toml", ".log", ".py", ".sh")  # fmt: skip
# What may lie in the folder of a DICOM series without being one of its slices
BESIDE = (*EXTENSIONS, *TEXTS, ".mha", ".mhd", ".raw", ".zraw", ".nrrd", ".nhdr", ".gif", ".svg",
    ".exe", ".dll", ".inf", ".ini", ".jar", ".zip", ".mp4", ".avi")  # fmt: skip
# What programs, this one included, call what they make of an image
MASK_WORDS = ("label", "labels", "mask", "masks", "brainmask", "seg", "segm", "dseg",
    "segmentation", "anno", "annotation", "gt", "groundtruth", "ground_truth", "truth", "manual",
    "pred", "prediction", "roi", "mean", "sd", "overlay")  # fmt: skip
# What ends such a name. A number is taken whole: there is one way alone to read a DICOM UID's
VERSION = re.compile(r"([_\-. ]?((?<!\d)v?\d+(?!\d)|final|copy|corrected|edited|new))+$")
SHOWN = 5  # names in a message


class Leftovers:
    """What is not used of a data set, by the reason.

    Attributes:
        by_reason: what is left out, in the order in which it was found.
    """

    def __init__(self) -> None:
        self.by_reason: dict[str, list[str]] = {}

    def add(self, reason: str, *names: str) -> None:
        """Note what is not used, if there is any, and why."""
        if names:
            self.by_reason.setdefault(reason, []).extend(names)

    def __bool__(self) -> bool:
        return bool(self.by_reason)

    def __str__(self) -> str:
        """One line: how many, why, and the first of each reason."""
        parts = []
        for reason, names in self.by_reason.items():
            parts.append(f"{len(names)} ({reason}): {some(names)}")
        return "not used: " + "; ".join(parts)


def tell(used: str, leftovers: Leftovers | None = None) -> None:
    """Say, once for all processes, what a command uses and what it does not.

    Args:
        used: what it uses.
        leftovers: the rest.
    """
    if idist.get_rank() != 0:
        return
    logger.info(used)
    if leftovers:
        logger.warning(str(leftovers))


def some(names: Iterable[str], limit: int = SHOWN) -> str:
    """The first of some names in order, for a message."""
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (", ..." if len(ordered) > limit else "")


def is_hidden(name: str) -> bool:
    """Whether a system, an editor or this program put a file there, which no person sees."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", NOTES)


def is_beside(path: str) -> bool:
    """Whether a file's ending says that it is no slice of a DICOM series."""
    return path.lower().endswith(BESIDE)


def is_text(path: str) -> bool:
    """Whether a file's ending says that it is a text or a table."""
    return path.lower().endswith(TEXTS)


def target_of_broken_link(path: str) -> str | None:
    """Where a link leads that leads to nowhere; None for whatever is there."""
    if not os.path.islink(path) or os.path.exists(path):
        return None
    return os.readlink(path)


def require_targets(paths: Iterable[str]) -> None:
    """Check that no path is a link to nowhere.

    Raises:
        FileNotFoundError: naming those that are.
    """
    broken = [path for path in paths if target_of_broken_link(path) is not None]
    if broken:
        told = some(f"{path} -> {os.readlink(path)}" for path in broken)
        raise MissingFileError(
            f"{len(broken)} links to nowhere: {told}: expected files; fetch what they lead to (as "
            "with git annex get, or dvc pull), or remove them"
        )


def mask_of(name: str, others: Iterable[str]) -> str | None:
    """The image that a file beside it is a mask of, by their names without endings."""
    known = set(others)
    lowered = name.lower()
    unversioned = VERSION.sub("", lowered)
    for word in MASK_WORDS:
        for joint in "_-. ":
            image = name[: len(unversioned) - len(word) - 1]
            if unversioned.endswith(joint + word) and image in known:
                return image
            if lowered.startswith(word + joint) and name[len(word) + 1 :] in known:
                return name[len(word) + 1 :]
    return None
