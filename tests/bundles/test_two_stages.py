"""LSegDiff's two commands, one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from workplace import Workplace

from ldseg_monai.networks.ldseg.lsegdiff import AUTOENCODER, DENOISER

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")
STAGES = [("train.yaml", f"baselines/lsegdiff_{stage}.yaml") for stage in (1, 2)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.make(tmp_path_factory.mktemp("stages"), "ldseg_glas")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)


def test_second_stage_keeps_the_first_ones_autoencoder(workplace: Workplace) -> None:
    first, second = workplace.root / "first", workplace.root / "second"
    short = {"run_id": "training", "max_epochs": 1, "cases_per_epoch": 2}
    told = workplace.run_here(*STAGES[0], output_dir=str(first), **short)
    assert "val_mean_dice" in told
    start = {"initial_weights": str(first / "model.pt")}
    workplace.run_here(*STAGES[1], output_dir=str(second), **short, **start)
    before, after = weights(first), weights(second)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(DENOISER) and not changed & set(AUTOENCODER)


def test_second_stage_alone_is_refused(workplace: Workplace) -> None:
    with pytest.raises(RuntimeError) as raised:  # MONAI's, which a command ends without
        workplace.run_here(*STAGES[1], run_id="training", output_dir=str(workplace.root / "none"))
    told = str(raised.value.__cause__)
    assert told.startswith("initial_weights is '': expected the model.pt of stage 1")
    assert not (workplace.root / "none" / "model.pt").exists()
