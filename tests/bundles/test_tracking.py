"""`--tracking mlflow` keeps a run in a store of MLflow, here a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_kinds import QUICK
from workplace import Workplace, restored_process, tiny_overrides

from ldseg_monai.bundle import Bundle, tracking
from ldseg_monai.runtime.errors import MissingPackageError, cause


def train(tmp_path: Path) -> Path:
    place = Workplace.make(tmp_path, QUICK)
    knobs = {**tiny_overrides(QUICK, "train.yaml"), "device": "cpu", "tracking": "mlflow"}
    with restored_process():
        Bundle(place.bundle_root).train(output_dir=str(tmp_path / "run"), **knobs)
    return tmp_path / "run"


def test_without_mlflow_a_training_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(Exception) as raised:
        train(tmp_path)
    told = cause(raised.value)
    assert isinstance(told, MissingPackageError)
    assert "takes mlflow, sqlalchemy, alembic: pip install 'ldseg_monai[tracking]'" in str(told)
    assert not (tmp_path / "run" / "phantoms_0").exists()


def test_a_training_s_curves_are_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = train(tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "monai_experiment"]
    (run,) = client.search_runs(experiment.experiment_id)
    assert run.info.status == "FINISHED" and run.data.params["max_epochs"] == "2"
    identity = run.info.run_id
    losses = client.get_metric_history(identity, "train_loss")
    assert [metric.step for metric in losses] == [1, 2, 3, 4]  # batches of two of four cases
    scores = client.get_metric_history(identity, "val_mean_dice")
    assert [metric.step for metric in scores] == [1, 2]
    (artifact,) = client.list_artifacts(identity)
    kept = folder / "mlruns" / identity / "artifacts" / artifact.path
    assert kept.read_bytes() == (folder / artifact.path).read_bytes()
