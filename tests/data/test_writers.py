from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage
from PIL import Image

from ldseg_monai.data import (
    LoadImagePictured,
    LoadImageVolumed,
    SaveImagePictured,
    SaveImageVolumed,
)
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.writers import NiftiWriter, PictureWriter
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.ownership import PARTIAL

FULL = Path("/dev/full")  # where every write finds the disk full


@pytest.mark.parametrize(("channels", "shape"), [(1, (3, 4, 1)), (2, (3, 4, 1, 2))])
def test_volume_of_one_slice_keeps_its_axes(
    tmp_path: Path, channels: int, shape: tuple[int, ...]
) -> None:
    volume = MetaTensor(torch.rand(channels, 3, 4, 1), meta={"filename_or_obj": "x.nii.gz"})
    SaveImage(tmp_path, "label", separate_folder=False, writer=NiftiWriter, print_log=False)(volume)
    assert nib.load(tmp_path / "x_label.nii.gz").shape == shape


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 7), (3, 1)])
def test_picture_of_one_row_or_column_is_written(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = MetaTensor(torch.ones(1, *size), meta={"filename_or_obj": "x.png"})  # columns, rows
    SaveImagePictured("pred", str(tmp_path))({"pred": mask})
    assert Image.open(tmp_path / "x_label.png").size == size


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, as Linux has it")
@pytest.mark.parametrize(
    ("writer", "size"), [(NiftiWriter, (80, 80, 80)), (PictureWriter, (800, 800))]
)
def test_full_disk_is_an_error_that_names_the_file(
    tmp_path: Path, writer: type, size: tuple[int, ...]
) -> None:
    path = tmp_path / ("x.nii" if len(size) == 3 else "x.png")
    (tmp_path / f"{PARTIAL}{os.getpid()}.{path.name}").symlink_to(FULL)
    backend = writer(output_dtype=np.uint8)
    backend.set_data_array(torch.randint(255, (1, *size)), channel_dim=0)
    backend.set_metadata({"affine": np.eye(4)})
    with pytest.raises(OSError, match=str(path)) as error:
        backend.write(path)
    assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize("tilt", [0.0, 0.02, 0.3])  # mm a slice of 1 mm
def test_places_that_a_qform_cannot_say_are_told(
    tmp_path: Path, tilt: float, caplog: pytest.LogCaptureFixture
) -> None:
    affine = np.eye(4)
    affine[0, 2] = tilt
    voxels = torch.zeros(1, 6, 5, 20)
    voxels[0, 5, 4, 19] = 1
    image = MetaTensor(voxels, affine, meta={"filename_or_obj": str(tmp_path / f"{tilt} series")})
    SaveImageVolumed("pred", str(tmp_path))({"pred": image})
    seen = sitk.ReadImage(str(tmp_path / f"{tilt} series_label.nii.gz"))
    place = np.array(seen.TransformIndexToPhysicalPoint((5, 4, 19))) * [-1, -1, 1]
    off = np.linalg.norm(place - (affine @ [5, 4, 19, 1])[:3])
    assert (off > 1) == ("has axes at no right angle" in caplog.text) == (tilt > 0.1)


# Of an image that the weights do not know

WHY = "its modality is CT, expected MR; 99% of its intensities are a few \u03c3 too large"
SAID = "outside of known images: its modality is CT, expected MR; 99% of its intensities"


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_nifti_says_so_in_its_header(tmp_path: Path, ending: str) -> None:
    voxels = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    path = tmp_path / f"a{ending}"
    if ending == ".mha":
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    else:
        nib.save(nib.Nifti1Image(voxels, np.diag([1, 2, 3, 1])), path)
    files = {}
    for name in ("known", "outside"):
        image = LoadImageVolumed("image")({"image": str(path)})["image"]
        if name == "outside":
            image.meta[OUTSIDE] = WHY
        pred = MetaTensor((image > 30).to(torch.uint8), meta=image.meta)
        maps = {"pred_mean": torch.cat([image, image]), "pred_sd": image}
        SaveImageVolumed("pred", str(tmp_path / name))({"pred": pred, **maps})
        files[name] = [tmp_path / name / f"a_{kind}.nii.gz" for kind in ("label", "mean", "sd")]
    for known, outside in zip(files["known"], files["outside"], strict=True):
        one, other = nib.load(known), nib.load(outside)
        assert other.header["descrip"].item().decode() == SAID[:79]
        assert sitk.ReadImage(str(outside)).GetMetaData("ITK_FileNotes") == SAID[:79]
        assert one.header["descrip"].item() == b""
        np.testing.assert_array_equal(one.dataobj, other.dataobj)
        without = other.header.copy()
        without["descrip"] = b""
        assert str(without) == str(one.header)


def test_picture_says_so_in_a_text_chunk(tmp_path: Path) -> None:
    for name, meta in {"known": {}, "outside": {OUTSIDE: WHY}}.items():
        pred = MetaTensor(torch.ones(1, 3, 4, dtype=torch.uint8))
        pred.meta.update({"filename_or_obj": "a.png", **meta})
        SaveImagePictured("pred", str(tmp_path / name))({"pred": pred})
    with Image.open(tmp_path / "outside" / "a_label.png") as picture:
        assert picture.text == {OUTSIDE: f"outside of known images: {WHY}"}
        assert np.asarray(picture).tolist() == [[1] * 3] * 4
    with Image.open(tmp_path / "known" / "a_label.png") as picture:
        assert picture.text == {}


def palette_of(path: Path) -> list[tuple[int, ...]]:
    values = Image.open(path).getpalette()
    return [tuple(values[start : start + 3]) for start in range(0, len(values), 3)]


def save_picture(folder: Path, label: np.ndarray, colors: dict | None) -> Path:
    Image.new("RGB", label.shape[::-1]).save(folder / "a.png")
    pred = MetaTensor(torch.from_numpy(label.T[None]), meta={"filename_or_obj": folder / "a.png"})
    SaveImagePictured("pred", str(folder), colors)({"pred": pred})
    return folder / "a_label.png"


def test_a_label_picture_holds_classes_and_shows_colors(tmp_path: Path) -> None:
    label = np.array([[0, 1, 2], [2, 2, 0]], dtype=np.uint8)
    path = save_picture(tmp_path, label, {"one": [255, 80, 60], "two": [70, 170, 255]})
    picture = Image.open(path)
    assert np.array_equal(np.asarray(picture), label)
    assert palette_of(path) == [(0, 0, 0), (255, 80, 60), (70, 170, 255)]
    assert picture.convert("RGB").getpixel((1, 0)) == (255, 80, 60)
    case = LoadImagePictured(["image", "label"], num_classes=3, allow_constant=True)(
        {"image": str(tmp_path / "a.png"), "label": str(path)}
    )
    assert np.array_equal(case["label"][0].T, label)


def test_no_two_classes_look_the_same(tmp_path: Path) -> None:
    label = np.array([[0, 1, 2, 3]], dtype=np.uint8)
    path = save_picture(tmp_path, label, {"a": [9, 9, 9], "b": [9, 9, 9], "c": [0, 0, 0]})
    assert palette_of(path) == [(0, 0, 0), (9, 9, 9), (9, 9, 10), (0, 0, 1)]


def test_a_class_without_a_color_is_gray(tmp_path: Path) -> None:
    label = np.array([[0, 1, 2]], dtype=np.uint8)
    path = save_picture(tmp_path, label, {"one": [255, 80, 60]})
    assert Image.open(path).mode == "L"
    assert np.array_equal(np.asarray(Image.open(path)), label)


@pytest.mark.parametrize("color", [[1, 2], [1, 2, 256], [1, 2, 3.0]])
def test_what_is_no_color_is_told(color: list) -> None:
    with pytest.raises(InputError, match="the color of one is"):
        SaveImagePictured("pred", "out", {"one": color})


def test_a_name_that_a_client_sends_is_no_color(tmp_path: Path) -> None:
    path = save_picture(tmp_path, np.array([[0, 1]], dtype=np.uint8), "gland")
    assert Image.open(path).mode == "L"
