"""A config of the template as the new bundle has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml.comments import CommentedMap

from ldseg_monai.data.formats import COLOR, value_name
from ldseg_monai.evaluation.pictures import COLORS
from ldseg_monai.tools.new_bundle.config_tree import (
    add_argument,
    add_value,
    component,
    components,
    is_component,
    nodes,
    rename_key,
    replace_items,
    set_comment_above,
    set_value,
    substitute,
)
from ldseg_monai.tools.new_bundle.inspection import Inspection
from ldseg_monai.tools.new_bundle.plan import Plan
from ldseg_monai.tools.new_bundle.template import Template
from ldseg_monai.tools.new_bundle.yaml_text import dump_config, load_config

BYTE = 255  # the largest gray level that a template scales from
RESIZED = {  # what spatial_size is, by the dimensions
    2: "columns and rows that every picture is resized to",
    3: "voxels that every volume is resized to",
}
STANDALONE = ("train.yaml", "inference.yaml")  # configs that are over no other one
RESIDUAL_ENCODER = "ablations/residual_encoder.yaml"  # of a bundle that starts from ImageNet
BACKBONE_OVERLAYS = (
    RESIDUAL_ENCODER,
    "ablations/decoder_features.yaml",
    "ablations/larger_backbone.yaml",
    "baselines/efficientnet_unet.yaml",
    "baselines/efficientnet_unet_dropout.yaml",
)


def new_config(
    path: Path, template: Template, plan: Plan, inspection: Inspection, target: Path
) -> str:
    """The text of a config of a new bundle.

    Args:
        path: the template's.
        template: bundle that the new one starts from.
        plan: what it changes.
        inspection: the data.
        target: folder of the new bundle.
    """
    config = load_config(renamed(path.read_text(), template, target))
    _set_network(config, template, plan)
    if plan.resizes:
        for size in ("window_size", "crop_size"):
            substitute(config, f"@{size}", "@spatial_size")
    if path.name in STANDALONE:
        _set_sizes(config, template, plan)
        _set_classes(config, plan)
        _set_intensity(config, plan, inspection)
        if plan.require_codes and "require_codes" in config:
            set_value(config, "require_codes", True)
        _set_views(config, inspection)
    if path.name == "train.yaml":
        _set_augmentation(config, plan, inspection)
        set_value(config, "max_epochs", plan.max_epochs)
        set_value(config, "val_fraction", plan.val_fraction)
        _set_patients(config, plan)
    if "chamber" in config:  # a class of the template's
        comment = "class whose volume and ejection fraction are measured; null for none"
        set_value(config, "chamber", None, comment)
    if "voxel_size" in config:
        comment = "mm that a voxel is resampled to: that of the median volume after its resize"
        set_value(config, "voxel_size", _voxel_size(plan, inspection), comment)
    return dump_config(config)


def renamed(text: str, template: Template, target: Path) -> str:
    """A config's text with the new bundle's folder, and its name in what the head says."""
    lines = text.replace(f"bundles/{template.name}", target.as_posix()).splitlines()
    method, name = re.escape(template.method), target.name
    for index, line in enumerate(lines):
        if not line.startswith("#"):
            break
        line = re.sub(rf"^# ({method}) on .*: training\.", rf"# \1 on {name}: training.", line)
        line = re.sub(rf"\b({method} on) [^:(,.]+?(?=,| \(|:|\.)", rf"\1 {name}", line)
        line = re.sub(r"rom the repository root:", "rom the folder that it was written from:", line)
        lines[index] = line.replace("the published crops", "those of the training")
    return "\n".join(lines) + "\n"


def _set_network(config: Any, template: Template, plan: Plan) -> None:
    """Fit the network, or the part of it that an overlay replaces, to image channels and latent."""
    network = config.get("network_def", {})
    if template.starts_from_imagenet and not plan.fits_imagenet:
        if "image_encoder" in network:
            overlay = load_config((template.root / "configs" / RESIDUAL_ENCODER).read_text())
            encoder = overlay["network_def#image_encoder"]
            encoder.fa.set_flow_style()
            set_value(network, "image_encoder", encoder)
            network.ca.items.pop("image_encoder", None)  # it says where its weights come from
        config.pop("imagenet_weights", None)
        replace_items(config, "load_imagenet_weights", [])
    stride = template.stride * plan.stem // template.stem
    for node in nodes(config):
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("in_channels"), int):
            node["in_channels"] = plan.in_channels
        if "stem_stride" in node:
            node["stem_stride"] = plan.stem
        if "interpolation" in node:
            node["interpolation"] = min(node["interpolation"], plan.stem)
        if is_component(node, "Downsampling"):
            node["stride"] = stride
        if "latent_shape" in node:
            node["latent_shape"] = f"$[side // {stride} for side in @spatial_size]"
            if not plan.common_frame:
                node["_target_"] = "ldseg_monai.networks.BatchStandardization"
                del node["latent_shape"]
    if "network_def#image_encoder" in config and "embedding_channels" in config:
        config["embedding_channels"] = plan.in_channels  # of an image that is made smaller only


def _set_sizes(config: Any, template: Template, plan: Plan) -> None:
    if plan.resizes and not template.resizes:
        _resize_pictures(config)
    every = RESIZED[template.spatial_dims] if template.resizes else ""
    window = "columns and rows of a window of a larger picture"
    for knob, comment in (("spatial_size", every), ("window_size", window), ("crop_size", "")):
        if knob in plan.sizes and knob in config:
            text = f"{comment}; multiples of {template.stride}" if comment else None
            set_value(config, knob, plan.sizes[knob], text)
    if "orientation" in config:
        set_value(config, "orientation", "RAS", "axes of the volume that the network sees")
    replace_items(config, "CorrectHeaderd", [])  # of the template's data


def _resize_pictures(config: Any) -> None:
    """Let a picture be seen at once, resized, where the template goes over it in windows."""
    config.pop("crop_size", None)
    rename_key(config, "window_size", "spatial_size")
    set_value(config, "spatial_size", [], RESIZED[2])
    replace_items(config, "RandSpatialCropd", [])
    resize = "{_target_: Resized, keys: image, spatial_size: '@spatial_size', mode: bilinear}"
    add_value(config, "resize", component(resize), after="scale")
    config["image_transforms"].insert(0, "@resize")
    if "pad_transforms" in config:  # of training, which resizes the label too
        label = component(resize.replace("image", "label").replace("bilinear", "nearest-exact"))
        replace_items(config, "SpatialPadd", ["@resize", label])
        rename_key(config, "pad_transforms", "resize_transforms")
        substitute(config, "@pad_transforms", "@resize_transforms")
        transforms = config["resize_transforms"]
        set_value(config, "resize_transforms", transforms, "of training, for the label too")


def _set_classes(config: Any, plan: Plan) -> None:
    comment = ", ".join(["background", *plan.class_names])
    set_value(config, "num_classes", plan.num_classes, comment)
    if "displayable_configs" in config:
        colors = component("{}")
        colors.fa.set_block_style()
        for index, name in enumerate(plan.class_names):
            color = COLORS[index % len(COLORS)].tolist()
            add_value(colors, name.lower(), color, after=next(reversed(colors), None))
        config["displayable_configs"]["label_colors"] = colors
    load = config["load"]
    if "num_classes" in load:  # it reads labels
        if load.pop("instances", False):
            set_comment_above(config, "load", None)
        if plan.label_values is None:
            add_argument(load, "instances", True)
            comment = "Labels are instance ids: whatever is not 0 is the class (instances)"
            set_comment_above(config, "load", comment)
        else:
            add_argument(load, "label_values", "@label_values")
    if plan.label_values is not None:
        comment = "in label files: of the background and of each class"
        values = [value_name(value) if value >= COLOR else value for value in plan.label_values]
        add_value(config, "label_values", values, "num_classes", comment)
        add_argument(config["datalist"], "label_values", "@label_values")


def _set_intensity(config: Any, plan: Plan, inspection: Inspection) -> None:
    if inspection.spatial_dims == 2:
        top = plan.intensity_range[1] if plan.intensity_range else float(BYTE)
        for scaling in components(config, "ScaleIntensityRanged"):
            if scaling["a_max"] == BYTE:
                scaling["a_max"] = int(top) if top == int(top) else top
        gray = "I" if inspection.deep else "L"
        for load in components(config, "LoadImagePictured"):
            load["mode"] = "RGB" if inspection.colored else gray
        return
    for load in components(config, "LoadImageVolumed"):
        load["channels"] = plan.in_channels
    if plan.in_channels > 1:
        config["datalist"]["phantom"] = "tumor"  # which can have as many channels
        for normalize in components(config, "NormalizeIntensityd"):
            normalize["channel_wise"] = True
    if plan.intensity_range:
        comment = "HU that become -2 to 2; beyond them all is alike"
        add_value(config, "intensity_range", list(plan.intensity_range), "num_classes", comment)
        scaled = component(
            "{_target_: ScaleIntensityRanged, keys: image, a_min: '$@intensity_range[0]',"
            " a_max: '$@intensity_range[1]', b_min: -2, b_max: 2, clip: true}"
        )
        replace_items(config, "NormalizeIntensityd", [scaled])


def _set_arguments(steps: Any, name: str, value: Any) -> None:
    """Give an argument another value in every component of some steps that has it."""
    for node in nodes(steps):
        if isinstance(node, CommentedMap) and name in node:
            set_value(node, name, value)


def _set_augmentation(config: Any, plan: Plan, inspection: Inspection) -> None:
    if inspection.spatial_dims == 2 and not inspection.colored:
        for target in ("RandStaind", "RandFlipd", "RandRotate90d"):
            replace_items(config, target, [])
        _set_arguments(config["random_transforms"], "rotate_range", 0.2)
    if "flip_probability" in config:
        set_value(config, "flip_axis", 0, "axis mirrored at random, left-right")
        comment = "above 0 where no class is of one side; mirror_axes is [0] then"
        set_value(config, "flip_probability", 0.0, comment)
    if plan.resizes:
        shifts = [side // 16 for side in plan.sizes["spatial_size"]]
        _set_arguments(config["random_transforms"], "translate_range", shifts)
    if plan.oversample:
        crop = "crop_size" if "crop_size" in plan.sizes else "spatial_size"
        centered = component(
            "{_target_: RandCropByLabelClassesd, keys: [image, label], label_key: label,"
            f" spatial_size: '@{crop}', num_classes: '@num_classes', warn: false}}"
        )
        replace_items(config, "RandSpatialCropd", [centered])


def _set_views(config: Any, inspection: Inspection) -> None:
    """Leave the views out that training does not show: see `_set_augmentation`."""
    if inspection.spatial_dims == 2 and inspection.colored:
        return
    if "turned" in config:
        del config["turned"]
        for sampler in components(config, "SamplingInferer"):
            del sampler["turned"]
    if "mirror_axes" in config:
        comment = "axes of the mirror images: those along which training mirrors, none"
        set_value(config, "mirror_axes", [], comment)


def _set_patients(config: Any, plan: Plan) -> None:
    """Keep the cases of a patient together, where a table says which they are."""
    value, comment = "", "table of the cases' patients; '' where each case is its own"
    if plan.patients:
        value = f"$os.path.join(@dataset_dir, '{plan.patients[0]}') if @dataset_dir else ''"
    if "patients" in config:
        set_value(config, "patients", value, comment)
    elif plan.patients:
        add_value(config, "patients", value, "val_fraction", comment)
        groups = (
            "{_target_: ldseg_monai.data.read_groups, _mode_: callable, path: '@patients',"
            " case_column: name,"
        )
        add_value(config, "groups", component(f"{groups} group_column: patient}}"), "datalist")
        add_argument(config["split"], "groups", "@groups")
    if plan.patients:
        _, config["groups"]["case_column"], config["groups"]["group_column"] = plan.patients


def _voxel_size(plan: Plan, inspection: Inspection) -> list[float]:
    extent = np.median(inspection.shapes * inspection.spacings, axis=0)
    sides = zip(extent, plan.sizes["spatial_size"], strict=True)
    return [float(f"{length / side:.4g}") for length, side in sides]
