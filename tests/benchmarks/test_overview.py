"""The overview of the results, on files whose figures are known."""

from __future__ import annotations

import json
from pathlib import Path

from bundle_kinds import FOLDER

from benchmarks import report
from benchmarks.accuracy.paper import SECONDS, TABLES, Table, hours_of
from benchmarks.overview import bundle_row, machine_of, methods_rows, read_tables, table_row
from ldseg_monai.bundle import Bundle

HEAD = "# Title\n\n- machine: AMD EPYC (avx2, avx512f), 1 of 2 cores used, load 0.1\n- seed: 0\n\n"


def write(path: Path, *rows: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + report.table(rows))


def test_tables_are_read_as_they_are_written(tmp_path: Path) -> None:
    rows = [{"a": "1", "b c": "x y"}, {"a": report.NONE, "b c": "2 to 3"}]
    path = tmp_path / "file.md"
    path.write_text(HEAD + report.table(rows) + "\nText.\n\n" + report.table([{"d": "4"}]))
    assert list(read_tables(path)) == [*rows, {"d": "4"}]
    assert list(read_tables(tmp_path / "absent.md")) == []
    assert machine_of(path) == "AMD EPYC (avx512f), cores: 1"


def test_a_bundle_s_row_is_of_its_own_steps(tmp_path: Path) -> None:
    bundle = Bundle(FOLDER / "ldseg_glas")
    assert bundle_row(bundle, tmp_path) == {"bundle": "ldseg_glas"}
    own = {"network": "LDSeg", "precision": "float32", "parameters, M": "2.0"}
    others = {**own, "network": "UNet", "steps K": report.NONE, "seconds": "7"}
    measured = [{**own, "steps K": steps, "seconds": steps + ".5"} for steps in ("1", "2", "10")]
    write(tmp_path / "inference_avx2.md", others, *measured)
    write(tmp_path / "memory.md", {"size": "9x9", "peak memory, MB": "11"})
    write(
        tmp_path / "files.md", {"step": "1 Load", "seconds": "3"}, {"step": "total", "seconds": "4"}
    )
    row = bundle_row(bundle, tmp_path)
    assert row["network, s"] == "2.5" and row["machine"] == "AMD EPYC (avx512f), cores: 1"
    assert row["file to file, s"] == "4" and row["peak memory, MB"] == "11"
    assert row["of an image of"] == "9x9"


def test_hours_are_of_all_folds_and_of_what_a_row_goes_on_from(tmp_path: Path) -> None:
    table = Table(TABLES / "ldseg_2.yaml")
    table.folds = [0, 1]
    assert table.rows["lsegdiff"]["after"] == "lsegdiff_1"
    for key, seconds in (("ldseg", 3600), ("lsegdiff", 1800), ("lsegdiff_1", 900)):
        assert hours_of(table, key, tmp_path) == report.NONE
        for fold in table.folds:
            folder = tmp_path / key / f"fold{fold}"
            folder.mkdir(parents=True)
            (folder / SECONDS).write_text(json.dumps(seconds))
    assert float(hours_of(table, "ldseg", tmp_path)) == 2
    assert float(hours_of(table, "lsegdiff", tmp_path)) == 2 * (1800 + 900) / 3600


def test_a_table_s_row_adds_what_the_results_have(tmp_path: Path) -> None:
    table = Table(TABLES / "ldseg_5.yaml")
    row = table_row(table, tmp_path)
    assert row["rows in the results"] == row["hours"] == report.NONE
    assert row["steps"] == str(4 * 400) and row["rows"] == "4"
    done = [{"parameters, M": "2.0", "hours": "0.5"}, {"parameters, M": "1.0", "hours": "–"}]
    write(tmp_path / "ldseg_glas" / "ldseg_5.md", *done, {"parameters, M": "not trained"})
    row = table_row(table, tmp_path)
    assert row["rows in the results"] == "2" and row["hours"] == "0.5 for 1 rows"


def test_methods_of_all_tables_are_in_one(tmp_path: Path) -> None:
    tables = [Table(TABLES / f"{name}.yaml") for name in ("ldseg_1", "ldseg_2", "ldseg_5")]
    assert [table.subject for table in tables] == ["hearts", "glands", ""]
    assert methods_rows(tables, tmp_path) == []
    own = {"steps": "640", "K": "2"}
    write(
        tmp_path / "ldseg_echo" / "ldseg_1.md",
        {"method": "LDSeg", **own, "Dice cavity": "0.9 ± 0.1", "Dice mean": "0.853 ± 0.052"},
        {
            "method": "U-Net",
            **own,
            "K": report.NONE,
            "Dice cavity": "0.8",
            "Dice mean": "0.864 ± 0",
        },
        {"method": "V-Net", "steps": report.NONE, "K": report.NONE},  # not trained
        {"method": "Paper (fold 0)", **own, "steps": "200", "Dice mean": "0.453 ± 0.068"},
    )
    gland = {"Dice gland": "0.822 ± 0.063", "published Dice": "0.91"}
    for name in ("ldseg_2", "ldseg_5"):
        write(tmp_path / "ldseg_glas" / f"{name}.md", {"method": "LDSeg", **own, **gland})
    hearts, glands = "hearts, 640 steps", "glands, 640 steps"
    assert methods_rows(tables, tmp_path) == [
        {"method": "LDSeg", hearts: "0.853", glands: "**0.822**"},
        {"method": "Paper", hearts: "0.453 (fold 0, 200 steps)", glands: report.NONE},
        {"method": "U-Net", hearts: "**0.864**", glands: report.NONE},
    ]
