"""Ten labeled cases in minutes of CPU: trained weights to start from, beside the usual start.

    python -m benchmarks.accuracy.few_cases ldseg_hippocampus --dataset_dir DIR --work runs/few
    python -m benchmarks.accuracy.few_cases ldseg_echo --dataset_dir DIR --work runs/few

Makes folders of ten cases, trains by `ldseg train` as a user of them would (two of the ten
validate), and scores cases that neither training nor the weights that it starts from have seen:

- ldseg_hippocampus: the whole hippocampus as one class, by cases that the shipped weights left out;
  ``--rates`` are compared on further ten, and the best is scored on the rest;
- ldseg_echo: the heart from weights that saw glands; each patient in turn is scored.

A run that was stopped goes on by the same command; other knobs (``--set``) take another ``--work``.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from benchmarks import command, report
from benchmarks.accuracy.cross_validation import read_rows, settings, write_results
from benchmarks.accuracy.quality import cell, mean
from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.fine_tuning import fine_tuning_epochs
from ldseg_monai.data.datalist import case_name, find_cases
from ldseg_monai.data.split import read_groups
from ldseg_monai.tools.new_bundle.write import new_bundle

FEW = 10
SEED = 0
MINUTES = "minutes.json"  # in a training's folder: of CPU, all threads together
ABOUT = """{what}

Each training has {few} labeled cases, of which `ldseg train` lets 2 validate, and {steps} optimizer
steps. The first table has its minutes of CPU, those of all threads together. The weights are the
last epoch's. The scored cases trained nothing: neither these networks nor the weights that they
start from."""
HIPPOCAMPUS = """The whole hippocampus as one class, from the shipped weights and from random ones.
The shipped weights tell its two parts apart, so these could be joined without a training: the class
stands in for one of a user's own, for which the layers of the classes start anew. The cases are
those of the bundle's `docs/val_cases.txt`. They did not train the shipped weights, but chose their
epoch. Ten of them choose the learning rate here and are not scored further."""
HEART = """The left heart in ultrasound, from the weights of `ldseg_glas`, which saw glands in H&E
alone, and from ImageNet's, as the bundle starts itself. Each patient in turn is scored by networks
that saw ten of the others' frames. The tests are over patients. Nothing was chosen here: the
learning rate is the bundle's, and the length that of `ldseg train --from-weights`."""


class Fold(NamedTuple):
    """Names of the cases that train and validate, that choose the learning rate, and are scored."""

    few: list[str]
    choose: list[str]
    test: list[str]


class Start(NamedTuple):
    """What a training starts from.

    Attributes:
        weights: file of the weights; None for the bundle's usual start.
        rate: learning rate, as a share of the bundle's.
    """

    weights: Path | None
    rate: float


class Task(NamedTuple):
    """A bundle on its data: see the head of the file.

    Attributes:
        about: what is trained, and from what.
        folds: its cases.
        source: bundle whose weights start the trainings.
        usual: name of the other start.
        knobs: of trainings and scores.
        bundle: makes the bundle that is trained, in a folder for it.
        copy_label: writes a label's file to another place.
        groups: patients of the cases.
    """

    about: str
    folds: list[Fold]
    source: Bundle
    usual: str
    knobs: dict[str, Any]
    bundle: Callable[[Path], Bundle]
    copy_label: Callable[[Path, Path], Any]
    groups: Mapping[str, str]


def join_classes(source: Path, target: Path) -> None:
    """Write a label volume with all its classes as one."""
    label: Any = nib.load(source)
    joined = (np.asanyarray(label.dataobj) > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(joined, label.affine), target)


def hippocampus(bundle: Bundle, dataset_dir: Path) -> Task:
    """One draw of the cases that the shipped weights were not trained on."""
    names = sorted(bundle.val_cases(dataset_dir) or ())
    random.Random(SEED).shuffle(names)
    fold = Fold(names[:FEW], names[FEW : 2 * FEW], names[2 * FEW :])

    def written(work: Path) -> Bundle:
        if not (work / "bundles" / "whole").is_dir():
            data = str(work / "data0" / "few")
            new_bundle(str(bundle.root), "whole", data, str(work / "bundles"))
        return Bundle(work / "bundles" / "whole")

    return Task(HIPPOCAMPUS, [fold], bundle, "random weights", {}, written, join_classes, {})


def heart(bundle: Bundle, dataset_dir: Path) -> Task:
    """A fold for each patient, whose frames are scored."""
    patients = read_groups(dataset_dir / "info.csv", "name", "patient")
    folds = []
    for patient in sorted(set(patients.values())):
        test = [name for name in patients if patients[name] == patient]
        others = sorted(set(patients) - set(test))
        random.Random(SEED).shuffle(others)
        folds.append(Fold(others[:FEW], [], test))
    knobs = {"patients": ""}  # else a third of the ten would validate
    glands, usual = Bundle.find("ldseg_glas"), "ImageNet's weights"
    return Task(HEART, folds, glands, usual, knobs, lambda _: bundle, shutil.copy, patients)


TASKS = {"ldseg_hippocampus": hippocampus, "ldseg_echo": heart}


def write_cases(
    task: Task, cases: Mapping[str, Mapping[str, str]], folder: Path, fold: Fold
) -> None:
    """Write a folder of images and labels for each part of a fold that has cases."""
    for part, names in fold._asdict().items():
        for name in names:
            for kind, copy in (("image", shutil.copy), ("label", task.copy_label)):
                source = Path(cases[name][kind])
                target = folder / part / f"{kind}s" / source.name
                target.parent.mkdir(parents=True, exist_ok=True)
                copy(source, target)


def steps_of(bundle: Bundle, knobs: Mapping[str, Any]) -> int:
    """Optimizer steps of a training."""
    config = bundle.config("train.yaml", **knobs)
    steps: int = config["max_epochs"] * (config["cases_per_epoch"] // config["batch_size"])
    return steps


def rate_of(bundle: Bundle, start: Start) -> float:
    """The learning rate of a training."""
    return float(f"{start.rate * bundle.config('train.yaml')['learning_rate']:.2g}")


def train(bundle: Bundle, data: Path, folder: Path, start: Start, **knobs: Any) -> None:
    """Train by `ldseg train`, unless it is done; what it says goes to log.txt."""
    if (folder / MINUTES).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "ldseg_monai.tools.cli", "train", "-m", str(bundle.root)]
    line += ["--data", str(data), "-o", str(folder)]
    if start.weights is not None:
        line += ["--from-weights", str(start.weights)]
        knobs["partial_weights"] = True
    knobs["learning_rate"] = rate_of(bundle, start)
    line += ["--set", *(f"{key}={json.dumps(value)}" for key, value in knobs.items())]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(folder / "log.txt", "w") as log:
        subprocess.run(line, stdout=log, stderr=subprocess.STDOUT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    (folder / MINUTES).write_text(json.dumps(seconds / 60))


def score(bundle: Bundle, data: Path, folder: Path, name: str, **knobs: Any) -> float:
    """Score a training's weights on all cases of a folder, unless it is done.

    Returns:
        The mean Dice.
    """
    out = folder / name
    if not (out / "summary.json").exists():
        weights = folder / "model.pt"
        bundle.evaluate(dataset_dir=data, output_dir=out, model_path=weights, part="all", **knobs)
    summary = json.loads((out / "summary.json").read_text())
    dice: float = summary["all"]["dice"]["mean"]
    return dice


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is left; write and print the tables."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of data and trainings")
    parser.add_argument(
        "--epochs", type=int, help="default: as many as `ldseg train --from-weights` takes"
    )
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[1],
        help="learning rates from weights, as shares of the bundle's (default: %(default)s)",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further knobs")
    arguments = parser.parse_args(argv)
    bundle: Bundle = arguments.bundle
    if bundle.name not in TASKS:
        parser.error(f"bundle {bundle.name}: expected one of {', '.join(TASKS)}")
    task = TASKS[bundle.name](bundle, arguments.dataset_dir)
    if len(arguments.rates) > 1 and not task.folds[0].choose:
        parser.error("--rates: expected one, since no cases are held back to choose by")
    work: Path = arguments.work.absolute() / bundle.name
    cases = {case_name(item["image"]): item for item in find_cases(arguments.dataset_dir)}
    for number, fold in enumerate(task.folds):
        write_cases(task, cases, work / f"data{number}", fold)
    trained = task.bundle(work)
    epochs = arguments.epochs or fine_tuning_epochs(trained)
    knobs = {"max_epochs": epochs, **task.knobs, **settings(arguments.set)}
    knobs["val_interval"] = knobs["max_epochs"]  # once, so that no score chooses the weights
    steps = steps_of(trained, knobs)
    head = report.header(
        f"{FEW} labeled cases in minutes of CPU: {bundle.name}",
        ABOUT.format(what=task.about, few=FEW, steps=steps),
        "accuracy.few_cases",
        argv,
        SEED,
    )
    starts = {task.usual: Start(None, 1)}
    for rate in arguments.rates:
        name = f"weights of {task.source.name}" + (f", rate x {rate:.2g}" if rate != 1 else "")
        starts[name] = Start(task.source.weights.absolute(), rate)
    folders: dict[str, dict[int, Path]] = {}
    rows, chosen = [], {}
    for name, start in starts.items():
        rate = rate_of(trained, start)
        kind = "weights" if start.weights else "usual"
        place = work / f"{kind}_{rate}_{steps}_steps"
        folders[name] = {number: place / f"fold{number}" for number in range(len(task.folds))}
        row = {"start": name, "learning rate": str(rate)}
        for number, folder in folders[name].items():
            train(trained, work / f"data{number}" / "few", folder, start, **knobs)
        minutes = [json.loads((folder / MINUTES).read_text()) for folder in folders[name].values()]
        row["CPU minutes a training"] = f"{mean(minutes):.1f}"
        if task.folds[0].choose:
            folder = folders[name][0]
            chosen[name] = score(trained, work / "data0" / "choose", folder, "choose")
            row[f"Dice on {FEW} cases that choose"] = cell(chosen[name])
        rows.append(row)
    others = [name for name in starts if name != task.usual]
    best = max(others, key=lambda name: chosen.get(name, 0))
    for name in (best, task.usual):
        for number, folder in folders[name].items():
            score(trained, work / f"data{number}" / "test", folder, "scores", **task.knobs)
    compared = {name: read_rows(folders[name]) for name in (best, task.usual)}
    out = command.folder_of(arguments)
    names = (out / "few_cases.md", out / "few_cases.csv")
    print(write_results(*names, f"{head}\n{report.table(rows)}", compared, task.groups))


if __name__ == "__main__":
    main()
