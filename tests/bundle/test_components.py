from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from ldseg_monai.bundle.components import (
    check_targets,
    config_text,
    find_target,
    has_id,
    parameters,
)
from ldseg_monai.runtime.errors import InputError

CONFIG = {
    "output_dir": "out",
    "device": "cpu",
    "seed": 0,
    "num_samples": 1,
    "rank": 0,
    "unused": 1,
    "network_def": {"_target_": "UNet", "out_channels": "$@num_samples + 1"},
    "network": "$@network_def.to(@device)",
    "loader": {"_target_": "DataLoader", "sampler": "$range(@rank)"},
    "inferer": {"_target_": "ldseg_monai.inference.SamplingInferer", "seed": "@options#seed"},
    "options": {"seed": "@seed", "colors": [1, 2]},
    "evaluator": {
        "_target_": "Evaluator",
        "inferer": "@inferer",
        "network": "@network",
        "data": "@loader",
        "folder": "$@output_dir + '/a'",
        "handlers": [{"_target_": "Save", "num_workers": 0}, "@evaluator"],
    },
    "text": {
        "_target_": "ldseg_monai.bundle.config_text",
        "of": ["evaluator"],
        "without": ["loader", "output_dir", "device", "evaluator#handlers#0#num_workers"],
    },
}


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def text(**overrides: Any) -> str:
    parser = ConfigParser(json.loads(json.dumps(CONFIG)))
    parser.update(overrides)
    return json.dumps(parser.get_parsed_content("text"))


@pytest.mark.parametrize(
    "change",
    [
        {"num_samples": 2},  # by a reference in an expression
        {"seed": 1},  # by a reference to a reference
        {"evaluator#handlers#0#_target_": "Other"},
        {"inferer#amp": True},
    ],
)
def test_what_an_item_depends_on_changes_its_text(change: dict[str, Any]) -> None:
    assert text(**change) != text()


@pytest.mark.parametrize(
    "change",
    [
        {"output_dir": "elsewhere"},
        {"rank": 1},
        {"device": "cuda"},
        {"unused": 2},
        {"options#colors": [3]},
        {"evaluator#handlers#0#num_workers": 2},
    ],
)
def test_what_nothing_depends_on_or_is_left_out_changes_nothing(change: dict[str, Any]) -> None:
    assert text(**change) == text()


def test_text_is_the_same_whatever_was_made_before() -> None:
    parser = ConfigParser(json.loads(json.dumps(CONFIG)))
    parser.get_parsed_content("options")
    parser.get_parsed_content("inferer")
    assert json.dumps(parser.get_parsed_content("text")) == text()


def test_item_that_is_not_there_is_told() -> None:
    with pytest.raises(RuntimeError) as caught:
        text(**{"text#of": ["absent"]})
    assert "the config has no absent" in str(caught.value.__cause__)


def test_config_text_belongs_in_a_config() -> None:
    with pytest.raises(InputError, match="no config is being read"):
        config_text(["seed"])


def test_files_of_one_s_own_component_count(own_modules: Path) -> None:
    (own_modules / "my_parts.py").write_text("WIDTH = 1\n")
    (own_modules / "my_inferer.py").write_text("import my_parts\nclass Mine:\n    pass\n")
    (own_modules / "notes.txt").write_text("one")
    own = {"inferer#_target_": "my_inferer.Mine"}
    before = text(**own)
    assert text(**own) == before
    (own_modules / "notes.txt").write_text("two")
    assert text(**own) == before
    (own_modules / "my_parts.py").write_text("WIDTH = 2\n")
    assert text(**own) != before


def test_code_is_of_this_package_and_one_s_own_alone() -> None:
    assert list(json.loads(text())["code"]) == ["ldseg_monai"]


def test_target_is_found_as_monai_finds_it(own_modules: Path) -> None:
    (own_modules / "own_denoiser.py").write_text("class Mine:\n    pass\n")
    assert find_target("own_denoiser.Mine").__name__ == "Mine"
    assert find_target("UNet").__module__ == "monai.networks.nets.unet"
    assert find_target("own_denoiser.Absent") is None and find_target("Absent") is None
    assert "spatial_dims" in parameters({"_target_": "UNet"})


def test_component_that_cannot_be_imported_is_told(own_modules: Path) -> None:
    (own_modules / "broken.py").write_text("import absent_package\n")
    check_targets({"a": [{"_target_": "UNet"}], "b": {"_target_": "torch.nn.Linear"}}, [])
    for name, *words in [
        ("absent.Mine", "there is nothing of that name", str(own_modules)),
        ("torch.nn.Linaer", "there is nothing of that name", str(own_modules)),
        ("broken.Mine", "No module named 'absent_package'", "module broken"),
    ]:
        with pytest.raises(InputError) as caught:
            check_targets({"a": {"b": {"_target_": name}}}, [own_modules])
        assert [word for word in [name, *words] if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Orientatond", "Orientationd"),
        ("torch.nn.Linaer", "torch.nn.Linear"),
        ("ldseg_monai.networks.LatentDenosier", "ldseg_monai.networks.LatentDenoiser"),
        ("ldseg_monai.netwroks.LDSeg", "ldseg_monai.networks.LDSeg"),
    ],
)
def test_nearest_component_is_told(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"did you mean {nearest.replace('.', '[.]')}( or|[?])"):
        check_targets({"_target_": name}, [])


def test_component_that_is_like_no_other_is_told_without_a_guess() -> None:
    for name in ("Qwertzuiop", "qwertz.uiop", "torch.qwertz.uiop"):
        with pytest.raises(InputError) as caught:
            check_targets({"_target_": name}, ["here"])
        assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("seed", True),
        ("options#colors#1", True),
        ("options::colors::1", True),
        ("evaluator#handlers#0#num_workers", True),
        ("sed", False),
        ("options#color", False),
        ("options#colors#2", False),
        ("options#colors#first", False),
        ("seed#deeper", False),
    ],
)
def test_an_id_is_there_where_monai_has_it(name: str, there: bool) -> None:
    parser = ConfigParser(json.loads(json.dumps(CONFIG)))
    assert has_id(parser, name) is there
    assert (name in parser) is there
