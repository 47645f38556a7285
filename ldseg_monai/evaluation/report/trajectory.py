"""The way of one segmentation from noise to label."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from torch import nn

from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.ensemble import EnsembleSegmenter
from ldseg_monai.networks.segmenter import DiffusionSegmenter, State
from ldseg_monai.runtime.processes import unwrapped


@dataclass(frozen=True)
class Trajectory:
    """States of a reverse process: the noise that it starts from and what its steps leave.

    Args:
        timesteps: t of each state, from T down to 0.
        states: ``(states, C, *latent)``; of cDAL the diffused label itself, one channel a class.
        labels: the classes that each state is decoded to, ``(states, *spatial)``, with the affine
            of the image where it has one, whose directions are the states' too.
    """

    timesteps: list[int]
    states: torch.Tensor
    labels: torch.Tensor


def sampler_of(inferer: Any) -> SamplingInferer | None:
    """The inferer that draws the samples, which another may call window by window.

    Returns:
        The sampler; None if there is none.
    """
    while not isinstance(inferer, SamplingInferer):
        if not hasattr(inferer, "sampler"):
            return None
        inferer = inferer.sampler
    return inferer


def record_trajectory(
    inferer: Inferer, network: nn.Module, image: torch.Tensor, max_states: int = 8
) -> Trajectory | None:
    """Segment an image once more, by one sample, and keep the states on the way.

    Args:
        inferer: how the network is called; of several windows or slices the one with the most
            foreground is kept.
        network: a `DiffusionSegmenter`, plain or wrapped in ``DistributedDataParallel``; of an
            ensemble the first network, which draws the first sample.
        image: ``(1, in_channels, *spatial)``.
        max_states: states kept of a long process, evenly spaced, first and last among them.

    Returns:
        The states, on the CPU; None for a network or an inferer without a reverse process.
    """
    model = unwrapped(network)
    if isinstance(model, EnsembleSegmenter):
        model = model.first
    inferer = copy.deepcopy(inferer)
    sampler = sampler_of(inferer)
    if sampler is None or not isinstance(model, DiffusionSegmenter):
        return None
    recorder = _Recorder(max_states)
    sampler.num_samples = 1  # the first, or what starts at the mean of the noise
    sampler.turned, sampler.mirrored_axes = False, ()  # and sees the image as it is
    sampler.callback = recorder
    with torch.no_grad(), eval_mode(model):
        inferer(inputs=image, network=model)
    found = recorder.best
    if found is None or not isinstance(image, MetaTensor):
        return found
    return dataclasses.replace(found, labels=MetaTensor(found.labels, affine=image.affine))


class _Recorder:
    """Follows reverse processes and keeps that of the window with the most foreground so far."""

    def __init__(self, max_states: int) -> None:
        self.max_states = max_states
        self.passed: list[State] = []  # of all windows of a pass
        self.best: Trajectory | None = None
        self.most = -1

    def __call__(self, state: State) -> None:
        """Note a state; the last one of a pass has t = 0."""
        self.passed.append(state)
        if state.timestep:
            return
        passed, self.passed = self.passed, []
        classes = state.decode(state.value).argmax(dim=1)
        foreground = (classes > 0).flatten(1).sum(dim=1)
        window = int(foreground.argmax())
        if int(foreground[window]) > self.most:
            self.most = int(foreground[window])
            self.best = self._trajectory(passed, window)

    def _trajectory(self, passed: list[State], window: int) -> Trajectory:
        """A choice of one window's states."""
        number = min(len(passed), self.max_states)
        places = torch.linspace(0, len(passed) - 1, number).round().int().tolist()
        chosen = [passed[place] for place in places]
        values = [state.value[window].float().cpu() for state in chosen]
        labels = []
        for state in chosen:
            classes = state.decode(state.value).argmax(dim=1)
            labels.append(classes[window].cpu())
        timesteps = [state.timestep for state in chosen]
        return Trajectory(timesteps, torch.stack(values), torch.stack(labels))
