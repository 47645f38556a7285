from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import tables

from benchmarks import report
from benchmarks.speed.measure import Memory, Result


def test_columns_agree_with_what_was_measured() -> None:
    result = Result(
        {0: 2.0, 1: 12.0}, variant="channels last", memory=Memory(500_000_000, 300_000_000)
    )
    columns = report.measured(result, Result({0: 1.0, 1: 4.0}), "LDSeg")
    assert columns == {
        "seconds": "7",
        "range": "2 to 12",
        "runs": "2",
        "times LDSeg": "2.5",
        "range of it": "2 to 3",
        "peak memory, MB": "500",
        "of it by the call, MB": "300",
        "remark": "channels last",
    }


def test_steps_multiply_time_and_ratio_and_say_so() -> None:
    columns = report.measured(Result({0: 2.0}), Result({0: 0.5}), "LDSeg", repeats=50)
    assert (columns["seconds"], columns["times LDSeg"], columns["remark"]) == (
        "100",
        "200",
        "one step x 50",
    )


def test_what_failed_has_dashes_and_its_reason() -> None:
    columns = report.measured(
        Result(failure="RuntimeError: no memory"), Result({0: 0.5}), "LDSeg", repeats=50
    )
    assert columns["remark"] == "RuntimeError: no memory"
    assert columns["seconds"] == columns["times LDSeg"] == columns["peak memory, MB"] == report.NONE


def test_table_reads_back() -> None:
    assert tables(report.table([{"a": "1"}, {"a": "2", "b": "3"}])) == [
        [{"a": "1", "b": "–"}, {"a": "2", "b": "3"}]
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.0123"), (12.345, "12.3"), (1234.5, "1234")]
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert report.number(value) == text


def test_head_says_how_to_get_the_report_again_without_a_path_of_this_machine(
    tmp_path: Path,
) -> None:
    argv = ["bundles/ldseg_knee3d", "--dataset_dir", str(tmp_path), "--set", "a=[1, 2]"]
    head = report.header("Title", "About.", "speed.inference", argv, 7)
    assert (
        "`python -m benchmarks.speed.inference bundles/ldseg_knee3d --dataset_dir DIR --set 'a=[1, 2]'`"
        in head
    )
    assert str(tmp_path) not in head
    assert f"torch {torch.__version__}" in head
    assert "seed: 7" in head


def test_numbers_of_an_axis_have_no_exponent() -> None:
    values = [1e-5, 0.01, 0.5, 1, 1e6]
    assert [report.plain(value) for value in values] == ["0.00001", "0.01", "0.5", "1", "1,000,000"]


def test_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    markdown = report.plot(
        tmp_path / "plot.png", {"a": ([1.0, 10.0], [1.0, 2.0])}, "voxels", "seconds"
    )
    assert markdown == "![seconds against voxels](plot.png)\n"
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "held", "kind"),
    [
        ("fpu avx2 avx512f avx512_bf16 amx_bf16", "", "amx_bf16"),
        ("fpu avx2 avx512f avx512_bf16 amx_bf16", "AVX512_CORE_BF16", "avx512_bf16"),
        ("fpu avx2 avx512f", "avx2", "avx2"),
        ("fpu avx2", "", "avx2"),
    ],
)
def test_kind_of_processor_is_what_it_computes_as(
    flags: str, held: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", held)
    monkeypatch.setattr(report, "cpu_flags", flags.split)
    assert report.processor_kind() == kind
