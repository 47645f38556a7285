from __future__ import annotations

import pytest

from ldseg_monai.tools.new_bundle.config_tree import (
    add_argument,
    add_value,
    component,
    components,
    rename_key,
    replace_items,
    set_comment_above,
    set_value,
    substitute,
)
from ldseg_monai.tools.new_bundle.yaml_text import dump_config, load_config

TEXT = """# Head
#   with a command

# Knobs
seed: 0  # of all
size: [4, 6]  # voxels of '@size'
fold: null

# Data
split: {_target_: data.Split, seed: '@seed'}
# Loads and checks
load: {_target_: data.Load, keys: [image, label]}
steps:  # in this order
- {_target_: Flip, axis: 0}
- {_target_: own.Crop, size: '@size'}  # of the flipped
- {_target_: Flip, axis: 1}

# The end
run: [$@steps.run()]
"""


@pytest.fixture
def config():
    return load_config(TEXT)


def changed(config, *pairs: tuple[str, str]) -> None:
    """Check that a config is the text with some lines replaced, and nothing else."""
    expected = TEXT
    for old, new in pairs:
        assert expected.count(old) == 1, old
        expected = expected.replace(old, new)
    assert dump_config(config) == expected


def test_value_keeps_its_comment_two_spaces_behind_it(config) -> None:
    set_value(config, "seed", 12345)
    set_value(config, "size", [8])
    changed(config, ("seed: 0  #", "seed: 12345  #"), ("[4, 6]  #", "[8]  #"))


def test_value_may_get_another_comment(config) -> None:
    set_value(config, "size", [4, 6], "of all")
    set_value(config, "fold", 1, "of five")
    changed(config, ("# voxels of '@size'", "# of all"), ("fold: null", "fold: 1  # of five"))


def test_component_in_place_of_another_keeps_what_is_below_it(config) -> None:
    set_value(config, "split", component("{_target_: Other, fold: 1}"))
    changed(config, ("{_target_: data.Split, seed: '@seed'}", "{_target_: Other, fold: 1}"))


def test_value_is_added_below_another(config) -> None:
    add_value(config, "values", [0, 3], "seed", "in files")
    add_value(config, "groups", component("{_target_: Groups}"), "fold")
    new = "seed: 0  # of all\nvalues: [0, 3]  # in files\n"
    changed(
        config,
        ("seed: 0  # of all\n", new),
        ("fold: null\n", "fold: null\ngroups: {_target_: Groups}\n"),
    )


def test_argument_is_added_within_the_braces(config) -> None:
    add_argument(config["split"], "groups", "@groups")
    changed(config, ("Split, seed", "Split, groups: '@groups', seed"))


def test_key_is_called_otherwise_in_its_place(config) -> None:
    rename_key(config, "size", "grid")
    substitute(config, "@size", "@grid")
    changed(config, ("size: [4, 6]", "grid: [4, 6]"), ("size: '@size'", "size: '@grid'"))


def test_items_are_replaced_and_dropped(config) -> None:
    replace_items(config, "Flip", [])
    replace_items(config, "Crop", [component("{_target_: A}"), component("{_target_: B}")])
    lines = dump_config(config).splitlines()
    assert lines[lines.index("steps:  # in this order") + 1 :][:2] == [
        "- {_target_: A}",
        "- {_target_: B}",
    ]
    assert lines[-3:] == ["", "# The end", "run: [$@steps.run()]"]
    assert "Flip" not in dump_config(config)


def test_components_are_found_by_their_names_alone(config) -> None:
    assert [found["axis"] for found in components(config, "Flip")] == [0, 1]
    assert [found["size"] for found in components(config, "Crop")] == ["@size"]


@pytest.mark.parametrize("comment", [None, "Reads alone"])
def test_comment_above_a_key_is_replaced_or_dropped(config, comment: str | None) -> None:
    set_comment_above(config, "load", comment)
    changed(config, ("# Loads and checks\n", f"# {comment}\n" if comment else ""))


@pytest.mark.parametrize("edit", [set_value, rename_key, add_value])
def test_what_is_not_there_is_an_error(config, edit) -> None:
    arguments = ("new", 1, "nowhere") if edit is add_value else ("nowhere", "new")
    with pytest.raises(ValueError):
        edit(config, *arguments)
