"""The networks: LDSeg and its four parts, cDAL's generator and discriminator, and a peer on LDSeg's backbone."""

from .cdal import CDAL
from .cdal_discriminator import CDALDiscriminator
from .cdal_generator import CDALGenerator
from .efficientnet_unet import EfficientNetUNet
from .image_encoder import ImageEncoder
from .label_decoder import LabelDecoder
from .label_encoder import LabelEncoder
from .latent_denoiser import LatentDenoiser
from .ldseg import LDSeg

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
]
