r"""What a bundle's score owes to chance: it is trained with several seeds, and scored on one split.

    python -m benchmarks.accuracy.seeds bundles/ldseg_echo --dataset_dir DIR --out runs/seeds \
        --set val_cases=bundles/ldseg_echo/docs/val_cases.txt "patients=''" max_epochs=30

Each seed's network is trained by the bundle's own command in ``--out``/seedN, and its weights are
scored on the validation part by the bundle's evaluate.yaml in the scores/ there. ``--set`` gives
config values to both, ``--score`` to the score alone. A seed draws the weights, the order of the
cases, augmentation and noise; the split it must not draw, so ``--set`` names a fold or the cases.
``--shipped SEED`` takes the bundle's own weights for that seed instead of a training.

The same command goes on where it stopped. It writes ``--out``/seeds.md and seeds.csv of all seeds
that are done there.
"""

from __future__ import annotations

import csv
import filecmp
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import command, report
from benchmarks.accuracy.cross_validation import (
    HEADINGS,
    Cases,
    by_class,
    claim,
    evaluate,
    plan_of,
    read_rows,
    settings,
    train,
)
from benchmarks.accuracy.quality import cell, deviation, mean
from benchmarks.accuracy.study import TRAINED
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.trained_cases import cases_file

OWN = ("dataset_dir", "output_dir", "seed")  # what this program sets
SPLITS = ("fold", "val_cases")  # one of them has to be the same for all seeds
ABOUT = """Trainings that differ in their seed alone, {told}. Each row is the mean over the same
cases, in their files' own geometry; class `mean` is each case's mean over its classes; HD95 is in
mm, of pictures in pixels. The last row of a class is the mean of the seeds' rows ± their standard
deviation (over n - 1): what another training would change. The cases chose each training's epoch,
but where `val_interval` is `max_epochs`."""


def take_shipped(bundle: Bundle, folder: Path) -> None:
    """Put the bundle's own weights where a training would leave them, with what they know.

    Args:
        bundle: the bundle.
        folder: of the seed.

    Raises:
        ValueError: if other weights are there.
    """
    if (folder / TRAINED).exists():
        if not filecmp.cmp(bundle.weights, folder / "model.pt", shallow=False):
            raise ValueError(
                f"{folder} has other weights than {bundle.weights}: remove it, or choose another "
                "--out"
            )
        return
    shutil.copyfile(bundle.weights, folder / "model.pt")
    shutil.copyfile(cases_file(bundle.weights), cases_file(folder / "model.pt"))
    (folder / TRAINED).touch()


def figure(value: float) -> str:
    """As `cell` has it, but with four decimals below 1, since seeds differ by little."""
    return f"{value:.4f}" if abs(value) < 1 else cell(value)


def table_rows(seeds: Mapping[int, dict[str, Cases]], shipped: int | None) -> list[dict[str, str]]:
    """The rows of the table, for each class those of the seeds and one of all.

    Args:
        seeds: scores of each seed, as of `by_class`.
        shipped: the seed that the bundle's own weights stand for.
    """
    rows = []
    for index in next(iter(seeds.values())):
        of_seeds: dict[str, list[float]] = {}
        for seed, classes in seeds.items():
            name = f"{seed}, as shipped" if seed == shipped else str(seed)
            row = {"class": index, "seed": name, "cases": str(len(classes[index]))}
            for score, heading in HEADINGS.items():
                value = mean(scores[score] for scores in classes[index].values())
                of_seeds.setdefault(score, []).append(value)
                row[heading] = figure(value)
            rows.append(row)
        row = {"class": index, "seed": f"{len(seeds)} seeds", "cases": report.NONE}
        for score, heading in HEADINGS.items():
            values = of_seeds[score]
            row[heading] = f"{figure(mean(values))} ± {figure(deviation(values))}"
        rows.append(row)
    return rows


def write_results(out: Path, head: str, folders: Mapping[int, Path], shipped: int | None) -> str:
    """Write seeds.md and seeds.csv of the seeds that are scored; returns the former's text."""
    seeds, kept = {}, []
    for seed, folder in folders.items():
        rows = read_rows({seed: folder})
        if rows:
            seeds[seed] = by_class(rows)
            kept += [{**row, "seed": row["fold"]} for row in rows]
    with open(out / "seeds.csv", "w", newline="") as file:
        columns = ["seed", "case", "class", *HEADINGS]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
    return report.write(out / "seeds.md", head, report.table(table_rows(seeds, shipped)))


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is left of the seeds; write and print their table."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--shipped", type=int, metavar="SEED", help="that the bundle's own weights stand for"
    )
    parser.add_argument(
        "--overlay",
        nargs="+",
        action="extend",
        default=[],
        help="config files below the bundle's configs/, on top of train.yaml",
    )
    told = "config values to override, values in YAML"
    for name, of in (("--set", told), ("--score", f"{told}, of the score alone")):
        parser.add_argument(
            name, nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=of
        )
    arguments = parser.parse_args(argv)
    bundle, seeds = arguments.bundle, sorted(set(arguments.seeds))
    variant = {"overlays": arguments.overlay} if arguments.overlay else {}
    try:
        values = settings(arguments.set, OWN)
        of_score = settings(arguments.score, (*OWN, *SPLITS), "--score")
        if not any(values.get(name) is not None for name in SPLITS):
            raise ValueError(
                "--set names no split: expected fold=N or val_cases=FILE, since each seed would "
                "draw validation cases of its own"
            )
        if arguments.shipped is not None and arguments.shipped not in seeds:
            raise ValueError(f"--shipped {arguments.shipped}: expected one of {seeds}")
        missing = [name for name in arguments.overlay if not (bundle.configs / name).is_file()]
        if missing:
            raise ValueError(f"--overlay {missing}: expected files below {bundle.configs}")
        if not Path(arguments.dataset_dir).is_dir():
            raise ValueError(
                f"--dataset_dir {arguments.dataset_dir} does not exist: expected a folder"
            )
        plans = {seed: plan_of(bundle, {**values, "seed": seed}) for seed in seeds}
        to_score = {seed: plan_of(bundle, {**values, **of_score, "seed": seed}) for seed in seeds}
        folders = {seed: arguments.out / f"seed{seed}" for seed in seeds}
        for seed in sorted(seeds, key=lambda seed: not folders[seed].exists()):
            claim(to_score[seed], variant, folders[seed])  # refused before a folder is made
        if arguments.shipped is not None:
            take_shipped(bundle, folders[arguments.shipped])
    except ValueError as error:
        parser.error(str(error))
    title = f"Seeds: {bundle.name}"
    settings_told = f"by `{' '.join(arguments.set)}`" if arguments.set else "as the bundle has it"
    head = report.header(title, ABOUT.format(told=settings_told), "accuracy.seeds", argv, seeds[0])
    for seed in seeds:
        train(plans[seed], variant, arguments.dataset_dir, folders[seed])
        evaluate(to_score[seed], variant, arguments.dataset_dir, folders[seed])
        text = write_results(arguments.out, head, folders, arguments.shipped)
    print(text)


if __name__ == "__main__":
    main()
