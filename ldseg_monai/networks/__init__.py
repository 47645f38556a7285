"""The networks: LDSeg and its four parts."""

from .image_encoder import ImageEncoder
from .label_decoder import LabelDecoder
from .label_encoder import LabelEncoder
from .latent_denoiser import LatentDenoiser
from .ldseg import LDSeg

__all__ = ["ImageEncoder", "LDSeg", "LabelDecoder", "LabelEncoder", "LatentDenoiser"]
