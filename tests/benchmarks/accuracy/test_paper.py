"""The papers' tables: their files, and what the program writes of scores that are known."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from prepared_python import LIKE_SUBPROCESS
from small_data import write_cuts
from small_networks import SMALL

from benchmarks.accuracy import cross_validation, paper, study
from benchmarks.accuracy.cross_validation import HEADINGS
from benchmarks.accuracy.experiment import Experiment, name_of
from benchmarks.accuracy.paper import TABLES, Table, errors_on, main, pooled_cases
from ldseg_monai.bundle import Bundle
from ldseg_monai.evaluation.scores import COUNTS

NAMES = sorted(path.stem for path in TABLES.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_table_name_overlays_and_knobs_of_the_bundle(name: str) -> None:
    table = Table(TABLES / f"{name}.yaml")
    knobs = set(yaml.safe_load(table.bundle.config_file("train.yaml").read_text()))
    assert set(table.budget) <= knobs
    for key in table.rows:
        row = table.rows[key]
        variant = table.variant(key, Path("out"), table.folds[0])
        for overlay in variant.pop("overlays", []):
            assert table.bundle.config_file(overlay).is_file()
        assert set(variant) - {"initial_weights"} <= knobs, key
        assert len(row.get("published", [])) in (0, len(table.columns))
        assert row.get("cited") or key in table.trained()
    for members in table.pooled.values():
        assert set(members) <= set(table.bundle.class_names)


def test_a_table_with_unknown_entries_or_rows_is_refused(tmp_path: Path) -> None:
    content = yaml.safe_load((TABLES / "ldseg_5.yaml").read_text())
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump({**content, "colour": 1}))
    with pytest.raises(ValueError, match=r"has \['colour'\]"):
        Table(path)
    path.write_text(yaml.safe_dump({**content, "scores": ["dice", "hd95"]}))
    with pytest.raises(ValueError, match="expected some of"):
        Table(path)
    content["rows"]["ldseg"]["after"] = "nothing"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="comes after nothing"):
        Table(path)


def metrics(path: Path, counts: dict[str, list[tuple[int, int, int]]]) -> None:
    """Write what evaluate.yaml does, of overlap, prediction and label of each case's classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "class", *HEADINGS, *COUNTS])
        for case, classes in counts.items():
            for index, (both, found, true) in enumerate(classes, start=1):
                dice = 2 * both / (found + true)
                scores = [dice, dice / (2 - dice), both / found, both / true, 1.0]
                writer.writerow([case, index, *scores, both, found, true])


COUNTS_OF = {
    "ldseg": {"a": [(80, 100, 100), (5, 10, 10)], "b": [(90, 100, 100), (10, 10, 10)]},
    "unet": {"a": [(90, 100, 100), (5, 10, 10)], "b": [(95, 100, 100), (10, 10, 10)]},
}


@pytest.fixture
def knees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A folder with a table of two methods and a cited one, whose runs score by `COUNTS_OF`."""
    content = {
        "title": "Knees",
        "about": "About.",
        "bundle": "ldseg_knee3d",
        "data": "knee",
        "budget": {"max_epochs": 2},
        "published": ["Dice FC"],
        "pooled": {"FC+TC": [1, 2]},
        "rows": {
            "ldseg": {"name": "LDSeg", "published": [0.96]},
            "unet": {"overlays": ["baselines/unet.yaml"]},
            "swin": {"name": "Swin-UNet", "cited": True, "published": [0.85]},
        },
    }
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "knees.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.setattr(paper, "TABLES", tmp_path / "tables")
    write_cuts(tmp_path / "data" / "knee", 3, num=4)
    done: list[str] = []

    def run(command: list[str], **options: Any) -> None:
        folder = Path(command[command.index("--output_dir") + 1])
        done.append("/".join(folder.relative_to(tmp_path / "out").parts))
        if folder.name == "scores":
            metrics(folder / "metrics.csv", COUNTS_OF[folder.parts[-3]])

    for module in (study, cross_validation):
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run, STDOUT=None))
    return tmp_path, done


def table_rows(text: str, number: int = 0) -> list[dict[str, str]]:
    """The rows of the first table of a Markdown text, or of a later one."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    lines = blocks[number].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_scores_differences_and_published_figures_are_written(
    knees: tuple[Path, list[str]],
) -> None:
    root, _ = knees
    out = root / "out"
    main(["knees", "--data", str(root / "data"), "--out", str(out)])
    ldseg, unet, swin = table_rows((out / "table.md").read_text())
    assert ldseg["method"] == "LDSeg" and ldseg["published Dice FC"] == "0.96"
    assert ldseg["K"] == "2" and unet["K"] == "–"
    assert ldseg["steps"] == unet["steps"] == "60"  # two epochs of 30 volumes, one at a time
    assert ldseg["Dice femur"].startswith("0.850") and unet["Dice femur"].startswith("0.925")
    assert ldseg["Dice tibia"].startswith("0.750")
    pooled = [2 * 85 / 220, 2 * 100 / 220]
    assert ldseg["Dice FC+TC"].startswith(f"{sum(pooled) / 2:.3f}")
    assert unet["difference"] == "+0.0375"  # of the classes' mean, the other's minus the first's
    assert "FC+TC: the voxels of femur and tibia are added up" in (out / "table.md").read_text()
    assert swin == {**dict.fromkeys(swin, "–"), "method": "Swin-UNet",
        "parameters, M": "cited only", "published Dice FC": "0.85"}  # fmt: skip
    rows = list(csv.DictReader((out / "cases.csv").open()))
    assert [(row["method"], row["case"], row["class"]) for row in rows][:2] == [
        ("ldseg", "a", "1"), ("ldseg", "a", "2")]  # fmt: skip


def test_what_is_done_is_not_done_again_and_other_rows_wait(
    knees: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, done = knees
    out = root / "out"
    main(["knees", "--data", str(root / "data"), "--out", str(out), "--only", "ldseg"])
    assert done == ["ldseg/fold0", "ldseg/fold0/scores"]
    begun, scored, ended = capsys.readouterr().err.splitlines()
    log = out / "ldseg" / "fold0" / "log.txt"
    assert begun.startswith(f"ldseg, fold 0: training, 2 epochs; log: {log}; when stopped")
    assert log.exists()
    assert scored == "ldseg, fold 0: scoring" and ended.startswith("ldseg, fold 0: done, ")
    assert table_rows((out / "table.md").read_text())[1]["parameters, M"] == "not trained"
    main(["knees", "--data", str(root / "data"), "--out", str(out)])
    assert done[2:] == ["unet/fold0", "unet/fold0/scores"]
    assert {line.split(",")[0] for line in capsys.readouterr().err.splitlines()} == {"unet"}


def test_methods_of_an_earlier_run_are_compared_with(knees: tuple[Path, list[str]]) -> None:
    root, done = knees
    line = ["knees", "--data", str(root / "data"), "--out"]
    main([*line, str(root / "out")])
    whole = (root / "out" / "table.md").read_text()
    earlier = root / "out" / "cases.csv"
    steps = root / "steps.csv"
    steps.write_text("method,K,number of case,dice\nLDSeg,1,0,0.25\nLDSeg,1,1,0.75\n")
    shutil.copy(earlier, root / "earlier.csv")
    shutil.rmtree(root / "out")
    done.clear()
    files = [str(root / "earlier.csv"), str(steps)]
    main([*line, str(root / "out"), "--only", "unet", "--earlier", *files])
    text = (root / "out" / "table.md").read_text()
    assert done == ["unet/fold0", "unet/fold0/scores"]
    rows, all_rows = table_rows(text), table_rows(whole)
    hours = [row.pop("hours", "") for row in rows]
    assert hours[0] == "–" and float(hours[1]) > 0  # an earlier run's are not known
    assert float(all_rows[0]["hours"]) > 0
    for row in all_rows:
        row.pop("hours", "")
    assert rows == all_rows
    assert "earlier run of this table: LDSeg." in text
    assert len((root / "out" / "cases.csv").read_text().splitlines()) == 9
    table = Table(paper.TABLES / "knees.yaml")
    table.steps = [1]
    paper.run_sweep(paper.STEPS, table.steps, table, [], "", root / "out", "", steps)
    assert table_rows((root / "out" / "steps.md").read_text()) == [
        {"method": "LDSeg", "K = 1": "0.500"}
    ]


def test_a_row_may_have_fewer_folds_than_the_table(knees: tuple[Path, list[str]]) -> None:
    root, done = knees
    path = paper.TABLES / "knees.yaml"
    content = yaml.safe_load(path.read_text())
    content["folds"], content["rows"]["unet"]["folds"] = [0, 1], [1]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    main(["knees", "--data", str(root / "data"), "--out", str(root / "out")])
    assert [name for name in done if name.startswith("unet")] == [
        "unet/fold1", "unet/fold1/scores"]  # fmt: skip
    (ldseg,) = table_rows((root / "out" / "table.md").read_text(), 1)  # over the folds
    assert ldseg.pop("method") == "LDSeg" and set(ldseg.values()) == {"0.000"}  # the same in both
    assert {"Dice femur", "IoU femur", "IoU mean", "Dice FC+TC"} <= set(ldseg)
    first, second, _ = table_rows((root / "out" / "table.md").read_text())
    assert first["method"] == "LDSeg" and second["method"] == "unet (fold 1)"


def test_folds_of_an_earlier_run_complete_a_row(knees: tuple[Path, list[str]]) -> None:
    root, done = knees
    path = paper.TABLES / "knees.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "folds": [0, 1]}, sort_keys=False))
    line = ["knees", "--data", str(root / "data"), "--out", str(root / "out")]
    main(line)
    whole = (root / "out" / "cases.csv").read_text()
    (root / "earlier.csv").write_text(whole)
    shutil.rmtree(root / "out" / "unet" / "fold0")
    main([*line, "--only", "--earlier", str(root / "earlier.csv")])
    assert (root / "out" / "cases.csv").read_text() == whole
    text = (root / "out" / "table.md").read_text()
    assert "Of an earlier run of this table: unet (fold 0)." in text
    assert table_rows(text)[1]["method"] == "unet"  # both folds: none is named as missing


def test_a_row_may_be_validated_in_fewer_steps_than_it_is_scored(
    knees: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = knees
    path = paper.TABLES / "knees.yaml"
    content = yaml.safe_load(path.read_text())
    content["rows"] = {"ldseg": {"num_inference_steps": 7, "validated_in": 1}}
    path.write_text(yaml.safe_dump(content))
    steps = {}

    def run(command: list[str], **options: Any) -> None:
        folder = Path(command[command.index("--output_dir") + 1])
        steps[folder.name] = command[command.index("--num_inference_steps") + 1]
        metrics(folder / "metrics.csv", COUNTS_OF["ldseg"])

    for module in (study, cross_validation):
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run, STDOUT=None))
    main(["knees", "--data", str(root / "data"), "--out", str(root / "out")])
    assert steps == {"fold0": "1", "scores": "7"}
    (row,) = table_rows((root / "out" / "table.md").read_text())
    assert row["K"] == "7"
    path.write_text(yaml.safe_dump({**content, "val_fraction": 0.1}))
    with pytest.raises(ValueError, match="ldseg has validated_in, but its validation chooses"):
        Table(path)


def test_each_score_has_its_deviation_over_the_folds() -> None:
    cases = {("0", "a"): 0.8, ("0", "b"): 0.6, ("1", "c"): 0.9, ("1", "d"): math.nan}
    scores = {case: {"dice": value, "recall": value / 2} for case, value in cases.items()}
    cells = paper.fold_cells("femur", scores, ["dice", "recall"])
    half = 0.2 / 2**0.5  # SD of the folds' means 0.7 and 0.9
    assert cells == {"Dice femur": f"{half:.3f}", "recall femur": f"{half / 2:.3f}"}
    assert paper.score_cells("femur", scores, ["recall"]) == {"recall femur": "0.383 ± 0.076"}


def test_a_three_way_split_scores_what_neither_trained_nor_validated(
    knees: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = knees
    path = paper.TABLES / "knees.yaml"
    content = yaml.safe_load(path.read_text())
    content |= {"val_fraction": 0.34, "marks": {"*": "told."}}
    content["rows"]["swin"]["mark"] = "*"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    lines: list[dict[str, str]] = []

    def run(command: list[str], **options: Any) -> None:
        given = command[command.index("--config_file") :]
        lines.append(dict(zip(given[::2], given[1::2], strict=True)))
        folder = Path(lines[-1]["--output_dir"])
        if folder.name == "scores":
            metrics(folder / "metrics.csv", COUNTS_OF[folder.parts[-3]])

    monkeypatch.setattr(study, "subprocess", SimpleNamespace(run=lambda line, **options: run(
        ["--config_file", *line[line.index("--config_file") + 1 :]], **options), STDOUT=None))  # fmt: skip
    monkeypatch.setattr(cross_validation, "subprocess", study.subprocess)
    main(["knees", "--data", str(root / "data"), "--out", str(root / "out")])
    table = Table(path)
    table.hold_back(str(root / "data" / "knee"))
    (test,) = table.test_cases[0]
    assert len(lines) == 4 and sorted(sum(table.test_cases.values(), [])) == [
        f"case_{index:03d}" for index in range(4)]  # fmt: skip
    for line in lines:
        assert line["--test_cases"] == f"['{test}']" and line["--fold"] == "$None"
        assert line["--val_fraction"] == "0.34"
    assert [line.get("--part") for line in lines] == [None, "test", None, "test"]
    config = study.parsed(table.plan(0), {}, dataset_dir=str(root / "data" / "knee"))
    split = config.get_parsed_content("split")
    assert [len(split.part(part)) for part in ("train", "val", "test")] == [2, 1, 1]
    text = (root / "out" / "table.md").read_text()
    assert "the epoch was chosen on a part of 34% of the others" in text and "* told." in text
    assert table_rows(text)[2]["published Dice FC"] == "0.85*"
    content["rows"]["swin"]["mark"] = "+"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="swin has the mark"):
        Table(path)


def test_wrong_names_are_refused(
    knees: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = knees
    for wrong, told in (
        (["--data", str(root)], "has no folder knee"),
        (["--data", str(root / "data"), "--only", "swin"], "expected some of"),
    ):
        with pytest.raises(SystemExit):
            main(["knees", *wrong, "--out", str(root / "out")])
        assert told in capsys.readouterr().err


def test_a_row_that_comes_after_another_starts_from_its_weights() -> None:
    table = Table(TABLES / "ldseg_2.yaml")
    variant = table.variant("lsegdiff", Path("/out"), 3)
    assert variant["initial_weights"] == "/out/lsegdiff_1/fold3/model.pt"
    assert "after" not in variant and "published" not in variant


def test_pooled_scores_are_of_the_classes_named() -> None:
    rows = [
        {"fold": "0", "case": "a", "class": str(index), **dict(zip(COUNTS, counts, strict=True))}
        for index, counts in enumerate([(8, 10, 10), (100, 100, 100), (1, 2, 2)], start=1)
    ]
    assert pooled_cases(rows, [1, 3])["0", "a"]["dice"] == pytest.approx(18 / 24)


def test_errors_have_their_colors(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4, 3), 100, np.uint8)).save(tmp_path / "a.png")
    pred, label = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)  # (1, columns, rows)
    pred[0, 0], label[0, 0] = 1, 1  # found
    pred[0, 1], label[0, 1] = 1, 2  # confused
    label[0, 2, 0] = 1  # missed
    pred[0, 3, 0] = 2  # taken in error
    image = SimpleNamespace(meta={"filename_or_obj": str(tmp_path / "a.png")})
    picture, wrong = errors_on({"image": image, "pred": pred, "label": label})
    assert wrong.sum() == 6 and not wrong[:, 0].any() and wrong[:, 1].all()
    assert picture.shape == (4, 4, 3)
    share = paper.STRENGTH
    for place, color in (
        ((0, 0), paper.FOUND), ((0, 1), paper.CONFUSED), ((0, 2), paper.MISSING),
        ((0, 3), paper.FALSE),
    ):  # fmt: skip
        assert np.allclose(picture[place], share * np.array(color), atol=1)
    assert (picture[3, 2] == 0).all()


def test_zoom_is_on_the_window_with_the_most_errors() -> None:
    one, other = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    one[2:4, 20:23] = other[3:6, 21:24] = True  # together in rows 2 to 5, columns 20 to 23
    one[15, 1:6] = True
    rows, columns = paper.most_wrong([one, other], share=0.2)
    assert rows == slice(2, 6) and columns.start <= 20 and columns.stop >= 24
    assert columns.stop - columns.start == 6


def test_states_are_drawn_from_label_to_noise_and_back(tmp_path: Path) -> None:
    write_cuts(tmp_path, 2, num=3)
    small = dict(SMALL["ldseg_glas"]) | {
        "dataset_dir": str(tmp_path),
        "patients": "",
        "part": "all",
    }
    small |= {"crop_size": [32, 32], "window_size": [96, 96], "num_samples": 1}
    config = Bundle.find("ldseg_glas").config("train.yaml", **small)
    torch.save(config.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    path = str(tmp_path / "model.pt")
    method = Experiment(Bundle.find("ldseg_glas"), (), path, **small)
    forward, reverse = paper.processes(method, 1)
    assert [title for title, _ in forward] == [
        "label", *[f"t = {number}" for number in (0, 250, 500, 750, 1000)]]  # fmt: skip
    assert [title for title, _ in reverse] == ["t = 1000", "t = 850", "t = 0", "found"]
    label = method.on_grid(method.dataset.data[1])["label"][0].T > 0
    drawn = forward[0][1]
    assert (drawn[label] == 255).all() and (drawn[~label] == 128).all()
    shape = method.network.noise_shape(method.dataset[1]["image"][None])
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    at_the_end = (torch.from_numpy(forward[-1][1]) / 127.5 - 1) * paper.SPREAD
    wanted = noise[0, :3].clamp(-paper.SPREAD, paper.SPREAD).permute(2, 1, 0)
    assert torch.allclose(at_the_end, wanted, atol=0.02)  # nothing is left of the label
    flat = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 2, 4, 5)  # of a volume
    picture = paper.state_picture(flat)
    assert picture.shape == (4, 2, 3) and picture[0, 0].tolist() == [128, 178, 230]


def test_noise_of_a_table_is_on_the_image(tmp_path: Path) -> None:
    write_cuts(tmp_path, 2, num=2)
    small = {**SMALL["ldseg_glas"], "dataset_dir": str(tmp_path), "patients": "", "part": "all"}
    small |= {"crop_size": [32, 32], "window_size": [96, 96], "num_samples": 1, "amp": False}
    config = Bundle.find("ldseg_glas").config("train.yaml", **small)
    torch.save(config.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    method = Experiment(Bundle.find("ldseg_glas"), (), str(tmp_path / "model.pt"), **small)
    seen, inferer = [], method.inferer
    method.inferer = lambda image, network: (seen.append(image), inferer(image, network))[1]
    for sigma in (0.0, 0.1):
        assert list(paper.NOISE.dice(method, sigma)) == [name_of(method.case(i)) for i in (0, 1)]
    clean, noisy = seen[0], seen[4]  # after two dice and two names
    assert (noisy - clean).std().item() == pytest.approx(0.1 * 2, rel=0.05)  # from -1 to 1


@pytest.mark.slow
def test_a_table_is_trained_scored_and_drawn(tmp_path: Path, monkeypatch) -> None:
    budget = {"max_epochs": 1, "val_interval": 1, "num_samples": 1, "crop_size": [32, 32],
        "amp": False, "patients": "", "cases_per_epoch": 2, "batch_size": 2,
        "window_size": [96, 96]}  # fmt: skip
    content = {
        "title": "Glands",
        "about": "About.",
        "bundle": "ldseg_glas",
        "data": "glas",
        "budget": budget,
        "val_fraction": 0.25,
        "steps": [1, 2],
        "sigmas": [0.0, 0.1],
        "rows": {"ldseg": dict(SMALL["ldseg_glas"])},
    }
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "glands.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(paper, "TABLES", tmp_path / "tables")
    for module in (study, cross_validation):
        monkeypatch.setattr(module, "subprocess", LIKE_SUBPROCESS)
    write_cuts(tmp_path / "data" / "glas", 2, num=5)
    out = tmp_path / "out"
    main(["glands", "--data", str(tmp_path / "data"), "--out", str(out), "--pictures", "1"])
    (row,) = table_rows((out / "table.md").read_text())
    (curve,) = table_rows((out / "steps.md").read_text())
    (noise,) = table_rows((out / "noise.md").read_text())
    steps = json.loads((out / "ldseg" / "fold0" / "steps.json").read_text())
    trained = json.loads((out / "ldseg" / "fold0" / "model_cases.json").read_text())
    scored = list(csv.DictReader((out / "ldseg" / "fold0" / "scores" / "metrics.csv").open()))
    names = {case["case"] for case in trained["cases"]}
    assert len(names) == 3 and len(scored) == 1  # and one chose the epoch
    assert scored[0]["case"] not in names
    assert steps["2"][scored[0]["case"]] == pytest.approx(float(scored[0]["dice"]), abs=1e-4)
    assert curve["K = 2"] == row["Dice gland"].split(" ")[0] == noise["sigma = 0"]
    assert noise["sigma = 0.1"] != noise["sigma = 0"]
    for name in (
        "methods",
        "methods_zoomed",
        "processes",
        "steps_masks",
        "noise_masks",
        "steps",
        "noise",
    ):
        assert Image.open(out / f"{name}.png").size[0] > 100
