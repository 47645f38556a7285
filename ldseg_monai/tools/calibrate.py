"""`ldseg calibrate`: weights whose probabilities are right as often as they say."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Invertd
from torch import nn

from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.bundle.knobs import check_values
from ldseg_monai.bundle.names import check_names
from ldseg_monai.data.datalist import PathLike, case_name
from ldseg_monai.data.known import OUTSIDE
from ldseg_monai.data.leftovers import some
from ldseg_monai.data.trained_cases import TrainedCases, tell_trained_on
from ldseg_monai.evaluation.temperature import Case, Fit, count, fit_temperature
from ldseg_monai.inference.case_evaluator import require_loaded
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.networks.weights import load_weights, require_weights
from ldseg_monai.runtime.errors import InputError, MissingFileError, counted
from ldseg_monai.runtime.files import save_whole
from ldseg_monai.runtime.ownership import require_new

logger = logging.getLogger(__name__)

SPLIT = {
    "val_cases",
    "val_fraction",
    "seed",
    "fold",
    "num_folds",
    "patients",
    "groups",
}  # choose cases
# Knobs that are not the caller's, or are arguments of their own
FIXED = {"bundle_root", "dataset_dir", "num_samples", "model_path", "ensemble", "part", "force"}
CONFIGS = ("train.yaml", "evaluate.yaml")


def calibrate(
    bundle: PathLike,
    dataset_dir: str,
    out: PathLike,
    weights: PathLike | None = None,
    part: str = "val",
    knobs: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Fit:
    """Fit one temperature to a network's logits, and write weights that divide them by it.

    The validation cases are segmented once, by one sample; the temperature is that with the largest
    likelihood of their labels, in the files' own geometry. It scales the last convolution, so that
    whatever uses the weights gets the probabilities; the most probable class of one sample stays
    the same, but for rounding.

    Args:
        bundle: folder of the bundle, or its name, as of `Bundle.find`.
        dataset_dir: as of the bundle's configs.
        out: file to write.
        weights: state dict; None for the bundle's own.
        part: ``val`` for the validation cases of the split, ``all`` for data that the training did
            not have.
        knobs: items of ``train.yaml`` to override: those that the training had of ``seed``,
            ``val_cases``, ``fold``... Without any that chooses cases, those of the bundle's own
            weights are those of its ``docs/val_cases.txt``, and those of others the ones that
            they were not trained on.
        force: whether images that the weights do not know are taken, instead of refused. The list
            of cases beside the new weights then names them.

    Raises:
        FileNotFoundError: without the bundle, its data or its weights, or the folder to write to.
        FileExistsError: if there is a file at ``out``.
        ValueError: for a network without logits (cDAL, a peer), weights of another one, unknown
            knobs, no case, or a case that cannot be read or that the weights do not know.
        RuntimeError: around the ValueError of a split, as MONAI wraps it.
    """
    source, out = Bundle.find(bundle), Path(out)
    require_new(out)
    if not out.parent.is_dir():
        raise MissingFileError(
            f"{out.parent} is not there: expected a folder to write to; make it first"
        )
    knobs = dict(knobs or {})
    fixed = ", ".join(sorted(knobs.keys() & FIXED))
    if fixed:
        raise InputError(f"knobs have {fixed}: expected none of {', '.join(sorted(FIXED))}")
    check_names([str(source.config_file(name)) for name in CONFIGS], knobs)
    if weights is None and part == "val" and not any(map(_chooses_cases, knobs)):
        knobs |= source.own_split(dataset_dir)
    used = str(weights or source.weights)
    own: dict[str, Any] = {"dataset_dir": dataset_dir, "num_samples": 1, "model_path": used}
    config = source.config(*CONFIGS, **own, part=part, force=force, **knobs)
    check_values(config)
    require_weights(used)
    trained = TrainedCases.read(used)
    logger.info("%s", _tell_trained_on(trained, config))
    network = diffusion_segmenter(config.get_parsed_content("network")).eval()
    network.scale_logits(1.0)  # changes nothing, but for an error of a network without logits
    load_weights(network, used)
    cases, outside = _segment(config, network)
    fit = fit_temperature(cases)
    network.scale_logits(fit.temperature)
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    save_whole(state, out, new=True)
    if trained is not None:
        if outside:
            number = counted(len(outside), "image")
            note = f"calibrated on {number} outside of known_images ({some(outside)})"
            trained = TrainedCases(frozenset(), note).joined(trained)
        trained.write(out)
    return fit


def _tell_trained_on(trained: TrainedCases | None, config: ConfigParser) -> str:
    """Say on how many of the validation cases the weights were trained."""
    images = [case["image"] for case in config.get_parsed_content("validate#dataset#data")]
    seen = [trained is not None and trained.has(image) for image in images]
    return tell_trained_on(trained, dict(zip(map(case_name, images), seen, strict=True)))


def _chooses_cases(knob: str) -> bool:
    """Whether a knob, or an id below one, says which cases validate."""
    return "dataset" in knob or re.split("#|::", knob)[-1] in SPLIT


@torch.no_grad()
def _segment(config: ConfigParser, network: nn.Module) -> tuple[list[Case], list[str]]:
    """Segment a training's validation cases, and count each in its file's geometry.

    Returns:
        The counts, and the names of those whose images the weights do not know.
    """
    inferer = config.get_parsed_content("validate#inferer")
    device = config.get_parsed_content("device")
    num_classes = config.get_parsed_content("num_classes")
    back = Invertd(
        "pred",
        config.get_parsed_content("validate#preprocessing"),
        orig_keys="image",
        nearest_interp=False,
    )
    cases, outside = [], []
    for item in config.get_parsed_content("validate#dataset"):
        require_loaded(item)
        if OUTSIDE in item["image"].meta:
            outside.append(case_name(item["image"].meta["filename_or_obj"]))
        batch = list_data_collate([item])
        logits = inferer(batch["image"].to(device), network).float().cpu()
        if logits.shape[1] != num_classes:
            name = item["image"].meta["filename_or_obj"]
            raise InputError(
                f"{name}: expected logits of {num_classes} classes, got {logits.shape[1]} channels"
            )
        case = back(decollate_batch({**batch, "pred": MetaTensor(logits)})[0])
        pred, label = (case[key].as_subclass(torch.Tensor) for key in ("pred", "label"))
        cases.append(count(pred, label))
    return cases, outside
