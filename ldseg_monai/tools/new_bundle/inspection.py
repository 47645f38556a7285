"""What a data set holds: sizes, spacing, intensities and classes, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ldseg_monai.data.checks import MAX_SHIFT, check_voxels, largest_shift
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.readers import (
    LabelPictureReader,
    check_nifti_header,
    check_pages,
    is_deep,
    unreadable,
)
from ldseg_monai.runtime.errors import InputError

VOLUME_EXTENSIONS = (".nii", ".nii.gz")
MAX_LABEL_VALUE = 65535
MAX_CLASSES = 64  # more are instance ids, or a mask that a lossy format has blurred
SAMPLED_VOXELS = 100_000  # of an image, for its percentiles


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
        percentiles: 0.5th, 50th and 99.5th of the intensity.
        foreground: intensities of up to `SAMPLED_VOXELS` voxels that are not background.
        counts: number of voxels of each label value.
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


@dataclass(frozen=True)
class Inspection:
    """A data set, as `inspect_datalist` read it.

    Attributes:
        datalist: its pairs.
        cases: what each holds, in the same order.
        warnings: what to look at before training, one sentence each.
    """

    datalist: Sequence[dict[str, str]]
    cases: list[InspectedCase]
    warnings: list[str] = field(default_factory=list)

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
        return self.spatial_dims == 3 and bool(np.median([case.low for case in self.cases]) <= -200)

    @property
    def label_values(self) -> list[int]:
        """Every label value of any case, and 0."""
        values = {0}
        for case in self.cases:
            values |= case.counts.keys()
        return sorted(values)

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


def inspect_datalist(datalist: Sequence[dict[str, str]]) -> Inspection:
    """Read every pair and check it.

    Args:
        datalist: pairs as of `paired_datalist`, all of them volumes (NIfTI) or all pictures.

    Raises:
        ValueError: volumes beside pictures, or files that no training could use: unreadable, of
            several channels, not finite, an image and a label of different size or axes, label
            values that are no classes, no foreground. Up to five are named.
    """
    kinds = set()
    for item in datalist:
        kinds |= {path.lower().endswith(VOLUME_EXTENSIONS) for path in item.values()}
    if len(kinds) > 1:
        raise InputError(
            "the data set has NIfTI volumes beside pictures: expected one kind; put them into two "
            "folders"
        )
    read = _inspect_volume if kinds.pop() else _inspect_picture
    cases, faults, warnings = [], [], []
    for item in tqdm(datalist, desc="inspected cases", leave=False):
        try:
            case, notes = read(item["image"], item["label"])
        except (ValueError, OSError) as fault:
            faults.append(str(fault))
            continue
        cases.append(case)
        warnings += notes
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


def _inspect_volume(image_path: str, label_path: str) -> tuple[InspectedCase, list[str]]:
    image, label = (_load_volume(path) for path in (image_path, label_path))
    codes = ["".join(nib.aff2axcodes(volume.affine)) for volume in (image, label)]
    if codes[0] != codes[1]:
        raise _Fault(
            f"{image_path} has axes {codes[0]} and its label {codes[1]}: expected the same; write "
            "the label with the affine of its image"
        )
    shift = largest_shift(image.affine, label.affine, image.shape)
    if shift > MAX_SHIFT:
        raise _Fault(
            f"{label_path} lies up to {shift:.3g} voxels beside its image {image_path}: expected "
            "its affine"
        )
    image, label = (nib.as_closest_canonical(volume) for volume in (image, label))
    spacing = tuple(float(step) for step in image.header.get_zooms()[:3])
    try:
        arrays = (np.asarray(image.dataobj, dtype=np.float32), np.asanyarray(label.dataobj))
    except Exception as error:  # nibabel and the decompressors raise many kinds
        raise unreadable([image_path, label_path], error) from error
    case = _inspect_arrays(image_path, label_path, *arrays, spacing)
    return case, _notes(case)


def _load_volume(path: str) -> nib.Nifti1Image:
    check_nifti_header(path)
    volume = cast(nib.Nifti1Image, nib.load(path))
    if len(volume.shape) != 3 or min(volume.shape) < 2:
        raise _Fault(
            f"{path} has shape {volume.shape}: expected a volume of three axes and one channel; "
            "choose a channel, or write single slices as PNG"
        )
    return volume


def _inspect_picture(image_path: str, label_path: str) -> tuple[InspectedCase, list[str]]:
    picture = _load_picture(image_path)
    if picture.mode not in (
        "1",
        "L",
        "LA",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "I",
        "I;16",
        "I;16B",
    ):
        raise _Fault(
            f"{image_path} is of mode {picture.mode}: expected gray of 8 or 16 bits, or colors of "
            "8 bits"
        )
    if picture.mode in ("1", "LA"):
        picture = picture.convert("L")
    elif picture.mode != "L" and not picture.mode.startswith("I"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    colored = pixels.ndim == 3 and bool((pixels != pixels[..., :1]).any())
    pixels = pixels.swapaxes(0, 1).astype(np.float32)
    label = LabelPictureReader().get_data([label_path])[0]
    case = _inspect_arrays(
        image_path, label_path, pixels, label, (1.0, 1.0), colored, is_deep(picture.mode)
    )
    return case, _notes(case)


def _load_picture(path: str) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except Exception as error:  # Pillow raises many kinds
        raise unreadable([path], error) from error
    check_pages(path)
    return picture


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
    if shape != label.shape:
        raise _Fault(
            f"{image_path} has size {list(shape)} and its label {list(label.shape)}: expected the "
            "same"
        )
    check_voxels(image_path, torch.from_numpy(np.ascontiguousarray(image)))
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
    )


def _label_counts(path: str, label: NDArray) -> dict[int, int]:
    """Number of voxels of each value."""
    whole = np.rint(label).astype(np.int64) if np.isfinite(label).all() else None
    if whole is None or (label != whole).any():
        raise _Fault(
            f"{path} has values that are not whole numbers: expected classes; was it resampled by "
            "interpolation? use the nearest neighbor"
        )
    if whole.min() < 0 or whole.max() > MAX_LABEL_VALUE:
        raise _Fault(
            f"{path} has values {whole.min()} to {whole.max()}: expected classes, 0 for the "
            "background"
        )
    counts = np.bincount(whole.ravel())
    return {int(value): int(counts[value]) for value in counts.nonzero()[0]}


def _notes(case: InspectedCase) -> list[str]:
    return [] if any(case.counts.keys() - {0}) else [f"{case.name}: the label is all background"]


def _warnings_of_all(inspection: Inspection) -> list[str]:
    """What no case shows alone."""
    warnings = []
    if len(inspection.cases) < 10:
        warnings.append(
            f"{len(inspection.cases)} cases are few: expect scores to vary with the split"
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
