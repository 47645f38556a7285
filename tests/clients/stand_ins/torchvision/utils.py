"""Names that MONAI Label imports and nothing here calls, where torchvision cannot be had for a CPU-only PyTorch."""


def make_grid(*args, **kwargs):
    raise NotImplementedError("a stand-in for the tests of ldseg_monai: install torchvision")


def save_image(*args, **kwargs):
    raise NotImplementedError("a stand-in for the tests of ldseg_monai: install torchvision")
