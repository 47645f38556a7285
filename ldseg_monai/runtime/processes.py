"""Several processes that train or segment together, and the network that they wrap."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ldseg_monai.runtime.errors import InputError

if TYPE_CHECKING:
    import torch

# PyTorch is imported where it is used: see the room's face.

PATIENCE = timedelta(days=30)  # that a process waits for the others, as at the end of many cases


def join_processes() -> None:
    """Join the processes that ``torchrun`` started: by NCCL on GPUs, by gloo on a CPU."""
    import ignite.distributed as idist
    import torch

    idist.initialize("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def local_device() -> torch.device:
    """The GPU of this process, or the CPU where there are none, joined to the others or not.

    Raises:
        ValueError: if ``torchrun`` did not start this process.
    """
    import torch

    if "LOCAL_RANK" not in os.environ:
        raise InputError(
            "this process was not started by torchrun: expected `torchrun --nproc_per_node=2 -m "
            "monai.bundle run ...`; without it, leave the multi_gpu config out"
        )
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cpu")


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process, from 0, and how many there are; 0 and 1 without a process group."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def unwrapped(network: Any) -> Any:
    """The network itself, if it is wrapped in ``DistributedDataParallel``."""
    return getattr(network, "module", network)


def plain(value: Any) -> Any:
    """A tensor without MONAI's metadata, which would slow down every operation of a network."""
    return value.as_tensor() if hasattr(value, "as_tensor") else value
