r"""The papers' tables and figures: trains what is missing at one budget, scores it, writes it down.

    python -m benchmarks.accuracy.paper ldseg_2 --data DIR --out runs/ldseg_2

TABLE is a file of benchmarks/accuracy/tables, which names the bundle, the budget and the methods,
the cheapest first; ``--data`` holds the data sets as the file names them. Each method is trained by
the bundle's own command in ``--out``/METHOD/foldN and scored there by its evaluate.yaml. The same
command goes on where it stopped. Folds that an earlier run did with the same table may be taken
from its files instead: ``--earlier CASES.csv STEPS.csv NOISE.csv``. It writes to ``--out``:

- table.md and cases.csv: scores of every method that is done, beside the published ones;
- of a table with ``steps``: steps.md, steps.csv and steps.png, Dice against the number of reverse
  steps, all diffusion methods on one axis (LDSeg's Figures 5 and 6a);
- of a table with ``sigmas``: noise.md, noise.csv and noise.png, Dice of all methods against noise
  on the image (Eq. 19 and Figure 8a);
- pictures of the data, not for a repository: methods.png has a case a row and a method a column,
  with missing parts blue and false ones red (LDSeg's Figures 4 and 9, cDAL's Figure 2);
  methods_zoomed.png the window of each case where they erred most (cDAL's supplement);
  processes.png what a label becomes with more and more noise, and a sample on its way back (LDSeg's
  Figure 2); steps_masks.png the masks against the number of steps (Figure 7); noise_masks.png, of a
  table with ``sigmas``, those under noise (Figure 8b).
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from monai.data.utils import list_data_collate
from torch import nn

from benchmarks import command, report
from benchmarks.accuracy.cross_validation import (
    HEADINGS,
    METRICS,
    Cases,
    by_class,
    claim,
    comparison,
    evaluate,
    fold_plans,
    read_rows,
    train,
)
from benchmarks.accuracy.disturbances import NOISE as GAUSSIAN
from benchmarks.accuracy.experiment import Experiment
from benchmarks.accuracy.plots import canvas, draw_curves, widest_planes
from benchmarks.accuracy.quality import cell, deviation, known, mean
from benchmarks.accuracy.study import LOG, TRAINED, overrides, parsed
from ldseg_monai.bundle import Bundle
from ldseg_monai.evaluation.pictures import upright
from ldseg_monai.evaluation.report.trajectory import record_trajectory
from ldseg_monai.evaluation.scores import COUNTS, POOLED, pooled_scores
from ldseg_monai.networks.segmenter import DiffusionSegmenter
from ldseg_monai.runtime.ownership import make_folder

TABLES = Path(__file__).parent / "tables"
ABOUT_ROW = ("name", "published", "cited", "after", "score", "overlays",
    "folds", "mark", "validated_in")  # what is no config value  # fmt: skip
ENTRIES = ("title", "about", "subject", "bundle", "data", "folds", "val_fraction",
    "budget", "published", "marks", "scores", "pooled", "steps", "sigmas",
    "rows")  # of a table's file  # fmt: skip
MISSING, FALSE, CONFUSED = (60, 130, 255), (255, 70, 50), (255, 220, 60)
FOUND = (90, 200, 120)
STRENGTH = 0.6  # of a color on the picture
STATES = 5  # of a process, at most, that processes.png shows
SPREAD = 2.5  # SDs of a state that are black or full color
ZOOM = 0.3  # share of a picture's sides that a window of methods_zoomed.png has
WEIGHTS = "model.pt"
SECONDS = "seconds.json"  # in a row's folder: how long its training and scoring took
HOURS = "hours"  # the column of it
CURVES_CASES = 4  # at most, of the curves against steps and noise, which take long
HOW = """
Mean ± SD over the cases of folds {folds}; each was segmented by a network that was trained without
its fold. Nothing was chosen on them: {chosen}. The difference is that of
the mean Dice of a case's classes to the first method's, with p of a paired t-test and of Wilcoxon's
signed-rank test, over groups (patients) where cases belong together. Columns "published" are the
paper's own, on other cases and after longer trainings."""
TOGETHER = """{name}: the voxels of {members} are added up in each case before a ratio is taken, so
that the larger class counts more; a voxel of one that was taken for another is an error."""
OF_FOLDS = "SD of the folds' means, as the papers' tables of several folds have it:\n"

LAST = "the weights are the last epoch's"
BEST = "the epoch was chosen on a part of {share:.0%} of the others, drawn for it"


class Table:
    """A table of a paper, as its file in `TABLES` has it.

    With ``val_fraction`` its folds are held back for the test, and so much of the others validates:
    a three-way split.

    Args:
        path: of the file.

    Raises:
        ValueError: for entries that no table has, or rows that name no other row.
    """

    def __init__(self, path: Path) -> None:
        content = yaml.safe_load(path.read_text())
        unknown = sorted(set(content) - set(ENTRIES))
        if unknown:
            raise ValueError(f"{path} has {unknown}: expected only {', '.join(ENTRIES)}")
        self.name = path.stem
        self.title: str = content["title"]
        self.about: str = content["about"]
        self.subject: str = content.get("subject", "")  # of a table that compares methods
        self.bundle = Bundle.find(content["bundle"])
        self.data: str = content["data"]
        self.budget: dict[str, Any] = content.get("budget", {})
        self.folds: list[int] = content.get("folds", [0])
        self.val_fraction: float | None = content.get("val_fraction")
        self.test_cases: dict[int, list[str]] = {}  # of each fold, of a three-way split
        self.val_cases: dict[int, list[str]] = {}  # likewise
        self.marks: dict[str, str] = content.get("marks", {})
        self.columns: list[str] = content.get("published", [])
        self.scores: list[str] = content.get("scores", ["dice", "iou"])
        self.pooled: dict[str, list[int]] = content.get("pooled", {})
        self.steps: list[int] = content.get("steps", [])
        self.sigmas: list[float] = content.get("sigmas", [])
        self.rows: dict[str, dict[str, Any]] = content["rows"]
        for key, row in self.rows.items():
            if row.get("after", key) not in self.rows:
                raise ValueError(f"{path}: {key} comes after {row['after']}, which is no row")
            if row.get("mark", "") not in ("", *self.marks):
                raise ValueError(f"{path}: {key} has the mark {row['mark']}, which marks lack")
            if "validated_in" in row and self.val_fraction is not None:
                raise ValueError(f"{path}: {key} has validated_in, but its validation chooses")
        if not set(self.scores) <= set(POOLED):
            raise ValueError(f"{path}: scores are {self.scores}: expected some of {POOLED}")

    @property
    def part(self) -> str:
        """Of the cases, that is scored."""
        return "val" if self.val_fraction is None else "test"

    def hold_back(self, dataset_dir: str) -> None:
        """Name the cases of each fold of a three-way split, the same for rows of any seed."""
        if self.val_fraction is None:
            return
        for fold, plan in enumerate(fold_plans(self.bundle, dict(self.budget))):
            split = parsed(plan, {}, dataset_dir=dataset_dir).get_parsed_content("split")
            self.test_cases[fold] = sorted(split.validation)
            plan = self.plan(fold)
            split = parsed(plan, {}, dataset_dir=dataset_dir).get_parsed_content("split")
            self.val_cases[fold] = sorted(split.validation)

    def plan(self, fold: int) -> dict[str, Any]:
        """What study.py calls a study, for a fold."""
        plan = fold_plans(self.bundle, dict(self.budget))[fold]
        if fold in self.test_cases:
            plan["common"] |= {
                "fold": None,
                "test_cases": self.test_cases[fold],
                "val_fraction": self.val_fraction,
                "val_cases": self.val_cases.get(fold),
            }
        return plan

    def variant(self, key: str, out: Path, fold: int) -> dict[str, Any]:
        """What study.py calls a variant, of a row: its overlays and its own config values."""
        row = self.rows[key]
        variant = {name: value for name, value in row.items() if name not in ABOUT_ROW}
        if "overlays" in row:
            variant["overlays"] = row["overlays"]
        if "after" in row:
            variant["initial_weights"] = str(out / row["after"] / f"fold{fold}" / WEIGHTS)
        return variant

    def trained_variant(self, key: str, out: Path, fold: int) -> dict[str, Any]:
        """The same, as it is trained: of many reverse steps, validated in so few as the row says.

        That validation chooses nothing, and takes as long as the scoring.
        """
        variant = self.variant(key, out, fold)
        if "validated_in" in self.rows[key]:
            variant["num_inference_steps"] = self.rows[key]["validated_in"]
        return variant

    def folds_of(self, key: str) -> list[int]:
        """The folds that a row is trained on: its own, or the table's."""
        return self.rows[key].get("folds", self.folds)

    def trained(self) -> list[str]:
        """The rows that are trained, in order."""
        return [key for key, row in self.rows.items() if not row.get("cited")]

    def scored(self) -> list[str]:
        """Those of them that segment images."""
        return [key for key in self.trained() if self.rows[key].get("score", True)]


def run_methods(
    table: Table, keys: Sequence[str], dataset_dir: str, out: Path, score: bool = True
) -> None:
    """Train and score what is left of some rows, each in its folder; say what is begun and done.

    Without ``score`` none is scored.

    A training that was stopped goes on from its last whole epoch, by the same command.
    """
    for fold in table.folds:
        for key in keys:
            if fold not in table.folds_of(key):
                continue
            folder, variant = out / key / f"fold{fold}", table.variant(key, out, fold)
            plan = table.plan(fold)
            claim(plan, variant, folder)
            is_new = not (folder / WEIGHTS).exists()
            started = time.monotonic()
            trains = not (folder / TRAINED).exists()
            to_score = score and table.rows[key].get("score", True)
            scores = to_score and not (folder / METRICS).exists()
            if trains:
                epochs = parsed(plan, variant).get_parsed_content("max_epochs")
                _tell(
                    f"{key}, fold {fold}: training, {epochs} epochs; log: {folder / LOG}; when "
                    "stopped, the same command goes on after the last whole epoch"
                )
            train(plan, table.trained_variant(key, out, fold), dataset_dir, folder)
            if scores:
                _tell(f"{key}, fold {fold}: scoring")
                evaluate(plan, variant, dataset_dir, folder, table.part)
            if is_new:
                (folder / SECONDS).write_text(json.dumps(time.monotonic() - started))
            if trains or scores:
                minutes = (time.monotonic() - started) / 60
                _tell(f"{key}, fold {fold}: done, {minutes:.1f} minutes")


def _tell(line: str) -> None:
    """Say how far a run is, beside the table that it prints."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def hours_of(table: Table, key: str, out: Path) -> str:
    """Hours that a row's training and scoring took, in all folds and with what it goes on from.

    A dash where they were not recorded. Of a run that was stopped they are those of the last call.
    """
    seconds = 0.0
    for fold in table.folds_of(key):
        path = out / key / f"fold{fold}" / SECONDS
        if not path.exists():
            return report.NONE
        seconds += json.loads(path.read_text())
    if "after" not in table.rows[key]:
        return f"{seconds / 3600:.3g}"
    before = hours_of(table, table.rows[key]["after"], out)
    return before if before == report.NONE else f"{seconds / 3600 + float(before):.3g}"


def about_network(table: Table, key: str, out: Path) -> dict[str, str]:
    """Cells: parameters in millions, the number of reverse steps, steps of the training."""
    variant = table.variant(key, out, table.folds[0])
    config = parsed(table.plan(table.folds[0]), variant)
    network: nn.Module = config.get_parsed_content("network_def")
    steps = "–"
    if isinstance(network, DiffusionSegmenter):
        steps = str(config.get_parsed_content("num_inference_steps"))
    epochs, cases, batch = (
        config.get_parsed_content(name) for name in ("max_epochs", "cases_per_epoch", "batch_size")
    )
    trained = epochs * cases // batch
    if "after" in table.rows[key]:
        trained += int(about_network(table, table.rows[key]["after"], out)["steps"])
    count = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters, M": f"{count / 1e6:.2f}", "steps": str(trained), "K": steps}


def pooled_cases(rows: Iterable[Mapping[str, str]], classes: Sequence[int]) -> Cases:
    """The scores of some classes together, by fold and case."""
    found: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        if int(row["class"]) in classes:
            found.setdefault((row["fold"], row["case"]), []).append(row)
    return {case: pooled_scores(own) for case, own in found.items()}


def score_cells(name: str, cases: Cases, scores: Sequence[str]) -> dict[str, str]:
    """Some scores of a class, or of several, mean ± SD over the cases."""
    cells = {}
    for score in scores:
        values = known(own[score] for own in cases.values())
        cells[f"{HEADINGS[score]} {name}"] = f"{cell(mean(values))} ± {cell(deviation(values))}"
    return cells


def fold_cells(name: str, cases: Cases, scores: Sequence[str]) -> dict[str, str]:
    """The same scores' SD over the folds, of the mean of each fold's cases."""
    folds: dict[str, list[dict[str, float]]] = {}
    for (fold, _), own in cases.items():
        folds.setdefault(fold, []).append(own)
    cells = {}
    for score in scores:
        means = [mean(known(own[score] for own in cases_of)) for cases_of in folds.values()]
        cells[f"{HEADINGS[score]} {name}"] = cell(deviation(means))
    return cells


def by_method(path: Path | None) -> dict[str, list[dict[str, str]]]:
    """The rows of an earlier run's cases.csv or steps.csv, each method's."""
    found: dict[str, list[dict[str, str]]] = {}
    if path is not None:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["method"], []).append(row)
    return found


def write_table(
    table: Table, out: Path, head: str, groups: Mapping[str, str], earlier: Path | None = None
) -> str:
    """Write table.md and cases.csv from the rows that are scored; returns the former's text."""
    names = table.bundle.class_names
    before, taken = by_method(earlier), []
    lines, deviations, all_rows = [], [], {}
    first: Cases | None = None
    for key, row in table.rows.items():
        line = {"method": row.get("name", key)}
        if not row.get("score", True):
            continue
        published = dict(zip(table.columns, row.get("published", []), strict=False))
        mark = row.get("mark", "")
        told = {}
        for name, value in published.items():
            told[f"published {name}"] = report.NONE if value is None else f"{value:g}{mark}"
        folders = {fold: out / key / f"fold{fold}" for fold in table.folds_of(key)}
        rows = [] if row.get("cited") else read_rows(folders)
        here = {found["fold"] for found in rows}
        others = [found for found in before.get(key, []) if found["fold"] not in here]
        if others:
            rows = sorted([*others, *rows], key=lambda found: int(found["fold"]))
            of_them = sorted({int(found["fold"]) for found in others})
            which = f" (fold {', '.join(map(str, of_them))})" if here else ""
            taken.append(line["method"] + which)
        if not rows:
            why = "cited only" if row.get("cited") else "not trained"
            lines.append({**line, "parameters, M": why, **told})
            continue
        scored = sorted({int(found["fold"]) for found in rows})
        if scored != table.folds:  # as of a row whose other folds are still to come
            line["method"] += f" (fold {', '.join(map(str, scored))})"
        all_rows[key] = rows
        classes = by_class(rows)
        line |= about_network(table, key, out)
        line[HOURS] = hours_of(table, key, out)
        columns_of: dict[str, Cases] = {}
        for index, cases in classes.items():
            if index == "mean" and len(classes) == 2:
                continue
            columns_of["mean" if index == "mean" else names[int(index)]] = cases
        for name, members in table.pooled.items():
            columns_of[name] = pooled_cases(rows, members)
        of_folds = {"method": line["method"]}
        for name, cases in columns_of.items():
            line |= score_cells(name, cases, table.scores)
            of_folds |= fold_cells(name, cases, table.scores)
        if len(folders) > 1:
            deviations.append(of_folds)
        if first is None:
            first = classes["mean"]
        else:
            compared = comparison(classes["mean"], first, groups)
            line["difference"] = compared.get("mean difference", report.NONE)
            line["p (t, Wilcoxon)"] = (
                f"{compared.get('p of t-test', '–')}, {compared.get('p', '–')}"
            )
        lines.append({**line, **told})
    with open(out / "cases.csv", "w", newline="") as file:
        columns = ["method", "fold", "case", "class", *POOLED, "hd95", *COUNTS]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for key, rows in all_rows.items():
            writer.writerows({"method": key, **row} for row in rows)
    columns = list(dict.fromkeys(name for line in lines for name in line))
    columns.sort(key=lambda name: name.startswith("published"))
    ordered = [{name: line.get(name, report.NONE) for name in columns} for line in lines]
    notes = []
    if taken:
        notes.append(f"Of an earlier run of this table: {', '.join(taken)}.\n")
    sections = [*notes, report.table(ordered)]
    if deviations:
        sections += [OF_FOLDS, report.table(deviations)]
    return report.write(out / "table.md", head, *sections)


def experiment(
    table: Table, key: str, dataset_dir: str, out: Path, fold: int, part: str | None = None
) -> Experiment:
    """A trained method on its fold, or another part of the split, case by case."""
    variant = table.variant(key, out, fold)
    folder = out / key / f"fold{fold}"
    run = {
        "dataset_dir": dataset_dir,
        "output_dir": str(folder / "drawn"),
        "part": part or table.part,
    }
    values = overrides(table.plan(fold), variant, **run)
    return Experiment(table.bundle, variant.get("overlays", ()), str(folder / WEIGHTS), **values)


class Sweep(NamedTuple):
    """What a curve of Dice is drawn against.

    Attributes:
        stem: of the names of its files.
        symbol: of the number, a column of its CSV file.
        told: what the Dice is of.
        axis: label of the picture's x axis.
        log: whether that axis is logarithmic.
        dice: of all cases of a method at a number, by name.
        diffusion: whether diffusion methods alone have such a number.
    """

    stem: str
    symbol: str
    told: str
    axis: str
    log: bool
    dice: Callable[[Experiment, Any], dict[str, float]]
    diffusion: bool


def dice_in_steps(method: Experiment, number: int) -> dict[str, float]:
    """Dice of each case in so many reverse steps."""
    method.sampler.num_inference_steps = number
    return method.dice()


def dice_under_noise(method: Experiment, sigma: float) -> dict[str, float]:
    """Dice of each case with Gaussian noise of this SD over the image's range (Eq. 19)."""
    return method.dice(GAUSSIAN, sigma)


STEPS = Sweep(
    "steps", "K", "in K reverse steps", "number of reverse steps K", True, dice_in_steps, True
)
NOISE = Sweep(
    "noise",
    "sigma",
    "under Gaussian noise on the image, whose SD sigma is a share of the image's range,",
    "standard deviation of the noise over the image's range",
    False,
    dice_under_noise,
    False,
)


def run_sweep(
    sweep: Sweep,
    numbers: Sequence[float],
    table: Table,
    keys: Sequence[str],
    dataset_dir: str,
    out: Path,
    head: str,
    earlier: Path | None = None,
) -> None:
    """Dice against some numbers, of each method of the first fold that has them."""
    fold = table.folds[0]
    curves: dict[str, dict[float, list[float]]] = {}
    before = by_method(earlier)
    for key in table.scored():
        name = table.rows[key].get("name", key)
        if key not in keys:
            for row in before.get(name, []):
                points = curves.setdefault(name, {}).setdefault(float(row[sweep.symbol]), [])
                points.append(float(row["dice"]))
            continue
        if fold not in table.folds_of(key):
            continue
        path = out / key / f"fold{fold}" / f"{sweep.stem}.json"
        done: dict[str, dict[str, float]] = {}
        if path.exists():
            done = json.loads(path.read_text())
        left = [number for number in numbers if str(number) not in done]
        if left:
            method = experiment(table, key, dataset_dir, out, fold)
            if sweep.diffusion and not isinstance(method.network, DiffusionSegmenter):
                continue
            spread = max(1, len(method.dataset.data) // CURVES_CASES)
            method.dataset.data = method.dataset.data[::spread][:CURVES_CASES]
            for number in left:
                done[str(number)] = sweep.dice(method, number)
                path.write_text(json.dumps(done))
        curves[name] = {number: list(done[str(number)].values()) for number in numbers}
    rows = []
    for name, points in curves.items():
        cells = {}
        for number, values in points.items():
            cells[f"{sweep.symbol} = {number:g}"] = cell(mean(known(values)))
        rows.append({"method": name, **cells})
    if not rows:
        return
    count = max(len(points[numbers[0]]) for points in curves.values())
    told = f"Mean Dice {sweep.told} on {count} cases spread over fold {fold}.\n"
    report.write(out / f"{sweep.stem}.md", head, told, report.table(rows))
    draw_curves(out / f"{sweep.stem}.png", curves, sweep.axis, log=sweep.log)
    with open(out / f"{sweep.stem}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", sweep.symbol, "number of case", "dice"])
        for name, points in curves.items():
            for number, values in points.items():
                for index, value in enumerate(values):
                    writer.writerow([name, f"{number:g}", index, value])


class Drawn(NamedTuple):
    """A case's picture, or widest slice, as a method segmented it.

    Attributes:
        picture: RGB, uint8 ``(rows, columns, 3)``.
        wrong: where the method erred, ``(rows, columns)``.
    """

    picture: np.ndarray
    wrong: np.ndarray


def errors_on(case: dict[str, Any]) -> Drawn:
    """Draw what was found, missed, taken in error or confused."""
    maps = {"label": upright(case["label"]), "found": upright(case["pred"])}
    planes = widest_planes(case["image"].meta["filename_or_obj"], maps)
    image = planes["image"].float()
    image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
    picture = (255 * image).movedim(0, -1).expand(-1, -1, 3).numpy().copy()
    true = planes["label"][0].numpy()
    found = planes["found"][0].numpy()
    both = (found > 0) & (true > 0)
    for mask, color in (
        (both & (found == true), FOUND),
        (both & (found != true), CONFUSED),
        ((found == 0) & (true > 0), MISSING),
        ((found > 0) & (true == 0), FALSE),
    ):
        picture[mask] = (1 - STRENGTH) * picture[mask] + STRENGTH * np.array(color)
    return Drawn(picture.round().astype(np.uint8), found != true)


def most_wrong(wrong: Sequence[np.ndarray], share: float = ZOOM) -> tuple[slice, slice]:
    """Rows and columns of the window in which some methods together erred most.

    Args:
        wrong: where each of them did, ``(rows, columns)``.
        share: of the picture's sides that are the window's.
    """
    counts = np.sum(wrong, axis=0)
    rows, columns = (max(1, round(share * side)) for side in counts.shape)
    sums = np.pad(counts, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[rows:, columns:] - sums[:-rows, columns:]
    windows += sums[:-rows, :-columns] - sums[rows:, :-columns]
    row, column = np.unravel_index(windows.argmax(), windows.shape)
    return slice(int(row), int(row) + rows), slice(int(column), int(column) + columns)


Titled = tuple[str, np.ndarray]


def state_picture(state: torch.Tensor) -> np.ndarray:
    """The first three channels of a diffused state ``(C, *spatial)`` as red, green and blue.

    Of a volume that is the middle plane across the last axis; fewer channels are gray.

    Returns:
        uint8 ``(rows, columns, 3)``.
    """
    plane = state.float() if state.ndim == 3 else state[..., state.shape[-1] // 2].float()
    plane = plane[:3] if len(plane) > 2 else plane[:1].expand(3, -1, -1)
    colors = ((plane / SPREAD + 1) / 2).clamp(0, 1).permute(2, 1, 0)
    return (255 * colors).round().byte().cpu().numpy()


@torch.no_grad()
def processes(method: Experiment, index: int, seed: int = 0) -> tuple[list[Titled], list[Titled]]:
    """Both processes of a case on the network's grid, as LDSeg's Figure 2 has them.

    Args:
        method: a diffusion method.
        index: number of the case.
        seed: of the forward process's noise.

    Returns:
        The label and its states from t = 0 to T; a sample's states from T to 0, of several windows
        those of the one with the most foreground, and what the last one is decoded to.
    """
    network: Any = method.network
    pair = method.on_grid(method.dataset.data[index])
    label = pair["label"].as_tensor()[None].long().to(method.device)
    clean = network.encode_label(label).float()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
    scale = SPREAD / max(1, network.out_channels - 1)
    forward = [("label", state_picture(label[0] * scale)), ("t = 0", state_picture(clean[0]))]
    steps = network.num_train_timesteps
    for place in np.linspace(0, steps, min(STATES, steps + 1))[1:]:
        now = torch.tensor([round(place) - 1], device=clean.device)
        noisy = network.scheduler.add_noise(clean, noise, now)
        forward.append((f"t = {round(place)}", state_picture(noisy[0])))
    image = list_data_collate([method.dataset[index]])["image"].to(method.device)
    trajectory = record_trajectory(method.inferer, network, image, STATES)
    assert trajectory is not None
    reverse = []
    for timestep, state in zip(trajectory.timesteps, trajectory.states, strict=True):
        reverse.append((f"t = {timestep}", state_picture(state)))
    found = torch.as_tensor(trajectory.labels[-1])[None]
    return forward, [*reverse, ("found", state_picture(found * scale))]


def draw_grid(path: Path, rows: Sequence[Sequence[Titled]]) -> None:
    """Draw pictures with titles, row by row."""
    columns = max(map(len, rows))
    height = 0.0  # of all rows, of pictures 2.6 inches wide
    for row in rows:
        sides = row[0][1].shape
        height += 2.6 * sides[0] / sides[1] + 0.3
    figure, axes = canvas(len(rows), columns, (2.6 * columns, height))
    for axis in axes:
        axis.set_axis_off()
    for number, row in enumerate(rows):
        for place, (title, picture) in enumerate(row):
            axis = axes[number * columns + place]
            axis.imshow(picture)
            axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)


def draw_methods(
    table: Table, keys: Sequence[str], dataset_dir: str, out: Path, num_cases: int
) -> None:
    """Draw the pictures of the data: methods, steps and noise."""
    fold = table.folds[0]
    by_case: dict[int, list[tuple[str, Drawn]]] = {}
    by_steps, by_noise, both_ways = [], [], []
    for key in keys:
        method = experiment(table, key, dataset_dir, out, fold)
        name = table.rows[key].get("name", key)
        count = len(method.dataset.data)
        chosen = sorted({round(place) for place in np.linspace(0, count - 1, num_cases)})
        for index in chosen:
            by_case.setdefault(index, []).append((name, errors_on(method.case(index))))
        if table.sigmas:
            row = []
            for sigma in table.sigmas:
                case = method.case(chosen[0], GAUSSIAN, sigma)
                row.append((f"{name}, {sigma:g}", errors_on(case).picture))
            by_noise.append(row)
        if isinstance(method.network, DiffusionSegmenter):
            for row in processes(method, chosen[0]):
                both_ways.append([(f"{name}, {title}", picture) for title, picture in row])
        if table.steps and isinstance(method.network, DiffusionSegmenter):
            row = []
            for number in table.steps:
                method.sampler.num_inference_steps = number
                row.append((f"{name}, K = {number}", errors_on(method.case(chosen[0])).picture))
            by_steps.append(row)
    whole, zoomed = [], []
    for drawn in by_case.values():
        window = most_wrong([errors.wrong for _, errors in drawn])
        whole.append([(name, errors.picture) for name, errors in drawn])
        zoomed.append([(name, errors.picture[window]) for name, errors in drawn])
    draw_grid(out / "methods.png", whole)
    draw_grid(out / "methods_zoomed.png", zoomed)
    if both_ways:
        draw_grid(out / "processes.png", both_ways)
    if by_steps:
        draw_grid(out / "steps_masks.png", by_steps)
    if by_noise:
        draw_grid(out / "noise_masks.png", by_noise)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is left of a table; write and print it."""
    names = sorted(path.stem for path in TABLES.glob("*.yaml"))
    parser = command.argument_parser(__doc__)
    parser.add_argument("table", choices=names)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--only", nargs="*", help="rows to do (default: all); none named: writes what is done"
    )
    parser.add_argument(
        "--earlier",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="cases.csv, perhaps steps.csv and noise.csv, of an earlier run, for methods and folds "
        "that --out has not",
    )
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="draw N cases")
    arguments = parser.parse_args(argv)
    table = Table(TABLES / f"{arguments.table}.yaml")
    dataset_dir = arguments.data / table.data
    if not dataset_dir.is_dir():
        parser.error(f"--data {arguments.data} has no folder {table.data}: expected the data set")
    unknown = sorted(set(arguments.only or ()) - set(table.trained()))
    if unknown:
        parser.error(f"--only {unknown}: expected some of {table.trained()}")
    config = parsed(table.plan(table.folds[0]), {}, dataset_dir=str(dataset_dir))
    seed = config.get_parsed_content("seed")
    groups = config.get_parsed_content("split").known_groups
    earlier, steps_earlier, noise_earlier = [*arguments.earlier, None, None, None][:3]
    chosen = LAST if table.val_fraction is None else BEST.format(share=table.val_fraction)
    how = HOW.format(folds=", ".join(map(str, table.folds)), chosen=chosen)
    marks = [f"{mark} {told}" for mark, told in table.marks.items()]
    names = table.bundle.class_names
    together = []
    for name, members in table.pooled.items():
        named = " and ".join(names[member] for member in members)
        together.append(TOGETHER.format(name=name, members=named))
    about = "\n".join([table.about.strip(), how, *together, *marks])
    head = report.header(table.title, about, "accuracy.paper", argv, seed)
    table.hold_back(str(dataset_dir))
    chosen_rows = table.trained() if arguments.only is None else arguments.only
    make_folder(arguments.out)
    run_methods(table, chosen_rows, str(dataset_dir), arguments.out)
    done = []
    for key in table.scored():
        folders = [arguments.out / key / f"fold{fold}" for fold in table.folds_of(key)]
        if all((folder / METRICS).exists() for folder in folders):
            done.append(key)
    text = write_table(table, arguments.out, head, groups, earlier)
    run = (table, done, str(dataset_dir), arguments.out, head)
    if table.steps:
        run_sweep(STEPS, table.steps, *run, steps_earlier)
    if table.sigmas:
        run_sweep(NOISE, table.sigmas, *run, noise_earlier)
    if arguments.pictures:
        draw_methods(table, done, str(dataset_dir), arguments.out, arguments.pictures)
    print(text)


if __name__ == "__main__":
    main()
