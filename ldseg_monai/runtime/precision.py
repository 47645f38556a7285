"""bfloat16 autocast that a CPU can be trusted with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def autocast(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """Compute in bfloat16 where PyTorch's autocast deems it safe.

    On a CPU, training goes with `_FlatInFloat32` too.

    Args:
        device: where the tensors are.
        enabled: False to compute as without it.
    """
    trains_on_cpu = enabled and device.type == "cpu" and torch.is_grad_enabled()
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
        with _FlatInFloat32() if trains_on_cpu else nullcontext():
            yield


class _FlatInFloat32(TorchFunctionMode):
    """Compute 3D convolutions whose output is one or two positions deep in float32.

    There, the bfloat16 gradient of a 3-wide convolution's weights is memory that nothing was
    written to, on a processor with AVX-512 BF16 and no AMX (torch 2.13;
    ``ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16`` shows it on one with AMX). Such maps are the smallest of
    a network, so that the other precision costs next to nothing.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func not in (torch.conv3d, torch.conv_transpose3d) or output.shape[2] > 2:
            return output
        with torch.autocast("cpu", enabled=False):
            plain = [value.float() if isinstance(value, torch.Tensor) else value for value in args]
            return func(*plain, **(kwargs or {}))
