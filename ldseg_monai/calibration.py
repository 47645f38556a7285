"""Temperature scaling: probabilities that are right as often as they say (Guo et al., ICML 2017, Section 4.2)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Invertd

from ldseg_monai.bundle_folder import find_bundle
from ldseg_monai.knobs import check_values
from ldseg_monai.networks import LDSeg
from ldseg_monai.weights import load_weights

TEMPERATURES = tuple(2 ** (step / 8) for step in range(-16, 33))  # 1/4 to 16
UNCHANGED = TEMPERATURES.index(1)
BINS = 15  # of the confidence


class Case(NamedTuple):
    """What a case says at each temperature."""

    likelihood: torch.Tensor  # (temperatures,): negative log-likelihood, summed over voxels
    bins: torch.Tensor  # (temperatures, 3, BINS): voxels, sum of their confidence, how many are right


class Fit(NamedTuple):
    """A temperature, and the expected calibration error (ECE) without and with it."""

    temperature: float
    error_before: float
    error_after: float
    error_unseen: float  # each case at the temperature of the others; NaN of a single case


def calibrate(
    bundle: str | Path,
    dataset_dir: str,
    out: str | Path,
    weights: str | Path | None = None,
    val_cases: str | Sequence[str] | None = None,
    **knobs: Any,
) -> Fit:
    """Fit one temperature to a trained LDSeg's logits, and write weights whose logits are divided by it.

    The validation cases are segmented once, by one sample; the temperature is that with the largest likelihood of their
    labels, in the files' own geometry. It scales the last convolution, so that whatever uses the weights gets the
    probabilities; the most probable class of one sample stays the same, but for rounding.

    Args:
        bundle: folder of the bundle, or the name of one in ``bundles`` below the current directory.
        dataset_dir: as of the bundle's configs; cases that the network was not trained on.
        out: file to write.
        weights: state dict; None for the bundle's own.
        val_cases: names of the validation cases, or a file of them; None for those that the other knobs draw.
        knobs: further knobs of ``train.yaml`` and ``evaluate.yaml``, such as ``fold``, or ``part="all"``.

    Raises:
        FileNotFoundError: without the bundle, its data or its weights, or the folder to write to.
        FileExistsError: if there is a file at ``out``.
        ValueError: for a network without logits (cDAL), weights of another one, or no case.
    """
    bundle, out = find_bundle(bundle), Path(out)
    if out.exists():
        raise FileExistsError(f"{out} is there already: expected the name of a new file")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is not there: expected a folder to write to; make it first")
    config = ConfigParser()
    config.read_config([str(bundle / "configs" / name) for name in ("train.yaml", "evaluate.yaml")])
    config.update({"bundle_root": str(bundle), "dataset_dir": dataset_dir, "part": "val", "num_samples": 1, **knobs})
    if val_cases is not None:
        config["val_cases"] = val_cases
    check_values(config)
    network = config.get_parsed_content("network").eval()
    if not isinstance(network, LDSeg):
        raise ValueError(f"{bundle.name} is a {type(network).__name__}: expected an LDSeg, which has logits to scale")
    load_weights(network, str(weights or bundle / "models" / "model.pt"))
    cases = _segment(config, network)
    if not cases:
        raise ValueError(f"there is no case in the {config['part']} part: expected at least one")
    fit = fit_temperature(cases)
    last = network.label_decoder.to_logits[-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(fit.temperature)
    partial = out.with_name(f"{out.name}.partial")
    torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, partial)
    os.replace(partial, out)
    return fit


def fit_temperature(cases: Sequence[Case]) -> Fit:
    """Choose the temperature under which the labels of all cases' voxels are the most likely."""
    likelihoods = torch.stack([case.likelihood for case in cases])
    bins = torch.stack([case.bins for case in cases])
    best = int(likelihoods.sum(0).argmin())
    of_others = (likelihoods.sum(0) - likelihoods).argmin(dim=1)
    unseen = torch.stack([of_case[index] for of_case, index in zip(bins, of_others, strict=True)]).sum(0)
    total = bins.sum(0)
    return Fit(
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
        confidence = logarithms.amax(dim=0).exp()
        which = (confidence * BINS).long().clamp(max=BINS - 1)
        for row, values in zip(bins[index], (torch.ones_like(confidence), confidence, right), strict=True):
            row.scatter_add_(0, which, values.double())
    return Case(likelihood, bins)


@torch.no_grad()
def _segment(config: ConfigParser, network: LDSeg) -> list[Case]:
    """Segment the cases of a bundle's evaluation, and count each in its file's geometry."""
    inferer, device = config.get_parsed_content("validate#inferer"), config.get_parsed_content("device")
    back = Invertd("pred", config.get_parsed_content("validate#preprocessing"), orig_keys="image", nearest_interp=False)
    cases = []
    for item in config.get_parsed_content("validate#dataset"):
        batch = list_data_collate([item])
        logits = inferer(batch["image"].to(device), network).float().cpu()
        case = back(decollate_batch({**batch, "pred": MetaTensor(logits)})[0])
        cases.append(count(*(case[key].as_subclass(torch.Tensor) for key in ("pred", "label"))))
    return cases
