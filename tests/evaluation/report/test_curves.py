from __future__ import annotations

import math
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from ldseg_monai.evaluation.report.curves import training_curves


def write(folder: Path, tag: str, points: dict[int, float]) -> None:
    with SummaryWriter(str(folder)) as writer:
        for step, value in points.items():
            writer.add_scalar(tag, value, step)


def test_every_scalar_of_all_files_is_read_and_what_was_done_again_counts_once(
    tmp_path: Path,
) -> None:
    write(tmp_path, "train_loss", {step: 10.0 - step for step in range(1, 6)})
    write(tmp_path, "train_loss", {step: 0.5 for step in range(4, 8)})  # resumed after step 3
    write(tmp_path, "val_mean_dice", {1: 0.25, 2: math.nan, 3: 0.75})
    assert training_curves(str(tmp_path)) == {
        "train_loss": [(1, 9), (2, 8), (3, 7), (4, 0.5), (5, 0.5), (6, 0.5), (7, 0.5)],
        "val_mean_dice": [(1, 0.25), (3, 0.75)],
    }


def test_long_log_is_read_whole(tmp_path: Path) -> None:
    write(tmp_path, "train_loss", {step: 1.0 for step in range(12000)})
    assert len(training_curves(str(tmp_path))["train_loss"]) == 12000


def test_log_of_several_processes_is_the_first_ones(tmp_path: Path) -> None:
    write(tmp_path / "rank0", "train_loss", {1: 0.5})
    write(tmp_path / "rank1", "train_loss", {1: 0.25})
    assert training_curves(str(tmp_path)) == {"train_loss": [(1, 0.5)]}


def test_folder_without_a_log_has_no_curves(tmp_path: Path) -> None:
    write(tmp_path / "other", "train_loss", {1: 0.5})
    assert training_curves(str(tmp_path)) == {} == training_curves(str(tmp_path / "missing"))
