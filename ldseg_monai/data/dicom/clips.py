"""One DICOM file of frames that follow each other in time, such as an ultrasound clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from ldseg_monai.data.dicom.frames import decoding, is_enhanced, mirrored, reading_header
from ldseg_monai.data.dicom.series import read_dicom
from ldseg_monai.data.formats.geometry import check_memory
from ldseg_monai.runtime.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from pydicom import Dataset

# In an image's metadata
SECONDS = "frame_seconds"  # from one frame to the next, where it is known
IN_MM = "pixels_in_mm"  # whether a pixel's size is known
MODALITY = "dicom_modality"  # of one file
CENTIMETER, TWO_DIMENSIONAL = 3, 1  # as PS3.3 C.8.5.5 numbers a region's units and its format
GRAY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as Pillow takes them


def dicom_frames(path: str) -> tuple[np.ndarray, dict]:
    """Read the frames of a DICOM file as gray, float32 ``(columns, rows, frames)``, and metadata.

    Pixels are as large as the largest two-dimensional region says in cm, else as PixelSpacing does.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none, has slices of a volume, or its header or its pixels cannot be
            read.
    """
    if not os.path.isfile(path):
        raise MissingFileError(f"there is no file {path}: expected a sequence")
    with reading_header(path):
        header = read_dicom(path, stop_before_pixels=True)
        if is_enhanced(header) or "ImagePositionPatient" in header:
            raise InputError(
                f"{path} has slices of a volume: expected frames that follow each other in time; "
                "use a bundle for volumes"
            )
        sides = [int(header.get(name) or 0) for name in ("Rows", "Columns")]
        check_memory(path, [_number_of_frames(header), *sides])
        spacing, seconds = pixel_size(header), frame_seconds(header)
        modality = str(header.get("Modality") or "")
    gray = np.ascontiguousarray(_gray(path).transpose(2, 1, 0))  # (columns, rows, frames)
    affine = np.diag([*(spacing or (1.0, 1.0)), 1.0, 1.0])
    meta: dict[str, Any] = {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(gray.shape),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        IN_MM: spacing is not None,
        MODALITY: modality,
    }
    if seconds is not None:
        meta[SECONDS] = seconds
    return gray, meta


def _gray(path: str) -> np.ndarray:
    """Frames as gray, float32 ``(frames, rows, columns)``, the brightest the largest.

    Raises:
        ValueError: if the pixels cannot be decoded.
    """
    from pydicom.pixels import apply_color_lut

    with decoding(path):
        item = read_dicom(path)
        pixels = item.pixel_array  # colors as red, green and blue
        kind = str(item.get("PhotometricInterpretation", "MONOCHROME2"))
        if kind == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, item)
        channels = pixels.size // (_number_of_frames(item) * item.Rows * item.Columns)
        frames = pixels.reshape(-1, item.Rows, item.Columns, channels)
        weights = np.array(GRAY if channels == len(GRAY) else [1.0], np.float32)
        gray = np.empty(frames.shape[:3], np.float32)
        for number, frame in enumerate(frames):  # one by one, since colors take three times as much
            if kind == "MONOCHROME1":
                frame = mirrored(frame, item)
            gray[number] = frame.astype(np.float32) @ weights
        return gray


def _number_of_frames(header: Dataset) -> int:
    return int(header.get("NumberOfFrames") or 1)


def pixel_size(header: Dataset) -> tuple[float, float] | None:
    """Width and height of a pixel in mm; None where the header does not say them."""
    sizes = {}
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "XY"]
        deltas = [abs(float(region.get(f"PhysicalDelta{axis}") or 0)) for axis in "XY"]
        flat = region.get("RegionSpatialFormat") == TWO_DIMENSIONAL
        if flat and units == [CENTIMETER, CENTIMETER] and all(deltas):
            width = int(region.RegionLocationMaxX1) - int(region.RegionLocationMinX0)
            height = int(region.RegionLocationMaxY1) - int(region.RegionLocationMinY0)
            sizes[width * height] = (10 * deltas[0], 10 * deltas[1])
    if sizes:
        return sizes[max(sizes)]
    given = header.get("PixelSpacing") or []
    if len(given) == 2 and all(float(side) > 0 for side in given):
        return float(given[1]), float(given[0])  # DICOM has that of the rows first
    return None


def frame_seconds(header: Dataset) -> float | None:
    """Time from one frame to the next in seconds; None where the header does not say it."""
    vector = header.get("FrameTimeVector")
    times: Sequence[Any] = ensure_tuple(vector)[1:] if vector else ()  # the first is 0
    milliseconds = float(header.get("FrameTime") or 0)
    if not milliseconds and times:
        milliseconds = sum(map(float, times)) / len(times)
    if not milliseconds and header.get("CineRate"):
        milliseconds = 1000 / float(header.CineRate)
    return milliseconds / 1000 if milliseconds > 0 else None
