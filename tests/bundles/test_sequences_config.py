"""Sequences by the config: each frame as the same frame is segmented alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from workplace import Run, Workplace

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


def segment(workplace: Workplace, *configs: str, **options: Any) -> None:
    workflow = workplace.workflow("infer", list(configs), device="cpu", **options)
    workflow.initialize()
    workflow.run()


def test_frames_of_a_sequence_are_segmented_as_pictures_are(
    workplace: Workplace, trained: Run, phantoms: Path, tmp_path: Path
) -> None:
    if not (workplace.bundle_root / "configs" / "sequences.yaml").is_file():
        pytest.skip("this bundle has no sequences")
    frame = np.asarray(Image.open(phantoms / "images" / "case_000.png"))  # (rows, columns)
    for folder in ("frames", "sequences"):
        (tmp_path / folder).mkdir()
    Image.fromarray(frame).save(tmp_path / "frames" / "frame.png")
    sequence = np.stack([frame.T] * 3, axis=-1)
    affine = np.diag([0.5, 0.4, 1, 1])
    nib.save(nib.Nifti1Image(sequence, affine), tmp_path / "sequences" / "heart.nii.gz")
    weights = str(trained.output_dir / "model.pt")
    for folder, configs in (
        ("frames", ["inference.yaml"]),
        ("sequences", ["inference.yaml", "sequences.yaml"]),
    ):
        segment(
            workplace, *configs, dataset_dir=str(tmp_path / folder), model_path=weights,
            output_dir=str(tmp_path / f"of_{folder}")
        )  # fmt: skip
    alone = np.asarray(Image.open(tmp_path / "of_frames" / "frame_label.png")).T
    found = nib.load(tmp_path / "of_sequences" / "heart_label.nii.gz")
    labels = np.asarray(found.dataobj)
    assert labels.shape == sequence.shape and np.allclose(found.affine, affine)
    for index in range(3):
        assert (labels[..., index] == alone).mean() > 0.999  # float rounding at outlines
    rows = list(csv.DictReader((tmp_path / "of_sequences" / "heart_area.csv").open()))
    assert [row["frame"] for row in rows] == ["1", "2", "3"]
    for index, name in enumerate(("cavity", "muscle", "left atrium"), start=1):
        wanted = 0.2 * (labels == index).sum(axis=(0, 1))
        assert [float(row[f"{name}_mm2"]) for row in rows] == pytest.approx(wanted, rel=1e-4)
    assert (tmp_path / "of_sequences" / "heart_area.png").is_file()
    assert "volume_ml" in rows[0]
    told = json.loads((tmp_path / "of_sequences" / "heart_area.json").read_text())
    assert told["ejection_fraction_sd"] is None and len(told["volumes"]) == 3
    assert not (tmp_path / "of_sequences" / "statistics.csv").exists()


def test_kept_samples_give_the_ejection_fraction_an_error_bar(
    workplace: Workplace, trained: Run, tmp_path: Path
) -> None:
    if not (workplace.bundle_root / "configs" / "sequences.yaml").is_file():
        pytest.skip("this bundle has no sequences")
    out = tmp_path / "out"
    segment(
        workplace, "inference.yaml", "sequences.yaml", phantoms=True, num_samples=3,
        save_statistics=True, model_path=str(trained.output_dir / "model.pt"), output_dir=str(out)
    )  # fmt: skip
    told = json.loads((out / "case_000_area.json").read_text())
    assert told["ejection_fraction"] is None or 0 <= told["ejection_fraction"] <= 1
    # Tiny weights may find no cavity in a sample
    assert (told["ejection_fraction_sd"] is None) == (told["samples"] < 2)
    assert "statistics.csv" not in [path.name for path in out.iterdir()]
