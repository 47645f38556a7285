"""Which of several processes that train or segment together this one is."""

from __future__ import annotations

from torch import distributed


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are; 0 and 1 where there is no process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
