from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigParser

from ldseg_monai.bundle.components import references
from ldseg_monai.bundle.names import check_levels, check_names, unknown_ids
from ldseg_monai.runtime.errors import InputError

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
        # of a component that the same changes put in place
        ("{train#handlers#0: {_target_: torch.nn.Identity}, train#handlers#0#average: 1}", []),
        ("{train#handlers#0: {_target_: torch.nn.ReLU}, train#handlers#0#inplace: true}", []),
        (
            "{train#handlers#1: {_target_: torch.nn.ReLU}, train#handlers#1#save_dict: 1}",
            ["train#handlers#1#save_dict"],
        ),
        ("{train#handlers#0#_target_: torch.nn.ReLU, train#handlers#0#inplace: true}", []),
        ("{+train#handlers#0#_target_: torch.nn.ReLU, train#handlers#0#inplace: true}", []),
        ("{+train#handlers#0: {_target_: torch.nn.ReLU, inplace: true}}", []),
        (
            "{+train#handlers#0: {_target_: torch.nn.ReLU, in_place: true}}",
            ["train#handlers#0#in_place"],
        ),
        ("{validate#key_metrics#iou: 1}", ["validate#key_metrics#iou"]),
    ],
)
def test_key_that_changes_nothing_is_unknown(overlay: str, unknown: list[str]) -> None:
    changes = yaml.safe_load(overlay)
    assert unknown_ids(ConfigParser(yaml.safe_load(BASE)), changes, references(changes)) == unknown


def test_files_and_overrides_are_checked_together(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "over.yaml").write_text("mine: 3\n")
    files = [str(tmp_path / name) for name in ("base.yaml", "over.yaml")]
    with pytest.raises(InputError, match=r"over.yaml has the key mine: .*"):
        check_names(files, {})
    check_names(files, {"seed": "@mine"})
    with pytest.raises(InputError, match="unknown knob --sed: .* did you mean seed"):
        check_names(files, {"seed": "@mine", "sed": 1})


@pytest.mark.parametrize("reference", ["@absent", "$1 + @absent", "@average#absent"])
def test_reference_to_nothing_is_told_with_its_file(tmp_path: Path, reference: str) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "over.yaml").write_text(f"seed: {reference!r}\n")
    files = [str(tmp_path / name) for name in ("base.yaml", "over.yaml")]
    with pytest.raises(InputError, match=r"over.yaml refers to @\S*absent, which the config does"):
        check_names(files, {})
    with pytest.raises(InputError, match="an override refers to @.*absent"):
        check_names(files[:1], {"seed": reference})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("trian#handlers#0#average", "there is no trian in the config; did you mean train?"),
        (
            "train#handler#0#average",
            "there is no handler in train; did you mean train#handlers?",
        ),
        ("+train::handlers::2::average", "there is no 2 in train#handlers"),
        ("handlers#0#average", "there is no handlers in the config; did you mean train#handlers?"),
        ("seed#low", "there is no low in seed"),
    ],
)
def test_override_of_a_part_of_nothing_is_told(name: str, told: str) -> None:
    base = ConfigParser(yaml.safe_load(BASE))
    check_levels(base, {"train#handlers#0#new": 1, "train#handlers#1": 1, "mine": 1})
    with pytest.raises(InputError, match=f"unknown knob --{re.escape(name)}: {re.escape(told)}"):
        check_levels(base, {name: 1})


def test_kinds_of_an_overlay_s_own_knobs_are_known() -> None:
    base = ConfigParser({"knob_kinds": {"count": ["seed"]}, "seed": 0})
    assert unknown_ids(base, {"knob_kinds#spacing": ["voxel_size"]}) == []
    assert unknown_ids(base, {"+knob_kinds": {"spacing": ["voxel_size"]}}) == []
