"""Noise schedules and reverse steps, seeded noise, and the random numbers of a training step."""

from ldseg_monai.diffusion.draws import (
    AdversarialDraws,
    Draws,
    draw_adversarial_step,
    draw_training_step,
)
from ldseg_monai.diffusion.noise import Noise, seeded_noise
from ldseg_monai.diffusion.schedulers import EvenlySpacedScheduler, PosteriorScheduler

__all__ = [
    "AdversarialDraws",
    "Draws",
    "EvenlySpacedScheduler",
    "Noise",
    "PosteriorScheduler",
    "draw_adversarial_step",
    "draw_training_step",
    "seeded_noise",
]
