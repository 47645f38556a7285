"""Pictures of segmentations, drawn as an evaluation goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from PIL import Image

from ldseg_monai.data.checks import remark
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.dicom.reader import SERIES_UID
from ldseg_monai.data.exports.label_map import named_classes
from ldseg_monai.data.formats import MICROMETERS, Slide
from ldseg_monai.data.writers import QUICK_PNG, png_remark
from ldseg_monai.evaluation.pictures import load_image, upright
from ldseg_monai.evaluation.sheets import Color, sheet
from ldseg_monai.inference.case_evaluator import ORIGINAL
from ldseg_monai.inference.strip_reader import open_label, small_label, small_picture
from ldseg_monai.inference.tiff import open_picture
from ldseg_monai.runtime.errors import ExistingFileError
from ldseg_monai.runtime.files import note_saved, saved_files, whole_file
from ldseg_monai.runtime.ownership import place_of

logger = logging.getLogger("ldseg_monai.evaluation.overlays")

LONGEST = 1280  # pixels of the longest side of a picture that was segmented in strips


class SaveOverlay:
    """Evaluator handler that draws each segmentation on its image: a PNG file, and in TensorBoard.

    Reads the evaluator's decollated output: ``pred`` (a picture's with or without its channel) and,
    if there, ``label`` and ``pred_sd``, in the geometry of the image's file. The engine's own image
    went through the preprocessing; that of the file is there from a `CaseDataset`, else the file is
    read again. What is drawn, `sheet` says. Of what `StripInferer` wrote, small copies are drawn.

    Args:
        output_dir: folder of the pictures, ``CASE_overlay.png``, each validation over the last.
        max_cases: pictures drawn in one run; None for all.
        tensorboard_dir: folder of a TensorBoard log that the pictures also go to; None for none.
        class_names: of the classes from 0 on, which is the background; None for numbers.
        colors: red, green, blue of classes, by their names, whatever the capitals; others get
            those of `COLORS`.

    Raises:
        ValueError: for a color of no class, or one that is none.
    """

    def __init__(
        self,
        output_dir: str,
        max_cases: int | None = None,
        tensorboard_dir: str | None = None,
        class_names: Mapping[int, str] | None = None,
        colors: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.output_dir = output_dir
        self.classes: dict[str, Sequence[int]] | None = None
        if class_names is not None:
            self.classes = {item.name: item.color for item in named_classes(class_names, colors)}
        self.max_cases = max_cases
        self.tensorboard_dir = tensorboard_dir
        self.drawn = 0

    def attach(self, engine: Engine) -> None:
        """Draw the cases of each iteration."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.draw)

    def start(self) -> None:
        """Begin to count anew."""
        self.drawn = 0

    def draw(self, engine: Engine) -> None:
        """Draw the cases of one iteration."""
        output = cast(list[dict[str, Any]], engine.state.output)
        batch = cast(list[dict[str, Any]], engine.state.batch)
        for case, loaded in zip(output, batch, strict=True):
            if self.max_cases is not None and self.drawn >= self.max_cases:
                return
            self.drawn += 1
            meta = case["image"].meta
            path = meta["filename_or_obj"]
            if case["pred"].ndim == 1:  # the size of what was segmented in strips
                label_path = saved_files(case["pred"])[0]
                picture = _sheet_of_strips(path, label_path, self.classes)
            else:
                picture = _sheet_of(case, loaded.get(ORIGINAL), self.classes)
            os.makedirs(self.output_dir, exist_ok=True)
            file = os.path.join(self.output_dir, f"{case_name(meta)}_overlay.png")
            try:
                with whole_file(file, place_of(path)) as hidden:
                    picture.save(hidden, "PNG", pnginfo=png_remark(remark(meta)), **QUICK_PNG)
            except ExistingFileError:
                logger.warning(
                    "%s is kept as it is, since this program did not write it so: no picture of "
                    "this segmentation",
                    file,
                )
            else:
                note_saved(case["pred"], file)
            if self.tensorboard_dir is not None:
                from torch.utils.tensorboard import SummaryWriter

                tag = f"overlay/{case_name(meta)}"
                with SummaryWriter(self.tensorboard_dir) as writer:
                    drawn = np.asarray(picture)
                    writer.add_image(tag, drawn, engine.state.epoch, dataformats="HWC")


def _sheet_of(
    case: Mapping[str, Any], original: torch.Tensor | None, classes: Mapping[str, Color] | None
) -> Image.Image:
    """The picture of a case; its image is read again where it is None."""
    meta, pred, label, sd = case["image"].meta, case["pred"], case.get("label"), case.get("pred_sd")
    pred = upright(pred[None] if pred.ndim == 2 else pred)
    label = None if label is None else upright(label)
    sd = None if sd is None else upright(sd)
    if original is None:
        shown = load_image(meta["filename_or_obj"], meta.get(SERIES_UID, ""))
    else:
        shown = upright(original)
    return sheet(shown, pred, label, sd, classes)


def _sheet_of_strips(
    path: str, label_path: str, classes: Mapping[str, Color] | None
) -> Image.Image:
    """The picture of one that was segmented in strips, and its label map, both read in strips."""
    with open_picture(path) as opened:
        image = small_picture(opened, LONGEST)  # (rows, columns, 3)
        microns = opened.own_microns if isinstance(opened, Slide) else None
        columns = opened.size[0]
    with open_label(label_path) as label:
        small = small_label(label, LONGEST)  # (rows, columns)
    prediction = MetaTensor(torch.from_numpy(small.copy())[None])
    if microns is not None:
        prediction.meta[MICROMETERS] = microns[0] * columns / small.shape[1]
    picture = torch.from_numpy(image.transpose(2, 0, 1).copy())
    return sheet(picture, prediction, classes=classes, is_copy=True)
