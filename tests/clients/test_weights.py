"""Where weights go, by the first handler of a training."""

from __future__ import annotations

import torch
from monai.handlers import CheckpointLoader, StatsHandler

from ldseg_monai.clients import loads_weights, weights_path


def test_weights_go_to_the_file_that_a_clients_loader_reads_else_to_output_dir() -> None:
    loader = CheckpointLoader("app/model/model.pt", {"model": torch.nn.Identity()})
    assert loads_weights(loader) and weights_path(loader, "output") == "app/model/model.pt"
    other = StatsHandler()
    assert not loads_weights(other) and weights_path(other, "output") == "output/model.pt"
