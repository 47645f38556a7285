"""What an image looks like in a few numbers, to tell images of another kind.

A network segments an X-ray as it does a heart in ultrasound, if its size and range of gray values
fit. How coarse an image and its colors are, where it is bright and how its values are spread tell
them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from monai.transforms import Resize
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch.nn import functional

from ldseg_monai.runtime.errors import InputError

LEVELS = 4  # halvings of an image
BINS = 4  # parts of an axis
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
SAMPLE = 200_000  # voxels that quantiles are taken of
LEAST = 1e-5  # share of the variance, below which nothing is told apart
SIDE = {2: 256, 3: 64}  # pixels or voxels of each axis of an image that is resized first
FEWEST = 8  # images that say how much those of one kind differ
SMALLEST_SD = 0.02  # of a number of a group, so that one of alike images is not all that counts
SMALLEST_SHRINKAGE = 0.01  # of correlations, so that theirs is a matrix that can be inverted
TYPICAL = 0.99  # quantile of the distances of images to the others of their group
MARGIN = 1.2  # times that, from which an image is unlike
MOST_LEFT_OUT = 500  # images of a group whose distances to the others are taken, evenly spaced


def appearance(image: torch.Tensor) -> NDArray[np.float64]:
    """Describe an image, whatever its size and scale of intensities.

    The numbers, of its channels' mean with mean 0 and standard deviation 1:

    - how much of it each level of a Laplacian pyramid holds (Burt and Adelson, IEEE Trans Commun
      1983), here of means of two voxels along each axis: the levels' variances, in powers of ten.
      They say how coarse it is
    - its quantiles
    - of a gray picture the mean of each quarter along each axis: where it is bright. A volume's
      axes may be in any order, and so may be those of a picture in colors, such as of tissue

    and of a picture in colors, three channels: the first less the second, and the third less the
    second, each in the same levels, and the mean of each in standard deviations: its colors, and
    how coarse they are.

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
    numbers = _coarseness(halves, deviation)
    numbers += ((np.quantile(sample, QUANTILES) - mean) / deviation).tolist()
    if gray.ndim == 2 and len(values) == 3:
        means = values.flatten(1).mean(1) / values.std().clamp(min=1e-6)
        for channel in (0, 2):
            numbers += _coarseness(_halves(values[channel] - values[1]), deviation)
            numbers.append(float(means[channel] - means[1]))
    elif gray.ndim == 2:
        profiles = _profiles(halves[min(2, len(halves) - 1)])
        numbers += [(part - mean) / deviation for part in profiles]
    return np.array(numbers)


def resized(image: torch.Tensor) -> torch.Tensor:
    """An image ``(C, *spatial)`` of `SIDE` along each axis, as one that is seen at once."""
    dims = image.ndim - 1
    mode = "bilinear" if dims == 2 else "trilinear"
    resize = Resize([SIDE[dims]] * dims, mode=mode, anti_aliasing=True)
    return convert_to_tensor(resize(torch.as_tensor(image).float()), track_meta=False)


def _halves(gray: torch.Tensor) -> list[torch.Tensor]:
    """An image, and what is left of it after each halving of its sides, up to `LEVELS`."""
    halve = functional.avg_pool2d if gray.ndim == 2 else functional.avg_pool3d
    images = [gray]
    while len(images) <= LEVELS and min(images[-1].shape) >= 2 * BINS:
        images.append(halve(images[-1][None, None], 2)[0, 0])
    return images


def _coarseness(halves: Sequence[torch.Tensor], deviation: float) -> list[float]:
    """Logarithm of the variance of what each halving takes away, in variances of the image.

    Of an image that is too small for all of them the last level stands for those that lack.
    """
    mode = "bilinear" if halves[0].ndim == 2 else "trilinear"
    levels = []
    for before, after in pairwise(halves):
        left = functional.interpolate(after[None, None], scale_factor=2, mode=mode)[0, 0]
        kept = tuple(slice(side) for side in left.shape)  # but the last row of an odd number
        share = float((before[kept] - left).var()) / deviation**2
        levels.append(float(np.log10(max(share, LEAST))))
    return [*levels, *[levels[-1] if levels else 0.0] * (LEVELS - len(levels))]


def _profiles(gray: torch.Tensor) -> list[float]:
    """Mean of each of `BINS` parts along each axis of a picture."""
    means: list[float] = []
    for other in (1, 0):
        profile = gray.mean(dim=other)[None, None]
        means += functional.adaptive_avg_pool1d(profile, BINS)[0, 0].tolist()
    return means


@dataclass(frozen=True)
class Group:
    """Images of one kind, by the numbers of `appearance`.

    Attributes:
        mean, sd: of each number.
        correlation: between them, ``(numbers, numbers)``.
        limit: distance from which an image is unlike these.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    correlation: NDArray[np.float64]
    limit: float = np.inf

    @classmethod
    def fit(cls, numbers: NDArray[np.float64]) -> Group:
        """That of images ``(images, numbers)``, `FEWEST` or more.

        The limit is of the distance of each image to the group of all others.
        """
        chosen = np.linspace(0, len(numbers) - 1, min(MOST_LEFT_OUT, len(numbers))).astype(int)
        others = [cls._of(np.delete(numbers, index, axis=0)) for index in chosen]
        distances = [
            group.distance(numbers[index]) for group, index in zip(others, chosen, strict=True)
        ]
        group = cls._of(numbers)
        limit = MARGIN * float(np.quantile(distances, TYPICAL))
        return cls(group.mean, group.sd, group.correlation, float(f"{limit:.3g}"))

    @classmethod
    def _of(cls, numbers: NDArray[np.float64]) -> Group:
        """That of images ``(images, numbers)``, without a limit."""
        mean = numbers.mean(axis=0)
        sd = numbers.std(axis=0, ddof=1).clip(min=SMALLEST_SD)
        scores = (numbers - mean) / sd
        return cls(mean, sd, shrunk_correlation(scores))

    @classmethod
    def read(cls, declared: Mapping[str, Any], place: str) -> Group:
        """That which `declared` wrote.

        Args:
            declared: what a file has of it.
            place: where, for a person.

        Raises:
            InputError: if it cannot be one.
        """
        try:
            mean, sd = (np.array(declared[name], dtype=float) for name in ("mean", "sd"))
            correlation = np.eye(len(mean))
            below = np.tril_indices(len(mean), -1)
            parts = [float(part) for part in declared["correlation"].split()]
            correlation[below] = np.reshape(parts, len(below[0]))
            correlation = correlation + np.tril(correlation, -1).T
            np.linalg.cholesky(correlation)
            return cls(mean, sd.reshape(len(mean)), correlation, float(declared["limit"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{place} cannot be read ({type(error).__name__} {error}): expected "
                "mean, sd, correlation and limit, as `ldseg new-bundle` writes them"
            ) from error

    def declared(self) -> dict[str, Any]:
        """What a file has of it: rounded; of the correlations those below the diagonal, a text."""
        below = self.correlation[np.tril_indices(len(self.mean), -1)]
        return {
            "mean": _rounded(self.mean),
            "sd": _rounded(self.sd),
            "correlation": " ".join(f"{value:.4f}" for value in below),
            "limit": self.limit,
        }

    def distance(self, numbers: NDArray[np.float64]) -> float:
        """Mahalanobis' distance of an image, over the root of how many numbers there are.

        So it is about 1 for an image of the group.

        Args:
            numbers: of `appearance`; of another number of them the distance is infinite, such as of
                a gray picture to those in colors.
        """
        if len(numbers) != len(self.mean):
            return np.inf
        scores = (numbers - self.mean) / self.sd
        return float(np.sqrt(scores @ np.linalg.solve(self.correlation, scores) / len(scores)))


def nearest(numbers: NDArray[np.float64], groups: Mapping[str, Group]) -> tuple[float, float]:
    """Distance of an image to the nearest group, and that group's limit.

    The nearest is that with the least distance in its own limits.

    Args:
        numbers: of `appearance`.
        groups: one or more, by their names.
    """
    distances = [(group.distance(numbers), group.limit) for group in groups.values()]
    return min(distances, key=lambda pair: pair[0] / pair[1])


def shrunk_correlation(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations of few images, between those of the sample and none at all.

    How far they shrink is Ledoit and Wolf's estimate of what has the least expected error (J
    Multivar Anal 88, 2004).

    Args:
        scores: ``(images, numbers)``, of mean 0 and SD 1 or less.
    """
    count, size = scores.shape
    sample = scores.T @ scores / count
    away = np.square(sample - np.trace(sample) / size * np.eye(size)).sum()
    squares = np.square(scores)
    error = (squares.T @ squares / count - np.square(sample)).sum() / count
    shrinkage = min(1.0, max(SMALLEST_SHRINKAGE, error / max(away, 1e-12)))
    correlation = (1 - shrinkage) * sample
    np.fill_diagonal(correlation, 1)
    return correlation


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
