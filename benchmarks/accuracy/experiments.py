"""The experiments of the LDSeg paper on a bundle's weights: steps, noise, what the spread is worth.

    H="bundles/ldseg_hippocampus --dataset_dir DIR"
    python -m benchmarks.accuracy.experiments steps $H
    python -m benchmarks.accuracy.experiments noise $H --peer baselines/unet.yaml unet/model.pt
    python -m benchmarks.accuracy.experiments uncertainty $H

Each scores the validation part (``--part``; that of the shipped weights is named in the bundle's
docs/val_cases.txt, that of others is what they were not trained on) as the bundle's evaluate.yaml
does, in the files' own geometry, and writes a Markdown table, a CSV file with a row a case, and a
PNG picture:

- steps (Figures 5 and 6a): Dice against the number of reverse steps;
- noise (Figure 8): Dice against Gaussian noise on the image (Eq. 19), beside deterministic peers.
  The paper's sigma is of an image from 0 to 1; a standardized image (MRI) gets as much in units of
  its own range between its 1st and 99th percentile, so that a sigma means the same on all;
- uncertainty (Figure 10): mean and standard deviation of 100 samples: the area under the ROC curve
  of the SD for wrong pixels, the SD on wrong and right ones, the calibration error of the mean, and
  how a case's spread goes with its Dice. uncertainty_maps.png shows the case of the median Dice;
  being a picture of the data, it is not for a repository. Of pictures, --turned lets the samples
  see eight orientations (the knob turned), and writes uncertainty_turned.md.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Iterable, Iterator, Sequence
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
from benchmarks.accuracy.quality import (
    Calibration,
    cell,
    deviation,
    known,
    label_dice,
    mean,
    with_noise,
)
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.split import read_val_cases
from ldseg_monai.data.trained_cases import TrainedCases, tell_trained_on
from ldseg_monai.evaluation.pictures import load_image, upright
from ldseg_monai.evaluation.report.trajectory import sampler_of
from ldseg_monai.inference import SamplingInferer
from ldseg_monai.inference.case_evaluator import require_loaded
from ldseg_monai.networks.weights import load_weights

STEPS = (1, 2, 3, 5, 10, 20, 50)
SIGMAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
NUM_SAMPLES = 100
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
    "uncertainty": """What the standard deviation of {samples} samples says (the paper's Figure 10),
on {where}. AUROC is that of the SD as a score for wrong pixels, over all pixels of all cases; the
correlation is that of a case's mean SD (where it predicts foreground, or the SD is above 0.05) with
its Dice.""",
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

    def run(self, sigma: float = 0.0) -> Iterator[dict[str, Any]]:
        """Segment every case, under noise; yields what the postprocessing leaves, on the CPU."""
        for index in range(len(self.dataset)):
            yield self.case(index, sigma)

    @torch.no_grad()
    def case(self, index: int, sigma: float = 0.0) -> dict[str, Any]:
        """Segment one case, under noise; what the postprocessing leaves, on the CPU."""
        item = self.dataset[index]
        require_loaded(item)
        batch = list_data_collate([item])
        image = batch["image"].to(self.device)
        if sigma:
            image = with_noise(image, sigma * value_range(image.as_tensor()), index)
        prediction = self.inferer(image, self.network).cpu()
        case: dict[str, Any] = self.postprocessing(
            decollate_batch({**batch, "pred": prediction})[0]
        )
        return case

    def dice(self, sigma: float = 0.0) -> dict[str, float]:
        """Mean Dice of the foreground classes of every case, by its name."""
        return {
            name_of(case): label_dice(
                case["pred"].as_tensor()[None], case["label"].as_tensor()[None], self.num_classes
            )
            for case in self.run(sigma)
        }


def value_range(image: torch.Tensor) -> float:
    """What a range of 1 is in this image's units.

    It is 2 for a picture in -1 to 1, and else reaches from the 1st to the 99th percentile.
    """
    if image.min() >= -1 and image.max() <= 1:
        return 2.0
    low, high = (
        image.flatten().float().quantile(torch.tensor([0.01, 0.99], device=image.device)).tolist()
    )
    return high - low


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


def run_noise(
    experiments: dict[str, Experiment], sigmas: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Dice of each case of each network under each noise."""
    columns = {}
    for name, experiment in experiments.items():
        for sigma in sigmas:
            columns[f"{name}, {sigma:g}"] = experiment.dice(sigma)
    return columns


def run_uncertainty(
    experiment: Experiment, maps: Path
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Draw the case of the median Dice, and say what the spread is worth.

    Returns:
        Scores over all cases, and the SD and Dice of each.
    """
    calibration, slices = Calibration(), {}
    for case in experiment.run():
        probabilities, spread = (case[key].as_tensor()[None] for key in ("pred_mean", "pred_sd"))
        calibration.add(probabilities, spread, case["label"].as_tensor()[None].long())
        slices[name_of(case)] = widest_slice(case)
    columns = {
        "SD": dict(zip(slices, (spread for spread, _ in calibration.per_case), strict=True)),
        "Dice": dict(zip(slices, (dice for _, dice in calibration.per_case), strict=True)),
    }
    median = sorted(slices, key=columns["Dice"].__getitem__)[len(slices) // 2]
    draw_maps(maps, slices[median], f"{median}, Dice {columns['Dice'][median]:.3f}")
    figures = {
        "Dice of the mean": mean(columns["Dice"].values()),
        **calibration.scores(),
    }
    return figures, columns


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
    for name, points in curves.items():
        scores = [known(values) for values in points.values()]
        means = [mean(values) for values in scores]
        errors = [
            statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
            for values in scores
        ]
        axis.errorbar(list(points), means, errors, marker="o", capsize=3, label=name)
    axis.set(
        xlabel=x_label, ylabel="Dice (mean, standard error)", xscale="log" if log else "linear"
    )
    numbers = sorted({number for points in curves.values() for number in points})
    axis.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    if len(curves) <= few:
        axis.legend()
    else:
        figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=110)


def draw_spread(path: Path, columns: dict[str, dict[str, float]]) -> None:
    """Draw each case's spread against its Dice."""
    figure, (axis,) = canvas(1, 1, (6, 4.2))
    axis.scatter(list(columns["Dice"].values()), list(columns["SD"].values()), s=14)
    axis.set(xlabel="Dice of the mean", ylabel="mean SD of the probability in a case")
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


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


def argument_parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = command.argument_parser(__doc__)
    parser.add_argument("experiment", choices=list(ABOUT))
    command.add_bundle(parser)
    command.add_out(parser)
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
    parser.add_argument(
        "--num_samples",
        type=int,
        help=f"whose mean is taken (default: {NUM_SAMPLES} of uncertainty, else the bundle's)",
    )
    parser.add_argument(
        "--turned",
        action="store_true",
        help="let the samples see a picture in its eight orientations",
    )
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="of steps")
    parser.add_argument(
        "--last_timestep",
        type=float,
        help="of the scheduler: the share of T at which the last step begins",
    )
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS, help="of noise")
    parser.add_argument(
        "--peer",
        nargs=2,
        action="append",
        default=[],
        metavar=("OVERLAY", "WEIGHTS"),
        help="deterministic peer of noise: its overlay in the bundle's configs, and its model.pt",
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run an experiment; write its table, cases and picture, and print the table."""
    parser = argument_parser()
    arguments = parser.parse_args(argv)
    least = 2 if arguments.experiment == "uncertainty" else 1
    if arguments.num_samples is not None and arguments.num_samples < least:
        parser.error(f"--num_samples {arguments.num_samples}: expected {least} or more")
    bundle, out = arguments.bundle, command.folder_of(arguments)
    overrides = {**overrides_of(arguments), "output_dir": str(out)}
    if arguments.last_timestep is not None:
        overrides["network_def#scheduler#last_timestep"] = arguments.last_timestep
    ours = Experiment(bundle, (), arguments.model_path, **overrides)
    where = WHERE.format(
        part=arguments.part,
        count=len(ours.dataset),
        fold="" if arguments.fold is None else f", fold {arguments.fold}",
        weights="as given" if arguments.model_path else "as shipped",
        trained_on=ours.tell_trained_on(),
    )
    sampler = ours.sampler
    if arguments.num_samples is not None or arguments.experiment == "uncertainty":
        sampler.num_samples = arguments.num_samples or NUM_SAMPLES
    sampler.turned |= arguments.turned
    kind = " turned" if sampler.turned else ""
    kind += "" if arguments.last_timestep is None else " early"
    about = ABOUT[arguments.experiment].format(where=where, samples=f"{sampler.num_samples}{kind}")
    stem = f"{arguments.experiment}{kind}".replace(" ", "_")
    title = f"{arguments.experiment.capitalize()}{kind}: {bundle.name}"
    head = report.header(title, about, "accuracy.experiments", argv, 0)
    picture = out / f"{stem}.png"
    own = type(ours.network).__name__
    if arguments.experiment == "uncertainty":
        figures, columns = run_uncertainty(ours, out / f"{stem}_maps.png")
        draw_spread(picture, columns)
        rows = [{"figure": name, "value": cell(value)} for name, value in figures.items()]
    elif arguments.experiment == "steps":
        columns = run_steps(ours, arguments.steps)
        curve = {number: list(columns[f"K = {number}"].values()) for number in arguments.steps}
        draw_curves(picture, {own: curve}, "reverse steps K", log=True)
        rows = []
        for name, values in columns.items():
            rows.append({"steps": name, **mean_and_deviation(values.values())})
    else:
        networks = {own: ours}
        for overlay, weights in arguments.peer:
            overlays = [overlay] if overlay == PEER_BASE else [PEER_BASE, overlay]
            peer = Experiment(bundle, overlays, weights, **overrides | {"part": "all"})
            peer.dataset.data = ours.dataset.data  # whatever the peer was trained on
            networks[Path(overlay).stem] = peer
        columns = run_noise(networks, arguments.sigmas)
        curves = noise_curves(columns, networks, arguments.sigmas)
        axis = "standard deviation of the noise over the image's range"
        draw_curves(picture, curves, axis, log=False)
        rows = noise_rows(curves)
    write_cases(out / f"{stem}.csv", columns)
    picture_text = f"![{arguments.experiment}]({picture.name})\n"
    print(report.write(out / f"{stem}.md", head, report.table(rows), picture_text))


def noise_curves(
    columns: dict[str, dict[str, float]], networks: Iterable[str], sigmas: Sequence[float]
) -> dict[str, dict[float, list[float]]]:
    """The Dice of all cases against the noise, a curve a network."""
    curves: dict[str, dict[float, list[float]]] = {}
    for name in networks:
        curves[name] = {sigma: list(columns[f"{name}, {sigma:g}"].values()) for sigma in sigmas}
    return curves


def noise_rows(curves: dict[str, dict[float, list[float]]]) -> list[dict[str, str]]:
    """A row a network, a column a noise."""
    rows = []
    for name, points in curves.items():
        row = {"network": name}
        for sigma, dice in points.items():
            row[f"{sigma:g}"] = " ± ".join(mean_and_deviation(dice).values())
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
