"""LDSeg (Zaman et al., 2024) and its four parts."""

from ldseg_monai.networks.ldseg.image_encoder import ImageEncoder
from ldseg_monai.networks.ldseg.label_decoder import LabelDecoder
from ldseg_monai.networks.ldseg.label_encoder import LabelEncoder
from ldseg_monai.networks.ldseg.latent_denoiser import LatentDenoiser
from ldseg_monai.networks.ldseg.network import LDSeg

__all__ = ["ImageEncoder", "LDSeg", "LabelDecoder", "LabelEncoder", "LatentDenoiser"]
