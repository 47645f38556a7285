"""Networks that segment in one pass, to compare with."""

from ldseg_monai.networks.peers.efficientnet_unet import EfficientNetUNet

__all__ = ["EfficientNetUNet"]
