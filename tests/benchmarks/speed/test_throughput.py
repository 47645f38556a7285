from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import tables

from benchmarks.speed import throughput
from benchmarks.speed.workload import argument_parser, workload_of


def test_parts_add_up_to_the_whole(tiny: list[str], tmp_path: Path) -> None:
    work = workload_of(argument_parser("").parse_args(tiny))
    weights = tmp_path / "model.pt"
    torch.save(work.network().state_dict(), weights)
    tiny[tiny.index("model_path=none")] = f"model_path={weights}"
    throughput.main([tiny[0], "--num", "2", *tiny[1:]])
    text = (tmp_path / "throughput.md").read_text()
    (rows,) = tables(text)
    assert [row["part"] for row in rows] == list(throughput.PARTS)
    seconds = [float(row["seconds"]) for row in rows]
    assert min(seconds) >= 0 and seconds[0] > 0
    assert sum(seconds[:-1]) == pytest.approx(seconds[-1], rel=0.02)
    assert float(rows[-1]["each file"]) == pytest.approx(seconds[-1] / 2, rel=0.02)
    assert text.startswith("# Throughput: ldseg_knee3d\n\n2 files one after the other")
