"""What is said of a large image before it is segmented."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from workplace import restored_process

from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.inference import SamplingInferer, SlidingWindowSamplingInferer
from ldseg_monai.tools import forecast
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.forecast import image_size, number_of_windows

GLAS = Path(__file__).parents[2] / "bundles" / "ldseg_glas"


@pytest.mark.parametrize(
    ("size", "overlap", "wanted"),
    [
        ((64, 64), 0.0, 1),
        ((10, 10), 0.25, 1),  # padded to a window
        ((128, 64), 0.0, 2),
        ((65, 64), 0.5, 2),
        ((128, 128), 0.5, 9),  # at 0, 32, 64 along each axis
        ((160, 64), (0.5, 0.0), 4),
    ],
)
def test_windows_are_counted(size: tuple, overlap: float | tuple, wanted: int) -> None:
    inferer = SlidingWindowSamplingInferer(SamplingInferer(), roi_size=(64, 64), overlap=overlap)
    assert number_of_windows(size, inferer) == wanted


def test_size_is_of_the_header(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (31, 20)).save(tmp_path / "a.tif")
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6, 2)), np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "b.png").write_bytes(b"no picture")
    names = ("a.png", "a.tif", "a.nii.gz", "b.png", "none.png", "")
    sizes = [image_size(str(tmp_path / name)) for name in names]
    assert sizes == [(30, 20), (31, 20), (4, 5, 6), (), (), ()]


@pytest.mark.parametrize("overlay", [[], ["--config", "strips.yaml"]])
def test_a_large_picture_is_told_and_a_small_one_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    overlay: list[str],
) -> None:
    write_phantoms("gland", tmp_path, 1, seed=0)
    small = tmp_path / "images" / "small.tif"
    picture = Image.open(tmp_path / "images" / "case_000.png").convert("RGB")
    picture.crop((0, 0, 96, 96)).save(small)
    picture.crop((0, 0, 224, 160)).save(tmp_path / "images" / "large.tif")
    (tmp_path / "images" / "case_000.png").unlink()
    shutil.rmtree(tmp_path / "labels")
    monkeypatch.setattr(forecast, "MANY", 4)
    knobs = ["--set", "window_size=[96, 96]", "overlap=0", "num_samples=1"]
    folder = str(tmp_path / "images")
    with restored_process(), caplog.at_level(logging.INFO):
        out = str(tmp_path / "out")
        assert main(["predict", "-m", str(GLAS), "-i", folder, "-o", out, *overlay, *knobs]) == 0
    told = [message for message in caplog.messages if " is large: " in message]
    assert len(told) == 1
    assert told[0].startswith("large is large: 224 x 160 in 6 windows, about ")
    assert torch.is_grad_enabled()
