from __future__ import annotations

from pathlib import Path

import torch
from programs import tables

from benchmarks.speed import convolutions, workload


def test_both_ways_segment_alike(tiny: list[str]) -> None:
    work = workload.workload_of(workload.argument_parser("").parse_args(tiny))
    ours, other = (
        convolutions.call_of(work, name)() for name in (convolutions.OURS, convolutions.PYTORCH)
    )
    torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-4)


def test_report_compares_two(tiny: list[str], tmp_path: Path) -> None:
    convolutions.main(tiny)
    (rows,) = tables((tmp_path / "convolutions.md").read_text())
    assert [row["convolutions"] for row in rows] == [convolutions.OURS, convolutions.PYTORCH]
    assert float(rows[0]["times ours"]) == 1
