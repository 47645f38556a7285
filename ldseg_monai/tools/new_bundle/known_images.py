"""Which images a new bundle's weights will know, measured on the cases that it is made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ldseg_monai.data.appearance import FEWEST, Group
from ldseg_monai.data.known import BODY_AXES, COLORS, QUANTILES
from ldseg_monai.tools.new_bundle.config_tree import components
from ldseg_monai.tools.new_bundle.inspection import Inspection, Kind
from ldseg_monai.tools.new_bundle.plan import Plan
from ldseg_monai.tools.new_bundle.template import Template

SHARE = 0.25  # of a length: how far beyond those of the cases an image may be
# What resampling to a voxel size bears: hippocampi of 0.5 to 2 mm are segmented as those of 1 mm
FINEST, COARSEST = 0.5, 2.0
TOLERANCE = 0.1  # share of a voxel's side by which those of one size differ
TILT = 30.0  # degrees that an image may always be turned by, and beyond the most of the cases
LARGEST_TILT = 54.0  # no axis is further from all of the body's
INTENSITY = 0.3  # beyond quantiles of standardized intensities, with a quarter of themselves
COLOR, DIFFERENCE = 0.25, 0.15  # of -1 to 1, beyond mean colors, and beyond their differences


def known_images(
    template: Template, plan: Plan, inspection: Inspection, data_name: str
) -> dict[str, Any]:
    """Declare them, as `ldseg_monai.data.known.KnownImages` has it.

    Args:
        template: bundle that the new one starts from.
        plan: what the new one changes.
        inspection: the data.
        data_name: of the data set.
    """
    count = len(inspection.cases)
    known: dict[str, Any] = {
        "source": f"measured on the {count} labeled cases of {data_name}, which train and "
        "validate, with margins",
        "least_size": max(1, int(inspection.shapes.min() * (1 - SHARE))),
    }
    if inspection.spatial_dims == 3:
        known |= _geometry(template, inspection)
    if inspection.is_ct:
        known["modality"] = ["CT"]
    # Gray pictures among those in color have no color to be known by
    if inspection.spatial_dims == 2 and all(case.colored for case in inspection.cases):
        measured = [case.colors for case in inspection.cases]
        margins = {name: DIFFERENCE if "over" in name else COLOR for name in COLORS}
        known["colors"] = _ranges(measured, margins, 0.0)
    else:
        ranges = []
        for channel in zip(*(case.quantiles for case in inspection.cases), strict=True):
            ranges.append(_ranges(channel, dict.fromkeys(QUANTILES, INTENSITY), SHARE))
        known["intensity"] = ranges if len(ranges) > 1 else ranges[0]
    if count >= FEWEST:
        kind = Kind(inspection.spatial_dims == 2 and inspection.colored, plan.resizes)
        numbers = np.stack([case.appearances[kind] for case in inspection.cases])
        known["appearance"] = {"labeled cases": Group.fit(numbers).declared()}
        if plan.resizes:
            known["appearance_resized"] = True
    return known


def _geometry(template: Template, inspection: Inspection) -> dict[str, Any]:
    """Of volumes, whose axes are right, anterior, superior, as `BODY_AXES` has them."""
    tilt = min(LARGEST_TILT, TILT + max(case.tilt for case in inspection.cases))
    known: dict[str, Any] = {"tilt_degrees": round(tilt)}
    spacings = inspection.spacings
    middle = np.median(spacings, axis=0)
    spacing_range = _with_margin(spacings)
    is_one_size = bool((np.abs(spacings - middle) <= TOLERANCE * middle).all())
    if is_one_size and components(template.train, "KnownSpacingd"):
        known["voxel_mm"] = [float(f"{side:.4g}") for side in middle]
        known["voxel_tolerance"] = TOLERANCE
        spacing_range = np.stack([middle * FINEST, middle * COARSEST], axis=1)
    known["spacing_mm"] = _by_axis(spacing_range)
    known["field_of_view_mm"] = _by_axis(_with_margin(inspection.shapes * spacings))
    return known


def _with_margin(lengths: NDArray) -> NDArray:
    """Ranges ``(axes, 2)`` of lengths ``(cases, axes)``."""
    low, high = lengths.min(axis=0) * (1 - SHARE), lengths.max(axis=0) * (1 + SHARE)
    return np.stack([low, high], axis=1)


def _by_axis(ranges: NDArray) -> dict[str, list[float]]:
    return {axis: _rounded(limits) for axis, limits in zip(BODY_AXES, ranges, strict=True)}


def _ranges(
    measured: Sequence[dict[str, float]], margins: dict[str, float], share: float
) -> dict[str, list[float]]:
    """The range of each figure over the cases that have it, with its margin and a share of it."""
    ranges = {}
    for name, margin in margins.items():
        values = [case[name] for case in measured if name in case]
        if values:
            low, high = min(values), max(values)
            ranges[name] = _rounded(
                [low - margin - share * abs(low), high + margin + share * abs(high)]
            )
    return ranges


def _rounded(limits: Sequence[float] | NDArray) -> list[float]:
    return [float(f"{value:.4g}") for value in limits]
