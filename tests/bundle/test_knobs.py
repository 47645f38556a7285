from __future__ import annotations

import pytest
import yaml
from monai.bundle import ConfigParser

from ldseg_monai.bundle.knobs import (
    check_device,
    check_names,
    check_values,
    references,
    unknown_ids,
)

BASE = """
seed: 0
augment: {prob: 0.3}
train:
  handlers:
  - _target_: ldseg_monai.training.UpdateAverage
    average: '@average'
  - _target_: monai.handlers.CheckpointSaver
    save_dict: {network: 1}
validate:
  key_metric: {dice: 1}
average: 1
"""


@pytest.mark.parametrize(
    ("overlay", "unknown"),
    [
        ("{augment: {prob: 0.3}, seed: '@augment#prob'}", []),
        ("{probabilities: [0.3], seed: '@probabilities#0'}", []),
        ("{mine: 3, seed: $@mine + 1}", []),
        ("{mine: 3, seed: '%mine'}", []),
        ("{mine: 3}", ["mine"]),
        ("{train#handlers#1#save_dict#average: '@average'}", []),
        ("{+train#handlers#1#save_dict: {average: '@average'}}", []),
        ("{validate#key_metric#iou: 1}", []),
        ("{train#handlers#0#network: 1}", []),  # an argument that the config leaves out
        ("{train#handlers#0#netwrk: 1}", ["train#handlers#0#netwrk"]),
        ("{train#handler: 1}", ["train#handler"]),
        ("{validate#key_metrics#iou: 1}", ["validate#key_metrics#iou"]),
    ],
)
def test_key_that_changes_nothing_is_unknown(overlay: str, unknown: list[str]) -> None:
    changes = yaml.safe_load(overlay)
    assert unknown_ids(ConfigParser(yaml.safe_load(BASE)), changes, references(changes)) == unknown


def test_files_and_overrides_are_checked_together(tmp_path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "over.yaml").write_text("mine: 3\n")
    files = [str(tmp_path / name) for name in ("base.yaml", "over.yaml")]
    with pytest.raises(ValueError, match=r"over.yaml has the key mine: .*"):
        check_names(files, {})
    check_names(files, {"seed": "@mine"})
    with pytest.raises(ValueError, match="unknown knob --sed: .* did you mean seed"):
        check_names(files, {"seed": "@mine", "sed": 1})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"overlap": 0.5}, None),
        ({"overlap": [0.5, 0.5, 0.25]}, None),
        ({"overlap": [0.5, 1.0]}, "overlap is .*: expected a number from 0 to below 1"),
        ({"val_fraction": 0.0}, "val_fraction is 0.0"),
        ({"val_fraction": 0.0, "val_cases": ["a"]}, None),
        ({"val_fraction": 0.0, "val_cases": None, "fold": 1}, None),
        ({"voxel_size": [1.0, 0.5, 2]}, None),
        ({"voxel_size": [1.0, 0, 2]}, r"voxel_size is \[1.0, 0, 2\]: expected positive numbers"),
        (
            {"spatial_size": [16, 16], "network_def": {"spatial_dims": 3}},
            "spatial_size is .* one for each axis",
        ),
        ({"spatial_size": [16, 16], "network_def": {"spatial_dims": 2}}, None),
    ],
)
def test_values_that_no_run_could_use_are_refused(config: dict, message: str | None) -> None:
    if message is None:
        check_values(ConfigParser(config))
        return
    with pytest.raises(ValueError, match=message):
        check_values(ConfigParser(config))


@pytest.mark.parametrize(
    "device", ["hpu", "cuda:99", "privateuseone", "graphics card"]
)  # each another error
def test_device_that_is_not_there_is_an_error_that_names_it(device: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^device is '{device}', which is not there .* expected one of cpu"
    ):
        check_device(device)
    check_device("cpu")
