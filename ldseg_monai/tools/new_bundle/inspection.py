"""What a data set holds: sizes, spacing, intensities and classes, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import ensure_tuple
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
)
from numpy.typing import NDArray
from tqdm import tqdm

from ldseg_monai.data.appearance import FEWEST, appearance, resized
from ldseg_monai.data.channels import channels_text, names_of_files
from ldseg_monai.data.checks import check_channels, check_voxels, require_one_place
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.formats import (
    COLOR,
    LabelReading,
    Volume,
    in_mode,
    is_deep,
    is_volume,
    load_picture,
    read_voxels,
    value_counts,
    value_names,
)
from ldseg_monai.data.known import standardized_quantiles, tilt_of, tissue_colors
from ldseg_monai.data.readers import read_channels
from ldseg_monai.runtime.errors import InputError, counted
from ldseg_monai.tools.new_bundle.instances import are_instances, values_in_one_piece

MAX_LABEL_VALUE = 65535
MAX_CLASSES = 64  # more are instance ids, or a mask that a lossy format has blurred
SAMPLED_VOXELS = 100_000  # of an image, for its percentiles
PADDING_SHARE = 0.01  # of the voxels: the least of what is padding
PADDING_DISTANCE = 5  # of padding from all other values, by their range: the least


class Kind(NamedTuple):
    """A way in which a network may see an image."""

    colored: bool
    resized: bool


class Padding(NamedTuple):
    """One value far from all others, such as that of voxels beyond what was scanned.

    Attributes:
        value: of these voxels.
        share: of all voxels.
        low, high: smallest and largest intensity of the others.
    """

    value: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class InspectedCase:
    """One pair, as `inspect_datalist` read it.

    Attributes:
        name: name of the case.
        shape: voxels along each axis: of a volume right-left, posterior-anterior, inferior-superior
            (RAS); of a picture columns, rows.
        spacing: mm between voxels along these axes; 1 for a picture, whose file does not say.
        colored: whether a picture has colors.
        deep: whether a picture has more than 8 bits a pixel.
        low, high: smallest and largest intensity.
        padding: of a gray image, a value that no tissue has, as of `padding_of`.
        percentiles: 0.5th, 50th and 99.5th of the intensity.
        foreground: intensities of up to `SAMPLED_VOXELS` voxels that are not background.
        counts: number of voxels of each label value, as `ldseg_monai.data.formats` has it.
        single: number of label values that are one piece, as of `values_in_one_piece`.
        quantiles: of the standardized intensities of each channel, as of `standardized_quantiles`;
            of a picture, of all of them together.
        colors: of a picture, as of `tissue_colors`.
        appearances: as of `ldseg_monai.data.appearance`, for each way to see the image; a picture
            in colors and in gray.
        tilt: of a volume, in degrees, as of `tilt_of`.
        channels: of a volume.
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    colored: bool
    deep: bool
    low: float
    high: float
    percentiles: tuple[float, float, float]
    foreground: NDArray[np.float32]
    counts: dict[int, int]
    single: int = 0
    quantiles: list[dict[str, float]] = field(default_factory=list)
    colors: dict[str, float] = field(default_factory=dict)
    appearances: dict[Kind, NDArray[np.float64]] = field(default_factory=dict)
    tilt: float = 0.0
    channels: int = 1
    padding: Padding | None = None


@dataclass(frozen=True)
class Inspection:
    """A data set, as `inspect_datalist` read it.

    Attributes:
        datalist: its pairs.
        cases: what each holds, in the same order.
        warnings: what to look at before training, one sentence each.
    """

    datalist: Sequence[dict[str, Any]]
    cases: list[InspectedCase]
    warnings: list[str] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """Channels of a volume, or 3 of pictures in colors and 1 of gray ones."""
        return 3 if self.colored else self.cases[0].channels

    @property
    def channel_names(self) -> list[str]:
        """Names of a volume's channels, by the data set or by the names of files."""
        if self.channels == 1:
            return ["image"]
        named: list[str] = getattr(self.datalist, "channel_names", [])
        named = named or names_of_files(item["image"] for item in self.datalist)
        if len(set(named)) == self.channels:
            return named
        return [f"channel {number}" for number in range(self.channels)]

    @property
    def spatial_dims(self) -> int:
        """3 for volumes, 2 for pictures."""
        return len(self.cases[0].shape)

    @property
    def colored(self) -> bool:
        """Whether a picture has colors."""
        return any(case.colored for case in self.cases)

    @property
    def deep(self) -> bool:
        """Whether a picture has more than 8 bits a pixel."""
        return any(case.deep for case in self.cases)

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Size of each case, `(cases, axes)`."""
        return np.array([case.shape for case in self.cases])

    @property
    def spacings(self) -> NDArray[np.float64]:
        """Spacing of each case in mm, `(cases, axes)`."""
        return np.array([case.spacing for case in self.cases])

    @property
    def is_ct(self) -> bool:
        """Whether most images have the negative numbers of air in Hounsfield units."""
        if self.spatial_dims == 2 or self.channels > 1:
            return False
        lowest = [case.padding.low if case.padding else case.low for case in self.cases]
        return bool(np.median(lowest) <= -200)

    @property
    def label_values(self) -> list[int]:
        """Every label value of any case, and 0."""
        values = {0}
        for case in self.cases:
            values |= case.counts.keys()
        return sorted(values)

    @property
    def has_instances(self) -> bool:
        """Whether the label values look like instance ids."""
        values = [case.counts.keys() - {0} for case in self.cases]
        return are_instances(values, [case.single for case in self.cases])

    def share(self, value: int) -> float:
        """Mean over the cases of the share of voxels with a label value."""
        return float(
            np.mean([case.counts.get(value, 0) / sum(case.counts.values()) for case in self.cases])
        )

    def cases_with(self, value: int) -> list[str]:
        """Names of the cases with a label value."""
        return [case.name for case in self.cases if case.counts.get(value)]

    def table(self) -> list[tuple[str, str]]:
        """Number, sizes, spacing and intensities: what, and how much, for a person to read."""
        low, middle, high = np.median([case.percentiles for case in self.cases], axis=0)
        rows = [
            ("cases", str(len(self.cases))),
            ("size (min / median / max)", _three(self.shapes, "{:.0f}")),
        ]
        if self.spatial_dims == 3:
            rows.append(("spacing in mm", _three(self.spacings, "{:.3g}")))
            if self.channels > 1:
                rows.append(("channels", ", ".join(self.channel_names)))
        else:
            rows.append(("channels", "red, green, blue" if self.colored else "gray"))
        lowest, highest = (
            min(case.low for case in self.cases),
            max(case.high for case in self.cases),
        )
        rows.append(("intensity", f"{lowest:g} to {highest:g}"))
        rows.append(
            (
                "percentiles 0.5 / 50 / 99.5",
                f"{low:.4g} / {middle:.4g} / {high:.4g} (medians of the cases)",
            )
        )
        return rows


def inspect_datalist(
    datalist: Sequence[dict[str, Any]],
    reading: LabelReading | None = None,
    require_codes: bool = False,
) -> Inspection:
    """Read every pair and check it.

    Args:
        datalist: pairs as of `paired_datalist`, all of them volumes or all pictures.
        reading: of the labels; None where nothing is known of them.
        require_codes: whether a NIfTI without a form code is an error.

    Raises:
        ValueError: volumes beside pictures, or files that no training could use: unreadable, of
            another number of channels than the first, not finite, channels, an image and a label of
            different size or axes, label values that are no classes, no foreground. Up to five are
            named.
    """
    kinds = set()
    for item in datalist:
        for paths in item.values():
            kinds |= {is_volume(path) for path in ensure_tuple(paths)}
    if len(kinds) > 1:
        raise InputError(
            "the data set has volumes beside pictures: expected one kind; put them into two folders"
        )
    volumes = partial(_inspect_volume, require_codes=require_codes)
    read = volumes if kinds.pop() else _inspect_picture
    reading = reading or LabelReading()
    cases, faults, warnings = [], [], []
    for item in tqdm(datalist, desc="inspected cases", leave=False):
        try:
            case, notes = read(item["image"], item["label"], reading)
        except (ValueError, OSError) as fault:
            faults.append(str(fault))
            continue
        cases.append(case)
        warnings += notes
        if case.channels != cases[0].channels:
            faults.append(
                f"{case.name} has {channels_text(case.channels)} and {cases[0].name} "
                f"{channels_text(cases[0].channels)}: expected as many of every case; add the "
                "missing files, or leave the case out"
            )
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise InputError("; ".join(faults[:5]) + more)
    inspection = Inspection(datalist, cases, warnings)
    if inspection.label_values == [0]:
        raise InputError(f"every label of the {len(cases)} cases is 0: expected classes from 1 on")
    warnings += _warnings_of_all(inspection)
    return inspection


class _Fault(ValueError):
    """What makes a pair unusable."""


def _inspect_volume(
    image_paths: str | list[str], label_path: str, reading: LabelReading, require_codes: bool
) -> tuple[InspectedCase, list[str]]:
    files = [os.fspath(path) for path in ensure_tuple(image_paths)]
    image_path = files[0]
    read = partial(read_voxels, require_codes=require_codes)
    image, of_image = read_channels(files, read)
    label, of_label = reading.volume(label_path, require_codes)
    wanted = {"image": "a volume of three axes, and perhaps one of channels"}
    wanted["label"] = "a volume of three axes, with a class in each voxel"
    for key, path, shape in (
        ("image", image_path, image.shape),
        ("label", label_path, of_label.shape),
    ):
        axes = (3, 4) if key == "image" else (3,)
        if len(shape) == 3 and min(shape) < 2:
            raise _Fault(
                f"{path} has shape {tuple(shape)}, one slice: expected several; write single "
                "slices as PNG, and take a bundle of pictures"
            )
        if len(shape) not in axes or min(shape) < 2:
            raise _Fault(
                f"{path} has shape {tuple(shape)}: expected {wanted[key]}; correct it, or write "
                "single slices as PNG"
            )
    places = [(volume.shape[:3], volume.readings) for volume in (of_image, of_label)]
    require_one_place(image_path, *places[0], label_path, *places[1])
    image, affine = in_ras(image.astype(np.float32), of_image)
    label, _ = in_ras(label, of_image)
    spacing = tuple(float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    case = _inspect_arrays(image_path, label_path, image, label, spacing)
    channels = image.shape[3] if image.ndim == 4 else 1
    first = np.moveaxis(image, 3, 0) if channels > 1 else image.reshape(1, *image.shape[:3])
    looks = _appearances({False: torch.from_numpy(np.ascontiguousarray(first))})
    case = replace(case, name=case_name(image_paths), channels=channels, appearances=looks)
    return replace(case, tilt=tilt_of(affine[:3, :3] / np.array(spacing))), _notes(case)


def in_ras(voxels: NDArray, volume: Volume) -> tuple[NDArray, NDArray]:
    """Voxels and affine, turned so that the axes go to the right, anterior and superior."""
    orientation = io_orientation(volume.affine)
    affine = volume.affine @ inv_ornt_aff(orientation, volume.shape[:3])
    return apply_orientation(voxels, orientation), affine


def _inspect_picture(
    image_path: str, label_path: str, reading: LabelReading
) -> tuple[InspectedCase, list[str]]:
    picture = load_picture(image_path)
    deep = is_deep(picture.mode)
    mode = "RGB"
    if deep:
        mode = "I"
    elif picture.mode in ("1", "L", "LA"):
        mode = "L"
    pixels = np.asarray(in_mode(image_path, picture, mode))
    colored = pixels.ndim == 3 and bool((pixels != pixels[..., :1]).any())
    pixels = pixels.swapaxes(0, 1).astype(np.float32)
    label = reading.picture(label_path)
    place = [np.eye(4)]
    require_one_place(image_path, pixels.shape[:2], place, label_path, label.shape, place)
    case = _inspect_arrays(image_path, label_path, pixels, label, (1.0, 1.0), colored, deep)
    colors = np.broadcast_to(np.atleast_3d(pixels), (*pixels.shape[:2], 3)).transpose(2, 0, 1)
    color = torch.tensor(colors)
    looks = _appearances({True: color, False: color.mean(0, keepdim=True)})
    case = replace(case, colors=tissue_colors(color), appearances=looks)
    return case, _notes(case)


def _appearances(images: dict[bool, torch.Tensor]) -> dict[Kind, NDArray[np.float64]]:
    """Of an image ``(C, *spatial)`` by whether it is in colors, at its own size and resized."""
    looks = {Kind(colored, False): appearance(image) for colored, image in images.items()}
    for colored, image in images.items():
        looks[Kind(colored, True)] = appearance(resized(image))
    return looks


def _inspect_arrays(
    image_path: str,
    label_path: str,
    image: NDArray[np.float32],
    label: NDArray,
    spacing: tuple[float, ...],
    colored: bool = False,
    deep: bool = False,
) -> InspectedCase:
    shape = image.shape[: label.ndim]
    voxels = torch.from_numpy(np.ascontiguousarray(image))
    parts = [voxels]  # of a picture, whose colors may be the same everywhere
    if label.ndim == 3:
        parts = [voxels] if voxels.ndim == 3 else [*voxels.unbind(-1)]
        check_channels(image_path, torch.stack(parts))
    else:
        check_voxels(image_path, voxels)
    counts = _label_counts(label_path, label)
    every = max(1, image.size // SAMPLED_VOXELS)
    low, middle, high = (
        float(value) for value in np.percentile(image.ravel()[::every], (0.5, 50, 99.5))
    )
    foreground = image[label > 0].ravel()
    return InspectedCase(
        name=case_name(image_path),
        shape=shape,
        spacing=spacing,
        colored=colored,
        deep=deep,
        low=float(image.min()),
        high=float(image.max()),
        percentiles=(low, middle, high),
        foreground=foreground[
            :: -(-foreground.size // SAMPLED_VOXELS) or 1
        ].copy(),  # a view would keep all
        counts=counts,
        padding=padding_of(image) if image.ndim == label.ndim else None,
        quantiles=[standardized_quantiles(part) for part in parts],
        single=values_in_one_piece(label),
    )


def padding_of(image: NDArray[np.float32]) -> Padding | None:
    """The lowest or highest value of an image, if it is often there and far from all others.

    Far is several times the range of the others, so that the mean and the SD are those of this
    value.
    """
    for end in (image.min(), image.max()):
        others = image[image != end]
        share = 1 - others.size / image.size
        if not others.size or share < PADDING_SHARE:
            continue
        low, high = float(others.min()), float(others.max())
        if max(low - end, end - high) > PADDING_DISTANCE * (high - low) > 0:
            return Padding(float(end), share, low, high)
    return None


def _label_counts(path: str, label: NDArray[np.int32]) -> dict[int, int]:
    """Number of voxels of each value."""
    if label.min() < 0 or MAX_LABEL_VALUE < label.max() < COLOR:
        raise _Fault(
            f"{path} has values {label.min()} to {label.max()}: expected classes from 0, the "
            f"background, to {MAX_LABEL_VALUE} at most; number them anew"
        )
    return value_counts(label)


def _notes(case: InspectedCase) -> list[str]:
    return [] if any(case.counts.keys() - {0}) else [f"{case.name}: the label is all background"]


def _padding_note(cases: Sequence[InspectedCase]) -> list[str]:
    """A sentence on the cases with a value that no tissue has."""
    padded = [(case.name, case.padding) for case in cases if case.padding is not None]
    if not padded:
        return []
    name, found = padded[0]
    return [
        f"{found.share:.0%} of the voxels of {name} are {found.value:g}, and all others "
        f"{found.low:g} to {found.high:g}; so in {counted(len(padded), 'case')}: is it padding or "
        "saturation? Other voxels hardly differ beside it; give it the value of the background"
    ]


def _warnings_of_all(inspection: Inspection) -> list[str]:
    """What no case shows alone."""
    warnings = []
    if not inspection.cases_with(0):
        values = value_names(value for value in inspection.label_values if value)
        warnings.append(
            f"no label has the value 0, the background, but {values}: is the background another?"
        )
    warnings += _padding_note(inspection.cases)
    if len(inspection.cases) < 10:
        warnings.append(
            f"{len(inspection.cases)} cases are few: expect scores to vary with the split"
        )
    if len(inspection.cases) < FEWEST:
        warnings.append(
            f"how the images look is measured on {FEWEST} cases or more: until then an image that "
            "looks unlike these is not told"
        )
    if inspection.spatial_dims == 3:
        smallest, largest = inspection.spacings.min(axis=0), inspection.spacings.max(axis=0)
        if (largest > 1.5 * smallest).any():
            steps = " to ".join(_times(step, "{:.3g}") for step in (smallest, largest))
            warnings.append(f"the spacing differs between cases, from {steps} mm")
    return warnings


def _three(values: NDArray, form: str) -> str:
    return " / ".join(
        _times(row, form) for row in (values.min(0), np.median(values, axis=0), values.max(0))
    )


def _times(row: NDArray, form: str) -> str:
    return " x ".join(form.format(value) for value in row)
