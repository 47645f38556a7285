"""The bundle that a new one starts from."""

from __future__ import annotations

from typing import Any

from ldseg_monai.bundle.bundle import Bundle


class Template:
    """What is asked of the bundle that a new one starts from.

    Args:
        bundle: that bundle.

    Attributes:
        train: the content of its `train.yaml`.
        text: the text of its `train.yaml`.

    Raises:
        FileNotFoundError: without a `train.yaml`.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.root = bundle.root
        self.name = bundle.name
        self.train: dict[str, Any] = bundle.config("train.yaml").get()
        self.text = bundle.config_file("train.yaml").read_text()

    @property
    def method(self) -> str:
        """LDSeg or cDAL."""
        return "cDAL" if self.network["_target_"].endswith(".CDAL") else "LDSeg"

    @property
    def network(self) -> dict[str, Any]:
        """Its network_def."""
        return self.train["network_def"]

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return self.network["spatial_dims"]

    @property
    def stem(self) -> int:
        """Side in voxels of the network's first patches."""
        return self.network.get("stem_stride", 1)

    @property
    def stride(self) -> int:
        """What each side of an image must be a multiple of."""
        return self.stem * 2 ** (len(self.network["channels"]) - 1)

    @property
    def resizes(self) -> bool:
        """Whether it resizes every case to one grid, instead of going through it in windows."""
        return "_target_: Resized\n" in self.text
