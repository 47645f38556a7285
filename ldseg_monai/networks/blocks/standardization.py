"""The last layer of the label encoder: a latent of mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional

from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.processes import rank_and_world_size


class SampleStandardization(nn.Module):
    """Mean 0, standard deviation 1 for each channel of each sample (Zaman et al., Section IV-B)."""

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Standardize ``(B, C_z, *spatial)``, in float32."""
        positions = list(range(2, latent.ndim))
        latent = latent.float()
        centered = latent - latent.mean(dim=positions, keepdim=True)
        return centered * torch.rsqrt(centered.square().mean(dim=positions, keepdim=True) + 1e-5)


class BatchStandardization(nn.Module):
    """Mean 0 and standard deviation 1 for each channel over a batch and all positions.

    That is batch normalization without weights. For images without a common frame, such as fields
    of tissue: no mean picture is worth subtracting there, and a sample's own mean says how much of
    the field is foreground, which standardizing each sample would take away. The batch is that of
    all processes together.

    Args:
        channels: channels of the latent.
        momentum: weight of a new batch in the running statistics, which stand for the batch's in
            eval mode.
    """

    def __init__(self, channels: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.channels = channels
        self.momentum = momentum
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Standardize ``(B, C_z, *spatial)``, in float32; in training, update the statistics."""
        if not torch.jit.is_scripting() and self.training:
            return self._standardize_batch(latent.float())
        return functional.batch_norm(latent.float(), self.mean, self.variance)

    def _standardize_batch(self, latent: torch.Tensor) -> torch.Tensor:
        _, world_size = rank_and_world_size()
        if world_size == 1:
            return functional.batch_norm(
                latent, self.mean, self.variance, training=True, momentum=self.momentum
            )
        # What follows is the same over all processes; PyTorch's own form of it needs GPUs.
        positions = [0, *range(2, latent.ndim)]
        mean = _mean_over_processes(latent.mean(positions, keepdim=True))
        centered = latent - mean
        variance = _mean_over_processes(centered.square().mean(positions, keepdim=True))
        count = world_size * latent[:, 0].numel()
        self.mean.lerp_(mean.detach().flatten(), self.momentum)
        self.variance.lerp_(variance.detach().flatten() * count / (count - 1), self.momentum)
        return centered * torch.rsqrt(variance + 1e-5)


class CaseStandardization(nn.Module):
    """Mean 0 and standard deviation 1 across the training cases.

    Standardized per sample, a latent may be nearly the same picture for every case, and the
    diffusion then has nothing to say. This goes on from there: it subtracts the mean picture of the
    training cases and divides by what spread remains per channel, so that the unit variance is
    variance *between* cases. The statistics are running ones, gathered in training mode from the
    batch of all processes; the per-sample step before them keeps the encoder from gaining by scale
    alone.

    Args:
        channels: channels of the latent.
        latent_shape: spatial shape of the latent in training. The label encoder is not needed to
            segment, so images of any size may still be segmented.
        momentum: weight of a new batch in the running statistics; a large one lets the last few
            cases shake the latent.
    """

    def __init__(self, channels: int, latent_shape: Sequence[int], momentum: float = 0.005) -> None:
        super().__init__()
        self.channels = channels
        self.spatial_dims = len(latent_shape)
        self.momentum = momentum
        self.per_sample = SampleStandardization()
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.register_buffer("mean", torch.zeros(1, channels, *latent_shape))
        self.register_buffer("variance", torch.ones(1, channels, *[1] * len(latent_shape)))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Standardize ``(B, C_z, *latent_shape)``; in training, update the running statistics.

        Raises:
            ValueError: for a latent of another shape.
        """
        if latent.shape[1:] != self.mean.shape[1:]:
            raise InputError(
                f"latent of shape {list(latent.shape[2:])}: expected {list(self.mean.shape[2:])}, "
                "the latent_shape; make it the training image's size over the network's stride"
            )
        latent = self.per_sample(latent)
        if not torch.jit.is_scripting() and self.training:
            self._update(latent.detach())
        return (latent - self.mean) * torch.rsqrt(self.variance + 1e-5)

    def _update(self, latent: torch.Tensor) -> None:
        self.mean.lerp_(_mean_over_processes(latent.mean(dim=0, keepdim=True)), self.momentum)
        positions = [0, *range(2, latent.ndim)]
        spread = (latent - self.mean).square().mean(dim=positions, keepdim=True)
        self.variance.lerp_(_mean_over_processes(spread), self.momentum)


def _mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The mean of what each process has, whose gradient reaches the value of each."""
    _, world_size = rank_and_world_size()
    return all_reduce(value) / world_size if world_size > 1 else value
