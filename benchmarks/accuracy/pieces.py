"""Which pieces of a segmentation stay, chosen class by class, and what that gains in Dice.

    python -m benchmarks.accuracy.pieces bundles/ldseg_hippocampus --dataset_dir DIR

What a bundle's evaluation leaves is segmented once, and cleaned by each candidate: pieces of a
class that are smaller than a number of voxels become background (the knob ``smallest_object``), or
all but the largest (``largest_only``). Of each class the candidate with the highest mean Dice is
chosen, the one that changes less where some are equal. Options as of
`benchmarks.accuracy.experiments`; ``--test_cases`` names cases that were held back from the choice
as from the training, which are scored with what was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.metrics import compute_dice
from monai.networks.utils import one_hot

from benchmarks import command, report
from benchmarks.accuracy.experiment import (
    Experiment,
    add_cases,
    name_of,
    overrides_of,
    tell_where,
)
from benchmarks.accuracy.quality import cell, deviation, mean
from ldseg_monai.data.split import read_val_cases
from ldseg_monai.evaluation.paired import compare
from ldseg_monai.inference import DropSmallObjectsd

SIZES = (1, 10, 30, 100, 300, 1000)
DECIMALS = 9  # of a mean Dice; candidates that differ beyond them are equal
ABOUT = """Dice of the segmentations of {where} when only some pieces of a class stay: those of so
many voxels or pixels and more, or the largest. Mean of {samples} sample(s). All else is as the
bundle's evaluation has it. Below, the mean Dice of each class, over the cases whose label has it;
what is chosen is in bold."""
GAIN = """What the choice gains, in the mean Dice of a case's classes. The cases that chose lean to
the good side; so each is also scored with what all the others would have chosen. Difference: to all
pieces, with its 95% bootstrap interval and Wilcoxon's p over the cases."""
# Dice by candidate, class from 1 on, and case; NaN where the case's label lacks the class
Scores = dict["Candidate", dict[int, dict[str, float]]]


class Candidate(NamedTuple):
    """Which pieces of a class stay.

    Args:
        smallest: pixels or voxels of the smallest.
        largest_only: whether the largest alone does.
    """

    smallest: int = 1
    largest_only: bool = False

    @property
    def name(self) -> str:
        """How the tables call it."""
        if self.largest_only:
            return "the largest"
        return "all" if self.smallest == 1 else f"of {self.smallest} and more"

    def apply(self, label: torch.Tensor, num_classes: int) -> torch.Tensor:
        """A label map ``(1, *spatial)`` in which these pieces of every class stay."""
        classes = range(1, num_classes) if self.largest_only else ()
        dropped: torch.Tensor = DropSmallObjectsd("pred", self.smallest, classes)({"pred": label})[
            "pred"
        ]
        return dropped


def candidates(sizes: Iterable[int] = SIZES) -> list[Candidate]:
    """What is chosen from, first what changes nothing."""
    return [*(Candidate(size) for size in sorted({1, *sizes})), Candidate(largest_only=True)]


def score(
    cases: Iterable[Mapping[str, Any]], chosen_from: Sequence[Candidate], num_classes: int
) -> Scores:
    """Dice of every class of every case by every candidate.

    Args:
        cases: as of `Experiment.run`, with all their pieces.
        chosen_from: candidates.
        num_classes: classes, background included.
    """
    foreground = range(1, num_classes)
    scores: Scores = {one: {index: {} for index in foreground} for one in chosen_from}
    for case in cases:
        pred, label = (case[key].as_tensor() for key in ("pred", "label"))
        truth = one_hot(label[None].long(), num_classes)
        for candidate, by_class in scores.items():
            mask = one_hot(candidate.apply(pred, num_classes)[None].long(), num_classes)
            dice = compute_dice(mask, truth, include_background=False)[0].tolist()
            for index in foreground:
                by_class[index][name_of(dict(case))] = dice[index - 1]
    return scores


def choose(scores: Scores, cases: Iterable[str]) -> dict[int, Candidate]:
    """The best candidate of each class on some cases; of equal ones the first."""
    names = list(cases)
    choice = {}
    for index in next(iter(scores.values())):
        means = {}
        for candidate, by_class in scores.items():
            value = mean(by_class[index][name] for name in names)
            means[candidate] = -math.inf if math.isnan(value) else round(value, DECIMALS)
        choice[index] = max(means, key=means.__getitem__)
    return choice


def dice_with(scores: Scores, choice: Mapping[int, Candidate], name: str) -> float:
    """Mean Dice of a case's classes, each cleaned by its candidate; NaN of an empty label."""
    return mean(scores[candidate][index][name] for index, candidate in choice.items())


def names_in(scores: Scores) -> list[str]:
    """The cases that were scored."""
    return list(next(iter(next(iter(scores.values())).values())))


def chosen_by_others(scores: Scores) -> dict[str, float]:
    """Dice of each case with what all the others choose."""
    names = names_in(scores)
    found = {}
    for name in names:
        choice = choose(scores, [other for other in names if other != name])
        found[name] = dice_with(scores, choice, name)
    return found


def knobs_of(choice: Mapping[int, Candidate]) -> str:
    """The knobs that make a choice, as a command line has them."""
    smallest = [candidate.smallest for candidate in choice.values()]
    largest = [index for index, candidate in choice.items() if candidate.largest_only]
    return f'--smallest_object "{smallest}" --largest_only "{largest}"'


def class_rows(scores: Scores, choice: Mapping[int, Candidate], names: Mapping[int, str]) -> Any:
    """A row a candidate, a column a class."""
    rows = []
    for candidate, by_class in scores.items():
        row = {"pieces that stay": candidate.name}
        for index, dice in by_class.items():
            value = f"{mean(dice.values()):.4f}"
            row[names.get(index, f"class {index}")] = (
                f"**{value}**" if choice[index] == candidate else value
            )
        rows.append(row)
    return rows


def gain_row(part: str, before: dict[str, float], after: dict[str, float]) -> dict[str, str]:
    """What a choice gains on some cases."""
    found = compare(before, after)
    changed = sum(after[name] != dice for name, dice in before.items())
    return {
        "cases": part,
        "n": str(found.n),
        "all pieces": f"{found.a:.4f}",
        "SD": cell(deviation(before.values())),
        "chosen": f"{found.b:.4f}",
        "difference": f"{found.difference:+.4f}",
        "interval": "–" if math.isnan(found.low) else f"{found.low:+.4f} to {found.high:+.4f}",
        "p": f"{found.wilcoxon:.2g}" if found.n > 1 else "–",
        "changed": str(changed),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write pieces.md and pieces.csv of the bundle named on the command line."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    add_cases(parser)
    parser.add_argument("--num_samples", type=int, help="whose mean is taken (default: train's)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="beside 1")
    parser.add_argument("--test_cases", nargs="+", help="held back cases, or a file of them")
    arguments = parser.parse_args(argv)
    bundle, out = arguments.bundle, command.folder_of(arguments)
    overrides = {"output_dir": str(out), "smallest_object": 1, "largest_only": []}
    overrides |= overrides_of(arguments)
    if arguments.num_samples is not None:
        overrides["num_samples"] = arguments.num_samples
    if arguments.test_cases is not None:
        overrides["test_cases"] = []
        for item in arguments.test_cases:
            overrides["test_cases"] += read_val_cases(item)
    experiment = Experiment(bundle, (), arguments.model_path, **overrides)
    num_classes = experiment.num_classes
    scores = score(experiment.run(), candidates(arguments.sizes), num_classes)
    choice = choose(scores, names_in(scores))
    nothing = dict.fromkeys(choice, Candidate())
    about = ABOUT.format(
        where=tell_where(arguments, experiment),
        samples=experiment.sampler.num_samples,
    )
    head = report.header(f"Pieces: {bundle.name}", about, "accuracy.pieces", argv, 0)
    columns = {}
    rows = []

    def add(part: str, before: dict[str, float], after: dict[str, float]) -> None:
        rows.append(gain_row(part, before, after))
        columns[f"{part}: all pieces"], columns[f"{part}: chosen"] = before, after

    before = {name: dice_with(scores, nothing, name) for name in names_in(scores)}
    after = {name: dice_with(scores, choice, name) for name in names_in(scores)}
    add("that chose", before, after)
    if len(before) > 1:
        add("each by the others' choice", before, chosen_by_others(scores))
    report.write_cases(out / "pieces.csv", columns)
    if arguments.test_cases is not None:
        held = Experiment(bundle, (), arguments.model_path, **overrides | {"part": "test"})
        found = score(held.run(), [*{*choice.values(), Candidate()}], num_classes)
        before = {name: dice_with(found, nothing, name) for name in names_in(found)}
        rows.append(gain_row("held back", before, {n: dice_with(found, choice, n) for n in before}))
    classes = class_rows(scores, choice, bundle.class_names)
    chosen = f"Chosen: `{knobs_of(choice)}`.\n"
    gain = f"## Gain\n\n{GAIN}\n"
    print(
        report.write(
            out / "pieces.md", head, report.table(classes), chosen, gain, report.table(rows)
        )
    )


if __name__ == "__main__":
    main()
