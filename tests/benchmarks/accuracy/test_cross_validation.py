from __future__ import annotations

import csv
import math
import shlex
import subprocess
from pathlib import Path
from typing import Any

import fire
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.utils import list_data_collate
from prepared_python import LIKE_SUBPROCESS
from programs import ROOT, overrides, tables
from scipy.stats import ttest_rel, wilcoxon
from small_data import write_cuts

from benchmarks.accuracy import cross_validation
from benchmarks.accuracy.cross_validation import HEADINGS, main
from benchmarks.accuracy.quality import foreground_dice
from ldseg_monai.data.datalist import case_name

BUNDLE = ROOT / "bundles" / "ldseg_hippocampus"
UNET, DYNUNET = "baselines/unet.yaml", "baselines/unet.yaml+baselines/dynunet.yaml"
NAN = math.nan
DICE = {  # of each candidate and fold: the Dice of classes 1 and 2 by case
    ("ldseg_hippocampus", 0): {"a": (0.8, NAN), "b": (0.6, 0.4)},
    ("ldseg_hippocampus", 1): {"c": (1.0, 0.6)},
    ("unet", 0): {"a": (0.7, NAN), "b": (0.6, 0.5)},
    ("unet", 1): {"c": (0.9, 0.4)},
    ("dynunet", 0): {"a": (0.8, NAN), "b": (0.4, 0.6)},
    ("dynunet", 1): {"c": (0.7, 0.9)},
}


def call_main(data: Path, out: Path, *options: str, bundle: Path = BUNDLE) -> None:
    """Run the program on two folds."""
    main(
        [
            str(bundle),
            "--dataset_dir",
            str(data),
            "--out",
            str(out),
            "--set",
            "num_folds=2",
            *options,
        ]
    )


def run_of(command: list[str]) -> dict[str, Any]:
    """What `monai.bundle run` gets of a command line."""
    assert command[1:4] == ["-m", "monai.bundle", "run"]
    arguments: dict[str, Any] = {}
    fire.Fire(
        lambda run_id="run", **values: arguments.update(values, run_id=run_id), command=command[4:]
    )
    return arguments


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of the bundle's runs, which do not happen: evaluations give the scores of `DICE`."""
    kept: list[dict[str, Any]] = []

    def run(command: list[str], **options: Any) -> None:
        kept.append(run_of(command))
        if kept[-1]["run_id"] == "run":
            scores = Path(kept[-1]["output_dir"])
            write_metrics(scores / "metrics.csv", DICE[scores.parts[-3], kept[-1]["fold"]])

    monkeypatch.setattr(cross_validation.subprocess, "run", run)
    return kept


def write_metrics(path: Path, dice: dict[str, tuple[float, float]]) -> None:
    """Write what the evaluation does: half of the Dice as other scores, and its tenfold as distance, none for 0.6."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "class", *HEADINGS])
        for case, values in dice.items():
            for index, value in enumerate(values, start=1):
                distance = NAN if value == 0.6 else 10 * value
                writer.writerow([case, index, value, value / 2, value / 2, value / 2, distance])


def done_by(runs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What was run, and in which folder."""
    return [(run["run_id"], "/".join(Path(run["output_dir"]).parts[-3:])) for run in runs]


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# The whole program

GLAND = ROOT / "bundles" / "ldseg_glas"
TINY = ["amp=false", "max_epochs=1", "cases_per_epoch=2", "batch_size=2", "val_interval=1", "crop_size=[32,32]",
        "window_size=[96,96]", *overrides("ldseg_glas")]  # fmt: skip


def test_weights_of_a_fold_are_trained_without_it_and_scored_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_validation, "subprocess", LIKE_SUBPROCESS)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    data, out = tmp_path / "data", tmp_path / "out"
    write_cuts(data, 2)
    (data / "grade.csv").write_text(
        "name, patient ID\ncase_000, 1\ncase_001, 2\ncase_002, 1\ncase_003, 2\n"
    )
    unet = gland_config(f"{GLAND}/configs/baselines/unet.yaml").get_parsed_content("network_def")
    (out / "unet" / "fold1").mkdir(parents=True)  # trained elsewhere, for no epoch
    torch.save(unet.state_dict(), out / "unet" / "fold1" / "model.pt")
    (out / "unet" / "fold1" / "trained").touch()
    call_main(data, out, "--baseline", UNET, "--folds", "1", "--set", *TINY, bundle=GLAND)
    assert "Epoch[1] Complete" in (out / "ldseg_glas" / "fold1" / "log.txt").read_text()
    assert not (out / "unet" / "fold1" / "log.txt").exists()
    rows = read(out / "cases.csv")
    assert [(row["candidate"], row["case"]) for row in rows] == [
        (name, case) for name in ("ldseg_glas", "unet") for case in ("case_001", "case_003")
    ]
    for name, overlays in {
        "ldseg_glas": [],
        "unet": [f"{GLAND}/configs/baselines/unet.yaml"],
    }.items():
        dice = scored_alone(gland_config(*overlays), data, out / name / "fold1" / "model.pt")
        assert {
            row["case"]: float(row["dice"]) for row in rows if row["candidate"] == name
        } == pytest.approx(dice, abs=0.01)
    summary, comparison = tables((out / "table.md").read_text())
    assert [(row["candidate"], row["folds"], row["class"], row["cases"]) for row in summary] == [
        (name, "1", index, "2") for name in ("ldseg_glas", "unet") for index in ("1", "mean")
    ]
    assert [(row["cases"], row["groups"]) for row in comparison] == [
        ("2", "1")
    ]  # two pictures of one patient


def gland_config(*overlays: str) -> ConfigParser:
    """The bundle's config with the tiny values, which are LDSeg's network's only where there is no overlay."""
    parser = ConfigParser()
    parser.read_config([f"{GLAND}/configs/train.yaml", *overlays])
    values = cross_validation.settings([*TINY, "num_folds=2"])
    parser.update(
        {key: value for key, value in values.items() if not (overlays and "network_def#" in key)}
    )
    return parser


def scored_alone(parser: ConfigParser, data: Path, weights: Path) -> dict[str, float]:
    """Dice of the cases of fold 1, by name, computed without the bundle's evaluation."""
    parser.update({"dataset_dir": str(data), "fold": 1})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    inferer, dice = parser.get_parsed_content("validate#inferer"), {}
    for item in parser.get_parsed_content("validate#dataset"):
        batch = list_data_collate([item])
        with torch.no_grad():
            scores = inferer(batch["image"], network)
        name = case_name(item["image"].meta["filename_or_obj"])
        dice[name] = foreground_dice(scores, batch["label"].as_tensor().long())
    return dice


# What it runs


def test_candidates_are_trained_and_evaluated_by_the_bundles_commands(
    runs: list[dict[str, Any]], tmp_path: Path
) -> None:
    values = [
        "max_epochs=3",
        "amp=true",
        "val_fraction=null",
        "network_def#denoiser#channels=[8,16]",
        "network_def::scheduler::eta=0.5",
    ]
    call_main(tmp_path, tmp_path / "cv", "--baseline", DYNUNET, "--folds", "1", "--set", *values)
    folders = {
        name: str(tmp_path / "cv" / name / "fold1") for name in ("ldseg_hippocampus", "dynunet")
    }
    files = {
        name: [f"{BUNDLE}/configs/{file}" for file in ("train.yaml", *overlays)]
        for name, overlays in (("ldseg_hippocampus", []), ("dynunet", DYNUNET.split("+")))
    }
    common = {
        "num_folds": 2,
        "max_epochs": 3,
        "amp": True,
        "val_fraction": "$None",
        "fold": 1,
        "dataset_dir": str(tmp_path),
    }
    own = {
        "ldseg_hippocampus": {
            "network_def#denoiser#channels": [8, 16],
            "network_def#scheduler#eta": 0.5,
        },
        "dynunet": {},
    }
    expected: list[dict[str, Any]] = []
    for name, folder in folders.items():
        shared = {**common, **own[name]}
        expected.append(
            {**shared, "run_id": "training", "config_file": files[name], "output_dir": folder}
        )
        evaluation = {
            "run_id": "run",
            "config_file": [*files[name], f"{BUNDLE}/configs/evaluate.yaml"],
            "part": "val",
        }
        where = {"output_dir": f"{folder}/scores", "model_path": f"{folder}/model.pt"}
        expected.append({**shared, **evaluation, **where})
    assert runs == expected
    assert runs[0]["amp"] is True
    for folder in folders.values():
        files_there = {
            str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()
        }
        assert files_there == {
            "settings.json",
            "log.txt",
            "trained",
            "scores/log.txt",
            "scores/metrics.csv",
        }


def test_all_folds_are_done_in_turn_and_none_again(
    runs: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_main(tmp_path, tmp_path / "cv", "--baseline", UNET)
    candidates = [f"{name}/fold{fold}" for fold in (0, 1) for name in ("ldseg_hippocampus", "unet")]
    assert done_by(runs) == [
        step
        for folder in candidates
        for step in (("training", f"cv/{folder}"), ("run", f"{folder}/scores"))
    ]
    assert "ldseg predict" not in capsys.readouterr().out  # there are no weights
    for fold in (0, 1):
        (tmp_path / "cv" / "ldseg_hippocampus" / f"fold{fold}" / "model.pt").touch()
    before = (tmp_path / "cv" / "table.md").read_text()
    runs.clear()
    call_main(tmp_path, tmp_path / "cv", "--baseline", UNET)
    assert runs == []
    assert tables((tmp_path / "cv" / "table.md").read_text()) == tables(before)
    weights = [f"{tmp_path}/cv/ldseg_hippocampus/fold{fold}/model.pt" for fold in (0, 1)]
    last = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert last == ["ldseg", "predict", "-m", str(BUNDLE), "-i", "IMAGES", "--ensemble", *weights]


def test_fold_whose_evaluation_stopped_is_evaluated_only(
    runs: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(command: list[str], **options: Any) -> None:
        if run_of(command)["run_id"] == "run":
            raise subprocess.CalledProcessError(1, command)

    with monkeypatch.context() as patch, pytest.raises(subprocess.CalledProcessError):
        patch.setattr(cross_validation.subprocess, "run", stop)
        call_main(tmp_path, tmp_path / "cv", "--folds", "0")
    call_main(tmp_path, tmp_path / "cv", "--folds", "0")
    assert done_by(runs) == [("run", "ldseg_hippocampus/fold0/scores")]


def test_folds_may_be_done_one_by_one_and_the_table_says_which_are_in(
    runs: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    call_main(tmp_path, out, "--baseline", UNET, "--folds", "1")
    assert {row["folds"] for row in tables((out / "table.md").read_text())[0]} == {"1"}
    assert {row["fold"] for row in read(out / "cases.csv")} == {"1"}
    call_main(tmp_path, out, "--folds", "0")  # LDSeg alone
    call_main(tmp_path, out, "--baseline", UNET, "--folds", "1")
    summary, comparison = tables((out / "table.md").read_text())
    assert {(row["candidate"], row["folds"]) for row in summary} == {
        ("ldseg_hippocampus", "0, 1"),
        ("unet", "1"),
    }
    assert [row["cases"] for row in comparison] == ["1"]  # of what both have
    assert len(runs) == 6


@pytest.mark.parametrize("fold", ["0", "1"])
def test_folds_of_other_settings_are_refused_before_any_work(
    fold: str,
    runs: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_main(tmp_path, tmp_path / "cv", "--folds", "1")
    runs.clear()
    with pytest.raises(SystemExit):
        call_main(tmp_path, tmp_path / "cv", "--folds", fold, "--set", "max_epochs=5")
    told = capsys.readouterr().err.splitlines()[-1]
    assert "ldseg_hippocampus/fold1 was made with other settings" in told
    assert runs == [] and not (tmp_path / "cv" / "ldseg_hippocampus" / "fold0").exists()


BAD = {
    "bundle": (["--set", "a=1"], "elsewhere is not a bundle"),
    "no folds": (
        ["--set", "num_folds=None"],
        "num_folds is None; expected a bundle with 2 folds or more",
    ),
    "number of folds": (["--set", "num_folds=1"], "num_folds is 1; expected"),
    "overlay": (
        ["--baseline", "baselines/unet.yaml+baselines/none.yaml"],
        "configs/baselines/none.yaml does not exist",
    ),
    "same name": (["--baseline", UNET, "--baseline", UNET], "there is a candidate 'unet' already"),
    "fold": (["--folds", "0", "2"], "--folds [0, 2]: expected some of 0 to 1"),
    "negative fold": (["--folds", "-1"], "--folds [-1]: expected some of 0 to 1"),
    "no value": (["--set", "max_epochs"], "--set max_epochs: expected KEY=VALUE"),
    "no key": (["--set", "=5"], "--set =5: expected KEY=VALUE"),
    "own key": (["--set", "val_cases=[a]"], "--set val_cases=[a]: expected none of"),
    "unknown key": (["--set", "max_epoch=5"], "--set max_epoch: expected keys of"),
    "data": (["--dataset_dir", "nowhere"], "--dataset_dir nowhere does not exist"),
}
BUNDLES = {"bundle": Path("elsewhere")}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_error_before_any_work(
    case: str, runs: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, message = BAD[case]
    folds = [] if case == "no folds" else ["--set", "num_folds=2"]
    bundle = str(BUNDLES.get(case, BUNDLE))
    with pytest.raises(SystemExit):
        main(
            [
                bundle,
                "--dataset_dir",
                str(tmp_path),
                "--out",
                str(tmp_path / "cv"),
                *folds,
                *options,
            ]
        )
    assert message in capsys.readouterr().err
    assert runs == [] and list(tmp_path.iterdir()) == []


# What it makes of the scores


def of_folds(dice: str, half: str, distance: str) -> dict[str, str]:
    """Cells with the SD of the folds' means."""
    scores = dict.fromkeys(("IoU", "precision", "recall"), half)
    cells = {"Dice": dice, **scores, "HD95": distance}
    return {f"SD of the folds' {heading}": value for heading, value in cells.items()}


@pytest.mark.usefixtures("runs")
def test_table_has_mean_and_deviation_over_the_cases_and_over_the_folds(tmp_path: Path) -> None:
    call_main(tmp_path, tmp_path / "cv")
    (rows,) = tables((tmp_path / "cv" / "table.md").read_text())
    of = {"candidate": "ldseg_hippocampus", "folds": "0, 1"}
    half = ("IoU", "precision", "recall")
    # 0.8, 0.6, 1.0, in the folds 0.7 and 1.0
    first = {
        "cases": "3",
        "Dice": "0.800 ± 0.200",
        "HD95": "9.000 ± 1.414 (of 2)",
        **of_folds("0.212", "0.106", "1.414"),  # distances 8, and 10
    }
    # 0.4 and 0.6, in the folds 0.4 and 0.6
    second = {
        "cases": "2",
        "Dice": "0.500 ± 0.141",
        "HD95": "4.000 ± – (of 1)",
        **of_folds("0.141", "0.071", "–"),
    }
    # 0.8, 0.5, 0.8, in the folds 0.65 and 0.8; distances 8, 4, 10
    both = {
        "cases": "3",
        "Dice": "0.700 ± 0.173",
        "HD95": "7.333 ± 3.055",
        **of_folds("0.106", "0.053", "2.828"),  # distances 6, and 10
    }
    assert rows == [
        {**of, "class": "1", **first, **dict.fromkeys(half, "0.400 ± 0.100")},
        {**of, "class": "2", **second, **dict.fromkeys(half, "0.250 ± 0.071")},
        {**of, "class": "mean", **both, **dict.fromkeys(half, "0.350 ± 0.087")},
    ]


@pytest.mark.usefixtures("runs")
def test_each_baseline_is_compared_with_ldseg_case_by_case(tmp_path: Path) -> None:
    call_main(tmp_path, tmp_path / "cv", "--baseline", UNET, "--baseline", DYNUNET)
    _, comparison = tables((tmp_path / "cv" / "table.md").read_text())
    # LDSeg's 0.8, 0.5, 0.8; UNet's 0.7, 0.55, 0.65: ranks 2 and 3 against 1, so p = 2 * 2 / 8;
    # DynUNet's the same
    assert comparison == [
        {
            "Dice": "ldseg_hippocampus minus unet",
            "cases": "3",
            "mean difference": "+0.0667",
            "p": "0.5",
            "p of t-test": f"{ttest_rel([0.8, 0.5, 0.8], [0.7, 0.55, 0.65]).pvalue:.2g}",
        },
        {
            "Dice": "ldseg_hippocampus minus dynunet",
            "cases": "3",
            "mean difference": "+0.0000",
            "p": "1",
            "p of t-test": "–",  # of differences that are all 0
        },
    ]


@pytest.mark.usefixtures("runs")
def test_cases_have_a_row_a_candidate_fold_case_and_class(tmp_path: Path) -> None:
    call_main(tmp_path, tmp_path / "cv", "--baseline", UNET)
    rows = read(tmp_path / "cv" / "cases.csv")
    assert list(rows[0]) == ["candidate", "fold", "case", "class", *HEADINGS]
    expected = [
        (name, str(fold), case, str(index), str(value))
        for name in ("ldseg_hippocampus", "unet")
        for fold in (0, 1)
        for case, values in DICE[name, fold].items()
        for index, value in enumerate(values, start=1)
    ]
    assert [
        (row["candidate"], row["fold"], row["case"], row["class"], row["dice"]) for row in rows
    ] == expected
    assert all(float(row["iou"]) == float(row["dice"]) / 2 for row in rows if row["dice"] != "nan")


def cases(*dice: float) -> cross_validation.Cases:
    return {("0", str(index)): {"dice": value} for index, value in enumerate(dice)}


def test_comparison_is_the_exact_signed_rank_test_of_the_pairs() -> None:
    ours, theirs = (
        cases(0.5, 0.5, 0.5, 0.5, 0.5, NAN, 0.9),
        cases(0.51, 0.48, 0.46, 0.42, 0.34, 0.1),
    )
    # the smallest difference alone is negative: 2 of the 32 signs of 5 ranks have as small a sum,
    # on either side
    pairs = ([0.5] * 5, [0.51, 0.48, 0.46, 0.42, 0.34])
    expected = {"cases": "5", "mean difference": "+0.0580", "p": "0.12",  # 4 / 32
        "p of t-test": f"{ttest_rel(*pairs).pvalue:.2g}"}  # fmt: skip
    assert cross_validation.comparison(ours, theirs, {}) == expected
    assert cross_validation.comparison(theirs, ours, {}) == {
        **expected,
        "mean difference": "-0.0580",
    }


def test_cases_of_one_patient_are_one_number_to_the_test() -> None:
    ours, theirs = cases(0.9, 0.9, 0.9, 0.5, 0.7), cases(0.8, 0.8, 0.8, 0.4, 0.8)
    groups = {"0": "p1", "1": "p1", "2": "p1", "3": "p2"}
    # of 3 patients two are ahead by 0.1, and the case without one, a group of its own, is behind by
    # as much
    assert cross_validation.comparison(ours, theirs, groups) == {
        "cases": "5", "mean difference": "+0.0600", "groups": "3", "p": f"{wilcoxon([0.1, 0.1, -0.1]).pvalue:.2g}",
        "p of t-test": f"{ttest_rel([0.1, 0.1, -0.1], [0, 0, 0]).pvalue:.2g}",
    }  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_comparison_of_equals_and_of_nothing() -> None:
    equals = {"cases": "2", "mean difference": "+0.0000", "p": "1", "p of t-test": "–"}
    assert cross_validation.comparison(cases(0.5, 0.7), cases(0.5, 0.7), {}) == equals
    assert cross_validation.comparison(cases(0.5), cases(NAN), {}) == {"cases": "0"}
