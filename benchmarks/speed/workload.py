"""What the speed benchmarks run: a bundle's LDSeg, its peers from MONAI, and images of noise.

Weights are untrained: they do not change the speed.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.inferers import Inferer, SimpleInferer
from monai.networks.nets import (
    BasicUNetPlusPlus,
    DiffusionModelUNet,
    DynUNet,
    SegResNet,
    SwinUNETR,
    UNet,
    VNet,
)
from torch import nn

from benchmarks.speed.measure import Build, Call
from ldseg_monai.inference.autocast import AutocastInferer
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.ldseg.network import LDSeg

PRECISIONS = {"bfloat16": True, "float32": False}
LAYOUTS = ("channels last", "channels first")
TRAINING_SIZES = ("crop_size", "spatial_size")  # knobs of the bundles, the first that a config has
SIZES = (*TRAINING_SIZES, "window_size")


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of its network and sizes.

    Attributes:
        folder: of the bundle.
        device: ``cpu`` or ``cuda``.
        compiled: whether networks are compiled by ``torch.compile``.
        seed: of weights, images and noise.
        size: spatial size in place of the bundle's.
        overrides: items of its configs to override.
    """

    folder: Path
    device: str = "cpu"
    compiled: bool = False
    seed: int = 0
    size: tuple[int, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.resolve().name

    def config(self, name: str = "train.yaml", **overrides: Any) -> ConfigParser:
        """Read one of its configs, to run on this device and at this size."""
        parser = ConfigParser()
        parser.read_config(str(self.folder / "configs" / name))
        parser.update(
            {"bundle_root": str(self.folder), "device": f"$torch.device('{self.device}')"}
        )
        if self.size is not None:
            parser.update({knob: list(self.size) for knob in SIZES if knob in parser})
        parser.update({**self.overrides, **overrides})
        return parser

    @property
    def spatial_size(self) -> tuple[int, ...]:
        """Of the image that its network segments.

        Raises:
            ValueError: if the metadata has no whole numbers there.
        """
        if self.size is not None:
            return self.size
        metadata = json.loads((self.folder / "configs" / "metadata.json").read_text())
        shape = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
        if not all(isinstance(side, int) for side in shape):
            raise ValueError(
                f"spatial_shape of {self.name} is {shape}: expected whole numbers; say --size"
            )
        return tuple(shape)

    @property
    def training_size(self) -> tuple[int, ...]:
        """Of the images that it trains on; what its network segments, if its config does not say."""
        config = self.config()
        sizes = [config.get_parsed_content(knob) for knob in TRAINING_SIZES if knob in config]
        return tuple(sizes[0]) if sizes else self.spatial_size

    @property
    def batch_size(self) -> int:
        """Images in one step of its optimizer."""
        return int(self.config().get_parsed_content("batch_size"))

    def network_argument(self, name: str) -> int:
        """A whole number that its network is made with, such as ``in_channels``."""
        return int(self.config().get_parsed_content(f"network_def#{name}"))

    def network(self) -> LDSeg:
        """Its network on the device, in eval mode."""
        torch.manual_seed(self.seed)
        network: LDSeg = self.config().get_parsed_content("network_def")
        return self.prepare(network).eval()

    def prepare(self, network: Any) -> Any:
        """Move a network to the device and, if wanted, compile it (an `LDSeg` part by part, as it calls them)."""
        network = network.to(self.device)
        if self.compiled:
            for module in network.children() if isinstance(network, LDSeg) else [network]:
                module.compile()
        return network

    def image(
        self, size: Sequence[int], batch_size: int = 1, more_channels: int = 0
    ) -> torch.Tensor:
        """Noise as the network takes it, ``(B, in_channels + more_channels, *size)``."""
        generator = torch.Generator().manual_seed(self.seed)
        channels = self.network_argument("in_channels") + more_channels
        return torch.randn([batch_size, channels, *size], generator=generator).to(self.device)


@dataclass(frozen=True)
class Peer:
    """A network of MONAI that segments in one pass.

    Attributes:
        make: from spatial dimensions, image channels, classes, and spatial size.
        stride: multiples of which the sides must be; an image is padded to them.
        about: its main arguments, in words.
    """

    make: Callable[[int, int, int, Sequence[int]], nn.Module]
    stride: int
    about: str


def _unet(dims: int, in_channels: int, classes: int, size: Sequence[int]) -> nn.Module:
    return UNet(
        dims, in_channels, classes, channels=(32, 64, 128, 256), strides=(2, 2, 2), num_res_units=2
    )


def _dynunet(dims: int, in_channels: int, classes: int, size: Sequence[int]) -> nn.Module:
    """nnU-Net's shape: each axis is halved while it is even and leaves 4 voxels, at most 5 times (7 in 2D)."""
    sides, strides = list(size), [[1] * dims]
    while len(strides) <= (7 if dims == 2 else 5):
        stride = [2 if side % 2 == 0 and side >= 8 else 1 for side in sides]
        if max(stride) == 1:
            break
        sides = [side // step for side, step in zip(sides, stride, strict=True)]
        strides.append(stride)
    filters = [min(32 * 2**level, 512 if dims == 2 else 320) for level in range(len(strides))]
    return DynUNet(
        dims, in_channels, classes, [3] * len(strides), strides, strides[1:], filters=filters
    )


def _swin_unetr(dims: int, in_channels: int, classes: int, size: Sequence[int]) -> nn.Module:
    return SwinUNETR(in_channels, classes, feature_size=48, spatial_dims=dims)


def _segresnet(dims: int, in_channels: int, classes: int, size: Sequence[int]) -> nn.Module:
    return SegResNet(dims, 16, in_channels, classes, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))


def _vnet(dims: int, in_channels: int, classes: int, size: Sequence[int]) -> nn.Module:
    return VNet(dims, in_channels, classes)


def _unet_plus_plus(dims: int, in_channels: int, classes: int, size: Sequence[int]) -> nn.Module:
    return BasicUNetPlusPlus(dims, in_channels, classes)


PEERS = {
    "UNet": Peer(_unet, 8, "residual, 2 units a level, 32 to 256 channels"),
    "DynUNet": Peer(
        _dynunet,
        8,
        "nnU-Net's shape, 32 to 320 channels (512 in 2D), sides halved down to 4 or more",
    ),
    "SwinUNETR": Peer(_swin_unetr, 32, "feature size 48"),
    "SegResNet": Peer(_segresnet, 8, "16 filters, blocks 1, 2, 2, 4"),
    "VNet": Peer(_vnet, 16, "as MONAI has it"),
    "BasicUNetPlusPlus": Peer(_unet_plus_plus, 16, "as MONAI has it"),
}
PIXEL_DIFFUSION_STRIDE = 8


def padded(size: Sequence[int], stride: int) -> list[int]:
    """The next size whose sides are multiples of the stride."""
    return [math.ceil(side / stride) * stride for side in size]


def peer_network(
    bundle: Bundle, name: str, size: Sequence[int], layout: str = LAYOUTS[0]
) -> nn.Module:
    """One of `PEERS` for the bundle's images and classes, in one of `LAYOUTS`."""
    torch.manual_seed(bundle.seed)
    dims, in_channels, classes = map(
        bundle.network_argument, ("spatial_dims", "in_channels", "out_channels")
    )
    return laid_out(
        PEERS[name].make(dims, in_channels, classes, padded(size, PEERS[name].stride)), layout, dims
    )


def pixel_diffusion_network(bundle: Bundle, layout: str = LAYOUTS[0]) -> nn.Module:
    """A denoiser of label channels on the image's own grid, with the image beside them.

    The channels are those of MONAI's `DiffusionModelUNet`; attention is at the last level only,
    where the positions are fewest, since it grows with their square.
    """
    torch.manual_seed(bundle.seed)
    dims, in_channels, classes = map(
        bundle.network_argument, ("spatial_dims", "in_channels", "out_channels")
    )
    network = DiffusionModelUNet(
        dims,
        in_channels + classes,
        classes,
        channels=(32, 64, 64, 64),
        attention_levels=(False, False, False, True),
        num_head_channels=32,
        use_flash_attention=True,
    )
    return laid_out(network, layout, dims)


def ldseg_call(bundle: Bundle, size: Sequence[int], steps: int, amp: bool) -> Call:
    """Build LDSeg; the call segments one image in so many steps."""
    network, image = bundle.network(), bundle.image(size)
    inferer = SamplingInferer(num_inference_steps=steps, seed=bundle.seed, amp=amp)
    return _ready(bundle, lambda: inferer(image, network))


def samples_call(bundle: Bundle, size: Sequence[int], num_samples: int, amp: bool) -> Call:
    """Build a bundle's network, of any method; the call draws so many segmentations of one image by its inferer."""
    config = bundle.config("inference.yaml", num_samples=num_samples, amp=amp)
    network, image, inferer = (
        bundle.network(),
        bundle.image(size),
        config.get_parsed_content("inferer"),
    )
    return _ready(bundle, partial(_infer, inferer, image, network))


def peer_call(bundle: Bundle, name: str, size: Sequence[int], amp: bool, layout: str) -> Call:
    """Build one of `PEERS` in a memory layout; the call segments one image."""
    network = bundle.prepare(peer_network(bundle, name, size, layout)).eval()
    image = bundle.image(padded(size, PEERS[name].stride))
    return _ready(bundle, partial(_infer, AutocastInferer(SimpleInferer(), amp), image, network))


def pixel_diffusion_call(bundle: Bundle, size: Sequence[int], amp: bool, layout: str) -> Call:
    """Build the pixel-space denoiser in a memory layout; the call is one step of it."""
    network = bundle.prepare(pixel_diffusion_network(bundle, layout)).eval()
    image = bundle.image(
        padded(size, PIXEL_DIFFUSION_STRIDE), more_channels=bundle.network_argument("out_channels")
    )
    timesteps = torch.tensor([500], device=bundle.device)
    return _ready(
        bundle, partial(_infer, AutocastInferer(SimpleInferer(), amp), image, network, timesteps)
    )


def layouts(call: Callable[..., Call], *arguments: Any) -> dict[str, Build]:
    """A build for each memory layout, so that no peer is slow for having the wrong one."""
    return {layout: partial(call, *arguments, layout) for layout in LAYOUTS}


def laid_out(network: nn.Module, layout: str, spatial_dims: int) -> nn.Module:
    """Put the weights of the convolutions into one of `LAYOUTS`, which their inputs then follow."""
    last = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    memory_format = last if layout == "channels last" else torch.contiguous_format
    return network.to(memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all programs share."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument(
        "bundle", type=Path, help="folder of the bundle, such as bundles/ldseg_knee3d"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the report (default: benchmarks/results/BUNDLE)"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="timed runs of each candidate (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights, image and noise (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, nargs="+", help="spatial size (default: the bundle's)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="items of the bundle's configs to override",
    )
    return parser


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Add the options of the programs that compare candidates."""
    parser.add_argument(
        "--budget",
        type=float,
        default=60,
        help="seconds of timed runs for one candidate, beyond which it gets fewer (default: %(default)s)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the networks by torch.compile"
    )
    parser.add_argument(
        "--no_memory", action="store_true", help="leave out the peak memory, a process for each"
    )


def bundle_of(arguments: argparse.Namespace) -> Bundle:
    """The bundle that a command line means; also makes the folder for the report, and shows progress.

    Raises:
        ValueError: for an override that is none.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    overrides = {}
    for item in arguments.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--set {item}: expected KEY=VALUE")
        overrides[key] = yaml.safe_load(value)
    bundle = Bundle(
        arguments.bundle,
        arguments.device,
        getattr(arguments, "compile", False),
        arguments.seed,
        tuple(arguments.size) if arguments.size else None,
        overrides,
    )
    arguments.out = arguments.out or Path(__file__).parents[1] / "results" / bundle.name
    arguments.out.mkdir(parents=True, exist_ok=True)
    return bundle


@torch.no_grad()
def _infer(
    inferer: Inferer, image: torch.Tensor, network: nn.Module, *further: torch.Tensor
) -> Any:
    return inferer(image, network, *further)


def _ready(bundle: Bundle, call: Call) -> Call:
    """Run a compiled network once, so that no time of compiling is measured."""
    if bundle.compiled:
        call()
    return call
