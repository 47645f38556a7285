"""How large each class is in the frames of a sequence: a table, and a plot with frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from numpy.typing import NDArray

from ldseg_monai.data.checks import remark
from ldseg_monai.data.dicom.clips import IN_MM, SECONDS
from ldseg_monai.evaluation.case_files import write_case_file
from ldseg_monai.evaluation.pictures import COLORS, overlay
from ldseg_monai.runtime.errors import InputError


class SaveAreasd(MapTransform):
    """Write the area of each class in each frame of a segmented sequence.

    ``NAME_area.csv`` has a row a frame: its number from 1 on, its time in seconds where the file
    gives one, and a column a class, in mm2, or in pixels where no size is known.
    ``NAME_area.png`` shows them over time, with the frames in which the first class is largest and
    smallest.

    Args:
        keys: key of the label map ``(1, columns, rows, frames)``, in the geometry of the image.
        output_dir: folder of the files.
        class_names: of the classes from 0 on, which is the background.
        image_key: key of the image in the same geometry, which is drawn.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        class_names: Mapping[int, str],
        image_key: str = "original",
    ) -> None:
        super().__init__(keys)
        self.output_dir = output_dir
        self.class_names = class_names
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files; return ``data`` as it is.

        Raises:
            OSError: if a file cannot be written.
        """
        for key in self.key_iterator(dict(data)):
            label = data[key]
            meta = label.meta
            areas = frame_areas(label, len(self.class_names), meta.get(IN_MM, False))
            unit = "mm2" if meta.get(IN_MM, False) else "pixels"
            names = [self.class_names[index] for index in range(1, len(self.class_names))]
            table = area_table(areas, names, unit, meta.get(SECONDS))
            write_case_file(label, self.output_dir, "area.csv", table.encode(), "areas")
            image = data.get(self.image_key)
            plot = draw_areas(image, label, areas, names, unit, meta.get(SECONDS))
            write_case_file(label, self.output_dir, "area.png", plot, "areas")
        return dict(data)


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
    areas: NDArray[np.float64], names: Sequence[str], unit: str, seconds: float | None
) -> str:
    """Areas ``(classes, frames)`` as CSV: see `SaveAreasd`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    times = [] if seconds is None else ["seconds"]
    writer.writerow(["frame", *times, *(f"{name}_{unit}" for name in names)])
    for frame, row in enumerate(areas.T):
        when = [] if seconds is None else [f"{frame * seconds:.4f}"]
        writer.writerow([frame + 1, *when, *(f"{area:.6g}" for area in row)])
    return text.getvalue()


def draw_areas(
    image: torch.Tensor | None,
    label: Any,
    areas: NDArray[np.float64],
    names: Sequence[str],
    unit: str,
    seconds: float | None,
) -> bytes:
    """Draw areas over time, with two frames above them: a PNG file.

    Args:
        image: the sequence ``(1, columns, rows, frames)``; None for no frames.
        label: class indices of the same shape, with metadata.
        areas: ``(classes, frames)``.
        names: of the classes.
        unit: of the areas.
        seconds: from frame to frame; None for frames in place of a time.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7.5 if image is not None else 3.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    shown = {"largest": int(areas[0].argmax()), "smallest": int(areas[0].argmin())}
    layout: Any = [["plot", "plot"]]
    if image is not None:
        layout = [list(shown), ["plot", "plot"]]
    axes: Any = figure.subplot_mosaic(layout, height_ratios=[1.4, 1.0][-len(layout) :])
    spacing = np.linalg.norm(affine_of(label), axis=0)
    if image is not None:
        for name, frame in shown.items():
            picture = overlay(
                convert_to_tensor(image[..., frame], track_meta=False).transpose(1, 2),
                convert_to_tensor(label[..., frame], track_meta=False).transpose(1, 2),
            )
            axes[name].imshow(picture, aspect=spacing[1] / spacing[0])
            axes[name].set_title(f"{names[0]} {name}: frame {frame + 1}")
            axes[name].set_axis_off()
    times = np.arange(areas.shape[1]) * (1.0 if seconds is None else seconds)
    if seconds is None:
        times += 1
    for index, (name, row) in enumerate(zip(names, areas, strict=True)):
        color = COLORS[index % len(COLORS)] / 255
        axes["plot"].plot(times, row, marker=".", color=color, label=name)
    for frame in shown.values():
        axes["plot"].axvline(times[frame], color="gray", linewidth=0.8, linestyle=":")
    axes["plot"].set(
        xlabel="frame" if seconds is None else "seconds",
        ylabel="area (mm²)" if unit == "mm2" else "area (pixels)",
        ylim=(0, None),
    )
    axes["plot"].grid(alpha=0.3)
    axes["plot"].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(names))
    said = remark(label.meta)
    if said:
        figure.suptitle(said, fontsize=8)
    file = io.BytesIO()
    canvas.print_png(file)
    return file.getvalue()
