"""MONAI's tracking of experiments, set up by a command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.handlers import MLFlowHandler

from ldseg_monai.bundle.tracking import mend_tracking, remove_executed


@pytest.mark.parametrize("others", [[], ["mask.png"]])
def test_config_that_mlflow_s_refusal_would_leave_is_removed(
    tmp_path: Path, others: list[str]
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ["config.json", *others]:
        (folder / name).touch()
    remove_executed(ConfigParser({"save_execute_config": str(folder / "config.json")}))
    assert folder.exists() == bool(others)
    assert sorted(path.name for path in tmp_path.glob("out/*")) == others


def test_handler_of_mlflow_reads_the_loss_of_a_trainer_that_leaves_batches_whole() -> None:
    trainer = DEFAULT_MLFLOW_SETTINGS["configs"]["trainer"]
    others = [{"_target_": "StatsHandler"}, "@best"]
    parser = ConfigParser({"train": {"handlers": [*others, dict(trainer)]}, "best": 0})
    output = {"loss": 0.25, "image": None}
    transform = "train#handlers#2#output_transform"
    assert parser.get_parsed_content(transform)(output) == (0.25,)  # which is the upstream fault
    mend_tracking(parser)
    assert parser["train#handlers"][:2] == others
    assert parser.get_parsed_content(transform)(output) == 0.25


def test_mlflow_s_handler_logs_the_loss_of_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow need not be installed: the handler's own step is MONAI's, what it sends is kept here.
    logged: list[tuple[dict[str, float], int]] = []
    monkeypatch.setattr(MLFlowHandler, "__init__", lambda self: None)
    handler = MLFlowHandler()
    parser = ConfigParser(
        {"train": {"handlers": [{**DEFAULT_MLFLOW_SETTINGS["configs"]["trainer"]}]}}
    )
    mend_tracking(parser)
    transform = parser.get_parsed_content("train#handlers#0#output_transform")
    handler.output_transform, handler.tag_name = transform, "train_loss"
    monkeypatch.setattr(
        handler, "_log_metrics", lambda values, step: logged.append((values, step)), raising=False
    )
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(0.5), "image": None})
    engine.add_event_handler(Events.ITERATION_COMPLETED, handler._default_iteration_log)
    engine.run([0, 1])
    assert logged == [({"train_loss": 0.5}, 1), ({"train_loss": 0.5}, 2)]
