"""Temperature scaling: probabilities that are right as often as they say (Guo et al., ICML 2017, Section 4.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Invertd
from torch import nn

from ldseg_monai.bundle_folder import find_bundle
from ldseg_monai.data import shipped_val_cases
from ldseg_monai.knobs import check_names, check_values
from ldseg_monai.weights import load_weights

TEMPERATURES = tuple(2 ** (step / 8) for step in range(-16, 33))  # 1/4 to 16
UNCHANGED = TEMPERATURES.index(1)
BINS = 15  # of the confidence
SPLIT = {"val_cases", "val_fraction", "seed", "fold", "num_folds", "patients", "groups"}  # choose cases
FIXED = {"bundle_root", "dataset_dir", "num_samples"}  # knobs that are not the caller's


class Case(NamedTuple):
    """What a case says at each temperature."""

    likelihood: torch.Tensor  # (temperatures,): negative log-likelihood, summed over voxels
    bins: torch.Tensor  # (temperatures, 3, BINS): voxels, sum of their confidence, how many are right


class Fit(NamedTuple):
    """A temperature, and the expected calibration error (ECE) without and with it."""

    cases: int
    temperature: float
    error_before: float
    error_after: float
    error_unseen: float  # each case at the temperature of the others; NaN of a single case


def calibrate(
    bundle: str | Path,
    dataset_dir: str,
    out: str | Path,
    weights: str | Path | None = None,
    part: str = "val",
    knobs: Mapping[str, Any] | None = None,
) -> Fit:
    """Fit one temperature to a trained LDSeg's logits, and write weights whose logits are divided by it.

    The validation cases are segmented once, by one sample; the temperature is that with the largest likelihood of their
    labels, in the files' own geometry. It scales the last convolution, so that whatever uses the weights gets the
    probabilities; the most probable class of one sample stays the same, but for rounding.

    Args:
        bundle: folder of the bundle, or the name of one in ``bundles`` below the current directory.
        dataset_dir: as of the bundle's configs.
        out: file to write.
        weights: state dict; None for the bundle's own.
        part: ``val`` for the validation cases of the split, ``all`` for data that the training did not have.
        knobs: items of ``train.yaml`` to override: those that the training had of ``seed``, ``val_cases``, ``fold``...
            Without any that chooses cases, those of the bundle's own weights are those of its ``docs/val_cases.txt``.

    Raises:
        FileNotFoundError: without the bundle, its data or its weights, or the folder to write to.
        FileExistsError: if there is a file at ``out``.
        ValueError: for a network without logits (cDAL, a peer), weights of another one, unknown knobs, or no case.
        RuntimeError: around the ValueError of a case that cannot be read.
    """
    bundle, out = find_bundle(bundle), Path(out)
    if out.exists():
        raise FileExistsError(f"{out} is there already: expected the name of a new file")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is not there: expected a folder to write to; make it first")
    train = str(bundle / "configs" / "train.yaml")
    knobs = dict(knobs or {})
    check_names([train], knobs)
    if knobs.keys() & FIXED:
        raise ValueError(
            f"knobs have {', '.join(sorted(knobs.keys() & FIXED))}: expected none of {', '.join(sorted(FIXED))}"
        )
    chosen = any("dataset" in name or re.split("#|::", name)[-1] in SPLIT for name in knobs)
    if not chosen and weights is None and part == "val":
        knobs["val_cases"] = shipped_val_cases(bundle, dataset_dir)
    config = ConfigParser()
    config.read_config(train)
    config.update({"bundle_root": str(bundle), "dataset_dir": dataset_dir, "num_samples": 1, **knobs})
    config.update({"validate#dataset#data#split": part, "validate#dataset#cache_rate": 0.0})
    check_values(config)
    network = config.get_parsed_content("network").eval()
    decoder = getattr(network, "label_decoder", None)
    if decoder is None:
        raise ValueError(f"{bundle.name} is a {type(network).__name__}: expected an LDSeg, which has logits to scale")
    load_weights(network, str(weights or bundle / "models" / "model.pt"))
    fit = fit_temperature(_segment(config, network))
    with torch.no_grad():
        for parameter in decoder.to_logits[-1].parameters():
            parameter.div_(fit.temperature)
    torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, out)
    return fit


def fit_temperature(cases: Sequence[Case]) -> Fit:
    """Choose the temperature under which the labels of all cases' voxels are the most likely.

    Raises:
        ValueError: without a case, or if it is the least or the largest that there is to choose from.
    """
    if not cases:
        raise ValueError("there is no case to fit to: expected at least one")
    likelihoods = torch.stack([case.likelihood for case in cases])
    bins = torch.stack([case.bins for case in cases])
    best = int(likelihoods.sum(0).argmin())
    if best in (0, len(TEMPERATURES) - 1):
        raise ValueError(
            f"no temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g} fits best, it would be beyond: are these "
            "the weights of such images, and the labels right?"
        )
    of_others = (likelihoods.sum(0) - likelihoods).argmin(dim=1)
    unseen = torch.stack([of_case[index] for of_case, index in zip(bins, of_others, strict=True)]).sum(0)
    total = bins.sum(0)
    return Fit(
        len(cases),
        TEMPERATURES[best],
        calibration_error(total[UNCHANGED]),
        calibration_error(total[best]),
        calibration_error(unseen) if len(cases) > 1 else float("nan"),
    )


def calibration_error(bins: torch.Tensor) -> float:
    """Expected calibration error (Naeini et al., 2015) of ``(3, BINS)``: voxels, confidences and right ones of bins."""
    voxels, confidence, right = bins
    return ((confidence - right).abs().sum() / voxels.sum()).item()


def count(logits: torch.Tensor, label: torch.Tensor) -> Case:
    """Count a case at every temperature.

    Args:
        logits: ``(classes, *spatial)``.
        label: class of each voxel, ``(1, *spatial)``.
    """
    logits, label = logits.flatten(1).float(), label.flatten().long()
    right = logits.argmax(dim=0) == label
    likelihood = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    bins = torch.zeros(len(TEMPERATURES), 3, BINS, dtype=torch.float64)
    for index, temperature in enumerate(TEMPERATURES):
        logarithms = (logits / temperature).log_softmax(dim=0)
        likelihood[index] = -logarithms.gather(0, label[None]).sum(dtype=torch.float64)
        bins[index] = confidence_bins(logarithms.amax(dim=0).exp(), right)
    return Case(likelihood, bins)


def confidence_bins(confidence: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Count voxels by the probability of their most probable class.

    Args:
        confidence: that probability.
        right: whether the class is the label's, of the same shape.

    Returns:
        ``(3, BINS)``: voxels, sum of their confidence, how many are right; float64.
    """
    confidence = confidence.flatten().double()
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    bins = torch.zeros(3, BINS, dtype=torch.float64)
    for row, values in zip(bins, (torch.ones_like(confidence), confidence, right.flatten().double()), strict=True):
        row.scatter_add_(0, which, values)
    return bins


@torch.no_grad()
def _segment(config: ConfigParser, network: nn.Module) -> list[Case]:
    """Segment a training's validation cases, and count each in its file's geometry."""
    inferer, device = config.get_parsed_content("validate#inferer"), config.get_parsed_content("device")
    num_classes = config.get_parsed_content("num_classes")
    back = Invertd("pred", config.get_parsed_content("validate#preprocessing"), orig_keys="image", nearest_interp=False)
    cases = []
    for item in config.get_parsed_content("validate#dataset"):
        batch = list_data_collate([item])
        logits = inferer(batch["image"].to(device), network).float().cpu()
        if logits.shape[1] != num_classes or not logits.isfinite().all():
            name = item["image"].meta["filename_or_obj"]
            raise ValueError(f"{name}: expected finite logits of {num_classes} classes, got {logits.shape[1]} channels")
        case = back(decollate_batch({**batch, "pred": MetaTensor(logits)})[0])
        cases.append(count(*(case[key].as_subclass(torch.Tensor) for key in ("pred", "label"))))
    return cases
