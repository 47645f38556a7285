"""Tiny real runs of evaluate.yaml and inference.yaml, in processes of their own, checked with NumPy and nibabel."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from html_page import Page
from workplace import Run, Workplace, find_case, read_image

from ldseg_monai.data.datalist import case_name, paired_datalist
from ldseg_monai.data.split import Split

COLUMNS = (
    "case,class,name,dice,iou,precision,recall,hd95,asd,surface_dice,unit,trained_on,"
    "outside_of_known,overlap_voxels,predicted_voxels,true_voxels"
).split(",")
SCORES = COLUMNS[3:10]


def cases_in(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in folder.iterdir())


def metrics(output_dir: Path) -> list[dict[str, str]]:
    with open(output_dir / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ensemble(workplace: Workplace, trained: Run, phantoms: Path) -> Run:
    """Three samples of each image, from a directory elsewhere."""
    output_dir = workplace.root / "ensemble"
    options = {
        "place": "elsewhere",
        "dataset_dir": str(phantoms),
        "output_dir": str(output_dir),
        "num_samples": 3,
    }
    return Run(workplace.run_here("inference.yaml", **options), output_dir)


def test_metrics_have_exactly_these_columns(evaluated: Run) -> None:
    assert (evaluated.output_dir / "metrics.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_metrics_have_one_row_for_each_pair_and_class(
    evaluated: Run, phantoms: Path, num_classes: int
) -> None:
    rows = [(row["case"], row["class"]) for row in metrics(evaluated.output_dir)]
    cases = cases_in(phantoms / "images")
    assert len(cases) > 1
    assert sorted(rows) == [(case, str(index)) for case in cases for index in range(1, num_classes)]


def test_summary_has_mean_and_sd_of_every_score(evaluated: Run, num_classes: int) -> None:
    summary = json.loads((evaluated.output_dir / "summary.json").read_text())
    rows = metrics(evaluated.output_dir)
    assert summary["cases"] == len({row["case"] for row in rows})
    assert set(summary["all"]) == set(SCORES)
    for index in range(1, num_classes):
        for score in SCORES:
            values = [float(row[score]) for row in rows if row["class"] == str(index)]
            values = [value for value in values if np.isfinite(value)]
            if len(values) > 1:
                got = summary["classes"][str(index)][score]
                wanted = {
                    "mean": statistics.mean(values),
                    "sd": statistics.stdev(values),
                    "n": len(values),
                }
                assert got == pytest.approx(wanted), (index, score)


def test_report_is_one_file_with_the_scores_and_the_pictures(
    workplace: Workplace, evaluated: Run, num_classes: int
) -> None:
    page = Page(evaluated.output_dir / "report.html")
    assert page.loaded() == []
    metadata = json.loads((workplace.bundle_root / "configs" / "metadata.json").read_text())
    names = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    rows = metrics(evaluated.output_dir)
    (listed,) = (table[1:] for table in page.tables if table[0][:2] == ["Case", "Class"])
    dice = {}
    for row in rows:
        dice.setdefault(row["case"], []).append(float(row["dice"]))
    rows = sorted(rows, key=lambda row: (np.nanmean(dice[row["case"]]), row["case"]))
    for row, (case, name, *scores, trained_on) in zip(rows, listed, strict=True):
        assert (case, name) == (row["case"], names[row["class"]]) == (row["case"], row["name"])
        assert trained_on == row["trained_on"]
        wanted = [float(row[score]) for score in SCORES]
        got = [math.nan if score == "–" else float(score) for score in scores]
        np.testing.assert_allclose(got, wanted, atol=6e-4)  # three decimals
    pictures = page.images()
    assert (
        len([name for name in pictures if name.endswith("with true and predicted outlines")]) == 3
    )
    channels = len([name for name in pictures if name.endswith(" at t = 0")])
    steps = workplace.workflow("infer", ["inference.yaml"]).parser["num_inference_steps"]
    states = [name for name in pictures if " at t = " in name]
    assert channels > 1 and len(states) == channels * (steps + 1)
    assert f"predicted {names[str(num_classes - 1)]}" in page.text and metadata["name"] in page.text
    assert (
        f"there is no TensorBoard log in {workplace.bundle_root.relative_to(workplace.root)}/models"
        in page.text
    )


def test_report_of_several_samples_and_a_known_training_has_sd_maps_and_curves(
    workplace: Workplace, trained: Run, phantoms: Path
) -> None:
    output_dir, model_path = workplace.root / "reported", str(trained.output_dir / "model.pt")
    options = {
        "dataset_dir": str(phantoms),
        "output_dir": str(output_dir),
        "part": "val",
        "num_samples": 2,
    }
    workplace.run_here("train.yaml", "evaluate.yaml", model_path=model_path, **options)
    page = Page(output_dir / "report.html")
    pictures = page.images()
    overlays = [picture for name, picture in pictures.items() if name.endswith("outlines")]
    colors = [np.ptp(picture.astype(int), axis=-1) for picture in overlays]
    assert overlays and all((color > 40).any() for color in colors)
    assert "SD over the samples" in page.text
    assert "train_loss" in page.text and "val_mean_dice" in page.text
    best = torch.load(trained.output_dir / "checkpoint.pt", weights_only=True)["best"]["best"]
    assert [title for title in page.titles if title.endswith(f": {best:.4f}")]


def test_evaluation_repeats_the_dice_that_training_saved_the_weights_for(
    trained: Run, evaluated: Run, phantoms: Path
) -> None:
    validated = {
        case_name(item["image"]) for item in Split(lambda: paired_datalist(phantoms)).part("val")
    }
    dice = [float(row["dice"]) for row in metrics(evaluated.output_dir) if row["case"] in validated]
    best = torch.load(trained.output_dir / "checkpoint.pt", weights_only=True)["best"]["best"]
    assert statistics.mean(dice) == pytest.approx(best, abs=1e-6)


def test_one_sample_has_no_mean_and_sd(segmented: Run) -> None:
    assert not [
        path
        for path in segmented.output_dir.iterdir()
        if "_mean." in path.name or "_sd." in path.name
    ]


def test_inference_writes_no_metrics_and_nothing_but_its_cases(
    segmented: Run, phantoms: Path
) -> None:
    cases = cases_in(phantoms / "images")
    others = [
        path.name
        for path in segmented.output_dir.iterdir()
        if not path.name.startswith(tuple(cases))
    ]
    assert others == ["finished.jsonl", "written.jsonl"]


def test_mean_of_samples_is_a_probability_in_the_geometry_of_the_image(
    ensemble: Run, phantoms: Path, num_classes: int
) -> None:
    for case in cases_in(phantoms / "images"):
        label, affine = read_image(find_case(ensemble.output_dir, f"{case}_label"))
        mean, mean_affine = read_image(find_case(ensemble.output_dir, f"{case}_mean"))
        if (
            affine is None
        ):  # a picture: the probability of the one class but the background, in gray levels
            assert mean.shape == label.shape and mean.dtype == np.uint8 and num_classes == 2
            assert ((mean > 128) <= (label == 1)).all() and ((mean < 127) <= (label == 0)).all()
            continue
        assert mean.shape == (*label.shape, num_classes)
        np.testing.assert_allclose(mean.sum(axis=-1), 1, atol=1e-3)
        assert mean.min() >= 0
        np.testing.assert_allclose(mean_affine, affine, atol=1e-4)


def test_sd_of_samples_is_one_map_in_the_geometry_of_the_image(
    ensemble: Run, phantoms: Path
) -> None:
    for case in cases_in(phantoms / "images"):
        label, affine = read_image(find_case(ensemble.output_dir, f"{case}_label"))
        sd, sd_affine = read_image(find_case(ensemble.output_dir, f"{case}_sd"))
        assert sd.shape == label.shape
        largest = 0.5 if affine is not None else 128  # a picture has gray levels, 255 for 1
        assert 0 <= sd.min() and 0 < sd.max() <= largest
        if affine is not None:
            np.testing.assert_allclose(sd_affine, affine, atol=1e-4)


def test_second_inference_gives_the_same_bytes(
    workplace: Workplace, segmented: Run, phantoms: Path
) -> None:
    output_dir = workplace.root / "segmented again"
    workplace.run_here("inference.yaml", dataset_dir=str(phantoms), output_dir=str(output_dir))
    for case in cases_in(phantoms / "images"):
        one, other = (
            read_image(find_case(folder, f"{case}_label"))[0]
            for folder in (segmented.output_dir, output_dir)
        )
        assert one.tobytes() == other.tobytes()
