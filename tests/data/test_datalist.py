from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest

from ldseg_monai.data.datalist import case_name, paired_datalist, resolve_datalist, split_datalist
from ldseg_monai.data.phantoms import write_phantoms


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_decathlon(root: Path, content: object, *names: str) -> Path:
    touch(root, "dataset.json", *names)
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def relative(datalist: list[dict[str, str]], root: Path) -> list[dict[str, str]]:
    return [{key: Path(path).relative_to(root).as_posix() for key, path in item.items()} for item in datalist]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/case_001.nii.gz", "case_001"),
        ("case.1.nii", "case.1"),
        ("train_1_anno.PNG", "train_1_anno"),
        ("x.jpeg", "x"),
        ("series.7", "series.7"),
    ],
)
def test_case_name(path: str, name: str) -> None:
    assert case_name(path) == name
    assert case_name(Path(path)) == name


@pytest.mark.parametrize("end", [".nii", ".nii.gz", ".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".PNG"])
@pytest.mark.parametrize("ending", ["", "_anno", "_label", "_gt"])
def test_pairs_by_stem(tmp_path: Path, end: str, ending: str) -> None:
    touch(tmp_path, f"images/b{end}", f"images/a{end}", f"labels/a{ending}{end}", f"labels/b{ending}{end}")
    assert relative(paired_datalist(tmp_path), tmp_path) == [
        {"image": f"images/{case}{end}", "label": f"labels/{case}{ending}{end}"} for case in "ab"
    ]


def test_image_and_label_may_have_different_formats(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "labels/a.png")
    assert relative(paired_datalist(tmp_path), tmp_path) == [{"image": "images/a.jpg", "label": "labels/a.png"}]


def test_ending_that_belongs_to_the_image_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_gt.png", "images/a.png", "labels/a_gt.png", "labels/a.png")
    assert [case_name(i["image"]) for i in paired_datalist(tmp_path)] == ["a", "a_gt"]
    assert all(case_name(i["image"]) == case_name(i["label"]) for i in paired_datalist(tmp_path))


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    hidden = ("images/.DS_Store", "images/._a.nii.gz", "labels/._a.nii.gz", "images/notes.txt", "grade.csv")
    touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", *hidden)
    assert len(paired_datalist(tmp_path)) == 1


def test_images_alone_when_labels_are_not_required(tmp_path: Path) -> None:
    touch(tmp_path / "laid_out", "images/b.png", "images/a.png", "labels/a.png")
    touch(tmp_path / "flat", "b.png", "a.png", "readme.txt")
    for folder, prefix in ((tmp_path / "laid_out", "images/"), (tmp_path / "flat", "")):
        listed = relative(paired_datalist(folder, require_labels=False), folder)
        assert listed == [{"image": f"{prefix}a.png"}, {"image": f"{prefix}b.png"}]


def test_decathlon(tmp_path: Path) -> None:
    content = {
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("h_2", "h_1")],
        "test": ["./imagesTs/h_3.nii.gz"],
    }
    files = [f"{folder}/h_{n}.nii.gz" for folder in ("imagesTr", "labelsTr") for n in (1, 2)]
    write_decathlon(tmp_path, content, *files, "imagesTs/h_3.nii.gz")
    assert relative(paired_datalist(tmp_path), tmp_path) == [
        {"image": f"imagesTr/h_{n}.nii.gz", "label": f"labelsTr/h_{n}.nii.gz"} for n in (1, 2)
    ]
    images = relative(paired_datalist(tmp_path, require_labels=False), tmp_path)
    assert images == [{"image": f"images{part}.nii.gz"} for part in ("Tr/h_1", "Tr/h_2", "Ts/h_3")]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"test": []}, ValueError, "dataset.json.*expected a Decathlon file whose 'training'"),
        ([], ValueError, "expected a Decathlon file"),
        ({"training": [{"image": "a.png"}]}, ValueError, "KeyError 'label'; expected a Decathlon file"),
        ({"training": [{"image": "no.png", "label": "a.png"}]}, FileNotFoundError, "1 files listed.*no.png"),
        ({"training": []}, FileNotFoundError, "lists no images"),
    ],
)
def test_bad_decathlon_file(tmp_path: Path, content, error, message) -> None:
    write_decathlon(tmp_path, content, "a.png")
    with pytest.raises(error, match=message):
        paired_datalist(tmp_path)


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], FileNotFoundError, r"no folder images/: lay the data out as images/ and labels/"),
        (["images/a.png"], FileNotFoundError, r"no folder labels/"),
        (["images/a.txt", "labels/a.png"], FileNotFoundError, r"no images in .*images: expected files ending in"),
        (["images/a.png", "images/b.png", "labels/a.png"], ValueError, r"1 images without label, .*b\.png: expected"),
        (["images/a.png", "labels/b_gt.png", "labels/a.png"], ValueError, r"1 labels without image, .*b_gt\.png"),
        (["images/a.png", "labels/a.png", "labels/a_gt.png"], ValueError, r"two labels for image 'a', .*a_gt\.png"),
        (
            ["images/a.png", "images/a.jpg", "labels/a.png"],
            ValueError,
            r"two files for case 'a', .*a\.jpg and .*a\.png",
        ),
        (["images/a.png", "labels/a.png", "labels/a.jpg"], ValueError, r"two files for case 'a', .*labels"),
    ],
)
def test_bad_folder(tmp_path: Path, names, error, message) -> None:
    touch(tmp_path, *names)
    with pytest.raises(error, match=message):
        paired_datalist(tmp_path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: expected a folder"):
        paired_datalist(tmp_path / "nowhere")


def test_at_most_five_names_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "labels/a.png", "images/a.png", *(f"images/x{i}.png" for i in range(8)))
    with pytest.raises(ValueError, match=r"8 images without label, .*x4\.png, \.\.\.: ") as caught:
        paired_datalist(tmp_path)
    assert "x5.png" not in str(caught.value)


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_dataset_dir_means_phantoms_and_says_so_in_one_line(tmp_path: Path, caplog, nothing) -> None:
    out = tmp_path / "phantoms"
    with caplog.at_level(logging.WARNING, logger="ldseg_monai.data"):
        datalist = resolve_datalist(nothing, "gland", out, num_phantoms=2, seed=1)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.name == "ldseg_monai.data"
    assert "no dataset_dir" in record.getMessage() and str(out) in record.getMessage()
    assert datalist == paired_datalist(out)
    assert len(datalist) == 2


def test_phantoms_are_written_once_and_completed_when_incomplete(tmp_path: Path) -> None:
    first = resolve_datalist(None, "gland", tmp_path, num_phantoms=2)
    times = {path: Path(path).stat().st_mtime_ns for item in first for path in item.values()}
    assert resolve_datalist(None, "gland", tmp_path, num_phantoms=2) == first
    assert resolve_datalist(None, "gland", tmp_path, num_phantoms=1) == first[:1]
    assert {path: Path(path).stat().st_mtime_ns for path in times} == times
    content = Path(first[1]["label"]).read_bytes()
    Path(first[1]["label"]).unlink()
    assert resolve_datalist(None, "gland", tmp_path, num_phantoms=2) == first
    assert Path(first[1]["label"]).read_bytes() == content
    assert len(resolve_datalist(None, "gland", tmp_path, num_phantoms=3)) == 3


def test_phantoms_of_another_seed_replace_the_old(tmp_path: Path) -> None:
    (old,) = resolve_datalist(None, "gland", tmp_path, num_phantoms=1, seed=0)
    before = Path(old["image"]).read_bytes()
    (new,) = resolve_datalist(None, "gland", tmp_path, num_phantoms=1, seed=1)
    assert new == old and Path(new["image"]).read_bytes() != before


def test_phantom_images_alone(tmp_path: Path) -> None:
    (item,) = resolve_datalist(None, "gland", tmp_path, num_phantoms=1, require_labels=False)
    assert list(item) == ["image"]


def test_given_dataset_dir_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path / "mine", 2)
    assert resolve_datalist(tmp_path / "mine", "gland", tmp_path / "new") == paired_datalist(tmp_path / "mine")
    assert not (tmp_path / "new").exists()


def test_misspelt_dataset_dir_never_means_phantoms(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'.*typo' does not exist.*`ldseg phantom knee --out .*typo`"):
        resolve_datalist(str(tmp_path / "typo"), "knee", str(tmp_path / "new"))
    assert not list(tmp_path.iterdir())


def test_unknown_phantom(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="phantom 'elbow': expected one of knee, gland"):
        resolve_datalist(None, "elbow", tmp_path)


CASES = [{"image": f"images/case_{i:03d}.nii.gz", "label": f"labels/case_{i:03d}.nii.gz"} for i in range(12)]


def test_parts_are_disjoint_and_cover_all() -> None:
    train, val = (split_datalist(CASES, part) for part in ("train", "val"))
    assert len(val) == 3
    assert sorted(train + val, key=lambda item: item["image"]) == CASES


@pytest.mark.parametrize(("num", "fraction", "expected"), [(2, 0.25, 1), (12, 0.5, 6), (10, 0.01, 1), (3, 0.99, 2)])
def test_number_of_validation_cases(num: int, fraction: float, expected: int) -> None:
    assert len(split_datalist(CASES[:num], "val", val_fraction=fraction)) == expected


def test_split_depends_on_the_seed_and_not_on_order_or_folder() -> None:
    shuffled = random.Random(0).sample(CASES, len(CASES))
    moved = [{"image": "/elsewhere/" + item["image"]} for item in shuffled]
    val = split_datalist(CASES, "val", seed=1)
    assert split_datalist(shuffled, "val", seed=1) == val
    names = [case_name(item["image"]) for item in val]
    assert [case_name(item["image"]) for item in split_datalist(moved, "val", seed=1)] == names
    assert len({str(split_datalist(CASES, "val", seed=seed)) for seed in range(5)}) > 1


def test_named_validation_cases() -> None:
    val = split_datalist(CASES, "val", val_cases=["case_007", "case_002"])
    assert val == [CASES[2], CASES[7]]
    assert split_datalist(CASES, "train", val_cases=["case_007", "case_002"]) == [c for c in CASES if c not in val]


@pytest.mark.parametrize(
    ("datalist", "arguments", "message"),
    [
        (CASES, {"split": "test"}, "split 'test': expected 'train' or 'val'"),
        (CASES[:1], {"split": "val"}, "1 case: expected at least 2"),
        (
            CASES,
            {"split": "val", "val_cases": ["case_001", "case_99"]},
            "unknown case_99; expected names such as case_000",
        ),
        (CASES, {"split": "val", "val_cases": []}, "names 0 of 12 cases: expected at least one"),
        (CASES[:1] + CASES[1:2], {"split": "val", "val_cases": ["case_000", "case_001"]}, "names 2 of 2 cases"),
        (CASES, {"split": "val", "val_fraction": 1.0}, "val_fraction 1.0: expected a number between 0 and 1"),
        (CASES + CASES[:1], {"split": "val"}, "13 items but 12 case names"),
    ],
)
def test_bad_split(datalist, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        split_datalist(datalist, **arguments)
