"""Numbers of a segmentation: how large, how bright and in how many pieces each class is."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.utils import convert_to_tensor, ensure_tuple
from numpy.typing import NDArray
from scipy import ndimage

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.dicom.clips import IN_MM
from ldseg_monai.data.names import case_name
from ldseg_monai.evaluation.areas import affine_of
from ldseg_monai.evaluation.case_files import MeasureCased
from ldseg_monai.inference.ensemble import most_probable_class
from ldseg_monai.inference.finished_cases import ENDINGS
from ldseg_monai.runtime.errors import InputError, counted
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.runtime.ownership import CHANGED, OWN, claim_of, outputs, place_of, whose

logger = logging.getLogger("ldseg_monai.evaluation.statistics")

ENDING = "statistics.json"  # of a case's file, and the name of that of all
TABLES = ("statistics.csv", ENDING)
SIZES = {"ml": "volume_ml", "mm2": "area_mm2", "pixels": "area_pixels"}  # columns, by the unit
BOX = "bounding_box"
ROUNDED = ".6g"  # how numbers that are no counts stand in a table
SHOWN = 5  # cases that a message names


def label_statistics(
    label: MetaTensor,
    class_names: Mapping[int, str],
    image: torch.Tensor | None = None,
    in_mm: bool = False,
    samples: torch.Tensor | None = None,
) -> list[dict[str, Any]]:
    """Measure each class but the background of one segmentation.

    Args:
        label: class indices ``(1, *spatial)`` with their affine, of a volume or of a picture.
        class_names: of the classes from 0 on, which is the background.
        image: the image ``(C, *spatial)`` in the same geometry, with the values of its file as it
            was read; None for no intensities.
        in_mm: whether a picture's affine is in mm; that of a volume always is.
        samples: class probabilities of several samples, ``(samples * classes, *spatial)``; None for
            no spread.

    Returns:
        A row of each class:

        - ``class`` and ``name``, ``voxels``: how many it has
        - ``volume_ml`` of a volume; ``area_mm2`` of a picture, ``area_pixels`` where no size is
          known. ``unit`` says which: ml, mm2 or pixels
        - the same with ``_sd``: the standard deviation of the size over the samples, with n - 1 in
          the denominator; None for fewer than two
        - ``mean_intensity`` and ``sd_intensity``: of the image's values in it, of a color picture
          of the mean of its channels. This deviation has n in the denominator. A volume of several
          channels has both of each: ``mean_intensity_0`` of the first
        - ``objects``: how many pieces it has; voxels that touch at a corner alone are of two
        - ``largest_object``, ``smallest_object``, ``median_object``: their sizes, in ``unit``
        - ``bounding_box``: first and last index along each axis, both inside, in the order of the
          axes in the file; columns and rows of a picture

        An absent class has 0 voxels, size and objects, and None for what has nothing to measure.

    Raises:
        ValueError: for a label that is neither a volume nor a picture, or has classes without a
            name, or another shape than image or samples.
    """
    _check_shapes(label, class_names, image, samples)
    classes = convert_to_tensor(label, track_meta=False)[0].cpu().numpy()
    shown = {} if image is None else _shown(image)
    unit, voxel = _voxel_size(label, in_mm)
    spread = _size_spread(samples, len(class_names))
    boxes = ndimage.find_objects(classes, max_label=len(class_names) - 1)
    rows = []
    for index in range(1, len(class_names)):
        box = boxes[index - 1]
        mask = classes[box] == index if box is not None else np.zeros(0, bool)
        objects = _object_sizes(mask) * voxel
        size = SIZES[unit]
        voxels = int(np.count_nonzero(mask))
        deviation = None if spread is None else float(spread[index] * voxel)
        row: dict[str, Any] = {"class": index, "name": class_names[index], "voxels": voxels}
        row |= {size: voxels * voxel, f"{size}_sd": deviation, "unit": unit}
        for ending in shown or [""]:
            values = shown[ending][box][mask] if shown and box is not None else None
            row[f"mean_intensity{ending}"] = None if values is None else float(values.mean())
            row[f"sd_intensity{ending}"] = None if values is None else float(values.std())
        row["objects"] = len(objects)
        row["largest_object"] = float(objects.max()) if len(objects) else None
        row["smallest_object"] = float(objects.min()) if len(objects) else None
        row["median_object"] = float(np.median(objects)) if len(objects) else None
        row[BOX] = None if box is None else [[side.start, side.stop - 1] for side in box]
        rows.append(row)
    return rows


def _check_shapes(
    label: MetaTensor,
    class_names: Mapping[int, str],
    image: torch.Tensor | None,
    samples: torch.Tensor | None,
) -> None:
    """Check what `label_statistics` takes."""
    if label.ndim not in (3, 4) or label.shape[0] != 1:
        raise InputError(
            f"label of shape {list(label.shape)}: expected (1, columns, rows) of a picture or the "
            "three axes of a volume"
        )
    if sorted(class_names) != list(range(len(class_names))):
        raise InputError(
            f"class_names are of {sorted(class_names)}: expected a name of each class from 0 on, "
            "which is the background"
        )
    largest = int(label.max()) if label.numel() else 0
    if largest >= len(class_names):
        raise InputError(
            f"the label has class {largest}, and there are {len(class_names)} class names: "
            "expected one of each; correct channel_def in metadata.json"
        )
    for what, other in (("image", image), ("samples", samples)):
        if other is not None and other.shape[1:] != label.shape[1:]:
            raise InputError(
                f"{what} of shape {list(other.shape)}: expected {list(label.shape[1:])} after the "
                "channels, as the label has"
            )
    if samples is not None and samples.shape[0] % len(class_names):
        raise InputError(
            f"samples of {samples.shape[0]} channels: expected {len(class_names)} classes each"
        )


def _shown(image: torch.Tensor) -> dict[str, NDArray[np.floating]]:
    """An image's values ``(*spatial)`` by what ends the names of their columns.

    They are the mean of a picture's colors, and each channel of a volume.
    """
    channels = convert_to_tensor(image, track_meta=False).cpu()
    if image.ndim == 3 or len(channels) == 1:
        return {"": channels.double().mean(0).numpy()}
    return {f"_{number}": channel.double().numpy() for number, channel in enumerate(channels)}


def _voxel_size(label: MetaTensor, in_mm: bool) -> tuple[str, float]:
    """Unit of sizes, and what a voxel has of it."""
    if label.ndim == 4:
        return "ml", abs(float(np.linalg.det(affine_of(label)))) / 1000
    if not in_mm:
        return "pixels", 1.0
    axes = affine_of(label)[:, :2]
    return "mm2", float(np.linalg.norm(np.cross(axes[:, 0], axes[:, 1])))


def _size_spread(samples: torch.Tensor | None, num_classes: int) -> NDArray[np.float64] | None:
    """Standard deviation of each class's voxels over the samples, background included."""
    if samples is None or samples.shape[0] < 2 * num_classes:
        return None
    counts = []
    for sample in convert_to_tensor(samples, track_meta=False).split(num_classes):
        label = most_probable_class(sample, dim=0).flatten()
        counts.append(torch.bincount(label, minlength=num_classes).cpu().numpy())
    return np.std(counts, axis=0, ddof=1)


def _object_sizes(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Voxels of each piece of a mask, which hangs together by voxels' sides."""
    pieces, _ = ndimage.label(mask)
    return np.bincount(pieces.ravel())[1:]


class SaveStatisticsd(MeasureCased):
    """Write the numbers of a segmentation, ``NAME_statistics.json``: see `label_statistics`.

    It is a list of rows, one of each class, which begin with the ``case``. An image that the
    weights do not know has the reason in each. Samples that `SplitPredictiond` left under
    ``KEY_samples`` are used for the spread, and taken out of the data.

    Args:
        keys: key of the label map ``(1, *spatial)``, in the geometry of the image.
        output_dir: folder of the files.
        class_names: of the classes from 0 on, which is the background.
        image_key: key of the image in the same geometry, with the values of its file; without it
            there are no intensities.
    """

    what = "statistics"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files; return ``data`` without the samples.

        Raises:
            OSError: if a file cannot be written.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            label = result[key]
            samples = result.pop(f"{key}_samples", None)
            image = result.get(self.image_key)
            in_mm = label.meta.get(IN_MM, False)
            about = {"case": case_name(label.meta)}
            why = {OUTSIDE: label.meta[OUTSIDE]} if label.meta.get(OUTSIDE) else {}
            measured = label_statistics(label, self.class_names, image, in_mm, samples)
            rows = [{**about, **row, **why} for row in measured]
            self.write(label, ENDING, as_json(rows))
        return result


class StatisticsTable:
    """Evaluator handler: at the end, one table of what `SaveStatisticsd` wrote of each case.

    ``statistics.csv`` and ``statistics.json`` have a row a case and class, in the order of the
    cases' names. The cases are those of the evaluator's data set, also those that an earlier run
    finished; a case that failed in this one has no row. Where several processes of one command
    share the cases, the first writes the rows of all. Separate commands, as of a cluster's job
    array, each write what is there; the last one has all.

    Args:
        output_dir: folder of the files.
        save: False where there are no numbers; a table of an earlier run is then removed, since it
            is of other segmentations.
    """

    def __init__(self, output_dir: str, save: bool = True) -> None:
        self.output_dir = output_dir
        self.save = save
        self.done: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Note the cases that are done, and write the files when the run is complete."""
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def begin(self) -> None:
        """Forget an earlier run."""
        self.done.clear()

    def note(self, engine: Engine) -> None:
        """Note the cases of one iteration; there is none where one failed."""
        self.done |= {case_name(case["image"]) for case in cast(list, engine.state.output)}

    def write(self, engine: Engine) -> None:
        """Write both files, or remove those of an earlier run."""
        if not self.save:
            self._remove()
            return
        loader = cast(Any, engine).data_loader
        cases = [case["image"] for case in loader.dataset.data]
        to_do = {case_name(cases[number]) for number in loader.sampler}
        # This waits for all processes, so that all files are there
        failed = set(chain.from_iterable(cast(list, idist.all_gather([*(to_do - self.done)]))))
        if idist.get_rank() > 0:
            return
        images = {case_name(image): place_of(ensure_tuple(image)[0]) for image in cases}
        rows: list[dict[str, Any]] = []
        for name in sorted(images.keys() - failed):
            rows += self._rows(name, images[name])
        self._tell_changed(images)
        if not rows:
            return
        os.makedirs(self.output_dir, exist_ok=True)
        for file, content in zip(TABLES, (_as_csv(rows), as_json(rows)), strict=True):
            with whole_file(os.path.join(self.output_dir, file)) as hidden:
                with open(hidden, "wb") as opened:
                    opened.write(content)
        table = os.path.join(self.output_dir, TABLES[0])
        logger.info("wrote %s: %s", table, counted(len({row["case"] for row in rows}), "case"))

    def _remove(self) -> None:
        """Remove the files of an earlier run of this command that nobody changed."""
        claim = claim_of(self.output_dir)
        if claim is None or claim.of is None or idist.get_rank() > 0:
            return
        for file in TABLES:
            path = os.path.join(self.output_dir, file)
            if whose(path, claim.of, read=True) == OWN:
                os.unlink(path)
                logger.info("removed %s, which was of earlier segmentations", path)

    def _rows(self, name: str, image: str) -> list[dict[str, Any]]:
        """The rows of a case's file, none where this program wrote none of this image."""
        path = os.path.join(self.output_dir, f"{name}_{ENDING}")
        if whose(path, image) not in (OWN, CHANGED):
            return []
        try:
            with open(path, encoding="utf-8") as file:
                return cast(list, json.load(file))
        except ValueError as error:
            logger.warning("%s is no JSON (%s): the table lacks this case", path, error)
            return []

    def _tell_changed(self, images: Mapping[str, str]) -> None:
        """Warn of masks that were corrected by hand, whose numbers are of what they were before."""
        changed = set()
        for name, path in outputs(self.output_dir, list(images), ENDINGS):
            if whose(path, images[name]) == CHANGED:
                changed.add(name)
        if changed:
            shown = ", ".join(sorted(changed)[:SHOWN])
            logger.warning(
                "files of %s were changed after they were written: the table has the numbers of "
                "the segmentations as they were before: %s",
                counted(len(changed), "case"),
                shown,
            )


def as_json(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as JSON, a line each."""
    lines = [f"  {json.dumps(row)}" for row in rows]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as CSV; a bounding box has two columns an axis, an empty cell is what there is not."""
    flat = [_flat(row) for row in rows]
    columns = dict.fromkeys(chain.from_iterable(flat))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without lists, its numbers rounded."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name == BOX:
            for axis, (first, last) in enumerate(value or ()):
                flat |= {f"{BOX}_{axis}_first": first, f"{BOX}_{axis}_last": last}
        elif isinstance(value, float):
            flat[name] = format(value, ROUNDED)
        else:
            flat[name] = value
    return flat
