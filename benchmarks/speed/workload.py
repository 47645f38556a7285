"""What the speed benchmarks run: a bundle's network, its peers from MONAI, and images of noise.

Weights are untrained: they do not change the speed.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

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

from benchmarks import command
from benchmarks.speed.measure import Build, Call
from ldseg_monai.bundle import Bundle
from ldseg_monai.inference.autocast import AutocastInferer
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.segmenter import DiffusionSegmenter, diffusion_segmenter
from ldseg_monai.runtime.precision import use_bfloat16

PRECISIONS = {"bfloat16": True, "float32": False}
LAYOUTS = ("channels last", "channels first")
TRAINING_SIZES = ("crop_size", "spatial_size")  # knobs of the bundles, the first that a config has
SIZES = (*TRAINING_SIZES, "window_size")
AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


class About(NamedTuple):
    """What a network is made for: its class, and numbers of axes, channels, classes and stride."""

    method: str
    spatial_dims: int
    in_channels: int
    out_channels: int
    stride: int


@dataclass(frozen=True)
class Workload:
    """A bundle's network without its weights, on a device, at a size: what is measured.

    Attributes:
        bundle: whose network, configs and sizes they are.
        device: ``cpu`` or ``cuda``.
        compile_mode: of ``torch.compile``; "" for networks that are not compiled.
        seed: of weights, images and noise.
        size: spatial size in place of the bundle's.
        overrides: items of its configs to override.
        overlays: files below its configs/, put on train.yaml, of another diffusion network.
    """

    bundle: Bundle
    device: str = "cpu"
    compile_mode: str = ""
    seed: int = 0
    size: tuple[int, ...] | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    overlays: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.bundle.name

    def config(self, name: str = "train.yaml", **overrides: Any) -> ConfigParser:
        """Read one of the bundle's configs, to run on this device and at this size."""
        overlays = self.overlays if name == "train.yaml" else ()
        parser = self.bundle.config(name, *overlays, device=f"$torch.device('{self.device}')")
        if self.size is not None:
            parser.update({knob: list(self.size) for knob in SIZES if knob in parser})
        if "force" in parser:
            parser["force"] = True  # time and memory are the same for any image
        parser.update({**self.overrides, **overrides})
        return parser

    @property
    def spatial_size(self) -> tuple[int, ...]:
        """Of the image that the network segments.

        Raises:
            ValueError: if the metadata has no whole numbers there.
        """
        if self.size is not None:
            return self.size
        shape = self.bundle.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
        if not all(isinstance(side, int) for side in shape):
            raise ValueError(
                f"spatial_shape of {self.name} is {shape}: expected whole numbers; say --size"
            )
        return tuple(shape)

    @property
    def training_size(self) -> tuple[int, ...]:
        """Of the images that it trains on; `spatial_size`, if its config does not say."""
        config = self.config()
        for knob in TRAINING_SIZES:
            if knob in config:
                return tuple(config.get_parsed_content(knob))
        return self.spatial_size

    @property
    def batch_size(self) -> int:
        """Images in one step of its optimizer."""
        return int(self.config().get_parsed_content("batch_size"))

    @property
    def amp(self) -> bool:
        """Whether its inference computes in bfloat16 where autocast deems it safe."""
        return use_bfloat16(
            self.config("inference.yaml").get_parsed_content("amp"), torch.device(self.device)
        )

    @property
    def precision(self) -> str:
        """One of `PRECISIONS`."""
        return next(name for name, amp in PRECISIONS.items() if amp == self.amp)

    def network(self) -> DiffusionSegmenter:
        """The network on the device, in eval mode."""
        torch.manual_seed(self.seed)
        network = diffusion_segmenter(self.config().get_parsed_content("network_def"))
        return self.prepare(network).eval()

    @cached_property
    def about(self) -> About:
        """What the network is made for."""
        network = diffusion_segmenter(self.config().get_parsed_content("network_def"))
        return About(
            type(network).__name__,
            network.spatial_dims,
            network.in_channels,
            network.out_channels,
            network.stride,
        )

    def prepare(self, network: AnyNetwork) -> AnyNetwork:
        """Move a network to the device and, if wanted, compile it.

        A `DiffusionSegmenter` is compiled part by part, as it calls them.
        """
        network = network.to(self.device)
        if self.compile_mode:
            whole = not isinstance(network, DiffusionSegmenter)
            for module in [network] if whole else network.children():
                module.compile(mode=self.compile_mode)
        return network

    def image(
        self, size: Sequence[int], batch_size: int = 1, more_channels: int = 0
    ) -> torch.Tensor:
        """Noise as the network takes it, ``(B, in_channels + more_channels, *size)``."""
        generator = torch.Generator().manual_seed(self.seed)
        channels = self.about.in_channels + more_channels
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
    """nnU-Net's shape: an axis is halved while even and 8 or more, up to 5 times (7 in 2D)."""
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
    work: Workload, name: str, size: Sequence[int], layout: str = LAYOUTS[0]
) -> nn.Module:
    """One of `PEERS` for the bundle's images and classes, in one of `LAYOUTS`."""
    _, dims, in_channels, classes, _ = work.about
    torch.manual_seed(work.seed)
    network = PEERS[name].make(dims, in_channels, classes, padded(size, PEERS[name].stride))
    return laid_out(network, layout, dims)


def pixel_diffusion_network(work: Workload, layout: str = LAYOUTS[0]) -> nn.Module:
    """A denoiser of label channels on the image's own grid, with the image beside them.

    The channels are those of MONAI's `DiffusionModelUNet`; attention is at the last level only,
    where the positions are fewest, since it grows with their square.
    """
    _, dims, in_channels, classes, _ = work.about
    torch.manual_seed(work.seed)
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


def segmenter_call(work: Workload, size: Sequence[int], steps: int, amp: bool) -> Call:
    """Build the bundle's network; the call segments one image in so many steps."""
    network, image = work.network(), work.image(size)
    inferer = SamplingInferer(num_inference_steps=steps, seed=work.seed, amp=amp)
    return _ready(work, lambda: inferer(image, network))


def samples_call(work: Workload, size: Sequence[int], num_samples: int, amp: bool) -> Call:
    """Build a bundle's network and inferer; the call draws so many segmentations of one image."""
    config = work.config("inference.yaml", num_samples=num_samples, amp=amp)
    network, image, inferer = (
        work.network(),
        work.image(size),
        config.get_parsed_content("inferer"),
    )
    return _ready(work, partial(_infer, inferer, image, network))


def peer_call(work: Workload, name: str, size: Sequence[int], amp: bool, layout: str) -> Call:
    """Build one of `PEERS` in a memory layout; the call segments one image."""
    network = work.prepare(peer_network(work, name, size, layout)).eval()
    image = work.image(padded(size, PEERS[name].stride))
    return _ready(work, partial(_infer, AutocastInferer(SimpleInferer(), amp), image, network))


def pixel_diffusion_call(work: Workload, size: Sequence[int], amp: bool, layout: str) -> Call:
    """Build the pixel-space denoiser in a memory layout; the call is one step of it."""
    network = work.prepare(pixel_diffusion_network(work, layout)).eval()
    image = work.image(padded(size, PIXEL_DIFFUSION_STRIDE), more_channels=work.about.out_channels)
    timesteps = torch.tensor([500], device=work.device)
    return _ready(
        work, partial(_infer, AutocastInferer(SimpleInferer(), amp), image, network, timesteps)
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
    parser = command.argument_parser(description)
    command.add_bundle(parser)
    command.add_out(parser)
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
        help="seconds of timed runs of a candidate, beyond which it gets fewer (%(default)s)",
    )
    parser.add_argument(
        "--no_memory", action="store_true", help="leave out the peak memory, a process for each"
    )


def workload_of(arguments: argparse.Namespace) -> Workload:
    """What a command line means; also makes the folder for the report, and shows progress.

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
    arguments.out = command.folder_of(arguments)
    return Workload(
        arguments.bundle,
        arguments.device,
        seed=arguments.seed,
        size=tuple(arguments.size) if arguments.size else None,
        overrides=overrides,
    )


@torch.no_grad()
def _infer(
    inferer: Inferer, image: torch.Tensor, network: nn.Module, *further: torch.Tensor
) -> Any:
    return inferer(image, network, *further)


def _ready(work: Workload, call: Call) -> Call:
    """Run a compiled network once, so that no time of compiling is measured."""
    if work.compile_mode:
        call()
    return call
