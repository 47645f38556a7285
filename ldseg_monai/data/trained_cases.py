"""Which cases weights were trained on: a small file beside them, so that scores can say it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from ldseg_monai.data.formats import voxel_files
from ldseg_monai.data.leftovers import some
from ldseg_monai.data.names import PathLike, case_name
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.files import unwritable

CHUNK = 2**20  # bytes that are read at once
ABOUT = "cases that these weights were trained on: name, and SHA-256 of the image's file if known"


@dataclass(frozen=True)
class TrainedCases:
    """The cases that weights were trained on.

    Attributes:
        digests: SHA-256 of each case's image, "" where only its name is known, as pairs with the
            name.
        note: what is not known of them; "" where all is.
        score: what the training noted of these weights; "" where it did not.
    """

    digests: frozenset[tuple[str, str]]
    note: str = ""
    score: str = ""

    @classmethod
    def of(cls, cases: Iterable[Mapping[str, Any]]) -> TrainedCases:
        """Those of a data list, whose images are read for their digests."""
        return cls(frozenset((_name(case["image"]), digest(case["image"])) for case in cases))

    @classmethod
    def read(cls, weights: PathLike | Sequence[PathLike]) -> TrainedCases | None:
        """Those of a file of weights, or of several; None where nothing beside one says.

        Raises:
            ValueError: if what is beside it cannot be read.
        """
        found = None
        for path in ensure_tuple(weights):
            own = cls._beside(path)
            if own is None:
                return None
            found = own if found is None else own.joined(found)
        return found

    @classmethod
    def _beside(cls, weights: PathLike) -> TrainedCases | None:
        path = cases_file(weights)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            listed = [(str(case["case"]), case["sha256"] or "") for case in content["cases"]]
            return cls(frozenset(listed), content.get("note", ""), content.get("score", ""))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read ({type(error).__name__} {error}): expected the file that a "
                "training wrote beside its weights; copy it again, or remove it"
            ) from error

    def joined(self, earlier: TrainedCases) -> TrainedCases:
        """These and those of other weights, which these came of."""
        notes = dict.fromkeys(note for note in (earlier.note, self.note) if note)
        return TrainedCases(self.digests | earlier.digests, "; ".join(notes), self.score)

    def started_from(self, start: PathLike) -> TrainedCases:
        """These and those of the weights that the training started from.

        What is not known of the latter is noted as theirs, by the last names of their path, since
        the note goes with weights that are given to others.

        Args:
            start: file of the weights that the training started from.
        """
        named = f"the weights that it started from, {'/'.join(Path(start).parts[-3:])}"
        earlier = TrainedCases.read(start)
        if earlier is None:
            earlier = TrainedCases(frozenset(), f"{named}, do not say theirs")
        elif earlier.note:
            earlier = TrainedCases(earlier.digests, f"of {named}: {earlier.note}")
        return self.joined(earlier)

    def write(self, weights: PathLike) -> None:
        """Write the file beside weights, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        path = cases_file(weights)
        listed = [{"case": name, "sha256": known or None} for name, known in sorted(self.digests)]
        entries = {"about": ABOUT, "note": self.note, "score": self.score, "cases": listed}
        text = json.dumps(entries, indent=1) + "\n"
        draft = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, path)
        except OSError as error:
            raise unwritable(path, error) from error

    def has(self, image: PathLike | Sequence[PathLike]) -> bool:
        """Whether an image is one of them, under whatever name.

        Where the digest is known it decides, since other data may have the same names.
        """
        own = {known for name, known in self.digests if name == _name(image)}
        return "" in own or digest(image) in {known for _, known in self.digests if known}


def cases_file(weights: PathLike) -> Path:
    """The file beside weights: ``model_cases.json`` of ``model.pt``."""
    path = Path(weights)
    return path.with_name(f"{path.stem}_cases.json")


def tell_trained_on(trained: TrainedCases | None, names: Mapping[str, bool]) -> str:
    """Say how many of some cases were trained on.

    Args:
        trained: of `TrainedCases.read`.
        names: of the cases, and whether each is one of them.
    """
    if trained is None:
        return "whether the weights were trained on these cases is not known"
    seen = [name for name, is_seen in names.items() if is_seen]
    text = f"{len(seen)} of {len(names)} cases were trained on"
    if seen:
        text += f" ({some(seen)})"
    return f"{text}; {trained.note}" if trained.note else text


def digest(image: PathLike | Sequence[PathLike]) -> str:
    """SHA-256 of an image's file, or of its files one after the other; "" without any.

    Of a header whose voxels are in other files it is that of these, which tell images apart.

    Args:
        image: path of a file, several, or a folder, such as that of a DICOM series.
    """
    files: list[Path] = []
    for path in map(Path, _paths(image)):
        files += sorted(path.iterdir()) if path.is_dir() else map(Path, voxel_files(str(path)))
    total = hashlib.sha256()
    if not files or not all(file.is_file() for file in files):
        return ""
    for file in files:
        with open(file, "rb") as stream:
            while chunk := stream.read(CHUNK):
                total.update(chunk)
    return total.hexdigest()


def _paths(image: Any) -> list[str]:
    """The paths of an image; none where a client's is no file."""
    return [os.fspath(path) for path in ensure_tuple(image) if isinstance(path, (str, os.PathLike))]


def _name(image: Any) -> str:
    return next(map(case_name, _paths(image)), "")
