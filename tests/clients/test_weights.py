"""Where weights go, by the first handler of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.handlers import CheckpointLoader, StatsHandler

from ldseg_monai.clients import loads_weights, start_weights, weights_path
from ldseg_monai.runtime.errors import UserError


def test_weights_go_to_the_file_that_a_clients_loader_reads_else_to_output_dir() -> None:
    loader = CheckpointLoader("app/model/model.pt", {"model": torch.nn.Identity()})
    assert loads_weights(loader) and weights_path(loader, "output") == "app/model/model.pt"
    other = StatsHandler()
    assert not loads_weights(other) and weights_path(other, "output") == "output/model.pt"


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut", b"hello", None])
def test_file_of_a_clients_loader_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    loader = CheckpointLoader(str(path), {"model": torch.nn.Identity()})
    with pytest.raises(UserError, match="model.pt"):
        start_weights(loader, "")
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(UserError, match="model.pt has weights of another network than Identity"):
        start_weights(loader, "")
    torch.save({}, path)
    assert start_weights(loader, "other.pt") == str(path)
    assert start_weights(StatsHandler(), "other.pt") == "other.pt"
