"""What the page says: a function for each of its sections, which returns HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch

from ldseg_monai.evaluation.pictures import (
    COLORS,
    HEAT,
    TRUTH,
    fullest_plane,
    heat,
    label_map,
    upright,
)
from ldseg_monai.evaluation.report.charts import dot_plot, line_chart, neighbors
from ldseg_monai.evaluation.report.page import (
    NOTHING,
    hex_color,
    image,
    key,
    note,
    number,
    png,
    ramp,
    row,
    table,
)
from ldseg_monai.evaluation.report.trajectory import Trajectory
from ldseg_monai.evaluation.scores import SCORES, case_means

SCORE_NAMES = dict(zip(SCORES, ("Dice", "IoU", "Precision", "Recall", "HD95 (mm)"), strict=True))
STATISTICS = ("mean", "SD", "median", "min", "max", "n")
MEAN, MEAN_COLOR = "mean of the classes", "#9aa3b0"
MAX_CHANNELS = 6  # of a latent that are shown
MIN_SCALE = 0.05  # of the SD maps


def head_section(title: str, items: Mapping[str, Any]) -> str:
    """What was evaluated and how."""
    texts = {name: NOTHING if value is None else str(value) for name, value in items.items()}
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in texts.items()
    )
    return f"<h1>{escape(title)}</h1><dl>{rows}</dl>"


def score_section(rows: Sequence[dict], classes: Mapping[int, str]) -> str:
    """Table and distribution of the scores.

    Args:
        rows: of `CaseScores`.
        classes: name of each class but the background.
    """
    means = case_means(rows)
    groups = {
        name: {row["case"]: row for row in rows if row["class"] == index}
        for index, name in classes.items()
    }
    if len(groups) > 1:
        groups[MEAN] = means
    scores = {
        name: [
            [title, *_statistics([case[score] for case in cases.values()])]
            for score, title in SCORE_NAMES.items()
        ]
        for name, cases in groups.items()
    }
    dice = {
        name: {case: row["dice"] for case, row in cases.items() if math.isfinite(row["dice"])}
        for name, cases in groups.items()
    }
    colors = [*map(class_color, classes), MEAN_COLOR]
    every = [
        [row["case"], classes[row["class"]], *(number(row[score]) for score in SCORES)]
        for row in rows
    ]
    return "".join(
        [
            f"<h2>Scores of {len(means)} {'case' if len(means) == 1 else 'cases'}</h2>",
            table(["", *STATISTICS], scores),
            note(
                "Against the original labels in their own geometry. n: cases that have the score; a class that is "
                "neither in the label nor in the prediction has none, one that is in only one of them no surface "
                "distance. HD95: 95th percentile of the surface distance, the larger one of the two "
                "directions, in pixels where the files have no spacing."
            ),
            "<h2>Distribution of the Dice</h2>",
            dot_plot(dice, colors, "Dice"),
            note("A dot is a case: hover for its name. Box: quartiles; line: median."),
            "<details><summary>Every case</summary>",
            table(["Case", "Class", *SCORE_NAMES.values()], {"": every}),
            "</details>",
        ]
    )


def case_section(
    shown: Mapping[str, str],
    rows: Sequence[dict],
    classes: Mapping[int, str],
    overlays: Mapping[str, bytes],
    sd_maps: Mapping[str, np.ndarray],
    no_sd_map: str,
) -> str:
    """Pictures and scores of a few cases.

    Args:
        shown: by a case's name, what it is shown as.
        rows: of `CaseScores`.
        classes: name of each class but the background.
        overlays: PNG files of the cases.
        sd_maps: standard deviations of the cases, ``(rows, columns)``.
        no_sd_map: why there are none.
    """
    parts = ["<h2>Best, median and worst case</h2>"]
    if not shown:
        return parts[0] + note("No case has a class to score.")
    keys = [key(hex_color(TRUTH), "true outline")]
    keys += [key(class_color(index), f"predicted {name}") for index, name in classes.items()]
    parts.append(f"<p>By the mean of the classes' Dice. Outlines:{''.join(keys)}</p>")
    highest = max([MIN_SCALE, *(float(values.max()) for values in sd_maps.values())])
    if sd_maps:
        scale = ramp([hex_color(color) for color in HEAT], "0", f"{highest:.2f}")
        parts.append(
            f"<p>In colors: SD over the samples of the probability of the most uncertain class, {scale}</p>"
        )
    else:
        parts.append(note(no_sd_map))
    for name, role in shown.items():
        parts.append(f"<h3>{escape(role)}: {escape(name)}</h3>")
        drawn = note("There is no overlay of it.")
        if name in overlays:
            drawn = image(overlays[name], f"{name} with true and predicted outlines")
        if name in sd_maps:
            drawn += image(
                png(heat(sd_maps[name], highest)), f"{name}: standard deviation over the samples"
            )
        parts.append(f'<div class="pictures">{drawn}</div>')
        scores = [
            [classes[row["class"]], *(number(row[score]) for score in SCORES)]
            for row in rows
            if row["case"] == name
        ]
        parts.append(table(["", *SCORE_NAMES.values()], {"": scores}))
    return "".join(parts)


def trajectory_section(
    name: str | None, trajectory: Trajectory | None, classes: Mapping[int, str]
) -> str:
    """The states of a case's reverse process, channel by channel, and what each is decoded to."""
    title = "<h2>From noise to label</h2>"
    if name is None or trajectory is None:
        return title + note("There is no reverse process to show.")
    states, labels = _plane(trajectory)
    is_label = states.shape[1] == len(classes) + 1 and states.shape[2:] == labels.shape[1:]
    channels = range(min(states.shape[1], MAX_CHANNELS))
    headings = [
        classes.get(i, "background") if is_label else f"latent channel {i + 1}" for i in channels
    ]
    low, high = np.quantile(states.numpy(), [0.01, 0.99]).tolist()
    rows = [row(["", *headings, "decoded"], "th")]
    for number_, t in enumerate(trajectory.timesteps):
        pictures = [_gray(state, low, high) for state in states[number_, : len(channels)]] + [
            label_map(labels[number_])
        ]
        cells = [
            f"<td>{image(png(picture), f'{heading} at t = {t}')}</td>"
            for picture, heading in zip(pictures, [*headings, "decoded label"], strict=True)
        ]
        what = "noise" if number_ == 0 else "on the way" if t else "result"
        rows.append(f"<tr><th>t = {t}<br>{what}</th>{''.join(cells)}</tr>")
    keys = "".join(key(class_color(index), name_) for index, name_ in classes.items())
    kind = "noisy label" if is_label else "latent"
    kind += (
        f" (first {len(channels)} of {states.shape[1]} channels)"
        if len(channels) < states.shape[1]
        else ""
    )
    return (
        f"{title}<p>The {kind} of {escape(name)}, first sample, as the network sees it: the noise that the reverse "
        f"process starts from and what its steps leave, {low:.2f} black to {high:.2f} white; at the right what each is "
        f'decoded to:{keys}</p><table class="states">{"".join(rows)}</table>'
    )


def training_section(folder: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Curves of the training, those that were found in a folder."""
    title = "<h2>Training</h2>"
    if not curves:
        return title + note(
            f"No training curves: there is no TensorBoard log in {folder}. --training_dir DIR names the output_dir of "
            "the training that made the weights."
        )
    parts = [title, f"<p>TensorBoard log in {escape(folder)}.</p>"]
    for tag, points in curves.items():
        axis = {"train": "iteration", "val": "epoch"}.get(tag.split("_")[0], "step")
        together = neighbors(points)
        parts.append(
            line_chart(points, f"{tag}, mean of every {together}" if together > 1 else tag, axis)
        )
    return "".join(parts)


def class_color(index: int) -> str:
    """Color of a class in all pictures."""
    return hex_color(COLORS[(index - 1) % len(COLORS)])


def _statistics(values: Sequence[float]) -> list[str]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return [NOTHING] * 5 + ["0"]
    deviation = np.std(finite, ddof=1) if len(finite) > 1 else math.nan
    numbers = (np.mean(finite), deviation, np.median(finite), min(finite), max(finite))
    return [*map(number, numbers), str(len(finite))]


def _plane(trajectory: Trajectory) -> tuple[torch.Tensor, torch.Tensor]:
    """States ``(states, C, rows, columns)`` and labels ``(states, rows, columns)``, of a volume the fullest plane."""
    states, labels = trajectory.states, trajectory.labels
    if labels.ndim == 3:
        return torch.stack([upright(state) for state in states]), upright(labels)
    axis, index = fullest_plane(labels[-1:])
    position = index * states.shape[axis + 1] // labels.shape[axis]
    return states.select(axis + 1, position), labels.select(axis, index)


def _gray(values: torch.Tensor, low: float, high: float) -> np.ndarray:
    return (255 * ((values - low) / max(high - low, 1e-6)).clamp(0, 1)).byte().numpy()
