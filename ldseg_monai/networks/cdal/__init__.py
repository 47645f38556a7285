"""cDAL (Hejrati et al., 2024): its generator, its discriminator and the whole."""

from ldseg_monai.networks.cdal.discriminator import CDALDiscriminator, SeparateDiscriminators
from ldseg_monai.networks.cdal.efficientnet_features import EfficientNetFeatures
from ldseg_monai.networks.cdal.generator import CDALGenerator
from ldseg_monai.networks.cdal.network import CDAL

__all__ = [
    "CDAL",
    "CDALDiscriminator",
    "CDALGenerator",
    "EfficientNetFeatures",
    "SeparateDiscriminators",
]
