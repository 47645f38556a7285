"""Which cases of an inference are finished, so that a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils import ensure_tuple

from ldseg_monai import __version__
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.formats import voxel_files
from ldseg_monai.data.names import channel_files, image_place
from ldseg_monai.runtime.errors import InputError, counted
from ldseg_monai.runtime.files import saved_files
from ldseg_monai.runtime.ownership import (
    CHANGED,
    OTHERS,
    OWN,
    UNKNOWN,
    append_line,
    note_written,
    outputs,
    place_of,
    refuse,
    whose,
)

logger = logging.getLogger("ldseg_monai.inference.finished_cases")

# Of what an inference writes of a case. A surface's has its class behind a point.
ENDINGS = (
    *("label", "mean", "sd", "seg", "overlay", "area", "statistics"),
    *("surface", "rtstruct", "labelmap", "objects"),
)


class FinishedCases:
    """Evaluator handler that notes each case whose files are all written.

    The notes are in ``output_dir/finished.jsonl``. A case counts as finished while its files are
    there as they were noted, and whatever they depend on is the same: the image's path, size and
    time, the sources, the settings, and the versions of the program, MONAI and PyTorch. Attach it
    after every handler that writes files of a case.

    A case of which a file was changed since it was written, such as a mask corrected by hand, is
    left as it is, whatever else changed.

    Args:
        output_dir: folder of the cases' files.
        cases: all cases of the run, with the path of an ``image``: a file, or the folder of a DICOM
            series, alone or with the series' UID.
        sources: files that the results depend on, such as the network's weights and the bundle's
            metadata.
        settings: what else the files depend on, as JSON can hold it: the text of the config's
            network, transforms, which save with ``savepath_in_metadict``, and inferer
            (`ldseg_monai.bundle.config_text`), the kind of device.
        resume: whether finished cases, and those with files that another hand changed, are left as
            they are.

    Raises:
        ValueError: if ``resume`` is neither True nor False, such as the text "false" of a command
            line.
    """

    def __init__(
        self,
        output_dir: str,
        cases: Sequence[Mapping[str, Any]],
        sources: Sequence[str],
        settings: Any = None,
        resume: bool = True,
    ) -> None:
        if not isinstance(resume, bool):
            raise InputError(f"resume is {resume!r}: expected True or False")
        self.output_dir = output_dir
        self.path = os.path.join(output_dir, "finished.jsonl")
        self.cases = cases
        self.resume = resume
        content = [_file_digest(path) for path in sources]
        versions = [__version__, monai.__version__, torch.__version__]
        self._common = _digest([versions, content, settings])
        self._origins: dict[str, str] = {}
        self._by_hand: set[str] = set()  # files that another hand changed, and that may be replaced

    def remaining(self, rank: int = 0, world_size: int = 1) -> list[int]:
        """Numbers of the cases to do, as a sampler.

        They are every ``world_size``-th, beginning at ``rank``, unless finished or corrected.

        Raises:
            ValueError: if there is no process of this rank.
            FileExistsError: if files would be written over that this program did not write, or
                wrote of other images of the same names.
        """
        if not 0 <= rank < world_size:
            raise InputError(
                f"rank {rank} of world_size {world_size}: expected 0 to {world_size - 1}"
            )
        share = range(rank, len(self.cases), world_size)
        self._origins = {
            _name(self.cases[number]): self._origin(self.cases[number]) for number in share
        }
        changed = self._changed_files()
        if not self.resume:
            self._give_up(changed)
            return list(share)
        notes = self._read()
        open_cases = [number for number in share if _name(self.cases[number]) not in changed]
        left = [
            number
            for number in open_cases
            if not self._is_finished(_name(self.cases[number]), notes)
        ]
        if len(open_cases) < len(share):
            files = [path for name in sorted(changed) for path in changed[name]]
            logger.warning(
                "%d of %d cases are kept as they are, since these files were changed after they "
                "were written: %s; --resume False, or --overwrite of ldseg predict, replaces them",
                len(share) - len(open_cases),
                len(share),
                ", ".join(files),
            )
        if len(left) < len(open_cases):
            logger.info(
                "%d of %d cases are finished already (%s); --resume False, or --overwrite of ldseg "
                "predict, does all again",
                len(open_cases) - len(left),
                len(share),
                self.path,
            )
        return left

    def _changed_files(self) -> dict[str, list[str]]:
        """Files that were changed since they were written, by the name of their case.

        Raises:
            FileExistsError: if there are files of these names that are not of these cases.
        """
        images = {_name(case): _image(case) for case in self.cases}
        other_series = self._of_other_series()
        foreign: dict[str, str] = {}
        changed: dict[str, list[str]] = {}
        for name, path in outputs(self.output_dir, list(images), ENDINGS):
            state = whose(path, images[name])
            if name in other_series:
                foreign[path] = f"made of the series {other_series[name]} of the same folder"
            elif state in (OTHERS, UNKNOWN):
                foreign[path] = state
            elif state == CHANGED:
                changed.setdefault(name, []).append(path)
        refuse(foreign, os.path.dirname(next(iter(images.values()), "")))
        return changed

    def _of_other_series(self) -> dict[str, str]:
        """UID of the series that had a case's name before, where it is another one of its folder.

        One series that is chosen of a folder is named after the folder, as each of them is.
        """
        notes = self._read()
        others = {}
        for case in self.cases:
            for series in image_place(case["image"])[1:]:
                before = notes.get(_name(case), {}).get("series", series)
                if before != series:
                    others[_name(case)] = before
        return others

    def _give_up(self, changed: Mapping[str, Sequence[str]]) -> None:
        """Take changed files for this program's own, so that they are written over."""
        images = {_name(case): _image(case) for case in self.cases}
        for name, paths in sorted(changed.items()):
            for path in paths:
                note_written(path, images[name])
                self._by_hand.add(path)
        if changed:
            files = [path for name in sorted(changed) for path in changed[name]]
            logger.warning(
                "resume is False: replacing %s that %s changed after being written: %s",
                counted(len(files), "file"),
                "was" if len(files) == 1 else "were",
                ", ".join(files),
            )

    def attach(self, engine: Engine) -> None:
        """Note the cases of each iteration, after the handlers attached before."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Note the cases of one iteration."""
        for case in engine.state.output:  # type: ignore[union-attr]
            name = case_name(case["image"])
            meta = case["image"].meta
            image = _image({"image": meta["filename_or_obj"]})
            files = {}
            for value in case.values():
                for path in saved_files(value):
                    files[os.path.relpath(path, self.output_dir)] = _stat(path)
                    if whose(path, image) != OWN:  # by a writer that is not this package's
                        note_written(path, image)
            self._remove_stale(name, image, set(files))
            note = {"case": name, "origin": self._origins.get(name), "files": files}
            for series in image_place(meta)[1:]:
                note["series"] = series
            if OUTSIDE in meta:
                note[OUTSIDE] = meta[OUTSIDE]
            append_line(self.path, note)

    def _remove_stale(self, name: str, image: str, files: set[str]) -> None:
        """Remove what an earlier run with other knobs wrote of a case, and this one did not.

        Else a file of another segmentation lies beside the new one. Files of others, and those
        that another hand changed, stay.
        """
        for _, path in outputs(self.output_dir, [name], ENDINGS):
            is_new = os.path.relpath(path, self.output_dir) in files
            if is_new or path in self._by_hand or whose(path, image) != OWN:
                continue
            os.unlink(path)
            logger.info("removed %s, which was of an earlier segmentation", path)

    def _read(self) -> dict[str, dict[str, Any]]:
        """The last note of each case; a line that a killed run left incomplete is none."""
        notes = {}
        if os.path.isfile(self.path):
            with open(self.path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    try:
                        note = json.loads(line)
                        notes[note["case"]] = note
                    except (ValueError, TypeError, KeyError):
                        continue
        return notes

    def _is_finished(self, name: str, notes: Mapping[str, dict[str, Any]]) -> bool:
        note = notes.get(name, {})
        files = note.get("files", {})
        if not files or note.get("origin") != self._origins[name]:
            return False
        return all(
            _stat(os.path.join(self.output_dir, file)) == noted for file, noted in files.items()
        )

    def _origin(self, case: Mapping[str, Any]) -> str:
        """What the files of a case depend on, in one number."""
        path, *rest = map(os.fspath, ensure_tuple(case["image"]))
        parts = channel_files(case["image"]) or [path]
        if os.path.isdir(path):
            parts = sorted(entry.path for entry in os.scandir(path))
        else:
            parts = sorted({*parts, *(file for part in parts for file in voxel_files(part))})
        return _digest(
            [self._common, os.path.abspath(path), rest, [[part, _stat(part)] for part in parts]]
        )


def _file_digest(path: str) -> str | None:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if os.path.isfile(path) else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()


def _name(case: Mapping[str, Any]) -> str:
    return case_name(case["image"])


def _image(case: Mapping[str, Any]) -> str:
    """The place of a case's image, by which it is told from others of the same name."""
    return place_of(ensure_tuple(case["image"])[0])


def _stat(path: str) -> list[int] | None:
    """Size and time of a file or folder, if it is there."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return [info.st_size, info.st_mtime_ns]
