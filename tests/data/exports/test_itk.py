from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from export_phantoms import LPS, blobs, label_of, oblique, write_metadata

from ldseg_monai.data.exports import SaveImageAsd
from ldseg_monai.data.formats.volumes import read_voxels


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_voxels_and_places_are_read_back(tmp_path: Path, ending: str, mirrored: bool) -> None:
    voxels, affine = blobs((5, 6, 7)), oblique(mirrored)
    SaveImageAsd("pred", str(tmp_path), ending, write_metadata(tmp_path))(
        {"pred": label_of("knee.nii.gz", voxels, affine)}
    )
    path = tmp_path / f"knee_label.{ending}"
    found, volume = read_voxels(str(path), require_codes=True)
    assert found.dtype == np.uint8 and np.array_equal(found, voxels)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    image = sitk.ReadImage(str(path))
    assert image.GetPixelIDValue() == sitk.sitkUInt8
    np.testing.assert_allclose(image.GetSpacing(), [0.7, 1.1, 1.6], atol=1e-4)
    for index in np.ndindex(*voxels.shape):
        assert image[tuple(map(int, index))] == voxels[index]
        place = (LPS @ affine @ [*index, 1])[:3]
        assert image.TransformIndexToPhysicalPoint(index) == pytest.approx(place, abs=1e-4)


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
@pytest.mark.parametrize("bytes_left", [100, 1000])
def test_a_disk_that_is_full_is_told_and_leaves_no_half_file(
    tmp_path: Path, ending: str, bytes_left: int
) -> None:
    voxels = np.random.default_rng(0).integers(0, 2, (20, 20, 20), np.uint8)
    save = SaveImageAsd("pred", str(tmp_path), ending, write_metadata(tmp_path))
    before = set(tmp_path.iterdir())
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        with pytest.raises(OSError, match=f"label.{ending} cannot be written .*: make room"):
            save({"pred": label_of("knee.nii.gz", voxels)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_it_is_compressed(tmp_path: Path, ending: str) -> None:
    voxels = np.zeros((50, 60, 70), np.uint8)
    voxels[10:20] = 1
    SaveImageAsd("pred", str(tmp_path), ending, write_metadata(tmp_path))(
        {"pred": label_of("knee.nii.gz", voxels)}
    )
    assert (tmp_path / f"knee_label.{ending}").stat().st_size < voxels.size / 50


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_slices_that_are_shifted_keep_their_places(tmp_path: Path, ending: str) -> None:
    affine = oblique()
    affine[:3, 2] += 0.3 * affine[:3, 0]  # as of a tilted gantry
    SaveImageAsd("pred", str(tmp_path), ending, write_metadata(tmp_path))(
        {"pred": label_of("knee.nii.gz", blobs((4, 5, 6)), affine)}
    )
    _, volume = read_voxels(str(tmp_path / f"knee_label.{ending}"))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
