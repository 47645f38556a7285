from __future__ import annotations

from pathlib import Path

import pytest
import small_networks as networks
import torch

from benchmarks.accuracy import latent
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import case_name, paired_datalist
from ldseg_monai.data.phantoms.files import write_phantoms

ROOT = Path(__file__).parents[3]
SMALL = {
    "spatial_size": [48, 32, 32],
    **networks.SMALL["ldseg_knee3d"],
    "amp": False,
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("latent")
    write_phantoms("knee", folder, 3)
    bundle = Bundle(ROOT / "bundles" / "ldseg_knee3d")
    parser = bundle.config("train.yaml", **SMALL)
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    overrides = {**SMALL, "dataset_dir": str(folder)}
    return latent.LatentReport(bundle, folder / "model.pt", **overrides), folder


def test_every_figure_is_there_for_the_named_cases_only(report) -> None:
    latent_report, folder = report
    rows, share = latent_report.rows(paired_datalist(folder), ["case_001"])
    assert set(rows) == {"case_001"}
    columns = [
        "resize",
        "ceiling",
        "swapped",
        "K = 1",
        "K = 2",
        "K = 10",
        "own at T/2",
        "other at T/2",
    ]
    assert list(rows["case_001"]) == columns
    assert all(0 <= score <= 1 for score in rows["case_001"].values())
    assert rows["case_001"]["resize"] > 0.85  # the limit of so coarse a grid
    assert 0 <= share <= 1.5  # of an unbiased variance over a biased one


def test_true_label_on_the_grid_scores_as_the_resize(report) -> None:
    latent_report, folder = report
    datalist = paired_datalist(folder)
    item = datalist[2]
    label = latent_report.on_grid(item)["label"].as_tensor()[None].long()
    logits = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    rows, _ = latent_report.rows(datalist, [case_name(item["image"])])
    assert latent_report.dice(logits, latent_report.original(item)) == pytest.approx(
        rows["case_002"]["resize"]
    )
