"""What encodes a label or an image, and what stands in for it where nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from monai.networks.layers import Conv
from torch import nn
from torch.nn import functional

from ldseg_monai.runtime.errors import InputError

from .attention import SelfAttention, attention_heads
from .normalization import NORM
from .residual import ResidualBlock


class ResidualEncoder(nn.Module):
    """Residual U-Net encoder without skip connections (Zaman et al., 2024, Eq. 9 and 10).

    A stem that cuts the image into patches of ``stem_stride`` voxels (a convolution whose kernel
    equals its stride, which is space-to-depth followed by a 1-wide convolution) stands for the
    first ``log2(stem_stride)`` down-samplings; each further level halves the size once more. So the
    output is smaller by ``stride = stem_stride * 2 ** (len(channels) - 1)``.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of an image, or classes of a one-hot label.
        out_channels: channels of the embedding, or of the latent (1 in the paper).
        channels: channels of each level, from the largest to the smallest size.
        stem_stride: side of a stem patch in voxels; 1 keeps the full resolution (the paper).
        num_res_blocks: residual blocks in each level; several numbers, one a level. A level of 0 is
            its convolution alone, which is cheap at the full size.
        attention_levels: for each level, whether self-attention follows its blocks; None for
            nowhere (the paper has it in the last two levels of the image encoder).
        num_head_channels: channels of one attention head.
        norm: normalization as MONAI writes it.

    Raises:
        ValueError: for arguments that contradict each other, before anything is built.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        stem_stride: int = 1,
        num_res_blocks: int | Sequence[int] = 1,
        attention_levels: Sequence[bool] | None = None,
        num_head_channels: int = 32,
        norm: tuple | str = NORM,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        check_stem(stem_stride)
        check_widths(in_channels=in_channels, out_channels=out_channels)
        check_levels(channels)
        heads = attention_heads(channels, attention_levels, num_head_channels)
        numbers = blocks_by_level(num_res_blocks, channels)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.feature_channels = list(channels)
        self.stride = stem_stride * 2 ** (len(channels) - 1)
        conv = Conv[Conv.CONV, spatial_dims]
        self.levels = nn.ModuleList()
        previous, stride = in_channels, stem_stride
        for width, head_channels, number in zip(channels, heads, numbers, strict=True):
            kernel_size, padding = (3, 1) if stride == 1 else (stride, 0)
            blocks: list[nn.Module] = [conv(previous, width, kernel_size, stride, padding)]
            blocks += [ResidualBlock(spatial_dims, width, width, norm) for _ in range(number)]
            if head_channels:
                blocks.append(SelfAttention(width, head_channels))
            self.levels.append(nn.Sequential(*blocks))
            previous, stride = width, 2
        self.to_latent = conv(previous, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``(B, in_channels, *spatial)`` to the latent and to what each level made of it.

        Returns:
            The latent, ``(B, out_channels, *spatial / stride)``, and the output of each level, from
            the largest to the smallest, ``(B, channels[i], *spatial / stem_stride / 2**i)``.
        """
        features: list[torch.Tensor] = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return self.to_latent(x), features


class Downsampling(nn.Module):
    """Nearest-neighbor down-sampling in the place of an encoder (Zaman et al., 2024, Table V).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input, and of the output.
        stride: by how much the output is smaller.
    """

    def __init__(self, spatial_dims: int, in_channels: int, stride: int) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = in_channels
        self.feature_channels: list[int] = []
        self.stride = stride

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``(B, C, *spatial)`` to ``(B, C, *spatial / stride)``, and no features."""
        features: list[torch.Tensor] = []
        size = [side // self.stride for side in x.shape[2:]]
        return functional.interpolate(x, size=size, mode="nearest-exact"), features


def blocks_by_level(num_res_blocks: int | Sequence[int], channels: Sequence[int]) -> list[int]:
    """The residual blocks of each level, from one number for all or one for each.

    Raises:
        ValueError: for another count than that of the levels.
    """
    if isinstance(num_res_blocks, int):
        return [num_res_blocks] * len(channels)
    if len(num_res_blocks) != len(channels):
        raise InputError(
            f"num_res_blocks has {len(num_res_blocks)} entries: expected one number, or one for "
            f"each of the {len(channels)} levels"
        )
    return list(num_res_blocks)


def check_spatial_dims(spatial_dims: int) -> None:
    """Check the number of axes.

    Raises:
        ValueError: if it is not 2 or 3.
    """
    if spatial_dims not in (2, 3):
        raise InputError(f"spatial_dims is {spatial_dims}: expected 2 or 3")


def check_widths(**widths: int) -> None:
    """Check numbers of channels.

    Args:
        **widths: each by the name of its argument.

    Raises:
        ValueError: for one that is no whole number from 1 on.
    """
    for name, width in widths.items():
        if not isinstance(width, Integral) or width < 1:
            raise InputError(f"{name} is {width!r}: expected a whole number, 1 or more")


def check_levels(channels: Sequence[int]) -> None:
    """Check the channels of each level of a network.

    Raises:
        ValueError: if they are no list of whole numbers from 1 on.
    """
    is_list = isinstance(channels, Sequence) and not isinstance(channels, str)
    if not is_list or not channels:
        raise InputError(f"channels is {channels!r}: expected a list, a number for each level")
    check_widths(**{f"channels of level {level}": width for level, width in enumerate(channels)})


def check_stem(stem_stride: int) -> None:
    """Check the side of a stem's patches.

    Raises:
        ValueError: if it is no power of two.
    """
    if not isinstance(stem_stride, Integral) or stem_stride < 1 or stem_stride & (stem_stride - 1):
        raise InputError(
            f"stem_stride is {stem_stride}: expected a power of two, 1 for a full-resolution stem"
        )


def check_image(image: torch.Tensor, spatial_dims: int, in_channels: int) -> None:
    """Check the axes and the type of images before a network computes with them.

    Args:
        image: expected ``(B, in_channels, *spatial)``.
        spatial_dims: 2 or 3.
        in_channels: channels of an image.

    Raises:
        ValueError: for other axes or channels, or for whole numbers.
    """
    if image.ndim != spatial_dims + 2 or image.shape[1] != in_channels:
        raise InputError(
            f"image of shape {list(image.shape)}: expected [B, {in_channels}, ...], a batch of "
            f"images of {in_channels} channels with {spatial_dims} spatial axes"
        )
    if not image.is_floating_point():
        raise InputError(
            f"image of {image.dtype}: expected floating-point numbers, such as the bundle's "
            "preprocessing makes"
        )


def channels_last(network: nn.Module, spatial_dims: int) -> None:
    """Lay out the weights channels-last, the faster layout on a CPU, which the inputs follow."""
    layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    network.to(memory_format=layout)  # type: ignore[call-overload]
