"""Medical image segmentation by diffusion in few steps: what MONAI lacks for its bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ldseg_monai.bundle.bundle import Bundle as Bundle
    from ldseg_monai.clients.segmenter import Segmentation as Segmentation
    from ldseg_monai.clients.segmenter import Segmenter as Segmenter

__version__ = "0.2.0"
__all__ = ["Bundle", "Segmentation", "Segmenter"]

# What is imported when it is asked for: it takes seconds, and much of the package does without.
_PLACES = {
    "Bundle": "ldseg_monai.bundle",
    "Segmentation": "ldseg_monai.clients.segmenter",
    "Segmenter": "ldseg_monai.clients.segmenter",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _PLACES:
        from ldseg_monai.runtime.errors import UnknownNameError

        raise UnknownNameError(
            f"module {__name__!r} has no attribute {name!r}: expected one of {', '.join(_PLACES)}"
        )
    return getattr(importlib.import_module(_PLACES[name]), name)
