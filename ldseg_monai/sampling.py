"""The random numbers of training and of a reverse process, and what an ensemble of its results says."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ldseg_monai.processes import rank_and_world_size

PART = 64  # positions of an axis that are looked at at once


def draw_per_sample(number: int, draw: Callable[[torch.Generator], torch.Tensor]) -> torch.Tensor:
    """Draw the random numbers of a training batch, those of each sample by a generator of its own.

    They follow from PyTorch's global random state, which has to be the same in every process, and from the sample's
    place in the batch of all processes together: several processes draw what one with their whole batch would.

    Args:
        number: samples of this process. Process ``r`` of ``n`` has the places ``r``, ``r + n``, ``r + 2 n``...
        draw: makes the numbers of one sample.

    Returns:
        What was drawn, ``(number, ...)``, on the CPU.
    """
    rank, world_size = rank_and_world_size()
    seed = int(torch.randint(2**31, []))
    places = [rank + world_size * sample for sample in range(number)]
    return torch.stack([draw(torch.Generator().manual_seed(seed + place)) for place in places])


def seeded_noise(shape: list[int], seed: int, num_samples: int = 1, num_draws: int = 1) -> torch.Tensor:
    """Draw the noise of a reverse process, the same on every device and for every batch.

    Sample ``i`` gets the same numbers whatever ``num_samples`` is, and every image of a batch shares them, so a mask
    depends on its image and the seed alone.

    Args:
        shape: ``(C_z, *latent)``.
        seed: any integer.
        num_samples: samples drawn for one image.
        num_draws: 1 for a deterministic process (the start), the number of steps for a stochastic one (one more for
            each step but the last).

    Returns:
        Standard normal float32 numbers on the CPU, ``(num_draws, num_samples, C_z, *latent)``.
    """
    # In one expression: where seeding is a statement of its own, TorchScript may drop it when it optimizes.
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn([num_draws] + shape, generator=generator) for _ in range(num_samples)], dim=1)


def summarize(samples: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Summarize several segmentations of one image, one at a time.

    Args:
        samples: class logits, each ``(B, classes, *spatial)``; none is kept when the next is asked for but the first.

    Returns:
        Mean over the samples of the class probabilities, ``(B, classes, *spatial)``, and their standard deviation, of
        each voxel's most uncertain class, ``(B, 1, *spatial)``; both float32, from 0 to 1 and 0 to 0.5.
    """
    remaining = iter(samples)
    first = next(remaining).softmax(dim=1, dtype=torch.float32)
    total, squares = torch.zeros_like(first), torch.zeros_like(first)  # of the differences from the first sample
    number = 1
    for sample in remaining:
        sample = sample.softmax(dim=1, dtype=torch.float32).sub_(first)  # the logits' memory is free for the next
        total.add_(sample)
        squares.addcmul_(sample, sample)
        number += 1
    shift = total / number
    deviation = (squares / number - shift.square()).clamp(min=0).sqrt()
    return first + shift, deviation.amax(dim=1, keepdim=True)


def most_probable_class(scores: torch.Tensor, dim: int) -> torch.Tensor:
    """Index of the largest of the classes' logits or probabilities, position by position.

    Args:
        scores: with the classes along a dimension that positions follow.
        dim: the dimension of the classes.

    Returns:
        uint8, with one class instead of all; of the same type of tensor.
    """
    # Part by part, since the indices of all would take 8 bytes each; max, not argmax, which is far slower on a CPU.
    parts = [part.max(dim, keepdim=True).indices.to(torch.uint8) for part in scores.split(PART, dim + 1)]
    return torch.cat(parts, dim + 1) if len(parts) > 1 else parts[0]


def case_uncertainty(label: torch.Tensor, deviation: torch.Tensor, threshold: float = 0.05) -> float:
    """Say in one number how much the samples of an image disagree, to compare images with.

    A mean over the whole image would say how small the organ is; this one is over the voxels in question.

    Args:
        label: classes, 0 for background, of any shape.
        deviation: standard deviation over the samples of the class probabilities, of the same shape.
        threshold: deviation from which on a voxel of the background is in question.

    Returns:
        Mean deviation of the voxels that are foreground or above the threshold, from 0 (also where there are none) to
        0.5.
    """
    voxels = deviation[(label > 0) | (deviation > threshold)]
    return voxels.mean().item() if voxels.numel() else 0.0


def label_logits(label: torch.Tensor) -> torch.Tensor:
    """Class logits of a diffused label, one channel a class from -1 (absent) to 1 (present).

    A value ``x`` stands for the probability ``(x + 1) / 2``, as its mean over the labels of a voxel would be; its
    logarithm, from 0.001 up, is the logit, so that a softmax makes the classes' probabilities sum to 1. Values above 1
    keep their order.

    Args:
        label: ``(B, classes, *spatial)``.

    Returns:
        Logits of the same shape.
    """
    return ((label + 1) / 2).clamp(min=1e-3).log()
