"""LDSeg (Zaman et al., 2024) and its four parts."""

from ldseg_monai.networks.ldseg.efficientnet_encoder import EfficientNetEncoder
from ldseg_monai.networks.ldseg.label_decoder import LabelDecoder
from ldseg_monai.networks.ldseg.latent_denoiser import LatentDenoiser
from ldseg_monai.networks.ldseg.lsegdiff import (
    LSegDiff,
    VariationalEncoder,
    require_first_stage,
)
from ldseg_monai.networks.ldseg.network import LDSeg

__all__ = [
    "EfficientNetEncoder",
    "LDSeg",
    "LSegDiff",
    "LabelDecoder",
    "LatentDenoiser",
    "VariationalEncoder",
    "require_first_stage",
]
