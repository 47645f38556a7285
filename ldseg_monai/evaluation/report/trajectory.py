"""The way of one segmentation from noise to label."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from torch import nn

from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.cdal.network import CDAL
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.runtime.precision import autocast
from ldseg_monai.runtime.processes import unwrapped


@dataclass(frozen=True)
class Trajectory:
    """States of a reverse process: the noise that it starts from and what is left after its steps.

    Args:
        timesteps: t of each state, from T down to 0.
        states: ``(states, C, *latent)``; of cDAL the diffused label itself, one channel a class.
        labels: the classes that each state is decoded to, ``(states, *spatial)``.
    """

    timesteps: list[int]
    states: torch.Tensor
    labels: torch.Tensor


def sampler_of(inferer: Any) -> SamplingInferer | None:
    """The inferer that draws the samples, which another may call window by window; None if there is none."""
    while not isinstance(inferer, SamplingInferer):
        if not hasattr(inferer, "sampler"):
            return None
        inferer = inferer.sampler
    return inferer


def record_trajectory(
    inferer: Inferer, network: nn.Module, image: torch.Tensor, max_states: int = 8
) -> Trajectory | None:
    """Segment an image once more, its first sample alone, and keep the states that the reverse process goes through.

    The network is watched by hooks, so that neither its code nor its speed elsewhere know of it.

    Args:
        inferer: how the network is called; of several windows or slices the one with the most
            foreground is kept.
        network: an `LDSeg` or `CDAL`, plain or wrapped in ``DistributedDataParallel``.
        image: ``(1, in_channels, *spatial)``.
        max_states: states kept of a long process, evenly spaced, first and last among them.

    Returns:
        The states, on the CPU; None for a network or an inferer without a reverse process.
    """
    model = unwrapped(network)
    inferer = copy.deepcopy(inferer)
    sampler = sampler_of(inferer)
    if sampler is None or not isinstance(model, (LDSeg, CDAL)):
        return None
    sampler.num_samples = 1  # the first sample is the same whatever their number is
    watch = _LDSegWatch(model) if isinstance(model, LDSeg) else _CDALWatch(model)
    with torch.no_grad(), eval_mode(model):
        try:
            inferer(inputs=image, network=model)
        finally:
            watch.end()
        timesteps, states = [*watch.timesteps, 0], watch.best
        chosen = (
            torch.linspace(0, len(states) - 1, min(len(states), max_states)).round().int().tolist()
        )
        with autocast(image.device, sampler.amp):
            labels = [watch.decode(states[index][None]).argmax(dim=1) for index in chosen]
    return Trajectory(
        [timesteps[index] for index in chosen],
        torch.stack([states[index] for index in chosen]).float().cpu(),
        torch.cat(labels).cpu(),
    )


class _Watch:
    """Follows the passes of a network and keeps the states of the window with the most foreground so far."""

    def __init__(self) -> None:
        self.hooks: list[Any] = []
        self.timesteps: list[int] = []  # of the pass
        self.passed: list[torch.Tensor] = []  # its states, of all its windows
        self.best: list[torch.Tensor] = []
        self.most = -1

    def step(self, state: torch.Tensor, timesteps: torch.Tensor) -> None:
        """Note the state that a step begins with; index 0 is the paper's t = 1."""
        if not self.passed:
            self.timesteps = []
        self.timesteps.append(int(timesteps[0]) + 1)
        self.passed.append(state)

    def finish(self, state: torch.Tensor, classes: torch.Tensor) -> int | None:
        """Note the last state; returns the number of the window if it is the best so far."""
        foreground = (classes > 0).flatten(1).sum(dim=1)
        window, states = int(foreground.argmax()), [*self.passed, state]
        self.passed = []
        if int(foreground[window]) <= self.most:
            return None
        self.most = int(foreground[window])
        self.best = [state[window] for state in states]
        return window

    def end(self) -> None:
        """Follow no longer."""
        for hook in self.hooks:
            hook.remove()


class _LDSegWatch(_Watch):
    def __init__(self, network: LDSeg) -> None:
        super().__init__()
        self.network = network
        self.features: list[torch.Tensor] = []
        self.hooks = [
            network.denoiser.register_forward_pre_hook(
                lambda module, inputs: self.step(inputs[0], inputs[2])
            ),
            network.label_decoder.register_forward_hook(self.decoded),
        ]

    def decoded(
        self,
        module: nn.Module,
        inputs: tuple[torch.Tensor, list[torch.Tensor]],
        logits: torch.Tensor,
    ) -> None:
        latent, features = inputs
        window = self.finish(latent, logits.argmax(dim=1))
        if window is not None:
            self.features = [feature[window : window + 1].clone() for feature in features]

    def decode(self, state: torch.Tensor) -> torch.Tensor:
        return self.network.label_decoder(state, self.features)


class _CDALWatch(_Watch):
    def __init__(self, network: CDAL) -> None:
        super().__init__()
        self.hooks = [
            network.generator.register_forward_pre_hook(
                lambda module, inputs: self.step(inputs[0], inputs[1])
            ),
            network.generator.register_forward_hook(self.generated),
        ]

    def generated(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], label: torch.Tensor
    ) -> None:
        if int(inputs[1][0]) == 0:  # the last step leaves the generator's estimate as it is
            self.finish(label.float(), label.argmax(dim=1))

    def decode(self, state: torch.Tensor) -> torch.Tensor:
        return state
