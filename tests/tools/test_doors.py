"""`ldseg train` and `ldseg evaluate` do what the bundle's own commands do."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from small_data import write_cuts
from workplace import Workplace, restored_process, tiny_overrides

from ldseg_monai.bundle import Bundle
from ldseg_monai.runtime.errors import counted
from ldseg_monai.tools.cli import main

BUNDLE = "ldseg_hippocampus"
TRAIN, EVALUATE = ["train.yaml"], ["train.yaml", "evaluate.yaml"]

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace.make(tmp_path_factory.mktemp("place"), BUNDLE)
    write_cuts(place.root / "data", 3, num_classes=3)
    return place


@pytest.fixture(scope="module")
def trained(place: Workplace) -> Path:
    """The folder of an epoch of training by the command."""
    with restored_process():
        assert run("train", place, "trained", TRAIN, "--epochs", 1, "--fold", 1) == 0
    return place.root / "trained"


def run(
    command: str, place: Workplace, out: str, configs: list[str], *options: Any, **knobs: Any
) -> int:
    """Run a command with the bundle made small; without what is to come from its options."""
    tiny = {**tiny_overrides(BUNDLE, *configs), "device": "cpu", "num_folds": 2}
    if configs == TRAIN:
        tiny.pop("max_epochs")
    items = [f"{name}={json.dumps(value)}" for name, value in {**tiny, **knobs}.items()]
    paths = ["-m", place.bundle_root, "--data", place.root / "data", "-o", place.root / out]
    return main([command, *map(str, [*paths, *options]), "--set", *items])


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)


def test_training_is_that_of_the_bundle(place: Workplace, trained: Path) -> None:
    knobs: dict[str, Any] = {**tiny_overrides(BUNDLE, *TRAIN), "device": "cpu", "num_folds": 2}
    knobs |= {"max_epochs": 1, "fold": 1, "dataset_dir": place.root / "data"}
    path = Bundle(place.bundle_root).train(output_dir=place.root / "own", **knobs)
    own, by_command = weights_in(path.parent), weights_in(trained)
    assert own.keys() == by_command.keys()
    assert all(torch.equal(own[name], by_command[name]) for name in own)


def test_training_tells_the_next_command(
    place: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert run("train", place, "told", TRAIN, "--epochs", 1) == 0
    told = [record.getMessage() for record in caplog.records]
    assert any(f"--model_path {place.root}/told/model.pt" in line for line in told)


def test_evaluation_tells_scores_and_report(
    place: Workplace, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--weights", trained / "model.pt", "--part", "val"]
    assert run("evaluate", place, "scores", EVALUATE, *options) == 0
    scores, report = capsys.readouterr().out.splitlines()[-2:]
    summary = json.loads((place.root / "scores" / "summary.json").read_text())
    assert scores.startswith(f"Dice {summary['all']['dice']['mean']:.4f}, IoU ")
    assert scores.endswith(f"means of {counted(summary['cases'], 'case')}")
    assert report == str(place.root / "scores" / "report.html")
    assert Path(report).is_file()


def test_evaluation_in_views_is_of_mirrored_samples(
    place: Workplace, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = {"mirror_axes": [0]}
    options = ["--weights", trained / "model.pt", "--part", "val"]
    assert run("evaluate", place, "views", EVALUATE, *options, "--views", **axes) == 0
    knobs = {"num_samples": 2, "mirrored": True, **axes}
    assert run("evaluate", place, "knobs", EVALUATE, *options, **knobs) == 0
    assert run("evaluate", place, "plain", EVALUATE, *options, num_samples=2) == 0
    names = ("views", "knobs", "plain")
    views, knobs, plain = ((place.root / name / "metrics.csv").read_text() for name in names)
    assert views == knobs != plain
    assert "mirrored along axes [0]" in (place.root / "views" / "report.html").read_text()
    assert run("evaluate", place, "few", EVALUATE, *options, "--views", num_samples=1, **axes) == 2
    assert "num_samples is 1 with 2 views" in capsys.readouterr().err


def test_evaluation_of_an_ensemble_scores_the_masks_that_it_predicts(
    place: Workplace, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", place, "other", TRAIN, "--epochs", 1, "--fold", 0) == 0
    folds = [trained / "model.pt", place.root / "other" / "model.pt"]
    options = ["--ensemble", *folds]
    assert run("evaluate", place, "folds", EVALUATE, *options) == 0
    images, out = place.root / "data" / "images", place.root / "folds_masks"
    tiny = tiny_overrides(BUNDLE, "inference.yaml")
    items = [f"{name}={json.dumps(value)}" for name, value in tiny.items() if name != "num_samples"]
    given = ["-m", place.bundle_root, "-i", images, "-o", out, "--device", "cpu", *options]
    assert main(["predict", *map(str, given), "--set", *items]) == 0
    with open(place.root / "folds" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and {row["trained_on"] for row in rows} == {"yes"}  # each by one of them
    for row in rows:
        mask = nib.load(out / f"{row['case']}_label.nii.gz").get_fdata() == int(row["class"])
        label = nib.load(place.root / "data" / "labels" / f"{row['case']}.nii.gz").get_fdata()
        label = label == int(row["class"])
        dice = 2 * (mask & label).sum() / (mask.sum() + label.sum())
        assert float(row["dice"]) == pytest.approx(dice), row["case"]
    page = (place.root / "folds" / "report.html").read_text()
    assert all(str(path) in page for path in folds)
    capsys.readouterr()
    assert run("evaluate", place, "unseen", EVALUATE, *options, "--part", "val") == 2
    assert f"one of {folds[0]}, {folds[1]} was trained on each" in capsys.readouterr().err
    assert run("evaluate", place, "few", EVALUATE, *options, num_samples=1) == 2
    assert "num_samples is 1 with an ensemble of 2 networks" in capsys.readouterr().err
    both = ["--weights", folds[0]]
    assert run("evaluate", place, "both", EVALUATE, *options, *both) == 2
    assert not any((place.root / name).exists() for name in ("unseen", "few", "both"))


def test_overlays_go_over_the_training_s_config(place: Workplace) -> None:
    configs = ["train.yaml", "baselines/unet.yaml"]
    names = ["--config", "baselines/unet.yaml"]  # as of predict
    assert run("train", place, "unet", configs, *names, max_epochs=1) == 0
    assert not any(name.startswith("label_encoder") for name in weights_in(place.root / "unet"))


def test_shipped_weights_may_be_the_start_of_a_shorter_training(
    place: Workplace,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(Bundle, "train", lambda self, *overlays, **knobs: given.append(knobs))
    own, file = str(Bundle(place.bundle_root).weights), str(trained / "model.pt")
    overlay = ["--overlay", "baselines/lsegdiff_2.yaml"]
    for options, start, epochs in (
        ([], None, None),
        (["--from-weights"], own, 5),
        (["--from-weights", file], file, 5),
        (["--from-weights", "--epochs", "7"], own, 7),
        (["--from-weights", *overlay], own, None),
    ):
        caplog.clear()
        caplog.set_level("INFO")
        assert run("train", place, "start", TRAIN, *options) == 0
        assert given[-1].get("initial_weights") == start
        assert given[-1].get("max_epochs") == epochs
        assert "fold" not in given[-1]
        assert ("from weights: max_epochs 5, a tenth" in caplog.text) == (epochs == 5)
    assert run("train", place, "start", TRAIN, "--from-weights", max_epochs=9) == 0
    assert given[-1]["max_epochs"] == 9


def test_weights_of_other_classes_start_a_training(
    place: Workplace, trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    two = Workplace(tmp_path, BUNDLE)
    (tmp_path / "bundles").symlink_to(place.root / "bundles")
    shutil.copytree(place.root / "data", tmp_path / "data")
    for path in (tmp_path / "data" / "labels").iterdir():
        label = nib.load(path)
        joined = np.minimum(np.asanyarray(label.dataobj), 1).astype(np.uint8)
        nib.save(nib.Nifti1Image(joined, label.affine), path)
    options = ["--from-weights", trained / "model.pt", "--epochs", 1]
    assert run("train", two, "refused", TRAIN, *options, num_classes=2) == 2
    assert "--set partial_weights=True" in capsys.readouterr().err.splitlines()[-1]
    knobs = {"num_classes": 2, "partial_weights": True}
    assert run("train", two, "started", TRAIN, *options, **knobs) == 0
    assert (two.root / "started" / "model.pt").is_file()


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("train", ["-m", "nothing"], "nothing is not a bundle"),
        ("train", ["-o", "~/out"], "output_dir is '~/out', whose ~ no shell has replaced"),
        ("train", ["--epochs", "0"], "max_epochs is 0: expected a whole number"),
        ("train", ["--from-weights"], "models/model.pt: expected weights"),
        ("train", ["--set", "epoch=3"], "unknown knob --epoch"),
        ("train", ["--set", "scheduler#eta=1"], "unknown knob --scheduler#eta: there is no sched"),
        ("train", ["--set", "tracking=nothing"], "tracking is 'nothing': expected mlflow, or a"),
        ("train", ["--overlay", "none.yaml"], "configs/none.yaml is not there"),
        ("evaluate", [], "models/model.pt: expected weights"),
        ("evaluate", ["--part", "some"], "invalid choice: 'some'"),
    ],
)
def test_what_is_wrong_is_one_line(
    place: Workplace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: list[str],
    told: str,
) -> None:
    paths = ["-m", place.bundle_root, "--data", place.root / "data", "-o", tmp_path / "out"]
    assert main([command, *map(str, paths), *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("ldseg: error: ") and told in line
    assert not (tmp_path / "out").exists()
