"""How a network is told the diffusion timestep."""

from __future__ import annotations

import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import nn


class TimestepEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep followed by a two-layer perceptron (Ho et al., 2020).

    Args:
        frequencies: number of sinusoids; even.
        channels: length of the vector that the residual blocks receive.
    """

    def __init__(self, frequencies: int, channels: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.perceptron = nn.Sequential(
            nn.Linear(frequencies, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Embed integer timesteps of shape ``(B,)`` as ``(B, channels)``."""
        return self.perceptron(get_timestep_embedding(timesteps, self.frequencies))
