"""Networks of MONAI's in the place of a bundle's own."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ldseg_monai.runtime.errors import InputError


class FittedNetwork(nn.Module):
    """A network that takes images of any size and gives one tensor of logits.

    Images are continued by their border to sides that the network takes, and its logits are cut
    back.

    Args:
        network: maps images to logits, to several of them, or to those of deep supervision, the
            image's own size first: a list, or stacked in the second axis.
        multiple: of which the network takes sides.
        in_channels: of the pictures; needed with ``channels`` alone.
        channels: that the network takes, where it does not take those of the pictures: a
            convolution with a kernel of 1 comes first. None for those of the images.
        all_outputs: whether a network in training mode gives all of its logits in a list, for
            `monai.losses.DeepSupervisionLoss`.

    Raises:
        ValueError: for a multiple below 1, or ``channels`` without ``in_channels``.
    """

    def __init__(
        self,
        network: nn.Module,
        multiple: int = 1,
        in_channels: int | None = None,
        channels: int | None = None,
        all_outputs: bool = False,
    ) -> None:
        super().__init__()
        if multiple < 1:
            raise InputError(f"multiple is {multiple}: expected 1 or more")
        if channels is not None and in_channels is None:
            raise InputError(f"channels is {channels}: expected in_channels, of the pictures, too")
        self.network = network
        self.multiple = multiple
        self.all_outputs = all_outputs
        self.to_channels: nn.Module = nn.Identity()
        if in_channels is not None and channels is not None:
            self.to_channels = nn.Conv2d(in_channels, channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map images ``(B, C, *spatial)`` to logits ``(B, classes, *spatial)``, or to a list."""
        sides = image.shape[2:]
        borders: list[int] = []
        for side in reversed(sides):
            borders += [0, -side % self.multiple]
        padded = functional.pad(image, borders, mode="replicate")
        outputs = self.network(self.to_channels(padded))
        if isinstance(outputs, torch.Tensor):
            stacked = outputs.ndim > image.ndim
            outputs = list(outputs.unbind(dim=1)) if stacked else [outputs]
        cut = (slice(None), slice(None), *(slice(side) for side in sides))
        logits = [output[cut] for output in outputs]
        if self.training and self.all_outputs:
            return logits
        return logits[0]
