r"""What doubt is worth on patients that nothing has seen, beside what users would take instead.

    python -m benchmarks.accuracy.doubt glas --data DIR --out runs/doubt_glas

NAME is a file of benchmarks/accuracy/doubts: a table as `benchmarks.accuracy.paper` has them, with
``val_fraction``. Each fold is held back for the test, and whole patients of the others validate.
Rows of one name are networks that differ in their seed. Each is trained by the bundle's own command
in ``--out``/ROW/foldN, and judged; the same command goes on where it stopped. ``--only`` trains
some rows, ``--folds`` does some folds; only networks that all of these folds have are judged.

Each network is judged in every way of `benchmarks.accuracy.uncertainty`, Monte Carlo dropout where
it has dropout, and those of a name together as an ensemble. The temperature of each way is fitted
to the validation part. So nothing is chosen on the cases that are judged. It writes to ``--out``:
doubt.md with the measures and with which goals they meet, doubt.csv with a row a case, and
doubt.png, of the first network of each name and of the ensembles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import command, report
from benchmarks.accuracy.paper import WEIGHTS, Table, experiment, run_methods
from benchmarks.accuracy.plots import draw_spread
from benchmarks.accuracy.quality import cell, deviation, mean
from benchmarks.accuracy.study import TRAINED, folder_name, parsed
from benchmarks.accuracy.uncertainty import (
    ONE_SOFTMAX,
    Judged,
    Way,
    columns_of,
    figures_of,
    way_of_ensemble,
    way_of_peers,
    ways_of,
    ways_of_peer,
)
from benchmarks.known_views import known_views
from ldseg_monai.evaluation.temperature import (
    BINS,
    calibration_error,
    fit_temperature,
)
from ldseg_monai.networks.segmenter import DiffusionSegmenter
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.files import save_whole
from ldseg_monai.runtime.ownership import make_folder

DOUBTS = Path(__file__).parent / "doubts"
NUM_SAMPLES = 20
TEMPERED = "ECE, tempered"
GOALS = {"AUROC": 0.95, TEMPERED: 0.02, "rank correlation": -0.7}
LARGER = ("AUROC", "Dice", "Dice of the surest")  # is better
SMALLER = (TEMPERED, "Brier", "rank correlation")  # likewise
HOW = """
Folds {folds}: {test} cases, each segmented by networks that were trained without its fold. Weights
are the last epoch's; {val} cases validated, and chose nothing but temperatures. Networks of one
name differ in their seed. Alone: mean ± SD over them. SD: over the segmentations, of the most
uncertain class. Entropy: of their mean probabilities, 0 to 1. AUROC: of the doubt as a score
for wrong voxels, over all voxels of all cases; beside it the mean doubt on wrong and on right ones.
ECE: expected calibration error, of 15 bins. Tempered: at the temperature that fits the validation
part best, whose patients are none of the test's. Brier: squared error, summed over the classes.
Rank correlation: Spearman's, of a case's mean doubt (where it predicts foreground, or the doubt is
above 0.05) with its Dice. Dice of the surest: without the 10% of the cases with the most doubt."""
OF_GOALS = """Which goals are met, and what is better than the entropy of one softmax, by the mean
over the networks. What is equal in three decimals is not better.
"""


class Judgment:
    """What a way is worth on the cases that several folds hold back.

    Args:
        has_spread: as of `Way`.
    """

    def __init__(self, has_spread: bool) -> None:
        self.judged = Judged(has_spread)
        self.names: list[str] = []
        self.tempered = torch.zeros(3, BINS, dtype=torch.float64)  # as of `confidence_bins`

    def add(self, fitted: Way, held_back: Way) -> None:
        """Count the cases of a fold.

        Args:
            fitted: the way on the cases that its temperature is fitted to.
            held_back: the way on the others.
        """
        validation = Judged(fitted.has_spread)
        validation.add_cases(fitted)
        try:
            temperatures = [fit_temperature(validation.counted).temperature]
        except InputError:  # the best one is beyond those there are to choose from
            temperatures = []
        judged = Judged(held_back.has_spread, temperatures)
        names = judged.add_cases(held_back)
        tempered = torch.full_like(self.tempered, 0 if temperatures else math.nan)
        for case in judged.counted:
            tempered += case.bins.sum(dim=0)
        maps = {doubt: vars(one) for doubt, one in judged.by_map.items()}
        self.add_counts({"names": names, "tempered": tempered, "maps": maps})

    def counts(self) -> dict[str, Any]:
        """All that was counted, for a file."""
        maps = {doubt: vars(one) for doubt, one in self.judged.by_map.items()}
        return {"names": self.names, "tempered": self.tempered, "maps": maps}

    def add_counts(self, counts: dict[str, Any]) -> None:
        """Add what another judgment of the same way counted, on other cases."""
        self.names += counts["names"]
        self.tempered += counts["tempered"]
        for doubt, calibration in self.judged.by_map.items():
            calibration.add_counts(counts["maps"][doubt])

    def figures(self) -> dict[str, dict[str, float]]:
        """The measures of each map of doubt; NaN for the tempered error where nothing fitted."""
        error = calibration_error(self.tempered)
        by_map = self.judged.by_map
        return {doubt: figures_of(calibration, error) for doubt, calibration in by_map.items()}


def alike(table: Table, keys: Sequence[str]) -> dict[str, list[str]]:
    """The rows of each name, in order."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(table.rows[key].get("name", key), []).append(key)
    return found


def ways_in(
    table: Table,
    keys: Sequence[str],
    dataset_dir: str,
    out: Path,
    fold: int,
    part: str,
    samples: int,
) -> Iterator[Way]:
    """All ways of some trained rows: of each row by itself, and of those of a name together.

    Args:
        table: the table.
        keys: its rows.
        dataset_dir: folder of the data set.
        out: folder of the trainings.
        fold: that is held back.
        part: of its split, "val" or "test".
        samples: or passes with dropout, of a case.
    """
    views = known_views(parsed(table.plan(fold), {}), none_too=True)
    place = (dataset_dir, out, fold, part)
    for name, (first, *others) in alike(table, keys).items():
        for key in (first, *others):
            alone = experiment(table, key, *place)
            if isinstance(alone.network, DiffusionSegmenter):
                yield from ways_of(key, alone, samples, views)
            else:
                yield from ways_of_peer(key, alone, views, samples)
        number, ensembles = 1 + len(others), []
        further = [str(out / key / f"fold{fold}" / WEIGHTS) for key in others]
        together = experiment(table, first, *place)
        if further and isinstance(together.network, DiffusionSegmenter):
            ensembles.append(way_of_ensemble(together, further))
            if samples // number > 1:
                again = experiment(table, first, *place)
                ensembles.append(way_of_ensemble(again, further, samples // number))
        elif further:
            ensembles.append(way_of_peers(together, further))
        for way in ensembles:
            yield way._replace(network=name, name=f"{number} networks, {way.name}")


def judge_folds(
    table: Table,
    keys: Sequence[str],
    dataset_dir: str,
    out: Path,
    folds: Sequence[int],
    samples: int,
) -> dict[tuple[str, str], Judgment]:
    """Judge each way, by its row or name and its own, on what folds hold back; as of `ways_in`.

    What was counted of a single network is kept in ``out``, and taken from there the next time.
    """
    found: dict[tuple[str, str], Judgment] = {}
    for fold in folds:
        place = (table, keys, dataset_dir, out, fold)
        fitted, held_back = (ways_in(*place, part, samples) for part in ("val", "test"))
        for of_val, of_test in zip(fitted, held_back, strict=True):
            of_fold = Judgment(of_test.has_spread)
            kept = out / of_test.network / f"fold{fold}" / f"{folder_name(of_test.name)}.counts"
            is_single = of_test.network in keys
            if is_single and kept.exists():
                of_fold.add_counts(torch.load(kept, weights_only=True))
            else:
                of_fold.add(of_val, of_test)
            if is_single:
                save_whole(of_fold.counts(), kept)
            judgment = found.setdefault(of_test[:2], Judgment(of_test.has_spread))
            judgment.add_counts(of_fold.counts())
    return found


def better(figures: Mapping[str, float], others: Mapping[str, float]) -> list[str]:
    """The measures in which one doubt is better than another, as far as a table shows it."""
    found = []
    for names, sign in ((LARGER, 1), (SMALLER, -1)):
        for name in names:
            if sign * (round(figures[name], 3) - round(others[name], 3)) > 0:
                found.append(name)
    return found


class Measured(NamedTuple):
    """A map of doubt as a table has it.

    Attributes:
        network: by its name.
        way: that gives the probabilities.
        doubt: SD or entropy.
        each: the measures of each network.
    """

    network: str
    way: str
    doubt: str
    each: list[dict[str, float]]

    def named(self) -> dict[str, str]:
        """The first cells of a row."""
        return {"network": self.network, "probabilities": self.way, "doubt": self.doubt}

    def means(self) -> dict[str, float]:
        """The measures, mean over the networks."""
        return {name: mean(one[name] for one in self.each) for name in self.each[0]}

    def row(self) -> dict[str, str]:
        """A row of the table: means, and the SD over the networks where there are several."""
        cells = {}
        for name, value in self.means().items():
            spread = deviation(one[name] for one in self.each)
            cells[name] = cell(value) if math.isnan(spread) else f"{cell(value)} ± {cell(spread)}"
        return {**self.named(), **cells}


def measured(table: Table, judgments: Mapping[tuple[str, str], Judgment]) -> list[Measured]:
    """The maps of doubt, those of networks of one name together."""
    found: dict[tuple[str, str, str], Measured] = {}
    for (network, way), judgment in judgments.items():
        name = table.rows.get(network, {}).get("name", network)
        for doubt, figures in judgment.figures().items():
            one = found.setdefault((name, way, doubt), Measured(name, way, doubt, []))
            one.each.append(figures)
    return list(found.values())


def goal_rows(doubts: Sequence[Measured]) -> list[dict[str, str]]:
    """A row a map of doubt: the goals that it meets, and what is better than each softmax."""
    plain = {}
    for one in doubts:
        if one.way == ONE_SOFTMAX:
            plain[one.network] = one.means()
    rows = []
    for one in doubts:
        row, figures = one.named(), one.means()
        for measure, goal in GOALS.items():
            sign = 1 if measure in LARGER else -1
            met = sign * figures[measure] >= sign * goal
            row[f"{measure} {goal:g}"] = "yes" if met else "no"
        for other, softmax in plain.items():
            names = better(figures, softmax)
            row[f"better than {other}'s softmax in"] = "; ".join(names) or "nothing"
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is left, judge all ways, write and print the table."""
    parser = command.argument_parser(__doc__)
    names = sorted(path.stem for path in DOUBTS.glob("*.yaml"))
    parser.add_argument("name", choices=names)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", help="folds to do (default: the file's)")
    parser.add_argument(
        "--only", nargs="*", help="rows to train (default: all); none named: judges what is done"
    )
    parser.add_argument(
        "--num_samples", type=int, default=NUM_SAMPLES, help="or passes with dropout, of a case"
    )
    arguments = parser.parse_args(argv)
    table = Table(DOUBTS / f"{arguments.name}.yaml")
    dataset_dir, out = str(arguments.data / table.data), arguments.out
    if not Path(dataset_dir).is_dir():
        parser.error(f"--data {arguments.data} has no folder {table.data}: expected the data set")
    unknown = sorted(set(arguments.only or ()) - set(table.rows))
    if unknown:
        parser.error(f"--only {unknown}: expected some of {list(table.rows)}")
    if not set(arguments.folds or ()) <= set(table.folds):
        parser.error(f"--folds {arguments.folds}: expected some of {table.folds}")
    if arguments.num_samples < 2:
        parser.error(f"--num_samples {arguments.num_samples}: expected 2 or more")
    table.folds = arguments.folds or table.folds
    table.hold_back(dataset_dir)
    make_folder(out)
    chosen = table.trained() if arguments.only is None else arguments.only
    run_methods(table, chosen, dataset_dir, out, score=False)
    done = []
    for key in table.rows:
        if all((out / key / f"fold{fold}" / TRAINED).exists() for fold in table.folds):
            done.append(key)
    if not done:
        parser.error(f"--out {out}: no row is trained in folds {table.folds}: leave --only out")
    how = HOW.format(
        folds=", ".join(map(str, table.folds)),
        test=sum(len(table.test_cases[fold]) for fold in table.folds),
        val=sum(len(table.val_cases[fold]) for fold in table.folds),
    )
    seed = table.budget.get("seed", 0)
    head = report.header(table.title, table.about + how, "accuracy.doubt", argv, seed)
    judgments = judge_folds(table, done, dataset_dir, out, table.folds, arguments.num_samples)
    columns, drawn = {}, {}
    firsts = [keys[0] for keys in alike(table, done).values()]
    for (network, name), judgment in judgments.items():
        own = columns_of(network, name, judgment.judged, judgment.names)
        columns |= own
        if network in firsts or network not in table.rows:
            drawn |= own
    report.write_cases(out / "doubt.csv", columns)
    draw_spread(out / "doubt.png", drawn)
    doubts = measured(table, judgments)
    rows = report.table([one.row() for one in doubts])
    goals = report.table(goal_rows(doubts))
    picture = "![doubt against Dice](doubt.png)\n"
    print(report.write(out / "doubt.md", head, rows, OF_GOALS, goals, picture))


if __name__ == "__main__":
    main()
