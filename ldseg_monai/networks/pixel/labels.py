"""What is diffused in the place of a latent: the label itself, or its distances."""

from __future__ import annotations

from typing import Any

import torch
from monai.transforms.utils import distance_transform_edt
from torch import nn

from ldseg_monai.networks.blocks import check_spatial_dims
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.runtime.errors import InputError


class OneHotLabel(nn.Module):
    """The label itself, one channel a class, -1 where it is not and 1 where it is.

    It stands in the place of LDSeg's label encoder, and makes of it a diffusion of pixels.

    Args:
        spatial_dims: 2 or 3.
        in_channels: classes, background included.
    """

    stride = 1

    def __init__(self, spatial_dims: int, in_channels: int) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = in_channels

    def forward(self, label: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map one-hot classes ``(B, classes, *spatial)`` to -1 and 1, and an empty list."""
        features: list[torch.Tensor] = []
        return 2 * label - 1, features


class OneHotLogits(nn.Module):
    """Class logits of a diffused one-hot label, in the place of LDSeg's label decoder.

    Args:
        latent_channels, out_channels: classes, background included.

    Raises:
        ValueError: if the two differ.
    """

    stride = 1

    def __init__(self, latent_channels: int, out_channels: int) -> None:
        super().__init__()
        _check_one_a_class(latent_channels, out_channels)
        self.latent_channels = latent_channels
        self.out_channels = out_channels
        self.temperature: torch.Tensor
        self.register_buffer("temperature", torch.ones(()))

    def forward(
        self, label: torch.Tensor, features: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Map ``(B, classes, *spatial)`` from -1 to 1 to logits of the same shape."""
        return label_logits(label) / self.temperature

    @torch.jit.unused
    def scale_logits(self, temperature: float) -> None:
        """Divide the logits by a temperature from now on."""
        self.temperature.mul_(temperature)


class SignedDistance(nn.Module):
    """Truncated signed distances of each class, in the place of LDSeg's label encoder.

    That is the label of SDF-DDPM (Bogensperger et al., 2023, "Score-based generative models for
    medical image segmentation using signed distance functions", Section 3), one channel a class.
    The distance from a pixel's center to the outline, half a pixel before the nearest pixel on the
    other side, is positive inside; it is cut off and divided by the truncation. A class that is
    nowhere is at its full distance.

    Args:
        spatial_dims: 2 or 3.
        in_channels: classes, background included.
        truncation: pixels, or voxels, beyond which all distances are alike.

    Raises:
        ValueError: for a truncation below 1.
    """

    stride = 1

    def __init__(self, spatial_dims: int, in_channels: int, truncation: float = 10.0) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        if truncation < 1:
            raise InputError(f"truncation is {truncation}: expected 1 pixel or more")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = in_channels
        self.truncation = truncation

    @torch.jit.unused
    def forward(self, label: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map one-hot classes ``(B, classes, *spatial)`` to -1 to 1, and an empty list."""
        masks = label.flatten(0, 1) > 0.5  # (B * classes, *spatial)
        distances = torch.stack([self._distance(mask) for mask in masks]).to(label)
        features: list[torch.Tensor] = []
        return distances.unflatten(0, label.shape[:2]), features

    def _distance(self, mask: torch.Tensor) -> torch.Tensor:
        sign = 2.0 * mask.float() - 1
        if mask.all() or not mask.any():
            return sign
        inside, outside = (_distance_inside(side) for side in (mask, ~mask))
        distance = (inside + outside - 0.5) * sign  # of the two, one is 0 at each pixel
        return distance.clamp(-self.truncation, self.truncation) / self.truncation


class DistanceLogits(nn.Module):
    """Class logits of signed distances, in the place of LDSeg's label decoder.

    A logit is the distance in pixels: a pixel whose center is half a pixel within the outline of
    one of two classes has a probability of 0.73.

    Args:
        latent_channels, out_channels: classes, background included.
        truncation: as of `SignedDistance`.

    Raises:
        ValueError: if the numbers of classes differ.
    """

    stride = 1

    def __init__(self, latent_channels: int, out_channels: int, truncation: float = 10.0) -> None:
        super().__init__()
        _check_one_a_class(latent_channels, out_channels)
        self.latent_channels = latent_channels
        self.out_channels = out_channels
        self.truncation: torch.Tensor
        self.register_buffer("truncation", torch.tensor(float(truncation)))

    def forward(
        self, distance: torch.Tensor, features: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Map distances ``(B, classes, *spatial)`` from -1 to 1 to logits of the same shape."""
        return distance * self.truncation

    @torch.jit.unused
    def scale_logits(self, temperature: float) -> None:
        """Divide the logits by a temperature from now on."""
        self.truncation.div_(temperature)


def _distance_inside(mask: torch.Tensor) -> torch.Tensor:
    """Of each pixel of a mask to the nearest one outside, 0 outside."""
    distance: Any = distance_transform_edt(mask[None].float())
    return distance[0].float()


def _check_one_a_class(latent_channels: int, out_channels: int) -> None:
    if latent_channels != out_channels:
        raise InputError(
            f"latent_channels is {latent_channels} and out_channels {out_channels}: expected the "
            "same, one channel a class"
        )
