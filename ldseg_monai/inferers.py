"""How the engines call LDSeg and cDAL: to train, to segment, and to segment window by window or slice by slice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from monai.data.utils import compute_importance_map
from monai.inferers import Inferer, SliceInferer, SlidingWindowInferer
from monai.utils import PytorchPadMode, fall_back_tuple

from ldseg_monai.networks import CDAL, LDSeg
from ldseg_monai.precision import autocast
from ldseg_monai.processes import unwrapped
from ldseg_monai.sampling import draw_per_sample, label_logits, most_probable_class, seeded_noise, summarize
from ldseg_monai.sliding_window import slide

ALL = slice(None)
ORIENTATIONS = 8  # of a picture: four quarter turns, and their mirror images


class TrainingInferer(Inferer):
    """Run one training pass under bfloat16 autocast, on the CPU too (where MONAI's engines do not autocast).

    Args:
        amp: whether to compute in bfloat16 where autocast deems it safe.
        pure_noise_share: share of the samples that are trained at the last timestep T, where the latent is all noise;
            the others get a uniform one (0 for the paper's Algorithm 1). A sampler of few steps spends half of them
            there, and has nothing but the image to go by.

    Raises:
        ValueError: if the share is not one.
    """

    def __init__(self, amp: bool = True, pure_noise_share: float = 0.0) -> None:
        super().__init__()
        if not 0 <= pure_noise_share <= 1:
            raise ValueError(f"pure_noise_share is {pure_noise_share}: expected 0 to 1")
        self.amp = amp
        self.pure_noise_share = pure_noise_share

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the training output of `LDSeg` for images ``(B, C, *spatial)`` and the keyword ``label``.

        Raises:
            ValueError: for another network.
        """
        plain = {name: _plain(value) for name, value in kwargs.items()}
        num_timesteps = _diffusion_model(network).scheduler.num_train_timesteps
        timesteps = draw_per_sample(len(inputs), lambda generator: self._draw_timestep(num_timesteps, generator))
        with autocast(inputs.device, self.amp):
            return network(_plain(inputs), *map(_plain, args), timesteps=timesteps, **plain)

    def _draw_timestep(self, num_timesteps: int, generator: torch.Generator) -> torch.Tensor:
        uniform = torch.randint(num_timesteps, [], generator=generator)
        last = torch.rand([], generator=generator) < self.pure_noise_share
        return torch.where(last, num_timesteps - 1, uniform)


class AutocastInferer(Inferer):
    """Run another inferer under bfloat16 autocast, on the CPU too: for deterministic peers trained and run alike.

    Args:
        inferer: how to call the network.
        amp: whether to compute in bfloat16 where autocast deems it safe.
    """

    def __init__(self, inferer: Inferer, amp: bool = True) -> None:
        super().__init__()
        self.inferer = inferer
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what the inferer returns; where gradients are recorded in float32, as a loss wants it."""
        with autocast(inputs.device, self.amp):
            output = self.inferer(_plain(inputs), network, *args, **kwargs)
        return output.float() if torch.is_grad_enabled() else output


class SamplingInferer(Inferer):
    """Draw one or several segmentations of each image.

    The noise depends on the seed and the sample's number alone, so an image gives the same result in any batch.

    Args:
        num_samples: segmentations drawn for each image; the image is encoded once and the latents are denoised in one
            batch.
        num_inference_steps: steps of the reverse process; None for the network's own number.
        seed: seed of the noise.
        amp: whether to compute in bfloat16 where autocast deems it safe.
        turned: whether the samples see a picture (2D) in its eight orientations in turn, the first one as it is. They
            then differ by what the network makes of the orientation too, not by the noise alone; each orientation is
            encoded for itself. For pictures that have no top, such as histology.

    Raises:
        ValueError: if ``num_samples`` is below 1.
    """

    def __init__(
        self,
        num_samples: int = 1,
        num_inference_steps: int | None = None,
        seed: int = 0,
        amp: bool = True,
        turned: bool = False,
    ) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}: expected 1 or more")
        self.num_samples = num_samples
        self.num_inference_steps = num_inference_steps
        self.seed = seed
        self.amp = amp
        self.turned = turned

    def draw_noise(self, network: LDSeg | CDAL, shape: list[int]) -> torch.Tensor:
        """Noise ``(draws, num_samples, C_z, *latent)`` of the reverse process for a latent ``shape`` of one image."""
        return seeded_noise(shape, self.seed, self.num_samples, network.num_draws(self.num_inference_steps))

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Segment.

        Args:
            inputs: images ``(B, in_channels, *spatial)``.
            network: an `LDSeg` (of `CDALSamplingInferer`, a `CDAL`) in eval mode, or one wrapped in
                ``DistributedDataParallel``.
            args: nothing.
            kwargs: ``noise`` ``(draws, num_samples or B * num_samples, C_z, *latent)`` instead of the seed's; cDAL's
                latent is the label itself, ``classes`` channels in the image's size.

        Returns:
            For one sample, class logits ``(B, classes, *spatial)``. For more, class probabilities averaged over the
            samples followed by one channel with their standard deviation, ``(B, classes + 1, *spatial)``.

        Raises:
            TypeError: for arguments beside these.
            ValueError: for another network, or for volumes, where they are to be turned.
        """
        if args or set(kwargs) - {"noise"}:
            raise TypeError(f"got {[*map(type, args), *kwargs]} beside inputs and network: expected at most noise")
        model = _diffusion_model(network)
        image = _plain(inputs)
        noise = kwargs.get("noise")
        if noise is None:
            noise = self.draw_noise(model, model.noise_shape(image))
        own_noise = noise.shape[1] == len(image) * self.num_samples
        noise = noise.unflatten(1, (len(image) if own_noise else 1, self.num_samples))
        with autocast(image.device, self.amp):
            draw = self._draw_turned if self.turned else self._draw
            samples = draw(model, image, noise)
            return next(samples) if self.num_samples == 1 else torch.cat(summarize(samples), dim=1)

    def _draw(
        self, network: LDSeg, image: torch.Tensor, noise: torch.Tensor, chosen: slice = ALL
    ) -> Iterator[torch.Tensor]:
        """The class logits of chosen samples, one by one, for noise ``(draws, 1 or B, num_samples, C_z, *latent)``."""
        embedding, features = network.encode_image(image)
        noise = noise[:, :, chosen]
        number = noise.shape[2]
        noise = noise.expand(-1, len(image), *[-1] * (noise.ndim - 2)).flatten(1, 2)
        repeated = embedding.repeat_interleave(number, dim=0)
        latents = network.sample_latent(repeated, noise, self.num_inference_steps)
        for latent in latents.unflatten(0, (len(image), number)).unbind(1):
            yield network.label_decoder(latent, features)

    def _draw_turned(self, network: Any, image: torch.Tensor, noise: torch.Tensor) -> Iterator[torch.Tensor]:
        """As `_draw`, orientation after orientation; the noise is turned with the image."""
        if image.ndim != 4:
            raise ValueError(f"turned is for pictures: got {image.ndim - 2} axes, expected 2; set turned to false")
        for index in range(min(ORIENTATIONS, self.num_samples)):
            turned_image, turned_noise = (turn(tensor, index) for tensor in (image, noise))
            chosen = slice(index, None, ORIENTATIONS)
            yield from (turn_back(logits, index) for logits in self._draw(network, turned_image, turned_noise, chosen))


class CDALTrainingInferer(Inferer):
    """Run one pass of cDAL's generator or discriminator under bfloat16 autocast, on the CPU too.

    Args:
        amp: whether to compute in bfloat16 where autocast deems it safe.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what a `CDAL` or `CDALDiscriminator`, plain or in ``DistributedDataParallel``, does, in float32."""
        with autocast(inputs.device, self.amp):
            return network(inputs, *args, **kwargs).float()


class CDALSamplingInferer(SamplingInferer):
    """Draw one or several segmentations of each image with cDAL (Hejrati et al., 2024, Algorithm 2 and Section 3.2).

    The image is encoded once. Noise and random latents depend on the seed and the sample's number alone, so an image
    gives the same result in any batch.

    Args:
        args: as of `SamplingInferer`; the steps are None or the network's own.
        samples_in_pass: samples that are denoised in one pass of the network; None for one on a CPU, where that is the
            fastest and takes the least memory, and for all of them elsewhere.
        kwargs: as of `SamplingInferer`.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(self, *args: Any, samples_in_pass: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if samples_in_pass is not None and samples_in_pass < 1:
            raise ValueError(f"samples_in_pass is {samples_in_pass}: expected 1 or more")
        self.samples_in_pass = samples_in_pass

    def _draw(  # type: ignore[override]
        self, network: CDAL, image: torch.Tensor, noise: torch.Tensor, chosen: slice = ALL
    ) -> Iterator[torch.Tensor]:
        features = network.encode_image(image)
        in_pass = self.samples_in_pass or (1 if image.device.type == "cpu" else self.num_samples)
        latents = network.seeded_latents(self.seed, self.num_samples)[:, None, chosen]
        noise = noise[:, :, chosen]
        noise = noise.expand(-1, len(image), *[-1] * (noise.ndim - 2))
        latents = latents.expand(-1, len(image), -1, -1)
        for own, own_latents in zip(noise.split(in_pass, dim=2), latents.split(in_pass, dim=2), strict=True):
            number = own.shape[2]
            repeated = features.repeat_interleave(number, dim=0)
            labels = network.sample_label(repeated, own.flatten(1, 2), own_latents.flatten(1, 2))
            yield from label_logits(labels).unflatten(0, (len(image), number)).unbind(1)


class SliceSamplingInferer(SliceInferer):
    """Segment volumes by a network of slices, many slices in one batch.

    Every slice gets the same noise, so neighbors do not differ by chance.

    Args:
        sampler: segments a batch of slices.
        kwargs: as of `monai.inferers.SliceInferer`: ``roi_size`` is that of a slice, or of a window of a larger one,
            ``spatial_dim`` the axis that is cut, ``sw_batch_size`` the number of slices in a batch.
    """

    def __init__(self, sampler: SamplingInferer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sampler = sampler

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Segment volumes ``(B, in_channels, *spatial)`` of any size; returns what the sampler returns.

        Raises:
            TypeError: for further arguments, which no slice would get.
        """
        if args or kwargs:
            raise TypeError(f"got {[*map(type, args), *kwargs]} beside inputs and network: expected nothing else")
        return cast(torch.Tensor, super().__call__(_plain(inputs), lambda slices: self.sampler(slices, network)))


class SlidingWindowSamplingInferer(SlidingWindowInferer):
    """Segment an image of any size window by window, with one noise field drawn for the whole image.

    Overlapping windows see the same noise where they overlap (to the nearest position of the latent), so that their
    samples agree and may be averaged. They come together slab by slab (see `slide`), so that beside the image and what
    is returned, only one slab is in memory.

    Args:
        sampler: segments one window.
        args, kwargs: as of `monai.inferers.SlidingWindowInferer`, but for ``buffer_steps`` and ``with_coord``.
        buffer_dim: spatial axis along which the slabs follow each other.
        as_label: whether `__call__` returns of a single sample the most probable class alone, a byte a voxel, in place
            of logits. An ensemble's probabilities and standard deviation are returned all the same.

    Raises:
        ValueError: for ``buffer_steps``, since a slab is what one row of windows finishes, or ``with_coord``, since no
            sampler takes a window's place.
    """

    def __init__(
        self, sampler: SamplingInferer, *args: Any, buffer_dim: int = 0, as_label: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, buffer_dim=buffer_dim, **kwargs)  # type: ignore[misc]
        if self.buffer_steps is not None:
            raise ValueError(f"buffer_steps is {self.buffer_steps}: expected none, slabs are finished as windows go on")
        if self.with_coord:
            raise ValueError("with_coord is true: expected false, since no sampler takes a window's coordinates")
        self.sampler = sampler
        self.as_label = as_label

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Segment images ``(B, in_channels, *spatial)`` of any size.

        Returns:
            What the sampler returns; with ``as_label``, of a single sample, class indices ``(B, 1, *spatial)``, uint8.

        Raises:
            TypeError: for further arguments, which no window would get.
        """
        if args or kwargs:
            raise TypeError(f"got {[*map(type, args), *kwargs]} beside inputs and network: expected nothing else")
        size = list(inputs.shape[2:])
        dimension = self.buffer_dim % len(size) + 2
        result = torch.empty(0)
        for index, image in enumerate(_plain(inputs).split(1)):
            begin = 0
            for slab in self.slabs(partial(_range, image, dimension), size, network):
                if self.as_label and self.sampler.num_samples == 1:
                    slab = most_probable_class(slab, dim=1)
                if not result.numel():
                    result = slab.new_empty([len(inputs), slab.shape[1], *size])
                result[index : index + 1].narrow(dimension, begin, slab.shape[dimension]).copy_(slab)
                begin += slab.shape[dimension]
        return result

    def slabs(
        self, read: Callable[[int, int], torch.Tensor], size: Sequence[int], network: Callable[..., Any]
    ) -> Iterator[torch.Tensor]:
        """Segment an image of which only a part is in memory.

        Args:
            read: returns a range of the image along ``buffer_dim``, ``(1, in_channels, *spatial)``.
            size: spatial size of the whole image.
            network: as of `SamplingInferer`.

        Yields:
            What the sampler returns for the whole image, ``(1, K, *spatial)``, slab after slab along ``buffer_dim``.
        """
        model = _diffusion_model(network)
        window = fall_back_tuple(self.roi_size, size)
        latent = model.noise_shape(torch.empty(1, 0, *window))[1:]
        field = self.sampler.draw_noise(model, self.noise_field_shape(model, size))

        def segment(windows: torch.Tensor, starts: list[tuple[int, ...]]) -> torch.Tensor:
            crops = []
            for start in starts:
                corner = [round(position / model.stride) for position in start]
                area = [slice(first, first + length) for first, length in zip(corner, latent, strict=True)]
                crops.append(field[tuple([slice(None)] * 3 + area)])
            return self.sampler(windows.to(self.sw_device or windows.device), model, noise=torch.cat(crops, dim=1))

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
            "cpu" if self.device is None and math.prod(size) > (self.cpu_thresh or math.inf) else self.device,
            self.progress,
        )

    def noise_field_shape(self, network: LDSeg | CDAL, size: Sequence[int]) -> list[int]:
        """``[C_z, *sides]`` of the noise of an image of a spatial size: it ends where the last window's latent does."""
        window = fall_back_tuple(self.roi_size, size)
        channels, *latent = network.noise_shape(torch.empty(1, 0, *window))
        last = [max(side - length, 0) / network.stride for side, length in zip(size, window, strict=True)]
        return [channels] + [round(first) + length for first, length in zip(last, latent, strict=True)]

    def _weights(self, window: tuple[int, ...]) -> torch.Tensor:
        """How much each position of a window counts where windows overlap."""
        if self.roi_weight_map is not None:
            return self.roi_weight_map
        return compute_importance_map(window, self.mode, self.sigma_scale)


def turn(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """Mirror (from orientation 4 on), then turn by quarters, the last two axes."""
    mirrored = picture.flip(-1) if orientation >= 4 else picture
    return mirrored.rot90(orientation % 4, (-2, -1))


def turn_back(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """Undo `turn`."""
    back = picture.rot90(-(orientation % 4), (-2, -1))
    return back.flip(-1) if orientation >= 4 else back


def _range(image: torch.Tensor, dimension: int, start: int, stop: int) -> torch.Tensor:
    """A range of an image along a dimension."""
    return image.narrow(dimension, start, stop - start)


def _diffusion_model(network: Callable[..., Any]) -> Any:
    """The network without its wrapper; an error of another one, such as a peer whose own inferer was left out."""
    model = unwrapped(network)
    if not hasattr(model, "scheduler"):
        raise ValueError(
            f"network is a {type(model).__name__}: expected an LDSeg or a CDAL; a peer's overlay comes after "
            "baselines/unet.yaml, which has the inferer of peers"
        )
    return model


def _plain(value: Any) -> Any:
    """A tensor without MONAI's metadata, which would slow down every operation of a network."""
    return value.as_tensor() if hasattr(value, "as_tensor") else value
