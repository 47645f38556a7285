"""What every bundle does, in one process and as fast as it can be shown: it trains, scores and segments."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from config_files import overlays_on
from workplace import Workplace, find_case, listing, read_image, read_label

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


@dataclass(frozen=True)
class Outputs:
    """Where the training, the evaluation and the inference of a bundle wrote, and what else changed."""

    training: Path
    scores: Path
    labels: Path
    elsewhere: set[str]


@pytest.fixture(scope="module")
def outputs(bundle: str, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """One epoch of training, then evaluation and inference with its weights."""
    root = tmp_path_factory.mktemp("contract")
    place = Workplace.make(root / "place", bundle)
    before = listing(place.root)
    training, scores, labels = (root / name for name in ("training", "scores", "labels"))
    data = {"dataset_dir": str(phantoms)}
    weights = {"model_path": str(training / "model.pt")}
    place.run_here("train.yaml", run_id="training", output_dir=str(training), max_epochs=1, **data)
    place.run_here("train.yaml", "evaluate.yaml", output_dir=str(scores), **data, **weights)
    place.run_here("inference.yaml", output_dir=str(labels), **data, **weights)
    after = listing(place.root)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return Outputs(training, scores, labels, changed)


def test_it_writes_what_it_should_and_nothing_elsewhere(outputs: Outputs) -> None:
    assert outputs.elsewhere == set()
    assert {"model.pt", "checkpoint.pt"} <= {path.name for path in outputs.training.iterdir()}
    scores = {path.name for path in outputs.scores.iterdir()}
    assert {"metrics.csv", "summary.json", "report.html"} <= scores
    assert len(list(outputs.labels.glob("case_*_overlay.png"))) == 4


def test_labels_are_classes_in_the_geometry_of_their_image(
    outputs: Outputs, phantoms: Path, num_classes: int
) -> None:
    for index in range(4):
        image, image_affine = read_image(find_case(phantoms / "images", f"case_{index:03d}"))
        label, affine = read_image(find_case(outputs.labels, f"case_{index:03d}_label"))
        assert label.shape == image.shape[: label.ndim]
        assert label.dtype == np.uint8 and label.max() < num_classes
        if image_affine is not None:
            np.testing.assert_allclose(affine, image_affine, atol=1e-4)


def test_evaluated_dice_is_that_of_the_inferred_files(
    outputs: Outputs, phantoms: Path, num_classes: int
) -> None:
    with open(outputs.scores / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    dice = {(row["case"], int(row["class"])): float(row["dice"]) for row in rows}
    assert len(dice) == 4 * (num_classes - 1)
    for (case, index), got in dice.items():
        prediction, _ = read_image(find_case(outputs.labels, f"{case}_label"))
        one = prediction == index
        other = read_label(phantoms / "labels", case, num_classes) == index
        wanted = 2 * np.sum(one & other) / (np.sum(one) + np.sum(other))
        assert got == pytest.approx(wanted, abs=1e-12), (case, index)
    assert max(dice.values()) > 0, "no class was ever hit, which leaves nothing to compare"


def test_without_data_it_generates_phantoms_and_says_so_in_one_line(
    workplace: Workplace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = {"output_dir": str(tmp_path), "num_phantoms": 1}
    parser = workplace.workflow("train", ["train.yaml"], **places).parser
    with caplog.at_level(logging.INFO, "ldseg_monai"):
        (case,) = parser.get_parsed_content("datalist")()
    lines = [line for line in caplog.messages if "no dataset_dir given" in line]
    assert len(lines) == 1 and "phantoms" in lines[0]
    assert all(tmp_path in Path(file).parents and Path(file).is_file() for file in case.values())


def test_every_overlay_on_inference_labels_every_image(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path
) -> None:
    stacks = overlays_on(workplace.bundle, "inference.yaml")
    for stack in stacks:
        if "multi_gpu" in stack[-1] or stack[-1] == "sequences.yaml":  # which takes no pictures
            continue
        output_dir, weights = tmp_path / stack[-1], untrained
        if stack[-1] == "slices.yaml":  # which is of another network
            weights = tmp_path / "slices.pt"
            network = workplace.workflow("infer", list(stack)).parser.get_parsed_content(
                "network_def"
            )
            torch.save(network.state_dict(), weights)
        places = {"dataset_dir": str(phantoms), "output_dir": str(output_dir)}
        workplace.run_here(*stack, model_path=str(weights), **places)
        for image in (phantoms / "images").iterdir():
            name = image.name.split(".")[0]
            label, _ = read_image(find_case(output_dir, f"{name}_label"))
            assert read_image(image)[0].shape[: label.ndim] == label.shape, stack
