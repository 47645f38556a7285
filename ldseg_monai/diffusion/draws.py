"""Every random number of a training step, drawn in one place and passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ldseg_monai.runtime.processes import rank_and_world_size


class Draws(NamedTuple):
    """The random numbers of a training step by Algorithm 1 of Zaman et al. (2024).

    Attributes:
        timesteps: index of each sample's timestep, from 0 to T - 1, ``(B,)``.
        noise: standard normal numbers, ``(B, C_z, *latent)``.
        chance: a number from 0 to 1 for each sample, ``(B,)``: those below a share go without
            something; 1 where nothing is ever left out.
        rollout: whether the noisy latent of each sample is made of the network's own estimate,
            bool ``(B,)``.
    """

    timesteps: torch.Tensor
    noise: torch.Tensor
    chance: torch.Tensor
    rollout: torch.Tensor


class RolloutDraws(NamedTuple):
    """The random numbers of noisy labels that are made as sampling makes them.

    Attributes:
        chance: a number from 0 to 1 for each sample, ``(B,)``, which chooses a share of them.
        latent: ``z`` of the estimate, ``(B, latent_size)``.
        noise: of the label that is estimated from, ``(B, C, *spatial)``.
        fresh: of the reverse step, of the same shape.
    """

    chance: torch.Tensor
    latent: torch.Tensor
    noise: torch.Tensor
    fresh: torch.Tensor


class AdversarialDraws(NamedTuple):
    """The random numbers of a training step by Algorithm 1 of Hejrati et al. (2024).

    Attributes:
        timesteps: index of each sample's timestep, from 0 to T - 1, ``(B,)``.
        latent: ``z``, ``(B, latent_size)``.
        noise: of the noisy label, ``(B, C, *spatial)``.
        noise_of_true: of the reverse step from the true label, of the same shape.
        noise_of_predicted: of the reverse step from the predicted label, of the same shape.
        rollout: numbers of the samples' own estimates; None where none are trained on.
    """

    timesteps: torch.Tensor
    latent: torch.Tensor
    noise: torch.Tensor
    noise_of_true: torch.Tensor
    noise_of_predicted: torch.Tensor
    rollout: RolloutDraws | None

    def to(self, device: torch.device) -> AdversarialDraws:
        """The same on a device."""
        rollout = self.rollout
        if rollout is not None:
            rollout = RolloutDraws(*[tensor.to(device) for tensor in rollout])
        return AdversarialDraws(
            timesteps=self.timesteps.to(device),
            latent=self.latent.to(device),
            noise=self.noise.to(device),
            noise_of_true=self.noise_of_true.to(device),
            noise_of_predicted=self.noise_of_predicted.to(device),
            rollout=rollout,
        )


def draw_training_step(
    batch_size: int,
    noise_shape: list[int],
    num_timesteps: int,
    pure_noise_share: float = 0.0,
    chance: bool = True,
) -> Draws:
    """Draw what a training step needs, on the CPU.

    Args:
        batch_size: samples of this process.
        noise_shape: ``[C_z, *latent]``.
        num_timesteps: T.
        pure_noise_share: share of the samples whose timestep is the last, T; the others get a
            uniform one (0 for the paper).
        chance: whether a chance is drawn; where nothing is left out, that would take numbers from
            the steps after this one.
    """

    def timestep(generator: torch.Generator) -> torch.Tensor:
        uniform = torch.randint(num_timesteps, [], generator=generator)
        is_last = torch.rand([], generator=generator) < pure_noise_share
        return torch.where(is_last, num_timesteps - 1, uniform)

    timesteps = draw_per_sample(batch_size, timestep)
    noise = _normal(batch_size, noise_shape)
    chances = _uniform(batch_size) if chance else torch.ones(batch_size)
    return Draws(timesteps, noise, chances, torch.zeros(batch_size, dtype=torch.bool))


def draw_share(number: int, share: float) -> torch.Tensor:
    """Draw for each sample of a training batch whether it is one of a share: bool ``(number,)``."""
    return _uniform(number) < share


def draw_adversarial_step(
    batch_size: int,
    noise_shape: list[int],
    latent_size: int,
    num_timesteps: int,
    rollout: bool = False,
) -> AdversarialDraws:
    """Draw what a training step of a generator beside a discriminator needs, on the CPU.

    Args:
        batch_size: samples of this process.
        noise_shape: ``[C, *spatial]``.
        latent_size: numbers of the random latent z.
        num_timesteps: T.
        rollout: whether the numbers of `RolloutDraws` are wanted.
    """

    def timestep(generator: torch.Generator) -> torch.Tensor:
        return torch.randint(num_timesteps, [], generator=generator)

    timesteps = draw_per_sample(batch_size, timestep)
    latent = _normal(batch_size, [latent_size])
    noise = _normal(batch_size, noise_shape)
    noise_of_true = _normal(batch_size, noise_shape)
    noise_of_predicted = _normal(batch_size, noise_shape)
    own = _draw_rollout(batch_size, noise_shape, latent_size) if rollout else None
    return AdversarialDraws(timesteps, latent, noise, noise_of_true, noise_of_predicted, own)


def draw_per_sample(number: int, draw: Callable[[torch.Generator], torch.Tensor]) -> torch.Tensor:
    """Draw random numbers for a training batch, those of each sample by a generator of its own.

    They follow from PyTorch's global random state, which has to be the same in every process, and
    from the sample's place in the batch of all processes together: several processes draw what one
    with their whole batch would.

    Args:
        number: samples of this process. Process ``r`` of ``n`` has the places ``r``, ``r + n``...
        draw: makes the numbers of one sample.

    Returns:
        What was drawn, ``(number, ...)``, on the CPU.
    """
    rank, world_size = rank_and_world_size()
    seed = int(torch.randint(2**31, []))
    places = [rank + world_size * sample for sample in range(number)]
    return torch.stack([draw(torch.Generator().manual_seed(seed + place)) for place in places])


def _draw_rollout(batch_size: int, noise_shape: list[int], latent_size: int) -> RolloutDraws:
    chance = _uniform(batch_size)
    latent = _normal(batch_size, [latent_size])
    noise = _normal(batch_size, noise_shape)
    fresh = _normal(batch_size, noise_shape)
    return RolloutDraws(chance, latent, noise, fresh)


def _normal(number: int, shape: list[int]) -> torch.Tensor:
    return draw_per_sample(number, lambda generator: torch.randn(shape, generator=generator))


def _uniform(number: int) -> torch.Tensor:
    return draw_per_sample(number, lambda generator: torch.rand([], generator=generator))
