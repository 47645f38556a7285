from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from programs import ROOT, tables
from small_bundles import write_config
from small_networks import SMALL, image_of, tiny_cdal

from benchmarks.accuracy import noisy_label


def test_last_step_is_told_another_estimate_and_nothing_else_changes() -> None:
    network, image = tiny_cdal(num_train_timesteps=2), image_of((16, 12), batch=1)
    clean = network.encode_label(torch.randint(3, (1, 1, 16, 12)))
    plain = network(image)
    told: list[torch.Tensor] = []
    network.generator.from_label.register_forward_pre_hook(
        lambda module, inputs: told.append(inputs[0])
    )
    with noisy_label.estimate_before_the_last_step(network.generator, clean):
        other = network(image)
    start, before_last = told
    expected = network.scheduler.sample_previous(clean, start, torch.tensor([1]))
    torch.testing.assert_close(before_last, expected)
    assert not torch.allclose(other, plain)
    with noisy_label.estimate_before_the_last_step(network.generator, None):
        assert torch.equal(network(image), plain)
    assert torch.equal(network(image), plain)


def test_table_has_a_row_for_each_estimate(tmp_path: Path) -> None:
    bundle, data, out = tmp_path / "small", tmp_path / "data", tmp_path / "out"
    for index in range(4):  # the last does not fit into the window
        volume = (
            np.random.default_rng(index)
            .normal(size=(16, 12, 14 if index < 3 else 20))
            .astype(np.float32)
        )
        label = np.digitize(volume, [0, 1]).astype(np.uint8)
        for kind, voxels in (("images", volume), ("labels", label)):
            (data / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), data / kind / f"case_{index}.nii.gz")
    small = {**SMALL["cdal_hippocampus"], "spatial_size": [16, 16, 16], "amp": False}
    content = write_config(bundle, "cdal_hippocampus", "train.yaml", small)
    for folder in ("models", "docs"):
        (bundle / folder).mkdir()
    (bundle / "configs" / "metadata.json").write_text("{}")
    torch.manual_seed(0)
    network = ConfigParser(content).get_parsed_content("network_def")
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    (bundle / "docs" / "val_cases.txt").write_text("case_1\ncase_2\ncase_3\n")
    noisy_label.main([str(bundle), "--dataset_dir", str(data), "--out", str(out)])
    text = (out / "noisy_label.md").read_text()
    words = " ".join(text.split())
    assert "over 2 validation cases" in words
    assert "1 cases that take several windows are left out" in words
    (rows,) = tables(text)
    assert [row["told to the last step"] for row in rows] == list(noisy_label.ESTIMATES)
    with open(out / "noisy_label.csv", newline="") as file:
        cases = list(csv.DictReader(file))
    assert [case["case"] for case in cases] == ["case_1", "case_2"]
    for row in rows:
        values = [float(case[row["told to the last step"]]) for case in cases]
        assert row["Dice"].startswith(f"{sum(values) / 2:.3f} ± ")


def test_another_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        noisy_label.main(
            [str(ROOT / "bundles" / "ldseg_hippocampus"), "--dataset_dir", str(tmp_path)]
        )
    assert "has a LDSeg: expected a network whose" in capsys.readouterr().err
