"""Tiny real runs of train.yaml and what goes on top of it, in processes of their own."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from config_files import overlays_on
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from workplace import Run, Workplace


def checkpoint(output_dir: Path) -> dict[str, Any]:
    return torch.load(output_dir / "checkpoint.pt", map_location="cpu", weights_only=True)


def flatten(state: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a nested state dict by their path."""
    if isinstance(state, dict):
        return {path: leaf for key in state for path, leaf in flatten(state[key], f"{name}/{key}").items()}
    return {name: state}


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Where two nested state dicts differ by a bit."""
    first, second = flatten(one), flatten(other)
    return [path for path in sorted(first.keys() | second.keys()) if not same(first.get(path), second.get(path))]


@pytest.fixture(scope="module")
def scalars(trained: Run) -> EventAccumulator:
    return EventAccumulator(str(trained.output_dir)).Reload()


@pytest.fixture(scope="module")
def killed_and_resumed(workplace: Workplace, phantoms: Path) -> Run:
    """The run of `trained`, killed in its second epoch and started again, from a directory elsewhere."""
    output_dir = workplace.root / "killed"
    options = {
        "run_id": "training",
        "place": "elsewhere",
        "dataset_dir": str(phantoms),
        "output_dir": str(output_dir),
    }
    with subprocess.Popen(**workplace.command("train.yaml", **options) | {"stdout": subprocess.DEVNULL}) as process:
        deadline = time.monotonic() + 300
        while not (output_dir / "checkpoint.pt").is_file():
            assert process.poll() is None and time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.01)
        process.kill()
    trainer = checkpoint(output_dir)["trainer"]
    assert trainer["iteration"] == trainer["epoch_length"], "it was killed too late"
    return Run(workplace.run("train.yaml", **options), output_dir)


def test_training_says_in_one_line_that_it_generates_phantoms(trained: Run) -> None:
    lines = [line for line in trained.printed.splitlines() if "no dataset_dir given" in line]
    assert len(lines) == 1 and "phantoms" in lines[0], lines


def test_training_writes_weights_checkpoint_and_picture(trained: Run) -> None:
    names = {path.name for path in trained.output_dir.iterdir()}
    assert {"model.pt", "checkpoint.pt"} <= names
    assert [name for name in names if name.endswith("_overlay.png")]
    assert not [name for name in names if name.endswith(".partial")]


def test_training_writes_nothing_outside_output_dir(
    workplace: Workplace, trained: Run, written_by_training: dict[str, set[str]]
) -> None:
    folder = str(trained.output_dir.relative_to(workplace.root))
    assert {path for path in written_by_training[workplace.bundle] if Path(path).parts[0] != folder} == set()


def test_tensorboard_has_the_loss_of_every_step(trained: Run, scalars: EventAccumulator) -> None:
    steps = [event.step for event in scalars.Scalars("train_loss")]
    assert steps == list(range(1, checkpoint(trained.output_dir)["trainer"]["iteration"] + 1))


def test_tensorboard_has_the_dice_of_every_validation(scalars: EventAccumulator) -> None:
    events = scalars.Scalars("val_mean_dice")
    assert [event.step for event in events] == [1, 2]  # its epoch
    assert all(0 <= event.value <= 1 for event in events)


def test_tensorboard_has_an_overlay(scalars: EventAccumulator) -> None:
    assert [tag for tag in scalars.Tags()["images"] if tag.startswith("overlay/")]


def test_more_epochs_go_on_from_the_checkpoint(workplace: Workplace, trained: Run) -> None:
    before = checkpoint(trained.output_dir)["trainer"]
    shutil.copytree(trained.output_dir, workplace.root / "longer")
    printed = workplace.run("train.yaml", run_id="training", output_dir="longer", max_epochs=3)
    after = checkpoint(workplace.root / "longer")["trainer"]
    assert "resumed from longer/checkpoint.pt after epoch 2" in printed
    assert before["iteration"] == 2 * before["epoch_length"]
    assert after["iteration"] == 3 * before["epoch_length"]


def test_killed_run_goes_on_from_its_checkpoint(killed_and_resumed: Run) -> None:
    assert f"resumed from {killed_and_resumed.output_dir / 'checkpoint.pt'} after epoch 1" in killed_and_resumed.printed


def test_killed_and_resumed_run_equals_an_uninterrupted_one(trained: Run, killed_and_resumed: Run) -> None:
    for name in ("checkpoint.pt", "model.pt"):
        one, other = (torch.load(run.output_dir / name, weights_only=True) for run in (trained, killed_and_resumed))
        assert differences(one, other) == [], name


def test_two_processes_share_the_steps_of_an_epoch(workplace: Workplace, trained: Run, phantoms: Path) -> None:
    output_dir = workplace.root / "together"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=2")
    workplace.run(
        "train.yaml",
        "multi_gpu_train.yaml",
        run_id="training",
        launcher=launcher,
        dataset_dir=str(phantoms),
        output_dir=str(output_dir),
        max_epochs=1,
    )
    weights = torch.load(output_dir / "model.pt", weights_only=True)
    assert not [name for name in weights if name.startswith("module.")]
    assert all(value.isfinite().all() for value in weights.values())
    steps_alone = checkpoint(trained.output_dir)["trainer"]["epoch_length"]
    assert checkpoint(output_dir)["trainer"]["iteration"] == steps_alone // 2


@pytest.mark.slow
def test_every_overlay_on_training_trains(workplace: Workplace, phantoms: Path) -> None:
    elsewhere = {"evaluate.yaml", "multi_gpu_evaluate.yaml", "multi_gpu_train.yaml"}
    stacks = [stack for stack in overlays_on(workplace.bundle, "train.yaml") if stack[-1] not in elsewhere]
    if not stacks:
        pytest.skip("nothing else goes on top of train.yaml")
    for stack in stacks:
        output_dir = workplace.root / "overlays" / stack[-1]
        options = {"dataset_dir": str(phantoms), "output_dir": str(output_dir), "max_epochs": 1}
        workplace.run(*stack, run_id="training", **options)
        assert (output_dir / "model.pt").is_file(), stack
