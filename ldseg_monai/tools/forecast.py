"""What a large image will take, said before it is segmented."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data.utils import dense_patch_slices
from monai.utils import ensure_tuple, ensure_tuple_rep, fall_back_tuple
from PIL import Image

from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.formats import TIFF_ENDINGS, is_volume, load_volume
from ldseg_monai.data.formats.kinds import ITK_ENDINGS
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.inference.strips import StripInferer
from ldseg_monai.inference.tiff import open_picture
from ldseg_monai.runtime.errors import UserError

logger = logging.getLogger("ldseg_monai.tools")

MANY = 20  # windows from which on it is worth to say so, and to time one
BYTES = 4  # of a number


def tell_large(parser: ConfigParser) -> None:
    """Say of each image of many windows, which is not finished yet, what it will take.

    One window is timed for that. From then on the windows have a progress bar.

    Args:
        parser: an ``inference.yaml`` that was initialized.
    """
    inferer = parser.get_parsed_content("evaluator").inferer
    in_strips = isinstance(inferer, StripInferer)
    windows = inferer.inferer if in_strips else inferer
    if not isinstance(windows, SlidingWindowSamplingInferer):
        return
    cases = parser.get_parsed_content("dataset#data")
    large = {}
    for number in parser.get_parsed_content("dataloader").sampler:
        image = cases[number]["image"]
        if in_strips:
            size, count = size_in_strips(inferer, image)
        else:
            size = image_size(image)
            fits = len(size) == len(ensure_tuple(windows.roi_size))  # else it fails later
            count = number_of_windows(size, windows) if fits else 0
        if count >= MANY:
            large[number] = (size, count)
    if not large:
        return
    network = parser.get_parsed_content("network")
    seconds = seconds_of_window(windows, network)
    windows.progress = True
    for number, (size, count) in large.items():
        needed = seconds * count
        duration = f"{needed:.0f} s" if needed < 120 else f"{needed / 60:.0f} minutes"
        memory = bytes_of_image(size, windows, network, in_strips) / 1e9
        logger.info(
            "%s is large: %s in %d windows, about %s and %.2g GB beside the network",
            case_name(cases[number]["image"]),
            " x ".join(map(str, size)),
            count,
            duration,
            memory,
        )


def size_in_strips(inferer: StripInferer, image: str) -> tuple[tuple[int, ...], int]:
    """Size of a picture as strips have it, and windows to compute; 0 of what cannot be read."""
    try:
        with inferer.reader.open(image) as picture:
            empty, number = inferer.empty_windows(picture)
            return tuple(picture.size), number - len(empty)
    except (UserError, OSError):  # whoever segments it says what is wrong
        return (), 0


def image_size(image: Any) -> tuple[int, ...]:
    """Size of a picture or volume by its header; nothing of what cannot be read or is a series."""
    path = os.fspath(ensure_tuple(image)[0])
    try:
        if os.path.isdir(path):
            return ()
        if path.lower().endswith(ITK_ENDINGS):
            import SimpleITK as sitk

            reader = sitk.ImageFileReader()
            reader.SetFileName(path)
            reader.ReadImageInformation()
            return tuple(reader.GetSize()[:3])
        if is_volume(path):
            return load_volume(path).shape[:3]  # whose voxels nibabel has not read yet
        if path.lower().endswith(TIFF_ENDINGS):
            with open_picture(path) as tiff:
                return tuple(tiff.size)
        with Image.open(path) as picture:
            return picture.size
    except Exception:  # of many kinds; whoever reads it whole says what is wrong
        return ()


def number_of_windows(size: Sequence[int], inferer: SlidingWindowSamplingInferer) -> int:
    """Windows that an inferer sees of an image of this size."""
    window = fall_back_tuple(inferer.roi_size, size)
    shares = ensure_tuple_rep(inferer.overlap, len(window))
    steps = [max(int(side * (1 - share)), 1) for side, share in zip(window, shares, strict=True)]
    padded = [max(side, least) for side, least in zip(size, window, strict=True)]
    return len(dense_patch_slices(padded, window, steps))


def seconds_of_window(inferer: SlidingWindowSamplingInferer, network: Any) -> float:
    """Time of one window, measured."""
    window = ensure_tuple(inferer.roi_size)
    device = next(network.parameters()).device
    image = torch.zeros(1, network.in_channels, *window, device=device)
    network.eval()
    start = time.perf_counter()
    inferer.sampler(image, network)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def bytes_of_image(
    size: Sequence[int], inferer: SlidingWindowSamplingInferer, network: Any, in_strips: bool
) -> int:
    """Memory of an image and of the maps that its windows come together in, about.

    In strips it is that of the rows of two windows, whatever the image's height.
    """
    maps = network.out_channels
    samples = inferer.sampler.num_samples
    if samples > 1:
        maps += 1
        if inferer.sampler.keep_samples:
            maps += samples * network.out_channels
    window = ensure_tuple(inferer.roi_size)
    sides = [size[0], min(size[1], 2 * window[1])] if in_strips else list(size)
    voxels = 1
    for side in sides:
        voxels *= side
    return BYTES * voxels * (network.in_channels + 2 * maps)
