"""f_label-enc of Eq. 10."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ldseg_monai.networks.blocks import (
    BatchStandardization,
    CaseStandardization,
    Downsampling,
    ResidualEncoder,
    SampleStandardization,
)

LATENT_NORMS = ("sample", "batch", "cases")


class LabelEncoder(nn.Module):
    """One-hot labels to a standardized latent (Zaman et al., 2024, Eq. 10 and Section IV-B).

    Args:
        spatial_dims: 2 or 3.
        num_classes: classes of the label, background included.
        latent_channels: channels of the latent (1 in the paper).
        channels, stem_stride, num_res_blocks, norm: see `ResidualEncoder`.
        latent_norm: last layer: ``sample`` for `SampleStandardization` (the paper), ``cases`` for
            `CaseStandardization` (images in a common frame), ``batch`` for `BatchStandardization`
            (images without).
        latent_shape: of `CaseStandardization`.
        learned: False for a label that is only down-sampled: see `Downsampling`.

    Raises:
        ValueError: for an unknown ``latent_norm``, or one that does not agree with
            ``latent_shape``.
    """

    def __init__(
        self,
        spatial_dims: int,
        num_classes: int,
        latent_channels: int,
        channels: Sequence[int],
        stem_stride: int,
        num_res_blocks: int,
        norm: tuple | str,
        latent_norm: str = "sample",
        latent_shape: Sequence[int] | None = None,
        learned: bool = True,
    ) -> None:
        super().__init__()
        if latent_norm not in LATENT_NORMS:
            raise ValueError(
                f"latent_norm is {latent_norm!r}: expected one of {', '.join(LATENT_NORMS)}"
            )
        if (latent_norm == "cases") != (latent_shape is not None):
            raise ValueError(
                f"latent_norm is {latent_norm!r} and latent_shape {latent_shape}: expected a latent_shape (training "
                "size over stride) with 'cases', which keeps a mean picture, and none without"
            )
        self.encoder: nn.Module = (
            ResidualEncoder(
                spatial_dims,
                num_classes,
                latent_channels,
                channels,
                stem_stride,
                num_res_blocks,
                attention_levels=[False] * len(channels),
                num_head_channels=1,
                norm=norm,
            )
            if learned
            else Downsampling(num_classes, latent_channels, stem_stride * 2 ** (len(channels) - 1))
        )
        self.standardization: nn.Module
        if latent_shape is not None:
            self.standardization = CaseStandardization(latent_channels, latent_shape)
        else:
            self.standardization = (
                SampleStandardization()
                if latent_norm == "sample"
                else BatchStandardization(latent_channels)
            )

    def forward(self, one_hot: torch.Tensor) -> torch.Tensor:
        """Map ``(B, num_classes, *spatial)`` to ``z_l(0)``, ``(B, latent_channels, *spatial / stride)``."""
        return self.standardization(self.encoder(one_hot)[0])
