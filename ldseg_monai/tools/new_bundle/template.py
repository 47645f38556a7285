"""The bundle that a new one starts from."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.networks.segmenter import DiffusionSegmenter, diffusion_segmenter
from ldseg_monai.tools.new_bundle.config_tree import components


class Template:
    """What is asked of the bundle that a new one starts from.

    Args:
        bundle: that bundle.

    Attributes:
        train: the content of its `train.yaml`.

    Raises:
        FileNotFoundError: without a `train.yaml`.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.root = bundle.root
        self.name = bundle.name
        self.train: dict[str, Any] = bundle.config("train.yaml").get()

    @property
    def method(self) -> str:
        """What its metadata begin its title with, such as LDSeg."""
        return self.bundle.title.split()[0]

    @cached_property
    def network(self) -> DiffusionSegmenter:
        """Its network, without weights."""
        config = self.bundle.config("train.yaml")
        return diffusion_segmenter(config.get_parsed_content("network_def"))

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """The parts of its network that are components, by their names."""
        found = {}
        for name, part in self.train["network_def"].items():
            if isinstance(part, dict):
                found[name] = part
        return found

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.network.spatial_dims

    @property
    def has_latent(self) -> bool:
        """Whether what is diffused is smaller than the image."""
        return self.network.stride > 1

    @property
    def stem(self) -> int:
        """Side in voxels of the network's first patches."""
        return max(part.get("stem_stride", 1) for part in self.parts.values())

    @property
    def stride(self) -> int:
        """What each side of an image is a multiple of.

        It is that of the latent; without one, what the levels of the network halve.
        """
        if self.has_latent:
            return self.network.stride
        levels = max(len(part.get("channels", [0])) for part in self.parts.values())
        return 2 ** (levels - 1)

    @property
    def resizes(self) -> bool:
        """Whether it resizes every case to one grid, instead of going through it in windows."""
        return bool(components(self.train, "Resized"))

    @property
    def has_common_frame(self) -> bool:
        """Whether its latent is standardized position by position, across cases."""
        return any("latent_shape" in part for part in self.parts.values())

    @property
    def starts_from_imagenet(self) -> bool:
        """Whether its image encoder starts from ImageNet's weights."""
        return "imagenet_weights" in self.train

    @property
    def takes_gray(self) -> bool:
        """Whether its image encoder can be one of gray pictures, by its `in_channels`."""
        return "in_channels" in self.parts["image_encoder"]
