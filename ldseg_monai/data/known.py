"""Whether an image is one of those that a bundle's weights know, by what its metadata declare.

A network segments whatever it gets. ``known_images`` in ``metadata.json`` says of which images its
answer means something; what a bundle does not declare there is not asked.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys, ensure_tuple
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from torch.nn import functional

from ldseg_monai.data.appearance import Group, appearance, nearest, resized
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.dicom.clips import MODALITY
from ldseg_monai.data.dicom.reader import SERIES_UID
from ldseg_monai.data.dicom.series import read_dicom, series_files
from ldseg_monai.data.transforms import VoxelSpacingd
from ldseg_monai.data.wrong_headers import fitting_header, read_wrong_headers
from ldseg_monai.runtime.errors import InputError

logger = logging.getLogger("ldseg_monai.data")

SAMPLE = 200_000  # voxels that are looked at
WHITE = 0.75  # of -1 to 1: glass, where each channel is above it
TISSUE = 0.01  # least share of a picture that is not glass, else its colors say nothing
OLDER = "appearance_limit"  # one for all groups, whose numbers were others
QUANTILES = {"low": 0.01, "middle": 0.5, "high": 0.99}
BODY_AXES = ("left_right", "front_back", "up_down")  # as RAS has them
Ranges = Sequence[float] | Mapping[str, Sequence[float]]
COLORS = ("red", "green", "blue", "red_over_green", "blue_over_green")
# Names that an entry with a range for each of several things may have
NAMED = {
    "spacing_mm": BODY_AXES,
    "field_of_view_mm": BODY_AXES,
    "intensity": tuple(QUANTILES),
    "colors": COLORS,
}


class KnownImages(NamedTuple):
    """What ``known_images`` of a bundle's metadata may declare. Ranges are ``[least, most]``.

    Attributes:
        source: where the ranges come from, for a person.
        modality: DICOM's codes, such as ``MR``; asked of DICOM images.
        body_part: words of which DICOM's BodyPartExamined has one, where it says anything.
        stain: of a picture, for a person; `colors` is what is asked.
        voxel_mm: voxel size that the weights know, which other sizes are resampled to.
        voxel_tolerance: share of `voxel_mm` by which a size may differ and is not resampled.
        microns_per_pixel: resolution that the weights know, at which whole-slide images are read;
            None for that of their own level 0.
        spacing_mm: range of each side of a voxel, before it is resampled; or a range for each of
            ``left_right``, ``front_back`` and ``up_down``, the nearest axes of the body.
        field_of_view_mm: range of each side of the volume, or ranges as of ``spacing_mm``.
        least_size: voxels or pixels along each axis.
        tilt_degrees: largest angle between an axis of the voxels and the nearest one of the body.
        intensity: ranges of quantiles (``low`` 1%, ``middle`` 50%, ``high`` 99%) after the mean is
            0 and the standard deviation 1; of several channels a list, with the ranges of each.
        colors: ranges of the tissue's mean color and of its differences, for -1 to 1: ``red``,
            ``green``, ``blue``, ``red_over_green``, ``blue_over_green``.
        appearance: groups of images that the weights know, by name, each as
            `ldseg_monai.data.appearance.Group` declares it. An image beyond the limits of all is
            marked, and not refused.
        appearance_resized: whether an image is resized before it is compared with them, as where
            the network sees every image at one size.
    """

    source: str = ""
    modality: Sequence[str] = ()
    body_part: Sequence[str] = ()
    stain: str = ""
    voxel_mm: Sequence[float] | None = None
    voxel_tolerance: float = 0.1
    microns_per_pixel: float | None = None
    spacing_mm: Ranges | None = None
    field_of_view_mm: Ranges | None = None
    least_size: int = 1
    tilt_degrees: float | None = None
    intensity: Mapping[str, Sequence[float]] | Sequence[Mapping[str, Sequence[float]]] = {}
    colors: Mapping[str, Sequence[float]] = {}
    appearance: Mapping[str, Group] = {}
    appearance_resized: bool = False


def read_known(metadata: str) -> KnownImages:
    """Read what a bundle declares.

    Args:
        metadata: its ``metadata.json``; where there is none, nothing is declared.

    Raises:
        InputError: for an entry that is none of `KnownImages`, or has a range of what there is not.
            An appearance of older versions is left out, which is told once.
    """
    if not os.path.isfile(metadata):
        return KnownImages()
    with open(metadata, encoding="utf-8") as file:
        declared = json.load(file).get("known_images", {})
    if OLDER in declared:
        _tell_older(metadata)
        declared = {key: declared[key] for key in declared.keys() - {OLDER, "appearance"}}
    unknown = ", ".join(sorted(declared.keys() - set(KnownImages._fields)))
    if unknown:
        raise InputError(
            f"known_images of {metadata} has {unknown}: expected only "
            f"{', '.join(KnownImages._fields)}"
        )
    groups = {
        name: Group.read(group, f"appearance of {name} in {metadata}")
        for name, group in declared.get("appearance", {}).items()
    }
    known = KnownImages(**{**declared, "appearance": groups})
    for name, entries in NAMED.items():
        given = getattr(known, name)
        several = given if isinstance(given, (list, tuple)) else [given]
        mappings = [one for one in several if isinstance(one, Mapping)]
        others = sorted({key for one in mappings for key in one} - set(entries))
        if others:
            raise InputError(
                f"known_images of {metadata} has {name} of {', '.join(others)}: expected only "
                f"{', '.join(entries)}"
            )
    return known


@cache
def _tell_older(metadata: str) -> None:
    logger.warning(
        "known_images of %s has an appearance of an older version, so it is not told which images "
        "look unlike: `ldseg new-bundle` on the same cases writes known_images anew, to copy them",
        metadata,
    )


class CheckKnownImaged(MapTransform):
    """Refuse an image that the weights do not know, right after it is read.

    Args:
        keys: keys of images, ``(C, *spatial)``: volumes, or pictures of 0 to 255.
        metadata: the bundle's ``metadata.json``.
        force: whether such an image is segmented all the same. Its metadata then say under
            ``outside_of_known`` what is wrong, which the results repeat.
        allow_missing_keys: whether a missing key is passed over.
        frames: whether the last axis is time: pictures that are judged together.
        any_field_of_view: whether a volume may be of any size, as where windows are taken of it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        metadata: str,
        force: bool = False,
        allow_missing_keys: bool = False,
        frames: bool = False,
        any_field_of_view: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.frames = frames
        self.known = read_known(metadata)
        if any_field_of_view:
            self.known = self.known._replace(field_of_view_mm=None)
        self.wrong_headers = read_wrong_headers(metadata)
        self.force = force

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data``, with a mark in the metadata of an image that is none of the known.

        Raises:
            ValueError: for such an image, unless ``force``.
        """
        for key in self.key_iterator(dict(data)):
            image = MetaTensor(data[key])
            require_file_of(image)
            reasons = list(self.reasons(image, image.shape[1:]))
            self.judge(data[key], reasons)
            if not reasons:
                self._mark_unlike(image, data[key])
        return dict(data)

    def unlike(self, image: MetaTensor) -> str:
        """Say that an image looks unlike those that the weights know; "" if it does not.

        Args:
            image: ``(C, *spatial)``.
        """
        if not self.known.appearance:
            return ""
        far, limit = nearest(self.looks(image), self.known.appearance)
        if far <= limit:
            return ""
        return f"it looks unlike them: a distance of {far:.3g}, where up to {limit:.3g} is usual"

    def looks(self, image: MetaTensor) -> NDArray[np.float64]:
        """Numbers of `appearance` of an image, at the scale at which the network sees it.

        Args:
            image: ``(C, *spatial)``.
        """
        values = image.as_tensor()
        if self.frames:
            values = values[..., values.shape[-1] // 2]  # one stands for all
        if self.known.appearance_resized:
            return appearance(resized(values))
        if self.known.voxel_mm and image.ndim == 4 and not self.frames:
            values = self._of_known_spacing(image)
        return appearance(values)

    def _of_known_spacing(self, image: MetaTensor) -> torch.Tensor:
        """A volume with voxels as `KnownSpacingd` makes them, its axes in their order."""
        spacing, axes = _sides(self._affine(image, image.shape[1:]))
        known = dict(zip(BODY_AXES, ensure_tuple(self.known.voxel_mm), strict=True))
        shares = np.array([side / known[axis] for side, axis in zip(spacing, axes, strict=True)])
        if (np.abs(shares - 1) <= self.known.voxel_tolerance).all():
            return image.as_tensor()
        size = [max(1, round(side)) for side in np.array(image.shape[1:]) * shares]
        values = image.as_tensor().float()[None]
        return functional.interpolate(values, size=size, mode="trilinear")[0]

    def _mark_unlike(self, image: MetaTensor, marked: Any) -> None:
        told = self.unlike(image)
        if told:
            path = marked.meta.get("filename_or_obj", "the image")
            logger.warning("%s may be none of the images that the weights know: %s", path, told)
            marked.meta[OUTSIDE] = told

    def judge(self, image: Any, reasons: Sequence[str]) -> None:
        """Refuse or mark an image, if there is a reason.

        Args:
            image: with its metadata.
            reasons: why the weights do not know it.

        Raises:
            ValueError: if there are any, unless ``force``.
        """
        if not reasons:
            return
        path = image.meta.get("filename_or_obj", "the image")
        told = "; ".join(reasons)
        if not self.force:
            raise InputError(
                f"{path} is none of the images that the weights know: {told}; use a bundle for "
                "such images, or --force True to go on, which marks the results"
            )
        logger.warning("%s is none of the images that the weights know: %s", path, told)
        image.meta[OUTSIDE] = told

    def reasons(self, image: MetaTensor, size: Sequence[int]) -> Iterator[str]:
        """Say what of an image lies outside.

        Args:
            image: ``(C, *spatial)``, or a part of it.
            size: of all of it.
        """
        known = self.known
        size = size[:-1] if self.frames else size
        yield from self._dicom_reasons(image.meta)
        if min(size) < known.least_size:
            yield f"its size is {_by(size)}, expected {known.least_size} or more along each axis"
        if image.ndim == 4 and not self.frames:
            affine = self._affine(image, size)
            spacing, axes = _sides(affine)
            yield from _side_reasons("its voxels are", spacing, axes, known.spacing_mm)
            sides = spacing * np.array(size)
            yield from _side_reasons("its field of view is", sides, axes, known.field_of_view_mm)
            yield from self._tilt_reasons(affine[:3, :3] / spacing)
        yield from self._intensity_reasons(image)
        yield from self._color_reasons(image)

    def _affine(self, image: MetaTensor, size: Sequence[int]) -> np.ndarray:
        """That of a volume, corrected where its header is one of the bundle's wrong ones."""
        affine = np.asarray(image.affine, dtype=float)
        header = fitting_header(self.wrong_headers, affine, size)
        return affine if header is None else header.corrected(affine)

    def _dicom_reasons(self, meta: Mapping[str, Any]) -> Iterator[str]:
        is_dicom = SERIES_UID in meta or MODALITY in meta
        if not is_dicom or not (self.known.modality or self.known.body_part):
            return
        modality, body_part = meta.get(MODALITY, ""), ""
        if SERIES_UID in meta:
            folder = str(ensure_tuple(meta["filename_or_obj"])[0])
            modality, body_part = _dicom_kind(folder, meta[SERIES_UID])
        if self.known.modality and modality not in self.known.modality:
            expected = " or ".join(self.known.modality)
            yield f"its modality is {modality or 'missing'}, expected {expected}"
        words = self.known.body_part
        if words and body_part and not any(word in body_part.upper() for word in words):
            yield f"its body part is {body_part}, expected {' or '.join(words)}"

    def _tilt_reasons(self, directions: np.ndarray) -> Iterator[str]:
        """Of axes of length 1, in columns."""
        limit = self.known.tilt_degrees
        tilt = tilt_of(directions)
        if limit is not None and tilt > limit:
            yield f"its axes are tilted by {tilt:.0f} degrees, expected {limit:g} or less"

    def _intensity_reasons(self, image: MetaTensor) -> Iterator[str]:
        if not self.known.intensity:
            return
        if isinstance(self.known.intensity, Mapping):
            parts = [("its intensities", image.as_tensor(), self.known.intensity)]
        else:
            parts = []
            for number, ranges in enumerate(self.known.intensity):
                channel = image.as_tensor()[number : number + 1]
                parts.append((f"the intensities of channel {number}", channel, ranges))
        for whose, channels, ranges in parts:
            values = standardized_quantiles(channels)
            for name, limits in ranges.items():
                if name in values:
                    what = f"{QUANTILES[name]:.0%} of {whose}, standardized, are up to"
                    yield from _range_reasons(what, [values[name]], limits, "")

    def _color_reasons(self, image: MetaTensor) -> Iterator[str]:
        if not self.known.colors:
            return
        channels = image.as_tensor()
        means = tissue_colors(channels)
        if means and (channels == channels[:1]).all():
            stained = f", stained {self.known.stain}" if self.known.stain else ""
            yield f"it is gray, expected a picture in color{stained}"
            return
        for name, limits in self.known.colors.items():
            if name in means:
                what = f"its mean {name.replace('_', ' ')} is"
                yield from _range_reasons(what, [means[name]], limits, "")


def require_file_of(image: MetaTensor) -> None:
    """Check that a client did not send an array, whose channels are last and place is not known.

    MONAI Label leaves the reading out for arrays, and with it all that is checked of a file.

    Raises:
        ValueError: if it did.
    """
    spatial = image.meta.get(MetaKeys.SPATIAL_SHAPE)
    if spatial is None or "filename_or_obj" in image.meta:
        return
    raise InputError(
        f"the image is an array of size {list(image.shape)}: expected the path of a file; write it "
        "to one, such as NIfTI or PNG"
    )


def tilt_of(directions: np.ndarray) -> float:
    """Largest angle in degrees between an axis of length 1, a column, and the body's nearest."""
    nearest = np.abs(directions).max(axis=0).clip(0, 1)
    return float(np.degrees(np.arccos(nearest)).max())


def standardized_quantiles(image: torch.Tensor) -> dict[str, float]:
    """`QUANTILES` of intensities whose mean is 0 and SD 1; nothing where all are the same."""
    values = _sample(image.flatten()[None])[0]
    deviation = values.std()
    if deviation == 0:
        return {}
    standard = (values - values.mean()) / deviation
    return {name: float(np.quantile(standard, share)) for name, share in QUANTILES.items()}


def tissue_colors(image: torch.Tensor) -> dict[str, float]:
    """`COLORS` of what is not glass in a picture ``(3, *spatial)``; nothing where all is glass."""
    pixels = _sample(image.flatten(1)) / 127.5 - 1  # (3, pixels)
    tissue = pixels[:, (pixels < WHITE).any(axis=0)]
    if tissue.shape[1] < TISSUE * pixels.shape[1]:
        return {}
    red, green, blue = (float(mean) for mean in tissue.mean(axis=1))
    return dict(zip(COLORS, [red, green, blue, red - green, blue - green], strict=True))


class KnownSpacingd(VoxelSpacingd):
    """Resample volumes to the voxel size that the weights know, and bring results back.

    A size within the declared tolerance is left as it is, voxel by voxel.

    Args:
        keys: keys of volumes.
        metadata: the bundle's ``metadata.json``; nothing is done where it declares no voxel size.
        mode: interpolation.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        metadata: str,
        mode: str = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        known = read_known(metadata)
        super().__init__(
            keys, known.voxel_mm, mode, allow_missing_keys, tolerance=known.voxel_tolerance
        )


def _dicom_kind(folder: str, series_uid: str) -> tuple[str, str]:
    """Modality and body part of a series, by the first of its files."""
    tags = ["SeriesInstanceUID", "Modality", "BodyPartExamined"]
    for path in series_files(folder).dicom:
        header = read_dicom(path, stop_before_pixels=True, specific_tags=tags)
        if str(header.get("SeriesInstanceUID")) == series_uid:
            return str(header.get("Modality") or ""), str(header.get("BodyPartExamined") or "")
    return "", ""


def _sample(values: torch.Tensor) -> np.ndarray:
    """Evenly spaced columns, some `SAMPLE` of them, float32."""
    step = max(1, values.shape[1] // SAMPLE)
    return values[:, ::step].float().cpu().numpy()


def _sides(affine: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A voxel's sides in mm, and the axis of the body that is nearest to each."""
    axes = [BODY_AXES[int(axis)] for axis in io_orientation(affine)[:, 0]]
    return np.linalg.norm(affine[:3, :3], axis=0), axes


def _side_reasons(
    what: str, sides: np.ndarray, axes: Sequence[str], limits: Ranges | None
) -> Iterator[str]:
    """Of lengths in mm along axes with these names of `BODY_AXES`."""
    if not isinstance(limits, Mapping):
        yield from _range_reasons(what, sides, limits, "mm")
        return
    for axis, side in zip(axes, sides, strict=True):
        words = axis.replace("_", " to ")
        yield from _range_reasons(f"from {words} {what}", [side], limits.get(axis), "mm")


def _range_reasons(
    what: str, values: Sequence[float] | np.ndarray, limits: Sequence[float] | None, unit: str
) -> Iterator[str]:
    if limits is None:
        return
    low, high = limits
    if min(values) < low or max(values) > high:
        unit = f" {unit}" if unit else ""
        yield f"{what} {_by(values)}{unit}, expected {low:g} to {high:g}{unit}"


def _by(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
