"""An image encoder for pictures that can start from what ImageNet taught it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks import (
    NORM,
    ResidualBlock,
    SelfAttention,
    attention_heads,
    check_widths,
)
from ldseg_monai.networks.blocks.efficientnet import LEVELS, EfficientNetLite
from ldseg_monai.runtime.errors import InputError

STRIDE = 16  # of the embedding in the picture, where nothing else is said
FINEST = 8  # stride of the finer of the two features, in the picture that the backbone sees


class EfficientNetEncoder(nn.Module):
    """Picture to embedding by the first five stages of EfficientNet-Lite.

    They can start from ImageNet's weights. They see the picture at half its size: a gland is many
    times larger than the objects that ImageNet's pictures show, and a pass takes a quarter of the
    time. Features of two strides, 16 and 32 pixels of the picture, are added, and residual blocks
    and self-attention follow, as in LDSeg's own encoder. For objects of few pixels, such as nuclei,
    the picture is seen as it is, and features of smaller strides are added.

    Args:
        out_channels: channels of the embedding.
        channels: channels of what follows the backbone.
        num_res_blocks: residual blocks that follow it.
        attends: whether self-attention follows those.
        num_head_channels: channels of one attention head.
        norm: normalization of what follows the backbone, as MONAI writes it.
        in_channels: 3, or 1 of gray pictures, whose channel the backbone sees three times.
        stride: of the embedding in the picture: 8, 4 or 2 times the reduction.
        reduction: by how much the picture is made smaller for the backbone: 2 or 1.
        version: of EfficientNet-Lite: 0, or 1 and 2, which are larger.

    Raises:
        ValueError: for heads that do not divide the channels, other pictures than gray or color
            ones, or a stride, a reduction or a version that there is not.
    """

    spatial_dims = 2

    def __init__(
        self,
        out_channels: int,
        channels: int,
        num_res_blocks: int = 1,
        attends: bool = True,
        num_head_channels: int = 32,
        norm: tuple | str = NORM,
        in_channels: int = 3,
        stride: int = STRIDE,
        reduction: int = 2,
        version: int = 0,
    ) -> None:
        super().__init__()
        check_widths(out_channels=out_channels, channels=channels)
        if in_channels not in (1, 3):
            raise InputError(f"in_channels {in_channels}: expected 1 or 3")
        if reduction not in (1, 2):
            raise InputError(f"reduction is {reduction}: expected 1 or 2")
        strides = [reduction * FINEST // 2**level for level in range(LEVELS - 1)]
        if stride not in strides:
            raise InputError(
                f"stride is {stride}: expected one of {strides}, at a reduction of {reduction}"
            )
        self.stride = stride
        self.reduction = reduction
        self.in_channels = in_channels
        self.out_channels = out_channels
        (head_channels,) = attention_heads([channels], [attends], num_head_channels)
        self.backbone = EfficientNetLite(version)
        given = self.backbone.channels
        self.from_fine = nn.Conv2d(given[-2], channels, kernel_size=1)
        self.from_coarse = nn.ConvTranspose2d(given[-1], channels, kernel_size=2, stride=2)
        num_finer = strides.index(stride)
        self.finer = nn.ModuleList(
            _Finer(given[-3 - level], channels) for level in range(num_finer)
        )
        self.feature_channels = [*given[: LEVELS - 2 - num_finer], channels]
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
            The embedding, ``(B, out_channels, H / stride, W / stride)``, and features for a
            decoder, the finest first: the backbone's of `feature_channels` at 2, 4, ... times the
            reduction, and those of which the embedding is made.
        """
        image = functional.avg_pool2d(image, self.reduction).expand(-1, 3, -1, -1)
        features = self.backbone(image)
        x = _added(self.from_fine(features[-2]), self.from_coarse(features[-1]))
        index = len(features) - 3  # TorchScript enumerates no list beside a ModuleList
        for level in self.finer:
            x = level(x, features[index])
            index -= 1
        x = self.blocks(x)
        shown = features[: len(self.feature_channels) - 1]
        shown.append(x)
        return self.to_latent(x), shown


class _Finer(nn.Module):
    """Up-sampling by 2, and a sum with the backbone's features of that size."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, channels, kernel_size=1)
        self.upsample = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)

    def forward(self, x: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
        return _added(self.project(feature), self.upsample(x))


def _added(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """The sum; the backbone rounds sizes up, so that what was up-sampled may be larger."""
    return fine + coarse[:, :, : fine.shape[2], : fine.shape[3]]
