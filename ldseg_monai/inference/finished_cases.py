"""Which cases of an inference are finished, so that a stopped one goes on where it was."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import monai
import numpy as np
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils import ensure_tuple

from ldseg_monai import __version__
from ldseg_monai.data.datalist import case_name
from ldseg_monai.runtime.files import saved_files

logger = logging.getLogger("ldseg_monai.inference.finished_cases")


class FinishedCases:
    """Evaluator handler that notes each case whose files are all written, in ``output_dir/finished.jsonl``.

    A case counts as finished while its files are there as they were noted, and whatever they depend
    on is the same: the image's path, size and time, the sources, the components, and the versions
    of the program, MONAI and PyTorch. Attach it after every handler that writes files of a case.

    Args:
        output_dir: folder of the cases' files.
        cases: all cases of the run, with the path of an ``image``: a file, or the folder of a DICOM
            series, alone or with the series' UID.
        sources: files that the results depend on, such as the network's weights and the bundle's
            metadata.
        components: what else the files depend on: transforms, which save with
            ``savepath_in_metadict``, network, inferer, values.
        resume: whether finished cases are left as they are.

    Raises:
        ValueError: if ``resume`` is neither True nor False, such as the text "false" of a command
            line.
    """

    def __init__(
        self,
        output_dir: str,
        cases: Sequence[Mapping[str, Any]],
        sources: Sequence[str],
        components: Sequence[Any] = (),
        resume: bool = True,
    ) -> None:
        if not isinstance(resume, bool):
            raise ValueError(f"resume is {resume!r}: expected True or False")
        self.output_dir = output_dir
        self.path = os.path.join(output_dir, "finished.jsonl")
        self.cases = cases
        self.resume = resume
        content = [_file_digest(path) for path in sources]
        versions = [__version__, monai.__version__, torch.__version__]
        self._common = _digest([versions, content, describe(components)])
        self._origins: dict[str, str] = {}

    def remaining(self, rank: int = 0, world_size: int = 1) -> list[int]:
        """Numbers of the cases to do, as a sampler: every ``world_size``-th, beginning at ``rank``, unless finished.

        Raises:
            ValueError: if there is no process of this rank.
        """
        if not 0 <= rank < world_size:
            raise ValueError(
                f"rank {rank} of world_size {world_size}: expected 0 to {world_size - 1}"
            )
        share = range(rank, len(self.cases), world_size)
        self._origins = {
            _name(self.cases[number]): self._origin(self.cases[number]) for number in share
        }
        notes = self._read() if self.resume else {}
        left = [
            number for number in share if not self._is_finished(_name(self.cases[number]), notes)
        ]
        if len(left) < len(share):
            logger.info(
                "%d of %d cases are finished already (%s); --resume False does all again",
                len(share) - len(left),
                len(share),
                self.path,
            )
        return left

    def attach(self, engine: Engine) -> None:
        """Note the cases of each iteration, after the handlers attached before."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Note the cases of one iteration."""
        for case in engine.state.output:  # type: ignore[union-attr]
            name = _name({"image": case["image"].meta["filename_or_obj"]})
            paths = [path for value in case.values() for path in saved_files(value)]
            files = {os.path.relpath(path, self.output_dir): _stat(path) for path in paths}
            note = {"case": name, "origin": self._origins.get(name), "files": files}
            with open(self.path, "ab+") as file:
                if file.tell() and _last_byte(file) != b"\n":  # a killed run left a line incomplete
                    file.write(b"\n")
                file.write(json.dumps(note).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

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
        parts = sorted(entry.path for entry in os.scandir(path)) if os.path.isdir(path) else [path]
        return _digest(
            [self._common, os.path.abspath(path), rest, [[part, _stat(part)] for part in parts]]
        )


def describe(value: Any, above: tuple[int, ...] = ()) -> Any:
    """What a component is made of, down to plain values, as something that JSON can hold.

    Two components are described alike if they were built alike, in this process or another. Trained
    parameters are described by their shape, devices by their kind, random states not at all,
    functions by their code.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if id(value) in above:  # it contains itself
        return len(above) - above.index(id(value))
    above = (*above, id(value))
    if isinstance(value, torch.nn.Parameter):
        return ["parameter", list(value.shape)]
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, (np.random.RandomState, torch.Generator)):
        return "random"
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, Mapping):
        return [[describe(key, above), describe(item, above)] for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [describe(item, above) for item in value]
    if isinstance(value, functools.partial):
        return describe([value.func, value.args, value.keywords], above)
    if isinstance(value, types.MethodType):
        return describe([value.__func__, value.__self__], above)
    if isinstance(value, types.BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return describe([value.__code__, value.__defaults__, value.__kwdefaults__, cells], above)
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), list(value.co_names), describe(value.co_consts, above)]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (type, types.ModuleType)) or not hasattr(value, "__dict__"):
        return repr(value)
    return [f"{type(value).__module__}.{type(value).__qualname__}", describe(vars(value), above)]


def _file_digest(path: str) -> str | None:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if os.path.isfile(path) else None


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _name(case: Mapping[str, Any]) -> str:
    return case_name(Path(ensure_tuple(case["image"])[0]))


def _stat(path: str) -> list[int] | None:
    """Size and time of a file or folder, if it is there."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return [info.st_size, info.st_mtime_ns]
