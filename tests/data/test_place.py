"""Geometry is law: a mask lies on its image for nibabel and SimpleITK, whatever the file says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Orientationd
from scipy.spatial.transform import Rotation

from ldseg_monai.data import LoadImageVolumed, SaveImageVolumed
from ldseg_monai.inference import InvertLabeld, InvertMapsd

quick = settings(deadline=None, derandomize=True, max_examples=40, database=None)
SHAPE = (5, 7, 6)


def segment(path: Path, output_dir: Path) -> list[Path]:
    """Read, turn to RAS, mark each bright voxel, and write label, mean and SD as a bundle does."""
    load = LoadImageVolumed("image")
    preprocessing = Compose([load, Orientationd("image", "RAS", labels=None)])
    batch = list_data_collate([preprocessing({"image": str(path)})])
    label = (batch["image"] > 0).to(torch.uint8)
    batch["pred"] = label
    batch["pred_mean"] = torch.cat([1 - label.float(), label.float()], dim=1)
    batch["pred_sd"] = label.float() / 2
    (case,) = decollate_batch(batch)
    for key in ("pred", "pred_mean", "pred_sd"):
        case[key] = MetaTensor(case[key].as_tensor())
    case = InvertLabeld("pred", preprocessing)(case)
    case = InvertMapsd(["pred_mean", "pred_sd"], preprocessing)(case)
    SaveImageVolumed("pred", str(output_dir))(case)
    name = path.name.split(".")[0]
    return [output_dir / f"{name}_{kind}.nii.gz" for kind in ("label", "mean", "sd")]


def corners_of_itk(path: Path) -> np.ndarray | None:
    """Places of the corners by SimpleITK; None where it does not read such a file."""
    try:
        image = sitk.ReadImage(str(path), sitk.sitkVectorFloat32)
    except RuntimeError:
        image = None
    try:
        image = image or sitk.ReadImage(str(path))
    except RuntimeError as error:
        assert "orthonormal" in str(error)
        return None
    ends = [(0, side - 1) for side in image.GetSize()[:3]]
    rest = [0] * (image.GetDimension() - 3)
    points = [
        image.TransformIndexToPhysicalPoint([*map(int, corner), *rest])[:3]
        for corner in itertools.product(*ends)
    ]
    return np.array(points)


def corners_of_nibabel(path: Path) -> np.ndarray:
    image = nib.load(path)
    ends = [(0, side - 1) for side in image.shape[:3]]
    return nib.affines.apply_affine(image.affine, list(itertools.product(*ends)))


def bright() -> np.ndarray:
    voxels = np.zeros(SHAPE, np.float32)
    voxels[1:3, 2:6, 3:] = 100
    return voxels


affines = st.builds(
    lambda angles, spacing, order, flips, origin, shear: _affine(
        angles, spacing, order, flips, origin, shear
    ),
    st.tuples(*[st.floats(-30, 30)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.tuples(*[st.floats(-200, 200)] * 3),
    st.sampled_from([0.0, 0.0, 0.2, -0.4]),
)


def _affine(
    angles: tuple, spacing: tuple, order: list, flips: tuple, origin: tuple, shear: float
) -> np.ndarray:
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    sheared = np.eye(3)
    sheared[0, 1] = shear
    affine[:3, :3] = (turned * flips)[:, order] @ sheared * spacing
    affine[:3, 3] = origin
    return affine


def write_nifti(
    path: Path, qform: np.ndarray, qcode: int, sform: np.ndarray, scode: int, units: int
) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.float32)
    header.set_qform(qform, qcode, strip_shears=True)
    header.set_sform(sform, scode)
    header["xyzt_units"] = units
    nib.save(nib.Nifti1Image(bright(), None, header), path)


@quick
@given(
    qform=affines,
    sform=affines,
    codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    same=st.booleans(),
    units=st.sampled_from([0, 2, 2, 1, 3]),
)
def test_maps_lie_on_any_nifti(
    qform: np.ndarray,
    sform: np.ndarray,
    codes: tuple[int, int],
    same: bool,
    units: int,
    tmp_path_factory: Any,
) -> None:
    folder = tmp_path_factory.mktemp("place")
    path = folder / "a.nii.gz"
    write_nifti(path, qform, codes[0], qform if same else sform, codes[1], units)
    image = nib.load(path)
    for result in segment(path, folder / "out"):
        written = nib.load(result)
        np.testing.assert_array_equal(corners_of_nibabel(result), corners_of_nibabel(path))
        for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b"):
            np.testing.assert_array_equal(written.header[field], image.header[field])
        theirs, ours = corners_of_itk(path), corners_of_itk(result)
        assert (theirs is None) == (ours is None)
        if theirs is not None:
            np.testing.assert_array_equal(ours, theirs)
    label = np.asanyarray(nib.load(folder / "out" / "a_label.nii.gz").dataobj)
    assert np.array_equal(label, bright() > 0)


rotations = st.builds(
    lambda angles, order, flips: (
        Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * flips
    )[:, order],
    st.tuples(*[st.floats(-30, 30)] * 3),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
)


@settings(quick, max_examples=20)
@given(
    direction=rotations,
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
    ending=st.sampled_from(["mha", "mhd", "nrrd", "nhdr"]),
)
def test_maps_lie_on_any_file_that_simpleitk_reads(
    direction: np.ndarray, spacing: tuple, origin: tuple, ending: str, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("place")
    path = folder / f"a.{ending}"
    image = sitk.GetImageFromArray(bright().transpose(2, 1, 0))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(path))
    half = min(spacing) / 2
    theirs = corners_of_itk(path)
    assert theirs is not None
    for result in segment(path, folder / "out"):
        ours = corners_of_itk(result)
        assert ours is not None
        assert np.abs(ours - theirs).max() < half
        assert np.abs(corners_of_nibabel(result) * [-1, -1, 1] - theirs).max() < half
    label = np.asanyarray(nib.load(folder / "out" / "a_label.nii.gz").dataobj)
    assert np.array_equal(label, bright() > 0)


@pytest.mark.parametrize("name", ["X.NII.GZ", "X.Nii", "X.nii.GZ"])
def test_an_ending_in_capitals_is_none_of_the_name(tmp_path: Path, name: str) -> None:
    nib.save(nib.Nifti1Image(bright(), np.eye(4)), tmp_path / "x.nii.gz")
    path = tmp_path / name
    if name.lower().endswith("gz"):
        (tmp_path / "x.nii.gz").rename(path)
    else:
        nib.save(nib.load(tmp_path / "x.nii.gz"), tmp_path / "y.nii")
        (tmp_path / "y.nii").rename(path)
    label, *_ = segment(path, tmp_path / "out")
    assert label.name == "X_label.nii.gz" and label.is_file()
    names = sorted(file.name for file in (tmp_path / "out").glob("X*"))
    assert names == ["X_label.nii.gz", "X_mean.nii.gz", "X_sd.nii.gz"]
