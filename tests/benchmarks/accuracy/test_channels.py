from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from programs import tables

from benchmarks.accuracy.channels import CHANNELS, main, write_data
from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.names import case_name


def test_data_of_one_channel_are_those_of_both(tmp_path: Path) -> None:
    both, flair, t1 = (find_cases(write_data(tmp_path, 1, part)) for part in CHANNELS.values())
    assert [case_name(cases[0]["image"]) for cases in (both, flair, t1)] == ["case_000"] * 3
    files = [flair[0]["image"], t1[0]["image"]]
    for alone, together in zip(files, both[0]["image"], strict=True):
        np.testing.assert_array_equal(*(nib.load(path).dataobj for path in (alone, together)))


@pytest.mark.slow
def test_every_bundle_is_trained_and_scored(tmp_path: Path) -> None:
    options = ["--epochs", "1", "--num", "4", "--cases_per_epoch", "4"]
    paths = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    main(["ldseg_hippocampus", *paths, *options])
    (rows,) = tables((tmp_path / "channels.md").read_text())
    assert [row["channels"] for row in rows] == list(CHANNELS)
    for row in rows:
        dice = [float(row[name]) for name in ("edema", "core", "mean")]
        assert dice[2] == pytest.approx((dice[0] + dice[1]) / 2, abs=0.002)
