"""The image encoder of SegDiff."""

from __future__ import annotations

import torch
from monai.networks.layers import Conv
from torch import nn

from ldseg_monai.networks.blocks import check_spatial_dims
from ldseg_monai.runtime.errors import InputError

SHARE = 0.2  # of a block's output that is added to its input (Wang et al., 2018, Section 3.1)


class DenseBlock(nn.Module):
    """Five convolutions, each on the input and the outputs of all before it.

    That is the dense block of Wang et al. (2018, ESRGAN, Figure 4), without normalization.

    Args:
        spatial_dims: 2 or 3.
        channels: of input and output.
        growth: channels that each of the first four convolutions adds.
    """

    def __init__(self, spatial_dims: int, channels: int, growth: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        widths = [growth] * 4 + [channels]
        self.convolutions = nn.ModuleList(
            conv(channels + index * growth, width, kernel_size=3, padding=1)
            for index, width in enumerate(widths)
        )
        self.activation = nn.LeakyReLU(0.2)
        self.share = SHARE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, *spatial)`` to the same shape."""
        outputs = [x]
        for convolution in self.convolutions:
            if len(outputs) > 1:
                outputs[-1] = self.activation(outputs[-1])
            outputs.append(convolution(torch.cat(outputs, dim=1)))
        return x + self.share * outputs[-1]


class RRDBEncoder(nn.Module):
    """Residual-in-residual dense blocks at the image's own size: G of SegDiff.

    Amit et al. (2021, arXiv 2112.00390), Section 3.2: the image is encoded by the RRDBs of Wang et
    al. (2018), and its features are added to those of the noisy label. The adding, and the
    convolution before it, are the denoiser's first layer.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the features.
        num_blocks: RRDBs, of three dense blocks each (12 in the paper for MoNuSeg).
        growth: as of `DenseBlock`.

    Raises:
        ValueError: for fewer than one block.
    """

    stride = 1

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 12,
        growth: int = 32,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        if num_blocks < 1:
            raise InputError(f"num_blocks is {num_blocks}: expected 1 or more")
        conv = Conv[Conv.CONV, spatial_dims]
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.share = SHARE
        self.from_image = conv(in_channels, out_channels, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DenseBlock(spatial_dims, out_channels, growth) for _ in range(3)))
            for _ in range(num_blocks)
        )
        self.to_features = conv(out_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``, and a list.

        Returns:
            The features, and an empty list.
        """
        first = self.from_image(image)
        x = first
        for block in self.blocks:
            x = x + self.share * block(x)
        others: list[torch.Tensor] = []
        return first + self.to_features(x), others
