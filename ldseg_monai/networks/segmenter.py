"""What the diffusion methods of this package have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ldseg_monai.runtime.processes import unwrapped


def diffusion_model(network: Callable[..., Any]) -> Any:
    """The network without its wrapper; an error of another one, such as a peer whose own inferer was left out."""
    model = unwrapped(network)
    if not hasattr(model, "scheduler"):
        raise ValueError(
            f"network is a {type(model).__name__}: expected an LDSeg or a CDAL; a peer's overlay comes after "
            "baselines/unet.yaml, which has the inferer of peers"
        )
    return model
