from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, BinaryIO

import ignite.distributed as idist
import nibabel as nib
import numpy as np
import pytest
import torch
from case_engine import case_engine
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import Evaluator, PrepareBatchExtraInput, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler
from monai.transforms import Compose, LoadImage, RandFlipd, RandGaussianNoised
from PIL import Image
from small_networks import small_ldseg
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed, nn

from ldseg_monai.data.draws import SeededCacheDataset, SeededSampler
from ldseg_monai.diffusion.draws import draw_per_sample
from ldseg_monai.evaluation.overlays import SaveOverlay
from ldseg_monai.evaluation.pictures import COLORS, TRUTH
from ldseg_monai.evaluation.sheets import GAP
from ldseg_monai.networks import LDSeg
from ldseg_monai.training.average import UpdateAverage, average_weights
from ldseg_monai.training.handlers import GradientClipping, Reseed, TensorBoard, Validate
from ldseg_monai.training.inferers import TrainingInferer
from ldseg_monai.training.losses import LDSegLoss
from ldseg_monai.training.resume import ResumableCheckpoint, SaveBest

KEYS = ("image", "label")

# GradientClipping

ONE_LEVEL: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 2,
    "channels": (8,),
    "denoiser_channels": (8,),
    "stem_stride": 4,
}


@pytest.mark.parametrize(("scale", "expected"), [(100.0, 0.5), (1e-3, None)])
def test_gradients_are_scaled_down_to_the_norm_and_never_up(
    scale: float, expected: float | None
) -> None:
    network = nn.Linear(3, 2)
    before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    pair = {"image": torch.randn(4, 3), "label": torch.randn(4, 2)}
    loss = scale * (network(pair["image"]) - pair["label"]).square().mean()
    unclipped = torch.cat(
        [gradient.flatten() for gradient in torch.autograd.grad(loss, list(network.parameters()))]
    )
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[pair],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda prediction, label: scale * (prediction - label).square().mean(),
        train_handlers=[GradientClipping(network, max_norm=0.5)],
        decollate=False,
    )
    trainer.run()
    step = before - torch.cat([p.detach().flatten() for p in network.parameters()])
    assert step.norm().item() == pytest.approx(
        unclipped.norm().item() if expected is None else expected, rel=1e-3
    )
    assert torch.cosine_similarity(step, unclipped, dim=0).item() == pytest.approx(1, abs=1e-4)


def test_gradients_that_are_not_finite_stop_the_run_before_the_weights_change() -> None:
    network = nn.Linear(1, 1)
    before = network.weight.clone()
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda prediction, label: (prediction * math.nan).mean(),
        train_handlers=[GradientClipping(network, max_norm=0.5)],
        decollate=False,
    )
    with pytest.raises(RuntimeError, match="gradients are not finite"):
        trainer.run()
    assert torch.equal(network.weight, before)


def test_batch_whose_loss_is_not_finite_has_its_files_written_down(tmp_path: Path) -> None:
    network, report = nn.Linear(2, 1), tmp_path / "output" / "nonfinite_loss.json"
    cases = [
        {
            name: MetaTensor(
                torch.full([2], value), meta={"filename_or_obj": f"{name}s/{case}.nii.gz"}
            )
            for name in KEYS
        }
        for case, value in (("good", 1.0), ("bad", math.inf), ("worse", math.nan))
    ]
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=3,
        train_data_loader=DataLoader(Dataset([cases[0], cases[0], *cases[1:]]), batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=lambda prediction, label: (prediction - label).square().mean(),
        train_handlers=[GradientClipping(network, 0.5, str(report))],
        decollate=False,
    )
    files = {name: [f"{name}s/bad.nii.gz", f"{name}s/worse.nii.gz"] for name in KEYS}
    with pytest.raises(
        RuntimeError, match=f"in epoch 1, iteration 2: the loss is nan on {re.escape(str(files))}"
    ):
        trainer.run()
    batches = [{"loss": "nan", "files": files}]
    assert json.loads(report.read_text()) == {"epoch": 1, "iteration": 2, "batches": batches}
    assert all(weight.isfinite().all() for weight in network.parameters())


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_one_whose_loss_is_not_finite_is_written_down(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = {"loss": "nan", "files": {"image": ["images/bad.nii.gz"]}}
    monkeypatch.setattr(
        idist, "all_gather", lambda own: [own, faulty] if rank == 0 else [own, faulty][::-1]
    )
    monkeypatch.setattr(idist, "get_rank", lambda: rank)
    network, report = nn.Linear(1, 1), tmp_path / "report.json"
    clipping = GradientClipping(network, 0.5, str(report))
    network.weight.grad = torch.full_like(
        network.weight, math.nan
    )  # the mean of both processes' gradients
    engine = Engine(lambda *args: None)
    engine.state.batch = {
        "image": MetaTensor(torch.ones(1), meta={"filename_or_obj": ["images/good.nii.gz"]})
    }
    engine.state.output = {"loss": torch.tensor(0.5)}  # type: ignore[assignment]
    with pytest.raises(
        RuntimeError, match=r"the loss is nan on .*bad.nii.gz.*\]\}; look at these files"
    ):
        clipping(engine)
    assert report.is_file() == (rank == 0)
    if rank == 0:
        assert json.loads(report.read_text())["batches"] == [faulty]


# Reseed


def drawn(
    seed: int = 0,
    first_epoch: int = 1,
    last_epoch: int = 3,
    disturbance: int = 0,
    num_workers: int = 0,
    batch_size: int = 2,
) -> dict[int, list[tuple[int, float, float]]]:
    """What a process of a run draws in each epoch: the cases, their augmentation, and the network's numbers."""
    torch.manual_seed(disturbance)
    noise = RandGaussianNoised("image", prob=1.0)
    noise.set_random_state(disturbance)
    cases = [{"case": number, "image": torch.zeros(1)} for number in range(8)]
    dataset = SeededCacheDataset(cases, Compose([noise]), progress=False)
    sampler = SeededSampler(dataset, 8, seed)
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers)
    result: dict[int, list[tuple[int, float, float]]] = {}

    def step(engine: Engine, batch: dict[str, Any]) -> None:
        own = draw_per_sample(len(batch["case"]), lambda each: torch.rand([], generator=each))
        items = zip(
            batch["case"].tolist(), batch["image"].flatten().tolist(), own.tolist(), strict=True
        )
        result.setdefault(engine.state.epoch, []).extend(items)
        torch.rand(disturbance)

    engine = Engine(step)
    Reseed(seed, sampler).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: torch.rand(disturbance))
    length = len(loader)
    engine.load_state_dict(
        {"iteration": length * (first_epoch - 1), "epoch_length": length, "max_epochs": last_epoch}
    )
    engine.run(loader)
    return result


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_random_numbers_follow_from_the_place_in_the_run_whatever_came_before(
    num_workers: int,
) -> None:
    whole = drawn()
    assert sorted(whole) == [1, 2, 3]
    assert drawn(disturbance=5, num_workers=num_workers) == whole
    assert drawn(first_epoch=3, disturbance=7, num_workers=num_workers) == {3: whole[3]}


def test_random_numbers_differ_between_samples_epochs_and_seeds() -> None:
    runs = [drawn(0), drawn(1)]
    orders = [tuple(case for case, *_ in run[epoch]) for run in runs for epoch in run]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(orders)) == len(orders)
    for place in (1, 2):
        values = [item[place] for run in runs for items in run.values() for item in items]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_cases_and_augmentation_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    runs = (drawn(), drawn(batch_size=batch_size))
    one, other = ({epoch: [item[:2] for item in run[epoch]] for epoch in run} for run in runs)
    assert one == other


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_draw_together_what_one_would(
    world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = drawn(batch_size=4)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: world_size)
    shares = []
    for rank in range(world_size):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        shares.append(drawn(batch_size=4 // world_size))
    for epoch, items in alone.items():
        taken_in_turn = zip(*(share[epoch] for share in shares), strict=True)
        assert [item for turn in taken_in_turn for item in turn] == items


# average_weights


def share_left(num_iterations: int, steps: int, changed_at: int = 0) -> float:
    """Share of the first weights in the average of a run whose weights are constant but for one change."""
    network = nn.Linear(2, 1)
    for p in network.parameters():
        nn.init.ones_(p)
    average = average_weights(network, num_iterations)

    def step(engine: Engine, batch: int) -> None:
        if batch == changed_at:
            for p in network.parameters():
                nn.init.zeros_(p)

    engine = Engine(step)
    UpdateAverage(average, network).attach(engine)
    engine.run(range(steps))
    return next(average.module.parameters()).mean().item()


@pytest.mark.parametrize(
    ("num_iterations", "steps"), [(8, 8), (20, 20), (100, 50), (20_000, 20_000), (20_000, 30)]
)
def test_average_of_constant_weights_is_them_soon(num_iterations: int, steps: int) -> None:
    assert share_left(num_iterations, steps) < 0.05


@pytest.mark.parametrize(
    ("num_iterations", "steps", "decay"), [(20, 20, 0.75), (100, 100, 0.9), (20_000, 2500, 0.999)]
)
def test_average_follows_a_late_change_within_its_span(
    num_iterations: int, steps: int, decay: float
) -> None:
    left = share_left(num_iterations, steps, changed_at=steps - 5)
    assert left == pytest.approx(decay**5, rel=1e-3)


def test_average_spans_half_of_a_young_run() -> None:
    assert share_left(20_000, 40, changed_at=20) == pytest.approx(0.25, abs=0.05)  # (20 / 40) ** 2


def patches_ldseg(**arguments: Any) -> LDSeg:
    """An LDSeg of a single level, on patches of 4 pixels."""
    sizes: dict[str, Any] = {"channels": (8,), "denoiser_channels": (8,), "stem_stride": 4}
    return small_ldseg(in_channels=1, out_channels=2, **sizes, **arguments)


def test_average_has_the_buffers_of_the_network_and_leaves_it_in_training() -> None:
    network = patches_ldseg(latent_norm="cases", latent_shape=(2, 2))
    average = average_weights(network, 100)
    engine = Engine(lambda engine, label: network.encode_label(label))
    UpdateAverage(average, network).attach(engine)
    engine.run([torch.randint(2, (5, 1, 8, 8)) for _ in range(4)])
    assert network.training
    mean = average.module.standardization.mean
    assert mean.abs().max() > 0 and not torch.equal(mean, network.standardization.mean)


def test_average_of_batch_normalization_averages_its_statistics_and_copies_its_counter() -> None:
    network = nn.BatchNorm1d(2)
    average = average_weights(network, 100)
    counted, seen = [], []

    def step(engine: Engine, batch: int) -> None:
        network(torch.randn(16, 2) + batch)
        seen.append(network.running_mean.clone())

    engine = Engine(step)
    UpdateAverage(average, network).attach(engine)
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: counted.append(int(average.module.num_batches_tracked))
    )
    engine.run([3, -2, 5, 1, 4])
    assert counted == [1, 2, 3, 4, 5]
    assert average.module.num_batches_tracked.dtype == torch.int64
    expected = seen[0]
    for number, mean in enumerate(seen[1:], start=1):
        expected = expected + max(0.1, 2 / (number + 2)) * (mean - expected)
    torch.testing.assert_close(average.module.running_mean, expected)
    assert not torch.allclose(average.module.running_mean, network.running_mean)


def test_average_of_a_network_whose_latent_is_standardized_over_the_batch_has_its_statistics() -> (
    None
):
    network = patches_ldseg(latent_norm="batch")
    average = average_weights(network, 100)
    engine = Engine(lambda engine, label: network.encode_label(label))
    UpdateAverage(average, network).attach(engine)
    engine.run([torch.randint(2, (5, 1, 8, 8)) for _ in range(4)])
    mean = average.module.standardization.mean
    assert mean.abs().max() > 0 and not torch.equal(mean, network.standardization.mean)


def test_average_of_a_wrapped_network_is_that_of_the_network() -> None:
    wrapped = nn.Module()
    wrapped.module = nn.Linear(2, 1)
    average = average_weights(wrapped, 100)
    UpdateAverage(average, wrapped)(Engine(lambda engine, batch: None))
    assert set(average.module.state_dict()) == {"weight", "bias"}


# SaveBest


def validate(handler: SaveBest, score: float, weight: float) -> None:
    """One validation of a network whose weights are all ``weight``."""
    nn.init.constant_(handler.network.weight, weight)
    engine = Engine(lambda engine, batch: None)
    engine.state.key_metric_name = "dice"
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(dice=score, other=-score)
    )
    handler.attach(engine)
    engine.run([0])


def saved_weight(path: Path) -> float:
    return torch.load(path, weights_only=True)["weight"].mean().item()


def test_network_is_saved_only_when_it_is_better(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.pt"
    handler = SaveBest(str(path), nn.Linear(2, 1))
    kept = []
    for weight, score in enumerate([math.nan, 0.3, 0.2, 0.3, 0.5, 0.4], start=1):
        validate(handler, score, float(weight))
        kept.append(saved_weight(path) if path.is_file() else None)
    assert kept == [None, 2.0, 2.0, 2.0, 5.0, 5.0]
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]
    other = nn.Linear(2, 1)
    other.load_state_dict(torch.load(path, weights_only=True))


def test_best_score_goes_on_from_an_earlier_run(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    first = SaveBest(str(path), nn.Linear(2, 1))
    validate(first, 0.5, 1.0)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = SaveBest(str(path), nn.Linear(2, 1))
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    validate(second, 0.4, 2.0)
    assert saved_weight(path) == 1.0
    validate(second, 0.6, 3.0)
    assert saved_weight(path) == 3.0


# ResumableCheckpoint


class Stop(Exception):
    """Stands for a run that is killed."""


class Run:
    """A tiny training as the knee bundle's train.yaml puts it together."""

    def __init__(
        self,
        folder: Path,
        max_epochs: int,
        interval: int = 1,
        stop_at: int | None = None,
        case: str = "a",
        width: int = 8,
    ) -> None:
        self.network = small_ldseg(
            in_channels=1,
            out_channels=2,
            channels=(4, width),
            stem_stride=2,
            denoiser_channels=(8, 8),
            norm=("group", {"num_groups": 2}),
            latent_norm="cases",
            latent_shape=(2, 3),
            prediction_type="sample",
            decode_clean=True,
        )
        torch.manual_seed(4)
        cases = [
            {"image": torch.randn(1, 8, 12), "label": (torch.rand(1, 8, 12) > 0.5).byte()}
            for _ in range(5)
        ]
        transform = Compose(
            [RandFlipd(["image", "label"], 0.5, 0), RandGaussianNoised("image", 0.5)]
        )
        dataset = SeededCacheDataset(cases, transform, progress=False)
        sampler = SeededSampler(dataset, num_samples=6)
        loader = DataLoader(dataset, batch_size=2, sampler=sampler)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.01)
        self.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=0.5)
        self.average = average_weights(self.network, 100)
        self.best = SaveBest(str(folder / "model.pt"), self.average.module)
        self.path = folder / "checkpoint.pt"
        objects = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
            "best": self.best,
        }
        self.losses: list[float] = []
        self.trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=max_epochs,
            train_data_loader=loader,
            network=self.network,
            optimizer=self.optimizer,
            loss_function=LDSegLoss(reconstruction_weight=0.5),
            inferer=TrainingInferer(amp=False, pure_noise_share=0.5),
            prepare_batch=PrepareBatchExtraInput({"label": "label"}),
            decollate=False,
            train_handlers=[
                Reseed(0, sampler),
                GradientClipping(self.network, 1.0),
                UpdateAverage(self.average, self.network),
                LrScheduleHandler(self.lr_scheduler, print_lr=False),
                ResumableCheckpoint(
                    str(self.path), objects, [{"image": f"images/{case}.nii.gz"}], interval
                ),
            ],
        )

        @self.trainer.on(Events.ITERATION_COMPLETED)
        def record(engine: Engine) -> None:
            self.losses.append(engine.state.output["loss"])
            if engine.state.iteration == stop_at:
                raise Stop

        @self.trainer.on(Events.EPOCH_COMPLETED)
        def disturb(engine: Engine) -> None:
            self.best.best = float(engine.state.epoch)

    def __call__(self) -> Run:
        self.trainer.run()
        return self

    def weights(self, network: nn.Module | None = None) -> dict[str, torch.Tensor]:
        return {
            name: value.clone() for name, value in (network or self.network).state_dict().items()
        }


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("uninterrupted"), max_epochs=4)()


def resumed(folder: Path, how: str) -> Run:
    """Two epochs, ended by the number of epochs or by a kill in the midst of the third, and two more."""
    if how == "max_epochs":
        Run(folder, max_epochs=2)()
    else:
        with pytest.raises(Stop):
            Run(folder, max_epochs=4, stop_at=8)()
    return Run(folder, max_epochs=4)()


@pytest.mark.parametrize("how", ["max_epochs", "killed"])
def test_resumed_run_ends_in_the_same_bits_as_an_uninterrupted_one(
    how: str, uninterrupted: Run, tmp_path: Path
) -> None:
    run = resumed(tmp_path, how)
    assert run.losses == uninterrupted.losses[6:] and len(run.losses) == 6
    assert_equal(run.weights(), uninterrupted.weights())
    assert run.trainer.state.iteration == 12 and run.trainer.state.epoch == 4
    assert (
        run.lr_scheduler.get_last_lr()
        == uninterrupted.lr_scheduler.get_last_lr()
        == [0.01 * 0.5**4]
    )
    assert run.best.best == 4.0
    states = [r.optimizer.state_dict()["state"] for r in (run, uninterrupted)]
    assert all(
        torch.equal(states[0][i][name], states[1][i][name])
        for i in states[1]
        for name in states[1][i]
    )


@pytest.mark.parametrize("how", ["max_epochs", "killed"])
def test_resumed_average_of_the_weights_is_that_of_an_uninterrupted_run(
    how: str, uninterrupted: Run, tmp_path: Path
) -> None:
    run = resumed(tmp_path, how)
    assert_equal(run.weights(run.average), uninterrupted.weights(uninterrupted.average))


def test_finished_run_does_nothing_when_it_is_run_again(tmp_path: Path) -> None:
    first = Run(tmp_path, max_epochs=1)()
    again = Run(tmp_path, max_epochs=1)()
    assert again.losses == []
    assert_equal(again.weights(), first.weights())
    assert_equal(again.weights(again.average), first.weights(first.average))


def test_trainer_that_is_run_on_keeps_the_weights_that_it_was_given(tmp_path: Path) -> None:
    # A client in federated learning: each round's weights come from the server, not from the
    # client's checkpoint.
    run = Run(tmp_path, max_epochs=1)()
    with torch.no_grad():
        for parameter in run.network.parameters():
            parameter.zero_()
    given = run.weights()
    started: list[dict[str, torch.Tensor]] = []
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: started.append(run.weights()))
    run.trainer.state.max_epochs = 2
    run()
    assert len(started) == 1 and run.trainer.state.epoch == 2
    assert_equal(started[0], given)


def test_checkpoint_is_written_at_its_interval_and_at_the_end_and_whole(tmp_path: Path) -> None:
    run = Run(tmp_path, max_epochs=3, interval=2)
    written: list[int] = []

    @run.trainer.on(Events.EPOCH_COMPLETED)
    def look(engine: Engine) -> None:
        assert not list(tmp_path.glob("*.partial"))
        if run.path.is_file():
            written.append(torch.load(run.path, weights_only=True)["trainer"]["iteration"])

    run()
    assert written == [6, 9]  # after epochs 2 and 3, of 3 iterations each
    state = torch.load(run.path, weights_only=True)
    assert set(state) == {
        "network",
        "average",
        "optimizer",
        "lr_scheduler",
        "best",
        "trainer",
        "cases",
        "files",
        "settings",
    }
    assert_equal(state["network"], run.weights())


def test_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, max_epochs=1)()
    before = run.path.read_bytes()

    def fail(state: dict, file: BinaryIO) -> None:
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(
        OSError, match=r"checkpoint.pt cannot be written \(no space left on device\): make room"
    ):
        Run(tmp_path, max_epochs=2)()
    assert run.path.read_bytes() == before


def test_run_on_other_cases_does_not_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    Run(tmp_path, max_epochs=1)()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(
        ValueError,
        match="is of a run on 1 other case, with a and without b: expected one on these 1; choose",
    ):
        Run(tmp_path, max_epochs=2, case="b")()
    with pytest.raises(ValueError, match="is of another network: .* choose another output_dir"):
        Run(tmp_path, max_epochs=2, width=16)()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_run_with_other_objects_does_not_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, max_epochs=1)()
    state = torch.load(run.path, weights_only=True)
    for other in (
        {"discriminator": state["network"], **state},
        {k: v for k, v in state.items() if k != "average"},
    ):
        torch.save(other, run.path)
        with pytest.raises(
            ValueError, match="is of another kind of run, with .* choose another output_dir"
        ):
            Run(tmp_path, max_epochs=2)()


# Validate


@pytest.mark.parametrize(("max_epochs", "expected"), [(1, [1]), (3, [3]), (4, [4]), (7, [4, 7])])
def test_last_epoch_is_validated_once_whatever_the_interval(
    max_epochs: int, expected: list[int]
) -> None:
    validated: list[int] = []

    class Validator(Evaluator):
        def __init__(self) -> None:
            self.data_loader = [0]

        def run(self, global_epoch: int = 1) -> None:
            validated.append(global_epoch)

    engine = Engine(lambda engine, batch: None)
    Validate(Validator(), 4).attach(engine)
    engine.run([0], max_epochs=max_epochs)
    assert validated == expected


def test_no_cases_to_validate_on_are_refused_before_training() -> None:
    validator = SupervisedEvaluator(torch.device("cpu"), DataLoader(Dataset([])), nn.Identity())
    with pytest.raises(ValueError, match="no cases to validate on: expected one or more"):
        Validate(validator, 4).attach(Engine(lambda engine, batch: None))


# SaveOverlay


def test_overlays_are_written_for_the_first_cases_of_each_validation(tmp_path: Path) -> None:
    cases = []
    for number in range(3):
        path = str(tmp_path / f"knee.{number}.nii.gz")
        nib.save(
            nib.Nifti1Image(
                np.random.default_rng(number).random((6, 8, 10), np.float32), np.eye(4)
            ),
            path,
        )
        prediction = torch.zeros(1, 6, 8, 10, dtype=torch.uint8)
        prediction[:, 2:5, 2:6, 3:7] = 1
        cases.append(
            {
                "image": MetaTensor(torch.zeros(1, 4, 4, 4), meta={"filename_or_obj": path}),
                "pred": prediction,
            }
        )
    engine = case_engine()
    SaveOverlay(
        str(tmp_path / "pictures"), max_cases=2, tensorboard_dir=str(tmp_path / "log")
    ).attach(engine)
    for _ in range(2):
        engine.run([cases[:1], cases[1:]])
    files = sorted((tmp_path / "pictures").glob("*.png"))
    assert [file.name for file in files] == ["knee.0_overlay.png", "knee.1_overlay.png"]
    drawn = np.asarray(Image.open(files[0]))
    assert drawn.shape[0] > 320 and drawn.shape[1] == 400 + 400 + 320 + 2 * GAP
    assert list((tmp_path / "log").glob("events*"))


WIDE = (24, 40)  # rows and columns of a picture
MARK = (slice(0, 6), slice(34, 40))  # its corner at the top right
SEGMENTED = (slice(14, 22), slice(4, 18))  # at the bottom left
TRUE = (slice(14, 22), slice(22, 30))
SCALE = 10  # to 400 columns


def marked(area: tuple[slice, slice], value: int, elsewhere: int = 0) -> np.ndarray:
    array = np.full(WIDE, elsewhere, np.uint8)
    array[area] = value
    return array


@pytest.mark.parametrize(
    ("mode", "label", "channel"),
    [("RGB", False, True), ("RGB", True, True), ("L", False, True), ("RGB", False, False)],
    ids=[
        "color",
        "color with label",
        "gray",
        "no channel",
    ],  # the gray one's corner is as white as a true outline
)
def test_overlay_of_a_picture_has_its_rows_and_columns(
    tmp_path: Path, mode: str, label: bool, channel: bool
) -> None:
    picture = marked(MARK, 200, elsewhere=60)
    picture = np.stack([picture, picture // 2, picture // 3], axis=-1) if mode == "RGB" else picture
    arrays = {"image": picture, "pred": marked(SEGMENTED, 1), "label": marked(TRUE, 1)}
    case = {
        "image": MetaTensor(
            torch.zeros(1, 8, 8), meta={"filename_or_obj": str(tmp_path / "image.png")}
        )
    }
    for name, array in arrays.items():  # as an evaluator has them
        Image.fromarray(array).save(tmp_path / f"{name}.png")
        case.setdefault(
            name, LoadImage(image_only=True, ensure_channel_first=True)(tmp_path / f"{name}.png")
        )
    if not label:
        del case["label"]
    if not channel:
        case["pred"] = case["pred"][0]
    engine = case_engine()
    SaveOverlay(str(tmp_path)).attach(engine)
    engine.run([[case]])

    drawn = np.asarray(Image.open(tmp_path / "image_overlay.png")).astype(int)
    drawn = drawn[: SCALE * WIDE[0]]  # the legend is below
    assert drawn.shape == (SCALE * WIDE[0], SCALE * WIDE[1], 3)
    for color, area, around in [(COLORS[0], SEGMENTED, 0)] + [(TRUTH, TRUE, 2)] * label:
        outline = (drawn == color).all(axis=-1)
        outline[: SCALE * 7] = False  # of a gray picture the corner is white
        rows, columns = (np.unique(index) for index in np.nonzero(outline))
        for found, side in ((rows, area[0]), (columns, area[1])):
            assert found[0] == SCALE * side.start - around
            assert found[-1] + 1 == SCALE * side.stop + around
        assert not outline[
            tuple(slice(SCALE * side.start + 5, SCALE * side.stop - 5) for side in area)
        ].any()
    bright = drawn[..., 0] > 180
    bright[SCALE * 12 :] = False  # the outlines are below
    rows, columns = np.nonzero(bright)
    assert rows.min() == 0 and rows.max() < SCALE * 7
    assert columns.max() == SCALE * WIDE[1] - 1 and columns.min() >= SCALE * 33


def test_overlay_has_the_classes_of_the_bundle_and_refuses_what_is_no_color(tmp_path: Path) -> None:
    names = {0: "background", 1: "Gland", 2: "vessel"}
    handler = SaveOverlay(str(tmp_path), class_names=names, colors={"gland": (1, 2, 3)})
    assert handler.classes == {"Gland": (1, 2, 3), "vessel": tuple(COLORS[1].tolist())}
    with pytest.raises(ValueError, match=r"color \[300\] of gland: expected red, green and blue"):
        SaveOverlay(str(tmp_path), class_names=names, colors={"gland": [300]})
    with pytest.raises(ValueError, match="colors of bone: expected those of classes"):
        SaveOverlay(str(tmp_path), class_names=names, colors={"bone": [1, 2, 3]})


# TensorBoard


def test_log_begins_with_the_first_curve(tmp_path: Path) -> None:
    writer: Any = TensorBoard(str(tmp_path / "log"))
    engine = Engine(lambda engine, batch: 0.5)
    TensorBoardStatsHandler(summary_writer=writer, output_transform=float).attach(engine)
    assert not (tmp_path / "log").exists()
    engine.run([0, 1])
    writer.close()
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [event.value for event in events.Scalars("Loss")] == [0.5, 0.5]
