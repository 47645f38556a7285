"""The random numbers of a reverse process."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Noise(NamedTuple):
    """Everything random in the segmentations of a batch of images.

    Attributes:
        field: numbers that belong to places, ``(draws, 1 or B, samples, C, *latent)``. The first
            draw starts the process; each further one belongs to a stochastic step. One image's
            numbers may stand for all.
        latents: a random latent for the image as a whole, ``(steps, 1 or B, samples, numbers)``; of
            size 0 for a method that has none.
    """

    field: torch.Tensor
    latents: torch.Tensor

    def of_images(self, batch_size: int) -> Noise:
        """The same with numbers for each of a batch of images, ``(draws, B, samples, ...)``."""
        field_rest = [-1] * (self.field.ndim - 2)
        field = self.field.expand([-1, batch_size] + field_rest)
        return Noise(field, self.latents.expand(-1, batch_size, -1, -1))

    def of_samples(self, chosen: slice) -> Noise:
        """The same for chosen samples alone."""
        return Noise(self.field[:, :, chosen], self.latents[:, :, chosen])


def seeded_noise(
    shape: list[int], seed: int, num_samples: int = 1, num_draws: int = 1, at_mean: bool = False
) -> torch.Tensor:
    """Draw the noise of a reverse process, the same on every device and for every batch.

    Sample ``i`` gets the same numbers whatever ``num_samples`` is, and every image of a batch
    shares them, so a mask depends on its image and the seed alone.

    Args:
        shape: ``(C_z, *latent)``.
        seed: any integer.
        num_samples: samples drawn for one image.
        num_draws: 1 for a deterministic process (the start), the number of steps for a stochastic
            one (one more for each step but the last).
        at_mean: whether one sample alone gets the mean of the numbers, 0, in their place. Several,
            whose spread is asked for, are drawn.

    Returns:
        Standard normal float32 numbers on the CPU, ``(num_draws, num_samples, C_z, *latent)``.
    """
    # In one expression: where seeding is a statement of its own, TorchScript may drop it when it
    # optimizes.
    generator = torch.Generator().manual_seed(seed)
    noise = torch.stack(
        [torch.randn([num_draws] + shape, generator=generator) for _ in range(num_samples)], dim=1
    )
    return torch.zeros_like(noise) if at_mean and num_samples == 1 else noise
