"""Building blocks that the networks share."""

from .attention import SelfAttention
from .embedding import TimestepEmbedding
from .encoder import Downsampling, ResidualEncoder
from .normalization import normalization
from .one_hot import one_hot
from .residual import ResidualBlock
from .standardization import BatchStandardization, CaseStandardization, SampleStandardization
from .unet import ConditionedLevel, ResidualUNet

__all__ = [
    "BatchStandardization",
    "CaseStandardization",
    "ConditionedLevel",
    "Downsampling",
    "ResidualBlock",
    "ResidualEncoder",
    "ResidualUNet",
    "SampleStandardization",
    "SelfAttention",
    "TimestepEmbedding",
    "normalization",
    "one_hot",
]
