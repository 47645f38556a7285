"""Areas of classes in the frames of a sequence, beside counts that are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from ldseg_monai.data.dicom.clips import IN_MM, SECONDS
from ldseg_monai.evaluation import SaveAreasd
from ldseg_monai.evaluation.areas import frame_areas
from ldseg_monai.runtime.errors import InputError

NAMES = {0: "background", 1: "cavity", 2: "muscle"}


def label(affine: np.ndarray | None = None, **meta: object) -> MetaTensor:
    """Three frames: a cavity of 12, 6 and no pixels, muscle of 4 in the last one."""
    classes = torch.zeros(1, 20, 10, 3, dtype=torch.uint8)
    classes[0, 2:6, 2:5, 0] = 1
    classes[0, 2:4, 2:5, 1] = 1
    classes[0, 2:4, 7:9, 2] = 2
    told = {"filename_or_obj": "/data/heart.nii.gz", **meta}
    return MetaTensor(classes, torch.eye(4) if affine is None else torch.as_tensor(affine), told)


def test_areas_are_counts_or_mm2_of_a_slanted_pixel() -> None:
    assert frame_areas(label(), 3, in_mm=False).tolist() == [[12, 6, 0], [0, 0, 4]]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = [0.3, 0.4, 0.0], [0.0, 0.0, 2.0]  # sides of 0.5 and 2 mm
    assert np.allclose(frame_areas(label(affine), 3, in_mm=True), [[12, 6, 0], [0, 0, 4]])
    affine[:3, 1] = [0.6, 0.8, 0.0]  # along the other: no area
    assert np.allclose(frame_areas(label(affine), 3, in_mm=True), 0)


def test_a_picture_is_no_sequence() -> None:
    with pytest.raises(InputError, match="expected \\(1, columns, rows, frames\\)"):
        frame_areas(torch.zeros(1, 4, 4), 2, in_mm=False)


@pytest.mark.parametrize("with_image", [True, False])
def test_a_table_and_a_plot_are_written(tmp_path: Path, with_image: bool) -> None:
    pred = label(np.diag([0.5, 2.0, 1.0, 1.0]), **{IN_MM: True, SECONDS: 0.04})
    data = {"pred": pred}
    if with_image:
        data["original"] = MetaTensor(torch.rand(1, 20, 10, 3))
    SaveAreasd("pred", str(tmp_path), NAMES)(data)
    rows = list(csv.reader((tmp_path / "heart_area.csv").open()))
    assert rows[0] == ["frame", "seconds", "cavity_mm2", "muscle_mm2"]
    assert [[float(cell) for cell in row] for row in rows[1:]] == [
        [1, 0, 12, 0],
        [2, 0.04, 6, 0],
        [3, 0.08, 0, 4],
    ]
    picture = np.asarray(Image.open(tmp_path / "heart_area.png").convert("RGB")).astype(int)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 120) & (picture[..., 2] < 120)
    assert red.any()  # the first class's curve


def test_without_a_size_and_a_time_there_are_pixels_and_frames(tmp_path: Path) -> None:
    SaveAreasd("pred", str(tmp_path), NAMES)({"pred": label()})
    rows = list(csv.reader((tmp_path / "heart_area.csv").open()))
    assert rows[:2] == [["frame", "cavity_pixels", "muscle_pixels"], ["1", "12", "0"]]


def test_a_file_of_another_hand_is_kept(tmp_path: Path) -> None:
    other = tmp_path / "heart_area.csv"
    other.write_text("mine")
    SaveAreasd("pred", str(tmp_path), NAMES)({"pred": label()})
    assert other.read_text() == "mine"
    assert (tmp_path / "heart_area.png").is_file()
