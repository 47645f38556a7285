"""Areas of classes in the frames of a sequence, beside counts that are known."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from ldseg_monai.data.checks import OUTSIDE
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


def test_an_ejection_fraction_ends_the_table_and_has_a_file(tmp_path: Path) -> None:
    pred = label(np.diag([0.5, 2.0, 1.0, 1.0]), **{IN_MM: True})
    whole = torch.nn.functional.one_hot(pred[0].as_tensor().long(), 3).movedim(-1, 0).float()
    less = whole.clone()
    less[:, 3, 2:5, 1] = torch.tensor([1.0, 0.0, 0.0])[:, None]  # half of the second frame's cavity
    data = {"pred": pred, "original": torch.rand(1, 20, 10, 3)}
    data["pred_samples"] = torch.cat([whole, less])
    assert set(SaveAreasd("pred", str(tmp_path), NAMES, chamber="cavity")(data)) == {
        "pred",
        "original",
    }
    # Pixels are 0.5 x 2 mm; the cavity has 4 x 3, 2 x 3 and, in the second sample, 1 x 3 of them.
    # A long axis goes from the middle of a pixel's side to that of another one
    largest = 12**2 / np.hypot(3 * 0.5, 3 * 2)
    fractions = [1 - 6**2 / np.hypot(0.5, 3 * 2) / largest, 1 - 3**2 / (3 * 2) / largest]
    written = json.loads((tmp_path / "heart_area.json").read_text())
    assert written == {
        "case": "heart", "chamber": "cavity",
        "ejection_fraction": pytest.approx(fractions[0]),
        "ejection_fraction_sd": pytest.approx(np.std(fractions, ddof=1)), "samples": 2,
        "end_diastole_frame": 1, "end_systole_frame": 2,
        "volumes": [pytest.approx(8 * largest / (3 * np.pi) / 1000), written["volumes"][1], None],
        "unit": "ml", "method": "single-plane area-length: V = 8 A^2 / (3 pi L)", "note": "",
    }  # fmt: skip
    rows = list(csv.reader((tmp_path / "heart_area.csv").open()))
    assert rows[0] == ["frame", "cavity_mm2", "muscle_mm2", "volume_ml"]
    assert float(rows[2][3]) == pytest.approx(written["volumes"][1], rel=1e-5)
    assert rows[3] == ["3", "0", "4", ""]
    assert (tmp_path / "heart_area.png").is_file()


def test_without_an_ejection_fraction_the_file_and_the_plot_say_why(tmp_path: Path) -> None:
    pred = label(**{OUTSIDE: "its values are unlike those of the training"})
    pred[..., 1:] = 0
    data = {"pred": pred, "original": torch.rand(1, 20, 10, 3)}
    SaveAreasd("pred", str(tmp_path), NAMES, chamber="cavity")(data)
    written = json.loads((tmp_path / "heart_area.json").read_text())
    assert written["ejection_fraction"] is None and written["unit"] == "relative"
    assert written["note"].startswith("the cavity was found in 1 of 3 frames")
    assert written[OUTSIDE] == "its values are unlike those of the training"
    rows = list(csv.reader((tmp_path / "heart_area.csv").open()))
    assert [row[-1] for row in rows] == ["volume_relative", "1", "", ""]
    assert (tmp_path / "heart_area.png").is_file()


def test_a_chamber_that_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="chamber is 'heart': expected one of the classes cavity, muscle"
    ):
        SaveAreasd("pred", str(tmp_path), NAMES, chamber="heart")
