from __future__ import annotations

import json
from pathlib import Path

import monai.bundle
import pytest
from monai.bundle import ConfigParser

from ldseg_monai.bundle import settings
from ldseg_monai.bundle.settings import next_command, run_settings

CONFIG = {
    "bundle_root": ".",
    "output_dir": "out",
    "dataset_dir": "",
    "seed": 0,
    "sizes": [1, 2],
    "learning_rate": 0.1,
    "initial_weights": "",
    "network": {"_target_": "builtins.dict", "channels": 4},
    "optimizer": {"_target_": "builtins.dict", "params": "$@network", "lr": "@learning_rate"},
    "run_settings": {
        "_target_": "ldseg_monai.bundle.run_settings",
        "restored": ["optimizer"],
        "without": ["network"],
    },
}


def test_settings_are_what_a_checkpoint_restores_and_all_others() -> None:
    found = ConfigParser(CONFIG).get_parsed_content("run_settings")
    assert found["restored"] == {
        "initial_weights": "",
        "learning_rate": 0.1,
        "optimizer#_target_": "builtins.dict",
        "optimizer#lr": "@learning_rate",
        "optimizer#params": "$@network",
    }
    assert {"dataset_dir": "", "seed": 0, "sizes": [1, 2]}.items() <= found["used"].items()
    assert not {"output_dir", "bundle_root", "learning_rate"} & found["used"].keys()


def test_without_a_config_there_are_no_settings() -> None:
    assert run_settings(["optimizer"]) == {"restored": {}, "used": {}}
    assert next_command(".", "out") == ""


def test_next_command_has_what_this_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(settings, "keep", lambda text: said.append(text), raising=False)
    configs = tmp_path / "mine" / "configs"
    configs.mkdir(parents=True)
    (configs / "evaluate.yaml").write_text("{}")
    command = {
        "_target_": "ldseg_monai.bundle.next_command",
        "bundle_root": "@bundle_root",
        "output_dir": "@output_dir",
    }
    keep = {"_target_": "ldseg_monai.bundle.settings.keep", "text": "@next_command"}
    content = {**CONFIG, "next_command": command, "initialize": [keep], "run": ["$@seed"]}
    path = configs / "train.json"
    path.write_text(json.dumps(content))
    monai.bundle.run(
        run_id="run",
        config_file=str(path),
        logging_file=False,
        bundle_root=str(tmp_path / "mine"),
        dataset_dir="my data",
        output_dir="there",
        seed=3,
        initial_weights="some.pt",
    )
    root = tmp_path / "mine"
    assert said == [
        f"python -m monai.bundle run --config_file \"['{path}', '{configs}/evaluate.yaml']\" "
        f"--bundle_root {root} --dataset_dir 'my data' --seed 3 --model_path there/model.pt "
        "--output_dir there/scores --part val"
    ]
