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
import csv
import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.data import decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Compose, Invertd
from monai.utils import convert_to_tensor
from torch import nn

from benchmarks import command, report
from benchmarks.accuracy.cross_validation import settings
from benchmarks.accuracy.disturbances import DISTURBANCES, NOISE, Disturbance, area_under
from benchmarks.accuracy.quality import cell, deviation, known, label_dice, mean
from benchmarks.accuracy.uncertainty import judge, way_of_ensemble, ways_of, ways_of_peer
from benchmarks.known_views import AS_IT_IS, known_views
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.split import read_val_cases
from ldseg_monai.data.trained_cases import TrainedCases, tell_trained_on
from ldseg_monai.evaluation.paired import compare
from ldseg_monai.evaluation.pictures import load_image, upright
from ldseg_monai.evaluation.report.trajectory import sampler_of
from ldseg_monai.inference import SamplingInferer
from ldseg_monai.inference.case_evaluator import require_loaded
from ldseg_monai.networks.weights import load_weights
from ldseg_monai.runtime.errors import InputError

STEPS = (1, 2, 3, 5, 10, 20, 50)
NUM_SAMPLES = 100
COLORS = 10  # of curves, until the first comes again
# Dice by the network's name, the strength of a disturbance, and the case's name
Curves = dict[str, dict[float, dict[str, float]]]
PARTS = ("embedding", "features")  # of LDSeg's image encoder
PEER_BASE = "baselines/unet.yaml"  # what the other peers' overlays are on top of
WHERE = """the {part} part ({count} cases{fold}) in the files' own geometry, weights {weights}
({trained_on})"""
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


class Experiment:
    """A bundle's evaluation, case by case.

    Args:
        bundle: the bundle.
        overlays: of its configs, between train.yaml and evaluate.yaml.
        model_path: weights; None for the bundle's own.
        overrides: items of the configs to override.
    """

    def __init__(
        self,
        bundle: Bundle,
        overlays: Sequence[str] = (),
        model_path: str | None = None,
        **overrides: Any,
    ) -> None:
        weights = model_path or str(bundle.weights)
        config = bundle.config("train.yaml", *overlays, "evaluate.yaml", **overrides)
        config["model_path"] = weights
        self.network: nn.Module = config.get_parsed_content("network").eval()
        self.device: torch.device = config.get_parsed_content("device")
        self.num_classes: int = config.get_parsed_content("num_classes")
        load_weights(self.network, weights)
        self.trained = TrainedCases.read(weights)
        self.inferer: Any = config.get_parsed_content("validate#inferer")
        self.dataset = config.get_parsed_content("validate#dataset")
        back = Invertd(
            "pred_mean",  # pred_sd is back already
            config.get_parsed_content("validate#preprocessing"),
            orig_keys="image",
            nearest_interp=False,
            allow_missing_keys=True,
        )
        self.on_grid = Compose(config.get_parsed_content("train#deterministic_transforms"))
        self.postprocessing = Compose([config.get_parsed_content("validate#postprocessing"), back])

    @property
    def sampler(self) -> SamplingInferer:
        """What draws the samples, which the inferer may call window by window.

        Raises:
            ValueError: of a peer, which draws none.
        """
        sampler = sampler_of(self.inferer)
        if sampler is None:
            raise ValueError(
                f"{type(self.network).__name__} draws no samples: expected a bundle's own network"
            )
        return sampler

    def tell_trained_on(self) -> str:
        """Say on how many of the cases the weights were trained."""
        names = {}
        for case in self.dataset.data:
            seen = self.trained is not None and self.trained.has(case["image"])
            names[case_name(case["image"])] = seen
        return tell_trained_on(self.trained, names)

    def run(
        self,
        disturbance: Disturbance | None = None,
        strength: float = 0.0,
        probabilities: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Segment every case, as of `case`."""
        for index in range(len(self.dataset)):
            yield self.case(index, disturbance, strength, probabilities)

    def image(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """What the network gets of a case, ``(1, C, *spatial)``, and the batch that has it."""
        item = self.dataset[index]
        require_loaded(item)
        batch = list_data_collate([item])
        return batch["image"].to(self.device).as_tensor(), batch

    @torch.no_grad()
    def case(
        self,
        index: int,
        disturbance: Disturbance | None = None,
        strength: float = 0.0,
        probabilities: bool = False,
    ) -> dict[str, Any]:
        """Segment one case.

        Args:
            index: of the case.
            disturbance: of the image; None for none.
            strength: of the disturbance; 0 for none.
            probabilities: whether one segmentation leaves them too, with an SD of 0.

        Returns:
            What the postprocessing leaves, on the CPU.
        """
        image, batch = self.image(index)
        if disturbance is not None and strength:
            image = disturbance.apply(image, strength, index)
        prediction = self.inferer(image, self.network).cpu()
        if probabilities and prediction.shape[1] == self.num_classes:
            mean_and_sd = [prediction.float().softmax(dim=1), torch.zeros_like(prediction[:, :1])]
            prediction = torch.cat(mean_and_sd, dim=1)
        case: dict[str, Any] = self.postprocessing(
            decollate_batch({**batch, "pred": prediction})[0]
        )
        return case

    def dice(
        self, disturbance: Disturbance | None = None, strength: float = 0.0
    ) -> dict[str, float]:
        """Mean Dice of the foreground classes of every case, by its name."""
        return {
            name_of(case): label_dice(
                case["pred"].as_tensor()[None], case["label"].as_tensor()[None], self.num_classes
            )
            for case in self.run(disturbance, strength)
        }


class PartHarmed(Experiment):
    """LDSeg, one part of which sees the disturbed image and the other one the clean image.

    Args:
        bundle: as of `Experiment`, as are all others.
        harmed: of `PARTS`: the denoiser's embedding, or the label decoder's features.

    Raises:
        InputError: if the network's label decoder does not see the image.
    """

    def __init__(self, bundle: Bundle, harmed: str, *args: Any, **overrides: Any) -> None:
        super().__init__(bundle, *args, **overrides)
        self.harmed = harmed
        if not getattr(self.network, "decoder_sees_image", False):
            raise InputError(
                f"--parts: the label decoder of {bundle.name} does not see the image, expected an "
                "LDSeg whose decoder does; leave --parts out"
            )

    @torch.no_grad()
    def case(
        self,
        index: int,
        disturbance: Disturbance | None = None,
        strength: float = 0.0,
        probabilities: bool = False,
    ) -> dict[str, Any]:
        """Segment one case: see `Experiment.case`."""
        if disturbance is None or strength == 0:
            return super().case(index, disturbance, strength, probabilities)
        apply, encode = disturbance.apply, self.network.encode_image

        def beside_clean(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
            return torch.cat([apply(image, strength, index), image], dim=1)  # (1, 2 C, *spatial)

        def encode_both(windows: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            seen, whole = map(encode, windows.chunk(2, dim=1))
            return (seen[0], whole[1]) if self.harmed == "embedding" else (whole[0], seen[1])

        network: Any = self.network
        network.encode_image = encode_both  # beside the class's method, which it hides
        try:
            both = dataclasses.replace(disturbance, apply=beside_clean)
            return super().case(index, both, strength, probabilities)
        finally:
            del network.encode_image


def name_of(case: dict[str, Any]) -> str:
    """Name of a case by its image's file."""
    return case_name(case["image"].meta["filename_or_obj"])


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


def widest_slice(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The picture, or a volume's axial slice with the most foreground, upright.

    Returns:
        Its image, label, and maps of mean and SD, each ``(C, rows, columns)``.
    """
    maps = {
        "label": upright(case["label"]),
        "mean": upright(1 - case["pred_mean"][:1]),
        "SD": upright(case["pred_sd"]),
    }
    return widest_planes(case["image"].meta["filename_or_obj"], maps)


def widest_planes(path: str, maps: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A picture with its maps, or of a volume the axial slice with the most of ``label``.

    Args:
        path: of the image's file.
        maps: upright, ``(C, *spatial)``, a ``label`` among them.
    """
    planes = {"image": load_image(path), **maps}
    if planes["image"].ndim == 4:
        index = int((planes["label"] > 0).sum(dim=(0, 2, 3)).argmax())
        planes = {name: volume[:, index] for name, volume in planes.items()}
    return {name: convert_to_tensor(plane, track_meta=False) for name, plane in planes.items()}


def draw_maps(path: Path, planes: dict[str, torch.Tensor], title: str) -> None:
    """Draw the image with the true outline, the mean foreground probability, and its SD."""
    figure, axes = canvas(1, 3, (12, 4.2))
    image = planes["image"].float()
    image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-6)
    axes[0].imshow(image.movedim(0, -1).squeeze(-1), cmap="gray")
    axes[0].set_title(title)
    for axis, name, limit in ((axes[1], "mean", 1.0), (axes[2], "SD", 0.5)):
        drawn = axis.imshow(planes[name][0], cmap="viridis", vmin=0, vmax=limit)
        figure.colorbar(drawn, ax=axis, label="probability")
        axis.set_title(f"{name} of the foreground's probability")
    for axis in axes:
        axis.contour(planes["label"][0] > 0, levels=[0.5], colors="red", linewidths=0.8)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def draw_curves(
    path: Path, curves: dict[str, dict[float, list[float]]], x_label: str, log: bool
) -> None:
    """Draw the mean Dice, with its standard error, against a number, a curve a network."""
    few = 3  # curves whose names leave room beside them
    figure, (axis,) = canvas(1, 1, (6, 4.2) if len(curves) <= few else (8.5, 4.2))
    add_curves(axis, curves, x_label)
    axis.set_xscale("log" if log else "linear")
    numbers = sorted({number for points in curves.values() for number in points})
    axis.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axis.minorticks_off()
    if len(curves) <= few:
        axis.legend()
    else:
        figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=110)


def draw_robustness(
    path: Path, found: Mapping[Disturbance, dict[str, dict[float, list[float]]]]
) -> None:
    """Draw the curves of each disturbance in a panel of its own."""
    rows = (len(found) + 2) // 3
    figure, axes = canvas(rows, 3, (12, 3.4 * rows))
    for axis, (disturbance, curves) in zip(axes, found.items(), strict=False):
        add_curves(axis, curves, f"{disturbance.name}: {disturbance.unit}")
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def add_curves(axis: Any, curves: dict[str, dict[float, list[float]]], x_label: str) -> None:
    """Draw into one panel: see `draw_curves`."""
    for number, (name, points) in enumerate(curves.items()):
        style = ("-", "--", ":")[number // COLORS % 3]  # the colors come again
        scores = [known(values) for values in points.values()]
        means = [mean(values) for values in scores]
        errors = [
            statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
            for values in scores
        ]
        axis.errorbar(
            list(points), means, errors, marker="o", linestyle=style, capsize=3, label=name
        )
    axis.set(xlabel=x_label, ylabel="Dice (mean, standard error)")
    axis.grid(alpha=0.3)


def draw_spread(path: Path, columns: dict[str, dict[str, float]]) -> None:
    """Draw each case's doubt against its Dice, a panel a map of doubt."""
    doubts = [name for name in columns if not name.endswith(": Dice")]
    rows = (len(doubts) + 2) // 3
    figure, axes = canvas(rows, min(len(doubts), 3), (4 * min(len(doubts), 3), 3.2 * rows))
    for axis, name in zip(axes, doubts, strict=False):
        dice = columns[dice_of(name)]
        axis.scatter(list(dice.values()), list(columns[name].values()), s=14)
        axis.set_title(name, fontsize="small")
        axis.set(xlabel="Dice", ylabel="mean doubt in a case")
        axis.grid(alpha=0.3)
    for axis in axes[len(doubts) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


def dice_of(name: str) -> str:
    """The column with the Dice of the segmentations whose doubt is in a column."""
    return f"{name.rpartition(': ')[0]}: Dice"


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure that needs no display, and its axes in one list."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False).flatten()


def write_cases(path: Path, columns: dict[str, dict[str, float]]) -> None:
    """Write a row a case."""
    cases = next(iter(columns.values()))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *columns])
        for case in cases:
            writer.writerow([case, *(values[case] for values in columns.values())])


def mean_and_deviation(values: Iterable[float]) -> dict[str, str]:
    """Two cells of a table."""
    values = list(values)
    return {"mean": cell(mean(values)), "SD": cell(deviation(values))}


def add_cases(parser: argparse.ArgumentParser) -> None:
    """Add which weights are looked at, and on which cases: see `overrides_of`."""
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument(
        "--part", default="val", choices=("val", "train", "all"), help="of the bundle's split"
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--fold", type=int, help="fold that validates")
    split.add_argument(
        "--val_cases",
        nargs="+",
        help="cases that validate, or a file of them (default of shipped weights: val_cases.txt)",
    )
    parser.add_argument("--model_path", help="weights (default: the shipped ones)")


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


def overrides_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The items of the configs that a command line sets."""
    overrides = {"dataset_dir": arguments.dataset_dir, "part": arguments.part}
    if arguments.fold is not None:
        overrides["fold"] = arguments.fold
    elif arguments.val_cases is not None:
        overrides["val_cases"] = []
        for item in arguments.val_cases:
            overrides["val_cases"] += read_val_cases(item)
    elif not arguments.model_path and arguments.part != "all":
        overrides |= arguments.bundle.own_split(arguments.dataset_dir)
    return overrides


def tell_where(arguments: argparse.Namespace, experiment: Experiment) -> str:
    """Which cases are scored, and by which weights."""
    return WHERE.format(
        part=arguments.part,
        count=len(experiment.dataset),
        fold="" if arguments.fold is None else f", fold {arguments.fold}",
        weights="as given" if arguments.model_path else "as shipped",
        trained_on=experiment.tell_trained_on(),
    )


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
    write_cases(out / f"{stem}.csv", columns)
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
