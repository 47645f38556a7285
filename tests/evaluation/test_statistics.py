"""Numbers of segmentations, beside those of shapes that are known."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose
from small_inference import small_evaluator, write_images

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.dicom.clips import IN_MM
from ldseg_monai.data.writers import SaveImageVolumed
from ldseg_monai.evaluation import SaveStatisticsd, StatisticsTable, label_statistics
from ldseg_monai.evaluation.strip_statistics import strip_statistics
from ldseg_monai.inference.finished_cases import FinishedCases
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.ownership import claim

NAMES = {0: "background", 1: "cartilage", 2: "bone"}
TWO = {0: "background", 1: "bright"}


def volume(affine: np.ndarray | None = None, **meta: object) -> MetaTensor:
    """A volume with a box of 3 x 4 x 5 voxels of class 1, and no class 2."""
    classes = torch.zeros(1, 10, 12, 14, dtype=torch.uint8)
    classes[0, 2:5, 3:7, 4:9] = 1
    told = {"filename_or_obj": "/data/knee.nii.gz", **meta}
    return MetaTensor(classes, torch.eye(4) if affine is None else torch.as_tensor(affine), told)


def oblique(*spacing: float) -> np.ndarray:
    """An affine of voxels of a size, turned about two axes, with one axis mirrored."""
    one, other = np.deg2rad([20, 35])
    first = [[np.cos(one), -np.sin(one), 0], [np.sin(one), np.cos(one), 0], [0, 0, 1]]
    second = [[1, 0, 0], [0, np.cos(other), -np.sin(other)], [0, np.sin(other), np.cos(other)]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(first) @ np.array(second) @ np.diag([-spacing[0], *spacing[1:]])
    affine[:3, 3] = [5, -7, 100]
    return affine


def test_a_box_in_an_oblique_volume_has_its_size_place_and_intensities() -> None:
    image = torch.full([1, 10, 12, 14], 900.0)
    image[0, 2:5, 3:7, 4:9] = torch.arange(60.0).view(3, 4, 5)
    box, absent = label_statistics(volume(oblique(0.3, 0.5, 2.0)), NAMES, image)
    assert box == {
        "class": 1, "name": "cartilage", "voxels": 60,
        "volume_ml": pytest.approx(60 * 0.3 / 1000), "volume_ml_sd": None, "unit": "ml",
        "mean_intensity": pytest.approx(29.5), "sd_intensity": pytest.approx(np.arange(60).std()),
        "objects": 1, "largest_object": pytest.approx(0.018),
        "smallest_object": pytest.approx(0.018), "median_object": pytest.approx(0.018),
        "bounding_box": [[2, 4], [3, 6], [4, 8]],
    }  # fmt: skip
    assert absent == dict.fromkeys(box) | {
        "class": 2, "name": "bone", "voxels": 0, "volume_ml": 0, "unit": "ml", "objects": 0,
    }  # fmt: skip


def test_pieces_that_touch_at_a_corner_are_two_objects() -> None:
    label = volume()
    label[:] = 0
    label[0, 0:2, 0:2, 0:2] = 2
    label[0, 2, 2, 2] = 2  # at the corner of the cube
    label[0, 8, 8, 8:11] = 2
    label[0, 8, 8, 12] = 2  # one voxel between
    label[0, 5, 5, 5] = 1
    one, two = label_statistics(label, NAMES)
    sizes = [two[f"{which}_object"] for which in ("largest", "median", "smallest")]
    assert two["objects"] == 4 and sizes == pytest.approx([0.008, 0.002, 0.001])
    assert two["volume_ml"] == pytest.approx(0.013)
    assert two["bounding_box"] == [[0, 8], [0, 8], [0, 12]]
    assert one["objects"] == 1 and one["mean_intensity"] is None


@pytest.mark.parametrize("in_mm", [False, True])
def test_a_picture_has_an_area_in_pixels_or_in_mm2_where_its_size_is_known(in_mm: bool) -> None:
    classes = torch.zeros(1, 30, 20, dtype=torch.uint8)  # (1, columns, rows)
    classes[0, 4:10, 3:5] = 1
    label = MetaTensor(classes, torch.diag(torch.tensor([0.5, 0.25, 1.0, 1.0])))
    colors = torch.zeros(3, 30, 20, dtype=torch.uint8)
    colors[:, 4:7, 3:5] = torch.tensor([250, 200, 0], dtype=torch.uint8)[:, None, None]
    row = label_statistics(label, TWO, colors, in_mm)[0]
    size, unit, area = ("area_mm2", "mm2", 1.5) if in_mm else ("area_pixels", "pixels", 12)
    assert row[size] == pytest.approx(area) and row["unit"] == unit and f"{size}_sd" in row
    assert not {"volume_ml", "area_mm2", "area_pixels"} - {size} & set(row)
    assert (row["mean_intensity"], row["sd_intensity"]) == (75, 75)  # half 150, half 0
    assert row["bounding_box"] == [[4, 9], [3, 4]]


def test_the_spread_is_that_of_the_samples_sizes() -> None:
    one_hot = torch.zeros(3, 3, 10, 12, 14)  # (samples, classes, *spatial)
    one_hot[:, 0] = 0.5
    for index, (first, second) in enumerate([(10, 0), (12, 3), (17, 0)]):
        one_hot[index, 1].view(-1)[:first] = 0.9
        one_hot[index, 2].view(-1)[-second or 1680 :] = 0.9
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    rows = label_statistics(volume(affine), NAMES, samples=one_hot.flatten(0, 1))
    assert rows[0]["volume_ml_sd"] == pytest.approx(0.002 * np.std([10, 12, 17], ddof=1))
    assert rows[1]["volume_ml_sd"] == pytest.approx(0.002 * np.std([0, 3, 0], ddof=1))
    single = label_statistics(volume(affine), NAMES, samples=one_hot[0])
    assert single[0]["volume_ml_sd"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": torch.zeros(1, 4)}, "label of shape"),
        ({"image": torch.zeros(1, 4, 4, 4)}, "image of shape .* expected .10, 12, 14."),
        ({"samples": torch.zeros(6, 4, 4, 4)}, "samples of shape"),
        ({"samples": torch.zeros(4, 10, 12, 14)}, "samples of 4 channels: expected 3 classes"),
        ({"class_names": {0: "background"}}, "the label has class 1, and there are 1 class names"),
        ({"class_names": {1: "cartilage"}}, "class_names are of .1.: expected"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_statistics(**{"label": volume(), "class_names": NAMES, **change})


@pytest.mark.parametrize("with_image", [True, False])
def test_a_file_is_written_and_the_samples_are_gone(tmp_path: Path, with_image: bool) -> None:
    label = volume(**{OUTSIDE: "too small"})
    data: dict[str, Any] = {"pred": label, "pred_samples": torch.rand(6, 10, 12, 14), "other": 1}
    if with_image:
        data["original"] = MetaTensor(torch.ones(1, 10, 12, 14))
    result = SaveStatisticsd("pred", str(tmp_path), NAMES)(data)
    assert set(result) == set(data) - {"pred_samples"} and result["other"] == 1
    rows = json.loads((tmp_path / "knee_statistics.json").read_text())
    assert [list(row)[:3] for row in rows] == [["case", "class", "name"]] * 2
    assert [(row["case"], row["name"]) for row in rows] == [("knee", "cartilage"), ("knee", "bone")]
    assert rows[0]["mean_intensity"] == (1 if with_image else None)
    assert rows[0]["volume_ml_sd"] > 0 and rows[1][OUTSIDE] == "too small"
    assert result["pred"].meta["saved_to"] == [str(tmp_path / "knee_statistics.json")]


def test_a_picture_of_known_size_and_a_file_of_another_hand(tmp_path: Path) -> None:
    meta = {"filename_or_obj": "/data/knee.png", IN_MM: True}
    label = MetaTensor(torch.ones(1, 4, 5, dtype=torch.uint8), torch.eye(4), meta)
    SaveStatisticsd("pred", str(tmp_path), TWO)({"pred": label})
    file = tmp_path / "knee_statistics.json"
    assert json.loads(file.read_text())[0]["area_mm2"] == 20
    file.write_text("mine")
    SaveStatisticsd("pred", str(tmp_path), TWO)({"pred": label})
    assert file.read_text() == "mine"


# The table of all cases


def infer(folder: Path, cases: list[dict[str, str]]) -> None:
    """Segment what is left to do into ``folder/out``, with the numbers of it."""
    out = str(folder / "out")
    statistics = SaveStatisticsd("pred", out, TWO, image_key="none")
    save = SaveImageVolumed("pred", out)
    finished = FinishedCases(out, cases, [])
    small_evaluator(
        folder / "out",
        cases,
        transforms=Compose([AsDiscreted("pred", argmax=True), save, statistics]),
        sampler=finished.remaining(),
        val_handlers=[finished, StatisticsTable(out)],
    ).run()


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "statistics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_has_all_cases_of_a_resumed_run(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "images", "b", "c", "a")
    infer(tmp_path, cases[:2])
    assert [row["case"] for row in table(tmp_path)] == ["b", "c"]
    written = (tmp_path / "out" / "b_statistics.json").stat().st_mtime_ns
    infer(tmp_path, cases)
    rows = table(tmp_path)
    assert [row["case"] for row in rows] == ["a", "b", "c"]
    assert (tmp_path / "out" / "b_statistics.json").stat().st_mtime_ns == written
    for row in rows:
        above = np.asarray(nib.load(tmp_path / "images" / f"{row['case']}.nii.gz").dataobj) > 0
        assert int(row["voxels"]) == above.sum() and row["unit"] == "ml"
        assert float(row["volume_ml"]) == pytest.approx(above.sum() / 1000, rel=1e-5)
        assert (row["bounding_box_0_first"], row["bounding_box_0_last"]) == ("0", "5")
        assert row["mean_intensity"] == row["volume_ml_sd"] == ""
    whole = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert [row["case"] for row in whole] == ["a", "b", "c"] and whole[0]["mean_intensity"] is None
    (tmp_path / "out" / "statistics.csv").unlink()
    infer(tmp_path, cases)  # none is left to do
    assert table(tmp_path) == rows


def test_a_run_without_numbers_removes_the_table_of_an_earlier_one(tmp_path: Path) -> None:
    cases = write_images(tmp_path / "images", "a")
    out = tmp_path / "out"
    claim(out, "images", "infer")
    infer(tmp_path, cases)
    assert (out / "statistics.csv").is_file() and (out / "statistics.json").is_file()
    (out / "statistics.json").write_text("mine")
    without = StatisticsTable(str(out), save=False)
    small_evaluator(out, cases, val_handlers=[without]).run()
    assert not (out / "statistics.csv").exists()
    assert (out / "statistics.json").read_text() == "mine"  # changed since it was written


def test_a_case_that_failed_has_no_row_though_an_earlier_run_wrote_its_file(
    tmp_path: Path,
) -> None:
    cases = write_images(tmp_path / "images", "a", "b")
    infer(tmp_path, cases)
    write_images(tmp_path / "images", "b", brightest=2000.0)  # which the network fails on
    with pytest.raises(Exception, match="1 of 1 cases failed"):
        infer(tmp_path, cases)
    assert (tmp_path / "out" / "b_statistics.json").is_file()
    assert [row["case"] for row in table(tmp_path)] == ["a"]


def test_a_mask_that_was_corrected_by_hand_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = write_images(tmp_path / "images", "a", "b")
    infer(tmp_path, cases)
    before = table(tmp_path)
    nib.save(nib.Nifti1Image(np.zeros([6, 7, 8], np.uint8), None), tmp_path / "out/a_label.nii.gz")
    (tmp_path / "out" / "b_statistics.json").write_text("[")
    with caplog.at_level(logging.WARNING, "ldseg_monai"):
        infer(tmp_path, cases)
    assert "numbers of the segmentations as they were before: a, b" in caplog.text
    assert "b_statistics.json is no JSON" in caplog.text
    assert table(tmp_path) == before[:1]


@pytest.mark.parametrize("pixel_mm2", [None, 0.62**2 / 1e6])
def test_numbers_of_strips_are_those_of_the_whole_picture(pixel_mm2: float | None) -> None:
    classes = np.random.default_rng(0).choice(3, (60, 40), p=[0.6, 0.4, 0]).astype(np.uint8)
    affine = torch.diag(torch.tensor([0.62e-3, 0.62e-3, 1, 1], dtype=torch.float64))
    whole = MetaTensor(torch.from_numpy(classes.T.copy())[None], affine)
    strips = np.split(classes, [7, 8, 30])
    measured = strip_statistics(lambda: strips, NAMES, pixel_mm2)
    for row, expected in zip(
        measured, label_statistics(whole, NAMES, in_mm=pixel_mm2 is not None), strict=True
    ):
        assert list(row) == list(expected)
        for name, value in expected.items():
            assert row[name] == (pytest.approx(value) if isinstance(value, float) else value), name
