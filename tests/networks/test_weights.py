from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from small_networks import noisy_ldseg

from ldseg_monai.networks import LDSeg
from ldseg_monai.networks.weights import (
    WeightsCheckpointLoader,
    check_weights,
    load_weights,
    read_state,
)
from ldseg_monai.runtime.errors import InputError


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


@pytest.fixture
def of_three_classes(tmp_path: Path) -> str:
    torch.manual_seed(1)
    torch.save(noisy_ldseg(out_channels=3).state_dict(), tmp_path / "three.pt")
    return str(tmp_path / "three.pt")


def of_two_classes() -> LDSeg:
    torch.manual_seed(2)
    return noisy_ldseg(out_channels=2)


def test_weights_of_other_classes_start_what_fits(
    of_three_classes: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = of_two_classes()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.load(of_three_classes, weights_only=True)
    load_weights(network, of_three_classes, partial=True)
    others = []
    for name, value in network.state_dict().items():
        fits = state[name].shape == value.shape
        assert torch.equal(value, state[name] if fits else before[name])
        others += [] if fits else [name]
    # What sees the classes: the label encoder's first weights, the decoder's last and their bias
    assert {name.split(".")[0] for name in others} == {"label_encoder", "label_decoder"}
    assert 3 <= len(others) < len(before) / 2
    (line,) = [record.message for record in caplog.records if "tensors fit" in record.message]
    told = f"{len(before) - len(others)} of {len(before)} tensors fit; {len(others)} start as they"
    assert line.startswith(f"{of_three_classes}: {told}")
    assert sorted(others)[0] in line and "\n" not in line


def test_weights_that_fit_are_loaded_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved, network = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    load_weights(network, str(tmp_path / "model.pt"), partial=True)
    torch.testing.assert_close(network.weight, saved.weight)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_without_the_knob_other_classes_are_refused_with_its_name(of_three_classes: str) -> None:
    network = of_two_classes()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"of another size.*--partial_weights True") as raised:
        load_weights(network, of_three_classes, partial=False)
    assert "tensors fit" in str(raised.value)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(InputError, match="of another size") as raised:  # where there is no knob
        load_weights(network, of_three_classes)
    assert "partial_weights" not in str(raised.value)


def test_weights_of_which_less_than_half_fits_are_refused(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    path = str(tmp_path / "model.pt")
    torch.save({"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}, path)
    load_weights(network, path, partial=True)  # half
    assert torch.equal(network[0].bias, torch.ones(2))
    torch.save({"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(5)}, path)
    with pytest.raises(InputError, match="at least half of them have to fit, and 1 of 4 tensors"):
        load_weights(network, path, partial=True)
    assert torch.equal(network[0].bias, torch.ones(2))
    with pytest.raises(InputError, match="2 missing, 1.bias first") as raised:
        load_weights(network, path, partial=False)
    assert "partial_weights" not in str(raised.value)  # which would not help
    torch.save({"network": {}, "trainer": {}, "cases": []}, path)
    with pytest.raises(InputError, match="give the model.pt beside it"):
        load_weights(network, path, partial=True)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, number: float) -> None:
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "model.pt")
    assert read_state(str(tmp_path / "model.pt")).keys() == state.keys()
    state["weight"][1, 2] = number
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(
        InputError, match="model.pt has NaN or infinite numbers in weight: expected"
    ):
        load_weights(torch.nn.Linear(3, 2), str(tmp_path / "model.pt"), partial=True)
