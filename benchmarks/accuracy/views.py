"""What views of an image and ensembles of networks gain in Dice.

    python -m benchmarks.accuracy.views bundles/ldseg_glas --dataset_dir DIR
    python -m benchmarks.accuracy.views bundles/ldseg_hippocampus --dataset_dir DIR --fold 0 \
        --model_path a.pt --ensemble b.pt c.pt

A network sees an image as it is, or in all the views that its training knows (``--views`` of
``ldseg``), or mirrored along ``--mirror_axes``, to see whether it knows that. An ensemble's
networks share the samples (``--ensemble``). What they cost is measured by `benchmarks.speed.views`.
Options as of `benchmarks.accuracy.experiments`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks import command, report
from benchmarks.accuracy.experiment import (
    Experiment,
    add_cases,
    overrides_of,
    tell_where,
)
from benchmarks.accuracy.quality import cell, deviation
from benchmarks.known_views import AS_IT_IS, known_views
from ldseg_monai.bundle.knobs import MIRROR_AXES, check_values
from ldseg_monai.evaluation.paired import compare
from ldseg_monai.networks.weights import with_ensemble

ABOUT = """Dice of {where} by one network that sees each image as it is, by one that sees it in
several views ({views}), and by ensembles. Mean of the classes but the background;
SD over the cases. Difference: to one sample of one network, with its 95% bootstrap interval and
Wilcoxon's p over the cases; beside it that to as many samples of images as they are."""


class Way(NamedTuple):
    """A way to segment.

    Args:
        networks: 1, or those of an ensemble.
        views: 1, or all that the training knows.
        samples: segmentations of each image.
    """

    networks: int
    views: int
    samples: int

    @property
    def name(self) -> str:
        """How the cases' file calls it."""
        return f"{self.networks} networks, {self.views} views, {self.samples} samples"


def ways(networks: int, views: int) -> Iterator[Way]:
    """One sample first; all views, beside as many samples of images as they are; the ensemble's."""
    for number in sorted({1, networks}):
        yield Way(number, 1, number)
        if views > 1:
            yield Way(number, 1, number * views)
            yield Way(number, views, number * views)


def rows_of(found: dict[Way, dict[str, float]]) -> list[dict[str, str]]:
    """A row a way, with its difference to the first, and to as many samples without views."""
    first = next(iter(found.values()))
    rows = []
    for way, dice in found.items():
        row = {"networks": str(way.networks), "views": str(way.views), "samples": str(way.samples)}
        row |= {"Dice": f"{compare(first, dice).b:.4f}", "SD": cell(deviation(dice.values()))}
        if dice is not first:
            row |= difference(first, dice, "difference")
        plain = found.get(way._replace(views=1))
        if way.views > 1 and plain is not None:
            row |= difference(plain, dice, "to as many samples")
        rows.append(row)
    return rows


def difference(
    a: dict[str, float], b: dict[str, float], name: str, groups: Mapping[str, str] | None = None
) -> dict[str, str]:
    """How much higher B's Dice is than A's: three columns. The test is over groups, if any."""
    found = compare(a, b, groups)
    interval = "–" if math.isnan(found.low) else f"{found.low:+.4f} to {found.high:+.4f}"
    p = f"{found.wilcoxon:.2g}" if found.n > 1 else "–"
    return {name: f"{found.difference:+.4f}", f"interval of {name}": interval, f"p of {name}": p}


def main(argv: Sequence[str] | None = None) -> None:
    """Write views.md and views.csv of the bundle named on the command line."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    add_cases(parser)
    parser.add_argument(
        "--ensemble", nargs="+", default=[], metavar="WEIGHTS", help="further networks' weights"
    )
    parser.add_argument(
        "--mirror_axes", type=int, nargs="+", help="to try, in place of those of the bundle"
    )
    arguments = parser.parse_args(argv)
    bundle, out = arguments.bundle, command.folder_of(arguments)
    overrides = {**overrides_of(arguments), "output_dir": str(out)}
    tried = {} if arguments.mirror_axes is None else {MIRROR_AXES: arguments.mirror_axes}
    config = bundle.config("train.yaml", **tried)
    check_values(config)  # before any work
    known = known_views(config, none_too=bool(arguments.ensemble))
    experiment = Experiment(bundle, (), arguments.model_path, **overrides)
    alone, sampler = experiment.network, experiment.sampler
    ensemble = with_ensemble(alone, arguments.ensemble).eval()
    found = {}
    for way in ways(1 + len(arguments.ensemble), known.number):
        experiment.network = ensemble if way.networks > 1 else alone
        sampler.num_samples = way.samples
        (known if way.views > 1 else AS_IT_IS).let_see(sampler)
        found[way] = experiment.dice()
    about = ABOUT.format(where=tell_where(arguments, experiment), views=known.about)
    head = report.header(f"Views: {bundle.name}", about, "accuracy.views", argv, 0)
    report.write_cases(out / "views.csv", {way.name: dice for way, dice in found.items()})
    print(report.write(out / "views.md", head, report.table(rows_of(found))))


if __name__ == "__main__":
    main()
