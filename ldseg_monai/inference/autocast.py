"""bfloat16 for networks that segment in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from ldseg_monai.runtime.precision import Amp, autocast
from ldseg_monai.runtime.processes import plain


class AutocastInferer(Inferer):
    """Run another inferer under bfloat16 autocast, on the CPU too.

    It is for deterministic peers, in training and after it.

    Args:
        inferer: how to call the network.
        amp: whether to compute in bfloat16 where autocast deems it safe; "auto" where that is
            faster on the device.
    """

    def __init__(self, inferer: Inferer, amp: Amp = "auto") -> None:
        super().__init__()
        self.inferer = inferer
        self.amp = amp

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Return what the inferer does; in float32, as a loss wants it, if gradients are kept."""
        with autocast(inputs.device, self.amp):
            output = self.inferer(plain(inputs), network, *args, **kwargs)
        if not torch.is_grad_enabled():
            return output
        if isinstance(output, list):  # of deep supervision
            return [one.float() for one in output]
        return output.float()
