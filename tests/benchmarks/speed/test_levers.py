from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest
import torch
from programs import ROOT, tables

from benchmarks.speed import levers
from benchmarks.speed.workload import Workload
from ldseg_monai.bundle import Bundle


def test_report_has_each_lever_with_and_without(tiny: list[str], tmp_path: Path) -> None:
    levers.main([*tiny, "num_phantoms=1", "--no_memory"])
    (rows,) = tables((tmp_path / "levers.md").read_text())
    assert [row["it"] for row in rows] == [levers.WITH, levers.WITHOUT] * 4
    assert all(row["times with it"] == "1" for row in rows[::2])
    for kept, dropped in zip(rows[::2], rows[1::2], strict=True):
        low, high = map(float, dropped["range of it"].split(" to "))
        seconds, bounds = (
            [float(second) for second in row["range"].split(" to ")] for row in (dropped, kept)
        )
        assert 0.98 * seconds[0] / bounds[1] <= low <= high <= 1.02 * seconds[1] / bounds[0]


@pytest.mark.parametrize("label", [True, False])
def test_label_map_comes_back_to_the_file(label: bool, tmp_path: Path) -> None:
    work = Workload(
        Bundle(ROOT / "bundles" / "ldseg_knee3d"), size=(16, 32, 16), overrides={"num_phantoms": 1}
    )
    bring_back, item = levers.way_back(work, "", str(tmp_path), label)
    item["pred"] = torch.zeros_like(item["pred"])
    item["pred"][1] = 1  # the class that is found everywhere
    found = bring_back(dict(item))["pred"]
    (path,) = (tmp_path / "phantoms_0" / "images").iterdir()
    assert found.dtype == torch.uint8 and found.shape == (1, *nib.load(path).shape)
    assert found.unique().tolist() == [1]


def test_layout_without_the_lever_is_channels_first() -> None:
    work = Workload(Bundle(ROOT / "bundles" / "ldseg_knee3d"), size=(16, 32, 16))
    for layout, first in ((levers.LAYOUTS[0], False), (levers.LAYOUTS[1], True)):
        network = levers.workload.laid_out(work.network(), layout, 3)
        weights = [p for p in network.parameters() if p.ndim == 5 and min(p.shape[1:]) > 1]
        assert weights and all(weight.is_contiguous() == first for weight in weights)
