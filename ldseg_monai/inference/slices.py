"""Segmenting volumes by a network of slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from monai.inferers import SliceInferer

from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.runtime.errors import ArgumentError
from ldseg_monai.runtime.processes import plain


class SliceSamplingInferer(SliceInferer):
    """Segment volumes by a network of slices, many slices in one batch.

    Every slice gets the same noise, so neighbors do not differ by chance.

    Args:
        sampler: segments a batch of slices.
        kwargs: as of `monai.inferers.SliceInferer`: ``roi_size`` is that of a slice, or of a window
            of a larger one, ``spatial_dim`` the axis that is cut, ``sw_batch_size`` the number of
            slices in a batch.
    """

    def __init__(self, sampler: SamplingInferer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sampler = sampler

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment volumes ``(B, in_channels, *spatial)``; returns what the sampler returns.

        Raises:
            TypeError: for further arguments, which no slice would get.
        """
        if args or kwargs:
            got = [*map(type, args), *kwargs]
            raise ArgumentError(f"got {got} beside inputs and network: expected nothing else")
        return cast(
            torch.Tensor,
            super().__call__(plain(inputs), lambda slices: self.sampler(slices, network)),
        )
