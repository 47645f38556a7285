"""Properties of inference that hold for any image: its grid is the result's, and values are classes of the bundle."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_kinds import BUNDLES, dims, geometry
from config_files import load_config
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigWorkflow
from monai.data import decollate_batch, list_data_collate
from monai.utils import set_determinism
from PIL import Image
from scipy.spatial.transform import Rotation
from workplace import Workplace

quick = settings(
    deadline=None, derandomize=True, max_examples=8, database=None, phases=[Phase.generate]
)

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


@functools.cache
def workflow(bundle: str, output_dir: str) -> ConfigWorkflow:
    """A bundle's inference with a tiny network, which keeps its random weights."""
    with tempfile.TemporaryDirectory() as folder:
        made = Workplace.make(Path(folder) / "place", bundle).workflow(
            "infer", ["inference.yaml"], device="cpu", output_dir=output_dir, num_inference_steps=2
        )
        set_determinism(0)
        made.parser.get_parsed_content("network_def").eval()
    return made


def segment(
    bundle: str, path: Path, network: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Path:
    """Segment one file as the bundle does, or with other logits, and return the file of the result."""
    output_dir = path.parent.parent / "output"
    shutil.rmtree(output_dir, ignore_errors=True)  # another image of this name does not write there
    parser = workflow(bundle, str(output_dir)).parser
    data = parser.get_parsed_content("preprocessing")({"image": str(path)})
    batch = list_data_collate([data])
    if network is not None:
        pred = network(batch["image"])
    else:
        with torch.no_grad():
            pred = parser.get_parsed_content("inferer")(
                batch["image"], parser.get_parsed_content("network_def")
            )
    parser.get_parsed_content("postprocessing")(decollate_batch({**batch, "pred": pred})[0])
    (result,) = output_dir.glob(f"{path.name.split('.')[0]}_label.*")
    return result


affines = st.builds(
    lambda angles, spacing, order, flips, origin: _affine(angles, spacing, order, flips, origin),
    st.tuples(*[st.floats(-25, 25)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.tuples(*[st.floats(-200, 200)] * 3),
)


def _affine(angles: tuple, spacing: tuple, order: list, flips: tuple, origin: tuple) -> np.ndarray:
    """Oblique axes in any order and direction."""
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = (turned * flips)[:, order] * spacing
    affine[:3, 3] = origin
    return affine


@pytest.mark.costly(by=geometry)
@pytest.mark.parametrize("bundle", [bundle for bundle in BUNDLES if dims(bundle) == 3])
@quick
@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3).filter(lambda shape: np.prod(shape) > 1),
    affine=affines,
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64", ">i2"]),
    compressed=st.booleans(),
)
def test_label_of_any_volume_has_its_grid(
    bundle: str,
    shape: tuple,
    affine: np.ndarray,
    dtype: str,
    compressed: bool,
    tmp_path_factory: Any,
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"any_{bundle}"
    path = folder / "images" / f"volume.nii{'.gz' if compressed else ''}"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 255, shape)
    values.flat[:2] = 0, 255
    nib.save(nib.Nifti1Image(values.astype(dtype), affine), path)
    result = nib.load(segment(bundle, path))
    assert result.shape == shape
    np.testing.assert_allclose(result.affine, nib.load(path).affine, atol=1e-3)
    labels = np.asanyarray(result.dataobj)
    assert labels.dtype == np.uint8
    assert labels.max() < workflow(bundle, str(folder / "output")).parser["num_classes"]


def bright(image: torch.Tensor) -> torch.Tensor:
    """Logits of three classes: whether a voxel is brighter than the middle, and never the last."""
    level = image.as_tensor() - (image.max() + image.min()).item() / 2
    return torch.cat([-level, level, torch.full_like(level, -1e6)], dim=1)


@pytest.mark.costly(by=geometry)
@pytest.mark.parametrize("bundle", [bundle for bundle in BUNDLES if dims(bundle) == 3])
@quick
@given(shape=st.tuples(*[st.integers(12, 40)] * 3), affine=affines)
def test_what_lies_in_a_place_is_found_in_that_place(
    bundle: str, shape: tuple, affine: np.ndarray, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"place_{bundle}"
    path = folder / "images" / "volume.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    box = np.zeros(shape, np.uint8)
    box[: shape[0] // 2, shape[1] // 3 :, 2 : shape[2] // 2] = 1
    nib.save(nib.Nifti1Image(box * np.float32(100), affine), path)
    found = np.asanyarray(nib.load(segment(bundle, path, bright)).dataobj)
    config = load_config(bundle, "inference.yaml")
    if "resize" in config or "KnownSpacingd" in str(config["image_transforms"]):
        assert 2 * (found & box).sum() / (found.sum() + box.sum()) > 0.8
    else:
        np.testing.assert_array_equal(found, box)


def _picture(mode: str, values: np.ndarray) -> Image.Image:
    picture = Image.fromarray(values.astype(np.uint8))
    return picture.convert("L").convert("1") if mode == "1" else picture.convert(mode)


@pytest.mark.costly(by=geometry)
@pytest.mark.parametrize("bundle", [bundle for bundle in BUNDLES if dims(bundle) == 2])
@quick
@given(
    size=st.tuples(*[st.integers(1, 200)] * 2).filter(lambda size: np.prod(size) > 1),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"]),
    ending=st.sampled_from(["png", "tif"]),
)
def test_label_of_any_picture_has_its_size(
    bundle: str, size: tuple, mode: str, ending: str, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"any_{bundle}"
    path = folder / "images" / f"picture.{'tif' if mode == 'CMYK' else ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 255, (*size, 3))
    values[0, 0], values[-1, -1] = 0, 255
    _picture(mode, values).save(path)
    labels = np.asarray(Image.open(segment(bundle, path)))
    assert labels.shape == size and labels.dtype == np.uint8
    assert labels.max() < workflow(bundle, str(folder / "output")).parser["num_classes"]
