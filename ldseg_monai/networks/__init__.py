"""The diffusion segmenters, their parts, and peers that segment in one pass."""

from ldseg_monai.networks.cdal import CDAL, CDALDiscriminator, CDALGenerator
from ldseg_monai.networks.ldseg import (
    ImageEncoder,
    LabelDecoder,
    LabelEncoder,
    LatentDenoiser,
    LDSeg,
)
from ldseg_monai.networks.peers import EfficientNetUNet
from ldseg_monai.networks.weights import (
    WeightsCheckpointLoader,
    load_imagenet_weights,
    load_weights,
)

__all__ = [
    "CDAL",
    "CDALDiscriminator",
    "CDALGenerator",
    "EfficientNetUNet",
    "ImageEncoder",
    "LDSeg",
    "LabelDecoder",
    "LabelEncoder",
    "LatentDenoiser",
    "WeightsCheckpointLoader",
    "load_imagenet_weights",
    "load_weights",
]
