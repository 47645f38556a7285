"""The views of an image that a bundle's training knows, which programs let samples see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from monai.bundle import ConfigParser

from ldseg_monai.bundle.knobs import MIRROR_AXES, TURNED, view_knobs
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.views import View
from ldseg_monai.runtime.errors import InputError


class KnownViews(NamedTuple):
    """Arguments of `SamplingInferer`, and how many views they make.

    Args:
        turned: whether they are the eight orientations of a picture.
        mirrored_axes: those of the mirror images.
        number: of views.
    """

    turned: bool = False
    mirrored_axes: Sequence[int] = ()
    number: int = 1

    @property
    def about(self) -> str:
        """What they are, in words."""
        if self.turned:
            return "its eight orientations"
        if not self.mirrored_axes:
            return "none but the image as it is"
        return f"mirrored along axes {list(self.mirrored_axes)}"

    def of_images(self, spatial_dims: int) -> list[View]:
        """The views of an image with so many axes, as `SamplingInferer` has them."""
        sampler = SamplingInferer(self.number)
        self.let_see(sampler)
        return sampler.views(spatial_dims)

    def let_see(self, sampler: SamplingInferer) -> None:
        """Let samples see images in them from now on."""
        sampler.turned, sampler.mirrored_axes = self.turned, self.mirrored_axes


AS_IT_IS = KnownViews()


def known_views(config: ConfigParser, none_too: bool = False) -> KnownViews:
    """The views that a bundle's config knows.

    Args:
        config: the config.
        none_too: whether it may know images as they are alone.

    Raises:
        ValueError: if it does, and may not.
    """
    try:
        knobs = view_knobs(config)
    except InputError:
        if none_too:
            return AS_IT_IS
        raise
    turned, number = TURNED in knobs, knobs["num_samples"]
    axes = () if turned else config.get_parsed_content(MIRROR_AXES)
    return KnownViews(turned, axes, number)
