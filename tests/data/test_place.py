"""Geometry is law: a mask lies on its image for nibabel, SimpleITK and highdicom, whatever the file says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_phantoms import Series, Voxels, nifti_voxels, segmentation_voxels
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Orientationd
from scipy.spatial.transform import Rotation

from ldseg_monai.data import LoadImageVolumed, SaveImageVolumed
from ldseg_monai.data.dicom import SaveImageDicomSegd
from ldseg_monai.inference import InvertLabeld, InvertMapsd
from ldseg_monai.runtime.errors import cause

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


series_of_any_place = st.builds(
    Series,
    shape=st.tuples(st.integers(4, 6), st.integers(3, 6), st.integers(3, 6)),
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
    tilt=st.sampled_from([0.0, 0.0, 0.7, -0.3]),
    shuffled=st.booleans(),
)


def corners_and_a_block(shape: tuple[int, ...]) -> np.ndarray:
    """Class 1 at the eight corners, 2 in a block beside them."""
    label = np.zeros(shape, np.uint8)
    label[1:3, 1:3, :2] = 2
    label[np.ix_(*[[0, side - 1] for side in shape])] = 1
    return label


def segment_series(folder: Path, output_dir: Path) -> None:
    """Read a series, turn it, mark corners and a block in its own geometry, and write both files."""
    load = LoadImageVolumed("image", dicom=True)
    preprocessing = Compose([load, Orientationd("image", "RAS", labels=None)])
    image = load({"image": str(folder)})["image"]
    turned = preprocessing({"image": str(folder)})
    label = corners_and_a_block(tuple(image.shape[1:])[::-1])  # (slices, rows, columns)
    marked = {"pred": MetaTensor(torch.tensor(label.transpose(2, 1, 0))[None], meta=image.meta)}
    turned["pred"] = Orientationd("pred", "RAS", labels=None)(marked)["pred"].as_tensor()
    batch = list_data_collate([turned])
    (case,) = decollate_batch(batch)
    case["pred"] = MetaTensor(case["pred"])
    case = InvertLabeld("pred", preprocessing)(case)
    case = SaveImageVolumed("pred", str(output_dir))(case)
    metadata = output_dir / "metadata.json"
    described = {"channel_def": {"0": "background", "1": "corners", "2": "block"}}
    outputs = {"outputs": {"pred": described}}
    metadata.write_text(json.dumps({"name": "a", "version": "1", "network_data_format": outputs}))
    SaveImageDicomSegd("pred", str(output_dir), str(metadata))(case)


def highdicom_voxels(path: Path) -> Voxels:
    """Labeled voxels of a DICOM segmentation, by highdicom."""
    volume = highdicom.seg.segread(path).get_volume(
        combine_segments=True, allow_missing_positions=True
    )
    indices = np.argwhere(volume.array)
    places = volume.map_indices_to_reference(indices)
    return Voxels(places, volume.array[tuple(indices.T)])


@settings(quick, max_examples=12)
@given(series=series_of_any_place, jitter=st.sampled_from([0, 0, 5e-4]), enhanced=st.booleans())
def test_masks_lie_on_any_series(
    series: Series, jitter: float, enhanced: bool, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("place")
    orientation = np.array(series.datasets()[-1].ImageOrientationPatient, float)
    orientation[1] += jitter
    write = series.write_enhanced if enhanced else series.write
    write(folder / "s", ImageOrientationPatient=list(orientation))
    (folder / "out").mkdir()
    segment_series(folder / "s", folder / "out")
    label = corners_and_a_block(series.shape)
    truth = Voxels(series.positions()[label > 0], label[label > 0])
    half = min(series.spacing) / 2
    nifti, dicom = folder / "out" / "s_label.nii.gz", folder / "out" / "s_seg.dcm"
    nifti_voxels(nifti).assert_same(truth, half)
    if series.tilt:  # of which neither SimpleITK nor highdicom has a volume
        assert highdicom.seg.segread(dicom).get_volume_geometry() is None
        segmentation_voxels(dicom).assert_same(truth, half)
        return
    highdicom_voxels(dicom).assert_same(truth, half)
    corners = corners_of_itk(nifti)
    assert corners is not None
    own = series.positions()[label == 1]
    Voxels(corners, np.ones(8)).assert_same(Voxels(own, np.ones(8)), half)


@settings(quick, max_examples=10)
@given(
    series=series_of_any_place,
    wrong=st.sampled_from(["gap", "turned", "off the line", "twice"]),
    enhanced=st.booleans(),
)
def test_a_series_that_is_no_volume_is_refused(
    series: Series, wrong: str, enhanced: bool, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("place") / "s"
    last = series.datasets()[-1]
    position = np.array(last.ImagePositionPatient, float)
    orientation = np.array(last.ImageOrientationPatient, float)
    changes: dict[str, Any] = {}
    if wrong == "turned":
        changes["ImageOrientationPatient"] = [*orientation[3:], *-orientation[:3]]
    if wrong == "off the line":
        step = np.linalg.norm([series.spacing[0], series.tilt])
        changes["ImagePositionPatient"] = list(position + 0.9 * step * series.axes[:, 1])
    if wrong == "twice":
        changes["ImagePositionPatient"] = series.datasets()[0].ImagePositionPatient
    write = series.write_enhanced if enhanced else series.write
    write(folder, drop=[1] if wrong == "gap" else [], **changes)
    with pytest.raises(ValueError, match="expected") as caught:
        LoadImageVolumed("image", dicom=True)({"image": str(folder)})
    assert "\n" not in str(cause(caught.value))
