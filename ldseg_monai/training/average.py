"""The exponential average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.optim.swa_utils import AveragedModel

from ldseg_monai.runtime.processes import unwrapped


def average_weights(
    network: torch.nn.Module, num_iterations: int, share: float = 0.1
) -> AveragedModel:
    """Make the exponential average of a network's weights, for `UpdateAverage` to keep.

    Args:
        network: the network in training, plain or wrapped in ``DistributedDataParallel``.
        num_iterations: optimizer steps of the whole run.
        share: share of the run that the average spans, at most 1000 steps (a decay of 0.999). Until
            it has seen so many it spans about half of those seen, so that a short run forgets its
            start too.

    Returns:
        Torch's averaged model, whose ``module`` has the averaged weights and whose state says how
        many it has seen.
    """
    span = min(1000.0, max(4.0, share * num_iterations))

    # Not torch's `get_ema_multi_avg_fn(decay)`: its decay is the same at every step, while this one
    # begins at 1/3 and grows until the average spans its share of the run.
    def average(averaged: Any, current: Any, num_averaged: torch.Tensor | int) -> None:
        if torch.is_floating_point(averaged[0]):
            torch._foreach_lerp_(averaged, current, max(1 / span, 2 / (int(num_averaged) + 2)))
        else:  # counters, such as batch normalization's
            torch._foreach_copy_(averaged, current)

    return AveragedModel(unwrapped(network), multi_avg_fn=average, use_buffers=True)


class UpdateAverage:
    """Trainer handler that takes the network's weights into their average after each step.

    Args:
        average: of `average_weights`.
        network: the network in training.
    """

    def __init__(self, average: AveragedModel, network: torch.nn.Module) -> None:
        self.average = average
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Update at the end of each iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Update now."""
        self.average.update_parameters(unwrapped(self.network))
