"""How a label enters a network."""

from __future__ import annotations

import torch
from monai.networks.utils import one_hot as monai_one_hot

from ldseg_monai.runtime.errors import InputError


def one_hot(
    label: torch.Tensor, num_classes: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """MONAI's one-hot label, with an error that names the class that there is no channel for.

    Args:
        label: class indices, ``(B, 1, *spatial)``.
        num_classes: classes, background included.
        dtype: of the result.

    Returns:
        1 where a class is and 0 elsewhere, ``(B, num_classes, *spatial)``.

    Raises:
        ValueError: if the label has a class that the network does not know.
    """
    low, high = label.aminmax()
    if int(low) < 0 or int(high) >= num_classes:
        raise InputError(
            f"label has classes {int(low)} to {int(high)}: expected 0 to {num_classes - 1}; "
            "set out_channels to the number of classes, or map the label to them"
        )
    return monai_one_hot(label, num_classes, dtype)
