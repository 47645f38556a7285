"""How far gray levels alone tell a structure from the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_band_dice(image: NDArray, mask: NDArray) -> float:
    """Dice of the best rule `low <= image <= high`, over every low and high: single thresholds are among them."""
    values = np.clip(image, 0, 255).astype(int)
    every = np.concatenate([[0], np.bincount(values.ravel(), minlength=256).cumsum()])
    hits = np.concatenate([[0], np.bincount(values[mask], minlength=256).cumsum()])
    found, true = every[None] - every[:, None], hits[None] - hits[:, None]
    dice = 2 * true / np.maximum(found + mask.sum(), 1)
    return float(np.triu(dice).max())
