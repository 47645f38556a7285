"""The knob save_statistics of every bundle's inference: numbers of the files that it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from bundle_kinds import geometry
from config_files import load_config
from PIL import Image
from test_many_cases import LAUNCHER, contents, one_bundle
from workplace import Workplace, find_case, read_image

from ldseg_monai.bundle import class_names
from ldseg_monai.data.checks import OUTSIDE

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")

SAMPLES = {"num_samples": 3, "save_overlay": False}


def table(output_dir: Path) -> list[dict[str, str]]:
    with (output_dir / "statistics.csv").open() as file:
        return list(csv.DictReader(file))


def gray_image(bundle: str, path: Path) -> np.ndarray:
    """An image as a bundle reads it, the mean of its channels."""
    if path.suffix != ".png":
        return read_image(path)[0]
    mode = load_config(bundle, "inference.yaml")["load"]["mode"]
    picture = np.asarray(Image.open(path).convert(mode))
    return picture.mean(axis=-1) if picture.ndim == 3 else picture


def cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.mark.costly(by=geometry)
def test_the_table_is_of_the_masks_and_images_and_the_masks_are_as_without_it(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path
) -> None:
    places = {"dataset_dir": str(phantoms), "model_path": str(untrained)}
    with_it, without = tmp_path / "with", tmp_path / "without"
    workplace.run_here("inference.yaml", output_dir=str(without), **SAMPLES, **places)
    assert not list(without.glob("*statistics*"))
    workplace.run_here(
        "inference.yaml", output_dir=str(with_it), save_statistics=True, **SAMPLES, **places
    )
    names, rows = class_names(workplace.bundle_root), table(with_it)
    cases = [f"case_{index:03d}" for index in range(4)]
    wanted = [(case, names[index]) for case in cases for index in range(1, len(names))]
    assert [(row["case"], row["name"]) for row in rows] == wanted
    for row in rows:
        path = find_case(with_it, f"{row['case']}_label")
        label, affine = read_image(path)
        gray = gray_image(workplace.bundle, find_case(phantoms / "images", row["case"]))
        mask = label == int(row["class"])
        size = "area_pixels" if affine is None else "volume_ml"
        voxel = 1 if affine is None else abs(np.linalg.det(affine[:3, :3])) / 1000
        assert int(row["voxels"]) == mask.sum()
        assert float(row[size]) == pytest.approx(mask.sum() * voxel, rel=1e-4)
        if mask.any():
            assert float(row["mean_intensity"]) == pytest.approx(gray[mask].mean(), rel=1e-4)
            found = np.nonzero(mask if affine is not None else mask.T)  # columns come first
            box = [row[f"bounding_box_{axis}_first"] for axis in range(mask.ndim)]
            assert [int(first) for first in box] == [axis.min() for axis in found]
    size = "area_pixels" if "area_pixels" in rows[0] else "volume_ml"
    assert all(float(row[f"{size}_sd"]) >= 0 for row in rows)
    assert max(float(row[f"{size}_sd"]) for row in rows) > 0
    of_cases = []
    for case in cases:
        of_cases += json.loads((with_it / f"{case}_statistics.json").read_text())
    assert json.loads((with_it / "statistics.json").read_text()) == of_cases
    written = contents(with_it)
    others = {name: written[name] for name in written if "statistics" not in name}
    assert others == contents(without)


def test_a_table_of_another_hand_is_refused_where_it_would_be_written(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path
) -> None:
    (tmp_path / "statistics.csv").write_text("mine")
    options = {
        "dataset_dir": str(phantoms),
        "model_path": str(untrained),
        "output_dir": str(tmp_path),
        "num_samples": 1,
    }
    with pytest.raises(Exception) as caught:
        workplace.run_here("inference.yaml", save_statistics=True, **options)
    assert "statistics.csv (not written by this program)" in str(cause(caught.value))
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.csv"]


def test_numbers_of_strips_are_those_of_the_whole_picture(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path
) -> None:
    if not (workplace.bundle_root / "configs" / "strips.yaml").is_file():
        pytest.skip("this bundle has no strips.yaml")
    options = {
        "dataset_dir": str(phantoms),
        "model_path": str(untrained),
        "save_statistics": True,
        **SAMPLES,
    }
    whole, strips = tmp_path / "whole", tmp_path / "strips"
    workplace.run_here("inference.yaml", output_dir=str(whole), **options)
    workplace.run_here("inference.yaml", "strips.yaml", output_dir=str(strips), **options)
    of_samples = ("area_pixels_sd", "mean_intensity", "sd_intensity")  # which strips do not keep
    for row, expected in zip(table(strips), table(whole), strict=True):
        expected.pop(OUTSIDE, None)  # of its appearance, which strips do not ask
        assert row == {**expected, **dict.fromkeys(of_samples, "")}


@one_bundle
def test_two_processes_write_the_table_that_one_writes(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path
) -> None:
    options = {
        "dataset_dir": str(phantoms),
        "model_path": str(untrained),
        "save_statistics": True,
        **SAMPLES,
    }
    workplace.run_here("inference.yaml", output_dir=str(tmp_path / "one"), **options)
    configs = ("inference.yaml", "multi_gpu_inference.yaml")
    workplace.run(*configs, launcher=LAUNCHER, output_dir=str(tmp_path / "two"), **options)
    for name in ("statistics.csv", "statistics.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
