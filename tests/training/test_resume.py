from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from ldseg_monai.data.trained_cases import TrainedCases
from ldseg_monai.runtime import signals
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.training.handlers import Conclude
from ldseg_monai.training.resume import ResumableCheckpoint, SaveBest

ADVICE = "choose another output_dir to start anew, or delete the checkpoint"


# ResumableCheckpoint


def settings(learning_rate: float = 0.1, **used: Any) -> dict[str, dict[str, Any]]:
    return {"restored": {"learning_rate": learning_rate, "initial_weights": ""}, "used": used}


def train(folder: Path, max_epochs: int, given: dict[str, dict[str, Any]] | None) -> Engine:
    network = nn.Linear(1, 1)
    objects = {"optimizer": torch.optim.SGD(network.parameters(), lr=0.1)}
    engine = Engine(lambda engine, batch: None)
    engine.logger = logging.getLogger("training")
    path = str(folder / "checkpoint.pt")
    ResumableCheckpoint(path, objects, [{"image": "a.png"}], settings=given).attach(engine)
    engine.run([0, 1], max_epochs=max_epochs)
    return engine


def test_setting_that_the_checkpoint_would_restore_is_refused_with_both_values(
    tmp_path: Path,
) -> None:
    train(tmp_path, 1, settings())
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError) as raised:
        train(tmp_path, 2, settings(0.2))
    assert str(raised.value) == (
        f"{tmp_path}/checkpoint.pt is of a run with learning_rate 0.1, got 0.2: what it restores "
        f"would override that; go on with what the run has, or {ADVICE}"
    )
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_setting_that_was_not_given_before_is_told(tmp_path: Path) -> None:
    train(tmp_path, 1, settings())
    changed = settings()
    changed["restored"]["optimizer#weight_decay"] = 0.5
    with pytest.raises(ValueError, match="optimizer#weight_decay not given, got 0.5"):
        train(tmp_path, 2, changed)


def test_other_settings_are_used_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, 1, settings(batch_size=4, seed=0, fold=None))
    with caplog.at_level(logging.INFO):
        train(tmp_path, 2, settings(batch_size=2, seed=0, fold=1))
    said = [message for message in caplog.messages if message.startswith("from here on")]
    assert said == [
        "from here on batch_size is 2, before it was 4",
        "from here on fold is 1, before it was None",
    ]


def test_files_that_changed_since_the_checkpoint_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"first")
    train(tmp_path, 1, settings())
    train(tmp_path, 2, settings())
    os.utime("a.png", ns=(0, 0))  # as of a copy
    train(tmp_path, 3, settings())
    assert "another size" not in caplog.text
    Path("a.png").write_bytes(b"corrected")
    train(tmp_path, 4, settings())
    told = "the image or label of 1 case has another size than at the checkpoint (a)"
    assert caplog.text.count(told) == 1
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["files"]  # as those of earlier versions
    torch.save(state, tmp_path / "checkpoint.pt")
    train(tmp_path, 5, settings())
    assert caplog.text.count(told) == 1


def test_checkpoint_without_settings_goes_on(tmp_path: Path) -> None:
    train(tmp_path, 1, settings())
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]  # as those of version 0.2.0
    torch.save(state, tmp_path / "checkpoint.pt")
    assert train(tmp_path, 2, settings(0.2)).state.epoch == 2


def test_advice_of_a_stopped_run_names_the_checkpoint_and_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = signals._EndInOneLine("ldseg_monai")
    monkeypatch.setattr(signals.signal, "getsignal", lambda number: handler)
    engine = Engine(lambda engine, batch: None)
    ResumableCheckpoint(str(tmp_path / "checkpoint.pt"), {}, []).attach(engine)
    told: list[str] = []
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: told.append(handler.advice()))
    engine.run([0], max_epochs=2)
    assert told == [
        f"no epoch is complete, so there is no checkpoint {tmp_path}/checkpoint.pt yet",
        f"{tmp_path}/checkpoint.pt has all up to epoch 1: the same command goes on from it",
    ]


# SaveBest and Conclude


def validated(best: SaveBest, *scores: float) -> None:
    """One validation after the other, with these scores."""
    for epoch, score in enumerate(scores, start=1):
        state = SimpleNamespace(metrics={"dice": score}, key_metric_name="dice", epoch=epoch)
        best(SimpleNamespace(state=state, logger=logging.getLogger("validation")))  # type: ignore[arg-type]


def images(folder: Path, *names: str) -> list[dict[str, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.png").write_bytes(name.encode())
    return [{"image": str(folder / f"{name}.png")} for name in names]


def test_weights_come_with_the_cases_that_they_were_trained_on(tmp_path: Path) -> None:
    cases = images(tmp_path / "images", "a", "b")
    validated(SaveBest(str(tmp_path / "model.pt"), nn.Linear(1, 1), cases), 0.5)
    trained = TrainedCases.read(tmp_path / "model.pt")
    assert trained is not None and trained.digests == TrainedCases.of(cases).digests
    assert trained.score == "dice 0.5000 in epoch 1"


def test_cases_of_the_initial_weights_count_too(tmp_path: Path) -> None:
    earlier, later = (images(tmp_path / "images", name) for name in "ab")
    validated(SaveBest(str(tmp_path / "first.pt"), nn.Linear(1, 1), earlier), 0.5)
    start = str(tmp_path / "first.pt")
    validated(SaveBest(str(tmp_path / "second.pt"), nn.Linear(1, 1), later, start), 0.5)
    both = TrainedCases.read(tmp_path / "second.pt")
    assert both is not None and both.digests == TrainedCases.of([*earlier, *later]).digests
    unknown = SaveBest(str(tmp_path / "third.pt"), nn.Linear(1, 1), later, "elsewhere.pt")
    validated(unknown, 0.5)
    note = json.loads((tmp_path / "third_cases.json").read_text())["note"]
    assert note == "the weights that it started from, elsewhere.pt, do not say theirs"


def test_cases_of_before_a_run_went_on_count_too(tmp_path: Path) -> None:
    path = str(tmp_path / "model.pt")
    cases = images(tmp_path / "images", "a")
    best = SaveBest(path, nn.Linear(1, 1), cases)
    validated(best, 0.5)
    before = TrainedCases.of(cases).digests
    (tmp_path / "images" / "a.png").write_bytes(b"another image")
    again = SaveBest(path, nn.Linear(1, 1), cases)
    again.load_state_dict(best.state_dict())
    validated(again, 0.6)
    found = TrainedCases.read(path)
    assert found is not None and found.digests == before | TrainedCases.of(cases).digests


def test_unreadable_cases_beside_earlier_weights_are_told_before_training(tmp_path: Path) -> None:
    weights = str(tmp_path / "model.pt")
    (tmp_path / "model_cases.json").write_text("[]")
    cases = images(tmp_path / "images", "a")
    with pytest.raises(InputError, match="model_cases.json cannot be read .*; copy it again"):
        SaveBest("other.pt", nn.Linear(1, 1), cases, weights).attach(Engine(lambda *_: None))
    goes_on = SaveBest(weights, nn.Linear(1, 1), cases)
    with pytest.raises(InputError, match="model_cases.json cannot be read .*; copy it again"):
        goes_on.load_state_dict({"best": 0.5})


def test_a_score_of_nothing_is_never_the_best(tmp_path: Path) -> None:
    best = SaveBest(str(tmp_path / "model.pt"), nn.Linear(1, 1))
    validated(best, math.nan)
    assert not (tmp_path / "model.pt").exists()
    validated(best, math.nan, 0.3, math.nan, 0.2)
    assert (best.best, best.epoch) == (0.3, 2)
    other = SaveBest(str(tmp_path / "model.pt"), nn.Linear(1, 1))
    other.load_state_dict(best.state_dict())
    assert (other.best, other.epoch, other.name) == (0.3, 2, "dice")


@pytest.mark.parametrize("scores", [(0.25, 0.5, 0.4), ()])
def test_end_of_a_training_names_weights_score_and_next_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scores: tuple[float, ...]
) -> None:
    best = SaveBest(str(tmp_path / "model.pt"), nn.Linear(1, 1))
    validated(best, *scores)
    engine = Engine(lambda engine, batch: None)
    engine.logger = logging.getLogger("training")
    Conclude(best, "the next command").attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run([0], max_epochs=3)
    said = [record.getMessage() for record in caplog.records if record.module == "handlers"]
    if scores:
        assert said == [
            f"trained 3 epochs; the weights of epoch 2 are the best, dice 0.5000: "
            f"{tmp_path}/model.pt",
            "score them on the validation cases: the next command",
        ]
    else:
        assert said == ["trained 3 epochs; none was validated"]
