"""What a dataset.json lists, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.leftovers import Leftovers
from ldseg_monai.data.listed_cases import Cases, class_names, compare_channel_names
from ldseg_monai.data.names import case_name
from ldseg_monai.data.split import Split


def write(root: Path, content: Any) -> Path:
    """A dataset.json, and an empty file for whatever it lists."""
    (root / "dataset.json").write_text(json.dumps(content))
    lists = content.values() if isinstance(content, dict) else []
    for listed in lists:
        for entry in listed if isinstance(listed, list) else []:
            entry = {"image": entry} if isinstance(entry, str) else entry
            for part in ("image", "label"):
                paths = entry.get(part) or []
                for path in [paths] if isinstance(paths, str) else paths:
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    (root / path).touch()
    return root


def pairs(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz", **more}
        for name in names
    ]


def names_of(cases: Cases) -> list[str]:
    return [case_name(item["image"]) for item in cases]


@pytest.mark.parametrize("key", ["validation", "val"])
def test_a_validation_list_validates(tmp_path: Path, key: str) -> None:
    write(tmp_path, {"training": pairs("a", "b"), key: pairs("c")})
    cases = find_cases(tmp_path)
    assert names_of(cases) == ["a", "b", "c"] and cases.validation == {"c"}
    (val,) = Split(lambda: cases).part("val")
    assert case_name(val["image"]) == "c"


@pytest.mark.parametrize("entry", ["imagesTr/c.nii.gz", {"image": "imagesTr/c.nii.gz"}])
def test_a_validation_without_labels_is_segmented_and_else_named(
    tmp_path: Path, entry: Any
) -> None:
    write(tmp_path, {"training": pairs("a", "b"), "validation": [entry]})
    cases = find_cases(tmp_path)
    assert names_of(cases) == ["a", "b"] and not cases.validation
    expected = "not used: 1 (under validation, without a label): imagesTr/c.nii.gz"
    assert str(cases.leftovers) == expected
    assert names_of(find_cases(tmp_path, require_labels=False)) == ["a", "b", "c"]


@pytest.mark.parametrize("key", ["test", "testing"])
@pytest.mark.parametrize("entry", ["imagesTs/t.nii.gz", *pairs("t")])
def test_a_test_list_is_segmented_and_never_trained_on(
    tmp_path: Path, key: str, entry: Any
) -> None:
    write(tmp_path, {"training": pairs("a", "b"), key: [entry]})
    cases = find_cases(tmp_path)
    assert names_of(cases) == ["a", "b"]
    assert f"under {key}, which is neither trained nor scored on" in str(cases.leftovers)
    assert names_of(find_cases(tmp_path, require_labels=False)) == ["a", "b", "t"]


def test_an_unknown_list_of_cases_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"training": pairs("a"), "holdout": pairs("h"), "tags": ["x"]})
    told = "not used: 1 (under holdout, which is neither training, validation nor test): "
    assert str(find_cases(tmp_path).leftovers) == f"{told}imagesTr/h.nii.gz"


def test_folds_of_cases_are_used(tmp_path: Path) -> None:
    write(tmp_path, {"training": [*pairs("a", fold=0), *pairs("b", "c", fold=1), *pairs("d")]})
    cases = find_cases(tmp_path)
    assert cases.folds == {"a": 0, "b": 1, "c": 1}
    val = Split(lambda: cases, fold=1).part("val")
    assert [case_name(item["image"]) for item in val] == ["b", "c"]
    write(tmp_path, {"training": pairs("a", fold="first")})
    with pytest.raises(ValueError, match="1 of training, has the fold 'first': expected whole num"):
        find_cases(tmp_path)


def test_a_list_of_one_image_is_an_image_and_of_several_its_channels(tmp_path: Path) -> None:
    images = ["imagesTr/a_t1.nii.gz", "imagesTr/a_t2.nii.gz"]
    write(tmp_path, {"training": [{"image": images[:1], "label": "labelsTr/a.nii.gz"}]})
    assert names_of(find_cases(tmp_path)) == ["a_t1"]
    write(tmp_path, {"training": [{"image": images, "label": "labelsTr/a.nii.gz"}]})
    for require_labels in (True, False):
        cases = find_cases(tmp_path, require_labels)
        assert names_of(cases) == ["a"] and cases.channel_names == ["t1", "t2"]
        assert cases[0]["image"] == [str(tmp_path / image) for image in images]
        assert not cases.leftovers


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"image": ["imagesTr/a.png", "imagesTr/b.png"], "label": "labelsTr/a.png"},
            "has 2 files for one image, .*a.png, .*b.png: expected volumes, a file for each",
        ),
        (
            {"image": "imagesTr/a.nii.gz", "label": ["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"]},
            "has 2 files for one label, .*a.nii.gz, .*b.nii.gz: expected one, with a class in",
        ),
    ],
)
def test_pictures_and_labels_are_one_file(tmp_path: Path, entry: dict, message: str) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry]}))
    with pytest.raises(ValueError, match=message):
        find_cases(tmp_path)


def test_a_case_in_two_lists_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"training": pairs("a", "b"), "validation": pairs("b")})
    with pytest.raises(ValueError, match="b.nii.gz under training and under validation: expected"):
        find_cases(tmp_path)


def test_an_image_may_not_be_its_own_label(tmp_path: Path) -> None:
    item = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    write(tmp_path, {"training": [item]})
    for path in item.values():
        (tmp_path / path).write_bytes(b"of both")
    with pytest.raises(ValueError, match="a.nii.gz is the label of .*, and both hold the same"):
        find_cases(tmp_path)
    (tmp_path / item["image"]).write_bytes(b"another")
    assert len(find_cases(tmp_path)) == 1


def test_a_black_image_may_have_an_empty_label(tmp_path: Path) -> None:
    for part in ("images", "labels"):  # equal byte by byte, as of a slice beside the body
        (tmp_path / part).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / part / "a.png")
    assert names_of(find_cases(tmp_path)) == ["a"]
    for part in ("images", "labels"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / part / "a.png")
    with pytest.raises(ValueError, match="both hold the same"):
        find_cases(tmp_path)


def test_cases_of_one_name_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    entries = [{"image": f"{p}/t1.nii.gz", "label": f"{p}/mask.nii.gz"} for p in ("P1", "P2")]
    write(tmp_path, {"training": entries})
    assert names_of(find_cases(tmp_path)) == ["P1_t1", "P2_t1"]


def nnunet(root: Path, *images: str) -> Path:
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "left  atrium": 1},
        "numTraining": 2, "file_ending": ".nii.gz"}  # fmt: skip
    write(root, content)
    for name in ("labelsTr/a.nii.gz", "labelsTr/b_0000.nii.gz", *images):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    return root


def test_a_data_set_of_nnunet_is_found_by_its_folders(tmp_path: Path) -> None:
    images = ("imagesTr/a_0000.nii.gz", "imagesTr/b_0000_0000.nii.gz", "imagesTs/c_0000.nii.gz")
    root = nnunet(tmp_path, *images)
    cases = find_cases(root)
    assert names_of(cases) == ["a", "b_0000"]
    assert cases[1]["label"] == str(root / "labelsTr" / "b_0000.nii.gz")
    assert names_of(find_cases(root, require_labels=False)) == ["a", "b_0000", "c"]
    assert class_names(root / "dataset.json") == {0: "background", 1: "left atrium"}
    assert find_cases(root).channel_names == ["MRI"]
    (root / "imagesTr" / "a_0001.nii.gz").touch()
    with pytest.raises(
        ValueError, match="case a has the channels 0000, 0001, .*: expected 0000, a file each"
    ):
        find_cases(root)


def test_the_file_itself_may_be_given(tmp_path: Path) -> None:
    write(tmp_path, {"training": pairs("a", "b")}).joinpath("dataset.json").rename(
        tmp_path / "d.json"
    )
    assert names_of(find_cases(tmp_path / "d.json")) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"labels": {"0": "background", "1": "left  atrium"}}, {0: "background", 1: "left atrium"}),
        ({"labels": {"background": 0, "femur": 1}}, {0: "background", 1: "femur"}),
        ({"labels": {"background": "0", "femur": "1"}}, {0: "background", 1: "femur"}),
        ({"labels": {"0": "0", "1": "2"}}, {0: "0", 1: "2"}),
        ({"labels": {"background": 0, "femur": 1, "ignore": 2}}, {0: "background", 1: "femur"}),
        ({"labels": {"whole": [1, 2]}}, {}),
        ({"labels": ["background", "femur"]}, {}),
        ({}, {}),
    ],
)
def test_class_names_are_those_of_the_file(tmp_path: Path, content: dict, names: dict) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert class_names(tmp_path / "dataset.json") == names
    assert class_names(tmp_path / "nowhere.json") == {}


@pytest.mark.parametrize("labels", [{"background": 0, "whole": [1, 2]}, ["background", "femur"]])
def test_names_that_cannot_be_used_are_told(
    tmp_path: Path, labels: object, caplog: pytest.LogCaptureFixture
) -> None:
    find_cases(write(tmp_path, {"labels": labels, "training": pairs("a")}))
    assert f"dataset.json has under 'labels' {labels}" in caplog.text


@pytest.mark.parametrize("labels", [{"0": "femur", "1": "Background"}, {"background": 1}])
def test_a_background_that_is_not_0_is_refused(tmp_path: Path, labels: dict) -> None:
    write(tmp_path, {"labels": labels, "training": pairs("a")})
    with pytest.raises(ValueError, match="calls label value 1 .ackground: expected 0 for the"):
        find_cases(tmp_path)
    assert names_of(find_cases(tmp_path, require_labels=False)) == ["a"]


def test_whole_paths_beside_relative_ones_are_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = pairs("a", "b")
    write(tmp_path, {"training": listed})
    whole = {part: str(tmp_path / path) for part, path in listed[1].items()}
    monkeypatch.chdir(tmp_path)
    text = json.dumps({"training": listed[:1], "validation": [whole]})
    (tmp_path / "dataset.json").write_text(text)
    assert not find_cases(".").leftovers
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [*listed, whole]}))
    with pytest.raises(ValueError, match="b.nii.gz under training and under training"):
        find_cases(".")


def test_paths_of_windows_are_read(tmp_path: Path) -> None:
    entries = pairs("a", "b")
    write(tmp_path, {"training": entries})
    windows = [{part: path.replace("/", "\\") for part, path in entry.items()} for entry in entries]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": windows}))
    assert find_cases(tmp_path)[0]["image"] == str(tmp_path / "imagesTr" / "a.nii.gz")


def test_names_of_lists_may_have_capitals(tmp_path: Path) -> None:
    write(tmp_path, {"Training": pairs("a", "b"), "Validation": pairs("c")})
    cases = find_cases(tmp_path)
    assert names_of(cases) == ["a", "b", "c"] and cases.validation == {"c"}


def test_a_validation_that_is_no_list_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"training": pairs("a", "b"), "validation": {"fold_0": pairs("c")}})
    with pytest.raises(ValueError, match="has under validation no list, but .*fold_0.*expected"):
        find_cases(tmp_path)


def test_what_cases_say_beside_their_paths_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"training": [*pairs("a", split="val"), *pairs("b", split="train", site=1)]})
    told = "2 (what cases have beside image, label and fold): site, split"
    assert str(find_cases(tmp_path).leftovers) == f"not used: {told}"


def test_images_beside_listed_ones_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"training": pairs("a"), "test": pairs("t")})
    for name in ("imagesTr/b.nii.gz", "labelsTr/c.nii.gz", "imagesTr/._a.nii.gz", "imagesTr/x.txt"):
        (tmp_path / name).touch()
    told = str(find_cases(tmp_path).leftovers)
    unlisted = f"{tmp_path}/imagesTr/b.nii.gz, {tmp_path}/labelsTr/c.nii.gz"
    assert f"2 (beside listed images, but not listed): {unlisted}" in told


def test_another_number_of_cases_than_is_said_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    find_cases(write(tmp_path, {"training": pairs("a"), "numTraining": 99}))
    assert "has numTraining 99, but lists 1 cases for training: used these" in caplog.text


def test_a_data_set_of_nnunet_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    root = nnunet(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000_0001.nii.gz")
    with pytest.raises(ValueError, match="case b_0000 has the channels 0001, .*: expected 0000, a"):
        find_cases(root)
    (root / "imagesTr" / "b_0000_0001.nii.gz").unlink()
    with pytest.raises(ValueError, match="numTraining 2, and there are 1 cases: expected as many"):
        find_cases(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is no JSON in UTF-8 .*recursion.*: expected a Decathlon file"),
        ('{"training": [],}', "is no JSON in UTF-8 .*line 1 column 1[67]"),
        ("", "is no JSON in UTF-8"),
        ('{"training": 5}', "has under training no list, but '5'"),
        ('[{"image": "a.nii.gz"}]', "holds .*a.nii.gz"),
        ('{"training": [5]}', "has 5 as number 1 of training: expected a Decathlon file"),
        ('{"training": ["a.nii.gz"]}', "number 1 of training, has None as label"),
        ('{"training": [{"image": "", "label": "a"}]}', "number 1 of training, has '' as image"),
        ('{"training": [{"image": [], "label": "a"}]}', r"number 1 of training, has \[\] as image"),
    ],
)
def test_other_json_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=f"dataset.json.*{message}"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "background", "1": "Femur", "2": "tibia "}, ""),
        ({"background": 0, "FEMUR": 1}, ""),
        ({"0": "air", "1": "femur", "2": "tibia", "3": "patella"}, ""),
        ({"0": "background", "1": "fémur", "2": "tibia"}, "1 is fémur there and femur here"),
        ({"1": "tibia", "2": "femur"}, "value 1 tibia, and the bundle's class 1 is femur"),
        ({"1": "cartilage", "2": "femur"}, "value 1 cartilage, and the bundle's class 1 is femur"),
        ({"1": "femur", "2": "patella", "3": "tibia"}, "value 2 patella, and the bundle's class 2"),
    ],
)
def test_class_names_of_the_file_are_compared_with_the_bundles(
    tmp_path: Path, labels: dict, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"labels": labels, "training": pairs("a", "b")})
    own = {0: "background", 1: "femur", 2: "tibia"}
    split = Split(lambda: find_cases(tmp_path, require_labels=True), class_names=own)
    if "bundle's" in message:
        with pytest.raises(ValueError, match=message):
            split.part("all")
        return
    assert names_of(split.part("all")) == ["a", "b"]
    assert message in caplog.text
    assert bool(caplog.messages) == bool(message)


def test_channels_named_by_their_files_are_compared_with_the_bundles() -> None:
    cases = Cases([{"image": ["/a_t2.nii.gz", "/a_t1.nii.gz"]}], Leftovers())
    compare_channel_names(cases, ["t2", "t1"])
    compare_channel_names(cases, ["dwi", "adc"])  # which say nothing of these
    with pytest.raises(ValueError, match="/a_t1.nii.gz has the channels t2, t1, and the bundle"):
        compare_channel_names(cases, ["T1", "T2"])
    numbered = Cases([{"image": ["/a_0000.nii.gz", "/a_0001.nii.gz"]}], Leftovers())
    compare_channel_names(numbered, ["0001", "0000"])


def test_names_are_read_beside_folders_of_pairs_too(tmp_path: Path) -> None:
    for name in ("images/a.nii.gz", "labels/a.nii.gz", "images/b.nii.gz", "labels/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    content = {"labels": {"0": "background", "1": "tibia", "2": "femur"}, "modality": {"0": "T1"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    own = {0: "background", 1: "femur", 2: "tibia"}
    split = Split(lambda: find_cases(tmp_path, require_labels=True), class_names=own)
    with pytest.raises(ValueError, match="value 1 tibia, and the bundle's class 1 is femur"):
        split.part("all")
    cases = find_cases(tmp_path, require_labels=False)
    assert cases.channel_names == ["T1"] and names_of(cases) == ["a", "b"]
    (tmp_path / "dataset.json").write_text("no JSON")
    assert names_of(find_cases(tmp_path)) == ["a", "b"]
