"""Whether an image is one that the weights know, and volumes of other voxel sizes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from bundle_kinds import BUNDLES, FOLDER
from dicom_phantoms import OBLIQUE
from monai.data import MetaTensor
from monai.transforms import Compose, NormalizeIntensityd, Orientation
from scipy.spatial.transform import Rotation
from torch.nn import functional

from ldseg_monai.bundle import Bundle
from ldseg_monai.data.appearance import Group, appearance, resized
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.known import CheckKnownImaged, KnownSpacingd, read_known
from ldseg_monai.data.loaders import LoadImageVolumed
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.data.phantoms.gland import gland_phantom
from ldseg_monai.data.phantoms.knee import knee_phantom
from ldseg_monai.data.wrong_headers import WrongHeader
from ldseg_monai.inference.postprocessing import InvertLabeld, SummarizeUncertaintyd
from ldseg_monai.runtime.errors import InputError

KNEE = {
    "modality": ["MR"],
    "body_part": ["KNEE"],
    "spacing_mm": [0.8, 1.5],
    "field_of_view_mm": [50, 270],
    "least_size": 24,
    "tilt_degrees": 30,
    "intensity": {"high": [2, 6]},
}
STAIN = {"least_size": 64, "colors": {"red_over_green": [0.05, 1.3]}}


def metadata(folder: Path, declared: dict[str, Any]) -> str:
    path = folder / "metadata.json"
    path.write_text(json.dumps({"known_images": declared}))
    return str(path)


def volume(shape: tuple[int, ...] = (60, 60, 60), affine: np.ndarray | None = None) -> MetaTensor:
    """A bright ball in noise."""
    places = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2
    ball = 10 * (np.linalg.norm(places, axis=0) < min(shape) / 5)
    voxels = np.random.default_rng(0).normal(size=shape) + ball
    affine = np.eye(4) if affine is None else affine
    meta = {"filename_or_obj": "knee.nii.gz"}
    return MetaTensor(torch.tensor(voxels[None]).float(), affine=torch.tensor(affine), meta=meta)


def tilted(degrees: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    return affine


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (volume(), None),
        (volume(affine=tilted(29)), None),
        (
            volume(affine=np.diag([0.36, 0.36, 3, 1])),
            r"its voxels are 0.36 x 0.36 x 3 mm, expected 0.8 to 1.5 mm; its field of view is "
            r"21.6 x 21.6 x 180 mm, expected 50 to 270 mm",
        ),
        (volume((60, 60, 3)), r"its size is 60 x 60 x 3, expected 24 or more along each axis"),
        (volume((60, 60, 1)), r"its size is 60 x 60 x 1, expected 24 or more along each axis"),
        (volume((300, 60, 60)), r"its field of view is 300 x 60 x 60 mm, expected 50 to 270 mm"),
        (volume(affine=tilted(40)), "tilted by 40 degrees, expected 30 or less"),
        (-volume(), r"99% of its intensities, standardized, are up to .*, expected 2 to 6"),
    ],
    ids=["known", "tilted", "true knee", "three slices", "one slice", "body", "askew", "inverted"],
)
def test_volume_that_the_weights_do_not_know_is_refused_or_marked(
    tmp_path: Path, image: MetaTensor, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = metadata(tmp_path, KNEE)
    if message is None:
        assert OUTSIDE not in CheckKnownImaged("image", path)({"image": image})["image"].meta
        return
    with pytest.raises(
        ValueError, match=rf"knee.nii.gz is none of the images .*{message}.*--force"
    ):
        CheckKnownImaged("image", path)({"image": image})
    marked = CheckKnownImaged("image", path, force=True)({"image": image})["image"]
    assert marked.meta[OUTSIDE] and marked.meta[OUTSIDE] in caplog.text
    torch.testing.assert_close(marked.as_tensor(), image.as_tensor())


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "MR"}, None),
        ({"Modality": "MR", "BodyPartExamined": "LEFT KNEE"}, None),
        ({"Modality": "CT"}, "its modality is CT, expected MR"),
        ({"Modality": ""}, "its modality is missing, expected MR"),
        ({"Modality": "MR", "BodyPartExamined": "ABDOMEN"}, "its body part is ABDOMEN, expected K"),
    ],
    ids=["MR", "knee", "CT", "no modality", "abdomen"],
)
def test_dicom_says_what_it_is_of(
    tmp_path: Path, tags: dict[str, str], message: str | None
) -> None:
    folder = replace(OBLIQUE, shape=(6, 20, 20), spacing=(1.0, 1.0, 1.0)).write(tmp_path / "study")
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        for keyword, value in tags.items():
            setattr(item, keyword, value)
        item.save_as(path)
    declared = {key: KNEE[key] for key in ("modality", "body_part")}
    image = LoadImageVolumed("image", dicom=True)({"image": str(folder)})
    check = CheckKnownImaged("image", metadata(tmp_path, declared))
    if message is None:
        check(image)
        return
    with pytest.raises(ValueError, match=message):
        check(image)


def picture(values: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.tensor(values).permute(2, 1, 0).float())


def test_stain_is_seen_by_the_tissue_alone(tmp_path: Path) -> None:
    check = CheckKnownImaged("image", metadata(tmp_path, STAIN))
    glands = gland_phantom([0, 0])[0]
    check({"image": picture(glands)})
    slide = np.full((600, 700, 3), 250, np.uint8)  # most of it glass
    slide[:150, :150] = glands[:150, :150]
    check({"image": picture(slide)})
    gray = np.repeat(glands.mean(2, keepdims=True), 3, axis=2)
    with pytest.raises(ValueError, match="know: it is gray, expected a picture in color; use"):
        check({"image": picture(gray)})
    green = np.stack([glands[..., 1], glands[..., 0], glands[..., 2]], axis=2)
    with pytest.raises(ValueError, match="its mean red over green is -.*, expected 0.05 to 1.3"):
        check({"image": picture(green)})
    with pytest.raises(ValueError, match="its size is 30 x 40, expected 64 or more"):
        check({"image": picture(glands[:40, :30])})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_phantoms_are_known_and_look_so(
    bundle: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = Bundle(FOLDER / bundle).config("train.yaml")["datalist"]["phantom"]
    config = Bundle(FOLDER / bundle).config("inference.yaml", spatial_size=[64, 32, 32])
    write_phantoms(kind, tmp_path, 3, seed=7)
    images = sorted((tmp_path / "images").iterdir())
    check = Compose([config.get_parsed_content(name) for name in ("load", "known")])
    for path in images:
        assert OUTSIDE not in check({"image": str(path)})["image"].meta
    assert len(images) == 3 and "may be none" not in caplog.text


def test_picture_of_another_kind_is_marked_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    check = CheckKnownImaged("image", str(FOLDER / "cdal_cxr" / "configs" / "metadata.json"))
    image = picture(gland_phantom([0, 0])[0].mean(-1, keepdims=True))
    marked = check({"image": image})["image"].meta[OUTSIDE]
    assert marked.startswith("it looks unlike them: a distance of ")
    assert caplog.text.count("may be none of the images that the weights know") == 1


def test_middle_frame_says_what_a_sequence_looks_like(tmp_path: Path) -> None:
    frames = torch.rand(1, 64, 64, 5)
    frames[..., 2] = torch.linspace(0, 1, 64)[:, None]
    known = metadata(tmp_path, alike(*[appearance(frames[..., 2])] * 3))
    check = CheckKnownImaged("image", known, frames=True)
    for places, is_marked in (([0, 1, 2, 3, 4], False), ([2, 2, 0, 2, 2], True)):
        image = MetaTensor(frames[..., places], meta={"filename_or_obj": "beat.nii"})
        assert (OUTSIDE in check({"image": image})["image"].meta) == is_marked


def alike(*numbers: np.ndarray, **others: bool) -> dict:
    """What declares images with such numbers of `appearance`, and marks those that are not."""
    group = Group.fit(np.stack(numbers)).declared()
    return {"appearance": {"alike": group | {"limit": 2.0}}, **others}


def test_pictures_at_another_scale_are_as_the_network_sees_them(tmp_path: Path) -> None:
    image = picture(gland_phantom([0, 0])[0].mean(-1, keepdims=True))
    double = functional.interpolate(image.as_tensor()[None], scale_factor=2, mode="bilinear")[0]
    larger = MetaTensor(double, meta=dict(image.meta))
    own = alike(*[appearance(image.as_tensor())] * 3)
    seen = alike(*[appearance(resized(image.as_tensor()))] * 3, appearance_resized=True)
    for declared, is_marked in ((own, True), (seen, False)):
        check = CheckKnownImaged("image", metadata(tmp_path, declared))
        assert not check.unlike(image)
        assert bool(check.unlike(larger)) == is_marked


def test_volumes_of_other_voxels_are_compared_at_the_size_that_they_are_resampled_to(
    tmp_path: Path,
) -> None:
    coarse = torch.rand(1, 40, 30, 60)
    voxels = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2)
    affine = torch.diag(torch.tensor([0.5, 0.5, 1.5, 1]))
    fine = MetaTensor(voxels, affine=affine)
    turned = MetaTensor(voxels.permute(0, 3, 1, 2), affine=affine[:, [2, 0, 1, 3]])
    declared = alike(*[appearance(coarse)] * 3)
    assert CheckKnownImaged("image", metadata(tmp_path, declared)).unlike(fine)
    declared |= {"voxel_mm": [1, 1, 1.5], "voxel_tolerance": 0.1}
    for image in (fine, turned):
        assert not CheckKnownImaged("image", metadata(tmp_path, declared)).unlike(image)


def test_an_appearance_of_an_older_version_is_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = {"mean": [0.0] * 17, "sd": [0.02] * 17}
    known = metadata(tmp_path, {"appearance": {"images": older}, "appearance_limit": 2.0})
    for _ in range(2):
        assert CheckKnownImaged("image", known).unlike(picture(np.ones((64, 64, 1)))) == ""
    assert caplog.text.count("has an appearance of an older version") == 1
    assert "`ldseg new-bundle` on the same cases writes known_images anew" in caplog.text


def test_an_appearance_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    known = metadata(tmp_path, {"appearance": {"images": {"mean": [0.0], "sd": [1.0]}}})
    with pytest.raises(InputError, match="of images in .*'correlation'.*expected mean, sd"):
        read_known(known)


def test_a_volume_that_is_seen_in_windows_may_be_of_any_size(tmp_path: Path) -> None:
    known = metadata(tmp_path, {"field_of_view_mm": [50, 70], "tilt_degrees": 30})
    large = volume((90, 60, 60))
    (reason,) = CheckKnownImaged("image", known).reasons(large, large.shape[1:])
    assert reason.startswith("its field of view is 90 x 60 x 60 mm, expected 50 to 70 mm")
    check = CheckKnownImaged("image", known, any_field_of_view=True)
    assert list(check.reasons(large, large.shape[1:])) == []
    assert (
        FOLDER.joinpath("ldseg_knee3d/configs/sliding_window.yaml")
        .read_text()
        .count("any_field_of_view: true")
    )


@pytest.mark.parametrize("bundle", BUNDLES)
def test_bundle_says_where_its_ranges_come_from(bundle: str) -> None:
    assert "training" in read_known(str(FOLDER / bundle / "configs" / "metadata.json")).source


SHIPPED_KNEE = FOLDER / "ldseg_knee3d" / "configs" / "metadata.json"


def knee_crop(size: tuple[int, ...], axcodes: str, voxel_mm: Sequence[float]) -> MetaTensor:
    """A knee's intensities in an array of any size, axes and voxels."""
    voxels, _, _ = knee_phantom(0)
    values = np.resize(voxels.ravel(), size)
    header = WrongHeader(size, "RAS", (1, 1, 1), axcodes, voxel_mm)
    affine = torch.as_tensor(header.corrected(np.eye(4)))
    meta = {"filename_or_obj": "knee.nii.gz"}
    return MetaTensor(torch.as_tensor(values).float()[None], affine=affine, meta=meta)


@pytest.mark.parametrize(
    ("size", "axcodes", "voxel_mm"),
    [
        ((240, 104, 160), "LPS", (1, 1, 1)),
        ((240, 104, 160), "PIR", (0.365, 0.365, 0.7)),
        ((160, 104, 240), "LSA", (0.7, 0.365, 0.365)),
        ((110, 88, 38), "RAS", (1, 1, 1)),
    ],
    ids=["as published", "true header", "other axes", "coarse"],
)
def test_knees_are_known_by_the_axes_of_the_body(size, axcodes, voxel_mm) -> None:
    image = knee_crop(size, axcodes, voxel_mm)
    assert list(CheckKnownImaged("image", str(SHIPPED_KNEE)).reasons(image, image.shape[1:])) == []


@pytest.mark.parametrize("axes", ["PIR", "LSA"])
def test_network_sees_a_published_knee_as_it_sees_it_with_a_true_header(
    axes: str, tmp_path: Path
) -> None:
    published = knee_crop((240, 104, 160), "LPS", (1, 1, 1))
    true = knee_crop((240, 104, 160), "PIR", (0.365, 0.365, 0.7))
    seen = []
    config = Bundle(SHIPPED_KNEE.parents[1]).config("train.yaml")
    config["of_image"] = [{**config["load"], "keys": "image"}]
    config["in_order"] = "$@of_image + @image_transforms"
    preprocessing = Compose(config.get_parsed_content("in_order"))
    for name, crop in (("published", published), ("true", Orientation(axes, labels=None)(true))):
        path = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(crop[0].numpy(), crop.affine.numpy()), path)
        seen.append(preprocessing({"image": path})["image"].as_tensor())
    assert seen[0].shape == (1, 256, 128, 128)
    torch.testing.assert_close(*seen, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "axcodes", "voxel_mm", "message"),
    [
        ((160, 160, 110), "PIR", (1, 1, 1), "from up to down its field of view is 160 mm"),
        ((240, 104, 160), "RIP", (0.365, 0.365, 0.7), "from left to right its field of view is 87"),
        ((88, 38, 28), "PIR", (1, 1, 4), "from left to right its voxels are 4 mm, expected 0.25"),
    ],
    ids=["whole knee", "wrong axes", "thick slices"],
)
def test_other_knees_are_not(size, axcodes, voxel_mm, message: str) -> None:
    image = knee_crop(size, axcodes, voxel_mm)
    with pytest.raises(ValueError, match=message):
        CheckKnownImaged("image", str(SHIPPED_KNEE))({"image": image})


def test_misspelt_declaration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known_images of .* has spacing: expected only source"):
        read_known(metadata(tmp_path, {"spacing": [1, 2]}))
    axis = {"field_of_view_mm": {"leftright": [1, 2]}}
    with pytest.raises(ValueError, match="has field_of_view_mm of leftright: expected only left_"):
        read_known(metadata(tmp_path, axis))
    with pytest.raises(ValueError, match="has intensity of mean: expected only low, middle, high"):
        read_known(metadata(tmp_path, {"intensity": {"mean": [1, 2]}}))


def test_mark_is_among_the_results_of_a_client() -> None:
    pred = MetaTensor(torch.zeros(1, 2, 2, 2), meta={OUTSIDE: "its modality is CT"})
    said = SummarizeUncertaintyd("pred")({"pred": pred, "result": {"name": "x"}})["result"]
    assert said == {"name": "x", OUTSIDE: "its modality is CT"}


# Voxel sizes

ONE_MM = {"voxel_mm": [1, 1, 1], "voxel_tolerance": 0.1}


def test_voxels_within_the_tolerance_stay_as_they_are(tmp_path: Path) -> None:
    image = volume((20, 22, 24), np.diag([0.95, 1.0, 1.09, 1]))
    spacing = KnownSpacingd("image", metadata(tmp_path, ONE_MM))
    result = spacing({"image": image})
    assert torch.equal(result["image"], image) and result["image"].affine.equal(image.affine)
    back = spacing.inverse(result)["image"]
    assert torch.equal(back, image) and back.applied_operations == []


@pytest.mark.parametrize("side", [0.5, 0.7, 1.5, 2.0])
def test_other_voxels_are_resampled_and_brought_back_in_place(
    tmp_path: Path, side: float, caplog: pytest.LogCaptureFixture
) -> None:
    affine = tilted(10) @ np.diag([side, -side, side, 1])
    image = volume((40, 44, 48), affine)
    path = metadata(tmp_path, ONE_MM)
    transforms = Compose([KnownSpacingd("image", path), NormalizeIntensityd("image")])
    with caplog.at_level(logging.WARNING):
        data = transforms({"image": image})
        transforms({"image": image.clone()})
    seen = data["image"]
    np.testing.assert_allclose(seen.pixdim, [1, 1, 1], atol=0.02)
    told = f"has voxels of {side:g} x {side:g} x {side:g} mm: resampled to the 1 x 1 x 1 mm"
    assert caplog.text.count(told) == 1

    bright = (seen > seen.max() / 2).to(torch.uint8)  # what a network might say
    data["pred"] = MetaTensor(bright.as_tensor())
    pred = InvertLabeld("pred", transforms)(data)["pred"]
    assert pred.shape == image.shape
    np.testing.assert_allclose(pred.affine, affine, atol=1e-6)
    places = np.indices(image.shape[1:]) - np.reshape(image.shape[1:], (3, 1, 1, 1)) / 2
    ball = np.linalg.norm(places, axis=0) < 8
    found = pred[0].numpy() == 1
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.8
    center = np.argwhere(found).mean(0) - np.argwhere(ball).mean(0)
    assert np.abs(center).max() * side < 0.5 * max(side, 1)  # mm: half of the larger voxel


@pytest.mark.parametrize("shape", [(160, 240, 3), (3, 160, 240), (20, 30, 25), (20, 30, 25, 1)])
def test_array_instead_of_a_file_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    meta = {"spatial_shape": shape[:-1], "original_affine": None}  # as MONAI Label gives it
    image = MetaTensor(torch.rand(shape), meta=meta)
    with pytest.raises(InputError, match="the image is an array of size .*: expected the path of"):
        CheckKnownImaged("image", metadata(tmp_path, KNEE))({"image": image})
