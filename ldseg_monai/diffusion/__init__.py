"""Noise schedules and reverse steps, seeded noise, and the random numbers of a training step."""

from ldseg_monai.diffusion.draws import draw_per_sample
from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.diffusion.schedulers import EvenlySpacedScheduler, PosteriorScheduler

__all__ = ["EvenlySpacedScheduler", "PosteriorScheduler", "draw_per_sample", "seeded_noise"]
