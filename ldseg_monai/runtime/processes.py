"""Which of several processes that train or segment together this one is, and the network that they wrap."""

from __future__ import annotations

from typing import Any

from torch import distributed


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are; 0 and 1 where there is no process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def unwrapped(network: Any) -> Any:
    """The network itself, if it is wrapped in ``DistributedDataParallel``."""
    return getattr(network, "module", network)


def plain(value: Any) -> Any:
    """A tensor without MONAI's metadata, which would slow down every operation of a network."""
    return value.as_tensor() if hasattr(value, "as_tensor") else value
