"""An image encoder for pictures that can start from what ImageNet taught it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks import NORM, ResidualBlock, SelfAttention, attention_heads
from ldseg_monai.networks.blocks.efficientnet import CHANNELS, EfficientNetLite0
from ldseg_monai.runtime.errors import InputError

STRIDE = 16  # of the embedding in the picture, which the backbone sees at half its size


class EfficientNetEncoder(nn.Module):
    """Picture to embedding by the first eleven blocks of EfficientNet-Lite0.

    They can start from ImageNet's weights. It sees the picture at half its size: a gland is many
    times larger than the objects that ImageNet's pictures show, and a pass takes a quarter of the
    time. Features of two strides, 16 and 32 pixels of the picture, are added, and residual blocks
    and self-attention follow, as in LDSeg's own encoder.

    Args:
        out_channels: channels of the embedding.
        channels: channels of what follows the backbone.
        num_res_blocks: residual blocks that follow it.
        attends: whether self-attention follows those.
        num_head_channels: channels of one attention head.
        norm: normalization of what follows the backbone, as MONAI writes it.
        in_channels: 3, or 1 of gray pictures, whose channel the backbone sees three times.

    Raises:
        ValueError: for heads that do not divide the channels, or other pictures than gray or color
            ones.
    """

    spatial_dims = 2
    stride = STRIDE

    def __init__(
        self,
        out_channels: int,
        channels: int,
        num_res_blocks: int = 1,
        attends: bool = True,
        num_head_channels: int = 32,
        norm: tuple | str = NORM,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise InputError(f"in_channels {in_channels}: expected 1 or 3")
        self.in_channels = in_channels
        self.out_channels = out_channels
        (head_channels,) = attention_heads([channels], [attends], num_head_channels)
        self.backbone = EfficientNetLite0()
        self.from_fine = nn.Conv2d(CHANNELS[-2], channels, kernel_size=1)
        self.from_coarse = nn.ConvTranspose2d(CHANNELS[-1], channels, kernel_size=2, stride=2)
        blocks: list[nn.Module] = [
            ResidualBlock(2, channels, channels, norm) for _ in range(num_res_blocks)
        ]
        if head_channels:
            blocks.append(SelfAttention(channels, head_channels))
        self.blocks = nn.Sequential(*blocks)
        self.to_latent = nn.Conv2d(channels, out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Encode.

        Args:
            image: pictures of -1 to 1, ``(B, in_channels, H, W)``.

        Returns:
            The embedding, ``(B, out_channels, H / 16, W / 16)``, and no features.
        """
        features: list[torch.Tensor] = []
        image = functional.avg_pool2d(image, kernel_size=2).expand(-1, 3, -1, -1)
        _, _, fine, coarse = self.backbone(image)
        x = self.from_fine(fine) + self.from_coarse(coarse)[:, :, : fine.shape[2], : fine.shape[3]]
        return self.to_latent(self.blocks(x)), features
