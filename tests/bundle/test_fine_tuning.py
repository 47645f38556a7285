from __future__ import annotations

from pathlib import Path

import pytest

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.fine_tuning import fine_tuning_epochs


@pytest.mark.parametrize(
    ("config", "epochs"),
    [
        ("max_epochs: 38", 4),
        ("max_epochs: 30", 3),
        ("max_epochs: 1", 1),
        ("max_epochs: many", None),  # which the training refuses
        ("epochs: 3", None),
    ],
)
def test_weights_are_trained_on_for_a_tenth(
    tmp_path: Path, config: str, epochs: int | None
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text(config)
    assert fine_tuning_epochs(Bundle(tmp_path)) == epochs
