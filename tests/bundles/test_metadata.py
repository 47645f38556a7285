"""What a bundle's folder holds beside its YAML: metadata, licences, documentation, weights."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from config_files import REPOSITORY, load_config
from monai.bundle import ConfigParser

REQUIRED = {
    "schema": str,
    "version": str,
    "changelog": dict,
    "monai_version": str,
    "pytorch_version": str,
    "numpy_version": str,
    "required_packages_version": dict,
    "task": str,
    "description": str,
    "authors": str,
    "copyright": str,
    "network_data_format": dict,
}  # the model zoo's schema of 2024-07-25 and its CI
REQUIRED_OF_TENSORS = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
MAX_MODEL_BYTES = 20e6


@pytest.fixture
def folder(bundle: str) -> Path:
    return REPOSITORY / "bundles" / bundle


@pytest.fixture
def metadata(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "configs" / "metadata.json").read_text())


@pytest.fixture
def train_config(bundle: str) -> ConfigParser:
    return load_config(bundle, "train.yaml")


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "configs/logging.conf",
        "configs/evaluate.yaml",
        "configs/multi_gpu_train.yaml",
        "models/model.pt",
    ],
)
def test_bundle_has_the_file(folder: Path, name: str) -> None:
    assert (folder / name).is_file() and (folder / name).stat().st_size


def test_logging_config_parses(folder: Path) -> None:
    config = configparser.RawConfigParser()
    config.read(folder / "configs" / "logging.conf")
    assert {"loggers", "handlers", "formatters"} <= set(config.sections())


def test_metadata_has_what_the_schema_requires(metadata: dict[str, Any]) -> None:
    assert {
        key for key, kind in REQUIRED.items() if not isinstance(metadata.get(key), kind)
    } == set()
    tensors = [
        *metadata["network_data_format"]["inputs"].values(),
        *metadata["network_data_format"]["outputs"].values(),
    ]
    assert [key for tensor in tensors for key in REQUIRED_OF_TENSORS if key not in tensor] == []


def test_changelog_has_the_version(metadata: dict[str, Any]) -> None:
    assert metadata["version"] in metadata["changelog"]


def test_required_packages_have_exact_versions(metadata: dict[str, Any]) -> None:
    packages = {key: metadata[f"{key}_version"] for key in ("monai", "pytorch", "numpy")}
    packages |= metadata["required_packages_version"]
    assert {
        key: value for key, value in packages.items() if not re.fullmatch(r"\d+(\.\d+)+", value)
    } == {}


def test_channels_agree_with_the_network(
    metadata: dict[str, Any], train_config: ConfigParser
) -> None:
    image = metadata["network_data_format"]["inputs"]["image"]
    prediction = metadata["network_data_format"]["outputs"]["pred"]
    network = train_config.get_parsed_content("network_def")
    assert image["num_channels"] == network.in_channels
    assert prediction["num_channels"] == network.out_channels
    shapes = [image["spatial_shape"], prediction["spatial_shape"]]
    assert [len(shape) for shape in shapes] == [network.spatial_dims] * 2


def test_spatial_shape_is_the_size_that_images_are_resized_to(
    metadata: dict[str, Any], train_config: ConfigParser
) -> None:
    formats = metadata["network_data_format"]
    shapes = [
        formats["inputs"]["image"]["spatial_shape"],
        formats["outputs"]["pred"]["spatial_shape"],
    ]
    if "spatial_size" not in train_config:
        pytest.skip("images are not resized to one size")
    assert shapes == [train_config["spatial_size"]] * 2


def test_every_class_is_named(metadata: dict[str, Any]) -> None:
    prediction = metadata["network_data_format"]["outputs"]["pred"]
    names = prediction["channel_def"]
    assert list(names) == [str(index) for index in range(prediction["num_channels"])]
    assert all(names.values()) and len(set(names.values())) == len(names)


def test_model_is_small_enough_for_git(folder: Path) -> None:
    assert (folder / "models" / "model.pt").stat().st_size <= MAX_MODEL_BYTES


def test_model_is_a_plain_state_dict_of_the_network(
    folder: Path, train_config: ConfigParser
) -> None:
    state = torch.load(folder / "models" / "model.pt", map_location="cpu", weights_only=True)
    assert isinstance(state, dict)
    assert [key for key, value in state.items() if not isinstance(value, torch.Tensor)] == []
    train_config.get_parsed_content("network_def").load_state_dict(state, strict=True)
    assert [key for key, value in state.items() if not value.isfinite().all()] == []


def test_model_has_the_shortest_name(folder: Path) -> None:
    # MONAI Label loads the weights file whose name is shortest.
    assert (
        min((path.name for path in (folder / "models").glob("*.pt")), key=len, default=None)
        == "model.pt"
    )


def test_metrics_are_the_card_s(folder: Path, metadata: dict[str, Any]) -> None:
    card = (folder / "docs" / "README.md").read_text()
    metrics = metadata["eval_metrics"]
    assert metrics["mean_dice"] and all(0 < value < 1 for value in metrics.values())
    written = {name: f"{value:.4f}".removesuffix("0") for name, value in metrics.items()}
    assert {name: text for name, text in written.items() if text not in card} == {}
