from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from programs import ROOT, tables
from small_bundles import write_config

from benchmarks import report
from benchmarks.speed import exported
from benchmarks.speed.measure import Result
from ldseg_monai.bundle import Bundle
from ldseg_monai.inference import SamplingInferer


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


SMALL = {  # a network of few layers and one step, which take the time of an export
    "network_def#image_encoder#channels": [8],
    "network_def#image_encoder#out_channels": 8,
    "network_def#image_encoder#num_res_blocks": 1,
    "network_def#generator#channels": [8, 16],
    "network_def#generator#num_res_blocks": 1,
    "network_def#generator#num_head_channels": 8,
    "network_def#generator#attention_levels": [False, True],
    "network_def#scheduler#num_train_timesteps": 1,
    "num_inference_steps": 1,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A cDAL bundle with a small network and untrained weights, which tell voxels apart."""
    folder = tmp_path / "small"
    write_config(folder, "cdal_hippocampus", "inference.yaml", SMALL)
    shutil.copy(ROOT / "bundles/cdal_hippocampus/configs/metadata.json", folder / "configs")
    config = Bundle(folder).config("inference.yaml")
    torch.manual_seed(0)
    network = config.get_parsed_content("network_def").eval()
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    labels = SamplingInferer(amp=False)(torch.randn(1, 1, 16, 16, 16), network).argmax(dim=1)
    assert len(labels.unique()) > 1
    return folder


@pytest.mark.slow  # an export to ONNX takes half a minute
def test_files_of_a_bundle_segment_as_it_does(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "PRECISIONS", {"float32": False})  # which the files have
    options = ["--size", "16", "16", "16", "--rounds", "2", "--no_memory", "--set", "num_samples=2"]
    exported.main([str(bundle), "--out", str(tmp_path), *options])
    rows = tables((tmp_path / f"exported_{report.processor_kind()}.md").read_text())[0]
    assert [row["form"] for row in rows] == [
        "bundle, float32",
        "TorchScript",
        "ONNX Runtime",
    ]
    assert [row["voxels that differ"] for row in rows] == ["0 of 4096"] * 3
