"""What MONAI Label is told of the file that it writes a mask to; SimpleITK is the judge of place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from ldseg_monai.data import LoadImagePictured, LoadImageVolumed
from ldseg_monai.runtime.errors import InputError

VALUES = np.arange(12 * 13 * 14, dtype=np.float32).reshape(12, 13, 14)
AFFINE = np.array([[-1.5, 0, 0, 40], [0, 0, 2, -30], [0, 1, 0, 20], [0, 0, 0, 1.0]])


def told(path: Path, **request: Any) -> dict[Any, Any]:
    """What the loader makes of a request of MONAI Label."""
    is_picture = path.name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp", ".tif", "ending"))
    load = LoadImagePictured("image") if is_picture else LoadImageVolumed("image", dicom=True)
    return load({"image": str(path), "image_path": str(path), **request})


def volume(path: Path, edit: Any = None) -> Path:
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    if edit is not None:
        edit(image)
    nib.save(image, path)
    return path


def picture(path: Path, kind: str = "PNG") -> Path:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path, kind)
    return path


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.nii.gz", ".nii.gz"), ("A.NII.GZ", ".nii.gz"), ("a.b.nii", ".nii"), ("a b.NII", ".nii")],
)
def test_mask_of_a_nifti_goes_to_one(tmp_path: Path, name: str, ending: str) -> None:
    volume(tmp_path / "plain.nii.gz" if ending == ".nii.gz" else tmp_path / "plain.nii").rename(
        tmp_path / name
    )
    assert told(tmp_path / name)["result_extension"] == ending


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.mha", ".mha"), ("a.nrrd", ".nrrd"), ("a.mhd", ".nii.gz"), ("a.nhdr", ".nii.gz")],
)
def test_mask_is_whole_in_one_file(tmp_path: Path, name: str, ending: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(tmp_path / name))
    assert told(tmp_path / name)["result_extension"] == ending


@pytest.mark.parametrize(
    ("name", "kind", "ending"),
    [
        ("a.png", "PNG", ".png"),
        ("A.PNG", "PNG", ".png"),
        ("a.tif", "TIFF", ".tif"),
        ("a.jpg", "JPEG", ".png"),
        ("A.JPEG", "JPEG", ".png"),
        ("a.bmp", "BMP", ".png"),
        ("no_ending", "PNG", ".png"),
    ],
)
def test_mask_of_a_picture_keeps_its_classes(
    tmp_path: Path, name: str, kind: str, ending: str
) -> None:
    assert told(picture(tmp_path / name, kind))["result_extension"] == ending


def test_nothing_is_added_for_our_own_commands(tmp_path: Path) -> None:
    path = str(volume(tmp_path / "a.nii.gz"))
    assert "result_extension" not in LoadImageVolumed("image")({"image": path})


@pytest.mark.parametrize("asked", [".nii.gz", ".NRRD", ".seg.nrrd", ".mha"])
def test_client_that_asks_for_a_volume_gets_it(tmp_path: Path, asked: str) -> None:
    data = told(volume(tmp_path / "a.nii.gz"), result_extension=asked)
    assert data["result_extension"] == asked.lower()


@pytest.mark.parametrize("asked", [".png", ".jpg", "x", ".mhd", 3])
def test_file_that_holds_no_volume_is_refused(tmp_path: Path, asked: Any) -> None:
    with pytest.raises(InputError, match="result_extension is .* one of .nii.gz, .nii, .nrrd"):
        told(volume(tmp_path / "a.nii.gz"), result_extension=asked)


@pytest.mark.parametrize("asked", [".jpg", ".jpeg", ".bmp", ".webp"])
def test_file_that_changes_classes_is_refused(tmp_path: Path, asked: str) -> None:
    with pytest.raises(InputError, match=f"result_extension is '{asked}'.* one of .png, .tif"):
        told(picture(tmp_path / "a.png"), result_extension=asked)


def _move_qform(image: Any) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += 20
    image.set_qform(moved, 1)


def _no_codes(image: Any) -> None:
    image.set_sform(None, 0)
    image.set_qform(None, 0)


def _shear(image: Any) -> None:
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.3
    image.set_qform(None, 0)
    image.set_sform(sheared, 1)


def _other_pixdim(image: Any) -> None:
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = 3


@pytest.mark.parametrize("edit", [_move_qform, _no_codes, _shear, _other_pixdim])
def test_volume_that_programs_see_in_several_places_needs_a_mask_that_says_all(
    tmp_path: Path, edit: Any
) -> None:
    path = volume(tmp_path / "a.nii.gz", edit)
    for request in ({}, {"result_extension": ".nrrd", "keeps_image_forms": True}):
        with pytest.raises(InputError, match="a.nii.gz has a header by which .* with_image_forms"):
            told(path, **request)
    assert told(path, keeps_image_forms=True)["result_extension"] == ".nii.gz"
    read = LoadImageVolumed("image")({"image": str(path)})["image"]
    try:
        seen = sitk.ReadImage(str(path))
    except RuntimeError:  # SimpleITK does not read what is sheared
        return
    size = np.array(seen.GetSize()) - 1
    by_itk = np.array(seen.TransformIndexToPhysicalPoint(size.tolist())) * [-1, -1, 1]
    ours = (read.affine.numpy() @ [*size, 1])[:3]
    origins = np.array(seen.GetOrigin()) * [-1, -1, 1] - read.affine.numpy()[:3, 3]
    apart = max(np.linalg.norm(by_itk - ours), np.linalg.norm(origins))
    assert apart > 1 or edit is _move_qform  # of which SimpleITK reads the sform


@pytest.mark.parametrize("spacing", [0.3, 1.0, 2.0])
def test_volume_with_one_place_is_taken(tmp_path: Path, spacing: float) -> None:
    image = nib.Nifti1Image(VALUES, AFFINE * [[spacing], [spacing], [spacing], [1]])
    nib.save(image, tmp_path / "a.nii.gz")
    assert told(tmp_path / "a.nii.gz")["result_extension"] == ".nii.gz"
