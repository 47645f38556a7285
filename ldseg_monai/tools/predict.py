"""Segmenting files by a bundle: its own inference config, run on what was asked for."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, create_workflow
from monai.engines.utils import IterationEvents
from monai.utils import ensure_tuple

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.bundle import SEQUENCES, STRIPS, readable
from ldseg_monai.bundle.components import has_id
from ldseg_monai.bundle.knobs import check_home, view_knobs
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.datalist import case_name, folders_in
from ldseg_monai.data.dicom.series import folder_of_slice
from ldseg_monai.data.exports.kinds import KINDS, OWN, check_kinds
from ldseg_monai.data.formats import (
    PICTURE_ENDINGS,
    SLIDE_ENDINGS,
    TIFF_ENDINGS,
    VOLUME_ENDINGS,
    is_slide,
)
from ldseg_monai.data.formats.kinds import ITK_ENDINGS
from ldseg_monai.inference.case_evaluator import CaseEvaluator
from ldseg_monai.runtime.errors import InputError, MissingFileError, hide_user_tracebacks
from ldseg_monai.runtime.files import saved_files
from ldseg_monai.tools.archives import ZIP, as_archives, places_in, told_as_archives, unpacked
from ldseg_monai.tools.forecast import image_size, tell_large

logger = logging.getLogger("ldseg_monai.tools")

BESIDE = "_segmentation"  # what the folder of results beside a folder of images is called
# Loggers of which only errors are for the user: what was called, epochs and iterations, plugins,
# requests of huggingface_hub, each number that an ONNX file has once in place of twice
CHATTY = (
    *("monai.bundle.scripts", "monai.bundle.workflows", "monai.apps", "pydicom", "highdicom"),
    *("httpx", "httpx2", "tensorboard", "onnx_ir", "onnxscript", "torch.onnx"),
    "ignite.engine.engine.CaseEvaluator",
)
LARGE = 64_000_000  # pixels: a picture of more is done in strips of rows, where a bundle can


def predict(
    bundle: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    overlays: Sequence[str] | None = None,
    lines: IO[str] | None = None,
    views: bool = False,
    **knobs: Any,
) -> None:
    """Segment files, as ``python -m monai.bundle run`` does with the bundle's ``inference.yaml``.

    Args:
        bundle: folder, zip or name of a bundle.
        inputs: images, folders of images or of DICOM series, and zip archives of such.
        out: folder of the results; None for the one of a first input that is a file, or for
            ``NAME_segmentation`` beside one that is a folder, or a slice in it.
        overlays: configs of the bundle that go over ``inference.yaml``; None for those that the
            inputs ask for: ``sequences.yaml`` for volumes where the bundle is of pictures,
            ``strips.yaml`` for whole-slide images, and for TIFF of more than 64 million pixels,
            each where the bundle has it.
        lines: gets a line of JSON for each image; None for nothing.
        views: whether the samples see each image in all views that the bundle knows, in as many
            samples as there are views, for each network of an ensemble, where the knobs do not say.
        knobs: of the config, by their names.

    Raises:
        FileNotFoundError: if the bundle, an input or the weights are not there.
        ValueError: for a knob that the config does not have or a value that it cannot use.
        FailedCases: when all is done, if some images could not be segmented.
    """
    for path in inputs:
        if not os.path.exists(path):
            raise MissingFileError(
                f"input {os.fspath(path)} does not exist: expected an image, a folder or a zip; "
                "correct the path"
            )
    if out is not None:
        check_home(out)  # here, since it is made a whole path below
    with contextlib.ExitStack() as stack:
        stack.enter_context(hushed())
        own = stack.enter_context(open_bundle(bundle))
        if own.root.resolve() not in [one.root.resolve() for one in Bundle.installed()]:
            logger.warning(
                "%s is none of the bundles here: its configs can run any code; use it only if you "
                "trust who made it",
                os.fspath(bundle),
            )
        places: list[str] = []
        archives: dict[str, str] = {}  # where each is unpacked
        for path in inputs:
            place = stack.enter_context(unpacked(path))
            if place == os.fspath(path):
                places.append(place)
                continue
            places += places_in(place)
            archives[place] = os.fspath(path)
        if archives:
            stack.enter_context(told_as_archives(archives))
        if overlays is None:
            overlays = overlays_for(own, places)
        if SEQUENCES in overlays and knobs.pop("save_overlay", False):
            logger.info("the picture of a sequence is NAME_area.png, which is drawn anyway")
        files = [str(own.config_file(name)) for name in ("inference.yaml", *overlays)]
        config = own.config("inference.yaml", *overlays, **knobs)
        if views:
            networks = 1 + len(ensure_tuple(knobs.get("ensemble", ())))
            knobs = view_knobs(config, networks) | knobs
        files_given = (file for place in places for file in files_of(place))
        is_itk = any(file.lower().endswith(ITK_ENDINGS) for file in files_given)
        if is_itk and own.spatial_dims == 3 and not overlays:
            knobs["save_as"] = [OWN, *knobs.get("save_as", [])]
        results = folder_of_results(inputs) if out is None else out
        workflow = create_workflow(
            config_file=files,
            workflow_type="inference",
            logging_file=False,
            bundle_root=str(own.root),
            # Not a list, in whose texts MONAI would replace each `#`
            dataset_dir=tuple(os.path.abspath(place) for place in places),
            **readable({"output_dir": os.path.abspath(results), **knobs}),
        )
        evaluator = workflow.parser.get_parsed_content("evaluator")
        tell_large(workflow.parser)
        cases = workflow.parser.get_parsed_content("dataset#data")
        check_fit(workflow.parser, cases)
        if lines is not None:
            CaseLines(cases, lines, archives).attach(evaluator)
        workflow.run()
        workflow.finalize()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Let MONAI not tell meanwhile what its commands were called with, nor what configs can do.

    Nor has its log tracebacks of errors that end in one line, from now on.
    """
    hide_user_tracebacks()
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [chatty.level for chatty in loggers]
    for chatty in loggers:
        chatty.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "parsing config_file")
            warnings.filterwarnings("ignore", "Detected deprecated name")  # which the zoo asks for
            yield
    finally:
        for chatty, level in zip(loggers, levels, strict=True):
            chatty.setLevel(level)


@contextlib.contextmanager
def open_bundle(bundle: str | os.PathLike[str]) -> Iterator[Bundle]:
    """The bundle in a folder, of a name, or in a zip such as the model zoo's.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not os.fspath(bundle).lower().endswith(ZIP):
        yield Bundle.find(bundle)
        return
    if not os.path.isfile(bundle):
        raise MissingFileError(f"{os.fspath(bundle)} does not exist: expected the zip of a bundle")
    with unpacked(bundle) as folder:
        found = sorted(Path(folder).glob("**/configs/metadata.json"))
        if len(found) != 1:
            raise InputError(
                f"{os.fspath(bundle)} holds {len(found)} bundles: expected one, a folder with "
                "configs/metadata.json"
            )
        yield Bundle(found[0].parents[1])


def folder_of_results(inputs: Sequence[str | os.PathLike[str]]) -> Path:
    """Where results go if nobody says: beside the first input.

    A slice of a DICOM series stands for its folder, in which results would be data of the next run.
    """
    first = Path(folder_of_slice(inputs[0])).absolute()
    return first.with_name(first.name + BESIDE) if first.is_dir() else first.parent


def overlays_for(bundle: Bundle, places: Sequence[str]) -> list[str]:
    """The overlays on ``inference.yaml`` that images ask for: see `predict`."""
    there = [name for name in (SEQUENCES, STRIPS) if (bundle.configs / name).is_file()]
    files = [file for place in places for file in files_of(place)]
    slides = [file for file in files if file.lower().endswith(SLIDE_ENDINGS)]
    if slides and STRIPS not in there:
        raise InputError(
            f"{slides[0]} is a whole-slide image, which {bundle.name} does not take: expected a "
            "bundle with strips.yaml, such as ldseg_glas or cdal_monuseg"
        )
    if not there:
        return []
    pictures = [file for file in files if file.lower().endswith(PICTURE_ENDINGS)]
    others = [file for file in files if file.lower().endswith(VOLUME_ENDINGS)]
    if SEQUENCES in there and pictures and others:
        raise InputError(
            f"{others[0]} is a sequence and {pictures[0]} a picture: expected images of one kind; "
            "give them to two commands"
        )
    if SEQUENCES in there and not pictures and files:
        return [SEQUENCES]
    if STRIPS in there and not others:
        if slides or any(map(is_slide, pictures)):
            if len(files) > 1:
                logger.info(
                    "with a slide, all pictures are done in strips, and written as OME-TIFF"
                )
            return [STRIPS]
        is_tiff = all(file.lower().endswith(TIFF_ENDINGS) for file in pictures)
        if is_tiff and any(math.prod(image_size(file)) > LARGE for file in pictures):
            return [STRIPS]
    return []


def check_fit(parser: ConfigParser, cases: Sequence[Mapping[str, Any]]) -> None:
    """Check that each volume can be written in the kinds of files asked for, before any work.

    Raises:
        ValueError: for a kind for DICOM series alone, and an image that is none.
    """
    kinds = parser.get_parsed_content("save_as") if has_id(parser, "save_as") else ()
    if not any(KINDS[kind].of_dicom for kind in kinds):
        return
    for case in cases:
        if not os.path.isdir(_path(case["image"])):
            try:
                check_kinds(kinds, 3, is_dicom=False)
            except InputError as error:
                raise InputError(f"{_path(case['image'])}: {error}") from None


def files_of(place: str) -> Iterator[str]:
    """A file, or every visible one in a folder and below."""
    if not os.path.isdir(place):
        yield place
        return
    for folder in folders_in(Path(place)):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not name.startswith("."):  # a link in a circle is none
                yield path


class CaseLines:
    """Evaluator handler that writes a line of JSON for each image, as soon as it is done.

    Its entries: ``image``, ``case``, ``status`` (``done``, ``finished before`` or ``failed``), and
    where they apply ``files``, ``seconds``, ``error`` and ``outside_of_known``.

    Args:
        cases: all cases of the run.
        file: that the lines are written to.
        archives: path of each archive that is unpacked, by the folder that it is in: an image of
            one is called ``ARCHIVE/PATH``.
    """

    def __init__(
        self,
        cases: Sequence[dict[str, Any]],
        file: IO[str],
        archives: Mapping[str, str] | None = None,
    ) -> None:
        self.cases = {case_name(case["image"]): _path(case["image"]) for case in cases}
        self.file = file
        self.archives = archives or {}
        self.told: set[str] = set()
        self.started = 0.0
        self.failures = 0

    def attach(self, engine: CaseEvaluator) -> None:
        """Write after all handlers that are attached already."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.done)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.failed)
        engine.add_event_handler(Events.COMPLETED, self.finished_before)

    def start(self) -> None:
        """Begin to count the seconds of a case."""
        self.started = time.perf_counter()

    def done(self, engine: Engine) -> None:
        """Write a line for each case of one iteration."""
        output: Any = engine.state.output
        for case in output:
            meta = case["image"].meta
            files = sorted({path for value in case.values() for path in saved_files(value)})
            seconds = round(time.perf_counter() - self.started, 3)
            self._write(case_name(meta), "done", files=files, seconds=seconds, **_marks(meta))

    def failed(self, engine: Any) -> None:
        """Write a line for a case that has failed since the last one."""
        for files, reason in engine.failures[self.failures :]:
            names = [name for name, path in self.cases.items() if files.split(" with ")[0] == path]
            name = names[0] if names else case_name(files)
            self._write(name, "failed", error=as_archives(reason, self.archives))
        self.failures = len(engine.failures)

    def finished_before(self) -> None:
        """Write a line for each case that an earlier run finished."""
        for name in self.cases:
            if name not in self.told:
                self._write(name, "finished before")

    def _write(self, name: str, status: str, **entries: Any) -> None:
        self.told.add(name)
        line = {"image": self._image(name), "case": name, "status": status, **entries}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def _image(self, name: str) -> str:
        """Where a person finds the image of a case."""
        return as_archives(self.cases.get(name, ""), self.archives)


def _path(image: Any) -> str:
    return os.fspath(ensure_tuple(image)[0])


def _marks(meta: Any) -> dict[str, Any]:
    return {OUTSIDE: meta[OUTSIDE]} if OUTSIDE in meta else {}
