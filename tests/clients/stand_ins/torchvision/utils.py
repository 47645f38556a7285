"""Names that MONAI Label imports and nothing here calls, where torchvision cannot be had for a CPU-only PyTorch."""

make_grid = save_image = None
