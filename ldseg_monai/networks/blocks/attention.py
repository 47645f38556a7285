"""Self-attention between the positions of a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import ensure_tuple
from torch import nn

from ldseg_monai.runtime.errors import InputError


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, with a shortcut (Zaman et al., Section IV-B).

    MONAI's `SpatialAttentionBlock` in a form that TorchScript compiles.

    Args:
        channels: channels of the feature map.
        num_head_channels: channels of one head; must divide ``channels``.
    """

    def __init__(self, channels: int, num_head_channels: int) -> None:
        super().__init__()
        num_heads = channels // num_head_channels
        self.norm = nn.GroupNorm(num_heads, channels)
        self.attention = nn.MultiheadAttention(channels, num_heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, *spatial)`` to the same shape."""
        # Positions first, contiguous, so that batches of any size round alike.
        tokens = self.norm(x).flatten(2).permute(2, 0, 1).contiguous()  # (positions, B, channels)
        attended = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return x + attended.permute(1, 2, 0).reshape(x.shape)


def attention_heads(
    channels: Sequence[int], attention_levels: Sequence[bool] | None, num_head_channels: int
) -> list[int]:
    """Channels of an attention head in each level, 0 in a level without attention.

    Args:
        channels: channels of each level.
        attention_levels: for each level, whether it has attention; None for nowhere.
        num_head_channels: channels of one head.

    Raises:
        ValueError: for another number of levels, or heads that do not divide the channels.
    """
    if attention_levels is None:
        return [0] * len(channels)
    attention_levels = ensure_tuple(attention_levels)
    if len(attention_levels) != len(channels):
        raise InputError(
            f"attention_levels has {len(attention_levels)} entries: expected one for each of the "
            f"{len(channels)} levels"
        )
    heads = []
    for width, attends in zip(channels, attention_levels, strict=True):
        if attends and width % num_head_channels:
            raise InputError(
                f"num_head_channels is {num_head_channels}: expected a divisor of {width} channels"
            )
        heads.append(num_head_channels if attends else 0)
    return heads
