"""Volumes of several channels, in each layout that a data set may have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ldseg_monai.data.channels import count_channels
from ldseg_monai.data.datalist import case_of_channels, find_cases, resolve_datalist
from ldseg_monai.data.loaders import LoadImageVolumed
from ldseg_monai.data.names import case_name, parts_of_channels
from ldseg_monai.data.split import Split
from ldseg_monai.data.trained_cases import TrainedCases

SHAPE = (6, 7, 8)
AFFINE = np.diag([2.0, 1.0, 1.5, 1.0])


def voxels(case: str, channel: int) -> np.ndarray:
    seed = [ord(case), channel]
    return np.random.default_rng(seed).normal(100 * channel, 1, SHAPE).astype(np.float32)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def label(case: str) -> np.ndarray:
    return (voxels(case, 0) > 0).astype(np.uint8)


def in_list(root: Path) -> None:
    """A list of files in a `dataset.json`."""
    entries = []
    for case in "ab":
        for number, name in enumerate(("flair", "t1")):
            save(root / "data" / f"{case}_{name}.nii.gz", voxels(case, number))
        save(root / "data" / f"{case}_seg.nii.gz", label(case))
        images = [f"data/{case}_{name}.nii.gz" for name in ("flair", "t1")]
        entries.append({"image": images, "label": f"data/{case}_seg.nii.gz"})
    (root / "dataset.json").write_text(json.dumps({"training": entries}))


def as_nnunet(root: Path) -> None:
    """Raw folders of nnU-Net."""
    for case in "ab":
        for number in range(2):
            save(root / "imagesTr" / f"{case}_{number:04d}.nii.gz", voxels(case, number))
        save(root / "labelsTr" / f"{case}.nii.gz", label(case))
    content = {"channel_names": {"0": "flair", "1": "t1"}, "labels": {"background": 0, "x": 1},
        "numTraining": 2, "file_ending": ".nii.gz"}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(content))


def in_four_axes(root: Path) -> None:
    """A Decathlon task, as that of brain tumors is."""
    for case in "ab":
        stacked = np.stack([voxels(case, number) for number in range(2)], axis=-1)
        save(root / "imagesTr" / f"{case}.nii.gz", stacked)
        save(root / "labelsTr" / f"{case}.nii.gz", label(case))
    pairs = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        for case in "ab"]  # fmt: skip
    content = {"tensorImageSize": "4D", "modality": {"0": "flair", "1": "t1"}, "training": pairs}
    (root / "dataset.json").write_text(json.dumps(content))


def in_pairs(root: Path) -> None:
    """Folders images/ and labels/."""
    for case in "ab":
        for number in range(2):
            save(root / "images" / f"{case}_{number:04d}.nii.gz", voxels(case, number))
        save(root / "labels" / f"{case}_label.nii.gz", label(case))


LAYOUTS = [in_list, as_nnunet, in_four_axes, in_pairs]


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_same_cases(tmp_path: Path, write: Callable) -> None:
    write(tmp_path)
    cases = resolve_datalist(tmp_path, "", "", channels=2)
    assert [case_name(case["image"]) for case in cases] == ["a", "b"]
    for name, case in zip("ab", cases, strict=True):
        loaded = LoadImageVolumed(["image", "label"], channels=2, num_classes=2)(case)
        np.testing.assert_array_equal(loaded["image"], [voxels(name, 0), voxels(name, 1)])
        np.testing.assert_array_equal(loaded["label"][0], label(name))
        np.testing.assert_array_equal(loaded["image"].affine, AFFINE)
        assert case_name(loaded["image"]) == name


@pytest.mark.parametrize("write", LAYOUTS)
def test_the_folder_may_be_named_from_here(
    tmp_path: Path, write: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert [case_name(case["image"]) for case in find_cases("data")] == ["a", "b"]


@pytest.mark.parametrize("write", [in_list, as_nnunet, in_four_axes])
def test_channels_have_the_names_of_the_data_set(tmp_path: Path, write: Callable) -> None:
    write(tmp_path)
    assert find_cases(tmp_path).channel_names == ["flair", "t1"]


@pytest.mark.parametrize("write", LAYOUTS)
def test_another_number_of_channels_is_refused_before_any_work(
    tmp_path: Path, write: Callable
) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match="a has 2 channels: expected 1, as the network takes; cho"):
        resolve_datalist(tmp_path, "", "")
    with pytest.raises(ValueError, match="a has 2 channels: expected 3, .* in the order of the"):
        resolve_datalist(tmp_path, "", "", channels=3)


def test_files_of_one_channel_are_refused_where_there_are_to_be_two(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.nii.gz", voxels("a", 0))
    with pytest.raises(ValueError, match="a has 1 channel: expected 2, as the network takes; give"):
        resolve_datalist(tmp_path, "", "", require_labels=False, channels=2)


def test_files_of_a_folder_are_grouped_where_there_are_several_channels(tmp_path: Path) -> None:
    in_pairs(tmp_path)
    folder = tmp_path / "images"
    save(folder / "a_label.nii.gz", label("a"))  # of an earlier segmentation
    cases = find_cases(folder, require_labels=False, channels=2)
    assert [case_name(case["image"]) for case in cases] == ["a", "b"]
    assert "a_label.nii.gz" in str(cases.leftovers)
    assert len(find_cases(folder, require_labels=False)) == 5
    given = [folder / f"b_{number:04d}.nii.gz" for number in (1, 0)]
    (case,) = resolve_datalist(given, "", "", require_labels=False, channels=2)
    assert case["image"] == [str(path) for path in reversed(given)]
    assert case_name(case["image"]) == "b"


def test_a_file_of_all_channels_has_one_name_alone_and_in_its_folder(tmp_path: Path) -> None:
    both = np.stack([voxels("a", 0), voxels("a", 1)], axis=-1)
    save(tmp_path / "images" / "a_0000.nii.gz", both)
    save(tmp_path / "images" / "b_0000.nii.gz", both)
    save(tmp_path / "labels" / "a.nii.gz", label("a"))
    save(tmp_path / "labels" / "b.nii.gz", label("a"))
    file = tmp_path / "images" / "a_0000.nii.gz"
    others = [tmp_path / "images" / "b_0000.nii.gz", file]
    assert case_name(resolve_datalist(tmp_path, "", "", channels=2)[0]["image"]) == "a"
    for place in (file, tmp_path / "images", others):
        found = resolve_datalist(place, "", "", require_labels=False, channels=2)
        names = [case_name(case["image"]) for case in found]
        assert sorted(names) == (["a"] if place == file else ["a", "b"])


@pytest.mark.parametrize("removed", ["a_0000", "b_0001"])
@pytest.mark.parametrize("write", [as_nnunet, in_pairs])
def test_a_case_without_one_of_its_channels_is_refused(
    tmp_path: Path, write: Callable, removed: str
) -> None:
    write(tmp_path)
    folder = tmp_path / ("imagesTr" if write is as_nnunet else "images")
    (folder / f"{removed}.nii.gz").unlink()
    message = f"case {removed[0]} has the channels .*: expected 0000 to 0001, a file each"
    if write is as_nnunet or removed == "a_0000":
        with pytest.raises(ValueError, match=message):
            find_cases(tmp_path)
    with pytest.raises(ValueError, match=message):
        find_cases(folder, require_labels=False, channels=2)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (voxels("a", 1)[:-1], AFFINE, "has size .5, 7, 8. and .*: expected the same three axes"),
        (
            voxels("a", 1),
            AFFINE + np.eye(4, k=3) * 4,
            "lies up to .* voxels beside .*: expected the same place",
        ),
        (voxels("a", 1) * np.nan, AFFINE, "channel 1 of .*voxels that are not finite"),
        (voxels("a", 1) * 0, AFFINE, "every voxel of channel 1 of .* is 0"),
    ],
)
def test_a_channel_that_does_not_fit_the_others_is_refused(
    tmp_path: Path, array: np.ndarray, affine: np.ndarray, message: str
) -> None:
    in_pairs(tmp_path)
    save(tmp_path / "images" / "a_0001.nii.gz", array, affine)
    with pytest.raises(Exception, match=message):
        LoadImageVolumed("image", channels=2)(find_cases(tmp_path)[0])


def test_one_channel_may_have_its_number(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a_0000.nii.gz", voxels("a", 0))
    save(tmp_path / "labels" / "a.nii.gz", label("a"))
    (case,) = resolve_datalist(tmp_path, "", "")
    assert case["image"] == str(tmp_path / "images" / "a_0000.nii.gz")
    assert case_name(case["image"]) == "a"


def test_pictures_are_no_channels(tmp_path: Path) -> None:
    for name in ("images/a_0000.png", "images/a_0001.png", "labels/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="case a has 2 files, .*: expected volumes where each is"):
        find_cases(tmp_path)


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    in_pairs(tmp_path)
    save(tmp_path / "images" / "a.nii.gz", voxels("a", 0))
    with pytest.raises(ValueError, match="two images for case 'a'.*: expected one"):
        find_cases(tmp_path / "images", require_labels=False, channels=2)


def test_a_split_and_the_record_of_a_training_know_channels(tmp_path: Path) -> None:
    in_pairs(tmp_path)
    cases = find_cases(tmp_path)
    split = Split(lambda: cases, val_cases=["b"])
    assert [case_name(case["image"]) for case in split.part("train")] == ["a"]
    trained = TrainedCases.of(split.part("train"))
    assert trained.has(cases[0]["image"]) and not trained.has(cases[1]["image"])
    save(tmp_path / "images" / "a_0001.nii.gz", voxels("c", 1))  # another second channel
    assert not trained.has(cases[0]["image"])


@pytest.mark.parametrize(
    ("names", "shared", "rest"),
    [
        (["a_t1", "a_t2"], "a", ["t1", "t2"]),
        (["BraTS-7-t1c", "BraTS-7-t1n"], "BraTS-7", ["t1c", "t1n"]),
        (["x_0000", "x_0001"], "x", ["0000", "0001"]),
        (["t1_x", "t2_x"], "t1_x", ["", ""]),
        (["x", "x"], "x", ["", ""]),
        (["x", "x_t2"], "x", ["", ""]),
    ],
)
def test_a_case_is_called_by_what_its_files_share(
    names: list[str], shared: str, rest: list[str]
) -> None:
    assert parts_of_channels(names) == (shared, rest)


def test_channels_are_counted_by_files_and_headers(tmp_path: Path) -> None:
    save(tmp_path / "one.nii.gz", voxels("a", 0)[..., None])
    save(tmp_path / "four.nii.gz", np.zeros((*SHAPE, 4), np.float32))
    (tmp_path / "text.nii.gz").write_text("no image")
    one, four, text = (str(tmp_path / f"{name}.nii.gz") for name in ("one", "four", "text"))
    assert [count_channels(path) for path in (one, four, text)] == [1, 4, None]
    assert count_channels([one, one, one]) == 3
    assert count_channels([str(tmp_path), "1.2.840.1"]) == 1  # a DICOM series among others


def test_a_case_of_given_files_is_of_volumes_that_are_there(tmp_path: Path) -> None:
    in_list(tmp_path)
    files = [tmp_path / "data" / f"a_{name}.nii.gz" for name in ("t1", "flair")]
    (case,) = case_of_channels(files)
    assert case["image"] == [str(file) for file in files] and case_name(case["image"]) == "a"
    with pytest.raises(FileNotFoundError, match="there is no file .*nowhere.nii.gz"):
        case_of_channels([tmp_path / "nowhere.nii.gz"])
    (tmp_path / "x.png").touch()
    with pytest.raises(ValueError, match="x.png is no volume: expected a file for each channel"):
        case_of_channels([tmp_path / "x.png"])
