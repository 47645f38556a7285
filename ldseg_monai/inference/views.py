"""In which ways a network sees one image: turned, and in its mirror images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch

from ldseg_monai.networks.segmenter import ORIENTATIONS
from ldseg_monai.runtime.errors import InputError

QUARTERS = 4  # of a whole turn


class View(NamedTuple):
    """One way to see an image: first mirrored, then turned in the plane of its last two axes.

    Attributes:
        mirrored: axes, counted from the last one, which is -1.
        quarters: of a turn.
    """

    mirrored: tuple[int, ...] = ()
    quarters: int = 0

    def show(self, image: torch.Tensor) -> torch.Tensor:
        """The image, ``(..., *spatial)``, as it is seen."""
        seen = image.flip(self.mirrored) if self.mirrored else image
        return seen.rot90(self.quarters, (-2, -1)) if self.quarters else seen

    def bring_back(self, maps: torch.Tensor) -> torch.Tensor:
        """Undo `show`, of maps of what was seen."""
        back = maps.rot90(-self.quarters, (-2, -1)) if self.quarters else maps
        return back.flip(self.mirrored) if self.mirrored else back


AS_IT_IS = View()


def orientations() -> list[View]:
    """The eight orientations of a picture: four quarter turns, then those of its mirror image."""
    views = []
    for number in range(ORIENTATIONS):
        mirrored, quarters = divmod(number, QUARTERS)
        views.append(View((-1,) if mirrored else (), quarters))
    return views


def mirror_images(axes: Sequence[int], spatial_dims: int) -> list[View]:
    """An image as it is, and its mirror images along every choice of some axes: 2^n views.

    Args:
        axes: spatial ones, from 0.
        spatial_dims: of the image.

    Raises:
        ValueError: for an axis that the image lacks, or one that comes twice.
    """
    if len(set(axes)) < len(axes) or not set(axes) <= set(range(spatial_dims)):
        raise InputError(
            f"mirrored_axes is {list(axes)} of an image with {spatial_dims} axes: expected "
            f"different ones from 0 to {spatial_dims - 1}"
        )
    views = []
    for chosen in product((False, True), repeat=len(axes)):
        seen = [
            axis - spatial_dims for axis, mirrored in zip(axes, chosen, strict=True) if mirrored
        ]
        views.append(View(tuple(seen)))
    return views
