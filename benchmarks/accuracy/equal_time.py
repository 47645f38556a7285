r"""Dice against time: which method of a table segments best in the time that one has.

    python -m benchmarks.accuracy.equal_time ldseg_2 --size 512 512

TABLE is one of `benchmarks.accuracy.paper` whose steps and noise are done. Its TABLE_steps.csv has
the Dice of each diffusion method in K reverse steps, its TABLE_noise.csv that of the methods of one
pass, without noise, on the same cases. The time of one image is measured here, of all methods and K
in turns in one process. It writes TABLE_time.md and TABLE_time.png.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import command, report
from benchmarks.accuracy.paper import TABLES, Table
from benchmarks.accuracy.plots import canvas
from benchmarks.accuracy.quality import mean
from benchmarks.accuracy.study import segmenter
from benchmarks.speed import measure
from benchmarks.speed.measure import Result
from benchmarks.speed.workload import Workload

ONE_PASS = 1  # what K stands for where there is none
ABOUT = """One image of {size}, from network input to class logits, in the precision that each
config has on this machine, with untrained weights, which take as long. Dice: of the networks that
{table} trained at one budget, mean over {cases} cases of fold {fold}. A point in bold has a higher
Dice than all that take less time. Ratios are to the first row's method, in the same round."""


class Point(NamedTuple):
    """A method in a number of reverse steps.

    Attributes:
        method: its name in the table.
        steps: K; None for a network of one pass.
    """

    method: str
    steps: int | None

    def __str__(self) -> str:
        return self.method if self.steps is None else f"{self.method}, K = {self.steps}"


def read_dice(steps: Path, noise: Path) -> dict[Point, list[float]]:
    """The Dice of the cases at each point.

    Args:
        steps: CSV file of a table's diffusion methods against K.
        noise: of all its methods against noise; without it they are those of `steps` alone.

    Raises:
        ValueError: if there is no such file of steps.
    """
    if not steps.is_file():
        raise ValueError(
            f"{steps} does not exist: expected the table's steps, which benchmarks.accuracy.paper "
            "writes"
        )
    points: dict[Point, list[float]] = {}
    for row in _rows(steps):
        points.setdefault(Point(row["method"], int(row["K"])), []).append(float(row["dice"]))
    diffusion = {point.method for point in points}
    for row in _rows(noise):
        if row["method"] not in diffusion and float(row["sigma"]) == 0:
            points.setdefault(Point(row["method"], None), []).append(float(row["dice"]))
    return points


def _rows(path: Path) -> Iterable[dict[str, str]]:
    """Those of a CSV file; none where it is not there."""
    if path.is_file():
        with open(path, newline="") as file:
            yield from csv.DictReader(file)


def measure_times(
    table: Table, points: Iterable[Point], size: Sequence[int], rounds: int, budget: float
) -> dict[Point, Result]:
    """Time of one image at each point, all in turns.

    Args:
        table: whose rows the methods are.
        points: of its methods.
        size: sides of the image.
        rounds: timed runs of each, at most.
        budget: seconds of timed runs of each, beyond which it gets fewer.
    """
    channels = Workload(table.bundle).about.in_channels
    plan = table.plan(table.folds[0]) | {"image_size": [channels, *size]}
    keys = {row.get("name", key): key for key, row in table.rows.items()}
    builds = {}
    for point in points:
        variant = table.variant(keys[point.method], Path(), table.folds[0])
        builds[point] = {"": partial(segmenter, plan, variant, point.steps or ONE_PASS)}
    return measure.compare(builds, rounds, budget)


def best_in_their_time(dice: Mapping[Point, float], seconds: Mapping[Point, float]) -> list[Point]:
    """The points that have a higher Dice than all that take less time, the fastest first."""
    best: list[Point] = []
    for point in sorted(dice, key=lambda point: (seconds[point], -dice[point])):
        if not best or dice[point] > dice[best[-1]]:
            best.append(point)
    return best


def draw(
    path: Path, dice: Mapping[Point, float], seconds: Mapping[Point, float], best: Sequence[Point]
) -> None:
    """Draw Dice against time, a line a method, and the best as steps."""
    figure, (axis,) = canvas(1, 1, (9, 4.6))
    for method in dict.fromkeys(point.method for point in dice):
        own = sorted((point for point in dice if point.method == method), key=seconds.__getitem__)
        x, y = [1000 * seconds[point] for point in own], [dice[point] for point in own]
        axis.plot(x, y, marker="o" if len(own) > 1 else "s", label=method)
    x, y = [1000 * seconds[point] for point in best], [dice[point] for point in best]
    axis.step([*x, 1000 * max(seconds.values())], [*y, y[-1]], "k:", where="post", label="best")
    axis.set_xscale("log")
    report.plain_ticks(axis.xaxis, *axis.get_xlim())
    axis.set(xlabel="time of one image, ms", ylabel="Dice (mean over the cases)")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the times of a table's methods; write and print them beside their Dice."""
    parser = command.argument_parser(__doc__)
    parser.add_argument("table", choices=sorted(path.stem for path in TABLES.glob("*.yaml")))
    parser.add_argument("--size", type=int, nargs="+", required=True, help="sides of the image")
    parser.add_argument(
        "--results", type=Path, help="folder of the table's CSV files (default: the recorded ones)"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=20, help="seconds of a point's runs")
    command.add_out(parser)
    arguments = parser.parse_args(argv)
    table = Table(TABLES / f"{arguments.table}.yaml")
    results = arguments.results or command.RESULTS / table.bundle.name
    try:
        files = [results / f"{table.name}_{stem}.csv" for stem in ("steps", "noise")]
        points = read_dice(*files)
        if len(arguments.size) != table.bundle.spatial_dims:
            raise ValueError(
                f"--size {arguments.size}: expected {table.bundle.spatial_dims} numbers, the sides "
                f"of an image of {table.bundle.name}"
            )
    except ValueError as error:
        parser.error(str(error))
    arguments.bundle = table.bundle
    out = command.folder_of(arguments)
    dice = {point: mean(values) for point, values in points.items()}
    about = ABOUT.format(
        size=" x ".join(map(str, arguments.size)),
        table=f"`benchmarks.accuracy.paper {table.name}`",
        cases=max(len(values) for values in points.values()),
        fold=table.folds[0],
    )
    title = f"{table.title}: Dice against time"
    head = report.header(title, about, "accuracy.equal_time", argv, 0)
    times = measure_times(table, points, arguments.size, arguments.rounds, arguments.budget)
    seconds = {point: result.median for point, result in times.items() if not result.failure}
    dice = {point: dice[point] for point in seconds}
    best = best_in_their_time(dice, seconds)
    first = next(iter(times))
    rows = []
    for point in sorted(dice, key=seconds.__getitem__):
        figures = report.measured(times[point], times[first], str(first))
        shown = {name: value for name, value in figures.items() if "memory" not in name}
        shown.pop("of it by the call, MB")
        shown.pop("remark")
        bold = "**" if point in best else ""
        row = {"method": f"{bold}{point.method}{bold}", "K": str(point.steps or report.NONE)}
        rows.append({**row, "Dice": f"{bold}{dice[point]:.3f}{bold}", **shown})
    name = f"{table.name}_time"
    draw(out / f"{name}.png", dice, seconds, best)
    failed = [f"{point}: {result.failure}\n" for point, result in times.items() if result.failure]
    shows = f"![Dice against time]({name}.png)\n"
    print(report.write(out / f"{name}.md", head, report.table(rows), *failed, shows))


if __name__ == "__main__":
    main()
