"""Medical image segmentation with diffusion models that need two steps: what MONAI lacks to build LDSeg as bundles."""

__version__ = "0.2.0"
