"""cDAL small enough for a test, and what shows how a network is called."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.cdal.discriminator import CDALDiscriminator
from ldseg_monai.networks.cdal.network import CDAL

NORM = ("group", {"num_groups": 4})
SMALL_HIPPOCAMPUS = {  # changes of the network of the bundle ldseg_hippocampus
    "channels": [8, 16],
    "label_channels": None,
    "decoder_channels": None,
    "stem_stride": 2,
    "attention_levels": None,
    "decoder_image_levels": None,
    "denoiser_channels": [16, 32],
    "num_head_channels": 8,
}


def tiny_cdal(spatial_dims: int = 2, **arguments) -> CDAL:
    torch.manual_seed(0)
    defaults = {
        "in_channels": 2,
        "out_channels": 3,
        "channels": (8, 16),
        "image_channels": 8,
        "image_res_blocks": 1,
        "latent_size": 5,
        "num_head_channels": 8,
        "norm": NORM,
    }
    return CDAL(spatial_dims, **{**defaults, **arguments}).eval()


def tiny_discriminator(
    spatial_dims: int = 2, channels: tuple[int, ...] = (8, 16), attention_level: int = 1
) -> CDALDiscriminator:
    torch.manual_seed(0)
    return CDALDiscriminator(
        spatial_dims, 3, channels, attention_level=attention_level, norm=NORM
    ).eval()


def image_of(size: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(1))


def count_calls(module: nn.Module) -> list[int]:
    """Batch sizes that the module is called with from now on."""
    calls: list[int] = []
    module.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    return calls


def convolution_dtypes(network: nn.Module) -> set[torch.dtype]:
    """Types of what the network's convolutions return from now on."""
    seen: set[torch.dtype] = set()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    return seen


class Wrapper(nn.Module):
    """Has the network as ``module`` and nothing else of it, as DistributedDataParallel has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.module = network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class RecordingSampler(SamplingInferer):
    """Keeps the windows and the noise that it is called with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.windows: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(
        self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        for window, noise in zip(
            inputs, kwargs["noise"].split(self.num_samples, dim=1), strict=True
        ):
            self.windows.append((window, noise))
        return super().__call__(inputs, network, *args, **kwargs)
