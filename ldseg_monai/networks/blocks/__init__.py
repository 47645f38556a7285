"""Building blocks shared by the four parts of LDSeg."""

from .attention import SelfAttention
from .embedding import TimestepEmbedding
from .encoder import ResidualEncoder
from .residual import ResidualBlock
from .standardization import BatchStandardization, CaseStandardization, SampleStandardization

__all__ = [
    "BatchStandardization",
    "CaseStandardization",
    "ResidualBlock",
    "ResidualEncoder",
    "SampleStandardization",
    "SelfAttention",
    "TimestepEmbedding",
]
