"""What an image looks like in a few numbers, to tell images of another kind.

A network segments an X-ray as it does a heart in ultrasound, if its size and range of gray values
fit. How coarse an image is, where it is bright and how its values are spread tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

LEVELS = 4  # halvings of an image
BINS = 4  # parts of an axis
NUM_COLORS = 2  # numbers that a picture in colors has at the end
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
SAMPLE = 200_000  # voxels that quantiles are taken of
LEAST = 1e-5  # share of the variance, below which nothing is told apart
FEWEST = 8  # images that say how much those of one kind differ
SMALLEST_SD = 0.02  # of a number of a group, so that one of alike images is not all that counts
TYPICAL = 0.99  # quantile of the distances of images to the others of their group
MARGIN = 1.2  # times that, from which an image is unlike


class Group(NamedTuple):
    """Images of one kind: mean and standard deviation of each number of `appearance`."""

    mean: Sequence[float]
    sd: Sequence[float]


def appearance(image: torch.Tensor) -> NDArray[np.float64]:
    """Describe an image, whatever its size and scale of intensities.

    The numbers, of its channels' mean with mean 0 and standard deviation 1:

    - how much of its variance each halving takes away, in powers of ten: how coarse it is
    - its quantiles
    - of a picture the mean of each quarter along each axis: where it is bright. A volume's axes may
      be in any order

    and of a picture's three channels the mean of the first less that of the second, and of the
    third less that of the second, in standard deviations: its color.

    Args:
        image: ``(C, *spatial)``, a picture or a volume.

    Returns:
        17 numbers of a gray picture, 19 of one in colors, 9 of a volume.
    """
    values = torch.as_tensor(image).float()
    gray = values.mean(0)
    deviation, mean = (float(part) for part in torch.std_mean(gray))
    deviation = max(deviation, 1e-6)
    sample = gray.flatten()[:: max(1, gray.numel() // SAMPLE)].cpu().numpy()
    halves = _halves(gray)
    numbers = [*_coarseness(halves, deviation)]
    numbers += ((np.quantile(sample, QUANTILES) - mean) / deviation).tolist()
    if gray.ndim == 2:
        numbers += [
            (part - mean) / deviation for part in _profiles(halves[min(2, len(halves) - 1)])
        ]
    if gray.ndim == 2 and len(values) == 3:
        red, green, blue = (values.flatten(1).mean(1) / values.std().clamp(min=1e-6)).tolist()
        numbers += [red - green, blue - green]
    return np.array(numbers)


def _halves(gray: torch.Tensor) -> list[torch.Tensor]:
    """An image, and what is left of it after each halving of its sides, up to `LEVELS`."""
    halve = functional.avg_pool2d if gray.ndim == 2 else functional.avg_pool3d
    images = [gray]
    while len(images) <= LEVELS and min(images[-1].shape) >= 2 * BINS:
        images.append(halve(images[-1][None, None], 2)[0, 0])
    return images


def _coarseness(halves: Sequence[torch.Tensor], deviation: float) -> list[float]:
    """Logarithm of the share of the variance that each halving takes away.

    Of an image that is too small for all of them the last share stands for those that lack.
    """
    left = [1.0, *(float(image.var()) / deviation**2 for image in halves[1:])]
    shares = [np.log10(max(before - after, LEAST)) for before, after in pairwise(left)]
    return [*shares, *[shares[-1] if shares else 0.0] * (LEVELS - len(shares))]


def _profiles(gray: torch.Tensor) -> list[float]:
    """Mean of each of `BINS` parts along each axis of a picture."""
    means: list[float] = []
    for other in (1, 0):
        profile = gray.mean(dim=other)[None, None]
        means += functional.adaptive_avg_pool1d(profile, BINS)[0, 0].tolist()
    return means


def distance(numbers: NDArray[np.float64], groups: Mapping[str, Group]) -> float:
    """How unlike an image is to the nearest group: root mean square of its standard scores.

    Args:
        numbers: of `appearance`; of another number of them than a group's the distance is infinite,
            such as of a gray picture to those in colors.
        groups: by their names.
    """
    distances = [np.inf]
    for group in groups.values():
        if len(group.mean) == len(numbers):
            scores = (numbers - np.array(group.mean)) / np.array(group.sd)
            distances.append(float(np.sqrt(np.square(scores).mean())))
    return min(distances)


def fit(numbers: NDArray[np.float64]) -> Group:
    """Mean and standard deviation of images ``(images, numbers)``, rounded as a file has them."""
    sd = numbers.std(axis=0, ddof=1).clip(min=SMALLEST_SD)
    return Group(_rounded(numbers.mean(axis=0)), _rounded(sd))


def limit(numbers: NDArray[np.float64]) -> float:
    """Distance from which an image is unlike those that a group is fitted to.

    Args:
        numbers: ``(images, numbers)``, `FEWEST` images or more. Each one's distance is to the
            others.
    """
    distances = [
        distance(own, {"others": fit(np.delete(numbers, index, axis=0))})
        for index, own in enumerate(numbers)
    ]
    return float(f"{MARGIN * np.quantile(distances, TYPICAL):.3g}")


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
