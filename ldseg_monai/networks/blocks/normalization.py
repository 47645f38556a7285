"""The normalization layers of every network here."""

from __future__ import annotations

import torch
from monai.networks.layers import get_norm_layer
from torch import nn
from torch.nn import functional

from ldseg_monai.runtime.errors import InputError

NORM = ("group", {"num_groups": 8})  # of every part where nothing else is said


class GroupNorm(nn.GroupNorm):
    """Group normalization that trains fast in the channels-last layout too.

    On a CPU, PyTorch's own takes 20 times as long there as in the channels-first layout, forward
    and backward; this one, which goes over to the other layout and back, 3 times (torch 2.13;
    `benchmarks/speed/normalization.py` measures it).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, *spatial)`` to the same shape and memory layout."""
        last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        detour = self.training and x.is_contiguous(memory_format=last)
        if detour:
            x = x.contiguous()
        x = functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return x.contiguous(memory_format=last) if detour else x


def normalization(norm: tuple | str, spatial_dims: int, channels: int) -> nn.Module:
    """Build a layer from the way MONAI writes it, such as ``("group", {"num_groups": 8})``.

    Raises:
        ValueError: for a number of groups that does not divide the channels.
    """
    groups = norm[1].get("num_groups") if isinstance(norm, (tuple, list)) else None
    if groups and channels % groups:
        raise InputError(
            f"a level has {channels} channels: expected a multiple of {groups}, the groups of its "
            "normalization; change the channels or norm"
        )
    layer: nn.Module = get_norm_layer(norm, spatial_dims, channels)
    if isinstance(layer, nn.GroupNorm):
        layer = GroupNorm(layer.num_groups, channels, layer.eps, layer.affine)
    return layer
