"""Numbers of segmentations that were written in strips, measured in strips as well."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from monai.config import KeysCollection

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.exports.outlines import objects_in_strips
from ldseg_monai.data.formats import Slide
from ldseg_monai.data.names import case_name
from ldseg_monai.evaluation.case_files import MeasureCased
from ldseg_monai.evaluation.statistics import BOX, ENDING, SIZES, as_json
from ldseg_monai.inference.strip_reader import StripReader, label_strips
from ldseg_monai.runtime.files import saved_files


def strip_statistics(
    strips: Callable[[], Iterable[np.ndarray]],
    class_names: Mapping[int, str],
    pixel_mm2: float | None = None,
) -> list[dict[str, Any]]:
    """Measure each class but the background of one label map, whose rows come strip by strip.

    Args:
        strips: gives the class indices, ``(rows, columns)`` each, the upper ones first; called once
            a class.
        class_names: of the classes from 0 on, which is the background.
        pixel_mm2: area of a pixel; None where it is not known.

    Returns:
        Rows as of `label_statistics`, without intensities and deviations, which are None.
    """
    unit, pixel = ("pixels", 1.0) if pixel_mm2 is None else ("mm2", pixel_mm2)
    rows = []
    for index in range(1, len(class_names)):
        counts, corners = [], []
        for mask, (top, left) in objects_in_strips(strips(), index):
            counts.append(int(np.count_nonzero(mask)))
            height, width = mask.shape
            corners.append([left, left + width - 1, top, top + height - 1])
        objects = np.array(counts) * pixel
        size, voxels = SIZES[unit], sum(counts)
        row: dict[str, Any] = {"class": index, "name": class_names[index], "voxels": voxels}
        row |= {size: voxels * pixel, f"{size}_sd": None, "unit": unit}
        row |= {"mean_intensity": None, "sd_intensity": None, "objects": len(counts)}
        row["largest_object"] = float(objects.max()) if counts else None
        row["smallest_object"] = float(objects.min()) if counts else None
        row["median_object"] = float(np.median(objects)) if counts else None
        row[BOX] = None
        if counts:
            low, high = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
            row[BOX] = [[low[0], high[1]], [low[2], high[3]]]
        rows.append(row)
    return rows


class SaveStripStatisticsd(MeasureCased):
    """Write ``NAME_statistics.json`` of each label map that `StripInferer` wrote.

    Areas of slides whose micrometers a pixel are known are in mm2, others in pixels. There are no
    intensities, and no deviations over the samples, of which strips keep none.

    Args:
        keys: key of what `StripInferer` returns.
        output_dir: folder of the files.
        class_names: of the classes from 0 on, which is the background.
        reader: opens the pictures.
    """

    what = "statistics"

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        class_names: Mapping[int, str],
        reader: StripReader,
    ) -> None:
        super().__init__(keys, output_dir, class_names)
        self.reader = reader

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files, and return ``data``.

        Raises:
            OSError: if a file cannot be written.
        """
        for key in self.key_iterator(dict(data)):
            pred = data[key]
            meta = pred.meta
            label, *_ = saved_files(pred)
            with self.reader.open(meta["filename_or_obj"]) as picture:
                microns = picture.microns if isinstance(picture, Slide) else None
            pixel = None if microns is None else microns[0] * microns[1] / 1e6
            about = {"case": case_name(meta)}
            why = {OUTSIDE: meta[OUTSIDE]} if meta.get(OUTSIDE) else {}
            measured = strip_statistics(partial(label_strips, label), self.class_names, pixel)
            self.write(pred, ENDING, as_json([{**about, **row, **why} for row in measured]))
        return dict(data)
