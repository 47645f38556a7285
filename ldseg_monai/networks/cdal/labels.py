"""Diffused labels as class logits."""

from __future__ import annotations

import torch


def label_logits(label: torch.Tensor) -> torch.Tensor:
    """Class logits of a diffused label, one channel a class from -1 (absent) to 1 (present).

    A value ``x`` stands for the probability ``(x + 1) / 2``, as its mean over the labels of a voxel
    would be; its logarithm, from 0.001 up, is the logit, so that a softmax makes the classes'
    probabilities sum to 1. Values above 1 keep their order.

    Args:
        label: ``(B, classes, *spatial)``.

    Returns:
        Logits of the same shape.
    """
    return ((label + 1) / 2).clamp(min=1e-3).log()
