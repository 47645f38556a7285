from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

from ldseg_monai.networks.weights import WeightsCheckpointLoader, check_weights, read_state


def test_loader_loads_a_plain_state_dict(tmp_path: Path) -> None:
    saved, network = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    engine = Engine(lambda engine, batch: None)
    WeightsCheckpointLoader(
        str(tmp_path / "model.pt"), {"model": network}, map_location="cpu"
    ).attach(engine)
    engine.run([0])
    torch.testing.assert_close(network.weight, saved.weight)


def test_every_tensor_is_compared() -> None:
    network = torch.nn.Linear(3, 2)
    check_weights(network.state_dict(), network, "x")
    for state, says in (
        ({"weight": torch.zeros(2, 3)}, "1 missing, bias first"),
        ({**network.state_dict(), "scale": torch.zeros(1)}, "1 of no use, scale first"),
        ({**network.state_dict(), "bias": torch.zeros(3)}, r"bias of \[3\]: expected \[2\]"),
        ({**network.state_dict(), "bias": 3}, r"bias of \[\]: expected \[2\]"),
    ):
        with pytest.raises(ValueError, match=says):
            check_weights(state, network, "x")


def test_file_that_is_cut_anywhere_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(30, 20).state_dict(), path)
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="model.pt"):
            read_state(str(path))
