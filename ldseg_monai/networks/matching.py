"""Whether weights are those of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ldseg_monai.runtime.errors import InputError


def check_weights(state: Mapping[str, Any], network: torch.nn.Module, path: str) -> None:
    """Check that a state dict is that of a network.

    Args:
        state: tensors by name.
        network: the network.
        path: where the state is from, for the message.

    Raises:
        ValueError: if names or shapes differ.
    """
    wanted = network.state_dict()
    if {"network", "trainer", "cases"} <= state.keys():
        raise InputError(
            f"{path} is the checkpoint of a training: expected weights; give the model.pt beside it"
        )
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    kind = type(network).__name__
    advice = (
        "give the weights of this network, or the network_def and num_classes that they were "
        "trained with"
    )
    if missing or unknown:
        kinds = ((missing, "missing"), (unknown, "of no use"))
        parts = [f"{len(names)} {what}, {names[0]} first" for names, what in kinds if names]
        raise InputError(
            f"{path} has weights of another network than {kind} of this config: of its "
            f"{len(wanted)} tensors {'; '.join(parts)}; {advice}"
        )
    fitting = set(fitting_names(state, network))
    differing = [name for name in wanted if name not in fitting]
    if differing:
        name = differing[0]
        got, shape = (list(getattr(tensors[name], "shape", [])) for tensors in (state, wanted))
        raise InputError(
            f"{path} has weights of another size than this config's {kind}: {len(differing)} of "
            f"{len(wanted)} tensors, such as {name} of {got}: expected {shape}; {advice}"
        )


def fitting_names(state: Mapping[str, Any], network: torch.nn.Module) -> list[str]:
    """Names of a network's tensors that a state dict has in the same shape.

    Args:
        state: tensors by name.
        network: the network.
    """
    names = []
    for name, value in network.state_dict().items():
        if getattr(state.get(name), "shape", None) == value.shape:
            names.append(name)
    return names
