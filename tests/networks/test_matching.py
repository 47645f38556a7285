"""Weights of another network are refused, whoever loads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointLoader
from small_networks import noisy_ldseg, tiny_cdal

from ldseg_monai.runtime.errors import InputError, UserError, cause


def half(state: dict[str, Any]) -> dict[str, Any]:
    return dict(list(state.items())[: len(state) // 2])


OTHERS = {
    "nothing": lambda state: {},
    "half of them": half,
    "wrapped": lambda state: {"state_dict": state},
    "of a wrapped network": lambda state: {f"module.{name}": of for name, of in state.items()},
    "one more": lambda state: {**state, "extra": torch.zeros(1)},
    "of another method": lambda state: tiny_cdal().state_dict(),
    "of a checkpoint": lambda state: {"network": state, "trainer": {}, "cases": []},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_client_that_loads_what_fits_gets_an_error_instead(other: Any) -> None:
    network = noisy_ldseg()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match="expected weights|weights of another network"):
        network.load_state_dict(other(before), strict=False)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_monais_loader_of_weights_passes_the_error_on(tmp_path: Any) -> None:
    path = tmp_path / "model.pt"
    network = noisy_ldseg()
    torch.save(half(network.state_dict()), path)
    loader = CheckpointLoader(str(path), {"model": network}, strict=False)
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, [0], network, torch.optim.SGD(network.parameters(), 0.1),
        torch.nn.MSELoss(), train_handlers=[loader], amp=False,
    )  # fmt: skip
    with pytest.raises(Exception) as raised:
        trainer.run()
    assert isinstance(cause(raised.value), UserError)
    assert "missing" in str(cause(raised.value))


def test_weights_of_the_network_are_loaded() -> None:
    network, other = noisy_ldseg(), noisy_ldseg()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    network.load_state_dict(other.state_dict())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name])
