"""One DICOM file of one frame, such as a radiograph, as a viewer shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from PIL import Image

from ldseg_monai.data.dicom.frames import decoding, is_enhanced, reading_header
from ldseg_monai.data.dicom.series import kind_without_image, read_dicom
from ldseg_monai.data.formats.geometry import check_memory
from ldseg_monai.runtime.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset


def load_dicom_picture(path: str) -> Image.Image:
    """Read a picture: gray of 8 bits, or in color.

    Gray goes through the modality's and the first VOI transformation that the file has (PS3.3
    C.11.1 and C.11.2), and its darkest and brightest pixels become 0 and 255. Padding becomes the
    darkest. A window of no width is none.

    Raises:
        ValueError: as of `require_picture`, or if the file cannot be read.
    """
    require_picture(path)
    with reading_header(path):
        header = read_dicom(path, stop_before_pixels=True)
        check_memory(path, [int(header.get(name) or 0) for name in ("Rows", "Columns")])
    with decoding(path):
        item = read_dicom(path)
        pixels = item.pixel_array
        if item.PhotometricInterpretation == "PALETTE COLOR":
            from pydicom.pixels import apply_color_lut

            colors = apply_color_lut(pixels, item)
            pixels = (colors >> 8 * (colors.itemsize - 1)).astype(np.uint8)
        if pixels.ndim == 3:
            return Image.fromarray(pixels[..., :3])
        return Image.fromarray(_gray(pixels, item))


def require_picture(path: str) -> None:
    """Check that a DICOM file is a picture, as far as its header says.

    Raises:
        ValueError: if it is none.
    """
    reason = why_no_picture(path)
    if reason:
        raise InputError(
            f"{path} is DICOM, but no picture ({reason}): expected one frame, such as a "
            "radiograph; use a bundle for volumes or for sequences"
        )


def why_no_picture(path: str) -> str:
    """What a DICOM file is that is no picture; "" for a picture, and where that cannot be read."""
    kind = kind_without_image(path)
    if kind:
        return kind
    try:
        header = read_dicom(path, stop_before_pixels=True)
        if is_enhanced(header) or "ImagePositionPatient" in header:
            return "slices of a volume"
        return "several frames" if int(header.get("NumberOfFrames") or 1) > 1 else ""
    except Exception:  # whatever a broken file brings about, which is told where it is read
        return ""


def _gray(pixels: NDArray[Any], item: Dataset) -> NDArray[np.uint8]:
    """Pixels ``(rows, columns)`` of a file as a viewer shows them, from 0 to 255."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    is_padding = _padding(pixels, item)
    width = ensure_tuple(item.get("WindowWidth", 1))[:1]
    if not width or not width[0] or float(width[0]) < 1:  # which some scanners write for none
        del item.WindowWidth
        item.pop("WindowCenter", None)
    shown = apply_voi_lut(apply_modality_lut(pixels, item), item).astype(np.float64)
    if item.PhotometricInterpretation == "MONOCHROME1":
        shown = -shown
    darkest, brightest = shown[~is_padding].min(), shown[~is_padding].max()
    shown[is_padding] = darkest
    return np.rint(255 * (shown - darkest) / max(brightest - darkest, 1e-9)).astype(np.uint8)


def _padding(pixels: NDArray[Any], item: Dataset) -> NDArray[np.bool_]:
    """Where stored pixels are padding (PS3.3 C.7.5.1.1.2), but where all would be."""
    value = item.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, bool)
    limits = sorted([int(value), int(item.get("PixelPaddingRangeLimit", value))])
    is_padding = (pixels >= limits[0]) & (pixels <= limits[1])
    return is_padding & ~is_padding.all()
