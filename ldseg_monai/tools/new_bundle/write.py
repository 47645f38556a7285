"""A bundle for a data set of one's own, from one of the bundles there are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple

from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.formats import LabelReading, is_volume
from ldseg_monai.data.listed_cases import class_names as listed_names
from ldseg_monai.networks.matching import fitting_names
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.networks.weights import read_state
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.ownership import copy_folder, make_folder, require_new
from ldseg_monai.tools.new_bundle.edits import BACKBONE_OVERLAYS, STANDALONE, new_config
from ldseg_monai.tools.new_bundle.inspection import (
    Inspection,
    inspect_datalist,
)
from ldseg_monai.tools.new_bundle.model_card import CHANGE, new_card, new_data_license, new_metadata
from ldseg_monai.tools.new_bundle.plan import Plan, make_plan
from ldseg_monai.tools.new_bundle.template import Template


def new_bundle(
    source: str,
    name: str,
    dataset_dir: str,
    out: str = "bundles",
    class_names: Sequence[str] | None = None,
    instances: bool = False,
    require_codes: bool = False,
) -> str:
    """Inspect a data set and write a bundle that fits it, without weights, from one that there is.

    Everything is read and decided before anything is written, and the bundle appears whole or not
    at all.

    Args:
        source: folder of the bundle to start from, or its name, as of `Bundle.find`.
        name: of the new bundle: letters, digits and underscores.
        dataset_dir: folder of images/ and labels/, or with a dataset.json.
        out: folder that the new bundle's folder goes to; made where missing.
        class_names: of the classes from 1 on; None for those of a `dataset.json`, or `class_1`...
        instances: whether labels are instance ids, so that whatever is not 0 is one class.
        require_codes: whether a NIfTI without a form code is an error, here and in the new bundle.

    Returns:
        A report: what was found, what was chosen and why, and the commands to train and to
            evaluate.

    Raises:
        ValueError, OSError: for a name that is taken, data that cannot be used, or a bundle that
            does not fit them.
    """
    template = Template(Bundle.find(source))
    if origin := _origin(template.bundle):
        raise InputError(
            f"{source} was itself written by new-bundle: expected a bundle such as {origin}, its "
            "own origin"
        )
    target = _target(name, out)
    datalist = find_cases(dataset_dir)
    _require_same_dimensions(template, datalist[0]["image"])
    # Whoever names each value says that all are classes, along outlines too.
    reading = LabelReading(instances=instances, any_outline=bool(class_names))
    inspection = inspect_datalist(datalist, reading, require_codes)
    place = Path(dataset_dir)
    names_by_value = listed_names(place / "dataset.json" if place.is_dir() else place)
    plan, warnings = make_plan(
        template, inspection, dataset_dir, class_names, names_by_value, instances, require_codes
    )
    if datalist.leftovers:
        warnings.append(str(datalist.leftovers))
    _write(template, plan, inspection, target, dataset_dir)
    start = _start(template, target, dataset_dir)
    return _report(plan, inspection, [*inspection.warnings, *warnings], target, dataset_dir, start)


def _origin(bundle: Bundle) -> str | None:
    """Name of the bundle that a written one came from."""
    changes = bundle.metadata["changelog"].values()
    found = re.search(re.escape(CHANGE).replace("NAME", r"(\w+)"), "; ".join(changes))
    return found[1] if found else None


def _target(name: str, out: str) -> Path:
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise InputError(
            f"name {name!r}: expected letters, digits and underscores, a letter first, such as "
            "my_organ"
        )
    if re.search(r"""['"$`\\\n]""", out):
        raise InputError(
            f"out {out!r}: expected a path without quotes and dollar signs, which a config cannot "
            "hold"
        )
    target = Path(out, name)
    require_new(target)
    return target


def _require_same_dimensions(template: Template, image: str | Sequence[str]) -> None:
    dims = 3 if is_volume(ensure_tuple(image)[0]) else 2
    if template.spatial_dims == dims:
        return
    kinds = {2: "2D pictures", 3: "3D volumes"}
    siblings = [
        Template(Bundle(path.parents[1]))
        for path in sorted(template.root.parent.glob("*/configs/train.yaml"))
    ]
    fitting = [
        sibling.name
        for sibling in siblings
        if sibling.spatial_dims == dims and not _origin(sibling.bundle)
    ]
    raise InputError(
        f"the data are {kinds[dims]}, but {template.name} segments {kinds[template.spatial_dims]}: "
        f"expected --from {' or '.join(fitting) or 'another bundle'}"
    )


def _write(
    template: Template, plan: Plan, inspection: Inspection, target: Path, dataset_dir: str
) -> None:
    """Write the bundle beside its place, and move it there when it is whole."""
    data_name = Path(dataset_dir).resolve().name
    make_folder(target.parent)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        copy_folder(template.root / "configs", draft / "configs", _other_json)
        shutil.copyfile(template.root / "LICENSE", draft / "LICENSE")
        for folder in ("docs", "models"):
            (draft / folder).mkdir()
        if not plan.fits_imagenet:
            for overlay in BACKBONE_OVERLAYS:
                (draft / "configs" / overlay).unlink(missing_ok=True)
        for path in sorted((draft / "configs").rglob("*.yaml")):
            path.write_text(new_config(path, template, plan, inspection, target))
        path = draft / "configs" / "metadata.json"
        old = template.bundle.metadata
        metadata = new_metadata(old, template, plan, inspection, target.name, data_name)
        if not plan.fits_imagenet:
            metadata.pop("optional_packages_version", None)
        path.write_text(json.dumps(metadata, indent=4) + "\n")
        commands = _commands(target, "DIR")
        (draft / "docs" / "README.md").write_text(
            new_card(template, plan, inspection, data_name, commands)
        )
        (draft / "docs" / "data_license.txt").write_text(new_data_license(data_name))
        _check(draft, plan)
        require_new(target)  # another command may have written it meanwhile
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _other_json(folder: str, names: list[str]) -> list[str]:
    """JSON twins of the YAML, which nothing would keep equal to it."""
    return [name for name in names if name.endswith(".json") and name != "metadata.json"]


def _check(draft: Path, plan: Plan) -> None:
    """Read what was written, build the network, and let an image of each size through it.

    Raises:
        ValueError: if the template was written in a way that its text could not be changed.
    """
    for file in STANDALONE:
        config = Bundle(draft).config(file)
        network = diffusion_segmenter(config.get_parsed_content("network_def")).eval()
        wanted: dict[str, Any] = {"num_classes": plan.num_classes}
        wanted |= {knob: size for knob, size in plan.sizes.items() if knob in config}
        got = {knob: config.get(knob) for knob in wanted}
        if got != wanted or network.in_channels != plan.in_channels:
            raise InputError(
                f"{file} of the template cannot be changed: expected {wanted} and "
                f"{plan.in_channels} image channels, got {got} and {network.in_channels}"
            )
    for size in plan.sizes.values():
        with torch.no_grad():
            network(torch.zeros(1, plan.in_channels, *size))


def _commands(target: Path, dataset_dir: str) -> list[str]:
    """The commands that train, evaluate on the validation part, and segment."""
    configs, run = (target / "configs").as_posix(), f"runs/{target.name}"
    train, inference = (shlex.quote(f"{configs}/{kind}.yaml") for kind in ("train", "inference"))
    both = f"\"['{configs}/train.yaml','{configs}/evaluate.yaml']\""
    line = "python -m monai.bundle run"
    data, weights = f"--dataset_dir {shlex.quote(dataset_dir)}", f"--model_path {run}/model.pt"
    return [
        f"{line} training --config_file {train} {data} --output_dir {run}",
        f"{line} --config_file {both} {data} --output_dir {run}/scores {weights} --part val",
        f"{line} --config_file {inference} {data} --output_dir {run}/segmentation {weights}",
    ]


def _start(template: Template, target: Path, dataset_dir: str) -> list[str]:
    """How a training starts from the template's weights; nothing where most do not fit."""
    weights = template.bundle.weights
    if not weights.is_file():
        return []
    network = Bundle(target).config("train.yaml").get_parsed_content("network_def")
    number, total = len(fitting_names(read_state(str(weights)), network)), len(network.state_dict())
    if 2 * number < total:
        return []
    return [
        f"Or, in a tenth of the time, from the weights of {template.name}, of which {number} of "
        f"{total} tensors fit:",
        f"ldseg train -m {shlex.quote(target.as_posix())} --data {shlex.quote(dataset_dir)} "
        f"-o runs/{target.name} --from-weights {shlex.quote(str(weights))} "
        "--set partial_weights=true",
        "",
    ]


def _report(
    plan: Plan,
    inspection: Inspection,
    warnings: list[str],
    target: Path,
    dataset_dir: str,
    start: list[str],
) -> str:
    lines = ["Data"]
    lines += [f"  {what}: {value}" for what, value in inspection.table()]
    values: list[int | None] = [*plan.label_values] if plan.label_values else [0, None]
    for index, (value, name) in enumerate(
        zip(values, ["background", *plan.class_names], strict=True)
    ):
        share = 1 - inspection.share(0) if value is None else inspection.share(value)
        cases = len(inspection.cases) if value is None else len(inspection.cases_with(value))
        lines.append(f"  class {index} {name}: {share:.2%} of the voxels, in {cases} cases")
    lines += ["Chosen"]
    lines += [f"  {choice.what}: {choice.value} ({choice.why})" for choice in plan.choices]
    if warnings:
        lines += ["Look at", *(f"  {warning}" for warning in warnings)]
    train, evaluate, segment = _commands(target, dataset_dir)
    lines += [
        f"Wrote {target}",
        "",
        "Train:",
        train,
        "",
        *start,
        "Evaluate on the cases that it did not train on:",
        evaluate,
        "",
    ]
    weights = f"runs/{target.name}/model.pt", (target / "models" / "model.pt").as_posix()
    lines += [
        "Segment:",
        segment,
        "",
        f"Copy {weights[0]} to {weights[1]}, and model_cases.json with it, and --model_path can be "
        "left out.",
    ]
    return "\n".join(lines) + "\n"
