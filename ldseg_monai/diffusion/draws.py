"""The random numbers of a training step."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ldseg_monai.runtime.processes import rank_and_world_size


def draw_per_sample(number: int, draw: Callable[[torch.Generator], torch.Tensor]) -> torch.Tensor:
    """Draw the random numbers of a training batch, those of each sample by a generator of its own.

    They follow from PyTorch's global random state, which has to be the same in every process, and
    from the sample's place in the batch of all processes together: several processes draw what one
    with their whole batch would.

    Args:
        number: samples of this process. Process ``r`` of ``n`` has the places ``r``, ``r + n``, ``r
            + 2 n``...
        draw: makes the numbers of one sample.

    Returns:
        What was drawn, ``(number, ...)``, on the CPU.
    """
    rank, world_size = rank_and_world_size()
    seed = int(torch.randint(2**31, []))
    places = [rank + world_size * sample for sample in range(number)]
    return torch.stack([draw(torch.Generator().manual_seed(seed + place)) for place in places])
