"""The bundle that a new one starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser


@dataclass(frozen=True)
class Template:
    """The bundle that a new one starts from.

    Attributes:
        root: its folder.
        train: the content of its `train.yaml`.
        text: the text of its `train.yaml`.
    """

    root: Path
    train: dict[str, Any]
    text: str

    @classmethod
    def read(cls, root: Path) -> Template:
        """Read the bundle in a folder.

        Raises:
            FileNotFoundError: if it is none.
        """
        path = root / "configs" / "train.yaml"
        if not path.is_file():
            raise FileNotFoundError(
                f"{root} is no bundle: expected a folder with {path.relative_to(root)}"
            )
        return cls(root, ConfigParser.load_config_file(str(path)), path.read_text())

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

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
