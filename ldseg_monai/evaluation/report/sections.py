"""What the page says: a function for each of its sections, which returns HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from markupsafe import Markup
from monai.data import MetaTensor

from ldseg_monai.evaluation.pictures import (
    COLORS,
    MAX_SD,
    PLANES,
    TRUTH,
    fullest_plane,
    label_map,
    ramp,
    upright,
)
from ldseg_monai.evaluation.report.charts import dot_plot, line_chart, neighbors
from ldseg_monai.evaluation.report.page import NOTHING, hex_color, number, png, render
from ldseg_monai.evaluation.report.trajectory import Trajectory
from ldseg_monai.evaluation.scores import DISTANCES, SCORES, TOLERANCE, case_means

SCORE_NAMES = dict(
    zip(SCORES, ("Dice", "IoU", "Precision", "Recall", "HD95", "ASD", "Surface Dice"), strict=True)
)
STATISTICS = ("mean", "SD", "median", "min", "max", "n")
MEAN, MEAN_COLOR = "mean of the classes", "#9aa3b0"
MAX_CHANNELS = 6  # of a latent that are shown
MANY = 30  # rows of the table of all cases that are shown at once
AXES = {"train": "iteration", "val": "epoch"}  # of a training's curves, by their names' beginning


def head_section(title: str, items: Mapping[str, Any]) -> Markup:
    """What was evaluated and how."""
    return render("head.html", title=title, items=items)


def score_section(rows: Sequence[dict], classes: Mapping[int, str], trained_on: str) -> Markup:
    """Table and distribution of the scores.

    Args:
        rows: of `CaseScores`.
        classes: name of each class but the background.
        trained_on: on how many of the cases the weights were trained.
    """
    means = case_means(rows)
    groups = {}
    for index, name in classes.items():
        groups[name] = {row["case"]: row for row in rows if row["class"] == index}
    if len(groups) > 1:
        groups[MEAN] = means
    titles = score_titles(rows)
    statistics, dice = {}, {}
    for name, cases in groups.items():
        statistics[name] = _statistics([*cases.values()], titles)
        known = {case: row["dice"] for case, row in cases.items()}
        dice[name] = {case: value for case, value in known.items() if math.isfinite(value)}
    colors = [*map(class_color, classes), MEAN_COLOR]
    return render(
        "scores.html",
        cases=len(means),
        tolerance=f"{TOLERANCE:g}",
        statistics_head=["", *STATISTICS],
        statistics=statistics,
        dice_plot=dot_plot(dice, colors, "Dice"),
        trained_on=trained_on,
    )


def case_section(
    shown: Mapping[str, str],
    rows: Sequence[dict],
    classes: Mapping[int, str],
    pictures: Mapping[str, bytes],
    links: Mapping[str, str],
    no_sd_map: str,
) -> Markup:
    """Pictures and scores of a few cases, and the scores of all, the worst first.

    Args:
        shown: by a case's name, what it is shown as.
        rows: of `CaseScores`.
        classes: name of each class but the background.
        pictures: PNG files of those cases.
        links: files of the pictures of all cases, from where the page is.
        no_sd_map: why they do not show where samples differ; "" where they do.
    """
    cases = []
    for name, role in shown.items():
        of_case = [row for row in rows if row["case"] == name]
        scores = [[classes[row["class"]], *_numbers(row)] for row in of_case]
        case = {"name": name, "role": role, "scores": scores, "picture": pictures.get(name)}
        cases.append(case)
    titles = score_titles(rows)
    predicted = {f"predicted {name}": class_color(index) for index, name in classes.items()}
    every = [(row["case"], _line(row, classes)) for row in worst_first(rows)]
    return render(
        "cases.html",
        cases=cases,
        head=["", *titles.values()],
        links={name: quote(file) for name, file in links.items()},
        outlines={"true outline": hex_color(TRUTH)} | predicted,
        sd_colors=list(map(hex_color, ramp(11))),
        highest_sd=f"{MAX_SD:g}",
        no_sd_map=no_sd_map,
        all_head=["Class", *titles.values(), "Trained on"],
        every_case=every,
        is_short=len(every) <= MANY,
    )


def trajectory_section(
    name: str | None, trajectory: Trajectory | None, classes: Mapping[int, str]
) -> Markup:
    """The states of a case's reverse process, channel by channel, and what each is decoded to.

    Args:
        name: of the case; None for none.
        trajectory: its states; None where there is no reverse process.
        classes: name of each class but the background.
    """
    if name is None or trajectory is None:
        return render("trajectory.html", states=[])
    states, labels, plane = _plane(trajectory)
    is_label = states.shape[1] == len(classes) + 1 and states.shape[2:] == labels.shape[1:]
    shown = min(states.shape[1], MAX_CHANNELS)
    headings = [f"latent channel {index + 1}" for index in range(shown)]
    if is_label:
        headings = [classes.get(index, "background") for index in range(shown)]
    low, high = np.quantile(states.numpy(), [0.01, 0.99]).tolist()
    drawn = []
    for place, t in enumerate(trajectory.timesteps):
        pictures = []
        for heading, state in zip(headings, states[place, :shown], strict=True):
            pictures.append((f"{heading} at t = {t}", png(_gray(state, low, high))))
        pictures.append((f"decoded label at t = {t}", png(label_map(labels[place]))))
        drawn.append({"t": t, "what": _what(place, t), "pictures": pictures})
    cells = " x ".join(str(side) for side in states.shape[2:])
    kind = "noisy label, a column a class" if is_label else f"latent of {cells} cells"
    if shown < states.shape[1]:
        kind += f", the first {shown} of its {states.shape[1]} channels"
    return render(
        "trajectory.html",
        states=drawn,
        head=["", *headings, "decoded"],
        kind=kind,
        plane=plane,
        first=trajectory.timesteps[0],
        name=name,
        low=low,
        high=high,
        colors={name_: class_color(index) for index, name_ in classes.items()},
    )


def training_section(folder: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    """Curves of the training, those that were found in a folder."""
    charts = []
    for tag, points in curves.items():
        together = neighbors(points)
        title = f"{tag}, mean of every {together}" if together > 1 else tag
        charts.append(line_chart(points, title, AXES.get(tag.split("_")[0], "step")))
    return render("training.html", folder=folder, charts=charts)


def class_color(index: int) -> str:
    """Color of a class in all pictures."""
    return hex_color(COLORS[(index - 1) % len(COLORS)])


def score_titles(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the scores are called, a distance with its unit."""
    units = [f"({unit})" for unit in sorted({row["unit"] for row in rows})]
    return SCORE_NAMES | {score: " ".join([SCORE_NAMES[score], *units]) for score in DISTANCES}


def worst_first(rows: Sequence[dict]) -> list[dict]:
    """Rows of `CaseScores`, those of a case together, by its mean Dice; without one, at the end."""
    dice = {name: scores["dice"] for name, scores in case_means(rows).items()}
    order = {name: (not math.isfinite(value), value) for name, value in dice.items()}
    return sorted(rows, key=lambda row: (order[row["case"]], row["case"]))


def _line(row: Mapping[str, Any], classes: Mapping[int, str]) -> list[str]:
    """A case's class in the table of all."""
    return [classes[row["class"]], *_numbers(row), row["trained_on"]]


def _numbers(row: Mapping[str, float]) -> list[str]:
    return [number(row[score]) for score in SCORES]


def _statistics(rows: Sequence[Mapping[str, float]], titles: Mapping[str, str]) -> list[list[str]]:
    """A row of a table for each score."""
    table = []
    for score, title in titles.items():
        finite = [row[score] for row in rows if math.isfinite(row[score])]
        table.append([title, *_statistics_of(finite), str(len(finite))])
    return table


def _statistics_of(values: Sequence[float]) -> list[str]:
    if not values:
        return [NOTHING] * (len(STATISTICS) - 1)
    deviation = np.std(values, ddof=1) if len(values) > 1 else math.nan
    numbers = (np.mean(values), deviation, np.median(values), min(values), max(values))
    return [*map(number, numbers)]


def _what(place: int, t: int) -> str:
    """What a state of the reverse process is."""
    if place == 0:
        return "noise"
    return "on the way" if t else "result"


def _plane(trajectory: Trajectory) -> tuple[torch.Tensor, torch.Tensor, str]:
    """The states, and the label of each, of a picture or of a volume's fullest plane.

    Returns:
        ``(states, C, rows, columns)``, ``(states, rows, columns)``, and which plane it is.
    """
    labels = trajectory.labels
    states = torch.stack([upright(_placed(state, labels)) for state in trajectory.states])
    labels = upright(labels)
    if labels.ndim == 3:
        return states, labels, ""
    axis, index = fullest_plane(labels[-1:])
    position = index * states.shape[axis + 1] // labels.shape[axis]
    name = PLANES[axis - 1] if isinstance(labels, MetaTensor) else f"axis {axis}"
    plane = f" in the plane with the most of the result ({name})"
    return states.select(axis + 1, position), labels.select(axis, index), plane


def _placed(state: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A state with the directions of its labels' axes, where they are known."""
    return MetaTensor(state, affine=labels.affine) if isinstance(labels, MetaTensor) else state


def _gray(values: torch.Tensor, low: float, high: float) -> np.ndarray:
    return (255 * ((values - low) / max(high - low, 1e-6)).clamp(0, 1)).byte().numpy()
