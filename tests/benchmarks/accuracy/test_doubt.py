from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from PIL import Image
from programs import tables
from small_bundles import write_config
from small_data import write_cuts
from small_networks import SMALL

from benchmarks.accuracy import doubt, study
from benchmarks.accuracy.doubt import DOUBTS, Judgment, alike, better, main, measured
from benchmarks.accuracy.paper import Table
from benchmarks.accuracy.uncertainty import Way, dropouts_of
from ldseg_monai.evaluation.temperature import TEMPERATURES, calibration_error
from ldseg_monai.networks.segmenter import DiffusionSegmenter

NAMES = sorted(path.stem for path in DOUBTS.glob("*.yaml"))
BUNDLE = "ldseg_glas"


@pytest.mark.parametrize("name", NAMES)
def test_networks_of_one_name_differ_in_their_seed_alone(name: str) -> None:
    table = Table(DOUBTS / f"{name}.yaml")
    knobs = set(yaml.safe_load(table.bundle.config_file("train.yaml").read_text()))
    assert set(table.budget) <= knobs and table.val_fraction
    dropped, sizes = [], {}
    for network, keys in alike(table, list(table.rows)).items():
        variants = [table.variant(key, Path("out"), table.folds[0]) for key in keys]
        seeds = [variant.pop("seed", 0) for variant in variants]
        assert len(set(seeds)) == len(seeds) and all(one == variants[0] for one in variants)
        config = table.bundle.config("train.yaml", *variants[0].get("overlays", []))
        module = config.get_parsed_content("network_def")
        dropped += [network] * bool(dropouts_of(module))
        sizes[network] = (len(keys), isinstance(module, DiffusionSegmenter))
    assert dropped == ["U-Net with dropout"]
    assert sizes == {"LDSeg": (5, True), "U-Net": (5, False), "U-Net with dropout": (1, False)}


@pytest.fixture
def glands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A folder of data and a file of doubt; trainings note their split and save weights."""
    root = tmp_path / "bundle"
    small = {
        **SMALL[BUNDLE],
        "patients": "",
        "amp": False,
        "crop_size": [32, 32],
        "window_size": [144, 144],
    }
    write_config(root, BUNDLE, "train.yaml", small)
    write_config(root, BUNDLE, "evaluate.yaml", {})
    unet = {"network_def#channels": [4, 8], "network_def#strides": [2]}
    write_config(root, BUNDLE, "baselines/unet.yaml", unet)
    dropout = root / "configs" / "baselines" / "unet_dropout.yaml"
    dropout.write_text("network_def#dropout: 0.3\n")
    (root / "configs" / "metadata.json").write_text("{}")
    overlays = ["baselines/unet.yaml"]
    rows: dict[str, dict[str, Any]] = {}
    for seed in (0, 1):
        rows[f"ldseg_{seed}"] = {"name": "LDSeg", "seed": seed}
        rows[f"unet_{seed}"] = {"name": "U-Net", "seed": seed, "overlays": overlays}
    rows["dropout"] = {"overlays": [*overlays, "baselines/unet_dropout.yaml"]}
    content = {
        "title": "Doubt",
        "about": "About.",
        "bundle": str(root),
        "data": "glas",
        "val_fraction": 0.4,
        "budget": {"max_epochs": 1, "num_folds": 3},
        "folds": [0, 1],
        "rows": rows,
    }
    (tmp_path / "doubts").mkdir()
    (tmp_path / "doubts" / "glands.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.setattr(doubt, "DOUBTS", tmp_path / "doubts")
    write_cuts(tmp_path / "data" / "glas", 2, num=6)
    done: list[str] = []

    def run(command: list[str], **options: Any) -> None:
        values = dict(zip(command[5::2], command[6::2], strict=True))
        folder = Path(values["--output_dir"])
        done.append("/".join(folder.parts[-2:]) + f" {values['--val_cases']}")
        parser = ConfigParser()
        parser.read_config(yaml.safe_load(values["--config_file"]))
        torch.manual_seed(0)
        torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")

    monkeypatch.setattr(study, "subprocess", SimpleNamespace(run=run, STDOUT=None))
    return tmp_path, done


def test_networks_that_are_one_have_no_spread_and_its_probabilities(
    glands: tuple[Path, list[str]],
) -> None:
    root, done = glands
    line = ["glands", "--data", str(root / "data"), "--out", str(root / "out"), "--folds", "0"]
    main([*line, "--num_samples", "2"])
    text = (root / "out" / "doubt.md").read_text()
    rows, goals = tables(text)
    by_way = {(row["network"], row["probabilities"], row["doubt"]): row for row in rows}
    measures = list(rows[0])[3:]
    one, two = by_way["U-Net", "one softmax", "entropy"], ("U-Net", "2 networks, a softmax of each")
    assert [by_way[*two, "entropy"][name] for name in measures] == means(one, measures)
    spread = by_way[*two, "SD"]
    assert (spread["wrong"], spread["right"], spread["AUROC"]) == ("0.000", "0.000", "0.500")
    assert float(by_way["dropout", "2 passes with dropout", "SD"]["wrong"]) > 0
    assert ("LDSeg", "8 views", "SD") in by_way and ("dropout", "8 views", "SD") in by_way
    assert [(row["network"], row["doubt"]) for row in goals] == [
        (row["network"], row["doubt"]) for row in rows
    ]
    (own,) = (
        row for row in goals if row["probabilities"] == "one softmax" and row["network"] == "U-Net"
    )
    assert own["better than U-Net's softmax in"] == "nothing"
    with open(root / "out" / "doubt.csv", newline="") as file:
        cases = list(csv.DictReader(file))
    for network in ("unet_0", "unet_1"):
        dice = [float(case[f"{network}, one softmax: Dice"]) for case in cases]
        assert float(one["Dice"].split()[0]) == pytest.approx(sum(dice) / len(dice), abs=1e-3)
    for column in ("SD", "entropy", "Dice"):
        one_network = [float(case[f"ldseg_0, 2 samples: {column}"]) for case in cases]
        both = [float(case[f"LDSeg, 2 networks, a sample of each: {column}"]) for case in cases]
        assert both == pytest.approx(one_network, abs=1e-5) and min(both) > 0
    assert len(cases) == 2 and "2 cases validated" in " ".join(text.split())
    assert Image.open(root / "out" / "doubt.png").size[0] > 600
    assert len(done) == 5


def means(row: dict[str, str], measures: list[str]) -> list[str]:
    """The means over networks that do not differ; a dash where no temperature fits."""
    cells = [row[name] for name in measures]
    assert {cell.partition(" ± ")[2] for cell in cells} <= {"0.000", ""}
    return [cell.partition(" ± ")[0] for cell in cells]


def zeroed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a network that says the same of every pixel."""
    return {name: torch.zeros_like(value) for name, value in state.items()}


def test_folds_come_together_and_every_seed_has_the_same_validation_cases(
    glands: tuple[Path, list[str]],
) -> None:
    root, done = glands
    line = [
        "glands",
        "--data",
        str(root / "data"),
        "--out",
        str(root / "out"),
        "--num_samples",
        "2",
    ]
    main([*line, "--only", "unet_0", "unet_1"])
    single = ("one softmax", "8 views")
    rows, _ = tables((root / "out" / "doubt.md").read_text())
    before = [row for row in rows if row["probabilities"] in single]
    assert len(before) == 3
    split = {entry.split(" ", 1)[0]: entry.split(" ", 1)[1] for entry in done}
    assert split["unet_0/fold0"] == split["unet_1/fold0"] != split["unet_0/fold1"]
    main([*line, "--folds", "1", "--only", "dropout"])
    rows, _ = tables((root / "out" / "doubt.md").read_text())
    assert {row["network"] for row in rows} == {"U-Net", "dropout"}
    for network in ("unet_0", "unet_1"):  # whose weights are judged already, fold by fold
        for path in (root / "out" / network).rglob("model.pt"):
            torch.save(zeroed(torch.load(path)), path)
    main([*line, "--only"])
    assert len(done) == 5  # nothing is trained again
    rows, _ = tables((root / "out" / "doubt.md").read_text())
    assert {row["network"] for row in rows} == {"U-Net"}  # the other lacks fold 0
    assert [row for row in rows if row["probabilities"] in single] == before
    (spread, _) = (row for row in rows if row["probabilities"] not in single)
    assert spread["wrong"] == "0.000" and spread["Dice"] != before[0]["Dice"].split()[0]
    with open(root / "out" / "doubt.csv", newline="") as file:
        cases = [row["case"] for row in csv.DictReader(file)]
    assert len(cases) == len(set(cases)) == 4  # two of each fold


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "2"], "expected some of"),
        (["--only", "nothing"], "expected some of"),
        (["--only"], "no row is trained"),
        (["--num_samples", "1"], "expected 2 or more"),
    ],
)
def test_arguments_of_nothing_are_refused(
    options: list[str],
    message: str,
    glands: tuple[Path, list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, done = glands
    with pytest.raises(SystemExit):
        main(["glands", "--data", str(root / "data"), "--out", str(root / "out"), *options])
    assert message in capsys.readouterr().err and not done


def pixels(confidence: float, share: float, name: str) -> dict[str, Any]:
    """A case of 1000 pixels, all as sure of the foreground, which a share of them is."""
    label = torch.zeros(1, 10, 100)
    label.flatten()[: round(1000 * share)] = 1
    foreground = torch.full((1, 10, 100), confidence)
    found = {
        "pred_mean": torch.cat([1 - foreground, foreground]),
        "pred_sd": torch.zeros(1, 10, 100),
        "label": label,
    }
    maps: dict[str, Any] = {key: MetaTensor(value) for key, value in found.items()}
    image = MetaTensor(torch.zeros(1, 10, 100), meta={"filename_or_obj": f"{name}.png"})
    return {**maps, "image": image}


def test_each_folds_temperature_is_that_of_its_validation_part() -> None:
    """Right in 4 of 5 where it says 16 of 17: log 16 / log 4, a temperature of 2, mends it.

    That of the other fold is 1 / 2.
    """

    def way(*cases: dict[str, Any]) -> Way:
        return Way("net", "one softmax", lambda: cases, False)

    judgment = Judgment(False)
    judgment.add(way(pixels(16 / 17, 0.8, "a")), way(pixels(16 / 17, 0.8, "b")))
    assert judgment.figures()["entropy"]["ECE, tempered"] == pytest.approx(0, abs=1e-6)
    judgment.add(way(pixels(0.8, 16 / 17, "c")), way(pixels(0.8, 0.9, "d")))
    error = judgment.figures()["entropy"]["ECE, tempered"]
    assert error == pytest.approx((0 + abs(16 / 17 - 0.9)) / 2, abs=1e-3)
    assert judgment.names == ["b", "d"] and 2.0 in TEMPERATURES and 0.5 in TEMPERATURES
    judgment.add(way(pixels(0.8, 1.0, "e")), way(pixels(0.8, 0.9, "f")))  # surer is always better
    assert calibration_error(judgment.tempered) != calibration_error(judgment.tempered)  # NaN


def test_a_row_has_mean_and_deviation_over_the_networks_of_its_name() -> None:
    table = Table(DOUBTS / "glas.yaml")
    sure, unsure = Judgment(False), Judgment(False)
    for judgment, confidence in ((sure, 0.9), (unsure, 0.7)):
        cases = [pixels(confidence, 0.8, "a")]
        way = Way("unet", "one softmax", lambda cases=cases: cases, False)
        judgment.add(way, way)
    doubts = measured(table, {("unet_0", "w"): sure, ("unet_3", "w"): unsure, ("net", "w"): sure})
    both, alone = (one.row() for one in doubts)
    assert (both["network"], alone["network"]) == ("U-Net", "net")
    assert (both["ECE"], alone["ECE"]) == ("0.100 ± 0.000", "0.100")  # 0.9 and 0.7, 0.8 are right
    brier = [2 * (0.8 * (1 - p) ** 2 + 0.2 * p**2) for p in (0.9, 0.7)]
    mean, half = sum(brier) / 2, abs(brier[0] - brier[1]) / 2
    assert both["Brier"] == f"{mean:.3f} ± {half * 2**0.5:.3f}"


def test_better_is_as_far_as_a_table_shows() -> None:
    plain = {"AUROC": 0.9, "ECE, tempered": 0.02, "Brier": 0.1, "rank correlation": -0.5,
        "Dice": 0.8, "Dice of the surest": 0.8}  # fmt: skip
    other = {**plain, "AUROC": 0.9004, "Brier": 0.09, "rank correlation": -0.6, "Dice": 0.7}
    assert better(other, plain) == ["Brier", "rank correlation"]
    assert better(plain, other) == ["Dice"]
