"""Self-attention between the positions of a feature map."""

from __future__ import annotations

import torch
from torch import nn


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, with a shortcut (Zaman et al., 2024, Section IV-B).

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
        tokens = (
            self.norm(x).flatten(2).permute(2, 0, 1).contiguous()
        )  # so that each B rounds alike
        attended = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return x + attended.permute(1, 2, 0).reshape(x.shape)
