"""How a label enters a network."""

from __future__ import annotations

import torch

from ldseg_monai.runtime.errors import InputError


def one_hot(label: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Class indices as a mask for each class.

    Args:
        label: ``(B, 1, *spatial)``.
        num_classes: classes that the network knows.

    Returns:
        Booleans ``(B, num_classes, *spatial)``.

    Raises:
        ValueError: if the label has a class that the network does not know.
    """
    low, high = label.aminmax()
    if int(low) < 0 or int(high) >= num_classes:
        raise InputError(
            f"label has classes {int(low)} to {int(high)}: expected 0 to {num_classes - 1}; "
            "set out_channels to the number of classes, or map the label to them"
        )
    classes = torch.arange(num_classes, device=label.device)
    return label == classes.reshape([1, -1] + [1] * (label.ndim - 2))  # (1, num_classes, 1, ..., 1)
