"""How a diffusion segmenter draws segmentations of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from monai.inferers import Inferer

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.inference.ensemble import summarize
from ldseg_monai.inference.views import AS_IT_IS, View, mirror_images, orientations
from ldseg_monai.networks.segmenter import (
    LARGEST_SEED,
    Callback,
    DiffusionSegmenter,
    diffusion_segmenter,
)
from ldseg_monai.runtime.errors import ArgumentError, InputError, RunError
from ldseg_monai.runtime.precision import Amp, autocast
from ldseg_monai.runtime.processes import plain


class SamplingInferer(Inferer):
    """Draw one or several segmentations of each image.

    The noise depends on the seed and the sample's number alone, so an image gives the same result
    in any batch.

    Args:
        num_samples: segmentations drawn for each image, which is encoded once.
        num_inference_steps: steps of the reverse process; None for the network's own number.
        seed: seed of the noise.
        amp: whether to compute in bfloat16 where autocast deems it safe; "auto" where that is
            faster on the device.
        turned: whether the samples see a picture (2D) in its eight orientations in turn, the first
            one as it is. They then differ by what the network makes of the orientation too, not by
            the noise alone; each orientation is encoded for itself. For pictures that have no top,
            such as histology.
        mirrored_axes: spatial axes, from 0, in whose mirror images the samples see an image in
            turn, likewise: n axes make 2^n views. For axes along which training mirrors.
        callback: is told each state of the reverse processes, as `DiffusionSegmenter.draw` has it.
        keep_samples: whether the class probabilities of each of several samples are returned too,
            4 bytes a class, sample and voxel.

    Raises:
        ValueError: if ``num_samples`` is no whole number from 1 on, or ``seed`` none from 0 to
            `LARGEST_SEED`, or with both ``turned`` and ``mirrored_axes``. A client's requests come
            here as they were sent.
    """

    def __init__(
        self,
        num_samples: int = 1,
        num_inference_steps: int | None = None,
        seed: int = 0,
        amp: Amp = "auto",
        turned: bool = False,
        mirrored_axes: Sequence[int] = (),
        callback: Callback | None = None,
        keep_samples: bool = False,
    ) -> None:
        super().__init__()
        if type(num_samples) is not int or num_samples < 1:
            raise InputError(f"num_samples is {num_samples!r}: expected a whole number, 1 or more")
        if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
            raise InputError(f"seed is {seed!r}: expected a whole number from 0 to {LARGEST_SEED}")
        if turned and mirrored_axes:
            raise InputError(
                f"turned is true and mirrored_axes is {list(mirrored_axes)}: expected one of them; "
                "the eight orientations have all mirror images"
            )
        self.num_samples = num_samples
        self.num_inference_steps = num_inference_steps
        self.seed = seed
        self.amp = amp
        self.turned = turned
        self.mirrored_axes = mirrored_axes
        self.callback = callback
        self.keep_samples = keep_samples

    def seeded_noise(self, network: DiffusionSegmenter, shape: list[int]) -> Noise:
        """Everything random in the segmentations of an image, for a field of noise of a shape."""
        return network.seeded_noise(shape, self.seed, self.num_samples, self.num_inference_steps)

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment.

        Args:
            inputs: images ``(B, in_channels, *spatial)``.
            network: a `DiffusionSegmenter` in eval mode, or one wrapped in
                ``DistributedDataParallel``.
            args: nothing.
            kwargs: ``noise``, a `Noise` in place of the seed's.

        Returns:
            For one sample, class logits ``(B, classes, *spatial)``. For more, class probabilities
            averaged over the samples followed by one channel with their standard deviation,
            ``(B, classes + 1, *spatial)``; both are taken on the network's own grid, where that is
            a coarser one (`DiffusionSegmenter.draw`), and brought up once. With
            ``keep_samples`` the class probabilities of each sample follow, sample after sample as
            they were drawn, ``(B, classes + 1 + num_samples * classes, *spatial)``.

        Raises:
            TypeError: for arguments beside these.
            ValueError: for another network, for views that the image does not have, or for fewer
                samples than views, of which some would not be seen.
            RuntimeError: for logits that are not finite.
        """
        if args or set(kwargs) - {"noise"}:
            got = [*map(type, args), *kwargs]
            raise ArgumentError(f"got {got} beside inputs and network: expected at most noise")
        model, image = diffusion_segmenter(network), plain(inputs)
        noise = kwargs.get("noise")
        if noise is None:
            noise = self.seeded_noise(model, model.noise_shape(image))
        views = self.views(image.ndim - 2)
        with autocast(image.device, self.amp):
            samples: Iterator[torch.Tensor] = map(
                _require_finite, self._draw(model, image, noise, views)
            )
            if self.num_samples == 1:
                return model.enlarge(next(samples))
            kept: list[torch.Tensor] = []
            if self.keep_samples:
                samples = _keep(samples, kept, model)
            mean, deviation = _enlarged(model, *summarize(samples), size=image.shape[2:])
            return torch.cat([mean, deviation, *kept], dim=1)

    def views(self, spatial_dims: int) -> list[View]:
        """How the samples see an image: sample i in view i modulo their number.

        Raises:
            ValueError: as of `__call__`.
        """
        views = [AS_IT_IS]
        if self.turned:
            if spatial_dims != 2:
                raise InputError(
                    f"turned is for pictures: got {spatial_dims} axes, expected 2; set turned to "
                    "false"
                )
            views = orientations()
        elif self.mirrored_axes:
            views = mirror_images(self.mirrored_axes, spatial_dims)
        if self.num_samples < len(views):
            raise InputError(
                f"num_samples is {self.num_samples} with {len(views)} views: expected {len(views)} "
                "or more, so that each is seen"
            )
        return views

    def _draw(
        self, network: DiffusionSegmenter, image: torch.Tensor, noise: Noise, views: list[View]
    ) -> Iterator[torch.Tensor]:
        """The class logits of one sample after the other, on the network's own grid.

        View after view; the noise is turned and mirrored with the image.
        """
        for index, view in enumerate(views):
            chosen = noise.of_samples(slice(index, None, len(views)))
            own = Noise(view.show(chosen.field), chosen.latents)
            seen = view.show(image)
            for logits in network.draw(seen, own, self.num_inference_steps, self.callback):
                yield view.bring_back(logits)


def _keep(
    samples: Iterable[torch.Tensor], kept: list[torch.Tensor], network: DiffusionSegmenter
) -> Iterator[torch.Tensor]:
    """Pass logits on, one sample after the other, and add the probabilities of each to a list."""
    for logits in samples:
        kept.append(network.enlarge(logits).softmax(dim=1, dtype=torch.float32))
        yield logits


def _enlarged(
    network: DiffusionSegmenter,
    mean: torch.Tensor,
    deviation: torch.Tensor,
    size: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring what samples say together from the network's own grid to the image's size.

    The mean probabilities go as logits, as those of one sample do: outlines are the same then.
    """
    if mean.shape[2:] == size:
        return mean, deviation
    smallest = torch.finfo(mean.dtype).tiny
    logits = network.enlarge(mean.clamp(min=smallest).log())
    return logits.softmax(dim=1), network.enlarge(deviation)


def _require_finite(logits: torch.Tensor) -> torch.Tensor:
    """Check logits, of which NaN would become class 0 everywhere.

    Raises:
        RuntimeError: if one is not finite.
    """
    if not logits.sum().isfinite():  # one pass, and no second tensor of their size
        raise RunError(
            "the network gave logits that are not finite (NaN or infinity): expected numbers; take "
            "weights of a training that did not diverge, or --amp False if it is on"
        )
    return logits
