"""The experiments of the LDSeg paper on a bundle's weights: steps, disturbances, uncertainty.

    H="bundles/ldseg_hippocampus --dataset_dir DIR"
    P="--peer baselines/unet.yaml unet/model.pt"
    python -m benchmarks.accuracy.experiments steps $H
    python -m benchmarks.accuracy.experiments noise $H $P
    python -m benchmarks.accuracy.experiments robustness $H $P
    python -m benchmarks.accuracy.experiments uncertainty $H $P --ensemble a.pt b.pt c.pt

Each scores the validation part (``--part``; that of the shipped weights is named in the bundle's
docs/val_cases.txt, that of others is what they were not trained on) as the bundle's evaluate.yaml
does, in the files' own geometry, and writes a Markdown table, a CSV file with a row a case, and a
PNG picture:

- steps (Figures 5 and 6a): Dice against the number of reverse steps;
- noise (Figure 8): Dice against Gaussian noise on the image (Eq. 19), beside deterministic peers.
  The paper's sigma is of an image from 0 to 1; a standardized image (MRI) gets as much in units of
  its own range between its 1st and 99th percentile, so that a sigma means the same on all;
- robustness: the same for each disturbance of `benchmarks.accuracy.disturbances` that fits the
  images, and the area under each curve;
- uncertainty (Figure 10): each way of `benchmarks.accuracy.uncertainty`, how well its maps of doubt
  find wrong voxels, and what its probabilities are worth. uncertainty_maps.png shows the case of
  the median Dice; being a picture of the data, it is not for a repository.

--views lets samples and peers see images in all views that the bundle's training knows, too.

--other has the bundle's own network with other weights, such as ones trained as long as a peer.
--parts, of robustness, shows which way LDSeg is harmed: through the embedding that the denoiser
sees, or through the features that the label decoder sees.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks import command, report
from benchmarks.accuracy.cross_validation import settings
from benchmarks.accuracy.disturbances import DISTURBANCES, NOISE, Disturbance, area_under
from benchmarks.accuracy.experiment import (
    PARTS,
    Experiment,
    PartHarmed,
    add_cases,
    overrides_of,
    tell_where,
)
from benchmarks.accuracy.plots import (
    dice_of,
    draw_curves,
    draw_maps,
    draw_robustness,
    draw_spread,
    widest_slice,
)
from benchmarks.accuracy.quality import cell, deviation, mean
from benchmarks.accuracy.uncertainty import judge, way_of_ensemble, ways_of, ways_of_peer
from benchmarks.known_views import AS_IT_IS, known_views
from ldseg_monai.evaluation.paired import compare
from ldseg_monai.runtime.errors import InputError

STEPS = (1, 2, 3, 5, 10, 20, 50)
NUM_SAMPLES = 100
# Dice by the network's name, the strength of a disturbance, and the case's name
Curves = dict[str, dict[float, dict[str, float]]]
PEER_BASE = "baselines/unet.yaml"  # what the other peers' overlays are on top of
ABOUT = {
    "steps": """Dice against the number K of reverse steps (the paper's Figures 5 and 6a), on
{where}. Mean of the classes but the background, of the mean of {samples} samples; mean and SD over
the cases.""",
    "noise": """Dice against the standard deviation of Gaussian noise on the image, as a share of
its range (the paper's Figure 8), on {where}; two reverse steps and the mean of {samples} samples.
All networks see the same noise. Mean and SD over the cases.""",
    "robustness": """Dice against the strength of what is wrong with the image, on {where}; two
reverse steps and the mean of {samples} samples. All networks see the same images, disturbed after
the bundle's preprocessing. Area: under the curve of the mean Dice, over its width. Lost: the Dice
of the clean images minus the area. Difference: of the areas of {own} and the peer, with its 95%
bootstrap interval and Wilcoxon's p over the cases.""",
    "uncertainty": """How well maps of doubt find wrong voxels (the paper's Figure 10), on {where}.
SD: over the segmentations, of the most uncertain class. Entropy: of their mean probabilities, 0 to
1. AUROC: of the doubt as a score for wrong voxels, over all voxels of all cases; beside it the mean
doubt on wrong and on right ones. ECE: expected calibration error, of 15 bins. Tempered: with the
probabilities of each case at the temperature that fits the other cases best. Brier: squared error,
summed over the classes. Rank correlation: Spearman's, of a case's mean doubt (where it predicts
foreground, or the doubt is above 0.05) with its Dice. Dice of the surest: without the 10% of the
cases with the most doubt. Expected Dice: that of the predicted classes, if the probabilities were
right; above the Dice they are too sure of the foreground, which much background hides from ECE.""",
}


def run_steps(experiment: Experiment, steps: Sequence[int]) -> dict[str, dict[str, float]]:
    """Dice of each case in each number of reverse steps."""
    columns = {}
    for number in steps:
        experiment.sampler.num_inference_steps = number
        columns[f"K = {number}"] = experiment.dice()
    return columns


def run_disturbance(
    experiments: Mapping[str, Experiment],
    disturbance: Disturbance,
    clean: Mapping[str, dict[str, float]] | None = None,
) -> Curves:
    """Dice of each case under each strength of a disturbance.

    Args:
        experiments: by the network's name.
        disturbance: what is wrong with the images.
        clean: Dice at strength 0, by the network's name, where it is known.
    """
    curves: Curves = {}
    for name, experiment in experiments.items():
        curves[name] = {}
        for strength in disturbance.strengths:
            if clean is not None and strength == 0:
                curves[name][strength] = clean[name]
            else:
                curves[name][strength] = experiment.dice(disturbance, strength)
    return curves


def draw_median(experiment: Experiment, samples: int, dice: dict[str, float], path: Path) -> None:
    """Draw the case of the median Dice, with the mean and the SD of samples."""
    names = list(dice)
    median = sorted(names, key=dice.__getitem__)[len(names) // 2]
    experiment.sampler.num_samples = samples
    AS_IT_IS.let_see(experiment.sampler)
    case = experiment.case(names.index(median))
    draw_maps(path, widest_slice(case), f"{median}, Dice {dice[median]:.3f}")


def mean_and_deviation(values: Iterable[float]) -> dict[str, str]:
    """Two cells of a table."""
    values = list(values)
    return {"mean": cell(mean(values)), "SD": cell(deviation(values))}


def argument_parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = command.argument_parser(__doc__)
    parser.add_argument("experiment", choices=list(ABOUT))
    command.add_bundle(parser)
    command.add_out(parser)
    add_cases(parser)
    parser.add_argument(
        "--num_samples",
        type=int,
        help=f"whose mean is taken (default: {NUM_SAMPLES} of uncertainty, else the bundle's)",
    )
    parser.add_argument(
        "--views",
        action="store_true",
        help="let the samples see an image in all views that the training knows",
    )
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="of steps")
    parser.add_argument(
        "--last_timestep",
        type=float,
        help="of the scheduler: the share of T at which the last step begins",
    )
    parser.add_argument(
        "--sigmas", type=float, nargs="+", default=NOISE.strengths, help="strengths of noise"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[disturbance.name for disturbance in DISTURBANCES],
        metavar="NAME",
        help="disturbances of robustness (default: all that fit the images)",
    )
    parser.add_argument(
        "--peer",
        nargs=2,
        action="append",
        default=[],
        metavar=("OVERLAY[+OVERLAY...]", "WEIGHTS"),
        help="deterministic peer: its overlays in the bundle's configs, and its model.pt",
    )
    parser.add_argument(
        "--other",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "WEIGHTS"),
        help="the bundle's own network with other weights, and how the table calls it",
    )
    parser.add_argument(
        "--parts",
        action="store_true",
        help="of robustness: show LDSeg with the disturbed image in one part alone, too",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="config values that the training had, such as spatial_size=[48,64,48]",
    )
    parser.add_argument(
        "--ensemble", nargs="+", default=[], metavar="WEIGHTS", help="of uncertainty: two or more"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run an experiment; write its table, cases and picture, and print the table."""
    parser = argument_parser()
    arguments = parser.parse_args(argv)
    check(parser, arguments)
    bundle, out = arguments.bundle, command.folder_of(arguments)
    overrides = {**settings(arguments.set), **overrides_of(arguments), "output_dir": str(out)}
    if arguments.last_timestep is not None:
        overrides["network_def#scheduler#last_timestep"] = arguments.last_timestep
    ours = Experiment(bundle, (), arguments.model_path, **overrides)
    where = tell_where(arguments, ours)
    sampler = ours.sampler
    views = known_views(bundle.config("train.yaml")) if arguments.views else AS_IT_IS
    if arguments.num_samples is not None or arguments.experiment == "uncertainty":
        sampler.num_samples = arguments.num_samples or NUM_SAMPLES
    samples = sampler.num_samples
    kind = ""
    if arguments.experiment != "uncertainty":
        views.let_see(sampler)
        kind = " in views" if arguments.views else ""
    kind += "" if arguments.last_timestep is None else " early"
    own = type(ours.network).__name__
    about = ABOUT[arguments.experiment].format(where=where, samples=f"{samples}{kind}", own=own)
    stem = f"{arguments.experiment}{kind}".replace(" ", "_")
    title = f"{arguments.experiment.capitalize()}{kind}: {bundle.name}"
    head = report.header(title, about, "accuracy.experiments", argv, 0)
    picture = out / f"{stem}.png"

    def beside(overlays: Sequence[str], weights: str) -> Experiment:
        """Another network on the same cases, whatever it was trained on."""
        experiment = Experiment(bundle, overlays, weights, **overrides | {"part": "all"})
        experiment.dataset.data = ours.dataset.data
        return experiment

    others = {name: beside((), weights) for name, weights in arguments.other}
    for part in PARTS if arguments.parts else ():
        harmed = PartHarmed(bundle, part, (), arguments.model_path, **overrides)
        others[f"{own}, {part} alone"] = harmed
    peers = {}
    for overlay, weights in arguments.peer:
        overlays = [name for name in overlay.split("+") if name != PEER_BASE]
        peers[Path(overlay).stem] = beside([PEER_BASE, *overlays], weights)
    for other in others.values():
        other.sampler.num_samples = samples
        if arguments.experiment != "uncertainty":
            views.let_see(other.sampler)
    if arguments.experiment == "uncertainty":
        ways = []
        for name, experiment in {own: ours, **others}.items():
            ways += ways_of(name, experiment, samples, views)
        if arguments.ensemble:
            first, *further = arguments.ensemble
            ways.append(way_of_ensemble(beside((), first), further))
        for name, experiment in peers.items():
            ways += ways_of_peer(name, experiment, views, samples)
        rows, columns = judge(ways)
        sections = [report.table(rows)]
        draw_spread(picture, columns)
        dice = columns[dice_of(next(iter(columns)))]
        draw_median(ours, samples, dice, out / f"{stem}_maps.png")
    elif arguments.experiment == "steps":
        sections, columns = report_steps(own, ours, arguments.steps, picture)
    elif arguments.experiment == "noise":
        noise = dataclasses.replace(NOISE, strengths=arguments.sigmas)
        sections, columns = report_noise({own: ours, **others, **peers}, noise, picture)
    else:
        image, _ = ours.image(0)
        chosen = fitting(image, arguments.only)
        sections, columns = report_robustness({own: ours, **others, **peers}, chosen, picture)
    report.write_cases(out / f"{stem}.csv", columns)
    picture_text = f"![{arguments.experiment}]({picture.name})\n"
    print(report.write(out / f"{stem}.md", head, *sections, picture_text))


def report_steps(
    name: str, experiment: Experiment, steps: Sequence[int], picture: Path
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Run and draw steps; the report's sections, and the cases' columns."""
    columns = run_steps(experiment, steps)
    curve = {number: list(columns[f"K = {number}"].values()) for number in steps}
    draw_curves(picture, {name: curve}, "reverse steps K", log=True)
    rows = []
    for column, values in columns.items():
        rows.append({"steps": column, **mean_and_deviation(values.values())})
    return [report.table(rows)], columns


def report_noise(
    networks: Mapping[str, Experiment], noise: Disturbance, picture: Path
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Run and draw noise; as of `report_steps`."""
    curves = run_disturbance(networks, noise)
    axis = "standard deviation of the noise over the image's range"
    draw_curves(picture, without_names(curves), axis, log=False)
    return [report.table(rows_of(curves))], columns_of(curves)


def report_robustness(
    networks: Mapping[str, Experiment], disturbances: Sequence[Disturbance], picture: Path
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Run and draw disturbances; as of `report_steps`."""
    clean = {name: experiment.dice() for name, experiment in networks.items()}
    found, columns = {}, {}
    for disturbance in disturbances:
        found[disturbance] = run_disturbance(networks, disturbance, clean)
        columns |= columns_of(found[disturbance], f"{disturbance.name}: ")
    draw_robustness(picture, {key: without_names(curves) for key, curves in found.items()})
    sections = [report.table(area_rows(found))]
    for disturbance, curves in found.items():
        name = disturbance.name[0].upper() + disturbance.name[1:]
        sections += [f"## {name}: {disturbance.unit}\n", report.table(rows_of(curves))]
    return sections, columns


def fitting(image: torch.Tensor, only: Sequence[str] | None) -> list[Disturbance]:
    """The disturbances for such an image, those of some names or all.

    Raises:
        ValueError: for a name of one that is for other images.
    """
    fit = [disturbance for disturbance in DISTURBANCES if disturbance.fits(image)]
    names = [disturbance.name for disturbance in fit]
    for name in only or ():
        if name not in names:
            raise InputError(
                f"--only {name}: these images have no such thing, expected some of "
                f"{', '.join(names)}"
            )
    return [disturbance for disturbance in fit if not only or disturbance.name in only]


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with a usage message where arguments do not go together."""
    least = 2 if arguments.experiment == "uncertainty" else 1
    if arguments.num_samples is not None and arguments.num_samples < least:
        parser.error(f"--num_samples {arguments.num_samples}: expected {least} or more")
    if len(arguments.ensemble) == 1:
        parser.error("--ensemble has one file: expected two or more")
    if arguments.experiment == "steps" and (arguments.peer or arguments.other):
        parser.error("--peer and --other have no reverse steps to count: leave them out of steps")
    if arguments.ensemble and arguments.experiment != "uncertainty":
        parser.error("--ensemble is for uncertainty: leave it out")
    for name in ("only", "parts"):
        if getattr(arguments, name) and arguments.experiment != "robustness":
            parser.error(f"--{name} is for robustness: leave it out")
    names = [name for name, _ in arguments.other]
    names += [Path(overlay).stem for overlay, _ in arguments.peer]
    if len(set(names)) < len(names):
        parser.error(f"two networks of one name among {', '.join(names)}: expected different ones")


def columns_of(curves: Curves, prefix: str = "") -> dict[str, dict[str, float]]:
    """The Dice of all cases, a column a network and strength."""
    columns = {}
    for name, points in curves.items():
        for strength, dice in points.items():
            columns[f"{prefix}{name}, {strength:g}"] = dice
    return columns


def without_names(
    curves: Curves,
) -> dict[str, dict[float, list[float]]]:
    """The curves with the Dice of all cases in a list."""
    lists: dict[str, dict[float, list[float]]] = {}
    for name, points in curves.items():
        lists[name] = {strength: list(dice.values()) for strength, dice in points.items()}
    return lists


def rows_of(curves: Curves) -> list[dict[str, str]]:
    """A row a network, a column a strength."""
    rows = []
    for name, points in curves.items():
        row = {"network": name}
        for strength, dice in points.items():
            row[f"{strength:g}"] = " ± ".join(mean_and_deviation(dice.values()).values())
        rows.append(row)
    return rows


def area_rows(
    found: Mapping[Disturbance, Curves],
) -> list[dict[str, str]]:
    """A row a disturbance and network: the area, and how that of the first differs from it."""
    rows = []
    for disturbance, curves in found.items():
        areas = {name: areas_by_case(points) for name, points in curves.items()}
        first = next(iter(areas.values()))
        for name, points in curves.items():
            area = mean(areas[name].values())
            lost = mean(points[disturbance.strengths[0]].values()) - area
            row = {"disturbance": disturbance.name, "network": name, "area": cell(area)}
            row["lost"] = cell(lost)
            if areas[name] is not first:
                versus = compare(areas[name], first)
                ahead = sum(first[case] > other for case, other in areas[name].items())
                row["difference"] = cell(versus.difference)
                row["interval"] = f"{cell(versus.low)} to {cell(versus.high)}"
                row["p"] = f"{versus.wilcoxon:.2g}"
                row["ahead in"] = f"{ahead} of {versus.n}"
            rows.append(row)
    return rows


def areas_by_case(points: Mapping[float, dict[str, float]]) -> dict[str, float]:
    """Area under each case's curve."""
    areas = {}
    for case in next(iter(points.values())):
        areas[case] = area_under({strength: dice[case] for strength, dice in points.items()})
    return areas


if __name__ == "__main__":
    main()
