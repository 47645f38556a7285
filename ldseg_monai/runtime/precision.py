"""Which precision a processor computes in, and a bfloat16 autocast that can be trusted on a CPU."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from ldseg_monai.runtime.errors import InputError

logger = logging.getLogger("ldseg_monai.runtime")

Amp = bool | Literal["auto"]
# Values of ONEDNN_MAX_CPU_ISA at which oneDNN takes bfloat16 on x86, but emulates it
EMULATED = ("AVX512_CORE", "AVX512_CORE_VNNI")
X86 = ("x86_64", "amd64")
# Up to here PyTorch takes a 3D convolution for too small for oneDNN: batch * channels * the first
# two axes, without the third (torch 2.13, `use_mkldnn` of aten/src/ATen/native/Convolution.cpp)
SMALL = 20480


def use_bfloat16(amp: Amp, device: torch.device) -> bool:
    """Whether to compute in bfloat16.

    Args:
        amp: True or False, or "auto" for what is faster on the device.
        device: where the tensors are.

    Raises:
        InputError: for another value.
    """
    if isinstance(amp, bool):
        return amp
    if amp != "auto":
        raise InputError(f"amp is {amp!r}: expected True, False or auto")
    return _is_native(device.type)


@cache
def _is_native(kind: str) -> bool:
    """Whether a kind of device computes bfloat16 itself; said in one line, once in a process."""
    native = kind != "cpu" or cpu_has_bfloat16()
    chosen = "bfloat16" if native else "float32, since this CPU only emulates bfloat16"
    logger.info("amp is auto: computing in %s", chosen)
    return native


def cpu_has_bfloat16() -> bool:
    """Whether this CPU computes bfloat16 itself: by AVX-512 BF16, AMX, or Arm's BF16.

    Others emulate it, and are 2 to 60 times slower in it than in float32. oneDNN, which computes
    the convolutions, is held to an older processor's instructions by ``ONEDNN_MAX_CPU_ISA``; so is
    the answer.
    """
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # on Arm, and by ONEDNN_MAX_CPU_ISA
        return False
    if platform.machine().lower() not in X86:
        return True
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in EMULATED:
        return False
    # oneDNN says yes from AVX-512 on, with which it emulates; PyTorch has no public question.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def autocast(device: torch.device, amp: Amp = "auto") -> Iterator[None]:
    """Compute in bfloat16 where PyTorch's autocast deems it safe, or in float32.

    On a CPU, training in bfloat16 goes with `_FlatInFloat32` too, and inference in float32 with
    `_SmallByOneDnn`.

    Args:
        device: where the tensors are.
        amp: whether to use bfloat16, as in `use_bfloat16`.
    """
    enabled = use_bfloat16(amp, device)
    trains = torch.is_grad_enabled()
    mode: AbstractContextManager[Any] = nullcontext()
    if device.type == "cpu" and enabled and trains:
        mode = _FlatInFloat32()
    if device.type == "cpu" and not enabled and not trains and _has_fast_one_dnn():
        mode = _SmallByOneDnn()
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled), mode:
        yield


def _has_fast_one_dnn() -> bool:
    """Whether oneDNN has 3D convolutions of its own for this CPU: on Arm it has none."""
    return torch.backends.mkldnn.is_available() and platform.machine().lower() in X86


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


class _SmallByOneDnn(TorchFunctionMode):
    """Compute 3D convolutions of one volume by oneDNN where PyTorch would not.

    PyTorch computes float32 convolutions of few channels by code of its own, which is meant for
    tiny maps. It leaves out the last axis when it counts, so that it takes this way for whole
    levels of a volume. ``benchmarks/speed/convolutions.py`` measures what that costs.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        compiling = torch.compiler.is_compiling()  # which has no such convolution
        if func is torch.conv3d and not kwargs and not compiling and _is_small(*args):
            volume, weight, bias, stride, padding, dilation, groups = args
            return torch.mkldnn_convolution(volume, weight, bias, padding, stride, dilation, groups)
        return func(*args, **(kwargs or {}))


def _is_small(volume: torch.Tensor, weight: torch.Tensor, *settings: Any) -> bool:
    """Whether PyTorch would keep a convolution, called as `torch.nn.Conv3d` does, from oneDNN."""
    if len(settings) != 5 or isinstance(settings[2], str):
        return False
    if volume.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    return volume.ndim == 5 and len(volume) == 1 and volume.shape[1:4].numel() <= SMALL
