"""The noise of a reverse process."""

from __future__ import annotations

import torch


def seeded_noise(
    shape: list[int], seed: int, num_samples: int = 1, num_draws: int = 1
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

    Returns:
        Standard normal float32 numbers on the CPU, ``(num_draws, num_samples, C_z, *latent)``.
    """
    # In one expression: where seeding is a statement of its own, TorchScript may drop it when it
    # optimizes.
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.randn([num_draws] + shape, generator=generator) for _ in range(num_samples)], dim=1
    )
