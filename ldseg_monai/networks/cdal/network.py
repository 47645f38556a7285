"""The whole of cDAL but its discriminator: what is shipped and segments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.diffusion.schedulers import PosteriorScheduler
from ldseg_monai.networks.blocks import one_hot
from ldseg_monai.networks.cdal.generator import CDALGenerator
from ldseg_monai.networks.cdal.labels import label_logits


class CDAL(nn.Module):
    """Conditional diffusion on the label itself in few large steps (Hejrati et al., 2024, Algorithms 1 and 2).

    With a noisy label, ``forward`` is the generator's pass of a training step (so that
    DistributedDataParallel can wrap it); with an image alone it runs the whole reverse process and
    returns class logits. The label is diffused at the image's own size, one channel a class, from
    -1 to 1; images may have any size. `CDALDiscriminator` is no part of it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes of the label, background included.
        channels: channels of each level of the generator's U-Net.
        num_res_blocks: residual blocks in each level, on the way down and on the way up.
        image_channels: channels of the image encoder.
        image_res_blocks: residual blocks of the image encoder.
        latent_size: numbers of the random latent z; 0 for none (the ablation of Table 1).
        attention_levels: levels of the U-Net with self-attention; None for the last.
        num_head_channels: channels of one attention head; must divide the channels of the levels
            with attention.
        norm: normalization as MONAI writes it.
        num_train_timesteps: T, the steps of training and of the reverse process alike (2 or 4 in
            the paper).
        beta_min, beta_max: noise rates of the `variance_preserving` schedule.
        stochastic: whether a reverse step draws from the posterior (Eq. 2) or takes its mean
            (Algorithm 2).
        seed: seed of the noise and the latents when none are passed.

    Raises:
        ValueError: for arguments that contradict each other, before anything is built.

    Example:
        >>> network = CDAL(spatial_dims=2, in_channels=3, out_channels=2, channels=(8, 16), num_head_channels=8).eval()
        >>> network(torch.zeros(1, 3, 32, 47)).shape
        torch.Size([1, 2, 32, 47])
    """

    stride = 1  # of the noise on the image

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 128, 128),
        num_res_blocks: int = 1,
        image_channels: int = 32,
        image_res_blocks: int = 2,
        latent_size: int = 64,
        attention_levels: Sequence[bool] | None = None,
        num_head_channels: int = 32,
        norm: tuple | str = ("group", {"num_groups": 8}),
        num_train_timesteps: int = 4,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        stochastic: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}: expected 2 or 3")
        least_values = (
            ("out_channels", out_channels, 2),
            ("latent_size", latent_size, 0),
            ("num_train_timesteps", num_train_timesteps, 1),
        )
        for name, value, least in least_values:
            if value < least:
                raise ValueError(f"{name} is {value}: expected {least} or more")
        if attention_levels is None:
            attention_levels = [level == len(channels) - 1 for level in range(len(channels))]
        self.out_channels = out_channels
        self.latent_size = latent_size
        self.num_train_timesteps = num_train_timesteps
        self.stochastic = stochastic
        self.seed = seed
        self.scheduler = PosteriorScheduler(
            num_train_timesteps, beta_min=beta_min, beta_max=beta_max
        )
        self.generator = CDALGenerator(
            spatial_dims,
            in_channels,
            out_channels,
            channels=channels,
            num_res_blocks=num_res_blocks,
            image_channels=image_channels,
            image_res_blocks=image_res_blocks,
            latent_size=latent_size,
            attention_levels=attention_levels,
            num_head_channels=num_head_channels,
            norm=norm,
        )
        # Convolutions follow the layout of their weights: channels-last is the faster one on a CPU.
        self.to(memory_format=torch.channels_last if spatial_dims == 2 else torch.channels_last_3d)  # type: ignore[call-overload]

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
            raise ValueError(
                "a noisy label came without timesteps or latent: expected both with it"
            )
        if noisy_label.shape[2:] != image.shape[2:]:
            raise ValueError(
                f"label of size {list(noisy_label.shape[2:])}: expected the image's {list(image.shape[2:])}"
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
        """Run the whole reverse process (Algorithm 2), in one batch for several samples of an image.

        Args:
            image: ``(B, in_channels, *spatial)``.
            noise: ``(draws, num_samples or B * num_samples, out_channels, *spatial)`` as of
                `seeded_noise`; drawn if None.
            latents: ``(T, num_samples or B * num_samples, latent_size)`` as of `seeded_latents`;
                drawn if None.
            num_samples: segmentations of each image, which is encoded once.
            seed: of what is drawn; None for the network's own.

        Returns:
            Class logits ``(B * num_samples, out_channels, *spatial)``, the samples of an image one
            after the other.
        """
        features = self.encode_image(image)
        seed = self.seed if seed is None else seed
        if noise is None:
            noise = seeded_noise(self.noise_shape(image), seed, num_samples, self.num_draws())
        if latents is None:
            latents = self.seeded_latents(seed, num_samples)
        if num_samples > 1:
            features = features.repeat_interleave(num_samples, dim=0)
            noise = noise.repeat([1, features.shape[0] // noise.shape[1]] + [1] * (noise.ndim - 2))
            latents = latents.repeat(1, features.shape[0] // latents.shape[1], 1)
        return label_logits(self.sample_label(features, noise, latents))

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        """Features of images ``(B, in_channels, *spatial)``, which every step and every sample can use."""
        return self.generator.encode_image(image)

    def encode_label(self, label: torch.Tensor) -> torch.Tensor:
        """``x_0`` for class indices ``(B, 1, *spatial)``: 1 where a class is and -1 elsewhere, a channel for each.

        Raises:
            ValueError: if the label has a class that the network does not know.
        """
        return 2.0 * one_hot(label, self.out_channels) - 1

    def sample_label(
        self, features: torch.Tensor, noise: torch.Tensor, latents: torch.Tensor
    ) -> torch.Tensor:
        """Denoise from T to the clean label.

        Args:
            features: of the images, as of `encode_image`.
            noise: ``(draws, 1 or B, out_channels, *spatial)``; the first draw starts the process,
                each further one belongs to a stochastic step.
            latents: ``z`` of each step, ``(T, 1 or B, latent_size)``.

        Returns:
            ``x_0``, ``(B, out_channels, *spatial)``, float32.

        Raises:
            ValueError: if the draws are not one, or one a step if the process is stochastic, or the
                latents not one a step.
        """
        if len(noise) != self.num_draws():
            raise ValueError(
                f"noise has {len(noise)} draws: expected {self.num_draws()} for {self.num_train_timesteps} steps"
            )
        if len(latents) != self.num_train_timesteps:
            raise ValueError(
                f"there are latents of {len(latents)} steps: expected {self.num_train_timesteps}"
            )
        noise = noise.to(features.device).expand(
            [-1, features.shape[0]] + [-1] * (features.ndim - 1)
        )
        latents = latents.to(features.device).expand(-1, features.shape[0], -1)
        label = noise[0]
        for step in range(self.num_train_timesteps):
            now = torch.full(
                [label.shape[0]], self.num_train_timesteps - 1 - step, device=label.device
            )
            clean = self.generator(label, now, latents[step], features).float()
            fresh = noise[step + 1] if step + 1 < len(noise) else None
            label = self.scheduler.sample_previous(clean, label, now, fresh)
        return label

    def seeded_latents(self, seed: int, num_samples: int) -> torch.Tensor:
        """``z`` of each step and sample, ``(T, num_samples, latent_size)``; see `seeded_noise`.

        The seed's complement makes them, so that they are not the numbers that the noise of this
        seed begins with.
        """
        return seeded_noise([self.latent_size], -1 - seed, num_samples, self.num_train_timesteps)

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        """``[out_channels, *spatial]`` for an image ``(B, in_channels, *spatial)``."""
        return [self.out_channels] + list(image.shape[2:])

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        """How many draws of noise the reverse process takes: one, or one a step if it is stochastic.

        Raises:
            ValueError: for a number of steps that the network was not trained for.
        """
        if num_inference_steps is not None and num_inference_steps != self.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}: expected {self.num_train_timesteps}, the steps in "
                "training; set num_train_timesteps and train again"
            )
        return self.num_train_timesteps if self.stochastic else 1
