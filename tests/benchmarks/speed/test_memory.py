from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from prepared_python import LIKE_SUBPROCESS
from programs import ROOT, overrides, tables

from benchmarks.speed import memory
from benchmarks.speed.workload import argument_parser, workload_of
from ldseg_monai.data.formats import Slide


def test_peak_is_what_the_command_held_at_most() -> None:
    nothing, _ = memory.peak_of([sys.executable, "-c", "import time; time.sleep(0.3)"])
    program = "import time; a = b'x' * 200_000_000; time.sleep(0.3); del a; time.sleep(0.3)"
    held, seconds = memory.peak_of([sys.executable, "-c", program])
    assert held - nothing == pytest.approx(200e6, rel=0.05)
    assert seconds > 0.6


def test_command_that_fails_is_an_error_with_what_it_printed() -> None:
    with pytest.raises(RuntimeError, match=r"failed \(1\)(.|\n)*no such number"):
        memory.peak_of([sys.executable, "-c", "raise SystemExit('no such number')"])


def test_volume_is_on_the_grid_that_the_bundle_resamples_to(tmp_path: Path) -> None:
    work = workload_of(
        argument_parser("").parse_args(
            [str(ROOT / "bundles" / "ldseg_knee3d"), "--out", str(tmp_path)]
        )
    )
    config = work.config("inference.yaml", overlap=0.5)
    assert memory.voxel_size(config) == [1, 1, 1]
    config.update({"voxel_size": [0.9375, 0.8125, 1.25]})  # back, down, right
    path = tmp_path / "volume.nii.gz"
    memory.write_volume(path, (130, 60, 100), memory.voxel_size(config), seed=0)
    volume = nib.load(path)
    assert volume.shape == (130, 60, 100) and volume.get_data_dtype() == np.int16
    assert volume.header.get_zooms() == (1.25, 0.9375, 0.8125)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")


def test_picture_is_the_phantom_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    memory.write_picture(path, (700, 600), seed=0)
    phantom, _ = memory.gland_phantom(0)
    expected = np.tile(phantom, (3, 3, 1))[:600, :700]
    assert np.array_equal(tifffile.imread(path), expected)


def test_slide_has_tissue_in_the_middle_of_glass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "TISSUE", 600)
    path = tmp_path / "slide.svs"
    memory.write_slide(path, (2000, 1500), 0, 0.25)
    slide = Slide(str(path))
    assert (slide.vendor, slide.own_microns) == ("aperio", (0.25, 0.25))
    assert tuple(slide.levels) == ((2000, 1500), (500, 375), (125, 94))
    pixels = np.asarray(slide.rows(0, 1500))
    assert (pixels[:200] == memory.GLASS).all() and (pixels[:, -400:] == memory.GLASS).all()
    phantom, _ = memory.gland_phantom(0)
    rows, columns = np.ix_(range(600, 900), range(800, 1200))
    expected = phantom[rows % phantom.shape[0], columns % phantom.shape[1]]
    assert np.array_equal(pixels[600:900, 800:1200], expected)
    small = np.asarray(Slide(str(path), 1.0).rows(0, 375))  # the second level
    assert np.array_equal(small[180:200, 240:260], pixels[720:800:4, 960:1040:4])


def test_table_of_tiny_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "subprocess", LIKE_SUBPROCESS)
    network = overrides("ldseg_glas")
    arguments = [
        str(ROOT / "bundles" / "ldseg_glas"),
        "--out",
        str(tmp_path),
        "--size",
        "64",
        "64",
        "--sizes",
        "150x90",
    ]
    memory.main(
        [
            *arguments,
            "--set",
            "num_samples=2",
            "amp=False",
            f"model_path={weights(tmp_path, network)}",
            *network,
        ]
    )
    text = (tmp_path / "memory.md").read_text()
    [[row]] = tables(text)
    assert row["size"] == "150x90" and float(row["peak memory, MB"]) > 100
    assert float(row["noise field, MB"]) == pytest.approx(4 * 2 * 4 * 9 * 6 / 1e6, rel=0.01)
    assert "inference.yaml + strips.yaml" in text


def weights(folder: Path, network: list[str]) -> Path:
    """Weights of the network that these overrides make."""
    arguments = [str(ROOT / "bundles" / "ldseg_glas"), "--out", str(folder), "--set", *network]
    work = workload_of(argument_parser("").parse_args(arguments))
    made = work.config("inference.yaml").get_parsed_content("network_def")
    torch.save(made.state_dict(), folder / "model.pt")
    return folder / "model.pt"


def test_size_of_another_number_of_axes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--sizes 10x10x10: expected 2 sides"):
        memory.main(
            [str(ROOT / "bundles" / "ldseg_glas"), "--out", str(tmp_path), "--sizes", "10x10x10"]
        )
