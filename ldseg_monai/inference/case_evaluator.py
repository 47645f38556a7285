"""Many cases, one after the other: one that fails does not stop the others.

It may be one that cannot be read, segmented, written or scored.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import ignite.distributed as idist
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose
from monai.utils import ensure_tuple

from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.loaders import LoadChecked
from ldseg_monai.runtime.errors import (
    FileError,
    InputError,
    ListedErrors,
    LostFolderError,
    UserError,
    cause,
    chain,
    one_line,
    printable,
)
from ldseg_monai.runtime.ownership import FREE, OWN, outputs, place_of, refuse, take_folder, whose

logger = logging.getLogger("ldseg_monai.inference.case_evaluator")

FILES, FAILURE = "files", "failure"  # keys of the item of a case that cannot be loaded
ORIGINAL = "original"  # key of a case's image as its file has it
FOLDER_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
)  # that the next case would meet as well

# What an engine without cases, or with none left for this process, goes through all the same: its
# handlers begin and end, as those of the other processes do.
WITHOUT_CASES = (
    Events.STARTED,
    Events.EPOCH_STARTED,
    Events.EPOCH_COMPLETED,
    Events.COMPLETED,
)


class FailedCases(ListedErrors):
    """Some cases of a run failed; the message says which and why."""


class CaseDataset(Dataset):
    """MONAI's data set that does not raise where a case cannot be loaded.

    It returns why, for `CaseEvaluator`. Beside the image as the network takes it, an item has it as
    the file has it (`ORIGINAL`), so that `SaveOverlay` need not read the file again.

    Args:
        data: cases with the paths of an ``image`` and, if there is one, a ``label``.
        transform: what loads them; the image is kept where a composition begins with a loader of
            `ldseg_monai.data`.
    """

    def _transform(self, index: int) -> Any:
        try:
            if not _begins_with_loader(self.transform):
                return super()._transform(index)
            loaded = self.transform(self.data[index], end=1)
            return {**self.transform(loaded, start=1), ORIGINAL: loaded["image"]}
        except Exception as error:
            logger.debug("loading %s", self.data[index], exc_info=True)
            case = self.data[index]
            paths = [str(ensure_tuple(case[key])[0]) for key in ("image", "label") if key in case]
            return {FILES: " with ".join(paths), FAILURE: one_line(cause(error))}


class CaseLoader(DataLoader):
    """MONAI's loader that reads the next case in a thread while the engine is at one.

    MONAI's `ThreadDataLoader` ends early and in silence where its thread meets an error (1.6.1).

    Args:
        dataset: the cases.
        kwargs: as of `torch.utils.data.DataLoader`.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches."""
        batches = super().__iter__()
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = reader.submit(next, batches, None)
                yield batch


def require_loaded(item: Any) -> None:
    """Check that an item of a `CaseDataset` is a case, for those who stop at the first failure.

    Raises:
        ValueError: if it could not be loaded, with the reason.
    """
    if FAILURE in item:
        raise InputError(_line(item[FILES], item[FAILURE]))


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator for many files, which goes on where a case fails.

    Such a case is logged at once, and listed when the others are done. A case fails where an error
    comes up while it is loaded (by a `CaseDataset`), segmented or postprocessed, or in a handler of
    MONAI's ``IterationEvents.MODEL_COMPLETED``, such as `SaveOverlay` and `CaseScores`. For such a
    case the handlers of ``Events.ITERATION_COMPLETED`` see an empty list as the engine's output.
    Errors outside of a case, such as in loading weights, stop the run, and so does an output folder
    that cannot be written to.

    Where several processes share the cases, the first lists the failed ones of all, and each raises
    an error.

    Args:
        output_dir: folder that the cases' files are written to.
        kwargs: as of `monai.engines.SupervisedEvaluator`; the loader has one case in a batch.

    Raises:
        ValueError: if the loader has batches of several cases.
    """

    def __init__(self, output_dir: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        batch_size = getattr(self.data_loader, "batch_size", 1)
        if batch_size != 1:
            raise InputError(
                f"batches of {batch_size} cases: expected 1, so that one that fails does not take "
                "others"
            )
        self.output_dir = output_dir
        self.failures: list[tuple[str, str]] = []

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Do every case.

        Raises:
            FailedCases: when all is done, if some failed.
            OSError: as soon as the output folder cannot be written to. Before any case: if another
                command has it, or pictures of these cases are there that are not this program's.
        """
        self.failures.clear()
        take_folder(self.output_dir)
        self._refuse_foreign_pictures()
        idist.barrier()  # where ignite gets to know the processes, which they have to do together
        try:
            if self.state.epoch_length:
                super().run(global_epoch)
            else:
                for event in WITHOUT_CASES:
                    self.fire_event(event)
        except Exception as error:
            problem = self._folder_error(error)
            if problem is None or isinstance(problem, UserError):
                raise
            raise FileError(
                problem.errno,
                f"output_dir {self.output_dir} cannot be written to ({problem}): make room there "
                "or choose another folder, then run the same command again",
            ) from error
        self._raise_failures()

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        """Do one case, and return a list of it, or an empty list if it failed."""
        try:
            if FAILURE not in batchdata:
                return super()._iteration(engine, batchdata)
            (files,), (reason,) = batchdata[FILES], batchdata[FAILURE]
        except Exception as error:
            if self._folder_error(error) is not None:
                raise
            self.logger.debug("a case failed", exc_info=True)
            files, reason = _files(batchdata), one_line(cause(error))
        self.failures.append((files, reason))
        self.logger.error("failed: %s", _line(files, reason))
        engine.state.batch = []
        return []

    def _refuse_foreign_pictures(self) -> None:
        """Refuse to draw over pictures that are not this program's."""
        loader = self.data_loader
        data, sampler = (getattr(loader, name, None) for name in ("dataset", "sampler"))
        cases = getattr(data, "data", None)
        if not cases or not isinstance(sampler, Sequence):
            return
        images = {}
        for number in sampler:
            image = cases[number]["image"]
            images[case_name(image)] = place_of(ensure_tuple(image)[0])
        foreign = {}
        for name, path in outputs(self.output_dir, list(images), ["overlay"]):
            state = whose(path, images[name])
            if state not in (FREE, OWN):
                foreign[path] = state
        refuse(foreign, os.path.dirname(next(iter(images.values()), "")))

    def _folder_error(self, error: BaseException) -> OSError | None:
        """What keeps the output folder from being written to, if an error is of that."""
        for step in chain(error):
            if isinstance(step, LostFolderError):
                return step
            if isinstance(step, OSError) and step.errno in FOLDER_ERRORS:
                if step.filename is None or _on_one_path(
                    os.fsdecode(step.filename), self.output_dir
                ):
                    return step
        return None

    def _raise_failures(self) -> None:
        gathered = cast(list, idist.all_gather((self.failures, self.state.epoch_length or 0)))
        failures = sorted(sum((failures for failures, _ in gathered), []))
        if not failures:
            return
        count = sum(number for _, number in gathered)
        others = ", the others are done" if len(failures) < count else ""
        head = f"{len(failures)} of {count} cases failed{others}"
        lines = "".join(f"\n  {_line(files, reason)}" for files, reason in failures)
        message = f"{head}:{lines}\nCorrect or remove these files and run the same command again."
        if idist.get_world_size() > 1:
            if idist.get_rank() == 0:
                self.logger.error(message)
            idist.barrier()  # torchrun ends all processes when one fails: let the list be out
            message = f"{head}; the first process lists them"
        raise FailedCases(message)


def _begins_with_loader(transform: Any) -> bool:
    if not isinstance(transform, Compose) or not transform.transforms:
        return False
    return isinstance(transform.transforms[0], LoadChecked)


def _line(files: str, reason: str) -> str:
    files = printable(files)
    return reason if reason.startswith(f"{files} ") else f"{files}: {reason}"


def _files(batch: Any) -> str:
    """Names of the files of a loaded case, as MONAI collates them."""
    metas = [getattr(batch.get(key), "meta", {}) for key in ("image", "label")]
    return " with ".join(
        str(meta["filename_or_obj"][0]) for meta in metas if "filename_or_obj" in meta
    )


def _on_one_path(one: str, other: str) -> bool:
    """Whether one of two paths is, or is below, the other."""
    paths = [os.path.abspath(path) for path in (one, other)]
    return os.path.commonpath(paths) in paths
