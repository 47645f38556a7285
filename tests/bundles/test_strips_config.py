"""Pictures in strips by the configs: beside the same pictures as a whole, and resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from workplace import Run, Workplace, read_image

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


def segment(workplace: Workplace, *configs: str, **options: str) -> None:
    workflow = workplace.workflow("infer", list(configs), device="cpu", **options)
    workflow.initialize()
    workflow.run()


def test_strips_of_a_picture_with_blank_parts_are_the_whole_picture_and_are_not_done_twice(
    workplace: Workplace, trained: Run, tmp_path: Path
) -> None:
    if not (workplace.bundle_root / "configs" / "strips.yaml").is_file():
        pytest.skip("this bundle has no pictures")
    picture = np.full((1000, 150, 3), 240, np.uint8)
    picture[400:600] = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    (tmp_path / "slides").mkdir()
    tifffile.imwrite(tmp_path / "slides" / "slide.tif", picture, tile=(64, 64), photometric="rgb")
    options = {
        "dataset_dir": str(tmp_path / "slides"),
        "model_path": str(trained.output_dir / "model.pt"),
    }
    segment(workplace, "inference.yaml", output_dir=str(tmp_path / "whole"), **options)
    segment(
        workplace, "inference.yaml", "strips.yaml", output_dir=str(tmp_path / "strips"), **options
    )
    (whole,) = (tmp_path / "whole").glob("*_label.*")
    label = tmp_path / "strips" / "slide_label.ome.tif"
    assert np.array_equal(read_image(label)[0], read_image(whole)[0])
    written = label.stat().st_mtime_ns
    segment(
        workplace, "inference.yaml", "strips.yaml", output_dir=str(tmp_path / "strips"), **options
    )
    assert label.stat().st_mtime_ns == written
