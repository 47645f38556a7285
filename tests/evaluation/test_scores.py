from __future__ import annotations

import csv
import json
import math
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from case_engine import case_engine
from monai.data import MetaTensor
from monai.handlers import from_engine
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.trained_cases import TrainedCases
from ldseg_monai.evaluation.scores import (
    COUNTS,
    SCORES,
    CaseScores,
    MeanCaseDice,
    case_means,
    class_scores,
    pooled_scores,
    summarize,
    voxel_counts,
)

SPACING = (2.0, 1.0, 0.5)


def box(size: tuple[int, ...], start: tuple[int, ...], sides: tuple[int, ...]) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[tuple(slice(low, low + side) for low, side in zip(start, sides, strict=True))] = True
    return mask


def cube(start: tuple[int, ...]) -> torch.Tensor:
    return box((12,) * len(start), start, (4,) * len(start))


# class_scores


@pytest.mark.parametrize("dims", [2, 3])
def test_perfect_prediction_has_perfect_scores(dims: int) -> None:
    mask = cube((3,) * dims)
    scores = class_scores(mask, mask.clone(), SPACING[:dims])
    overlap = {"dice": 1.0, "iou": 1.0, "precision": 1.0, "recall": 1.0}
    assert scores == {**overlap, "hd95": 0.0, "asd": 0.0, "surface_dice": 1.0}
    assert tuple(scores) == SCORES


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [1, 2])
def test_shifted_cube_has_the_scores_of_the_overlap_and_the_shift_in_mm(
    shift: int, axis: int, dims: int
) -> None:
    axis = axis % dims
    start = [3] * dims
    start[axis] += shift
    scores = class_scores(cube(tuple(start)), cube((3,) * dims), SPACING[:dims])
    share = (4 - shift) / 4
    assert scores["dice"] == pytest.approx(share)
    assert scores["iou"] == pytest.approx(share / (2 - share))
    assert scores["precision"] == scores["recall"] == pytest.approx(share)
    assert scores["hd95"] == pytest.approx(shift * SPACING[axis])
    both = np.concatenate(surface_distances(shift, axis, dims))
    assert scores["asd"] == pytest.approx(both.mean())
    assert scores["surface_dice"] == pytest.approx((both <= 1).mean())


def surface_distances(shift: int, axis: int, dims: int) -> list[np.ndarray]:
    """From the voxels around one cube of 4 to those around the shifted one, and back, by hand."""
    places = np.array(list(np.ndindex(*[4] * dims)))
    around = places[((places == 0) | (places == 3)).any(axis=1)]
    moved = around + shift * np.eye(dims, dtype=int)[axis]
    between = (around[:, None] - moved[None]) * np.array(SPACING[:dims])
    distances = np.linalg.norm(between, axis=-1)
    return [distances.min(axis=1), distances.min(axis=0)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [1, 2, 3])
def test_every_place_of_a_shifted_plate_is_as_far_as_the_shift(shift: int, axis: int) -> None:
    sides = [5, 5, 5]
    sides[axis] = 1
    start = [3, 3, 3]
    label = box((12, 12, 12), (3, 3, 3), tuple(sides))
    start[axis] += shift
    scores = class_scores(box((12, 12, 12), tuple(start), tuple(sides)), label, SPACING)
    distance = shift * SPACING[axis]
    assert scores["asd"] == scores["hd95"] == pytest.approx(distance)
    assert scores["surface_dice"] == (1.0 if distance <= 1 else 0.0)


def test_precision_and_recall_tell_too_much_from_too_little() -> None:
    small, large = box((12, 12), (2, 2), (2, 3)), box((12, 12), (2, 2), (4, 6))
    much, little = class_scores(large, small, (1, 1)), class_scores(small, large, (1, 1))
    assert (much["precision"], much["recall"]) == (0.25, 1.0)
    assert (little["precision"], little["recall"]) == (1.0, 0.25)
    for scores in (much, little):
        assert scores["dice"] == pytest.approx(0.4) and scores["iou"] == pytest.approx(0.25)


def test_stray_voxel_does_not_count_in_the_95th_percentile() -> None:
    label = cube((1, 1, 1))
    prediction = label.clone()
    prediction[10, 10, 10] = True
    assert class_scores(prediction, label, SPACING)["hd95"] == 0.0


def test_distance_is_that_of_the_whole_volume_though_only_a_part_is_searched() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        prediction, label = torch.zeros(2, 14, 12, 10, dtype=torch.bool)
        prediction[0:7, 3:9, 4:10] = (
            torch.rand(7, 6, 6, generator=generator) > 0.4
        )  # touches two borders
        label[2:8, 2:8, 3:8] = torch.rand(6, 6, 5, generator=generator) > 0.4
        expected = compute_hausdorff_distance(
            prediction[None, None],
            label[None, None],
            include_background=True,
            percentile=95,
            spacing=list(SPACING),
        )
        scores = class_scores(prediction, label, SPACING)
        assert scores["hd95"] == pytest.approx(expected.item())
        whole = (prediction[None, None], label[None, None])
        alike: dict[str, Any] = {"include_background": True, "spacing": list(SPACING)}
        mean = compute_average_surface_distance(*whole, symmetric=True, **alike)
        share = compute_surface_dice(*whole, class_thresholds=[1.0], **alike)
        assert scores["asd"] == pytest.approx(mean.item())
        assert scores["surface_dice"] == pytest.approx(share.item())
        assert 0 < scores["surface_dice"] < 1


def test_surfaces_are_scored_without_a_warning() -> None:
    """It would be of MONAI's own code, and stand in the log of each evaluation."""
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[2:4, 2:4] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert class_scores(mask, mask, (1.0, 1.0))["hd95"] == 0


def test_scores_with_nothing_to_measure_are_nan() -> None:
    nothing, something = torch.zeros(12, 12, 12, dtype=torch.bool), cube((3, 3, 3))
    assert all(math.isnan(score) for score in class_scores(nothing, nothing, SPACING).values())
    missed = class_scores(nothing, something, SPACING)
    assert missed["dice"] == missed["iou"] == missed["recall"] == 0
    assert math.isnan(missed["precision"]) and math.isnan(missed["hd95"])
    assert math.isnan(missed["asd"]) and missed["surface_dice"] == 0
    invented = class_scores(something, nothing, SPACING)
    assert invented["precision"] == 0  # the label lacks the class: the rest has nothing to measure
    assert all(math.isnan(score) for name, score in invented.items() if name != "precision")


# CaseScores


def evaluated(name: str, prediction: torch.Tensor, label: torch.Tensor) -> dict[str, Any]:
    affine = torch.diag(torch.tensor([-SPACING[0], SPACING[1], SPACING[2], 1.0]))
    image = MetaTensor(
        torch.zeros(1, 1, 1, 1), meta={"filename_or_obj": f"/data/images/{name}.nii.gz"}
    )
    meta = {"filename_or_obj": f"/data/labels/{name}_anno.nii.gz"}
    return {
        "image": image,
        "pred": MetaTensor(prediction[None].byte()),
        "label": MetaTensor(label[None].byte(), affine, meta),
    }


def run(handler: CaseScores, batches: list[list[dict[str, Any]]], times: int = 1) -> None:
    engine = case_engine()
    handler.attach(engine)
    for _ in range(times):
        engine.run(batches)


def reject(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


@pytest.fixture
def cases() -> list[dict[str, Any]]:
    one, shifted, two = cube((1, 1, 1)).long(), cube((2, 1, 1)).long(), 2 * cube((7, 7, 7)).long()
    return [
        evaluated("knee.1", one + two, one + two),
        evaluated("knee2", shifted + two, one + two),
        evaluated("knee3", shifted, one),  # has no class 2
    ]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("batches", [[[0], [1], [2]], [[0, 1], [2]]])
def test_table_has_a_row_for_each_case_and_class(
    tmp_path: Path, cases, batches: list[list[int]], times: int
) -> None:
    run(
        CaseScores(str(tmp_path / "new" / "folder"), 3, {0: "background", 1: "femur"}),
        [[cases[i] for i in batch] for batch in batches],
        times,
    )
    with open(tmp_path / "new" / "folder" / "metrics.csv", newline="") as file:
        columns = "case,class,name,dice,iou,precision,recall,hd95,asd,surface_dice,unit,trained_on"
        columns += ",outside_of_known,overlap_voxels,predicted_voxels,true_voxels"
        assert file.readline().strip() == columns
        file.seek(0)
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["class"], row["name"]) for row in rows] == [
        (case, index, name)
        for case in ("knee.1", "knee2", "knee3")
        for index, name in (("1", "femur"), ("2", "class 2"))
    ]
    assert {(row["unit"], row["trained_on"]) for row in rows} == {("mm", "unknown")}
    counts = [tuple(int(row[name]) for name in COUNTS) for row in rows]
    assert counts[0] == counts[3] == (64, 64, 64) and counts[2] == (48, 64, 64)
    assert counts[5] == (0, 0, 0)
    scores = [[float(row[score]) for score in SCORES] for row in rows]
    assert scores[0] == scores[1] == scores[3] == [1, 1, 1, 1, 0, 0, 1]
    both = np.concatenate(surface_distances(1, 0, 3))  # shifted along the axis of 2 mm
    wanted = [0.75, 0.6, 0.75, 0.75, 2.0, both.mean(), (both <= 1).mean()]
    assert scores[2] == scores[4] == pytest.approx(wanted)
    assert all(math.isnan(score) for score in scores[5])


def test_summary_is_valid_json_and_leaves_nan_out(tmp_path: Path, cases) -> None:
    run(CaseScores(str(tmp_path), 4), [cases])  # nobody has class 3
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=reject)
    assert summary["cases"] == 3 and summary["units"] == {"hd95": "mm", "asd": "mm"}
    assert summary["tolerance"] == {"surface_dice": "1 mm"}
    assert summary["classes"]["1"]["name"] == "class 1"
    assert set(summary["classes"]) == {"1", "2", "3"}
    assert summary["classes"]["1"]["dice"]["mean"] == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert summary["classes"]["2"]["dice"] == {"mean": 1.0, "sd": 0.0, "n": 2}
    assert summary["classes"]["3"]["hd95"] == {"mean": None, "sd": None, "n": 0}
    assert summary["all"]["dice"]["mean"] == pytest.approx((1 + 0.875 + 0.75) / 3)
    assert summary["all"]["hd95"]["mean"] == pytest.approx((0 + 1 + 2) / 3)
    assert summary["pooled"]["dice"]["mean"] == pytest.approx((1 + 0.875 + 0.75) / 3)


def test_distances_of_a_picture_are_in_pixels(tmp_path: Path) -> None:
    label = torch.zeros(1, 8, 8, dtype=torch.uint8)
    label[:, 2:4, 2:4] = 1
    meta = {"filename_or_obj": "a.png"}
    case = {"image": MetaTensor(torch.zeros(3, 8, 8), meta=meta), "pred": label}
    run(CaseScores(str(tmp_path), 2), [[{**case, "label": MetaTensor(label)}]])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["units"] == {"hd95": "pixel", "asd": "pixel"}
    assert summary["tolerance"] == {"surface_dice": "1 pixel"}


def test_cases_that_were_trained_on_are_marked(tmp_path: Path, cases, caplog) -> None:
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    TrainedCases(frozenset({("knee2", ""), ("other", "")})).write(weights)
    with caplog.at_level("INFO"):
        run(CaseScores(str(tmp_path), 3, weights=str(weights)), [cases])
    with open(tmp_path / "metrics.csv", newline="") as file:
        marks = {row["case"]: row["trained_on"] for row in csv.DictReader(file)}
    assert marks == {"knee.1": "no", "knee2": "yes", "knee3": "no"}
    told = "1 of 3 cases were trained on (knee2)"
    assert json.loads((tmp_path / "summary.json").read_text())["trained_on"] == told
    assert told in caplog.messages


def test_images_that_the_weights_do_not_know_are_marked(tmp_path: Path, cases) -> None:
    why = "it looks unlike them: a distance of 3, where up to 2 is usual"
    cases[1]["image"].meta[OUTSIDE] = why
    run(CaseScores(str(tmp_path), 3), [cases])
    with open(tmp_path / "metrics.csv", newline="") as file:
        marks = {row["case"]: row[OUTSIDE] for row in csv.DictReader(file)}
    assert marks == {"knee.1": "", "knee2": why, "knee3": ""}
    assert json.loads((tmp_path / "summary.json").read_text())[OUTSIDE] == {"knee2": why}


# MeanCaseDice


def mean_case_dice(cases: list[dict[str, Any]], num_classes: int) -> float:
    """What a training's validation has as its key metric."""
    engine = case_engine()
    MeanCaseDice(num_classes, from_engine(["pred", "label"])).attach(engine, "dice")
    return engine.run([cases]).metrics["dice"]


def test_training_and_evaluation_have_one_mean_dice(tmp_path: Path, cases) -> None:
    cases[2]["pred"][:, 7:11, 7:11, 7:11] = 2  # a class that this label lacks
    run(CaseScores(str(tmp_path), 4), [cases])  # nobody has class 3
    evaluated_mean = json.loads((tmp_path / "summary.json").read_text())["all"]["dice"]["mean"]
    assert evaluated_mean == pytest.approx((1 + 0.875 + 0.75) / 3)
    assert mean_case_dice(cases, 4) == pytest.approx(evaluated_mean)


def test_case_without_any_class_is_left_out_of_the_mean(cases) -> None:
    nothing = torch.zeros(12, 12, 12)
    empty = evaluated("empty", cube((1, 1, 1)).long(), nothing)
    assert mean_case_dice([cases[1], empty], 3) == pytest.approx(0.875)
    assert math.isnan(mean_case_dice([empty], 3))


# summarize


def row(case: str, index: int, dice: float, hd95: float) -> dict[str, Any]:
    return {
        "case": case,
        "class": index,
        "dice": dice,
        "iou": 0.5,
        "precision": 0.5,
        "recall": 0.5,
        "hd95": hd95,
        "asd": hd95 / 2,
        "surface_dice": 0.25,
        "unit": "mm",
        **dict.fromkeys(COUNTS, 0),
    }


def test_pooled_classes_count_by_their_size() -> None:
    """A large class found whole, and a small one of which half was taken for the large one."""
    truth = torch.zeros(10, 10, dtype=torch.long)
    truth[:8], truth[8:, :4] = 1, 2  # 80 pixels, and 8
    found = truth.clone()
    found[9, :4] = 1
    classes = [{**voxel_counts(found == index, truth == index)} for index in (1, 2)]
    pooled = pooled_scores(classes)
    dice = [2 * 80 / (84 + 80), 2 * 4 / (4 + 8)]
    assert pooled["dice"] == pytest.approx(2 * 84 / (88 + 88))
    assert pooled["iou"] == pytest.approx(84 / 92)
    assert pooled["precision"] == pooled["recall"] == pytest.approx(84 / 88)
    assert pooled["dice"] > statistics.mean(dice)
    assert pooled_scores(classes[:1])["dice"] == pytest.approx(dice[0])


def test_nothing_to_find_has_no_pooled_dice() -> None:
    nothing = torch.zeros(4, dtype=torch.bool)
    assert math.isnan(pooled_scores([voxel_counts(nothing, nothing)])["dice"])


def test_means_and_sds_are_over_the_cases() -> None:
    nan = math.nan
    rows = [
        row("a", 1, 0.9, 1.0),
        row("a", 2, 0.7, 3.0),
        row("b", 1, 0.6, nan),
        row("b", 2, 0.8, 5.0),
        row("c", 1, 0.3, 2.0),
        row("c", 2, nan, nan),
    ]
    summary = summarize(rows)
    assert summary["cases"] == 3
    expected = {
        ("1", "dice"): [0.9, 0.6, 0.3],
        ("2", "dice"): [0.7, 0.8],
        ("1", "hd95"): [1.0, 2.0],
        ("2", "hd95"): [3.0, 5.0],
        ("1", "iou"): [0.5] * 3,
        ("2", "asd"): [1.5, 2.5],
    }
    for (index, score), values in expected.items():
        assert summary["classes"][index][score]["mean"] == pytest.approx(statistics.mean(values))
        assert summary["classes"][index][score]["sd"] == pytest.approx(statistics.stdev(values))
    for score, of_cases in {"dice": [0.8, 0.7, 0.3], "hd95": [2.0, 5.0, 2.0]}.items():
        assert summary["all"][score]["mean"] == pytest.approx(statistics.mean(of_cases))
        assert summary["all"][score]["sd"] == pytest.approx(statistics.stdev(of_cases))


def test_one_case_has_no_spread() -> None:
    assert summarize([row("a", 1, 0.9, math.nan)])["all"] == {
        "dice": {"mean": 0.9, "sd": None, "n": 1},
        "iou": {"mean": 0.5, "sd": None, "n": 1},
        "precision": {"mean": 0.5, "sd": None, "n": 1},
        "recall": {"mean": 0.5, "sd": None, "n": 1},
        "hd95": {"mean": None, "sd": None, "n": 0},
        "asd": {"mean": None, "sd": None, "n": 0},
        "surface_dice": {"mean": 0.25, "sd": None, "n": 1},
    }


def test_mean_of_a_case_leaves_out_classes_without_the_score() -> None:
    means = case_means(
        [row("b", 1, 0.9, math.nan), row("b", 2, 0.7, 3.0), row("a", 1, math.nan, math.nan)]
    )
    assert list(means) == ["a", "b"]
    overlap = {"dice": 0.8, "iou": 0.5, "precision": 0.5, "recall": 0.5}
    surface = {"hd95": 3.0, "asd": 1.5, "surface_dice": 0.25}
    assert means["b"] == pytest.approx({**overlap, **surface})
    assert math.isnan(means["a"]["dice"]) and means["a"]["iou"] == 0.5
