from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import tables

from benchmarks.speed import exported
from benchmarks.speed.measure import Result


def test_table_counts_the_voxels_that_differ() -> None:
    results = {
        name: Result({0: seconds})
        for name, seconds in ((exported.REFERENCE, 2.0), ("TorchScript", 3.0))
    }
    labels = {
        exported.REFERENCE: torch.tensor([0, 1, 2, 2]),
        "TorchScript": torch.tensor([0, 1, 1, 0]),
    }
    rows = tables(exported.table(results, labels, {"TorchScript": 1.25}))[0]
    assert [row["voxels that differ"] for row in rows] == ["0 of 4", "2 of 4"]
    assert [row["file, MB"] for row in rows] == ["–", "1.2"]
    assert [row[f"times {exported.REFERENCE}"] for row in rows] == ["1", "1.5"]


def test_files_of_a_bundle_segment_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "PRECISIONS", {"float32": False})  # which the files have
    bundle = Path(__file__).parents[3] / "bundles" / "cdal_hippocampus"
    options = ["--size", "16", "16", "16", "--rounds", "2", "--no_memory", "--set", "num_samples=2"]
    exported.main([str(bundle), "--out", str(tmp_path), *options])
    rows = tables((tmp_path / "exported.md").read_text())[0]
    assert [row["form"] for row in rows] == [
        "bundle, float32",
        "TorchScript",
        "ONNX Runtime",
    ]
    assert [row["voxels that differ"] for row in rows] == ["0 of 4096"] * 3
