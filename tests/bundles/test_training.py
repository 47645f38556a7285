"""Tiny real runs of train.yaml and what goes on top of it, in processes of their own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_kinds import FOLDER, alike, network
from config_files import overlays_on
from prepared_python import TORCHRUN, Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from workplace import Run, Workplace, tiny_overrides

TOGETHER = ("train.yaml", "multi_gpu_train.yaml")

pytestmark = pytest.mark.costly(by=network)


def checkpoint(output_dir: Path) -> dict[str, Any]:
    return torch.load(output_dir / "checkpoint.pt", map_location="cpu", weights_only=True)


def flatten(state: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a nested state dict by their path."""
    if isinstance(state, dict):
        return {
            path: leaf
            for key in state
            for path, leaf in flatten(state[key], f"{name}/{key}").items()
        }
    return {name: state}


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Where two nested state dicts differ by a bit."""
    first, second = flatten(one), flatten(other)
    return [
        path
        for path in sorted(first.keys() | second.keys())
        if not same(first.get(path), second.get(path))
    ]


def wait_for_checkpoint(command: Command, output_dir: Path) -> None:
    command.wait_until((output_dir / "checkpoint.pt").is_file, "a checkpoint")


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
    with workplace.start("train.yaml", **options) as command:
        wait_for_checkpoint(command, output_dir)
        command.send_signal(signal.SIGKILL)
    trainer = checkpoint(output_dir)["trainer"]
    assert trainer["iteration"] == trainer["epoch_length"], "it was killed too late"
    return Run(workplace.run_here("train.yaml", **options), output_dir)


def test_training_writes_weights_checkpoint_and_picture(trained: Run) -> None:
    names = {path.name for path in trained.output_dir.iterdir()}
    assert {"model.pt", "checkpoint.pt"} <= names
    assert [name for name in names if name.endswith("_overlay.png")]
    assert not [name for name in names if name.endswith(".partial")]


def test_training_writes_nothing_outside_output_dir(
    workplace: Workplace, trained: Run, written_by_training: dict[str, set[str]]
) -> None:
    folder = str(trained.output_dir.relative_to(workplace.root))
    assert {
        path for path in written_by_training[workplace.bundle] if Path(path).parts[0] != folder
    } == set()


def test_tensorboard_has_the_loss_of_every_step(trained: Run, scalars: EventAccumulator) -> None:
    steps = [event.step for event in scalars.Scalars("train_loss")]
    assert steps == list(range(1, checkpoint(trained.output_dir)["trainer"]["iteration"] + 1))


def test_tensorboard_has_the_dice_of_every_validation(scalars: EventAccumulator) -> None:
    events = scalars.Scalars("val_mean_dice")
    assert [event.step for event in events] == [1, 2]  # its epoch
    assert all(0 <= event.value <= 1 for event in events)


def test_tensorboard_has_an_overlay(scalars: EventAccumulator) -> None:
    assert [tag for tag in scalars.Tags()["images"] if tag.startswith("overlay/")]


@pytest.mark.usefixtures("process_left_as_it_was")
def test_training_starts_from_the_initial_weights(
    workplace: Workplace, trained: Run, phantoms: Path
) -> None:
    path = trained.output_dir / "model.pt"
    options = {
        "device": "cpu",
        "dataset_dir": str(phantoms),
        "output_dir": str(workplace.root / "initial"),
    }
    workflow = workplace.workflow("train", ["train.yaml"], initial_weights=str(path), **options)
    workflow.initialize()
    network = workflow.parser.get_parsed_content("train#trainer").network
    assert differences(network.state_dict(), torch.load(path, weights_only=True)) == []


def test_more_epochs_go_on_from_the_checkpoint(
    workplace: Workplace, trained: Run, phantoms: Path
) -> None:
    before = checkpoint(trained.output_dir)["trainer"]
    shutil.copytree(trained.output_dir, workplace.root / "longer")
    options = {"dataset_dir": str(phantoms), "output_dir": "longer", "max_epochs": 3}
    printed = workplace.run_here("train.yaml", run_id="training", **options)
    after = checkpoint(workplace.root / "longer")["trainer"]
    assert "resumed from longer/checkpoint.pt after epoch 2" in printed
    assert before["iteration"] == 2 * before["epoch_length"]
    assert after["iteration"] == 3 * before["epoch_length"]


@pytest.mark.costly(by=network)
def test_killed_run_goes_on_from_its_checkpoint(killed_and_resumed: Run) -> None:
    assert (
        f"resumed from {killed_and_resumed.output_dir / 'checkpoint.pt'} after epoch 1"
        in killed_and_resumed.printed
    )


@pytest.mark.costly(by=network)
def test_killed_and_resumed_run_equals_an_uninterrupted_one(
    trained: Run, killed_and_resumed: Run
) -> None:
    for name in ("checkpoint.pt", "model.pt"):
        one, other = (
            torch.load(run.output_dir / name, weights_only=True)
            for run in (trained, killed_and_resumed)
        )
        assert differences(one, other) == [], name


def losses(tensorboard_dir: Path) -> dict[str, list[float]]:
    """Each loss of every step."""
    events = EventAccumulator(str(tensorboard_dir)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("train_")]
    return {tag: [event.value for event in events.Scalars(tag)] for tag in tags}


@pytest.fixture(scope="module")
def together(workplace: Workplace, phantoms: Path) -> Run:
    """A run of two processes."""
    output_dir = workplace.root / "together"
    return Run(
        workplace.run(*TOGETHER, **two_processes(workplace, phantoms, output_dir)), output_dir
    )


def two_processes(
    workplace: Workplace, phantoms: Path, output_dir: Path, *arguments: str
) -> dict[str, Any]:
    """The options of a run by two processes that share each batch, in float32: bfloat16 would agree to its rounding."""
    return {
        "run_id": "training",
        "launcher": (TORCHRUN, "--standalone", "--nproc_per_node=2", *arguments),
        "dataset_dir": str(phantoms),
        "output_dir": str(output_dir),
        "batch_size": tiny_overrides(workplace.bundle, "train.yaml")["batch_size"] // 2,
        "amp": "$False",
    }


@pytest.mark.costly(by=network)
@pytest.mark.usefixtures("process_left_as_it_was")
def test_two_processes_train_as_one_with_the_whole_batch(
    workplace: Workplace, phantoms: Path, together: Run
) -> None:
    alone = workplace.root / "alone"
    options = {
        "device": "cpu",
        "dataset_dir": str(phantoms),
        "output_dir": str(alone),
        "amp": False,
    }
    workflow = workplace.workflow("train", ["train.yaml"], **options)
    workflow.initialize()
    workflow.run()
    shares = [losses(together.output_dir / f"rank{rank}") for rank in (0, 1)]
    iterations = max(map(len, losses(alone).values()))
    for name, values in losses(alone).items():
        means = [sum(pair) / 2 for pair in zip(*(share[name] for share in shares), strict=True)]
        if len(values) == iterations:  # of the first step too, which the gradient penalty is not
            assert means[0] == pytest.approx(values[0], rel=1e-6), name
        assert means == pytest.approx(values, rel=2e-3), (
            name
        )  # Adam divides small differences by small gradients
    one, other = (checkpoint(folder) for folder in (alone, together.output_dir))
    assert flatten(one).keys() == flatten(other).keys() and one["trainer"] == other["trainer"]


@pytest.mark.costly(by=alike)
def test_run_whose_worker_is_killed_is_restarted_and_ends_at_the_same_weights(
    workplace: Workplace, phantoms: Path, together: Run
) -> None:
    output_dir = workplace.root / "worker_killed"
    options = two_processes(workplace, phantoms, output_dir, "--max_restarts=1")
    # Else PyTorch hands old addresses to new workers.
    anew = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with workplace.start(*TOGETHER, env=anew, **options) as command:
        wait_for_checkpoint(command, output_dir)
        worker = subprocess.run(
            ["pgrep", "-P", str(command.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(worker.stdout.split()[-1]), signal.SIGKILL)
        assert command.wait() == 0, command.printed[-6000:]
    assert f"resumed from {output_dir / 'checkpoint.pt'} after epoch 1" in command.printed
    one, other = (
        torch.load(folder / "model.pt", weights_only=True)
        for folder in (together.output_dir, output_dir)
    )
    assert differences(one, other) == []


@pytest.mark.costly(by=alike)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_that_is_stopped_names_its_checkpoint_in_one_line(
    workplace: Workplace, phantoms: Path, number: signal.Signals, code: int
) -> None:
    output_dir = workplace.root / f"stopped_{code}"
    options = {"run_id": "training", "dataset_dir": str(phantoms), "output_dir": str(output_dir)}
    with workplace.start("train.yaml", max_epochs=1000, val_interval=1000, **options) as command:
        wait_for_checkpoint(command, output_dir)
        command.send_signal(number)
        assert command.wait(timeout=100) == code
    assert "Traceback" not in command.printed
    epoch = checkpoint(output_dir)["trainer"]["iteration"] // 2
    name = {130: "Ctrl-C", 143: "SIGTERM"}[code]
    assert command.printed.rstrip().endswith(
        f"ldseg_monai: stopped by {name}; {output_dir}/checkpoint.pt has all up to epoch {epoch}: "
        "the same command goes on from it"
    )


@pytest.mark.slow
def test_run_killed_at_random_moments_ends_at_the_same_weights(
    workplace: Workplace, phantoms: Path
) -> None:
    moments = random.Random(0)
    options = {"run_id": "training", "dataset_dir": str(phantoms), "max_epochs": 6}
    workplace.run("train.yaml", output_dir="never_killed", **options)
    for number in range(6):
        with workplace.start("train.yaml", output_dir="often_killed", **options) as command:
            try:
                command.wait(timeout=moments.uniform(1, 8))
            except subprocess.TimeoutExpired:
                command.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
    workplace.run("train.yaml", output_dir="often_killed", **options)
    for name in ("checkpoint.pt", "model.pt"):
        one, other = (
            torch.load(workplace.root / folder / name, weights_only=True)
            for folder in ("never_killed", "often_killed")
        )
        assert differences(one, other) == [], name


@pytest.mark.slow
def test_every_overlay_on_training_trains(workplace: Workplace, phantoms: Path) -> None:
    elsewhere = {"evaluate.yaml", "multi_gpu_evaluate.yaml", "multi_gpu_train.yaml"}
    stacks = [
        stack for stack in overlays_on(workplace.bundle, "train.yaml") if stack[-1] not in elsewhere
    ]
    if not stacks:
        pytest.skip("nothing else goes on top of train.yaml")
    for stack in stacks:
        output_dir = workplace.root / "overlays" / stack[-1]
        options = {"dataset_dir": str(phantoms), "output_dir": str(output_dir), "max_epochs": 1}
        for name in stack:
            if name.endswith("lsegdiff_2.yaml"):  # of two stages: the first came before
                first = workplace.root / "overlays" / name.replace("_2", "_1")
                options["initial_weights"] = str(first / "model.pt")
            if name.endswith("distilled.yaml"):  # whose teacher is the bundle as it is shipped
                options["teacher#root"] = str(FOLDER / workplace.bundle)
        workplace.run(*stack, run_id="training", **options)
        assert (output_dir / "model.pt").is_file(), stack
