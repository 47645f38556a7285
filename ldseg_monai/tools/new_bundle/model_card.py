"""What a new bundle says of itself: metadata, model card and the terms of its data."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldseg_monai.tools.new_bundle.inspection import Inspection
from ldseg_monai.tools.new_bundle.known_images import known_images
from ldseg_monai.tools.new_bundle.plan import Plan
from ldseg_monai.tools.new_bundle.template import Template

VERSION = "0.1.0"
CHANGE = "written by `ldseg new-bundle` from NAME, not trained"


def new_metadata(
    old: dict[str, Any],
    template: Template,
    plan: Plan,
    inspection: Inspection,
    name: str,
    data_name: str,
) -> dict[str, Any]:
    """The template's `metadata.json` with all that was said of its organ and its data replaced.

    Args:
        old: content of the template's.
        template: bundle that the new one starts from.
        plan: what it changes.
        inspection: the data.
        name: the new bundle's.
        data_name: of the data set.
    """
    classes = ["background", *plan.class_names]
    described = ", ".join(f"{index} {label}" for index, label in enumerate(classes))
    modality = "CT" if inspection.is_ct else "not recorded"
    shape = plan.sizes.get("spatial_size") or plan.sizes["window_size"]
    tensors = copy.deepcopy(old["network_data_format"])
    kind = "hounsfield" if inspection.is_ct else "magnitude"
    channels = {str(number): name for number, name in enumerate(inspection.channel_names)}
    if inspection.colored:
        kind, channels = "rgb", {"0": "red", "1": "green", "2": "blue"}
    tensors["inputs"]["image"] |= {
        "format": kind,
        "modality": modality,
        "num_channels": plan.in_channels,
        "spatial_shape": shape,
        "value_range": _value_range(plan, inspection),
        "channel_def": channels,
    }
    tensors["outputs"]["pred"] |= {
        "num_channels": len(classes),
        "spatial_shape": shape,
        "channel_def": {str(index): label for index, label in enumerate(classes)},
    }
    tensors["outputs"]["pred"].pop("channel_codes", None)
    of_its_data = ("eval_metrics", "wrong_headers")
    kept = {key: value for key, value in old.items() if key not in of_its_data}
    return kept | {
        "version": VERSION,
        "changelog": {VERSION: CHANGE.replace("NAME", template.name)},
        "name": f"{template.method} {name}",
        "task": f"Segmentation of {' and '.join(plan.class_names)}",
        "description": f"{template.method}, a diffusion model that segments in a few steps and "
        "says how sure it is",
        "data_source": f"{len(inspection.cases)} cases of {data_name}",
        "data_type": "nifti" if inspection.spatial_dims == 3 else "png",
        "image_classes": f"{_channels(inspection)}, {_choice(plan, 'intensity')}",
        "label_classes": described,
        "pred_classes": described,
        "network_data_format": tensors,
        "known_images": known_images(template, plan, inspection, data_name),
    }


def new_card(
    template: Template, plan: Plan, inspection: Inspection, data_name: str, commands: Sequence[str]
) -> str:
    """A `docs/README.md` under the model zoo's headings.

    Args:
        template: bundle that the new one starts from.
        plan: what it changes.
        inspection: the data.
        data_name: of the data set.
        commands: that train, evaluate and segment.
    """
    data = "\n".join(f"| {what} | {value} |" for what, value in inspection.table())
    choices = "\n".join(
        f"| {choice.what} | {choice.value} | {choice.why} |" for choice in plan.choices
    )
    classes = ", ".join(
        f"{index} {label}" for index, label in enumerate(["background", *plan.class_names])
    )
    return f"""# {template.method} for {", ".join(plan.class_names)}

### **Authors**
Written by `ldseg new-bundle`, from the bundle {template.name} of the ldseg_monai authors

### **Tags**
Segmentation, {", ".join(plan.class_names)}, Diffusion, Uncertainty

## **Model Description**
{template.method} as in the bundle {template.name}, whose model card describes the method and where
it departs from the paper. What was chosen for this data set:

| what | value | why |
|---|---|---|
{choices}

## **Data**
{data_name}, as `ldseg new-bundle` found it; classes: {classes}.
Terms: [data_license.txt](data_license.txt).

| | |
|---|---|
{data}

#### **Preprocessing**
Size: {_choice(plan, "size")}. Intensity: {_choice(plan, "intensity")}.

## **Performance**
Not trained, so not measured. The second command below scores the cases that the first one did not
train on.

## **Additional Usage Steps**
Train (a run that was stopped goes on by the same command), score, and segment:

```
{chr(10).join(commands)}
```

## **System Configuration**
Written for ldseg_monai with the versions in `configs/metadata.json`.

## **Limitations**
Research only; not for diagnosis. The sizes follow from the data above. Images of another field of
view, resolution or intensity are refused, by `known_images` in `configs/metadata.json`, unless
`--force True` is given: they need a bundle of their own.

{_citation(template.root)}"""


UNKNOWN_TERMS = "`ldseg new-bundle` cannot know: whoever shares the weights states them here."


def new_data_license(data_name: str) -> str:
    """What can be said of the terms of data that only its user knows."""
    return (
        f"Weights that are trained on {data_name} follow the terms of its owners, which\n"
        f"{UNKNOWN_TERMS}\n\n"
        "The phantoms that the bundle generates where no data set is given are free of any third\n"
        "party's rights.\n"
    )


def _value_range(plan: Plan, inspection: Inspection) -> list[int]:
    if inspection.spatial_dims == 2:
        return [-1, 1]
    return [-2, 2] if plan.intensity_range else [-5, 15]


def _channels(inspection: Inspection) -> str:
    if inspection.colored:
        return "RGB"
    if inspection.channels == 1:
        return "single channel"
    return f"{inspection.channels} channels ({', '.join(inspection.channel_names)})"


def _choice(plan: Plan, what: str) -> str:
    return next(choice.value for choice in plan.choices if choice.what == what)


def _citation(root: Path) -> str:
    """The template's sections on citation and references, with those on the method alone."""
    path = root / "docs" / "README.md"
    found = re.search(
        r"^## \*\*Citation Info\*\*.*?\[1\].*?(?=\n\n|\Z)",
        path.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return found[0].rstrip() + "\n" if found else "## **Citation Info**\n\n## **References**\n"
