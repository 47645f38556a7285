from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from programs import tables

from benchmarks.speed import views
from benchmarks.speed.workload import argument_parser, workload_of
from ldseg_monai.networks import EnsembleSegmenter


def test_each_candidate_calls_what_its_name_says(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = workload_of(argument_parser("").parse_args(tiny))
    seen: list[tuple[int, tuple[int, ...]]] = []

    class Recorded(views.SamplingInferer):
        def __call__(self, image: torch.Tensor, network: Any) -> torch.Tensor:
            networks = len(network.networks) if isinstance(network, EnsembleSegmenter) else 1
            seen.append((networks, len(self.views(image.ndim - 2)), self.num_samples))
            return super().__call__(image, network)

    label = torch.zeros(1, 4, 5, 6, dtype=torch.uint8)
    monkeypatch.setattr(views, "SamplingInferer", Recorded)
    chosen = views.candidates(work, 3, label)
    for builds in chosen.values():
        builds[""]()()
    assert list(chosen)[1:5] == ["2 samples", "2 views", "3 networks", "3 networks, 2 views"]
    assert seen == [(1, 1, 1), (1, 1, 2), (1, 2, 2), (3, 1, 3), (3, 2, 6)]


def test_pieces_are_dropped_as_the_names_say() -> None:
    label = torch.zeros(1, 30, 30, dtype=torch.uint8)
    label[0, :12, :12], label[0, 20:25, 20:25] = 1, 1
    for smallest, largest in ((views.SMALLEST, ()), (1, [1])):
        (left,) = views.pieces_call(label, smallest, largest)().values()
        assert left.sum() == 144


def test_table_of_a_tiny_run(tiny: list[str], tmp_path: Path) -> None:
    views.main([*tiny, "--no_memory", "--networks", "2"])
    (rows,) = tables((tmp_path / "views_time.md").read_text())
    assert [row["what"] for row in rows][0] == views.ONE and len(rows) == 7
    assert rows[0]["times one sample"] == "1" and all(float(row["seconds"]) > 0 for row in rows)
