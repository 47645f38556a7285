from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from gray_bands import best_band_dice
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ldseg_monai.data.phantoms import files as phantoms
from ldseg_monai.data.phantoms.echo import echo_phantom
from ldseg_monai.data.phantoms.files import phantom_files, phantoms_complete, write_phantoms
from ldseg_monai.data.phantoms.gland import gland_phantom
from ldseg_monai.data.phantoms.hippocampus import hippocampus_phantom
from ldseg_monai.data.phantoms.knee import knee_phantom
from ldseg_monai.data.phantoms.nuclei import nuclei_phantom
from ldseg_monai.data.phantoms.thorax import thorax_phantom
from ldseg_monai.data.phantoms.tumor import tumor_phantom

SEEDS = range(8)


@pytest.fixture(scope="module")
def knees() -> list[tuple[NDArray, NDArray, NDArray]]:
    return [knee_phantom(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def glands() -> list[tuple[NDArray, NDArray]]:
    return [gland_phantom(seed) for seed in SEEDS[:5]]


MAKERS = [
    knee_phantom,
    hippocampus_phantom,
    tumor_phantom,
    gland_phantom,
    nuclei_phantom,
    thorax_phantom,
    echo_phantom,
]


def touching(mask_a: NDArray, mask_b: NDArray) -> int:
    """Number of pixels of one mask that share a face with the other."""
    return int((ndimage.binary_dilation(mask_a) & mask_b).sum())


@pytest.mark.parametrize("make", MAKERS)
def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(make) -> None:
    first, again, other = make(3), make(3), make(4)
    for one, two in zip(first, again, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("make", MAKERS)
def test_global_random_state_is_neither_read_nor_changed(make) -> None:
    np.random.seed(1)
    first, state = make(5), np.random.get_state()[1].copy()
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.random.seed(2)
    state = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(first[0], make(5)[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_knee_arrays_are_what_scanners_and_annotators_write(knees) -> None:
    assert len({image.shape for image, _, _ in knees}) > 1
    for image, label, affine in knees:
        assert (image.dtype, label.dtype, affine.shape) == (np.int16, np.uint8, (4, 4))
        assert image.shape == label.shape
        assert all(abs(n - about) <= 4 for n, about in zip(image.shape, (96, 48, 72), strict=True))
        assert image.min() >= 0 and image.max() > 100
        assert np.unique(label).tolist() == [0, 1, 2]


def test_each_bone_is_one_piece_of_sensible_size(knees) -> None:
    for _, label, _ in knees:
        for bone in (1, 2):
            pieces, _ = ndimage.label(label == bone)
            sizes = np.bincount(pieces.ravel())[1:]
            assert sizes.max() > 0.99 * sizes.sum()
            assert 0.07 < (label == bone).mean() < 0.3


def test_femur_is_superior_to_tibia_in_world_coordinates(knees) -> None:
    for _, label, affine in knees:
        femur, tibia = (
            (affine @ [*ndimage.center_of_mass(label == bone), 1.0])[:3] for bone in (1, 2)
        )
        up = femur - tibia
        assert up[2] > 15.0
        assert up[2] > np.abs(up[:2]).max()


def test_femur_touches_tibia(knees) -> None:
    for _, label, _ in knees:
        assert touching(label == 1, label == 2) >= 20


def test_affine_is_anisotropic_oblique_and_off_the_origin(knees) -> None:
    for image, _, affine in knees:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_allclose(spacing, [0.9, 0.8, 1.5], rtol=0.07)
        cosines = affine[:3, :3] / spacing
        np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-9)
        degrees = np.degrees(np.arccos(np.abs(cosines).max(axis=0)))
        assert (degrees > 1.0).all() and (degrees < 15.0).all()
        center = affine @ [*(np.array(image.shape) - 1) / 2, 1.0]
        assert np.abs(center[:3]).min() >= 15.0


def test_affines_vary_and_some_axes_are_flipped(knees) -> None:
    codes = ["".join(nib.aff2axcodes(affine)) for _, _, affine in knees]
    assert all({*code} & {*pair} for code in codes for pair in ("AP", "SI", "LR"))
    assert {code[1] for code in codes} == {"S", "I"}
    assert len(set(codes)) > 3
    assert len({np.linalg.det(affine) > 0 for _, _, affine in knees}) == 2


def test_no_intensity_rule_finds_the_bones(knees) -> None:
    for image, label, _ in knees:
        assert best_band_dice(image, label == 1) < 0.6
        assert best_band_dice(image, label == 2) < 0.6
        assert best_band_dice(image, label > 0) < 0.75


def test_no_intensity_rule_finds_the_bones_after_smoothing(knees) -> None:
    for image, label, _ in knees:
        smooth = ndimage.gaussian_filter(image.astype(float), 1.5)
        assert max(best_band_dice(smooth, label == bone) for bone in (1, 2)) < 0.7


def test_bone_is_dark_under_bright_cartilage_and_as_dark_as_some_background(knees) -> None:
    for image, label, _ in knees:
        for bone in (1, 2):
            inside = ndimage.binary_erosion(label == bone, iterations=5, border_value=1)
            contact = (label == bone) & ndimage.binary_dilation(label == 3 - bone, iterations=2)
            assert image[contact].mean() > 1.6 * image[inside].mean()
            low, high = np.percentile(image[inside], [20, 80])
            alike = (label == 0) & (image >= low) & (image <= high)
            assert alike.sum() > 0.5 * inside.sum()


def test_gland_arrays(glands) -> None:
    assert len({image.shape for image, _ in glands}) > 1
    for image, label in glands:
        assert image.dtype == np.uint8 and image.shape == (*label.shape, 3)
        assert abs(label.shape[0] - 256) <= 16 and abs(label.shape[1] - 320) <= 16
        count = int(label.max())
        assert np.unique(label).tolist() == list(range(count + 1))
        assert count >= 3
        assert 0.1 < (label > 0).mean() < 0.8


def test_each_gland_is_one_piece_and_some_touch(glands) -> None:
    contacts = 0
    for _, label in glands:
        for number in range(1, label.max() + 1):
            assert ndimage.label(label == number)[1] == 1
            contacts += touching(label == number, label > number) > 0
    assert contacts >= 3


def test_no_color_rule_finds_the_glands(glands) -> None:
    for image, label in glands:
        red, green, blue = np.moveaxis(image.astype(float), -1, 0)
        for channel in (red, green, blue, (red + green + blue) / 3, 128 + red - blue):
            for sigma in (0, 3):
                assert best_band_dice(ndimage.gaussian_filter(channel, sigma), label > 0) < 0.75


def test_gland_is_a_dark_ring_around_a_pale_middle_in_pink_stroma(glands) -> None:
    for image, label in glands:
        depth = ndimage.distance_transform_edt(np.pad(label > 0, 20, mode="edge"))[20:-20, 20:-20]
        ring, middle = (depth > 1) & (depth < 8), depth > 18
        assert image[ring].mean() + 25 < image[middle].mean()
        red, green, blue = image[label == 0].mean(axis=0)
        assert min(red, blue) > green + 20 and red > blue - 15


def test_written_knees_read_back(tmp_path: Path) -> None:
    write_phantoms("knee", tmp_path, 1, seed=7)
    image, label, affine = knee_phantom([7, 0])
    for folder, array, dtype in (("images", image, np.int16), ("labels", label, np.uint8)):
        volume = nib.load(tmp_path / folder / "case_000.nii.gz")
        assert volume.get_data_dtype() == dtype
        np.testing.assert_array_equal(np.asarray(volume.dataobj), array)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        np.testing.assert_allclose(volume.get_qform(), affine, atol=1e-3)


def test_written_glands_read_back(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path, 1, seed=7)
    image, label = gland_phantom([7, 0])
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "images" / "case_000.png")), image
    )
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "labels" / "case_000_anno.png")), label
    )


def test_case_does_not_depend_on_num(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path / "two", 2, seed=1)
    write_phantoms("gland", tmp_path / "three", 3, seed=1)
    for name in ("images/case_001.png", "labels/case_001_anno.png"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    images = {path.read_bytes() for path in (tmp_path / "three" / "images").iterdir()}
    assert len(images) == 3


def test_interrupted_write_leaves_whole_files_and_counts_as_incomplete(
    tmp_path: Path, monkeypatch
) -> None:
    def half_write(path: str, write, *rest) -> None:
        if path.endswith("case_001.png"):

            def break_off(name: str) -> None:
                Path(name).write_bytes(b"half")
                raise KeyboardInterrupt

            write = break_off
        write_whole(path, write, *rest)

    write_whole = phantoms._write_whole
    monkeypatch.setattr(phantoms, "_write_whole", half_write)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms("gland", tmp_path, 2)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["case_000.png"]
    assert not phantoms_complete("gland", tmp_path, 1)

    monkeypatch.undo()
    write_phantoms("gland", tmp_path, 2)
    assert phantoms_complete("gland", tmp_path, 2)


def test_phantoms_of_another_seed_or_changed_ones_stay(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path, 1, seed=1)
    label = tmp_path / "labels" / "case_000_anno.png"
    before = label.read_bytes()
    with pytest.raises(FileExistsError, match="made of gland phantoms of seed 1 .*, not of .*2 "):
        write_phantoms("gland", tmp_path, 1, seed=2)
    write_phantoms("gland", tmp_path, 1, seed=1)
    assert label.read_bytes() == before
    label.write_bytes(b"corrected")
    with pytest.raises(FileExistsError, match=r"case_000_anno.png \(changed after it was written"):
        write_phantoms("gland", tmp_path, 2, seed=1)
    assert label.read_bytes() == b"corrected"


def test_complete_means_same_kind_seed_version_and_every_file(tmp_path: Path, monkeypatch) -> None:
    assert not phantoms_complete("gland", tmp_path, 1)
    write_phantoms("gland", tmp_path, 2, seed=3)
    assert phantoms_complete("gland", tmp_path, 2, seed=3) and phantoms_complete(
        "gland", tmp_path, 1, seed=3
    )
    assert not phantoms_complete("gland", tmp_path, 3, seed=3)
    assert not phantoms_complete("gland", tmp_path, 2, seed=4)
    assert not phantoms_complete("knee", tmp_path, 2, seed=3)
    monkeypatch.setattr(phantoms, "GENERATOR_VERSION", -1)
    assert not phantoms_complete("gland", tmp_path, 2, seed=3)
    monkeypatch.undo()
    (tmp_path / "labels" / "case_001_anno.png").unlink()
    assert not phantoms_complete("gland", tmp_path, 2, seed=3)


def test_manifest_says_what_the_folder_holds(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path, 1, seed=3)
    content = json.loads((tmp_path / "phantoms.json").read_text())
    assert (content["kind"], content["seed"], content["num"], content["complete"]) == (
        "gland",
        3,
        1,
        True,
    )


@pytest.mark.parametrize(("kind", "end"), [("knee", ".nii.gz"), ("gland", "_anno.png")])
def test_labels_stand_in_for_those_of_another_data_set(tmp_path: Path, kind, end) -> None:
    own, others = tmp_path / "own", tmp_path / "others"
    write_phantoms(kind, own, 1)
    write_phantoms(kind, others, 1, label_values=[0, 300])
    arrays = []
    for folder in (own, others):
        path = folder / "labels" / f"case_000{end}"
        arrays.append(
            np.asarray(Image.open(path)) if kind == "gland" else np.asarray(nib.load(path).dataobj)
        )
    np.testing.assert_array_equal(arrays[1], np.where(arrays[0] > 0, 300, 0))
    assert phantoms_complete(kind, others, 1, label_values=[0, 300])
    assert not phantoms_complete(kind, others, 1) and not phantoms_complete(
        kind, own, 1, label_values=[0, 300]
    )


def test_data_of_others_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    mine = tmp_path / "images" / "case_000.png"
    mine.write_text("a patient")
    with pytest.raises(
        ValueError, match=r"already holds 1 other files.*case_000\.png.*choose another folder"
    ):
        write_phantoms("gland", tmp_path, 1)
    assert mine.read_text() == "a patient"


def test_kinds_do_not_mix_in_one_folder(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path, 1)
    with pytest.raises(ValueError, match="already holds 2 other files"):
        write_phantoms("knee", tmp_path, 1)


@pytest.mark.parametrize(
    ("kind", "num", "seed", "message"),
    [
        ("elbow", 1, 0, "phantom 'elbow': expected one of knee, hippocampus, tumor"),
        ("knee", 0, 0, "num 0: expected at least 1"),
        ("knee", 1, -1, "seed -1: expected 0 or more"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(
    tmp_path: Path, kind, num, seed, message
) -> None:
    with pytest.raises(ValueError, match=message):
        write_phantoms(kind, tmp_path / "new", num, seed)
    assert not (tmp_path / "new").exists()


def test_phantom_files_are_what_is_written(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path, 2)
    listed = {path for item in phantom_files("gland", tmp_path, 2) for path in item.values()}
    assert {str(path) for path in tmp_path.glob("*/*")} == listed
