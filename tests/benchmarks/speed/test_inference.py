from __future__ import annotations

from pathlib import Path

import pytest
from programs import ROOT, tables

from benchmarks import report
from benchmarks.speed import inference


def test_table_of_a_tiny_run(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--no_memory",
        "--steps",
        "2",
        "4",
        "--only",
        "own",
        "UNet",
        "VNet",
        "PixelDiffusion",
        "--precision",
        "float32",
    ]
    inference.main([*tiny, "network_def#image_encoder#in_channels=3", *options])
    text = (tmp_path / f"inference_{report.processor_kind()}.md").read_text()
    assert text in capsys.readouterr().out
    rows = {(row["network"], row["steps K"], row["precision"]): row for row in tables(text)[0]}

    reference = rows["LDSeg", "2", "float32"]
    assert reference["times LDSeg K = 2"] == "1"
    for row in (
        rows["LDSeg", "4", "float32"],
        rows["UNet", "–", "float32"],
        rows["PixelDiffusion", "1", "float32"],
    ):
        low, high = map(float, row["range of it"].split(" to "))
        seconds = [float(second) for second in row["range"].split(" to ")]
        bounds = [float(second) for second in reference["range"].split(" to ")]
        assert low >= 0.98 * seconds[0] / bounds[1]
        assert high <= 1.02 * seconds[1] / bounds[0]
        assert 0.98 * low <= float(row["times LDSeg K = 2"]) <= 1.02 * high

    one, four = (rows["PixelDiffusion", steps, "float32"] for steps in ("1", "4"))
    assert float(four["seconds"]) == pytest.approx(4 * float(one["seconds"]), rel=0.02)
    assert "one step x 4" in four["remark"]

    assert (
        "out channels should be divisible by in_channels" in rows["VNet", "–", "float32"]["remark"]
    )
    assert rows["VNet", "–", "float32"]["seconds"] == "–"


def test_size_that_a_network_cannot_take_is_padded() -> None:
    assert inference.padding("VNet", (16, 24, 16)) == "padded to 16x32x16"
    assert inference.padding("UNet", (16, 24, 16)) == inference.padding("LDSeg", (1, 1)) == ""


def test_reference_is_there_whatever_is_asked_for(tiny: list[str], tmp_path: Path) -> None:
    inference.main([*tiny, "--no_memory", "--only", "UNet"])
    rows = tables((tmp_path / f"inference_{report.processor_kind()}.md").read_text())[0]
    assert [(row["network"], row["precision"]) for row in rows] == [
        ("LDSeg", "float32"),
        ("UNet", "bfloat16"),
        ("UNet", "float32"),
    ]


def test_bundles_draw_samples_beside_each_other(tmp_path: Path) -> None:
    bundles = [str(ROOT / "bundles" / name) for name in ("ldseg_hippocampus", "cdal_hippocampus")]
    options = [
        "--size",
        "16",
        "24",
        "16",
        "--rounds",
        "1",
        "--no_memory",
        "--only",
        "UNet",
        "--precision",
        "float32",
        "--out",
        str(tmp_path),
        "--set",
        "amp=False",
    ]
    inference.main([bundles[0], *options, "--samples", "1", "2", "--beside", bundles[1]])
    rows = {
        row["network"]: row
        for row in tables((tmp_path / f"inference_{report.processor_kind()}.md").read_text())[0]
    }
    names = [
        f"{name}, {number}"
        for name in ("ldseg_hippocampus", "cdal_hippocampus")
        for number in ("1 sample", "2 samples")
    ]
    assert set(rows) == {"LDSeg", *names, "UNet"}
    assert all(float(rows[name]["seconds"]) > 0 for name in names)
    assert (
        rows[names[0]]["parameters, M"]
        == rows["LDSeg"]["parameters, M"]
        != rows[names[2]]["parameters, M"]
    )


@pytest.mark.gpu
def test_gpu_gives_times_and_its_own_memory(tiny: list[str], tmp_path: Path) -> None:
    inference.main([*tiny, "--device", "cuda", "--only", "UNet"])
    rows = tables((tmp_path / f"inference_{report.processor_kind()}.md").read_text())[0]
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert all(
        0 < float(row["peak memory, MB"]) < 500 for row in rows
    )  # without Python and PyTorch themselves
