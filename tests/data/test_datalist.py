from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ldseg_monai.data.datalist import case_name, find_cases, paired_datalist, resolve_datalist
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.data.split import Split, read_groups
from ldseg_monai.runtime.errors import MissingFileError


def part_of(datalist: list, split: str, **rule: Any) -> list:
    """One part of a datalist, by its split."""
    return Split(lambda: datalist, **rule).part(split)


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
    return [
        {key: Path(path).relative_to(root).as_posix() for key, path in item.items()}
        for item in datalist
    ]


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


@pytest.mark.parametrize(
    "end", [".nii", ".nii.gz", ".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".PNG"]
)
@pytest.mark.parametrize("ending", ["", "_anno", "_label", "_gt"])
def test_pairs_by_stem(tmp_path: Path, end: str, ending: str) -> None:
    touch(
        tmp_path,
        f"images/b{end}",
        f"images/a{end}",
        f"labels/a{ending}{end}",
        f"labels/b{ending}{end}",
    )
    assert relative(paired_datalist(tmp_path), tmp_path) == [
        {"image": f"images/{case}{end}", "label": f"labels/{case}{ending}{end}"} for case in "ab"
    ]


def test_image_and_label_may_have_different_formats(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "labels/a.png")
    assert relative(paired_datalist(tmp_path), tmp_path) == [
        {"image": "images/a.jpg", "label": "labels/a.png"}
    ]


def test_ending_that_belongs_to_the_image_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_gt.png", "images/a.png", "labels/a_gt.png", "labels/a.png")
    assert [case_name(i["image"]) for i in paired_datalist(tmp_path)] == ["a", "a_gt"]
    assert all(case_name(i["image"]) == case_name(i["label"]) for i in paired_datalist(tmp_path))


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    hidden = (
        "images/.DS_Store",
        "images/._a.nii.gz",
        "labels/._a.nii.gz",
        "images/notes.txt",
        "grade.csv",
    )
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
        "training": [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
            for n in ("h_2", "h_1")
        ],
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
        (
            {"training": [{"image": "a.png"}]},
            ValueError,
            "number 1 of training, has None as label: expected a Decathlon file",
        ),
        (
            {"training": [{"image": "no.png", "label": "a.png"}]},
            FileNotFoundError,
            "1 of the files that .* lists or asks for do not exist: .*no.png",
        ),
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
        (
            ["images/a.txt", "labels/a.png"],
            FileNotFoundError,
            r"no images in .*images: expected files ending in",
        ),
        (
            ["images/a.png", "images/b.png", "labels/a.png"],
            ValueError,
            r"1 images without label, .*b\.png: expected",
        ),
        (
            ["images/a.png", "labels/b_gt.png", "labels/a.png"],
            ValueError,
            r"1 labels without image, .*b_gt\.png",
        ),
        (
            ["images/a.png", "labels/a.png", "labels/a_gt.png"],
            ValueError,
            r"two labels for image 'a', .*a_gt\.png",
        ),
        (
            ["images/a.png", "images/a.jpg", "labels/a.png"],
            ValueError,
            r"two files for case 'a', .*a\.jpg and .*a\.png",
        ),
        (
            ["images/a.png", "labels/a.png", "labels/a.jpg"],
            ValueError,
            r"two files for case 'a', .*labels",
        ),
    ],
)
def test_bad_folder(tmp_path: Path, names, error, message) -> None:
    touch(tmp_path, *names)
    with pytest.raises(error, match=message):
        paired_datalist(tmp_path)


@pytest.mark.parametrize("where", ["images", "labels"])
@pytest.mark.parametrize("name", ["c.nii.gz", "c", "c.txt"])
def test_a_link_to_nowhere_is_an_error_with_its_name(tmp_path: Path, where: str, name: str) -> None:
    touch(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    (tmp_path / where / name).symlink_to("../.git/annex/objects")
    message = rf"1 links to nowhere: .*{where}/{name} -> \.\./\.git/annex/objects: expected files"
    with pytest.raises(FileNotFoundError, match=message):
        paired_datalist(tmp_path)
    if where == "images":
        for folder in (tmp_path, tmp_path / "images"):
            with pytest.raises(FileNotFoundError, match=message):
                paired_datalist(folder, require_labels=False)


def test_what_is_not_used_is_told_once_with_the_reason(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "ldseg_monai.data")
    touch(
        tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "images/b.mgz", "labels/x.nii.gz/x.nii",
        "images/.DS_Store", "images/Thumbs.db", "grade.csv", "extra/c.nii.gz", "d.nii.gz",
        "dataset.json",
    )  # fmt: skip
    paired_datalist(tmp_path, require_labels=False)
    used, unused = caplog.messages
    assert f"2 (beside images/ and labels/): {tmp_path}/d.nii.gz, {tmp_path}/extra" in unused
    caplog.clear()
    paired_datalist(tmp_path)
    used, unused = caplog.messages
    assert used == f"{tmp_path}: 1 case"
    assert f"1 (not the ending of an image): {tmp_path}/images/b.mgz" in unused
    assert f"1 (a folder, not an image): {tmp_path}/labels/x.nii.gz" in unused
    assert f"2 (beside images/ and labels/): {tmp_path}/d.nii.gz, {tmp_path}/extra" in unused
    assert f"{tmp_path}/dataset.json" in unused
    assert not any(name in unused for name in (".DS_Store", "Thumbs.db", "grade.csv"))


@pytest.mark.parametrize(
    "mask",
    ["a_label.nii.gz", "a_mask.nii.gz", "a_seg.nii", "a-Mask.nii.gz", "mask_a.nii.gz", "a.seg.nii.gz",
     "a_mean.nii.gz", "a_overlay.png", "a_segmentation.nii.gz", "A_SEG.nii.gz", "a_label_v2.nii.gz",
     "a_seg_1.nii", "a-label2.nii.gz", "a_gt_final.nii.gz", "a_dseg.nii.gz", "a_manual1.nii.gz"],
)  # fmt: skip
def test_masks_beside_their_images_are_left_out_and_named(
    tmp_path: Path, mask: str, caplog
) -> None:
    image = "A.nii.gz" if mask.startswith("A") else "a.nii.gz"
    touch(tmp_path, image, mask, "b_seg.nii.gz")
    names = [Path(item["image"]).name for item in paired_datalist(tmp_path, require_labels=False)]
    assert names == [image, "b_seg.nii.gz"]  # which is nobody's mask
    assert f"1 (a mask or map of an image beside it): {tmp_path / mask}" in caplog.text


def test_one_image_is_a_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    path = tmp_path / "a.nii.gz"
    assert resolve_datalist(path, "knee", "", require_labels=False) == [{"image": str(path)}]
    with pytest.raises(ValueError, match="a.nii.gz is one file: expected a folder, since a label"):
        resolve_datalist(path, "knee", "")
    with pytest.raises(ValueError, match="notes.txt is no image: expected a file ending in"):
        resolve_datalist(
            touch(tmp_path, "notes.txt") / "notes.txt", "knee", "", require_labels=False
        )


def test_images_in_folders_below_are_named(tmp_path: Path, caplog) -> None:
    touch(tmp_path, "a.nii.gz", "sub/b.nii.gz")
    assert len(resolve_datalist(tmp_path, "knee", "", require_labels=False, series_uid="")) == 1
    assert f"1 (in a folder of its own: give that as dataset_dir): {tmp_path}/sub/b" in caplog.text
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="no images in .*sub/b.nii.gz"):
        resolve_datalist(tmp_path, "knee", "", require_labels=False, series_uid="")


def test_inference_without_a_data_set_offers_phantoms(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no dataset_dir given: .* --phantoms True for gen"):
        resolve_datalist("", "gland", tmp_path / "out", phantoms=False, require_labels=False)
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: expected a folder"):
        paired_datalist(tmp_path / "nowhere")


def test_at_most_five_names_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "labels/a.png", "images/a.png", *(f"images/x{i}.png" for i in range(8)))
    with pytest.raises(ValueError, match=r"8 images without label, .*x4\.png, \.\.\.: ") as caught:
        paired_datalist(tmp_path)
    assert "x5.png" not in str(caught.value)


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_dataset_dir_means_phantoms_and_says_so_in_one_line(
    tmp_path: Path, caplog, nothing
) -> None:
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


def test_phantoms_of_another_seed_are_not_written_over(tmp_path: Path) -> None:
    (old,) = resolve_datalist(None, "gland", tmp_path, num_phantoms=1, seed=0)
    before = Path(old["image"]).read_bytes()
    with pytest.raises(FileExistsError, match="made of gland phantoms of seed 0.*not of.*seed 1"):
        resolve_datalist(None, "gland", tmp_path, num_phantoms=1, seed=1)
    assert Path(old["image"]).read_bytes() == before


def test_phantom_images_alone(tmp_path: Path) -> None:
    (item,) = resolve_datalist(None, "gland", tmp_path, num_phantoms=1, require_labels=False)
    assert list(item) == ["image"]


def test_given_dataset_dir_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path / "mine", 2)
    assert resolve_datalist(tmp_path / "mine", "gland", tmp_path / "new") == paired_datalist(
        tmp_path / "mine"
    )
    assert not (tmp_path / "new").exists()


def test_misspelt_dataset_dir_never_means_phantoms(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"'.*typo' does not exist.*`ldseg phantom knee --out .*typo`"
    ):
        resolve_datalist(str(tmp_path / "typo"), "knee", str(tmp_path / "new"))
    assert not list(tmp_path.iterdir())


def test_unknown_phantom(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="phantom 'elbow': expected one of knee, hippocampus, tumor"
    ):
        resolve_datalist(None, "elbow", tmp_path)


CASES = [
    {"image": f"images/case_{i:03d}.nii.gz", "label": f"labels/case_{i:03d}.nii.gz"}
    for i in range(12)
]
ONE_GROUP = {f"case_{i:03d}": "a" for i in range(12)}
TWO_GROUPS = {f"case_{i:03d}": "ab"[i % 2] for i in range(12)}


def test_parts_are_disjoint_and_cover_all() -> None:
    train, val = (part_of(CASES, part) for part in ("train", "val"))
    assert len(val) == 3
    assert sorted(train + val, key=lambda item: item["image"]) == CASES


@pytest.mark.parametrize(
    ("num", "fraction", "expected"), [(2, 0.25, 1), (12, 0.5, 6), (10, 0.01, 1), (3, 0.99, 2)]
)
def test_number_of_validation_cases(num: int, fraction: float, expected: int) -> None:
    assert len(part_of(CASES[:num], "val", val_fraction=fraction)) == expected


def test_split_depends_on_the_seed_and_not_on_order_or_folder() -> None:
    shuffled = random.Random(0).sample(CASES, len(CASES))
    moved = [{"image": "/elsewhere/" + item["image"]} for item in shuffled]
    val = part_of(CASES, "val", seed=1)
    assert part_of(shuffled, "val", seed=1) == val
    names = [case_name(item["image"]) for item in val]
    assert [case_name(item["image"]) for item in part_of(moved, "val", seed=1)] == names
    assert len({str(part_of(CASES, "val", seed=seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(("seed", "expected"), [(0, [2, 7, 9]), (1, [4, 8, 11])])
def test_draw_of_single_cases_is_the_recorded_one(seed: int, expected: list[int]) -> None:
    # scores of weights that are shipped are of such draws
    assert part_of(CASES, "val", seed=seed) == [CASES[index] for index in expected]


# Folds and groups

SHUFFLED = random.Random(1).sample(range(85), 85)
PATIENTS = [
    {f"case_{index:03d}": patient for index, patient in enumerate("baabcccbdd")},
    {
        f"case_{SHUFFLED.pop():03d}": str(size)
        for size in (30, 15, 12, 9, 7, 5, 4, 2, 1)
        for _ in range(size)
    },
    {f"case_{index:03d}": str(index // 4) for index in range(32)},
    {f"case_{index:03d}": "twice" if index in (2, 5) else str(index) for index in range(6)},
]
each_patients = pytest.mark.parametrize("groups", PATIENTS)


def cases_of(groups: dict[str, str]) -> list[dict[str, str]]:
    return [{"image": f"images/{name}.png"} for name in sorted(groups)]


def names_of(datalist: list[dict[str, str]]) -> list[str]:
    return [case_name(item["image"]) for item in datalist]


def members(groups: dict[str, str]) -> list[set[str]]:
    return [
        {name for name in groups if groups[name] == group} for group in sorted(set(groups.values()))
    ]


@each_patients
@pytest.mark.parametrize("num_folds", [2, 3, 4])
def test_folds_are_disjoint_cover_all_and_split_no_group(
    groups: dict[str, str], num_folds: int
) -> None:
    folds = []
    for fold in range(num_folds):
        parts = {"fold": fold, "num_folds": num_folds, "groups": groups}
        train, val = (
            names_of(part_of(cases_of(groups), part, **parts)) for part in ("train", "val")
        )
        assert train and val and sorted(train + val) == sorted(groups)
        assert all(group <= set(val) or group.isdisjoint(val) for group in members(groups))
        folds.append(val)
    assert sorted(name for fold in folds for name in fold) == sorted(groups)


@each_patients
@pytest.mark.parametrize("num_folds", [2, 3, 4])
def test_sizes_of_the_folds_differ_by_no_more_than_the_groups_force(
    groups: dict[str, str], num_folds: int
) -> None:
    sizes = [
        len(part_of(cases_of(groups), "val", fold=fold, num_folds=num_folds, groups=groups))
        for fold in range(num_folds)
    ]
    patients = np.array([len(group) for group in members(groups)])
    assert max(sizes) - min(sizes) <= patients.max()
    assignments = np.indices((num_folds,) * len(patients)).reshape(len(patients), -1)
    best = np.max([patients @ (assignments == fold) for fold in range(num_folds)], axis=0).min()
    assert max(sizes) <= best * 4 / 3  # Graham, 1969


@pytest.mark.parametrize("num_folds", [2, 3, 5, 12])
def test_cases_without_groups_are_dealt_out_in_turn(num_folds: int) -> None:
    shuffled = random.Random(0).sample(CASES, len(CASES))
    for fold in range(num_folds):
        assert part_of(shuffled, "val", fold=fold, num_folds=num_folds) == CASES[fold::num_folds]
        alone = {name: name for name in names_of(CASES)}
        assert (
            part_of(CASES, "val", fold=fold, num_folds=num_folds, groups=alone)
            == CASES[fold::num_folds]
        )


def test_folds_do_not_depend_on_the_seed_nor_on_the_order_of_the_groups() -> None:
    groups = PATIENTS[1]
    backward = dict(reversed(groups.items()))
    for fold in range(3):
        parts = {"fold": fold, "num_folds": 3}
        val = part_of(cases_of(groups), "val", **parts, groups=groups)
        assert part_of(cases_of(groups)[::-1], "val", **parts, groups=backward, seed=7) == val


@each_patients
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_draw_takes_whole_groups_and_fills_the_fraction_as_far_as_they_fit(
    groups: dict, fraction: float
) -> None:
    drawn = set()
    for seed in range(20):
        val = set(
            names_of(
                part_of(cases_of(groups), "val", val_fraction=fraction, seed=seed, groups=groups)
            )
        )
        drawn.add(tuple(sorted(val)))
        assert 0 < len(val) < len(groups)
        assert all(group <= val or group.isdisjoint(val) for group in members(groups))
        wanted = min(max(1, round(fraction * len(groups))), len(groups) - 1)
        smallest = min(map(len, members(groups)))
        if smallest > wanted:
            assert len(val) == smallest
            continue
        assert len(val) <= wanted
        assert all(
            len(val) + len(group) > wanted for group in members(groups) if group.isdisjoint(val)
        )
    assert len(drawn) > 1 or fraction == 0.01


def test_cases_of_no_known_group_are_groups_of_their_own_even_if_a_group_has_their_name() -> None:
    groups = {"case_000": "", "case_001": "case_000", "case_002": "case_000", "case_003": ""}
    folds = [part_of(CASES[:4], "val", fold=fold, num_folds=3, groups=groups) for fold in range(3)]
    assert folds == [CASES[1:3], CASES[:1], CASES[3:4]]


@pytest.mark.parametrize("groups", [None, {}])
def test_no_groups_is_a_group_for_each_case(groups: dict | None) -> None:
    assert part_of(CASES, "val", groups=groups) == part_of(CASES, "val")
    assert part_of(CASES, "val", fold=1, groups=groups) == CASES[1::5]


@pytest.mark.parametrize("arguments", [{}, {"fold": 0}, {"val_cases": ["case_001"]}])
@pytest.mark.parametrize("split", ["train", "val"])
def test_groups_of_other_cases_are_refused(split: str, arguments: dict) -> None:
    groups = {f"knee_{index:03d}": "x" for index in range(7, 0, -1)}
    message = (
        "groups are of knee_001, knee_002, knee_003, knee_004, knee_005, ...: "
        "expected case names such as case_000, case_001, case_002, case_003, case_004, ..."
    )
    with pytest.raises(ValueError) as caught:
        part_of(CASES, split, groups=groups, **arguments)
    assert str(caught.value) == message


def test_named_cases_come_before_the_fold_and_the_fold_before_the_draw() -> None:
    together = {
        name: name[:-1] for name in names_of(CASES)
    }  # case_000 to case_009, case_010 and case_011
    named = part_of(
        CASES, "val", val_cases=["case_010", "case_011"], fold=0, num_folds=2, groups=together
    )
    assert named == CASES[10:]
    assert (
        part_of(CASES, "val", fold=1, num_folds=2, groups=together, val_fraction=0.9) == CASES[10:]
    )
    assert part_of(CASES, "val", fold=0, num_folds=2, groups=together, seed=3) == CASES[:10]
    with pytest.raises(ValueError, match="val_cases: unknown case_99"):
        part_of(CASES, "val", val_cases=["case_99"], fold=0)


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize("comma", [",", ", "], ids=["comma", "comma and space"])
def test_groups_are_read_by_the_columns_names(tmp_path: Path, start: str, comma: str) -> None:
    rows = [
        ["name", "patient ID", "grade (GlaS)"],
        ["testA_1", "26", "benign"],
        ["train_2", "4", '"malignant, poor"'],
    ]
    path = tmp_path / "grade.csv"
    path.write_text(start + "".join(comma.join(row) + "\r\n" for row in rows), encoding="utf-8")
    assert read_groups(path, "name", "patient ID") == {"testA_1": "26", "train_2": "4"}
    assert read_groups(str(path), "name", "grade (GlaS)") == {
        "testA_1": "benign",
        "train_2": "malignant, poor",
    }
    assert read_groups(path, "grade (GlaS)", "name") == {
        "benign": "testA_1",
        "malignant, poor": "train_2",
    }


def test_cases_whose_group_is_blank_are_groups_of_their_own(tmp_path: Path) -> None:
    lines = [
        "name, patient ID",
        "case_000, 1",
        "case_001,",
        "case_002, ",
        "case_003",
        "case_004, 1",
        "",
        "case_005,0",
    ]
    (tmp_path / "grade.csv").write_text("\n".join(lines))
    groups = read_groups(tmp_path / "grade.csv", "name", "patient ID")
    assert groups == {
        "case_000": "1", "case_001": "", "case_002": "", "case_003": "", "case_004": "1",
        "case_005": "0",
    }  # fmt: skip
    folds = [part_of(CASES[:6], "val", fold=fold, num_folds=5, groups=groups) for fold in range(5)]
    assert folds == [[CASES[0], CASES[4]], CASES[1:2], CASES[2:3], CASES[3:4], CASES[5:6]]


def test_a_table_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    assert read_groups("", "name", "patient ID") == {}
    for path in (tmp_path / "grade.csv", tmp_path):
        with pytest.raises(FileNotFoundError, match="there is no .* --patients '' if each case"):
            read_groups(path, "name", "patient ID")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "name,grade\na,benign\n",
            r"grade\.csv has columns \['name', 'grade'\]: expected patient ID among them",
        ),
        ("1,2\n", r"has columns \['1', '2'\]: expected name, patient ID among them"),
        ("", r"has columns \[\]: expected name, patient ID among them"),
    ],
)
def test_groups_without_their_columns_are_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "grade.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_groups(tmp_path / "grade.csv", "name", "patient ID")


def test_groups_that_were_read_keep_a_patient_together(tmp_path: Path) -> None:
    lines = [
        "name, patient ID, grade",
        *(f"case_{index:03d}, {index // 6}, benign" for index in range(12)),
    ]
    (tmp_path / "grade.csv").write_text("\n".join(lines))
    groups = read_groups(tmp_path / "grade.csv", "name", "patient ID")
    assert [part_of(CASES, "val", fold=fold, num_folds=2, groups=groups) for fold in (0, 1)] == [
        CASES[:6],
        CASES[6:],
    ]


def test_all_is_every_case_even_if_there_is_but_one() -> None:
    assert part_of(CASES[::-1], "all", val_cases=["case_007"]) == CASES
    assert part_of(CASES[:1], "all") == CASES[:1]


def test_named_validation_cases() -> None:
    val = part_of(CASES, "val", val_cases=["case_007", "case_002"])
    assert val == [CASES[2], CASES[7]]
    assert part_of(CASES, "train", val_cases=["case_007", "case_002"]) == [
        c for c in CASES if c not in val
    ]
    assert part_of(CASES, "val", val_cases="case_007") == [CASES[7]]


def test_validation_cases_may_be_named_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("case_007\r\n\n  case_002\n")
    for name in (tmp_path / "val.txt", str(tmp_path / "val.txt")):
        assert part_of(CASES, "val", val_cases=name) == [CASES[2], CASES[7]]
    with pytest.raises(
        ValueError, match="unknown .*missing.txt; expected names such as .*, or a file of them"
    ):
        part_of(CASES, "val", val_cases=str(tmp_path / "missing.txt"))


@pytest.mark.parametrize(
    ("datalist", "arguments", "message"),
    [
        (CASES, {"split": "tests"}, "split 'tests': expected 'train', 'val', 'test' or 'all'"),
        (CASES[:1], {"split": "val"}, "1 case: expected at least 2"),
        (
            CASES,
            {"split": "val", "val_cases": ["case_001", "case_99"]},
            "unknown case_99; expected names such as case_000",
        ),
        (CASES, {"split": "val", "val_cases": []}, "names 0 of 12 cases: expected at least one"),
        (
            CASES[:1] + CASES[1:2],
            {"split": "val", "val_cases": ["case_000", "case_001"]},
            "names 2 of 2 cases",
        ),
        (
            CASES,
            {"split": "val", "val_fraction": 1.0},
            "val_fraction 1.0: expected a number between 0 and 1",
        ),
        (CASES + CASES[:1], {"split": "val"}, "13 items but 12 case names"),
        (
            CASES,
            {"split": "val", "groups": ONE_GROUP},
            "all 12 cases are of one group: expected at least 2",
        ),
        (
            CASES,
            {"split": "train", "groups": ONE_GROUP, "fold": 0},
            "all 12 cases are of one group",
        ),
        (CASES, {"split": "val", "fold": 5}, "fold 5: expected 0 to 4, or null"),
        (CASES, {"split": "val", "fold": -1}, "fold -1: expected 0 to 4"),
        (CASES, {"split": "val", "fold": 2, "num_folds": 2}, "fold 2: expected 0 to 1"),
        (
            CASES,
            {"split": "val", "fold": 0, "num_folds": 1},
            "num_folds 1: expected 2 to 12, the number of cases",
        ),
        (
            CASES,
            {"split": "val", "fold": 0, "num_folds": 13},
            "num_folds 13: expected 2 to 12, the number of cases",
        ),
        (
            CASES,
            {"split": "val", "fold": 0, "num_folds": 3, "groups": TWO_GROUPS},
            "num_folds 3: expected 2 to 2",
        ),
    ],
)
def test_bad_split(datalist, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        part_of(datalist, **arguments)


def test_the_data_set_is_read_once_and_when_a_part_is_asked_for() -> None:
    reads = []

    def read() -> list[dict[str, str]]:
        reads.append(1)
        return [{"image": f"{name}.png"} for name in "abcd"]

    split = Split(read)
    assert reads == []
    assert len(split.part("train")) + len(split.part("val")) == len(split.part("all")) == 4
    assert reads == [1]


def test_names_that_look_alike_are_one(tmp_path: Path) -> None:
    """A Mac writes an accent as a character of its own, other systems do not."""
    touch(tmp_path, "images/e\u0301.nii.gz", "labels/\u00e9.nii.gz")
    (pair,) = paired_datalist(tmp_path)
    assert case_name(pair["image"]) == "\u00e9"
    touch(tmp_path, "images/\u00e9.nii.gz")
    with pytest.raises(ValueError, match="two files for case"):
        paired_datalist(tmp_path)


def test_the_folder_of_the_images_alone_is_told_the_one_above(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    with pytest.raises(MissingFileError, match=f"images/: expected the folder .* both, {tmp_path}"):
        find_cases(tmp_path / "images")
