"""What the programs of this folder draw: curves, maps of a case, points of all cases."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.utils import convert_to_tensor

from benchmarks.accuracy.disturbances import Disturbance
from benchmarks.accuracy.quality import known, mean
from ldseg_monai.evaluation.pictures import load_image, upright

COLORS = 10  # of curves, until the first comes again


def widest_slice(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The picture, or a volume's axial slice with the most foreground, upright.

    Returns:
        Its image, label, and maps of mean and SD, each ``(C, rows, columns)``.
    """
    maps = {
        "label": upright(case["label"]),
        "mean": upright(1 - case["pred_mean"][:1]),
        "SD": upright(case["pred_sd"]),
    }
    return widest_planes(case["image"].meta["filename_or_obj"], maps)


def widest_planes(path: str, maps: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A picture with its maps, or of a volume the axial slice with the most of ``label``.

    Args:
        path: of the image's file.
        maps: upright, ``(C, *spatial)``, a ``label`` among them.
    """
    planes = {"image": load_image(path), **maps}
    if planes["image"].ndim == 4:
        index = int((planes["label"] > 0).sum(dim=(0, 2, 3)).argmax())
        planes = {name: volume[:, index] for name, volume in planes.items()}
    return {name: convert_to_tensor(plane, track_meta=False) for name, plane in planes.items()}


def draw_maps(path: Path, planes: dict[str, torch.Tensor], title: str) -> None:
    """Draw the image with the true outline, the mean foreground probability, and its SD."""
    figure, axes = canvas(1, 3, (12, 4.2))
    image = planes["image"].float()
    image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
    axes[0].imshow(image.movedim(0, -1).squeeze(-1), cmap="gray")
    axes[0].set_title(title)
    for axis, name, limit in ((axes[1], "mean", 1.0), (axes[2], "SD", 0.5)):
        drawn = axis.imshow(planes[name][0], cmap="viridis", vmin=0, vmax=limit)
        figure.colorbar(drawn, ax=axis, label="probability")
        axis.set_title(f"{name} of the foreground's probability")
    for axis in axes:
        axis.contour(planes["label"][0] > 0, levels=[0.5], colors="red", linewidths=0.8)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def draw_curves(
    path: Path, curves: dict[str, dict[float, list[float]]], x_label: str, log: bool
) -> None:
    """Draw the mean Dice, with its standard error, against a number, a curve a network."""
    few = 3  # curves whose names leave room beside them
    figure, (axis,) = canvas(1, 1, (6, 4.2) if len(curves) <= few else (8.5, 4.2))
    add_curves(axis, curves, x_label)
    axis.set_xscale("log" if log else "linear")
    numbers = sorted({number for points in curves.values() for number in points})
    axis.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axis.minorticks_off()
    if len(curves) <= few:
        axis.legend()
    else:
        figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=110)


def draw_robustness(
    path: Path, found: Mapping[Disturbance, dict[str, dict[float, list[float]]]]
) -> None:
    """Draw the curves of each disturbance in a panel of its own."""
    rows = (len(found) + 2) // 3
    figure, axes = canvas(rows, 3, (12, 3.4 * rows))
    for axis, (disturbance, curves) in zip(axes, found.items(), strict=False):
        add_curves(axis, curves, f"{disturbance.name}: {disturbance.unit}")
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def add_curves(axis: Any, curves: dict[str, dict[float, list[float]]], x_label: str) -> None:
    """Draw into one panel: see `draw_curves`."""
    for number, (name, points) in enumerate(curves.items()):
        style = ("-", "--", ":")[number // COLORS % 3]  # the colors come again
        scores = [known(values) for values in points.values()]
        means = [mean(values) for values in scores]
        errors = [
            statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
            for values in scores
        ]
        axis.errorbar(
            list(points), means, errors, marker="o", linestyle=style, capsize=3, label=name
        )
    axis.set(xlabel=x_label, ylabel="Dice (mean, standard error)")
    axis.grid(alpha=0.3)


def draw_spread(path: Path, columns: dict[str, dict[str, float]]) -> None:
    """Draw each case's doubt against its Dice, a panel a map of doubt."""
    doubts = [name for name in columns if not name.endswith(": Dice")]
    rows = (len(doubts) + 2) // 3
    figure, axes = canvas(rows, min(len(doubts), 3), (4 * min(len(doubts), 3), 3.2 * rows))
    for axis, name in zip(axes, doubts, strict=False):
        dice = columns[dice_of(name)]
        axis.scatter(list(dice.values()), list(columns[name].values()), s=14)
        axis.set_title(name, fontsize="small")
        axis.set(xlabel="Dice", ylabel="mean doubt in a case")
        axis.grid(alpha=0.3)
    for axis in axes[len(doubts) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def dice_of(name: str) -> str:
    """The column with the Dice of the segmentations whose doubt is in a column."""
    return f"{name.rpartition(': ')[0]}: Dice"


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure that needs no display, and its axes in one list."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).flatten()
