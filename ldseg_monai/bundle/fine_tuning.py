"""How long a training takes that starts from a trained network's weights."""

from __future__ import annotations

import math

from ldseg_monai.bundle.bundle import Bundle

PARTS = 10  # of which one is enough


def fine_tuning_epochs(bundle: Bundle) -> int | None:
    """Epochs of a bundle's training from trained weights: a tenth of its ``max_epochs``.

    So the time does not depend on the number of cases. The learning rate stays the bundle's: a
    third of it and a tenth were no better (benchmarks/results/ldseg_hippocampus/few_cases.md).

    Args:
        bundle: the bundle.

    Returns:
        The number; None where its ``train.yaml`` has no number of epochs.
    """
    epochs = bundle.config("train.yaml").get("max_epochs")
    return math.ceil(epochs / PARTS) if isinstance(epochs, int) else None
