"""Up-sampling by a transposed convolution, computed where the pixels are few."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SubPixelConvTranspose2d(nn.ConvTranspose2d):
    """The transposed convolution whose kernel is twice its stride, as a convolution of the input.

    Each output pixel has four input pixels under the kernel, all within one of the pixel that it
    lies in. So a 3 x 3 convolution with a channel for each pixel of a stride by stride block gives
    the same numbers (Shi et al., 2016, "Is the deconvolution layer the same as a convolutional
    layer?", arXiv 1609.07009), and takes a CPU a fraction of the time. Weights are those of
    ``nn.ConvTranspose2d(in_channels, out_channels, 2 * stride, stride, stride // 2)``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: factor of the up-sampling, even.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 2 * stride, stride, stride // 2)
        self.factor = stride

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Enlarge ``(B, in_channels, H, W)`` to ``(B, out_channels, stride * H, stride * W)``."""
        s, half = self.factor, self.factor // 2
        # Row k of the kernel, counted from half a stride before it, is row k % s of the block; it
        # sees the input k // s rows before the one after the block's.
        blocks = functional.pad(self.weight, [half] * 4)
        blocks = blocks.reshape(self.in_channels, self.out_channels, 3, s, 3, s).flip(2, 4)
        kernel = blocks.permute(1, 3, 5, 0, 2, 4).reshape(-1, self.in_channels, 3, 3)
        bias = self.bias
        if bias is not None:
            bias = bias.repeat_interleave(s * s)
        return functional.pixel_shuffle(functional.conv2d(x, kernel, bias, padding=1), s)
