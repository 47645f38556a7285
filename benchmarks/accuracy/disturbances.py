"""What may be wrong with an image, in stated strengths, and the area under a curve of scores.

For `benchmarks.accuracy.experiments`. A disturbance changes what the network gets: the image after
the bundle's preprocessing. At strength 0 it is left out, and what is random in it comes from the
case's number, so that all networks see the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.layers import GaussianFilter
from monai.transforms import AdjustContrast
from monai.utils import convert_to_tensor
from PIL import Image
from torch.nn import functional

from benchmarks.accuracy.quality import with_noise
from ldseg_monai.data import RandStaind

Disturb = Callable[[torch.Tensor, float, int], torch.Tensor]


@dataclass(frozen=True)
class Disturbance:
    """One thing that may be wrong with an image.

    Args:
        name: what a table calls it.
        unit: what a strength is.
        strengths: from 0 on, ascending.
        apply: makes it of an image ``(1, C, *spatial)``, a strength above 0 and a case's number.
        fits: whether it is for such an image.
    """

    name: str
    unit: str
    strengths: Sequence[float]
    apply: Disturb
    fits: Callable[[torch.Tensor], bool] = lambda image: True


def value_range(image: torch.Tensor) -> float:
    """What a range of 1 is in this image's units.

    It is 2 for a picture in -1 to 1, and else reaches from the 1st to the 99th percentile.
    """
    if image.min() >= -1 and image.max() <= 1:
        return 2.0
    low, high = (
        image.flatten().float().quantile(torch.tensor([0.01, 0.99], device=image.device)).tolist()
    )
    return high - low


def is_volume(image: torch.Tensor) -> bool:
    """Whether an image ``(1, C, *spatial)`` has three axes."""
    return image.ndim == 5


def is_color(image: torch.Tensor) -> bool:
    """Whether it is a color picture in -1 to 1."""
    return not is_volume(image) and image.shape[1] == 3 and value_range(image) == 2


def noisy(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
    """Under Gaussian noise of an SD that is this share of the image's range (Eq. 19)."""
    return with_noise(image, strength * value_range(image), index)


def blurred(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
    """Under a Gaussian blur of this SD in voxels; the border is continued."""
    axes, margin = image.ndim - 2, round(4 * strength) + 1
    padded = functional.pad(image, [margin] * 2 * axes, mode="replicate")
    smooth = GaussianFilter(axes, strength)(padded)
    inside = slice(margin, -margin)
    return smooth[(..., *[inside] * axes)]


def with_gamma(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
    """With gray levels to the power of 2 to the strength, darker; brighter every second case.

    A standardized volume keeps its mean and SD, as standardizing it anew would.
    """
    gamma = 2 ** (strength if index % 2 == 0 else -strength)
    changed = AdjustContrast(gamma, retain_stats=is_volume(image))(image)
    return convert_to_tensor(changed, track_meta=False)


def coarser(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
    """Averaged over voxels that are longer by this share on each axis, then interpolated back."""
    size = image.shape[2:]
    small = [max(1, round(side / (1 + strength))) for side in size]
    means = functional.interpolate(image, small, mode="area")
    return functional.interpolate(means, size, mode="trilinear" if is_volume(image) else "bilinear")


def restained(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
    """With other amounts of hematoxylin, eosin and rest, within this share: see `RandStaind`."""
    stain = RandStaind("image", prob=1, sigma=strength).set_random_state(index)
    picture = stain({"image": (image[0] + 1) * 127.5})["image"]
    return picture[None] / 127.5 - 1


def compressed(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
    """As JPEG of the quality 100 minus this strength."""
    pixels = ((image[0] + 1) * 127.5).round().to(torch.uint8).movedim(0, -1).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=round(100 - strength))
    decoded = torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0)[None]
    return (decoded.float() / 127.5 - 1).to(image.device)


def with_gaps(image: torch.Tensor, strength: float, index: int) -> torch.Tensor:
    """With this share of the last axis's slices black; those that the padding made do not count."""
    slices = image.movedim(-1, 0).flatten(1)
    filled = (slices != slices[:, :1]).any(dim=1).nonzero().flatten()
    generator = torch.Generator().manual_seed(index)
    order = torch.randperm(len(filled), generator=generator).to(filled.device)
    lost = filled[order[: round(strength * len(filled))]]
    changed = image.clone()
    changed[..., lost] = image.min()
    return changed


NOISE = Disturbance(
    "noise",
    "SD over the image's range",
    (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    noisy,
)
DISTURBANCES = (
    NOISE,
    Disturbance("blur", "SD in voxels", (0.0, 1.0, 2.0, 3.0), blurred),
    Disturbance("gamma", "base 2 logarithm of the exponent", (0.0, 0.5, 1.0, 1.5), with_gamma),
    Disturbance("lower resolution", "voxels longer by this share", (0.0, 1.0, 2.0, 4.0), coarser),
    Disturbance(
        "stain shift", "largest share of change", (0.0, 0.2, 0.4, 0.6), restained, is_color
    ),
    Disturbance("JPEG", "100 minus the quality", (0.0, 50.0, 80.0, 95.0), compressed, is_color),
    Disturbance(
        "missing slices", "share of the slices", (0.0, 0.1, 0.2, 0.4), with_gaps, is_volume
    ),
)


def area_under(points: Mapping[float, float]) -> float:
    """Area under a curve of scores by the trapezoidal rule, over its width: 1 if all scores are 1.

    Args:
        points: score at each strength, ascending.
    """
    strengths = torch.tensor(list(points), dtype=torch.float64)
    scores = torch.tensor(list(points.values()), dtype=torch.float64)
    width = strengths[-1] - strengths[0]
    return (torch.trapezoid(scores, strengths) / width).item()
