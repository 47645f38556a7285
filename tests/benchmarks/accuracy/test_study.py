from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fire
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, create_workflow
from monai.transforms import Compose
from monai.utils import set_determinism
from prepared_python import LIKE_SUBPROCESS, PREPARED
from programs import ROOT, tables
from small_data import write_cuts
from small_networks import LDSEG_3D, SMALL

from benchmarks.accuracy import study
from benchmarks.accuracy.quality import cell, foreground_dice
from benchmarks.speed import measure
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.ldseg.network import LDSeg

KNEE = {
    "about": "Two steps on knees that are none.",
    "bundle": str(ROOT / "bundles" / "ldseg_knee3d"),
    "image_size": [1, 16, 32, 16],
    "noise": [0.5],
    "common": {
        "amp": False,
        "max_epochs": 1,
        "cases_per_epoch": 2,
        "val_interval": 1,
        "val_fraction": 0.5,
        "spatial_size": [16, 32, 16],
        **SMALL["ldseg_knee3d"],
    },
    "variants": {
        "base": {},
        "v prediction": {"network_def#scheduler#prediction_type": "v_prediction"},
    },
}
FIGURES = ["ceiling", "swapped", "own at T/2", "other at T/2", "K = 1", "K = 2", "K = 10", "noise 0.5", "mean of 8",
           "between cases", "SD wrong", "SD right", "AUROC", "ECE", "SD-Dice r", "M params"]  # fmt: skip
SHARED = {
    "ceiling",
    "swapped",
    "own at T/2",
    "other at T/2",
    "K = 1",
    "between cases",
    "M params",
}  # by what differs in steps alone
COSTS = ["ms", "K = 10 time", "MB"]  # measured anew by each call
STUDIES = sorted((ROOT / "benchmarks" / "accuracy" / "studies").glob("*.yaml"))
LISTED = {path: yaml.safe_load(path.read_text()) for path in STUDIES}


def call_main(content: dict[str, Any], dataset_dir: Path, out: Path, *options: str) -> None:
    """Run the program, in this process, on a study file of this content."""
    out.mkdir(parents=True, exist_ok=True)
    path = out.parent / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        arguments = [
            "study.py",
            str(path),
            "--dataset_dir",
            str(dataset_dir),
            "--out",
            str(out),
            *options,
        ]
        patch.setattr(sys, "argv", arguments)
        study.main()


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> None:
        pytest.fail(f"trains again: {command}")

    monkeypatch.setattr(study.subprocess, "run", run)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of trainings, which are kept instead of run."""
    kept: list[list[str]] = []
    monkeypatch.setattr(study.subprocess, "run", lambda command, **options: kept.append(command))
    return kept


def times(folder: Path) -> dict[str, int]:
    """Time of each file of the variants' folders."""
    files = [path for path in folder.glob("*/*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_cuts(folder, 3)
    return folder


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the program leaves of a study of two variants, each trained for two steps."""
    out = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "subprocess", LIKE_SUBPROCESS)
        patch.setattr(measure, "get_context", lambda method: PREPARED)
        call_main(KNEE, data, out)
    return out


costs = study.costs  # which `measured_once` replaces


@pytest.fixture(autouse=True)
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure time and memory, which takes a process a variant, in the study of `done` alone."""
    cost = dict.fromkeys(COSTS, 1.0)
    monkeypatch.setattr(study, "costs", lambda study, names: dict.fromkeys(names, cost))


# The whole program


def test_each_variant_is_trained_and_scored_in_a_folder_of_its_name(done: Path) -> None:
    assert sorted(path.name for path in done.iterdir()) == [
        "base",
        "table.csv",
        "table.md",
        "v_prediction",
    ]
    for name in ("base", "v_prediction"):
        assert {"trained", "scores.json", "log.txt", "model.pt"} <= {
            path.name for path in (done / name).iterdir()
        }
        assert "Epoch[1] Complete" in (done / name / "log.txt").read_text()


def test_tables_have_a_row_a_variant_and_every_figure(done: Path) -> None:
    text = (done / "table.md").read_text()
    assert "# Study: out" in text and KNEE["about"] in text
    (rows,) = tables(text)
    with open(done / "table.csv", newline="") as file:
        exact = list(csv.DictReader(file))
    assert list(rows[0]) == list(exact[0]) == ["variant", *FIGURES, *COSTS]
    assert (
        [row["variant"] for row in rows]
        == [row["variant"] for row in exact]
        == ["base", "v prediction"]
    )
    for row, numbers in zip(rows, exact, strict=True):
        scores = json.loads((done / row["variant"].replace(" ", "_") / "scores.json").read_text())
        for column in FIGURES:
            assert float(numbers[column]) == pytest.approx(scores[column], nan_ok=True)
        assert all(row[column] == cell(float(numbers[column])) for column in [*FIGURES, *COSTS])
        assert all(
            0 <= scores[column] <= 1 for column in [*FIGURES[:9], "SD wrong", "SD right", "ECE"]
        )
        assert float(numbers["ms"]) > 0 and float(numbers["K = 10 time"]) > 0
    assert exact[0]["K = 2"] != exact[1]["K = 2"]


def test_variant_is_scored_with_its_own_settings_on_the_validation_cases_on_the_grid(
    done: Path, data: Path
) -> None:
    parser = ConfigParser()
    parser.read_config(f"{KNEE['bundle']}/configs/train.yaml")
    parser.update(
        {
            **KNEE["common"],
            "network_def#scheduler#prediction_type": "v_prediction",
            "dataset_dir": str(data),
        }
    )
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(done / "v_prediction" / "model.pt", weights_only=True))
    cases = parser.get_parsed_content("validate#dataset#data")
    assert len(cases) == 2
    load = Compose(parser.get_parsed_content("train#deterministic_transforms"))
    dice = []
    for case in map(load, cases):
        logits = SamplingInferer()(case["image"][None], network)
        dice.append(foreground_dice(logits, case["label"].as_tensor()[None]))
    scores = json.loads((done / "v_prediction" / "scores.json").read_text())
    assert scores["K = 2"] == pytest.approx(sum(dice) / 2, abs=1e-3)
    assert scores["M params"] == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6)


@pytest.mark.usefixtures("no_training")
def test_second_call_does_nothing_again(done: Path, data: Path) -> None:
    def figures() -> list[dict[str, str]]:
        (rows,) = tables((done / "table.md").read_text())
        return [{column: row[column] for column in ["variant", *FIGURES]} for row in rows]

    before, rows = times(done), figures()
    call_main(KNEE, data, done)
    assert times(done) == before
    assert figures() == rows


@pytest.mark.usefixtures("no_training")
def test_only_the_variants_named_are_taken_and_what_was_not_scored_is(
    done: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    (out / "base" / "scores.json").unlink()
    before = times(out)
    call_main(KNEE, data, out, "--only", "v prediction")
    assert [row["variant"] for row in tables((out / "table.md").read_text())[0]] == ["v prediction"]
    assert times(out) == before
    call_main(KNEE, data, out, "--only", "base")
    assert [row["variant"] for row in tables((out / "table.md").read_text())[0]] == [
        "base",
        "v prediction",
    ]
    assert {path for path in times(out) if times(out)[path] != before.get(path)} == {
        "base/scores.json"
    }
    again, first = (
        json.loads((folder / "base" / "scores.json").read_text()) for folder in (out, done)
    )
    for column in FIGURES:
        assert again[column] == pytest.approx(first[column], abs=1e-6, nan_ok=True), column


@pytest.mark.usefixtures("no_training")
def test_what_was_trained_with_other_settings_is_not_taken_for_this(
    done: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    before = times(out)
    changed = {
        **KNEE,
        "variants": {
            **KNEE["variants"],
            "v prediction": {"network_def#scheduler#prediction_type": "epsilon"},
        },
    }
    with pytest.raises(ValueError, match="v_prediction was made with other settings"):
        call_main(changed, data, out)
    assert times(out)["v_prediction/model.pt"] == before["v_prediction/model.pt"]
    call_main(changed, data, out, "--only", "base")


@pytest.mark.usefixtures("no_training")
def test_unknown_variant_is_an_error(
    done: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        call_main(KNEE, data, tmp_path / "out", "--only", "base", "v_prediction")
    assert "['v_prediction']: expected some of ['base', 'v prediction']" in capsys.readouterr().err


@pytest.mark.usefixtures("commands")
def test_what_was_trained_by_another_state_of_the_bundle_is_not_taken_for_this(
    data: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "bundles" / "ldseg_knee3d" / "configs", bundle / "configs")
    content = {**KNEE, "bundle": str(bundle), "variants": {"base": {}}}
    for _ in range(2):
        call_main(content, data, tmp_path / "out", "--train_only")
    configs = bundle / "configs" / "train.yaml"
    text = configs.read_text()
    configs.write_text(text + "# a comment\n")
    call_main(content, data, tmp_path / "out", "--train_only")
    configs.write_text(text.replace("latent_channels: 8", "latent_channels: 2"))
    assert configs.read_text() != text
    with pytest.raises(ValueError, match="base was made with other settings"):
        call_main(content, data, tmp_path / "out", "--train_only")


def test_variant_that_cannot_train_stops_the_program_and_counts_as_untrained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "subprocess", LIKE_SUBPROCESS)
    variants = {"bad": {"network_def#image_encoder#num_head_channels": 7}, "base": {}}
    with pytest.raises(subprocess.CalledProcessError) as caught:
        call_main({**KNEE, "variants": variants}, data, tmp_path / "out")
    assert caught.value.returncode != 0
    assert {path.name for path in (tmp_path / "out" / "bad").iterdir()} == {
        "settings.json",
        "log.txt",
    }
    assert (
        "num_head_channels is 7: expected a divisor of 16"
        in (tmp_path / "out" / "bad" / "log.txt").read_text()
    )


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of trainings, which leave the weights of their start."""
    folders: list[str] = []

    def run(command: list[str], **options: Any) -> None:
        arguments = parsed(command)
        parser = ConfigParser()
        parser.read_config(arguments.pop("config_file"))
        parser.update(arguments)
        torch.manual_seed(0)
        torch.save(
            parser.get_parsed_content("network_def").state_dict(),
            Path(parser["output_dir"]) / "model.pt",
        )
        folders.append(Path(parser["output_dir"]).name)

    monkeypatch.setattr(study.subprocess, "run", run)
    return folders


@pytest.mark.parametrize(
    "order",
    [
        ["base one", "stochastic"],
        ["stochastic", "base one"],
    ],
    ids=["after", "before"],
)
def test_variant_may_share_the_weights_of_another_and_differ_in_its_sampling(
    order: list[str], untrained: list[str], data: Path, tmp_path: Path
) -> None:
    variants = {
        "base one": {},
        "stochastic": {"weights": "base one", "network_def#scheduler#eta": 1.0},
    }
    call_main(
        {**KNEE, "variants": {name: variants[name] for name in order}}, data, tmp_path / "out"
    )
    assert untrained == ["base_one"]
    rows = {row["variant"]: row for row in tables((tmp_path / "out" / "table.md").read_text())[0]}
    assert list(rows) == order
    scores = [
        json.loads((tmp_path / "out" / name / "scores.json").read_text())
        for name in ("base_one", "stochastic")
    ]
    for column in set(FIGURES) - {"SD-Dice r"}:  # of two cases it is 1 or -1
        assert (scores[0][column] == scores[1][column]) == (column in SHARED), column


# Its parts


def test_training_is_the_bundles_command_with_the_variants_overrides(
    commands: list[list[str]], data: Path, tmp_path: Path
) -> None:
    variants = {
        "a/b c": {
            "network_def#denoiser#channels": [32],
            "loss#gamma": 0.5,
            "network_def#scheduler#schedule": "linear",
        },
        "other": {"overlays": ["multi_gpu_train.yaml"], "learning_rate": 0.5, "fold": None},
    }
    call_main({**KNEE, "variants": variants}, data, tmp_path / "out", "--train_only")
    first, second = map(parsed, commands)
    run = {"dataset_dir": str(data), "output_dir": str(tmp_path / "out" / "a_b_c")}
    assert first == {
        **KNEE["common"],
        **variants["a/b c"],
        **run,
        "config_file": [f"{KNEE['bundle']}/configs/train.yaml"],
    }
    assert second["config_file"] == [
        f"{KNEE['bundle']}/configs/{name}" for name in ("train.yaml", "multi_gpu_train.yaml")
    ]
    assert (
        second["learning_rate"] == 0.5 and second["fold"] == "$None"
    )  # MONAI would pass over None
    assert second["spatial_size"] == KNEE["common"]["spatial_size"]
    others = [key for key in second if key.startswith("network_def") or key == "overlays"]
    assert not others  # an overlay's network may have other arguments
    files = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*")
    )
    assert files == [
        f"{name}/{file}"
        for name in ("a_b_c", "other")
        for file in ("log.txt", "settings.json", "trained")
    ]
    assert not (tmp_path / "out" / "table.md").exists()  # nothing is scored
    call_main({**KNEE, "variants": variants}, data, tmp_path / "out", "--train_only")
    assert len(commands) == 2


def parsed(command: list[str]) -> dict[str, Any]:
    """What `monai.bundle run` gets of a command line."""
    assert command[1:5] == ["-m", "monai.bundle", "run", "training"]
    arguments: dict[str, Any] = {}
    fire.Fire(lambda run_id, **values: arguments.update(values), command=command[4:])
    return arguments


@pytest.mark.usefixtures("no_training")
def test_peer_has_a_row_beside_ldseg_with_dashes_for_what_it_lacks(
    data: Path, tmp_path: Path
) -> None:
    (path,) = [path for path in STUDIES if path.stem == "hippocampus"]
    listed = LISTED[path]
    size = {"spatial_size": [32, 40, 32], "val_fraction": 0.5}
    variants = {
        "base": LDSEG_3D,
        "unet": listed["variants"]["unet"],
    }
    content = {
        **listed,
        "bundle": str(ROOT / listed["bundle"]),
        "common": {**listed["common"], **size},
        "image_size": [1, 16, 24, 16],
        "variants": variants,
    }
    for name, variant in variants.items():  # trained elsewhere, for no epoch
        parser = ConfigParser()
        parser.read_config(study.configs(content, variant))
        parser.update(study.overrides(content, variant))
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
        (folder / "trained").touch()
    call_main(content, data, tmp_path / "out")
    ((ldseg, peer),) = tables((tmp_path / "out" / "table.md").read_text())
    assert (ldseg["variant"], peer["variant"]) == ("base", "unet")
    lacking = {column for column in ldseg if peer[column] == "–"}
    assert lacking >= {*FIGURES[:4], "K = 2", "K = 10", "mean of 8", "between cases"}
    assert not lacking & {
        "K = 1",
        "noise 0.5",
        "noise 1",
        "noise 1.5",
        "SD right",
        "ECE",
        "ms",
        "M params",
    }


def test_table_has_the_columns_of_all_rows() -> None:
    text = study.table({"one": {"a": 0.5, "b": math.nan}, "two": {"c": 2.0, "a": 0.25}})
    assert tables(text)[0] == [
        {"variant": "one", "a": "0.500", "b": "–", "c": "–"},
        {"variant": "two", "a": "0.250", "b": "–", "c": "2.000"},
    ]


def test_costs_are_medians_of_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = measure.Memory(peak=3_000_000, increase=2_000_000)

    def compare(builds: Any, rounds: int, **options: Any) -> dict[tuple[str, int], measure.Result]:
        seconds = {2: [1.0, 2.0, 6.0], 10: [5.0, 5.0, 3.0]}
        return {
            key: measure.Result(dict(enumerate(seconds[key[1]])), memory=memory) for key in builds
        }

    monkeypatch.setattr(study.measure, "compare", compare)
    assert costs({"variants": {"one": {}}}, ["one"]) == {
        "one": {"ms": 2000, "K = 10 time": 2.5, "MB": 2}
    }


def test_variant_that_cannot_be_timed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = measure.Result(failure="ValueError: no")
    monkeypatch.setattr(
        study.measure, "compare", lambda builds, *rest, **options: dict.fromkeys(builds, failed)
    )
    with pytest.raises(RuntimeError, match="variant 'one': ValueError: no"):
        costs({"variants": {"one": {}}}, ["one"])


# The studies of the repository


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(ROOT)
    yield
    set_determinism(None)


def plain(value: Any) -> Any:
    """A config without what differs between two runs, and with what may be written in two ways in one."""
    if isinstance(value, dict):
        other = ("dataset_dir", "output_dir", "bundle_root", "_meta_")
        return {key: plain(one) for key, one in value.items() if key not in other}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, str):
        return None if value == "$None" else value.replace("#", "::")
    return value


def scored_config(content: dict[str, Any], name: str) -> ConfigParser:
    return study.parsed(content, content["variants"][name])


EVERY = [
    pytest.param(path, name, id=f"{path.stem}-{name}")
    for path in STUDIES
    for name in LISTED[path]["variants"]
]
TRAINED = [
    one for one in EVERY if "weights" not in LISTED[one.values[0]]["variants"][one.values[1]]
]
SHARING = [one for one in EVERY if one not in TRAINED]


@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's advice on configs of others
@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(("path", "name"), TRAINED)
def test_what_a_listed_variant_trains_is_what_is_scored(
    path: Path, name: str, commands: list[list[str]], tmp_path: Path
) -> None:
    content = LISTED[path]
    study.train(content, content["variants"][name], "somewhere", tmp_path)
    training = create_workflow(run_id="training", logging_file=False, **parsed(commands[0])).parser
    assert plain(training.get()) == plain(scored_config(content, name).get())
    assert training.get_parsed_content("loss") and training.get_parsed_content(
        "train#inferer"
    )  # know their arguments


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(("path", "name"), EVERY)
def test_sizes_of_a_listed_variant_fit_its_network(path: Path, name: str) -> None:
    parser = scored_config(LISTED[path], name)
    network = parser.get_parsed_content("network_def")
    if not isinstance(network, LDSeg):
        return
    sizes = [parser.get(key) for key in ("spatial_size", "crop_size") if key in parser]
    sizes += [LISTED[path]["image_size"][1:]]
    sizes += [step["roi_size"] for step in LISTED[path].get("to_input", []) if "roi_size" in step]
    assert [size for size in sizes if any(side % network.stride for side in size)] == []
    network.encode_label(torch.zeros(1, 1, *sizes[0]))  # in the latent's shape


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(("path", "name"), SHARING)
def test_listed_variant_that_shares_weights_fits_them(path: Path, name: str) -> None:
    own, other = name, LISTED[path]["variants"][name]["weights"]
    networks = [
        scored_config(LISTED[path], one).get_parsed_content("network_def") for one in (own, other)
    ]
    networks[0].load_state_dict(networks[1].state_dict())
    assert networks[0].scheduler.prediction_type == networks[1].scheduler.prediction_type
