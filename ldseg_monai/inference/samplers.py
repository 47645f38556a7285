"""How a diffusion network draws segmentations of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai.inferers import Inferer

from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.inference.ensemble import summarize
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.networks.cdal.network import CDAL
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.networks.segmenter import diffusion_model
from ldseg_monai.runtime.precision import autocast
from ldseg_monai.runtime.processes import plain

ALL = slice(None)
ORIENTATIONS = 8  # of a picture: four quarter turns, and their mirror images


class SamplingInferer(Inferer):
    """Draw one or several segmentations of each image.

    The noise depends on the seed and the sample's number alone, so an image gives the same result
    in any batch.

    Args:
        num_samples: segmentations drawn for each image; the image is encoded once and the latents
            are denoised in one batch.
        num_inference_steps: steps of the reverse process; None for the network's own number.
        seed: seed of the noise.
        amp: whether to compute in bfloat16 where autocast deems it safe.
        turned: whether the samples see a picture (2D) in its eight orientations in turn, the first
            one as it is. They then differ by what the network makes of the orientation too, not by
            the noise alone; each orientation is encoded for itself. For pictures that have no top,
            such as histology.

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
        return seeded_noise(
            shape, self.seed, self.num_samples, network.num_draws(self.num_inference_steps)
        )

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment.

        Args:
            inputs: images ``(B, in_channels, *spatial)``.
            network: an `LDSeg` (of `CDALSamplingInferer`, a `CDAL`) in eval mode, or one wrapped in
                ``DistributedDataParallel``.
            args: nothing.
            kwargs: ``noise`` ``(draws, num_samples or B * num_samples, C_z, *latent)`` instead of
                the seed's; cDAL's latent is the label itself, ``classes`` channels in the image's
                size.

        Returns:
            For one sample, class logits ``(B, classes, *spatial)``. For more, class probabilities
            averaged over the samples followed by one channel with their standard deviation, ``(B,
            classes + 1, *spatial)``.

        Raises:
            TypeError: for arguments beside these.
            ValueError: for another network, or for volumes, where they are to be turned.
        """
        if args or set(kwargs) - {"noise"}:
            raise TypeError(
                f"got {[*map(type, args), *kwargs]} beside inputs and network: expected at most noise"
            )
        model = diffusion_model(network)
        image = plain(inputs)
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

    def _draw_turned(
        self, network: Any, image: torch.Tensor, noise: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """As `_draw`, orientation after orientation; the noise is turned with the image."""
        if image.ndim != 4:
            raise ValueError(
                f"turned is for pictures: got {image.ndim - 2} axes, expected 2; set turned to false"
            )
        for index in range(min(ORIENTATIONS, self.num_samples)):
            turned_image, turned_noise = (turn(tensor, index) for tensor in (image, noise))
            chosen = slice(index, None, ORIENTATIONS)
            yield from (
                turn_back(logits, index)
                for logits in self._draw(network, turned_image, turned_noise, chosen)
            )


class CDALSamplingInferer(SamplingInferer):
    """Draw one or several segmentations of each image with cDAL (Hejrati et al., 2024, Algorithm 2 and Section 3.2).

    The image is encoded once. Noise and random latents depend on the seed and the sample's number
    alone, so an image gives the same result in any batch.

    Args:
        args: as of `SamplingInferer`; the steps are None or the network's own.
        samples_in_pass: samples that are denoised in one pass of the network; None for one on a
            CPU, where that is the fastest and takes the least memory, and for all of them
            elsewhere.
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
        for own, own_latents in zip(
            noise.split(in_pass, dim=2), latents.split(in_pass, dim=2), strict=True
        ):
            number = own.shape[2]
            repeated = features.repeat_interleave(number, dim=0)
            labels = network.sample_label(repeated, own.flatten(1, 2), own_latents.flatten(1, 2))
            yield from label_logits(labels).unflatten(0, (len(image), number)).unbind(1)


def turn(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """Mirror (from orientation 4 on), then turn by quarters, the last two axes."""
    mirrored = picture.flip(-1) if orientation >= 4 else picture
    return mirrored.rot90(orientation % 4, (-2, -1))


def turn_back(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """Undo `turn`."""
    back = picture.rot90(-(orientation % 4), (-2, -1))
    return back.flip(-1) if orientation >= 4 else back
