"""Segmenting an image of any size window by window, with one noise field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from monai.data.utils import compute_importance_map
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.utils import PytorchPadMode, fall_back_tuple

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.inference.ensemble import most_probable_class
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.slabs import slide
from ldseg_monai.networks.segmenter import DiffusionSegmenter, diffusion_segmenter
from ldseg_monai.runtime.errors import ArgumentError, InputError
from ldseg_monai.runtime.processes import plain


class SlidingWindowSamplingInferer(SlidingWindowInferer):
    """Segment an image of any size window by window, with one noise field for the whole image.

    Overlapping windows see the same noise where they overlap (to the nearest position of the
    latent), so that their samples agree and may be averaged. They come together slab by slab (see
    `slide`), so that beside the image and what is returned, only one slab is in memory.

    Args:
        sampler: segments one window.
        args, kwargs: as of `monai.inferers.SlidingWindowInferer`, but for ``buffer_steps`` and
            ``with_coord``.
        buffer_dim: spatial axis along which the slabs follow each other.
        as_label: whether `__call__` returns of a single sample the most probable class alone, a
            byte a voxel, in place of logits. An ensemble's probabilities and standard deviation are
            returned all the same.

    Raises:
        ValueError: for ``buffer_steps``, since a slab is what one row of windows finishes, or
            ``with_coord``, since no sampler takes a window's place.
    """

    def __init__(
        self,
        sampler: SamplingInferer,
        *args: Any,
        buffer_dim: int = 0,
        as_label: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, buffer_dim=buffer_dim, **kwargs)  # type: ignore[misc]
        if self.buffer_steps is not None:
            raise InputError(
                f"buffer_steps is {self.buffer_steps}: expected none, slabs are finished as "
                "windows go on"
            )
        if self.with_coord:
            raise InputError(
                "with_coord is true: expected false, since no sampler takes a window's coordinates"
            )
        self.sampler = sampler
        self.as_label = as_label

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment images ``(B, in_channels, *spatial)`` of any size.

        Returns:
            What the sampler returns; with ``as_label``, of a single sample, class indices ``(B, 1,
            *spatial)``, uint8.

        Raises:
            TypeError: for further arguments, which no window would get.
        """
        if args or kwargs:
            got = [*map(type, args), *kwargs]
            raise ArgumentError(f"got {got} beside inputs and network: expected nothing else")
        size = list(inputs.shape[2:])
        dimension = self.buffer_dim % len(size) + 2
        result = torch.empty(0)
        for index, image in enumerate(plain(inputs).split(1)):
            begin = 0
            for slab in self.slabs(partial(_range, image, dimension), size, network):
                if self.as_label and self.sampler.num_samples == 1:
                    slab = most_probable_class(slab, dim=1)
                if not result.numel():
                    result = slab.new_empty([len(inputs), slab.shape[1], *size])
                length = slab.shape[dimension]
                result[index : index + 1].narrow(dimension, begin, length).copy_(slab)
                begin += length
        return result

    def slabs(
        self,
        read: Callable[[int, int], torch.Tensor],
        size: Sequence[int],
        network: Callable[..., Any],
    ) -> Iterator[torch.Tensor]:
        """Segment an image of which only a part is in memory.

        Args:
            read: returns a range of the image along ``buffer_dim``, ``(1, in_channels, *spatial)``.
            size: spatial size of the whole image.
            network: as of `SamplingInferer`.

        Yields:
            What the sampler returns for the whole image, ``(1, K, *spatial)``, slab after slab
            along ``buffer_dim``.
        """
        model = diffusion_segmenter(network)
        window = fall_back_tuple(self.roi_size, size)
        latent = model.noise_shape(torch.empty(1, 0, *window))[1:]
        noise = self.sampler.seeded_noise(model, self.noise_field_shape(model, size))

        def segment(windows: torch.Tensor, starts: list[tuple[int, ...]]) -> torch.Tensor:
            fields = []
            for start in starts:
                area = [slice(None)] * 4  # (draws, 1, samples, C_z, *latent)
                for position, length in zip(start, latent, strict=True):
                    corner = round(position / model.stride)
                    area.append(slice(corner, corner + length))
                fields.append(noise.field[tuple(area)])
            own = Noise(torch.cat(fields, dim=1), noise.latents)
            return self.sampler(windows.to(self.sw_device or windows.device), model, noise=own)

        return slide(
            read,
            segment,
            size,
            self._weights(window),
            self.buffer_dim % len(size),
            self.overlap,
            self.sw_batch_size,
            PytorchPadMode(self.padding_mode).value,
            self.cval,
            self._device_of_maps(size),
            self.progress,
        )

    def noise_field_shape(self, network: DiffusionSegmenter, size: Sequence[int]) -> list[int]:
        """``[C_z, *sides]`` of the noise of a whole image: it ends where the last window's does."""
        window = fall_back_tuple(self.roi_size, size)
        channels, *latent = network.noise_shape(torch.empty(1, 0, *window))
        sides = []
        for side, length, own in zip(size, window, latent, strict=True):
            last_start = round(max(side - length, 0) / network.stride)
            sides.append(last_start + own)
        return [channels, *sides]

    def _device_of_maps(self, size: Sequence[int]) -> torch.device | str | None:
        """Where the maps of an image of this size come together; None for where the image is."""
        if self.device is None and self.cpu_thresh and math.prod(size) > self.cpu_thresh:
            return "cpu"
        return self.device

    def _weights(self, window: tuple[int, ...]) -> torch.Tensor:
        """How much each position of a window counts where windows overlap."""
        if self.roi_weight_map is not None:
            return self.roi_weight_map
        return compute_importance_map(window, self.mode, self.sigma_scale)


def _range(image: torch.Tensor, dimension: int, start: int, stop: int) -> torch.Tensor:
    """A range of an image along a dimension."""
    return image.narrow(dimension, start, stop - start)


class SliceSamplingInferer(SliceInferer):
    """Segment a volume or a sequence by a network of pictures, plane by plane of its last axis.

    Every plane sees the same noise, so that what stays the same from frame to frame is drawn the
    same.

    Args:
        sampler: segments the planes, or windows of them.
        args, kwargs: as of `monai.inferers.SliceInferer`, but for ``spatial_dim``.
    """

    def __init__(self, sampler: SamplingInferer, *args: Any, **kwargs: Any) -> None:
        super().__init__(2, *args, **kwargs)  # type: ignore[misc]
        self.sampler = sampler

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment volumes ``(B, in_channels, W, H, planes)``.

        Returns:
            What the sampler returns of a plane, with the planes as last axis.

        Raises:
            ValueError: for a network that is no `DiffusionSegmenter`.
        """
        model = diffusion_segmenter(network)
        segment = partial(self.sampler, network=model)
        return cast(torch.Tensor, super().__call__(plain(inputs), segment, *args, **kwargs))
