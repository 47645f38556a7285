"""Networks that segment in one pass, to compare with."""

from ldseg_monai.networks.peers.efficientnet_unet import EfficientNetUNet
from ldseg_monai.networks.peers.fitted import FittedNetwork
from ldseg_monai.networks.peers.medt import MedT
from ldseg_monai.networks.peers.msu_net import MSUNet
from ldseg_monai.networks.peers.swin_unet import SwinUNet

__all__ = ["EfficientNetUNet", "FittedNetwork", "MSUNet", "MedT", "SwinUNet"]
