"""The whole of cDAL but its discriminator: what is shipped and segments."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from ldseg_monai.diffusion.noise import Noise, seeded_noise
from ldseg_monai.diffusion.schedulers import PosteriorScheduler
from ldseg_monai.networks.blocks import channels_last, check_image, one_hot
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.networks.segmenter import Callback, DiffusionSegmenter, State
from ldseg_monai.runtime.errors import InputError


class CDAL(DiffusionSegmenter):
    """Conditional diffusion on the label itself in few large steps (Hejrati et al., 2024).

    With a noisy label, ``forward`` is the generator's pass of a training step by Algorithm 1 (so
    that DistributedDataParallel can wrap it). With an image alone it runs the whole reverse process
    of Algorithm 2 and returns class logits. The label is diffused at the image's own size, one
    channel a class, from -1 to 1; images may have any size. `CDALDiscriminator` is no part of it.

    Each part can be another one:

    - ``image_encoder(image)`` returns features ``(B, C, *spatial)`` and a list that is not used. It
      has the attributes ``spatial_dims`` and ``in_channels``.
    - ``generator(x_t, timesteps, z, features)`` returns the estimate of ``x_0``. It has the
      attributes ``out_channels``, the classes, and ``latent_size``, the numbers of z.

    Args:
        image_encoder, generator: the parts.
        scheduler: noise schedule, whose T steps are those of training and of the reverse process
            alike (2 or 4 in the paper), and the posterior.
        stochastic: whether a reverse step draws from the posterior (Eq. 2) or takes its mean
            (Algorithm 2).
        samples_in_pass: samples that are denoised in one pass of the generator; None for one on a
            CPU, where that is the fastest and takes the least memory, and for all elsewhere.
        start_at_mean: whether one sample alone starts at the mean of the noise, 0, not at a draw
            (the papers): see `DiffusionSegmenter`.
        seed: seed of the noise and the latents when none are passed.

    Raises:
        ValueError: for parts that do not fit together, or a number below 1.

    Example:
        >>> from ldseg_monai.networks import CDALGenerator, ResidualEncoder
        >>> network = CDAL(
        ...     image_encoder=ResidualEncoder(2, in_channels=3, out_channels=8, channels=(8,)),
        ...     generator=CDALGenerator(2, out_channels=2, channels=(8, 32)),
        ...     scheduler=PosteriorScheduler(num_train_timesteps=2),
        ... ).eval()
        >>> network(torch.zeros(1, 3, 32, 47)).shape
        torch.Size([1, 2, 32, 47])
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        generator: nn.Module,
        scheduler: PosteriorScheduler,
        stochastic: bool = False,
        samples_in_pass: int | None = None,
        start_at_mean: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if samples_in_pass is not None and samples_in_pass < 1:
            raise InputError(f"samples_in_pass is {samples_in_pass}: expected 1 or more")
        encoder: Any = image_encoder
        model: Any = generator
        for attribute, of_image, of_label in (
            ("spatial_dims", encoder.spatial_dims, getattr(model, "spatial_dims", None)),
            ("channels", getattr(encoder, "out_channels", None), getattr(model, "channels", None)),
        ):
            if None not in (of_image, of_label) and of_image != of_label:
                raise InputError(
                    f"image_encoder gives {attribute} {of_image}, the generator's first level has "
                    f"{of_label}: expected the same, since the two are added"
                )
        if getattr(encoder, "stride", 1) != 1:
            raise InputError(
                f"image_encoder has a stride of {encoder.stride}: expected 1, the label's own size"
            )
        self.spatial_dims = int(encoder.spatial_dims)
        self.in_channels = int(encoder.in_channels)
        self.out_channels = int(model.out_channels)
        self.latent_size = int(model.latent_size)
        self.stride = 1
        self.num_train_timesteps = int(scheduler.num_train_timesteps)
        self.num_inference_steps = self.num_train_timesteps
        self.stochastic = stochastic
        self.samples_in_pass = samples_in_pass
        self.seed = seed
        self.start_at_mean = start_at_mean
        self.image_encoder = image_encoder
        self.generator = generator
        self.scheduler = scheduler
        channels_last(self, self.spatial_dims)

    def forward(
        self,
        image: torch.Tensor,
        noisy_label: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
        latent: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict the clean label of a noisy one, or segment an image.

        Args:
            image: ``(B, in_channels, *spatial)``.
            noisy_label: ``x_t``, ``(B, out_channels, *spatial)``; None to segment.
            timesteps: with a noisy label, indices from 0 to T - 1, ``(B,)``.
            latent: with a noisy label, ``z``, ``(B, latent_size)``.

        Returns:
            With a noisy label, the estimate of ``x_0``, ``(B, out_channels, *spatial)``; without
            one, class logits of the same shape.

        Raises:
            ValueError: for a label of another size than the image, or one that came alone.
        """
        if noisy_label is None:
            return self.segment(image)
        if timesteps is None or latent is None:
            raise InputError(
                "a noisy label came without timesteps or latent: expected both with it"
            )
        if noisy_label.shape[2:] != image.shape[2:]:
            raise InputError(
                f"label of size {list(noisy_label.shape[2:])}: expected the image's "
                f"{list(image.shape[2:])}"
            )
        return self.generator(noisy_label, timesteps, latent, self.encode_image(image))

    def segment(
        self,
        image: torch.Tensor,
        noise: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        num_samples: int = 1,
        seed: int | None = None,
    ) -> torch.Tensor:
        """Run the whole reverse process (Algorithm 2): see `DiffusionSegmenter.segment`."""
        features = self.encode_image(image)
        seed = self.seed if seed is None else seed
        if noise is None:
            shape, draws = self.noise_shape(image), self.num_draws()
            noise = seeded_noise(shape, seed, num_samples, draws, self.start_at_mean)
        if latents is None:
            # As of `seeded_latents`, in one expression for TorchScript: see `seeded_noise`.
            steps = self.num_train_timesteps
            size = [self.latent_size]
            latents = seeded_noise(size, -1 - seed, num_samples, steps, self.start_at_mean)
        if num_samples > 1:
            features = features.repeat_interleave(num_samples, dim=0)
            noise = noise.repeat([1, features.shape[0] // noise.shape[1]] + [1] * (noise.ndim - 2))
            latents = latents.repeat(1, features.shape[0] // latents.shape[1], 1)
        return label_logits(self.sample_label(features, noise, latents))

    def draw(
        self,
        image: torch.Tensor,
        noise: Noise,
        num_inference_steps: int | None = None,
        callback: Callback | None = None,
    ) -> Iterator[torch.Tensor]:
        """Segment images: see `DiffusionSegmenter.draw`.

        ``samples_in_pass`` samples are denoised at once, since a label is as large as the image.
        """
        batch_size, num_samples = len(image), noise.field.shape[2]
        self.num_draws(num_inference_steps)  # which has an error of another number of steps
        features = self.encode_image(image)
        in_pass = self.samples_in_pass or (1 if image.device.type == "cpu" else num_samples)
        told = None if callback is None else partial(self._tell, callback)
        noise = noise.of_images(batch_size)
        for first in range(0, num_samples, in_pass):
            field, latents = noise.of_samples(slice(first, first + in_pass))
            number = field.shape[2]
            repeated = features.repeat_interleave(number, dim=0)
            field, latents = field.flatten(1, 2), latents.flatten(1, 2)  # (draws, B * number, ...)
            labels = label_logits(self.sample_label(repeated, field, latents, told))
            yield from labels.unflatten(0, (batch_size, number)).unbind(1)

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Features of images ``(B, in_channels, *spatial)``, which every step and sample uses."""
        check_image(image, self.spatial_dims, self.in_channels)
        return self.image_encoder(image)[0]

    def encode_label(self, label: torch.Tensor) -> torch.Tensor:
        """``x_0`` for class indices ``(B, 1, *spatial)``, ``(B, out_channels, *spatial)``.

        It is 1 where a class is and -1 elsewhere.

        Raises:
            ValueError: if the label has a class that the network does not know.
        """
        return 2.0 * one_hot(label, self.out_channels) - 1

    def sample_label(
        self,
        features: torch.Tensor,
        noise: torch.Tensor,
        latents: torch.Tensor,
        told: Any = None,
    ) -> torch.Tensor:
        """Denoise from T to the clean label (Algorithm 2).

        Args:
            features: of the images, as of `encode_image`.
            noise: ``(draws, 1 or B, out_channels, *spatial)``; the first draw starts the process,
                each further one belongs to a stochastic step.
            latents: ``z`` of each step, ``(T, 1 or B, latent_size)``.
            told: called with the paper's t and the noisy label, before each step and at the end.

        Returns:
            ``x_0``, ``(B, out_channels, *spatial)``, float32.

        Raises:
            ValueError: if the draws are not one, or one a step if the process is stochastic, or the
                latents not one a step.
        """
        steps = self.num_train_timesteps
        if len(noise) != self.num_draws():
            raise InputError(
                f"noise has {len(noise)} draws: expected {self.num_draws()} for {steps} steps"
            )
        if len(latents) != steps:
            raise InputError(f"there are latents of {len(latents)} steps: expected {steps}")
        batch_size = features.shape[0]
        noise = noise.to(features.device).expand([-1, batch_size] + [-1] * (features.ndim - 1))
        latents = latents.to(features.device).expand(-1, batch_size, -1)
        label = noise[0]  # x_T is all noise
        for step in range(steps):
            index = steps - 1 - step
            if not torch.jit.is_scripting() and told is not None:
                told(index + 1, label)
            now = torch.full([label.shape[0]], index, device=label.device)
            # 1. Estimate x_0 beside the image.
            clean = self.generator(label, now, latents[step], features).float()
            # 2. Go to x_{t-1} by the posterior, drawn or its mean.
            fresh = noise[step + 1] if step + 1 < len(noise) else None
            label = self.scheduler.sample_previous(clean, label, now, fresh)
        if not torch.jit.is_scripting() and told is not None:
            told(0, label)
        return label

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        """``[out_channels, *spatial]`` for an image ``(B, in_channels, *spatial)``."""
        return [self.out_channels] + list(image.shape[2:])

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        """How many draws of noise the process takes: one, or one a step if it is stochastic.

        Raises:
            ValueError: for a number of steps that the network was not trained for.
        """
        steps = self.num_train_timesteps
        if num_inference_steps is not None and num_inference_steps != steps:
            raise InputError(
                f"num_inference_steps is {num_inference_steps}: expected {steps}, the steps in "
                "training; set num_train_timesteps and train again"
            )
        return steps if self.stochastic else 1

    @classmethod
    def check_steps(cls, num_inference_steps: int, num_train_timesteps: int) -> None:
        """Check a number of reverse steps before a network is built.

        Raises:
            ValueError: if they are not those of training.
        """
        if num_inference_steps != num_train_timesteps:
            raise InputError(
                f"num_inference_steps is {num_inference_steps}: expected {num_train_timesteps}, "
                "the steps in training; set num_train_timesteps and train again"
            )

    def _tell(self, callback: Any, timestep: int, label: torch.Tensor) -> None:
        callback(State(timestep, label, label_logits))
