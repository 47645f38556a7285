"""Configs as trees: what is read and written again is the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ldseg_monai.tools.new_bundle.yaml_text import WIDTH, dump_config, load_config, wrapped

BUNDLES = Path(__file__).parents[3] / "bundles"
CONFIGS = sorted(BUNDLES.glob("[!._]*/configs/**/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(BUNDLES)))
def test_config_that_is_read_and_written_again_is_the_same(path: Path) -> None:
    text = path.read_text()
    assert dump_config(load_config(text)) == text


def test_line_is_broken_between_entries_and_in_one_only_if_that_is_too_long() -> None:
    line = (
        "  - {a: [1, 2], b: 'x, y', c: {d: 1111111111, e: 2222222222}, f: 3}  # long comment here"
    )
    assert list(wrapped(line, 30)) == [
        "  - {a: [1, 2], b: 'x, y',",
        "      c: {d: 1111111111,",
        "      e: 2222222222}, f: 3}  # long comment here",
    ]
    assert list(wrapped(line, WIDTH)) == [line]


def test_changed_value_keeps_comments_and_layout() -> None:
    text = "seed: 0  # of all\nloss: {_target_: Dice, weight: 1.0}\n\n# Data\nfold: null\n"
    config = load_config(text)
    config["loss"]["weight"] = 2.0
    assert dump_config(config) == text.replace("1.0", "2.0")


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "off", "null", "~", "1", "1_000", "12:30", "2020-01-01", "0x1f", "=", "<<", ".5",
     "liver", "a: b", "a #b", "'a'", "[y]", "-x", "1e3", "\u00e9", ""],
)  # fmt: skip
def test_a_text_is_one_to_monai_s_reader_too(text: str) -> None:
    config = load_config("colors: {first: 1}\n")
    config["colors"][text] = text
    assert yaml.safe_load(dump_config(config)) == {"colors": {"first": 1, text: text}}
