"""Dice of one sample that starts at the mean of the noise, 0, beside such that start at draws.

    python -m benchmarks.accuracy.start bundles/ldseg_monuseg --dataset_dir DIR
    python -m benchmarks.accuracy.start bundles/ldseg_glas --dataset_dir DIR --folds_of DIR

The second takes the networks of `benchmarks.accuracy.cross_validation`, each on its own fold: cases
that no training saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command, report
from benchmarks.accuracy.cross_validation import settings
from benchmarks.accuracy.experiment import Experiment, add_cases, overrides_of, tell_where
from benchmarks.accuracy.quality import cell, deviation
from benchmarks.accuracy.views import difference
from ldseg_monai.evaluation.paired import compare
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.runtime.errors import InputError

SAMPLES = (1, 5, 20)
ABOUT = """Dice of {where}. Of samples that start at drawn noise, and of one that starts at the mean
of the noise, 0. Mean of the classes but the background; SD over the cases. Difference: to one drawn
sample, with its 95% bootstrap interval and Wilcoxon's p over the cases, or over their groups, such
as patients, where these are known."""


class Way(NamedTuple):
    """How many samples, and whether one starts at the mean."""

    samples: int
    at_mean: bool = False

    @property
    def name(self) -> str:
        """How the cases' file calls it."""
        return f"{self.samples}, {self.start}"

    @property
    def start(self) -> str:
        """Where they start."""
        return "mean" if self.at_mean else "drawn"


def dice_of(experiment: Experiment, way: Way) -> dict[str, float]:
    """Mean Dice of every case, by its name."""
    experiment.sampler.num_samples = way.samples
    diffusion_segmenter(experiment.network).start_at_mean = way.at_mean
    return experiment.dice()


def rows_of(
    found: Mapping[Way, dict[str, float]], groups: Mapping[str, str]
) -> list[dict[str, str]]:
    """A row a way, with its difference to one drawn sample."""
    rows = []
    for way, dice in found.items():
        row = {"samples": str(way.samples), "start": way.start}
        row |= {"Dice": f"{compare(dice, dice).a:.4f}", "SD": cell(deviation(dice.values()))}
        if way != Way(1):
            row |= difference(found[Way(1)], dice, "difference", groups)
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Write start.md and start.csv of the bundle named on the command line."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    add_cases(parser)
    parser.add_argument(
        "--folds_of",
        type=Path,
        metavar="DIR",
        help="a candidate's folder of a cross-validation, whose fold0, fold1 and on are networks",
    )
    parser.add_argument(
        "--num_samples", nargs="+", type=int, default=list(SAMPLES), metavar="N", help="drawn"
    )
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="of the configs"
    )
    arguments = parser.parse_args(argv)
    if min(arguments.num_samples) < 1:
        parser.error(f"--num_samples {min(arguments.num_samples)}: expected 1 or more")
    if arguments.folds_of and (arguments.model_path or arguments.fold is not None):
        parser.error("--folds_of has the weights of each fold: leave --model_path and --fold out")
    bundle, out = arguments.bundle, command.folder_of(arguments)
    overrides: dict[str, Any] = {**settings(arguments.set), "output_dir": str(out)}
    experiments, where = [], ""
    if arguments.folds_of:
        overrides |= {"dataset_dir": arguments.dataset_dir, "part": "val"}
        for folder in sorted(arguments.folds_of.glob("fold[0-9]*")):
            weights, fold = str(folder / "model.pt"), int(folder.name.removeprefix("fold"))
            experiments.append(Experiment(bundle, (), weights, fold=fold, **overrides))
        if not experiments:
            raise InputError(
                f"{arguments.folds_of} has no fold0: expected a candidate's folder that "
                "benchmarks.accuracy.cross_validation wrote"
            )
        number = sum(len(experiment.dataset) for experiment in experiments)
        where = f"{number} cases, each by the network of {len(experiments)} that its fold had no"
        where += " part in, in the files' own geometry"
    else:
        overrides |= overrides_of(arguments)
        experiments.append(Experiment(bundle, (), arguments.model_path, **overrides))
        where = tell_where(arguments, experiments[0])
    several = [Way(number) for number in arguments.num_samples if number > 1]
    ways = [Way(1), Way(1, at_mean=True), *several]
    found: dict[Way, dict[str, float]] = {way: {} for way in ways}
    for experiment in experiments:
        for way in ways:
            found[way] |= dice_of(experiment, way)
    groups = bundle.config("train.yaml", **overrides).get_parsed_content("split").known_groups
    about = ABOUT.format(where=where)
    head = report.header(
        f"Start at the mean of the noise: {bundle.name}", about, "accuracy.start", argv, 0
    )
    report.write_cases(out / "start.csv", {way.name: dice for way, dice in found.items()})
    print(report.write(out / "start.md", head, report.table(rows_of(found, groups))))


if __name__ == "__main__":
    main()
