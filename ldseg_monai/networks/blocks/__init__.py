"""Building blocks that the networks share."""

from .attention import SelfAttention, attention_heads
from .efficientnet import EfficientNetLite
from .embedding import TimestepEmbedding
from .encoder import (
    Downsampling,
    ResidualEncoder,
    blocks_by_level,
    channels_last,
    check_image,
    check_levels,
    check_spatial_dims,
    check_stem,
    check_widths,
)
from .normalization import NORM, normalization
from .one_hot import one_hot
from .residual import ResidualBlock
from .standardization import BatchStandardization, CaseStandardization, SampleStandardization
from .subpixel import SubPixelConvTranspose2d
from .unet import ConditionedLevel, ResidualUNet

__all__ = [
    "NORM",
    "BatchStandardization",
    "CaseStandardization",
    "ConditionedLevel",
    "Downsampling",
    "EfficientNetLite",
    "ResidualBlock",
    "ResidualEncoder",
    "ResidualUNet",
    "SampleStandardization",
    "SelfAttention",
    "SubPixelConvTranspose2d",
    "TimestepEmbedding",
    "attention_heads",
    "blocks_by_level",
    "channels_last",
    "check_image",
    "check_levels",
    "check_spatial_dims",
    "check_stem",
    "check_widths",
    "normalization",
    "one_hot",
]
