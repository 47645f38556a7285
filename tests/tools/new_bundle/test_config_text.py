from __future__ import annotations

import doctest

import pytest
import yaml

from ldseg_monai.tools.new_bundle import config_text
from ldseg_monai.tools.new_bundle.config_text import ConfigText

TEXT = """# A head
rate: 0.5  # of learning
size: [1, 2]
train:
  steps:
  - _target_: Crop  # a part
    keys: [image, label]
  - _target_: CropMore
    keys: image
validate:
  steps:
    - _target_: Crop
      keys: image
"""


def test_example_in_the_docstring() -> None:
    assert doctest.testmod(config_text).failed == 0


def test_text_comes_back_as_it_was() -> None:
    assert ConfigText(TEXT).text == TEXT


def test_knob_keeps_its_comment_or_gets_another() -> None:
    config = ConfigText(TEXT)
    config.set_knob("rate", "1.0")
    config.set_knob("size", "[3, 4]", "in voxels")
    assert "rate: 1.0  # of learning\nsize: [3, 4]  # in voxels\n" in config.text
    assert config.has_knob("rate") and not config.has_knob("steps")


def test_new_knob_is_below_another() -> None:
    config = ConfigText(TEXT)
    config.add_knob("seed", "0", "of noise", after="rate")
    assert config.lines[2] == "seed: 0  # of noise"


@pytest.mark.parametrize(
    "edit", [lambda c: c.set_knob("none", "1"), lambda c: c.add_knob("a", "1", "b", after="none")]
)
def test_unknown_knob_is_an_error(edit) -> None:
    with pytest.raises(KeyError, match="no knob none"):
        edit(ConfigText(TEXT))


def test_components_of_this_very_name_are_replaced_at_every_depth() -> None:
    config = ConfigText(TEXT)
    assert config.replace_components("Crop", ["- _target_: Flip", "  axis: 0"]) == 2
    content = yaml.safe_load(config.text)
    flip = {"_target_": "Flip", "axis": 0}
    assert content["train"]["steps"] == [flip, {"_target_": "CropMore", "keys": "image"}]
    assert content["validate"]["steps"] == [flip]


def test_only_components_that_hold_a_text_are_changed() -> None:
    config = ConfigText(TEXT)
    assert config.add_after_components("Crop", ["- _target_: Flip"], where="label") == 1
    content = yaml.safe_load(config.text)
    assert [step["_target_"] for step in content["train"]["steps"]] == ["Crop", "Flip", "CropMore"]
    assert [step["_target_"] for step in content["validate"]["steps"]] == ["Crop"]


def test_lines_are_substituted_by_several_and_dropped() -> None:
    config = ConfigText(TEXT)
    config.substitute(r"^( +)keys: image$", "\\1keys: image\n\\1prob: 1")
    config.drop_lines("size: ")
    content = yaml.safe_load(config.text)
    assert content["train"]["steps"][1] == {"_target_": "CropMore", "keys": "image", "prob": 1}
    assert "size" not in content


def test_lines_below_are_replaced_as_far_as_they_are_indented() -> None:
    config = ConfigText(
        "options:\n  colors:  # of each\n    a: [1]\n    b:\n      c: 2\n  seed: 0\nlast: 1\n"
    )
    config.replace_below("  colors:", ["    d: [3]"])
    assert config.text == "options:\n  colors:  # of each\n    d: [3]\n  seed: 0\nlast: 1\n"
