"""Segmenting an image of any size window by window, with one noise field."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from monai.data.utils import compute_importance_map
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.utils import PytorchPadMode, ensure_tuple_rep, fall_back_tuple

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.inference.ensemble import most_probable_class
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.slabs import Start, slide, window_starts
from ldseg_monai.networks.segmenter import DiffusionSegmenter, diffusion_segmenter
from ldseg_monai.runtime.errors import ArgumentError, InputError
from ldseg_monai.runtime.processes import plain

FIELD = 2048  # positions of the latent along an axis after which the noise repeats


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
        empty: Collection[Start] = (),
    ) -> Iterator[torch.Tensor]:
        """Segment an image of which only a part is in memory.

        Args:
            read: returns a range of the image along ``buffer_dim``, ``(1, in_channels, *spatial)``.
            size: spatial size of the whole image.
            network: as of `SamplingInferer`.
            empty: where windows begin that are background, and are not computed.

        Yields:
            What the sampler returns for the whole image, ``(1, K, *spatial)``, slab after slab
            along ``buffer_dim``.
        """
        model = diffusion_segmenter(network)
        window = self.window(size)
        latent = model.noise_shape(torch.empty(1, 0, *window))[1:]
        noise = self.sampler.seeded_noise(model, self.noise_field_shape(model, size))
        channels = model.out_channels + (self.sampler.num_samples > 1)

        def sample(windows: torch.Tensor, starts: list[Start]) -> torch.Tensor:
            fields = []
            for start in starts:
                field = noise.field  # (draws, 1, samples, C_z, *latent)
                for axis, (position, length) in enumerate(zip(start, latent, strict=True), 4):
                    first = round(position / model.stride)
                    places = torch.arange(first, first + length) % noise.field.shape[axis]
                    field = field.index_select(axis, places)
                fields.append(field)
            own = Noise(torch.cat(fields, dim=1), noise.latents)
            return self.sampler(windows.to(self.sw_device or windows.device), model, noise=own)

        def segment(windows: torch.Tensor, starts: list[Start]) -> torch.Tensor:
            kept = [number for number, start in enumerate(starts) if start not in empty]
            if len(kept) == len(starts):
                return sample(windows, starts)
            maps = windows.new_zeros([len(starts), channels, *window])
            maps[:, 0] = 1  # background, in probabilities as in logits
            if kept:
                found = sample(windows[kept], [starts[number] for number in kept])
                maps[kept] = found.to(maps)
            return maps

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

    def window(self, size: Sequence[int]) -> tuple[int, ...]:
        """Size of a window of an image of this size."""
        return tuple(fall_back_tuple(self.roi_size, size))

    def starts(self, size: Sequence[int]) -> list[Start]:
        """Where the windows of an image of this size begin, in the order of `slabs`."""
        window = self.window(size)
        padded = [max(side, length) for side, length in zip(size, window, strict=True)]
        overlap = ensure_tuple_rep(self.overlap, len(window))
        return window_starts(padded, window, overlap, self.buffer_dim % len(size))

    def noise_field_shape(self, network: DiffusionSegmenter, size: Sequence[int]) -> list[int]:
        """``[C_z, *sides]`` of the noise of a whole image: it ends where the last window's does.

        Along an axis on which that is more than `FIELD` positions, the noise repeats, so that it
        takes no more memory whatever the image's size.
        """
        window = self.window(size)
        channels, *latent = network.noise_shape(torch.empty(1, 0, *window))
        sides = []
        for side, length, own in zip(size, window, latent, strict=True):
            last_start = round(max(side - length, 0) / network.stride)
            sides.append(max(own, min(last_start + own, FIELD)))
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
