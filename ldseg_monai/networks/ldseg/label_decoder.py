"""f_label-dec of Eq. 13."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import Conv
from monai.utils import ensure_tuple
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks import (
    NORM,
    ResidualBlock,
    SubPixelConvTranspose2d,
    blocks_by_level,
    check_levels,
    check_spatial_dims,
    check_stem,
    check_widths,
    normalization,
)
from ldseg_monai.runtime.errors import InputError

TOGETHER = 8  # samples of a picture in one batch: on a CPU less time than one by one


class LabelDecoder(nn.Module):
    """Latent to class logits (Zaman et al., 2024, Eq. 13).

    A residual U-Net decoder without skip connections. A departure from the paper, off by default:
    features of the image encoder may be added at chosen levels, which gives outlines the image's
    resolution. Left to itself, such a decoder ignores the latent; see `LDSeg`'s ``image_dropout``.

    Every up-sampling is a transposed convolution, which is a sub-pixel convolution without its
    rearrangement. The last one mirrors the encoders' stem, overlaps its neighbors and starts out as
    a linear interpolation of coarse logits: outlines are smooth from the first step on, where
    patches that know nothing of each other stay blocks for long.

    Args:
        spatial_dims: 2 or 3.
        latent_channels: channels of the latent.
        out_channels: classes of the label, background included.
        channels: channels of each level, from the largest to the smallest image, as many as the
            label encoder has. Every further sample costs a decoder's pass.
        stem_stride: factor of the last up-sampling; 1 for none.
        num_res_blocks: residual blocks in each level; several numbers, one a level.
        norm: normalization as MONAI writes it.
        image_channels: channels of the image encoder's features at each level, in the order of
            ``channels``; 0 for a level without; None for none at all (the paper).
        interpolation: factor of a linear interpolation of the class logits at the end, which takes
            the place of so much of the last up-sampling; 1 for none. Smooth outlines lose little by
            it, and a volume's last convolution is the dearest.

    Raises:
        ValueError: for arguments that contradict each other, before anything is built.
    """

    def __init__(
        self,
        spatial_dims: int,
        latent_channels: int,
        out_channels: int,
        channels: Sequence[int],
        stem_stride: int = 1,
        num_res_blocks: int | Sequence[int] = 1,
        norm: tuple | str = NORM,
        image_channels: Sequence[int] | None = None,
        interpolation: int = 1,
    ) -> None:
        super().__init__()
        check_spatial_dims(spatial_dims)
        check_stem(stem_stride)
        check_levels(channels)
        check_widths(latent_channels=latent_channels, out_channels=out_channels)
        _check_interpolation(interpolation, stem_stride)
        image_channels = None if image_channels is None else ensure_tuple(image_channels)
        if image_channels is not None and len(image_channels) != len(channels):
            raise InputError(
                f"image_channels has {len(image_channels)} entries: expected one for each of the "
                f"{len(channels)} levels"
            )
        for width in filter(None, image_channels or ()):
            check_widths(image_channels=width)
        self.spatial_dims = spatial_dims
        self.latent_channels = latent_channels
        self.out_channels = out_channels
        self.image_channels = list(image_channels or [])
        self.sees_image = any(self.image_channels)
        self.together = TOGETHER if spatial_dims == 2 else 1  # volumes take longer so
        self.stride = stem_stride * 2 ** (len(channels) - 1)
        numbers = blocks_by_level(num_res_blocks, channels)
        conv = Conv[Conv.CONV, spatial_dims]
        upsample = Conv[Conv.CONVTRANS, spatial_dims]
        previous = channels[-1]
        self.from_latent = conv(latent_channels, previous, kernel_size=3, padding=1)
        self.levels = nn.ModuleList()
        for level in reversed(range(len(channels))):
            width = channels[level]
            upsampling: nn.Module = nn.Identity()
            if level < len(channels) - 1:
                upsampling = upsample(previous, width, kernel_size=2, stride=2)
            feature_channels = image_channels[level] if image_channels else 0
            image = _image_projection(spatial_dims, feature_channels, width)
            blocks = [
                ResidualBlock(spatial_dims, width, width, norm) for _ in range(numbers[level])
            ]
            self.levels.append(_Level(upsampling, image, blocks))
            previous = width
        self.interpolation = float(interpolation)
        self.mode = {2: "bilinear", 3: "trilinear"}[spatial_dims]
        layers = [normalization(norm, spatial_dims, previous), nn.SiLU()]
        stride = stem_stride // interpolation
        if stride > 1:
            last: nn.Module
            if spatial_dims == 2:
                last = SubPixelConvTranspose2d(previous, out_channels, stride)
            else:  # of which a CPU has a quick one
                last = upsample(previous, out_channels, 2 * stride, stride, stride // 2)
            layers.append(_interpolating(last))
        else:
            layers.append(conv(previous, out_channels, kernel_size=3, padding=1))
        self.to_logits = nn.Sequential(*layers)

    def forward(
        self,
        latent: torch.Tensor,
        features: list[torch.Tensor] | None = None,
        enlarged: bool = True,
    ) -> torch.Tensor:
        """Decode.

        Args:
            latent: ``(B, latent_channels, *spatial / stride)``.
            features: of the image encoder's levels, each of batch ``B`` or 1; None to decode
                without the image.
            enlarged: whether the interpolation at the end is done; `enlarge` does it later.

        Returns:
            Class logits ``(B, out_channels, *spatial)``; not enlarged, ``*spatial /
            interpolation``.
        """
        hidden = self.from_latent(latent)
        coarsest_first = [] if features is None else features[::-1]
        index = 0  # TorchScript enumerates no list beside a ModuleList
        for level in self.levels:
            hidden = level(hidden, coarsest_first[index] if index < len(coarsest_first) else None)
            index += 1  # noqa: SIM113
        logits = self.to_logits(hidden)  # (B, out_channels, *spatial / interpolation)
        return self.enlarge(logits) if enlarged else logits

    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Interpolate maps ``(B, C, *spatial / interpolation)`` to ``(B, C, *spatial)``."""
        if self.interpolation == 1:
            return maps
        maps = maps.contiguous()  # channels last is slower here on a CPU
        return functional.interpolate(maps, scale_factor=self.interpolation, mode=self.mode)

    @torch.jit.unused
    def scale_logits(self, temperature: float) -> None:
        """Divide the logits by a temperature, in the weights of the last layer."""
        with torch.no_grad():
            for parameter in self.to_logits[-1].parameters():
                parameter.div_(temperature)


class _Level(nn.Module):
    """Up-sampling, perhaps a sum with the image's features, and residual blocks, at one size."""

    def __init__(
        self, upsampling: nn.Module, image: nn.Module | None, blocks: list[ResidualBlock]
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.image = image
        self.blocks = nn.Sequential(*blocks)

    def forward(self, hidden: torch.Tensor, feature: torch.Tensor | None) -> torch.Tensor:
        hidden = self.upsampling(hidden)
        if self.image is not None and feature is not None:
            hidden = hidden + self.image(feature)
        return self.blocks(hidden)


def _check_interpolation(interpolation: int, stem_stride: int) -> None:
    """Check the factor of a decoder's last interpolation.

    Raises:
        ValueError: if it does not divide the stem's stride.
    """
    if interpolation < 1 or stem_stride % interpolation:
        raise InputError(
            f"interpolation is {interpolation}: expected a divisor of stem_stride, {stem_stride}"
        )


def _image_projection(spatial_dims: int, image_channels: int, channels: int) -> nn.Module | None:
    """Image features to a level's channels; without bias, so that features of 0 are as none."""
    if not image_channels:
        return None
    return Conv[Conv.CONV, spatial_dims](image_channels, channels, kernel_size=1, bias=False)


def _interpolating(convolution: nn.Module) -> nn.Module:
    """Start a transposed convolution, whose kernel is twice its stride, as linear interpolation."""
    stride: int = convolution.stride[0]  # type: ignore[index,assignment]
    weight: torch.Tensor = convolution.weight  # type: ignore[assignment]
    ramp = 1 - (torch.arange(2 * stride) + 0.5 - stride).abs() / stride
    with torch.no_grad():
        mixing = torch.randn(weight.shape[:2]) / weight.shape[0] ** 0.5
        kernel = mixing
        for _ in weight.shape[2:]:
            kernel = kernel[..., None] * ramp
        weight.copy_(kernel)
    return convolution
