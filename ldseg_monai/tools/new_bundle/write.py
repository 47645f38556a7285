"""A bundle for a data set of one's own, from one of the bundles there are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser

from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.data.datalist import paired_datalist
from ldseg_monai.evaluation.pictures import COLORS
from ldseg_monai.runtime.errors import ExistingFileError, InputError
from ldseg_monai.tools.new_bundle.config_text import ConfigText
from ldseg_monai.tools.new_bundle.inspection import (
    VOLUME_EXTENSIONS,
    Inspection,
    class_names_of,
    inspect_datalist,
)
from ldseg_monai.tools.new_bundle.model_card import CHANGE, new_card, new_data_license, new_metadata
from ldseg_monai.tools.new_bundle.plan import Plan, make_plan
from ldseg_monai.tools.new_bundle.template import Template

STANDALONE = ("train.yaml", "inference.yaml")
BACKBONE_OVERLAYS = ("ablations/residual_encoder.yaml", "baselines/efficientnet_unet.yaml")


def new_bundle(
    source: str,
    name: str,
    dataset_dir: str,
    out: str = "bundles",
    class_names: Sequence[str] | None = None,
    instances: bool = False,
) -> str:
    """Inspect a data set and write a bundle that fits it, without weights, from one that there is.

    Everything is read and decided before anything is written, and the bundle appears whole or not
    at all.

    Args:
        source: folder of the bundle to start from, or the name of one in `bundles/`.
        name: of the new bundle: letters, digits and underscores.
        dataset_dir: folder of images/ and labels/, or with a dataset.json.
        out: folder that the new bundle's folder goes to; made where missing.
        class_names: of the classes from 1 on; None for those of a `dataset.json`, or `class_1`...
        instances: whether labels are instance ids, so that whatever is not 0 is one class.

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
            f"{source} was itself written by new-bundle: expected a bundle such as {origin}, its own origin"
        )
    target = _target(name, out)
    datalist = paired_datalist(dataset_dir)
    _require_same_dimensions(template, datalist[0]["image"])
    inspection = inspect_datalist(datalist)
    names_by_value = class_names_of(dataset_dir)
    plan, warnings = make_plan(
        template, inspection, dataset_dir, class_names, names_by_value, instances
    )
    _write(template, plan, inspection, target, dataset_dir)
    return _report(plan, inspection, [*inspection.warnings, *warnings], target, dataset_dir)


def _origin(bundle: Bundle) -> str | None:
    """Name of the bundle that a written one came from."""
    changes = bundle.metadata["changelog"].values()
    found = re.search(re.escape(CHANGE).replace("NAME", r"(\w+)"), "; ".join(changes))
    return found[1] if found else None


def _target(name: str, out: str) -> Path:
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise InputError(
            f"name {name!r}: expected letters, digits and underscores, a letter first, such as my_organ"
        )
    if re.search(r"""['"$`\\\n]""", out):
        raise InputError(
            f"out {out!r}: expected a path without quotes and dollar signs, which a config cannot hold"
        )
    target = Path(out, name)
    if target.exists():
        raise ExistingFileError(
            f"{target} exists: expected a new name; choose another, or remove the folder"
        )
    return target


def _require_same_dimensions(template: Template, image: str) -> None:
    dims = 3 if image.lower().endswith(VOLUME_EXTENSIONS) else 2
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
        f"the data are {kinds[dims]}, but {template.name} segments {kinds[template.spatial_dims]}: expected --from "
        f"{' or '.join(fitting) or 'another bundle'}"
    )


def _write(
    template: Template, plan: Plan, inspection: Inspection, target: Path, dataset_dir: str
) -> None:
    """Write the bundle beside its place, and move it there when it is whole."""
    data_name = Path(dataset_dir).resolve().name
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copytree(template.root / "configs", draft / "configs", ignore=_other_json)
        shutil.copy(template.root / "LICENSE", draft / "LICENSE")
        for folder in ("docs", "models"):
            (draft / folder).mkdir()
        if not plan.fits_imagenet:
            for overlay in BACKBONE_OVERLAYS:
                (draft / "configs" / overlay).unlink(missing_ok=True)
        for path in sorted((draft / "configs").rglob("*.yaml")):
            path.write_text(
                _new_config(path.name, path.read_text(), template, plan, inspection, target)
            )
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
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _other_json(folder: str, names: list[str]) -> list[str]:
    """JSON twins of the YAML, which nothing would keep equal to it."""
    return [name for name in names if name.endswith(".json") and name != "metadata.json"]


def _new_config(
    file: str, text: str, template: Template, plan: Plan, inspection: Inspection, target: Path
) -> str:
    """A config of the template as the new bundle has it."""
    config = ConfigText(text.replace(f"bundles/{template.name}", target.as_posix()))
    _rename(config, target.name)
    config.substitute(r"^(\s+in_channels: )\d+$", rf"\g<1>{plan.in_channels}")
    if plan.resizes:
        config.substitute("@window_size", "@spatial_size")  # of overlays
    if not plan.fits_imagenet:
        config.substitute(r"^  image_backbone: .*$", "  num_res_blocks: 2\n  label_res_blocks: 1")
        config.drop_lines("network_def#image_backbone: ")
        config.drop_lines("imagenet_weights: ")
        config.replace_components("ldseg_monai.networks.load_imagenet_weights", [])
    if file in STANDALONE:
        _set_network(config, template, plan)
        _set_sizes(config, template, plan)
        _set_classes(config, plan)
        _set_intensity(config, plan, inspection)
    if file == "train.yaml":
        _set_augmentation(config, template, plan, inspection)
        config.set_knob("max_epochs", str(plan.max_epochs))
        config.set_knob("val_fraction", str(plan.val_fraction))
    if file in ("train.yaml", "evaluate.yaml"):
        _set_patients(config, plan, "groups" in template.train)
    if config.has_knob("voxel_size"):
        size = [float(f"{extent:.4g}") for extent in _voxel_size(plan, inspection)]
        config.set_knob(
            "voxel_size",
            str(size),
            "mm that a voxel is resampled to: that of the median volume after its resize",
        )
    return config.text


def _rename(config: ConfigText, name: str) -> None:
    config.substitute(r"^# (LDSeg|cDAL) on .*: training\.", rf"# \1 on {name}: training.")
    config.substitute(r"^(#.*?\b(?:LDSeg|cDAL) on) [^:(,.]+?(?=,| \(|:|\.)", rf"\1 {name}")
    config.substitute(
        r"^(#.*)rom the repository root:", r"\1rom the folder that it was written from:"
    )
    config.substitute(
        r"(for fields of view beyond) the published crops", r"\1 those of the training"
    )


def _set_network(config: ConfigText, template: Template, plan: Plan) -> None:
    stride = template.stride * plan.stem // template.stem
    config.substitute(r"^(  stem_stride: )\d+$", rf"\g<1>{plan.stem}")
    config.substitute(r"^(  latent_shape: .*side // )\d+", rf"\g<1>{stride}")
    if not plan.common_frame:
        config.substitute(r"^(  latent_norm: )cases$", r"\1batch")
        config.drop_lines("  latent_shape: ")


def _set_sizes(config: ConfigText, template: Template, plan: Plan) -> None:
    comments = {
        "spatial_size": "voxels that every volume is resized to" if template.resizes else None,
        "window_size": "columns and rows of a window of a larger picture",
        "crop_size": None,
    }
    if plan.resizes and not template.resizes:
        _resize_pictures(config)
    for knob, size in plan.sizes.items():
        comment = comments[knob]
        if config.has_knob(knob):
            config.set_knob(
                knob, str(size), comment and f"{comment}; multiples of {template.stride}"
            )
    if config.has_knob("orientation"):
        config.set_knob("orientation", "RAS", "axes of the volume that the network sees")


def _resize_pictures(config: ConfigText) -> None:
    """Let a picture be seen at once, resized, where the template goes over it in windows."""
    config.drop_lines("crop_size: ")
    config.set_knob("window_size", "[]", "columns and rows that every picture is resized to")
    config.substitute(r"^window_size: ", "spatial_size: ")
    config.substitute("@(window|crop)_size", "@spatial_size")
    config.replace_components("RandSpatialCropd", [])
    for key, mode in (("image", "bilinear"), ("label", "nearest-exact")):
        resized = [
            "- _target_: Resized",
            f"  keys: {key}",
            "  spatial_size: '@spatial_size'",
            f"  mode: {mode}",
        ]
        if key == "label":  # resized for training alone
            config.replace_components("SpatialPadd", resized)
        elif not config.add_after_components(
            "ldseg_monai.data.CheckLabeld", resized
        ):  # which compares both sizes
            config.add_after_components("ldseg_monai.data.CheckImaged", resized)


def _set_classes(config: ConfigText, plan: Plan) -> None:
    config.set_knob(
        "num_classes", str(plan.num_classes), ", ".join(["background", *plan.class_names])
    )
    colors = [COLORS[index % len(COLORS)].tolist() for index in range(len(plan.class_names))]
    named = zip(plan.class_names, colors, strict=True)
    config.replace_below(
        "  label_colors:", [f"    {json.dumps(name.lower())}: {color}" for name, color in named]
    )
    config.replace_components("AsDiscreted", [], where="threshold: 0.5")
    if plan.label_values is None:
        is_class = [
            "- _target_: AsDiscreted  # labels are instance ids: whatever is not 0 is the class",
            "  keys: label",
        ]
        config.add_after_components("LoadImaged", [*is_class, "  threshold: 0.5"], where="label")
    else:
        comment = "in label files: of the background and of each class"
        config.add_knob("label_values", str(plan.label_values), comment, after="num_classes")
        config.substitute(
            r"^(\s+)(num_phantoms: '@num_phantoms')$",
            r"\1\2" + "\n" + r"\1label_values: '@label_values'",
        )
        indices = ["- _target_: ldseg_monai.data.ClassIndicesd", "  keys: label"]
        config.add_after_components(
            "LoadImaged", [*indices, "  label_values: '@label_values'"], where="label"
        )
    any_class = [
        "- _target_: Lambdad  # a picture has no room for every class: the probability that it is not background",
        "  keys: pred_mean",
        '  func: "$lambda mean: 1 - mean[:1]"',
        "  allow_missing_keys: true",
    ]
    config.replace_components("Lambdad", any_class, where="keys: pred_mean")


def _set_intensity(config: ConfigText, plan: Plan, inspection: Inspection) -> None:
    if inspection.spatial_dims == 2:
        top = plan.intensity_range[1] if plan.intensity_range else 255
        config.substitute(r"^(\s+a_max: )255$", rf"\g<1>{top:g}")
        if plan.in_channels == 1:
            config.substitute(
                r"picture\.convert\('RGB'\)",
                f"picture.convert('{'I' if inspection.deep else 'L'}')",
            )
    elif plan.intensity_range:
        comment = "HU that become -2 to 2; beyond them all is alike"
        config.add_knob(
            "intensity_range", str(list(plan.intensity_range)), comment, after="num_classes"
        )
        scaled = [
            "- _target_: ScaleIntensityRanged",
            "  keys: image",
            "  a_min: $@intensity_range[0]",
        ]
        scaled += ["  a_max: $@intensity_range[1]", "  b_min: -2", "  b_max: 2", "  clip: true"]
        config.replace_components("NormalizeIntensityd", scaled)


def _set_augmentation(
    config: ConfigText, template: Template, plan: Plan, inspection: Inspection
) -> None:
    if inspection.spatial_dims == 2 and not inspection.colored:
        for target in ("ldseg_monai.data.RandStaind", "RandFlipd", "RandRotate90d"):
            config.replace_components(target, [])
        config.substitute(r"^(\s+rotate_range: )0\.8$", r"\g<1>0.2")
    if config.has_knob("flip_probability"):
        config.set_knob("flip_axis", "0", "axis mirrored at random, left-right")
        config.set_knob("flip_probability", "0.0", "above 0 where no class is of one side")
    if plan.resizes:
        shifts = [side // 16 for side in plan.sizes["spatial_size"]]
        config.substitute(r"^(\s+translate_range: )\[.*\]$", rf"\g<1>{shifts}")
    if plan.oversample:
        crop = "crop_size" if "crop_size" in plan.sizes else "spatial_size"
        centered = [
            "- _target_: RandCropByLabelClassesd  # its center is of each class equally often"
        ]
        centered += ["  keys: [image, label]", "  label_key: label", f"  spatial_size: '@{crop}'"]
        config.replace_components(
            "RandSpatialCropd", [*centered, "  num_classes: '@num_classes'", "  warn: false"]
        )


def _set_patients(config: ConfigText, plan: Plan, known: bool) -> None:
    """Keep the cases of a patient together, where a table says which they are."""
    value, comment = "''", "table of the cases' patients; '' where each case is its own"
    if plan.patients:
        value = f"\"$os.path.join(@dataset_dir, '{plan.patients[0]}') if @dataset_dir else ''\""
        comment = "table of the cases' patients; without it, each case is its own"
    if known:
        if config.has_knob("patients"):
            config.set_knob("patients", value, comment)
    elif plan.patients:
        config.substitute(
            r"^(\s+)(split: (?:train|val|'@part'))$", r"\1\2" + "\n" + r"\1groups: '@groups'"
        )
        if config.has_knob("val_fraction"):
            config.add_knob("patients", value, comment, after="val_fraction")
            block = ["groups:  # cases of one patient train together or validate together"]
            block += ["  _target_: ldseg_monai.data.read_groups", "  path: '@patients'"]
            block += ["  case_column: name", "  group_column: patient"]
            config.substitute(r"^loss:$", "\n".join([*block, "loss:"]))
    if plan.patients:
        for key, column in zip(("case_column", "group_column"), plan.patients[1:], strict=True):
            config.substitute(rf"^(  {key}: ).*$", rf"\g<1>{json.dumps(column)}")


def _voxel_size(plan: Plan, inspection: Inspection) -> list[float]:
    extent = np.median(inspection.shapes * inspection.spacings, axis=0)
    return [
        float(side / size) for side, size in zip(extent, plan.sizes["spatial_size"], strict=True)
    ]


def _check(draft: Path, plan: Plan) -> None:
    """Read what was written, build the network, and let an image of each size through it.

    Raises:
        ValueError: if the template was written in a way that its text could not be changed.
    """
    for file in STANDALONE:
        config = ConfigParser(ConfigParser.load_config_file(str(draft / "configs" / file)))
        wanted = {
            "num_classes": plan.num_classes,
            **{k: v for k, v in plan.sizes.items() if k in config},
        }
        wanted |= {"network_def#in_channels": plan.in_channels}
        got = {key: config.get(key) for key in wanted}
        if got != wanted:
            raise InputError(
                f"{file} of the template cannot be changed: expected {wanted}, got {got}"
            )
        network = config.get_parsed_content("network_def").eval()
    for size in plan.sizes.values():
        with torch.no_grad():
            network(torch.zeros(1, plan.in_channels, *size))


def _commands(target: Path, dataset_dir: str) -> list[str]:
    """The commands that train, evaluate on the validation part, and segment."""
    configs, run, data = (
        (target / "configs").as_posix(),
        f"runs/{target.name}",
        shlex.quote(dataset_dir),
    )
    module = "python -m monai.bundle run"
    both = f"\"['{configs}/train.yaml','{configs}/evaluate.yaml']\""
    places = f"--dataset_dir {data} --output_dir"
    return [
        f"{module} training --config_file {shlex.quote(configs + '/train.yaml')} {places} {run}",
        f"{module} --config_file {both} {places} {run}/scores --model_path {run}/model.pt --part val",
        f"{module} --config_file {shlex.quote(configs + '/inference.yaml')} {places} {run}/segmentation "
        f"--model_path {run}/model.pt",
    ]


def _report(
    plan: Plan, inspection: Inspection, warnings: list[str], target: Path, dataset_dir: str
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
        "Evaluate on the cases that it did not train on:",
        evaluate,
        "",
    ]
    weights = f"runs/{target.name}/model.pt", (target / "models" / "model.pt").as_posix()
    lines += [
        "Segment:",
        segment,
        "",
        f"Copy {weights[0]} to {weights[1]}, and --model_path can be left out.",
    ]
    return "\n".join(lines) + "\n"
