"""A bundle's evaluation, case by case, which the programs beside this file look at.

Their commands share which weights and which cases these are.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.data import decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Compose, Invertd
from torch import nn

from benchmarks.accuracy.disturbances import Disturbance
from benchmarks.accuracy.quality import label_dice
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.split import read_val_cases
from ldseg_monai.data.trained_cases import TrainedCases, tell_trained_on
from ldseg_monai.evaluation.report.trajectory import sampler_of
from ldseg_monai.inference import SamplingInferer
from ldseg_monai.inference.case_evaluator import require_loaded
from ldseg_monai.networks.weights import load_weights
from ldseg_monai.runtime.errors import InputError

PARTS = ("embedding", "features")  # of LDSeg's image encoder
WHERE = """the {part} part ({count} cases{fold}) in the files' own geometry, weights {weights}
({trained_on})"""


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
