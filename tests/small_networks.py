"""Networks small enough for a test, and what shows how a network is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from ldseg_monai.diffusion import Noise, PosteriorScheduler
from ldseg_monai.inference import SamplingInferer
from ldseg_monai.networks import CDAL, CDALDiscriminator, CDALGenerator, LDSeg, ResidualEncoder

NETWORKS = "ldseg_monai.networks."
NORM = ("group", {"num_groups": 4})
LDSEG_3D = {  # of the bundles with an LDSeg in 3D
    "network_def#label_encoder#channels": [8, 16],
    "network_def#image_encoder#channels": [8, 16],
    "network_def#image_encoder#num_head_channels": 8,
    "network_def#denoiser#channels": [16, 32],
    "network_def#denoiser#num_head_channels": 8,
    "network_def#denoiser#attention_levels": [False, True],
    "network_def#label_decoder#channels": [8, 16],
}
LDSEG_3D_FEATURES = {  # of one whose decoder gets the image's features
    **LDSEG_3D,
    "network_def#label_encoder#channels": [8, 8, 8],
    "network_def#image_encoder#channels": [8, 8, 16],
    "network_def#label_decoder#channels": [8, 8, 8],
    "network_def#label_decoder#image_channels": [8, 8, 16],
}
LDSEG_PICTURES = {  # of one whose image encoder starts from ImageNet's weights
    "network_def#label_encoder#channels": [8, 8, 8],
    "network_def#image_encoder#channels": 16,
    "network_def#image_encoder#num_head_channels": 8,
    "network_def#denoiser#channels": [16, 32],
    "network_def#denoiser#num_head_channels": 8,
    "network_def#label_decoder#channels": [8, 8, 8],
}
SMALL = {  # changes that make the network of a bundle small, at its own stride
    "ldseg_knee3d": LDSEG_3D_FEATURES,
    "ldseg_hippocampus": LDSEG_3D_FEATURES,
    "ldseg_glas": LDSEG_PICTURES,
    "ldseg_echo": LDSEG_PICTURES,
    "ldseg_monuseg": {
        **LDSEG_PICTURES,
        "network_def#label_encoder#channels": [8, 8],
        "network_def#denoiser#channels": [8, 8, 16],
        "network_def#label_decoder#channels": [8, 8],
        "network_def#label_decoder#image_channels": [16, 16],
    },
    "ldseg_cxr": {
        **LDSEG_PICTURES,
        "network_def#denoiser#channels": [8, 8, 16],
        "network_def#label_decoder#image_channels": [16, 24, 16],
    },
    "cdal_hippocampus": {
        "network_def#image_encoder#channels": [8],
        "network_def#image_encoder#out_channels": 8,
        "network_def#generator#channels": [8, 8, 16],
        "network_def#generator#num_head_channels": 8,
    },
    "cdal_monuseg": {
        "network_def#image_encoder#decoder_channels": [8, 8, 8, 8],
        "network_def#generator#channels": [8, 8, 8, 8],
    },
    "cdal_cxr": {
        "network_def#image_encoder#decoder_channels": [8, 8, 8, 8],
        "network_def#generator#channels": [8, 8, 8, 8, 8],
        "network_def#generator#num_head_channels": 8,
    },
}
SMALL_HIPPOCAMPUS = {  # changes of the hippocampus that make it one of two levels
    **LDSEG_3D,
    "network_def#label_encoder#stem_stride": 2,
    "network_def#image_encoder#stem_stride": 2,
    "network_def#image_encoder#num_res_blocks": 1,
    "network_def#image_encoder#attention_levels": [True, True],
    "network_def#label_decoder#stem_stride": 2,
    "network_def#label_decoder#num_res_blocks": 1,
    "network_def#label_decoder#image_channels": None,
}


def ldseg_config(
    spatial_dims: int = 2,
    in_channels: int = 2,
    out_channels: int = 3,
    channels: Sequence[int] = (8, 16),
    stem_stride: int = 1,
    num_res_blocks: int = 1,
    label_channels: Sequence[int] | None = None,
    decoder_channels: Sequence[int] | None = None,
    label_res_blocks: int | None = None,
    denoiser_res_blocks: int | None = None,
    latent_channels: int = 1,
    embedding_channels: int = 1,
    denoiser_channels: Sequence[int] = (8, 16),
    attention_levels: Sequence[bool] | None = None,
    denoiser_attention_levels: Sequence[bool] | None = None,
    num_head_channels: int = 4,
    norm: Any = NORM,
    latent_norm: str = "sample",
    latent_shape: Sequence[int] | None = None,
    decoder_image_levels: Sequence[bool] | None = None,
    image_backbone: str | None = None,
    num_train_timesteps: int = 1000,
    schedule: str = "cosine",
    prediction_type: str = "epsilon",
    eta: float = 0.0,
    timestep_spacing: str = "inclusive",
    interpolation: int = 1,
    **arguments: Any,
) -> dict[str, Any]:
    """The config of an LDSeg whose parts are alike, as a bundle's YAML has it.

    Label parts and denoiser take what is None from the image encoder.
    """
    levels = len(channels)
    label_channels = label_channels or channels
    decoder_channels = decoder_channels or label_channels
    label_res_blocks = label_res_blocks or num_res_blocks
    if attention_levels is None:
        attention_levels = [level >= levels - 2 for level in range(levels)]
    shared = {"spatial_dims": spatial_dims, "norm": norm}
    image_encoder = {
        "_target_": NETWORKS + "ResidualEncoder",
        **shared,
        "in_channels": in_channels,
        "out_channels": embedding_channels,
        "channels": channels,
        "stem_stride": stem_stride,
        "num_res_blocks": num_res_blocks,
        "attention_levels": attention_levels,
        "num_head_channels": num_head_channels,
    }
    if image_backbone:
        image_encoder = {
            "_target_": NETWORKS + "EfficientNetEncoder",
            "out_channels": embedding_channels,
            "channels": channels[-1],
            "num_res_blocks": num_res_blocks,
            "attends": attention_levels[-1],
            "num_head_channels": num_head_channels,
            "norm": norm,
        }
    standardizations: dict[str, dict[str, Any]] = {
        "sample": {"_target_": NETWORKS + "SampleStandardization"},
        "batch": {"_target_": NETWORKS + "BatchStandardization", "channels": latent_channels},
        "cases": {
            "_target_": NETWORKS + "CaseStandardization",
            "channels": latent_channels,
            "latent_shape": latent_shape,
        },
    }
    image_channels = None
    if decoder_image_levels is not None:
        image_channels = [
            width * used for width, used in zip(channels, decoder_image_levels, strict=False)
        ]
    return {
        "_target_": NETWORKS + "LDSeg",
        "label_encoder": {
            "_target_": NETWORKS + "ResidualEncoder",
            **shared,
            "in_channels": out_channels,
            "out_channels": latent_channels,
            "channels": label_channels,
            "stem_stride": stem_stride,
            "num_res_blocks": label_res_blocks,
        },
        "standardization": standardizations[latent_norm],
        "image_encoder": image_encoder,
        "denoiser": {
            "_target_": NETWORKS + "LatentDenoiser",
            **shared,
            "latent_channels": latent_channels,
            "embedding_channels": embedding_channels,
            "channels": denoiser_channels,
            "num_res_blocks": denoiser_res_blocks or num_res_blocks,
            "attention_levels": denoiser_attention_levels,
            "num_head_channels": num_head_channels,
        },
        "label_decoder": {
            "_target_": NETWORKS + "LabelDecoder",
            **shared,
            "latent_channels": latent_channels,
            "out_channels": out_channels,
            "channels": decoder_channels,
            "stem_stride": stem_stride,
            "num_res_blocks": label_res_blocks,
            "image_channels": image_channels,
            "interpolation": interpolation,
        },
        "scheduler": {
            "_target_": "ldseg_monai.diffusion.EvenlySpacedScheduler",
            "num_train_timesteps": num_train_timesteps,
            "schedule": schedule,
            "prediction_type": prediction_type,
            "eta": eta,
            "timestep_spacing": timestep_spacing,
        },
        **arguments,
    }


def small_ldseg(spatial_dims: int = 2, **arguments: Any) -> LDSeg:
    """An LDSeg by `ldseg_config`; what a config makes wrong is the ValueError of its component."""
    torch.manual_seed(0)
    return build(ldseg_config(spatial_dims, **arguments))


def build(config: dict[str, Any]) -> Any:
    """What the config of a component makes."""
    try:
        return ConfigParser({"it": config}).get_parsed_content("it")
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise cause from None


def tiny_cdal(
    spatial_dims: int = 2,
    in_channels: int = 2,
    out_channels: int = 3,
    channels: Sequence[int] = (8, 16),
    num_res_blocks: int = 1,
    image_channels: int = 8,
    image_res_blocks: int = 1,
    latent_size: int = 5,
    attention_levels: Sequence[bool] | None = None,
    num_head_channels: int = 8,
    norm: Any = NORM,
    num_train_timesteps: int = 4,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    **arguments: Any,
) -> CDAL:
    torch.manual_seed(0)
    image_encoder = ResidualEncoder(
        spatial_dims,
        in_channels,
        channels[0],
        channels=[image_channels],
        num_res_blocks=image_res_blocks,
        norm=norm,
    )
    generator = CDALGenerator(
        spatial_dims,
        out_channels,
        channels,
        num_res_blocks,
        latent_size,
        attention_levels,
        num_head_channels,
        norm,
    )
    scheduler = PosteriorScheduler(num_train_timesteps, beta_min=beta_min, beta_max=beta_max)
    return CDAL(image_encoder, generator, scheduler, **arguments).eval()


def tiny_discriminator(
    spatial_dims: int = 2, channels: tuple[int, ...] = (8, 16), attention_level: int = 1
) -> CDALDiscriminator:
    torch.manual_seed(0)
    return CDALDiscriminator(
        spatial_dims, 3, channels, attention_level=attention_level, norm=NORM
    ).eval()


def noisy_ldseg(spatial_dims: int = 2, **arguments: Any) -> LDSeg:
    """An LDSeg of stride 4 in eval mode whose segmentation depends on the noise."""
    defaults = {
        "stem_stride": 2,
        "latent_channels": 2,
        "prediction_type": "v_prediction",
        "decode_clean": True,
    }
    return small_ldseg(spatial_dims, **{**defaults, **arguments}).eval()


def pair_of(size: tuple[int, ...], batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of two channels, and labels of three classes."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 2, *size, generator=generator)
    return image, torch.randint(3, (batch, 1, *size), generator=generator)


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
        self.windows: list[tuple[torch.Tensor, Noise]] = []

    def __call__(
        self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        noise = kwargs["noise"]
        for window, field in zip(inputs, noise.field.split(1, dim=1), strict=True):
            self.windows.append((window, Noise(field, noise.latents)))
        return super().__call__(inputs, network, *args, **kwargs)
