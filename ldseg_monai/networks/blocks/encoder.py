"""The encoder shape that the label encoder and the image encoder share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from torch import nn
from torch.nn import functional

from .attention import SelfAttention
from .residual import ResidualBlock


class ResidualEncoder(nn.Module):
    """Residual U-Net encoder without skip connections (Zaman et al., 2024, Section IV-B).

    A stem that cuts the image into patches of ``stem_stride`` voxels (a convolution whose kernel
    equals its stride, which is space-to-depth followed by a 1-wide convolution) stands for the
    first ``log2(stem_stride)`` down-samplings; each further level halves the size once more. So the
    output is smaller by ``stem_stride * 2 ** (len(channels) - 1)``.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the latent.
        channels: channels of each level, from the largest to the smallest image.
        stem_stride: side of a stem patch in voxels; 1 keeps the full resolution (the paper).
        num_res_blocks: residual blocks in each level.
        attention_levels: for each level, whether self-attention follows its blocks.
        num_head_channels: channels of one attention head.
        norm: normalization as MONAI writes it.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        stem_stride: int,
        num_res_blocks: int,
        attention_levels: Sequence[bool],
        num_head_channels: int,
        norm: tuple | str,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.levels = nn.ModuleList()
        previous, stride = in_channels, stem_stride
        for width, attends in zip(channels, attention_levels, strict=True):
            kernel_size, padding = (3, 1) if stride == 1 else (stride, 0)
            blocks: list[nn.Module] = [conv(previous, width, kernel_size, stride, padding)]
            blocks += [
                ResidualBlock(spatial_dims, width, width, norm) for _ in range(num_res_blocks)
            ]
            if attends:
                blocks.append(SelfAttention(width, num_head_channels))
            self.levels.append(nn.Sequential(*blocks))
            previous, stride = width, 2
        self.to_latent = conv(previous, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``(B, in_channels, *spatial)`` to the latent and to what each level made of the input.

        Returns:
            The latent, ``(B, out_channels, *spatial / total stride)``, and the output of each
            level, from the largest to the smallest, ``(B, channels[i], *spatial / stem_stride /
            2**i)``.
        """
        features: list[torch.Tensor] = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return self.to_latent(x), features


class Downsampling(nn.Module):
    """Nearest-neighbor down-sampling in the place of an encoder, for the ablation of Zaman et al. (2024), Table V.

    Args:
        in_channels: channels of the input.
        out_channels: channels wanted.
        stride: by how much the output is smaller.

    Raises:
        ValueError: if the channels differ.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels != in_channels:
            raise ValueError(
                f"{out_channels} channels wanted of what is not encoded: expected its own {in_channels}; set "
                "latent_channels to out_channels for a label, embedding_channels to in_channels for an image"
            )
        self.stride = stride

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``(B, C, *spatial)`` to ``(B, C, *spatial / stride)``, and no features."""
        features: list[torch.Tensor] = []
        size = [side // self.stride for side in x.shape[2:]]
        return functional.interpolate(x, size=size, mode="nearest-exact"), features
