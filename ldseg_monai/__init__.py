"""Medical image segmentation by diffusion in few steps: what MONAI lacks for its bundles."""

__version__ = "0.2.0"
