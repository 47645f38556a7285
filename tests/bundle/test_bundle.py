from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from small_data import write_boxes

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.bundle import readable
from ldseg_monai.runtime.errors import InputError

METADATA = {
    "name": "LDSeg for boxes",
    "network_data_format": {
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "left", "2": "right"}}}
    },
}
INFERENCE = {
    "bundle_root": "elsewhere",
    "features": 3,
    "network_def": {"_target_": "torch.nn.Linear", "in_features": "@features", "out_features": 2},
}


WHOLE = "bundle_root: .\ninitialize: []\nnetwork_def: null\n"


@pytest.fixture
def boxes(tmp_path: Path) -> Bundle:
    """A bundle with weights."""
    root = tmp_path / "bundles" / "boxes"
    for folder in ("configs", "models", "docs"):
        (root / folder).mkdir(parents=True)
    (root / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    (root / "configs" / "inference.json").write_text(json.dumps(INFERENCE))
    torch.save(torch.nn.Linear(3, 2).state_dict(), root / "models" / "model.pt")
    return Bundle(root)


def test_a_bundle_is_found_by_folder_and_by_name(
    boxes: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Bundle.find(boxes.root).root == boxes.root
    monkeypatch.chdir(boxes.root.parents[1])
    for where in ("boxes", "bundles/boxes", Path("bundles", "boxes")):
        found = Bundle.find(where)
        assert (found.root, found.name) == (boxes.root, "boxes")
    with pytest.raises(FileNotFoundError, match=r"bones is not a bundle: .*in ./bundles \(boxes\)"):
        Bundle.find("bones")


def test_metadata_name_the_bundle_and_its_classes(boxes: Bundle, tmp_path: Path) -> None:
    assert (boxes.title, boxes.class_names) == (
        "LDSeg for boxes",
        {0: "background", 1: "left", 2: "right"},
    )
    bare = Bundle(tmp_path / "bare")
    assert (bare.title, bare.metadata, bare.class_names) == ("bare", {}, {})


def test_metadata_that_are_no_json_are_told(boxes: Bundle) -> None:
    (boxes.configs / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match="metadata.json of boxes is no JSON"):
        _ = boxes.metadata


def test_configs_lie_over_each_other_and_know_their_folder(boxes: Bundle) -> None:
    (boxes.configs / "wide.yaml").write_text("features: 30\n")
    config = boxes.config("inference.yaml", "wide.yaml", **{"network_def#out_features": 4})
    assert config["bundle_root"] == str(boxes.root)
    assert config.get_parsed_content("network_def").weight.shape == (4, 30)
    part = {"_target_": "torch.nn.Linear", "in_features": 5, "out_features": 2}
    for features in (7, 8):
        changes = {"network_def": part, "network_def#in_features": features}
        network = boxes.config("inference.yaml", **changes).get_parsed_content("network_def")
        assert (network.in_features, part["in_features"]) == (features, 5)
    with pytest.raises(FileNotFoundError, match="train.yaml is not there: .*bundle boxes"):
        boxes.config("train.yaml")


def test_a_text_keeps_its_signs(boxes: Bundle) -> None:
    path = "/data #1/a@b/it's"
    assert boxes.config("inference.yaml", mine=path).get_parsed_content("mine") == path
    assert boxes.config("inference.yaml", mine="@features").get_parsed_content("mine") == 3


def test_the_network_has_the_weights_of_the_bundle_or_those_given(
    boxes: Bundle, tmp_path: Path
) -> None:
    network = boxes.network()
    saved = torch.load(boxes.weights)
    torch.testing.assert_close(network.state_dict(), saved, rtol=0, atol=0)
    assert not network.training
    torch.save({name: value + 1 for name, value in saved.items()}, tmp_path / "other.pt")
    other = boxes.network(tmp_path / "other.pt").state_dict()
    torch.testing.assert_close(other["bias"], saved["bias"] + 1)
    with pytest.raises(ValueError, match="of another size"):
        boxes.network(features=7)


def test_validation_cases_are_those_of_the_data_set_that_has_them(
    boxes: Bundle, tmp_path: Path
) -> None:
    write_boxes(tmp_path / "data", 3)
    assert boxes.val_cases(tmp_path / "data") is None
    names = boxes.root / "docs" / "val_cases.txt"
    names.write_text("box_1\nbox_3\n")
    assert boxes.val_cases(tmp_path / "data") == ["box_1", "box_3"]
    names.write_text("box_1\nbox_9\n")
    with pytest.raises(ValueError, match="data lacks 1 of them, such as box_9: expected that data"):
        boxes.val_cases(tmp_path / "data")


def test_a_network_of_the_bundle_s_own_module_is_found(
    boxes: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (boxes.root / "own_layer.py").write_text("from torch.nn import Linear\n")
    assert boxes.network(**{"network_def#_target_": "own_layer.Linear"}).out_features == 2


def test_a_config_may_be_given_by_its_path_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("max_epochs: 3\n")
    bundle = Bundle.find("ldseg_glas")  # an installed one
    assert bundle.config_file("mine.yaml") == tmp_path / "mine.yaml"
    assert bundle.config("train.yaml", "mine.yaml")["max_epochs"] == 3
    (tmp_path / "train.yaml").write_text("")  # a name is that of the bundle's file first
    assert bundle.config_file("train.yaml") == bundle.configs / "train.yaml"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("notes.txt", "seed: 1", "is no config: expected a file ending in .yaml, .yml, .json"),
        ("empty.yaml", "# nothing\n", "holds nothing: expected ids with values"),
        ("list.yaml", "- 1", "holds .1.: expected ids with values"),
        ("open.yaml", "seed: [1", "open.yaml cannot be read .ParserError: .* expected YAML or"),
        ("plus.yaml", "+features: 1", "cannot be put over each other .ValueError: "),
        ("part.yaml", "features#a: 1", "cannot be put over each other .ValueError: "),
        ("whole.yaml", WHOLE, "whole.yaml is a whole config, no overlay of .*inference"),
    ],
)
def test_an_overlay_that_is_none_is_told(
    boxes: Bundle, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        boxes.config("inference.yaml", str(tmp_path / name))


def test_a_path_that_monai_takes_for_an_id_is_kept() -> None:
    knobs = {"output_dir": "a/x@##y", "save_as": ["b%###", "stl"], "seed": 3, "device": "@#cpu"}
    given = readable(knobs)
    assert given["seed"] == 3 and given["device"] == "@#cpu"  # which MONAI can read
    parser = ConfigParser(given)
    parser.parse()
    assert parser.get_parsed_content("output_dir") == "a/x@##y"
    assert parser.get_parsed_content("save_as") == ["b%###", "stl"]
