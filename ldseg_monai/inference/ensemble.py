"""What several segmentations of one image say together."""

from __future__ import annotations

from collections.abc import Iterable

import torch

PART = 64  # positions of an axis that are looked at at once


def summarize(samples: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Summarize several segmentations of one image, one at a time.

    Args:
        samples: class logits, each ``(B, classes, *spatial)``; none is kept when the next is asked
            for but the first.

    Returns:
        Mean over the samples of the class probabilities, ``(B, classes, *spatial)``, and their
        standard deviation, of each voxel's most uncertain class, ``(B, 1, *spatial)``; both
        float32, from 0 to 1 and 0 to 0.5.
    """
    remaining = iter(samples)
    logits = next(remaining)
    two_classes = logits.shape[1] == 2
    first = _probabilities(logits)
    del logits
    total, squares = torch.zeros_like(first), torch.zeros_like(first)  # of the differences from it
    number = 1
    for sample in remaining:
        difference = _probabilities(sample).sub_(first)
        del sample  # the logits' memory is free for the next
        total.add_(difference)
        squares.addcmul_(difference, difference)
        number += 1
    shift = total / number
    deviation = (squares / number - shift.square()).clamp(min=0).sqrt()
    mean = first + shift
    if two_classes:
        return torch.cat([1 - mean, mean], dim=1), deviation
    return mean, deviation.amax(dim=1, keepdim=True)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Class probabilities, float32: of two classes those of the second, which say it all."""
    if logits.shape[1] != 2:
        return logits.softmax(dim=1, dtype=torch.float32)
    background, foreground = logits.float().split(1, dim=1)
    return (foreground - background).sigmoid_()


def most_probable_class(scores: torch.Tensor, dim: int) -> torch.Tensor:
    """Index of the largest of the classes' logits or probabilities, position by position.

    Args:
        scores: with the classes along a dimension that positions follow.
        dim: the dimension of the classes.

    Returns:
        uint8, with one class instead of all; of the same type of tensor.
    """
    # Part by part, since the indices of all would take 8 bytes each; max, not argmax, which is far
    # slower on a CPU.
    parts = [
        part.max(dim, keepdim=True).indices.to(torch.uint8) for part in scores.split(PART, dim + 1)
    ]
    return torch.cat(parts, dim + 1) if len(parts) > 1 else parts[0]


def case_uncertainty(
    label: torch.Tensor, deviation: torch.Tensor, threshold: float = 0.05
) -> float:
    """Say in one number how much the samples of an image disagree, to compare images with.

    A mean over the whole image would say how small the organ is; this one is over the voxels in
    question.

    Args:
        label: classes, 0 for background, of any shape.
        deviation: standard deviation over the samples of the class probabilities, of the same
            shape.
        threshold: deviation from which on a voxel of the background is in question.

    Returns:
        Mean deviation of the voxels that are foreground or above the threshold, from 0 (also where
        there are none) to 0.5.
    """
    voxels = deviation[(label > 0) | (deviation > threshold)]
    return voxels.mean().item() if voxels.numel() else 0.0
