"""What `ldseg new-bundle` writes is a bundle: held to the contract that the bundles of the repository are held to."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from config_files import REPOSITORY, load, load_config
from monai.bundle import ConfigParser, ConfigWorkflow
from small_data import write_boxes
from workplace import tiny_overrides

from ldseg_monai.bundle.components import references
from ldseg_monai.bundle.names import unknown_ids
from ldseg_monai.data.datalist import case_name
from ldseg_monai.tools.new_bundle.edits import BACKBONE_OVERLAYS
from ldseg_monai.tools.new_bundle.write import new_bundle

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")
NAMES = ["left", "right"]
SOURCES = (
    r"knee|hippocamp|gland|GlaS|nucle|lung|X-ray|thorax|femur|tibia|anterior|H&E|colon|published"
    r"|heart|ventric|atrium|ultrasound|CAMUS"
)
SIZES = ("spatial_size", "crop_size", "window_size")


@dataclass(frozen=True)
class Written:
    """A bundle `bundles/boxes` for `data` in a folder, and the report on it."""

    root: Path
    report: str

    @property
    def folder(self) -> Path:
        return self.root / "bundles" / "boxes"

    @property
    def configs(self) -> list[Path]:
        return sorted((self.folder / "configs").rglob("*.yaml"))

    def load(self, name: str) -> ConfigParser:
        return load(self.folder / "configs" / name)

    def stack(self, path: Path) -> list[Path]:
        """The files of the command in a config's head."""
        command = next(line for line in path.read_text().splitlines() if "monai.bundle run" in line)
        return [self.root / name for name in re.findall(r"[\w./-]+\.yaml", command)]


@pytest.fixture(scope="session")
def written(bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp(f"from_{bundle}")
    dims = load_config(bundle, "train.yaml").get_parsed_content("network_def").spatial_dims
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_boxes(root / "data", dims)
        report = new_bundle(
            str(REPOSITORY / "bundles" / bundle), "boxes", "data", class_names=NAMES
        )
    return Written(root, report)


def workflow(
    written: Written, bundle: str, kind: str, *configs: str, **overrides: Any
) -> ConfigWorkflow:
    """The configs with a tiny network, at the sizes that were chosen."""
    tiny = tiny_overrides(bundle, *configs)
    for name in (*SIZES, "patients", "force"):  # which new-bundle chose; it knows its own data
        tiny.pop(name, None)
    channels = "network_def#image_encoder#channels"
    takes_gray = "in_channels" in load_config(bundle, "train.yaml")["network_def#image_encoder"]
    if not takes_gray and isinstance(tiny.get(channels), int):  # of ImageNet's encoder
        tiny[channels] = [8, 8, tiny[channels]]
    places = {
        "bundle_root": str(written.folder),
        "dataset_dir": str(written.root / "data"),
        "device": "cpu",
    }
    files = [str(written.folder / "configs" / name) for name in configs]
    return ConfigWorkflow(
        config_file=files, logging_file=False, workflow_type=kind, **tiny | places | overrides
    )


def test_it_has_the_files_of_a_bundle(written: Written, bundle: str) -> None:
    source = REPOSITORY / "bundles" / bundle
    wanted = {path.relative_to(source) for path in source.glob("configs/**/*") if path.is_file()}
    takes_gray = "in_channels" in load_config(bundle, "train.yaml")["network_def#image_encoder"]
    if not takes_gray:  # as the boxes are
        wanted -= {Path("configs", name) for name in BACKBONE_OVERLAYS}
    wanted |= {Path("LICENSE"), Path("docs/README.md"), Path("docs/data_license.txt")}
    assert {
        path.relative_to(written.folder) for path in written.folder.rglob("*") if path.is_file()
    } == wanted
    assert (written.folder / "models").is_dir()


def test_configs_say_nothing_of_the_organ_that_they_came_from(written: Written) -> None:
    for path in written.configs:
        text = re.sub(r"phantom: \w+", "", path.read_text())
        assert re.findall(SOURCES, text, re.IGNORECASE) == [], path.name


def test_head_gives_the_command_of_this_file(written: Written) -> None:
    for path in written.configs:
        assert written.stack(path)[-1] == path
        assert all(file.is_file() for file in written.stack(path))


def test_references_and_overlays_name_something(written: Written) -> None:
    for path in written.configs:
        *bases, _ = written.stack(path)
        merged = load(*bases, path)
        assert {name for name in references(merged.get()) if name not in merged} == set(), path.name
        if bases:
            base, overlay = load(*bases), ConfigParser.load_config_file(path)
            assert unknown_ids(base, overlay, references(overlay)) == [], path.name


def test_training_and_inference_agree(written: Written) -> None:
    train, inference = (written.load(name) for name in ("train.yaml", "inference.yaml"))
    assert train["network_def"] == inference["network_def"]
    assert train["image_transforms"] == inference["image_transforms"]
    shared = ("network_def", "load", "image_transforms", "resize", "inferer", "sampler", "datalist")
    used = references([inference.get(key) for key in shared if key in inference])
    knobs = {name.removeprefix("displayable_configs#") for name in used}
    knobs = {name for name in knobs if name in train} - {"output_dir", "num_phantoms", "datalist"}
    assert {"num_classes", "num_samples", "amp"} <= knobs
    assert list(inference["displayable_configs#label_colors"]) == NAMES
    assert {knob: inference[knob] for knob in knobs} == {knob: train[knob] for knob in knobs}
    for config in (train, inference):
        assert {key for key in config.get() if key in (*SIZES, "label_values")} <= references(
            config.get()
        )


def test_metadata_agrees_with_the_network(written: Written) -> None:
    metadata = json.loads((written.folder / "configs" / "metadata.json").read_text())
    config = written.load("inference.yaml")
    image, pred = (metadata["network_data_format"][key] for key in ("inputs", "outputs"))
    image, pred = image["image"], pred["pred"]
    said = json.dumps(metadata).replace(metadata["changelog"]["0.1.0"], "")
    assert re.findall(SOURCES, said, re.IGNORECASE) == []
    network = config.get_parsed_content("network_def").eval()
    assert image["num_channels"] == network.in_channels == len(image["channel_def"])
    assert pred["channel_def"] == {"0": "background", "1": "left", "2": "right"}
    size = config.get("spatial_size") or config["window_size"]
    assert image["spatial_shape"] == pred["spatial_shape"] == size
    with torch.no_grad():
        logits = network(torch.zeros(1, image["num_channels"], *size))
    assert logits.shape == (1, 3, *size)


@pytest.mark.parametrize(("kind", "file"), [("train", "train.yaml"), ("infer", "inference.yaml")])
def test_workflow_has_all_properties(
    written: Written, bundle: str, tmp_path: Path, kind: str, file: str
) -> None:
    run = workflow(written, bundle, kind, file, output_dir=str(tmp_path))
    run.initialize()
    assert not run.check_properties()


@pytest.mark.costly
def test_it_trains_and_scores_whole_patients(written: Written, bundle: str, tmp_path: Path) -> None:
    train = workflow(written, bundle, "train", "train.yaml", output_dir=str(tmp_path))
    train.initialize()
    train.run()
    labels = [case["label"] for case in train.parser.get_parsed_content("validate#dataset")]
    assert all(label.unique().tolist() == [0, 1, 2] for label in labels)  # 0, 1 and 3 in the files
    validated = {
        case_name(item["image"])
        for item in train.parser.get_parsed_content("validate#dataset").data
    }
    assert validated in ({"box_0", "box_1"}, {"box_2", "box_3"})
    places = {"output_dir": str(tmp_path), "model_path": str(tmp_path / "model.pt"), "part": "val"}
    evaluate = workflow(written, bundle, "eval", "train.yaml", "evaluate.yaml", **places)
    evaluate.initialize()
    evaluate.run()
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [(row["case"], row["class"]) for row in csv.DictReader(file)]
    assert sorted(rows) == [(case, index) for case in sorted(validated) for index in "12"]


def test_phantoms_stand_in_for_the_data(written: Written, bundle: str, tmp_path: Path) -> None:
    places = {"dataset_dir": "", "output_dir": str(tmp_path), "num_phantoms": 2}
    config = workflow(written, bundle, "train", "train.yaml", **places).parser
    labels = [case["label"] for case in config.get_parsed_content("validate#dataset")]
    assert all(label.unique().tolist() == [0, 1, 2] for label in labels)


@pytest.mark.slow
def test_printed_commands_run_as_printed(written: Written, bundle: str) -> None:
    commands = [line for line in written.report.splitlines() if line.startswith("python -m")]
    for command, file in zip(commands, ("train.yaml", "train.yaml", "inference.yaml"), strict=True):
        arguments = shlex.split(command)[1:]
        for key, value in tiny_overrides(bundle, file).items():
            if key not in SIZES:
                arguments += [f"--{key}", json.dumps(value)]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=written.root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    runs = written.root / "runs" / "boxes"
    assert (runs / "model.pt").is_file() and (runs / "scores" / "summary.json").is_file()
    assert len(list((runs / "segmentation").glob("box_?_label.*"))) == 4
