from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from case_engine import case_engine
from html_page import Page
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer, SimpleInferer
from monai.networks.nets import UNet
from monai.transforms import Compose, LoadImaged
from PIL import Image
from small_networks import tiny_cdal
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ldseg_monai.bundle import class_names
from ldseg_monai.evaluation.overlays import SaveOverlay
from ldseg_monai.evaluation.report.handler import WIDEST, Report, shown_cases
from ldseg_monai.evaluation.scores import SCORES, CaseScores
from ldseg_monai.inference.postprocessing import SplitPredictiond
from ldseg_monai.inference.samplers import SamplingInferer

NAN = math.nan
HOSTILE = """<script>alert("1")</script>' & <img src=x onerror=alert(1)>""".replace("/", "|")
METADATA = {
    "name": "Knees & <b>",
    "version": "1.2.3",
    "network_data_format": {
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "femur", "2": "tibia <i>"}}}
    },
}


def square(
    start: int, index: int = 1, spatial_dims: int = 2, size: int = 16, side: int = 6
) -> np.ndarray:
    label = np.zeros([size] * spatial_dims, np.uint8)
    label[tuple([slice(start, start + side)] * spatial_dims)] = index
    return label


class Evaluation:
    """Cases with known predictions, and the page that is written of them."""

    def __init__(self, folder: Path, spatial_dims: int = 2, **arguments: Any) -> None:
        self.folder = folder
        self.spatial_dims = spatial_dims
        self.cases: list[dict[str, Any]] = []
        (folder / "bundle" / "configs").mkdir(parents=True)
        (folder / "bundle" / "configs" / "metadata.json").write_text(json.dumps(METADATA))
        (folder / "training").mkdir()
        places = {"bundle_root": str(folder / "bundle"), "training_dir": str(folder / "training")}
        arguments = {**places, **arguments}
        self.scores = CaseScores(str(folder), 3, class_names(arguments["bundle_root"]))
        self.report = Report(self.scores, **arguments)

    def add(
        self, name: str, prediction: np.ndarray, label: np.ndarray, sd: np.ndarray | None = None
    ) -> None:
        image = np.random.default_rng(0).integers(0, 255, label.shape).astype(np.uint8)
        path = str(self.folder / (f"{name}.nii.gz" if self.spatial_dims == 3 else f"{name}.png"))
        if self.spatial_dims == 3:
            nib.save(nib.Nifti1Image(image, np.eye(4)), path)
        else:
            Image.fromarray(image.T).save(path)
        volumes = {"pred": prediction, "label": label} | (
            {} if sd is None else {"pred_sd": sd.astype(np.float32)}
        )
        case = {key: MetaTensor(torch.from_numpy(volume[None])) for key, volume in volumes.items()}
        self.cases.append(
            {**case, "image": MetaTensor(torch.zeros(1, 4, 4), meta={"filename_or_obj": path})}
        )

    def run(self) -> Page:
        engine = case_engine()
        for handler in (self.scores, SaveOverlay(str(self.folder)), self.report):
            handler.attach(engine)
        engine.run([self.cases[:1], self.cases[1:]] if len(self.cases) > 1 else [self.cases])
        return Page(self.folder / "report.html")


def rows(**dice: Sequence[float]) -> list[dict[str, Any]]:
    rest: dict[str, Any] = dict.fromkeys(SCORES[1:], NAN)
    return [
        {"case": name, "class": index, "dice": value, **rest}
        for name, values in dice.items()
        for index, value in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (rows(a=[0.9], b=[0.7], c=[0.8]), {"a": "Best", "c": "Median", "b": "Worst"}),
        (rows(a=[0.6], b=[0.7], c=[0.8], d=[0.9]), {"d": "Best", "c": "Median", "a": "Worst"}),
        (
            rows(a=[0.5, 0.9], b=[0.8, NAN], c=[NAN, NAN], d=[0.1, 0.3]),
            {"b": "Best", "a": "Median", "d": "Worst"},
        ),
        (rows(b=[0.5], a=[0.5], c=[0.5]), {"a": "Worst", "b": "Median", "c": "Best"}),
        (rows(a=[0.7], b=[0.8]), {"b": "Best", "a": "Worst"}),
        (rows(a=[0.7], b=[NAN]), {"a": "The only case"}),
        (rows(a=[NAN]), {}),
        ([], {}),
    ],
)
def test_cases_are_ranked_by_their_mean_dice(
    scores: list[dict[str, Any]], expected: dict[str, str]
) -> None:
    shown = shown_cases(scores)
    assert shown == expected
    order = ["Worst", "Median", "Best", "The only case"]
    assert list(shown.values()) == sorted(shown.values(), key=order.index)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_page_has_the_scores_and_the_pictures_of_three_cases(
    tmp_path: Path, spatial_dims: int
) -> None:
    evaluation = Evaluation(tmp_path, spatial_dims, settings={"part": "val", "fold": None})
    truth = square(3, 1, spatial_dims) + square(9, 2, spatial_dims)
    sd = np.where(square(3, 1, spatial_dims), 0.25, 0.0)
    for name, shift in {"good": 0, "poor": 2, "fair": 1, "worse": 3}.items():
        evaluation.add(
            name,
            square(3 + shift, 1, spatial_dims, side=6 - shift) + square(9, 2, spatial_dims),
            truth,
            sd,
        )
    page = evaluation.run()
    for words in (
        "Best: good",
        "Median: fair",
        "Worst: worse",
        "Scores of 4 cases",
        "partval",
        "fold–",
        "1.2.3",
    ):
        assert words in page.text
    assert "predicted femur" in page.text and "predicted tibia <i>" in page.text
    unit = {2: "pixel", 3: "mm"}[spatial_dims]
    assert page.tables[-1][0][-4:] == [
        f"HD95 ({unit})",
        f"ASD ({unit})",
        "Surface Dice",
        "Trained on",
    ]
    assert {row[-1] for row in page.tables[-1][1:]} == {"unknown"}
    names = ["worse", "poor", "fair", "good"]
    assert [row[0] for row in page.tables[-1][1:]] == [name for name in names for _ in range(2)]
    assert page.links() == [
        f"{name}_overlay.png"
        for name in ["worse", "fair", "good"] + sorted(names * 2, key=names.index)
    ]
    assert "whether the weights were trained on these cases is not known" in page.text
    overlays = {name: image for name, image in page.images().items() if "outlines" in name}
    assert [name.split(" ")[0] for name in overlays] == ["worse", "fair", "good"]
    for name, picture in overlays.items():
        case = name.split(" ")[0]
        assert np.array_equal(picture, np.asarray(Image.open(tmp_path / f"{case}_overlay.png")))
    summary = json.loads((tmp_path / "summary.json").read_text())
    score_table = page.tables[0]
    place = next(i for i, row in enumerate(score_table) if row == ["mean of the classes"])
    for (title, *cells), score in zip(score_table[place + 1 :], summary["all"], strict=True):
        wanted = summary["all"][score]
        assert float(cells[0]) == pytest.approx(wanted["mean"], abs=6e-4), title
        assert float(cells[1]) == pytest.approx(wanted["sd"], abs=6e-4), title
        assert int(cells[5]) == wanted["n"] == 4
    dice = sorted(float(row[2]) for row in page.tables[-1][1:] if row[1] == "femur")
    femur = score_table[score_table.index(["femur"]) + 1]
    assert [float(cell) for cell in femur[3:6]] == pytest.approx(
        [(dice[1] + dice[2]) / 2, dice[0], dice[3]], abs=1e-3
    )
    assert len([title for title in page.titles if title.startswith("poor: ")]) == 3
    assert page.loaded() == []


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, settings={"data": f"/data/{HOSTILE}", HOSTILE: 1})
    evaluation.add(HOSTILE, square(3), square(3), np.full((16, 16), 0.1))
    with SummaryWriter(str(tmp_path / "training")) as writer:
        writer.add_scalar(HOSTILE, 0.5, 1)
        writer.add_scalar("a", 0.5, 1)
    page = evaluation.run()
    assert page.loaded() == []
    assert f"The only case: {HOSTILE}" in page.text and f"/data/{HOSTILE}" in page.text
    assert f"{HOSTILE}: 1.000" in page.titles
    assert f"{HOSTILE} with true and predicted outlines" in page.images()
    assert "Knees & <b>: evaluation" in page.text
    assert {"b", "i"}.isdisjoint(tag for tag, _ in page.tags)


def test_class_that_is_nowhere_has_no_scores(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path)
    evaluation.add("a", square(3), square(4))
    evaluation.add("b", square(3), square(3))
    page = evaluation.run()
    table = page.tables[0]
    assert table[table.index(["tibia <i>"]) + 1] == ["Dice", "–", "–", "–", "–", "–", "0"]
    assert table[table.index(["femur"]) + 1][-1] == "2"
    assert "Best: b" in page.text and "Worst: a" in page.text and "Median" not in page.text
    assert (
        "nan"
        not in " ".join(cell for table in page.tables for row in table for cell in row).lower()
    )


def test_cases_without_any_class_give_a_page(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path)
    evaluation.add("a", square(0, 0), square(0, 0))
    page = evaluation.run()
    assert "Scores of 1 case" in page.text and "No case has a class to score." in page.text
    assert page.images() == {}


def test_large_picture_is_small_in_the_page_and_linked_as_it_is(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path)
    wide = np.zeros((1200, 40), np.uint8)  # columns before rows
    evaluation.add("a", wide, wide + 1, wide)
    (picture,) = evaluation.run().images().values()
    assert picture.shape[1] == WIDEST
    with Image.open(tmp_path / "a_overlay.png") as drawn:
        assert drawn.width > 2 * 1200


def test_one_sample_has_no_sd_map_and_the_page_says_what_gives_one(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path)
    evaluation.add("a", square(3), square(3))
    assert "No map of uncertainty" in evaluation.run().text


def test_second_run_shows_its_own_cases(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path)
    evaluation.add("earlier", square(3), square(3), np.full((16, 16), 0.1))
    assert "earlier" in evaluation.run().text
    evaluation.cases.clear()
    evaluation.add("second", square(3), square(3))
    page = evaluation.run()
    assert "earlier" not in page.text and len(page.images()) == 1


def test_training_curves_are_drawn_or_their_absence_is_explained(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path)
    evaluation.add("a", square(3), square(3))
    page = evaluation.run()
    assert (
        f"there is no TensorBoard log in {tmp_path / 'training'}" in page.text
        and "--training_dir" in page.text
    )
    with SummaryWriter(str(tmp_path / "training")) as writer:
        for step in range(1, 4):
            writer.add_scalar("train_loss", 1 / step, step)
            writer.add_scalar("val_mean_dice", step / 4, step)
    page = evaluation.run()
    assert {"1: 1.0000", "2: 0.5000", "3: 0.7500"} <= set(page.titles)
    assert (
        "train_loss" in page.text and "epoch" in page.text and "No training curves" not in page.text
    )


def test_missing_training_dir_is_an_error_before_any_case(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, training_dir=str(tmp_path / "nowhere"))
    evaluation.add("a", square(3), square(3))
    with pytest.raises(
        FileNotFoundError, match="nowhere does not exist.*expected the output_dir of the training"
    ):
        evaluation.run()
    assert not evaluation.scores.rows and not (tmp_path / "report.html").exists()


def test_bundle_without_metadata_is_called_as_its_folder(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, bundle_root=str(tmp_path / "training"))
    evaluation.add("a", square(3), square(3))
    page = evaluation.run()
    assert "training: evaluation" in page.text and "predicted class 2" in page.text


def test_one_of_several_processes_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Evaluation(tmp_path)
    evaluation.add("a", square(3), square(3), np.full((16, 16), 0.1))
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    with pytest.raises(FileNotFoundError, match=r"report\.html"):
        evaluation.run()
    assert not (tmp_path / "metrics.csv").exists()


def evaluate(folder: Path, network: nn.Module, inferer: Inferer) -> Page:
    """Evaluate a network of two-channel images on two pictures."""
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", np.random.default_rng(0).random((2, 12, 16), np.float32))
        np.save(folder / f"{name}_label.npy", square(3, size=16)[None, :12])
        Image.fromarray(square(0, size=16)).save(folder / f"{name}.png")
    data = [
        {"image": str(folder / f"{name}.npy"), "label": str(folder / f"{name}_label.npy")}
        for name in ("a", "b")
    ]
    dataset = Dataset(data, LoadImaged(["image", "label"], channel_dim=0))
    scores = CaseScores(str(folder), 3)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=network,
        inferer=inferer,
        postprocessing=Compose([SplitPredictiond("pred", 3)]),
        val_handlers=[scores, Report(scores, str(folder), str(folder))],
    ).run()
    return Page(folder / "report.html")


def test_states_of_the_reverse_process_are_shown(tmp_path: Path) -> None:
    page = evaluate(tmp_path, tiny_cdal(num_train_timesteps=2), SamplingInferer(num_samples=2))
    for words in (
        "the noisy label, a column a class",
        "samples of each image2",
        "reverse steps K2",
        "networkCDAL",
        "t = 2noise",
    ):
        assert words in page.text
    names = ("background", "class 1", "class 2", "decoded label")
    states = {f"{name} at t = {timestep}" for timestep in (2, 1, 0) for name in names}
    pictures = {name: picture for name, picture in page.images().items() if " at t = " in name}
    assert set(pictures) == states
    assert all(
        picture.shape[:2] == (16, 12) for picture in pictures.values()
    )  # rows before columns
    assert "There is no picture of it." in page.text and page.links() == []  # nothing drew any
    assert "SD over the samples" in page.text


def test_network_without_a_reverse_process_gives_a_page(tmp_path: Path) -> None:
    page = evaluate(tmp_path, UNet(2, 2, 3, (8, 16), (2,)), SimpleInferer())
    assert (
        "There is no reverse process to show." in page.text
        and "this network draws no samples" in page.text
    )
    assert "samples of each image" not in page.text
