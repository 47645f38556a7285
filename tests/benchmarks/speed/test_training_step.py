from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import tables

from benchmarks.speed import training_step
from benchmarks.speed.workload import argument_parser, workload_of


def test_steps_train(tiny: list[str]) -> None:
    work = workload_of(argument_parser("").parse_args(tiny))
    for step in (
        training_step.own_step(work),
        training_step.unet_step(work, "channels last"),
    ):
        losses = [step() for _ in range(12)]
        assert all(isinstance(loss, torch.Tensor) and loss.isfinite() for loss in losses)
        assert sum(losses[-3:]) < sum(losses[:3])  # type: ignore[call-overload]


def test_table_of_a_tiny_run(tiny: list[str], tmp_path: Path) -> None:
    training_step.main([*tiny, "batch_size=2", "--no_memory"])
    text = (tmp_path / "training_step.md").read_text()
    assert "One step on 2 images of 16x32x16 voxels" in text
    rows = tables(text)[0]
    assert [row["network"] for row in rows] == ["LDSeg", "UNet"]
    for row in rows:
        assert float(row["images a second"]) == pytest.approx(2 / float(row["seconds"]), rel=0.02)
