from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import ROOT, tables

from benchmarks.speed import normalization
from benchmarks.speed.workload import Workload
from ldseg_monai.bundle import Bundle


@pytest.mark.parametrize(
    ("bundle", "shape"),
    [
        ("ldseg_hippocampus", [4, 16, 40, 56, 44]),
        ("ldseg_glas", [4, 16, 96, 96]),
        ("ldseg_knee3d", [1, 32, 64, 32, 32]),
    ],
)
def test_shape_is_that_of_the_first_features_in_training(bundle: str, shape: list[int]) -> None:
    assert normalization.feature_shape(Workload(Bundle(ROOT / "bundles" / bundle))) == shape


@pytest.mark.parametrize("name", [normalization.OURS, normalization.LAST, normalization.FIRST])
def test_call_trains_the_layer_named_in_its_layout(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = torch.nn.functional.group_norm

    def group_norm(x: torch.Tensor, *args: object) -> torch.Tensor:
        seen.append(x)
        return forward(x, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "group_norm", group_norm)
    normalization.pass_call(name, [2, 16, 4, 6], "cpu")()
    (x,) = seen
    assert x.dtype == torch.bfloat16 and x.is_contiguous() == (name != normalization.LAST)


def test_report_compares_three(tiny: list[str], tmp_path: Path) -> None:
    normalization.main(tiny)
    text = (tmp_path / "normalization.md").read_text()
    (rows,) = tables(text)
    assert [row["normalization"] for row in rows] == [
        normalization.OURS,
        normalization.LAST,
        normalization.FIRST,
    ]
    assert float(rows[0]["times ours"]) == 1 and "1 x 8 x" in text
