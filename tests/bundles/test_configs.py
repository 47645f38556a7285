"""The YAML files as they stand: what they say, name and share; nothing is built."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from bundle_kinds import BUNDLES
from config_files import (
    CONFIGS,
    OVERLAYS,
    REPOSITORY,
    STANDALONE,
    bases,
    command,
    head,
    load,
    load_config,
    name_of,
    reached,
)
from monai.bundle import ConfigParser

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.components import references
from ldseg_monai.bundle.knobs import check_values
from ldseg_monai.bundle.names import unknown_ids
from ldseg_monai.evaluation.pictures import COLORS

KNOBS = (
    "dataset_dir",
    "output_dir",
    "device",
    "seed",
    "max_epochs",
    "batch_size",
    "learning_rate",
    "num_workers",
    "val_interval",
    "amp",
    "num_inference_steps",
    "num_samples",
)
NOT_KNOBS = {"imports", "initialize", "run", "training", "finalize"}
REFERENCES = {
    "train.yaml": {
        "train#trainer#max_epochs": "max_epochs",
        "train#trainer#device": "device",
        "train#trainer#network": "network",
        "train#trainer#inferer": "train#inferer",
        "train#trainer#train_handlers": "train#handlers",
        "train#dataset#transform": "train#preprocessing",
        "validate#dataset#transform": "validate#preprocessing",
        "validate#dataloader#dataset": "validate#dataset",
        "validate#evaluator#inferer": "validate#inferer",
        "validate#evaluator#postprocessing": "validate#postprocessing",
        "validate#evaluator#key_val_metric": "validate#key_metric",
        "validate#evaluator#val_handlers": "validate#handlers",
    },
    "inference.yaml": {
        "dataset#transform": "preprocessing",
        "evaluator#network": "network",
        "evaluator#inferer": "inferer",
        "evaluator#postprocessing": "postprocessing",
        "evaluator#val_handlers": "handlers",
    },
}


def plain_id(key: str) -> str:
    """An overlay's key without the `+` that merges, and with `#` between its levels."""
    return key.removeprefix("+").replace("::", "#")


def test_there_are_bundles() -> None:
    assert BUNDLES


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_config_parses(path: Path) -> None:
    assert isinstance(ConfigParser.load_config_file(path), dict)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_head_says_what_it_is_and_gives_its_command(path: Path) -> None:
    first = head(path)[0]
    assert len(first) > 20 and "monai.bundle" not in first, first
    assert str(path.relative_to(REPOSITORY)) in command(path)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_every_reference_names_something(path: Path) -> None:
    config = load(*([] if path.name in STANDALONE else bases(path)), path)
    assert {name for name in references(config.get()) if name not in config} == set()


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_overlay_overrides_what_its_base_has_or_adds_a_knob_that_it_uses(path: Path) -> None:
    # MONAI takes a misspelt key in silence.
    base = load(*bases(path))
    overlay = ConfigParser.load_config_file(path)
    assert unknown_ids(base, overlay, references(overlay)) == []


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_overlay_changes_everything_it_holds(path: Path) -> None:
    base = load(*bases(path))
    overlay = ConfigParser.load_config_file(path)
    for key, value in overlay.items():
        assert plain_id(key) not in base or base.get(plain_id(key)) != value, key


@pytest.mark.parametrize("knob", KNOBS)
def test_training_knob_is_at_the_top_with_a_comment(bundle: str, knob: str) -> None:
    text = (REPOSITORY / "bundles" / bundle / "configs" / "train.yaml").read_text()
    top = text[: text.index("\nnetwork_def:")].splitlines()
    lines = [line for line in top if line.startswith(f"{knob}:")]
    assert len(lines) == 1, f"{knob} should be a knob above network_def"
    assert re.search(r"\s# \S", lines[0]), lines[0]


@pytest.mark.parametrize("name", STANDALONE)
def test_every_knob_is_used(bundle: str, name: str) -> None:
    config = load_config(bundle, name).get()
    knobs = (
        {key for key, value in config.items() if not isinstance(value, dict)}
        - NOT_KNOBS
        - {"_meta_"}
    )
    unused = knobs - {used.split("#")[0] for used in references(config)}
    others = {"network", "bundle_root"}  # required by clients
    others |= {"threads", "writes"}  # taken by `check_command`
    assert unused <= others


def test_training_config_has_the_ids_that_clients_ask_for(bundle: str) -> None:
    config = load_config(bundle, "train.yaml")
    ids = (
        "training",
        "run",
        "initialize",
        "network",
        "network_def",
        "train#trainer",
        "train#inferer",
    )
    data = ("train#dataset#data", "validate#dataset#data")
    assert [name for name in (*ids, *data) if name not in config] == []
    assert config["training"] == "@run" or config["training"] == config["run"]


def test_training_handlers_are_a_literal_list_of_components(bundle: str) -> None:
    # MONAI's `check_properties` and MONAI Label look for `_target_` in every one of them.
    handlers = load_config(bundle, "train.yaml")["train#handlers"]
    assert isinstance(handlers, list)
    assert [
        handler for handler in handlers if not (isinstance(handler, dict) and "_target_" in handler)
    ] == []


def test_inference_config_has_the_ids_that_clients_ask_for(bundle: str) -> None:
    config = load_config(bundle, "inference.yaml")
    ids = (
        "run",
        "network_def",
        "preprocessing",
        "postprocessing",
        "inferer",
        "dataset",
        "evaluator",
        "bundle_root",
    )
    assert [name for name in ids if name not in config] == []


@pytest.mark.parametrize("name", STANDALONE)
def test_parts_are_references_that_clients_can_replace(bundle: str, name: str) -> None:
    config = load_config(bundle, name)
    wanted = {place: f"@{target}" for place, target in REFERENCES[name].items()}
    assert {place: config.get(place) for place in wanted} == wanted


def test_training_and_inference_hold_the_same_network(bundle: str) -> None:
    train, inference = (load_config(bundle, name) for name in STANDALONE)
    assert train["network_def"] == inference["network_def"]


def test_validation_and_inference_preprocess_the_image_alike(bundle: str) -> None:
    train, inference = (load_config(bundle, name) for name in STANDALONE)
    assert train["image_transforms"] == inference["image_transforms"]
    kinds = train["validate#preprocessing"], inference["preprocessing"]
    assert kinds[1]["transforms"] == kinds[0]["transforms"].replace("[@load]", "[@load, @known]")
    ours, theirs = (dict(config["load"]) for config in (train, inference))
    assert [ours.pop("keys"), theirs.pop("keys")] == [["image", "label"], "image"]
    for argument in ("num_classes", "instances", "label_values"):
        ours.pop(argument, None)
    for name in ("dicom", "skip_unreadable"):  # which is read in inference alone
        theirs.pop(name, None)
    assert ours == theirs


def test_random_transforms_are_of_training_alone(bundle: str) -> None:
    train = load_config(bundle, "train.yaml")
    assert "random_transforms" in reached(train, "train#preprocessing")
    assert "random_transforms" not in reached(train, "validate#preprocessing")


def test_views_are_those_of_training(bundle: str) -> None:
    train, inference = (load_config(bundle, name) for name in STANDALONE)
    kinds = {step["_target_"]: step for step in train["random_transforms"] if "_target_" in step}
    turned = {"RandFlipd", "RandRotate90d"} <= kinds.keys()
    axes = []
    if "RandFlipd" in kinds and not turned:
        axis = kinds["RandFlipd"]["spatial_axis"]
        axes = [train[axis.removeprefix("@")] if isinstance(axis, str) else axis]
    for config in (train, inference):
        assert config.get("turned") is (False if turned else None)
        assert config.get("mirror_axes", []) == axes
        assert config.get("mirrored", False) is False and (not axes or "mirrored" in config)


def test_pieces_that_stay_are_knobs(bundle: str) -> None:
    for name in STANDALONE:
        config = load_config(bundle, name)
        steps = config[
            "validate#postprocessing#transforms"
            if name == "train.yaml"
            else "postprocessing#transforms"
        ]
        (step,) = [step for step in steps if step["_target_"].endswith("DropSmallObjectsd")]
        assert (step["smallest"], step["largest_only"]) == ("@smallest_object", "@largest_only")
        assert (config["smallest_object"], config["largest_only"]) == (1, [])


@pytest.mark.parametrize(("knob", "value"), [("smallest_object", 9), ("largest_only", [1])])
def test_pieces_cannot_be_left_out_of_strips(knob: str, value: Any) -> None:
    glands = Bundle.find("ldseg_glas")
    check_values(glands.config("inference.yaml", "strips.yaml"))
    check_values(glands.config("inference.yaml", **{knob: value}))
    with pytest.raises(ValueError, match=f"{knob} is .*leaves no pieces out"):
        check_values(glands.config("inference.yaml", "strips.yaml", **{knob: value}))


def test_knobs_of_network_and_preprocessing_agree_in_training_and_inference(bundle: str) -> None:
    train, inference = (load_config(bundle, name) for name in STANDALONE)
    used = reached(inference, "network_def", "preprocessing", "inferer") | {"dataset_dir"}
    used = {name.removeprefix("displayable_configs#") for name in used}  # options named as knobs
    used -= {"load", "sampler", "known", "force", "metadata", "skip_unreadable", "save_statistics"}
    assert {name: inference[name] for name in used} == {name: train[name] for name in used}


def test_options_for_clients_are_knobs_that_the_inferer_takes_from_there(bundle: str) -> None:
    # MONAI Label changes an option for one request by replacing it under displayable_configs, and
    # nowhere else.
    inference = load_config(bundle, "inference.yaml")
    for option in ("num_samples", "seed"):
        assert inference["displayable_configs"][option] == f"@{option}"
        assert f"displayable_configs#{option}" in reached(inference, "inferer")
        assert option not in reached(inference, "inferer")


def test_every_label_has_a_color_of_the_overlays(bundle: str) -> None:
    metadata = json.loads(
        (REPOSITORY / "bundles" / bundle / "configs" / "metadata.json").read_text()
    )
    names = list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    labels = [name.lower() for name in names[1:]]  # as MONAI Label has them
    colors = load_config(bundle, "inference.yaml")["displayable_configs"]["label_colors"]
    assert list(colors.items()) == list(zip(labels, itertools.cycle(COLORS.tolist()), strict=False))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_phantoms_of_another_seed_are_in_another_folder(bundle: str) -> None:
    folders = {}
    for name in STANDALONE:
        for seed in (0, 1):
            config = load_config(bundle, name)
            config.update({"seed": seed, "output_dir": "out"})
            folders[name, seed] = config.get_parsed_content("datalist#phantom_dir")
    assert folders["train.yaml", 0] == folders["inference.yaml", 0] != folders["inference.yaml", 1]
    assert folders["train.yaml", 1] == folders["inference.yaml", 1]
