"""How large each class is in the frames of a sequence, and how much a ventricle ejects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.utils import convert_to_tensor
from numpy.typing import NDArray

from ldseg_monai.data.checks import OUTSIDE, remark
from ldseg_monai.data.dicom.clips import IN_MM, SECONDS
from ldseg_monai.data.names import case_name
from ldseg_monai.evaluation.case_files import MeasureCased
from ldseg_monai.evaluation.ejection import Ejection, ejection_fraction
from ldseg_monai.evaluation.pictures import COLORS, overlay
from ldseg_monai.evaluation.sheets import BAR_SHARE, round_length
from ldseg_monai.runtime.errors import InputError


class SaveAreasd(MeasureCased):
    """Write the area of each class in each frame of a segmented sequence.

    ``NAME_area.csv`` has a row a frame: its number from 1 on, its time in seconds where the file
    gives one, and a column a class, in mm2, or in pixels where no size is known.
    ``NAME_area.png`` shows them over time, with the frames in which the first class is largest and
    smallest.

    With ``chamber`` the table ends with that cavity's volume, ``volume_ml``, or
    ``volume_relative`` where no size is known. ``NAME_area.json`` has the ejection fraction (see
    `ejection_fraction`), and the plot the frames at end-diastole and end-systole in place of the
    above. Samples that `SplitPredictiond` left under ``KEY_samples`` are used for the fraction's
    spread, and taken out of the data.

    Args:
        keys: key of the label map ``(1, columns, rows, frames)``, in the geometry of the image.
        output_dir: folder of the files.
        class_names: of the classes from 0 on, which is the background.
        image_key: key of the image in the same geometry, which is drawn.
        chamber: name of the class whose ejection fraction is measured; None for none.

    Raises:
        ValueError: if no class has the chamber's name.
    """

    what = "areas"

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        class_names: Mapping[int, str],
        image_key: str = "original",
        chamber: str | None = None,
    ) -> None:
        super().__init__(keys, output_dir, class_names, image_key)
        self.names = [class_names[index] for index in range(1, len(class_names))]
        if chamber is not None and chamber not in self.names:
            raise InputError(
                f"chamber is {chamber!r}: expected one of the classes "
                f"{', '.join(self.names)}, or null for no ejection fraction"
            )
        self.chamber = chamber

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files; return ``data`` without the samples.

        Raises:
            OSError: if a file cannot be written.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            label = result[key]
            samples = result.pop(f"{key}_samples", None)
            in_mm, seconds = label.meta.get(IN_MM, False), label.meta.get(SECONDS)
            areas = frame_areas(label, len(self.class_names), in_mm)
            unit = "mm2" if in_mm else "pixels"
            ejection = None
            if self.chamber is not None:
                ejection = self._ejection(label, samples, in_mm)
                self.write(label, "area.json", self._as_json(label, ejection))
            table = area_table(areas, self.names, unit, seconds, ejection)
            self.write(label, "area.csv", table.encode())
            image = result.get(self.image_key)
            plot = draw_areas(image, label, areas, self.names, unit, seconds, ejection)
            self.write(label, "area.png", plot)
        return result

    def _ejection(self, label: Any, samples: torch.Tensor | None, in_mm: bool) -> Ejection:
        """The chamber's ejection fraction."""
        cavity = 1 + self.names.index(str(self.chamber))
        pixel = affine_of(label)[:, :2] if in_mm else None
        return ejection_fraction(label, cavity, pixel, samples, len(self.class_names))

    def _as_json(self, label: Any, ejection: Ejection) -> bytes:
        """An ejection fraction as JSON; one of an image that the weights do not know says why."""
        about = {"case": case_name(label.meta), "chamber": self.chamber}
        why = {OUTSIDE: label.meta[OUTSIDE]} if label.meta.get(OUTSIDE) else {}
        return (json.dumps({**about, **ejection.as_dict(), **why}, indent=2) + "\n").encode()


def frame_areas(label: torch.Tensor, num_classes: int, in_mm: bool) -> NDArray[np.float64]:
    """Area of each class but the background in each frame.

    Args:
        label: class indices ``(1, columns, rows, frames)``; with ``in_mm``, with their affine.
        num_classes: classes, background included.
        in_mm: whether the affine's unit is mm.

    Returns:
        Areas ``(classes - 1, frames)``, in mm2 or in pixels.

    Raises:
        ValueError: if the label is no sequence.
    """
    if label.ndim != 4 or label.shape[0] != 1:
        raise InputError(f"label of shape {list(label.shape)}: expected (1, columns, rows, frames)")
    classes = convert_to_tensor(label, device="cpu", track_meta=False)[0].numpy()
    pixel = 1.0
    if in_mm:
        axes = affine_of(label)[:, :2]
        pixel = float(np.linalg.norm(np.cross(axes[:, 0], axes[:, 1])))
    counts = [np.count_nonzero(classes == index, axis=(0, 1)) for index in range(1, num_classes)]
    return np.array(counts) * pixel


def affine_of(label: Any) -> NDArray[np.float64]:
    """The axes of a label's voxels, in columns."""
    return np.array(label.affine.tolist())[:3, :3]


def area_table(
    areas: NDArray[np.float64],
    names: Sequence[str],
    unit: str,
    seconds: float | None,
    ejection: Ejection | None = None,
) -> str:
    """Areas ``(classes, frames)`` and a ventricle's volumes as CSV: see `SaveAreasd`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    times = [] if seconds is None else ["seconds"]
    volume = [] if ejection is None else [f"volume_{ejection.unit}"]
    writer.writerow(["frame", *times, *(f"{name}_{unit}" for name in names), *volume])
    for frame, row in enumerate(areas.T):
        cells = [str(frame + 1)]
        if seconds is not None:
            cells.append(f"{frame * seconds:.4f}")
        cells += [f"{area:.6g}" for area in row]
        if ejection is not None:
            value = ejection.volumes[frame]
            cells.append("" if np.isnan(value) else f"{value:.6g}")
        writer.writerow(cells)
    return text.getvalue()


def draw_areas(
    image: torch.Tensor | None,
    label: Any,
    areas: NDArray[np.float64],
    names: Sequence[str],
    unit: str,
    seconds: float | None,
    ejection: Ejection | None = None,
) -> bytes:
    """Draw areas over time, with two frames above them: a PNG file.

    Args:
        image: the sequence ``(1, columns, rows, frames)``; None for no frames.
        label: class indices of the same shape, with metadata.
        areas: ``(classes, frames)``.
        names: of the classes.
        unit: of the areas.
        seconds: from frame to frame; None for frames in place of a time.
        ejection: of a ventricle, whose long axis is drawn too; None for none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7.5 if image is not None else 3.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    shown = _two_frames(areas, names, ejection)
    layout: Any = [["plot", "plot"]]
    if image is not None:
        layout = [list(shown), ["plot", "plot"]]
    axes: Any = figure.subplot_mosaic(layout, height_ratios=[1.4, 1.0][-len(layout) :])
    spacing = np.linalg.norm(affine_of(label), axis=0)
    if image is not None:
        for title, frame in shown.items():
            picture = overlay(
                convert_to_tensor(image[..., frame], track_meta=False).transpose(1, 2),
                convert_to_tensor(label[..., frame], track_meta=False).transpose(1, 2),
            )
            # `overlay` enlarges; columns and rows of the sequence all the same
            extent = (-0.5, label.shape[1] - 0.5, label.shape[2] - 0.5, -0.5)
            axes[title].imshow(picture, aspect=spacing[1] / spacing[0], extent=extent)
            axes[title].set_title(f"{title}: frame {frame + 1}{_volume(ejection, frame)}")
            axes[title].set_axis_off()
            if unit == "mm2":
                _scale_bar(axes[title], label.shape[1:3], float(spacing[0]))
            if ejection is not None:
                axes[title].plot(*ejection.axes[frame].T, color="white", linewidth=1)
    times = np.arange(areas.shape[1]) * (1.0 if seconds is None else seconds)
    if seconds is None:
        times += 1
    for index, (name, row) in enumerate(zip(names, areas, strict=True)):
        color = COLORS[index % len(COLORS)] / 255
        axes["plot"].plot(times, row, marker=".", color=color, label=name)
    for frame in shown.values():
        axes["plot"].axvline(times[frame], color="gray", linewidth=0.8, linestyle=":")
    axes["plot"].set(
        xlabel="frame" if seconds is None else "time (s)",
        ylabel="area (mm²)" if unit == "mm2" else "area (pixels)",
        ylim=(0, None),
    )
    axes["plot"].grid(alpha=0.3)
    axes["plot"].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(names))
    said = remark(label.meta)
    if ejection is not None:
        figure.suptitle("\n".join(filter(None, [_headline(ejection), said])), fontsize=11)
    elif said:
        figure.suptitle(said, fontsize=8)
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _scale_bar(axes: Any, size: Sequence[int], pixel: float) -> None:
    """Draw a bar of a round length at the bottom right of a frame.

    Args:
        axes: whose unit is a pixel.
        size: columns and rows.
        pixel: mm of a column.
    """
    columns, rows = size
    length = round_length(BAR_SHARE * columns * pixel)
    right, height = 0.97 * columns, 0.96 * rows
    axes.plot([right - length / pixel, right], [height, height], color="white", linewidth=3)
    place = (right - length / pixel / 2, height - 0.015 * rows)
    axes.text(*place, f"{length:g} mm", color="white", ha="center", va="bottom")


def _two_frames(
    areas: NDArray[np.float64], names: Sequence[str], ejection: Ejection | None
) -> dict[str, int]:
    """The frames that are drawn, by what they are."""
    if ejection is not None and ejection.diastole is not None and ejection.systole is not None:
        return {"end-diastole": ejection.diastole, "end-systole": ejection.systole}
    largest, smallest = int(areas[0].argmax()), int(areas[0].argmin())
    return {f"{names[0]} largest": largest, f"{names[0]} smallest": smallest}


def _volume(ejection: Ejection | None, frame: int) -> str:
    """A frame's volume in ml, behind its title."""
    if ejection is None or ejection.unit != "ml" or np.isnan(ejection.volumes[frame]):
        return ""
    return f", {ejection.volumes[frame]:.0f} ml"


def _headline(ejection: Ejection) -> str:
    """An ejection fraction with its spread, or why there is none."""
    if ejection.fraction is None:
        return f"no ejection fraction: {ejection.note}"
    spread = "no error bar"
    value = f"{100 * ejection.fraction:.0f} %"
    if ejection.sd is not None:
        value = f"{100 * ejection.fraction:.1f} ± {100 * ejection.sd:.1f} %"
        spread = f"± SD of {ejection.samples} samples alone"
    return f"Ejection fraction {value} (area-length in one plane; {spread})"
