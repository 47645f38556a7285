"""Whose choice the validation part is, and that no patient is in both parts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from ldseg_monai.data.leftovers import Leftovers
from ldseg_monai.data.listed_cases import Cases
from ldseg_monai.data.names import case_name
from ldseg_monai.data.split import Split, match_groups, read_groups
from ldseg_monai.data.trained_cases import TrainedCases

NAMES = [f"case_{index}" for index in range(6)]


def cases(validation: tuple[str, ...] = (), folds: dict[str, int] | None = None) -> Cases:
    listed = Cases([{"image": f"{name}.png"} for name in NAMES], Leftovers())
    listed.validation, listed.folds = set(validation), folds or {}
    return listed


def val_of(listed: Cases, **rule: Any) -> list[str]:
    split = Split(lambda: listed, **rule)
    val = [case_name(item["image"]) for item in split.part("val")]
    train = [case_name(item["image"]) for item in split.part("train")]
    assert sorted(val + train) == NAMES
    return val


def test_the_data_sets_own_validation_list_is_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ldseg_monai.data")
    assert val_of(cases(("case_4", "case_5"))) == ["case_4", "case_5"]
    assert caplog.messages == [
        "split: 4 cases train, 2 validate (the data set's own validation list)"
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [({"val_cases": ["case_0"]}, ["case_0"]), ({"fold": 1, "num_folds": 3}, ["case_1", "case_4"])],
)
def test_what_a_person_chooses_comes_first_and_is_told(
    rule: dict, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ldseg_monai.data")
    assert val_of(cases(("case_4", "case_5")), **rule) == expected
    assert "and not the 2 of the data set's own validation list" in caplog.text


def test_the_data_sets_own_folds_are_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ldseg_monai.data")
    folds = {"case_0": 0, "case_1": 1, "case_2": 1, "case_3": 2}
    assert val_of(cases(folds=folds)) == ["case_0"]
    assert "fold 0, as the data set has it; --fold N takes another" in caplog.text
    assert val_of(cases(folds=folds), fold=1) == ["case_1", "case_2"]
    with pytest.raises(ValueError, match="fold 3: expected one of those .* has, 0, 1, 2"):
        val_of(cases(folds=folds), fold=3)


@pytest.mark.parametrize("given", ["case_1,case_3", "case_1, case_3,", ("case_1", "case_3")])
def test_names_may_be_typed_with_commas(given: Any) -> None:
    assert val_of(cases(), val_cases=given) == ["case_1", "case_3"]


def parts(**rule: Any) -> dict[str, list[str]]:
    split = Split(cases, **rule)
    return {
        part: [case_name(item["image"]) for item in split.part(part)]
        for part in ("train", "val", "test", "all")
    }


def test_cases_that_are_held_back_neither_train_nor_validate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ldseg_monai.data")
    found = parts(test_cases=["case_0", "case_3"], fold=0, num_folds=2)
    assert found["test"] == ["case_0", "case_3"] and found["all"] == NAMES
    assert found["val"] == ["case_1", "case_4"] and found["train"] == ["case_2", "case_5"]
    assert caplog.messages == [
        "split: 2 cases train, 2 validate (fold 0 of 2); 2 test, named by test_cases"
    ]
    drawn = parts(test_cases="case_0,case_3", val_fraction=0.25)
    assert len(drawn["val"]) == 1 and len(drawn["train"]) == 3
    assert sorted(drawn["train"] + drawn["val"] + drawn["test"]) == NAMES


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "part is 'test', and test_cases names none: expected --test_cases FILE,"),
        ({"test_cases": ["case_9"]}, "test_cases: unknown case_9; expected names such as case_0"),
        (
            {"test_cases": NAMES},
            "test_cases names 6 of 6 cases: expected at least one case to test",
        ),
        (
            {"test_cases": NAMES[1:]},
            "1 case: expected at least 2, one to train on and one to valid",
        ),
        (
            {"test_cases": ["case_0"], "val_cases": ["case_0"]},
            "case_0 is in val_cases and in test_",
        ),
        (
            {"test_cases": ["case_0"], "groups": {name: "one" for name in NAMES}},
            r"test part \(named by test_cases\) parts patient one: case_0 would test and case_1",
        ),
    ],
)
def test_what_cannot_be_held_back_is_refused(rule: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parts(**rule)


def test_an_image_that_is_held_back_may_not_train_under_another_name(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / f"{name}.png").write_bytes(content)
    items = [{"image": str(path)} for path in sorted(tmp_path.iterdir())]
    with pytest.raises(ValueError, match=r"same image, and one would test and the other not"):
        Split(lambda: items, test_cases=["a"]).part("train")


def test_a_data_sets_own_lists_leave_out_what_is_held_back() -> None:
    split = Split(lambda: cases(("case_4", "case_5")), test_cases=["case_5"])
    assert [case_name(item["image"]) for item in split.part("val")] == ["case_4"]
    folds = Split(lambda: cases(folds={"case_0": 0, "case_1": 1}), fold=0, test_cases=["case_0"])
    with pytest.raises(ValueError, match="test_cases names all of fold 0"):
        folds.part("train")


PATIENTS = {"case_0": "A", "case_1": "A", "case_2": "B", "case_3": "C", "case_4": "", "case_5": "B"}


@pytest.mark.parametrize(
    ("listed", "rule"),
    [
        (cases(), {"val_cases": ["case_0"]}),
        (cases(("case_1", "case_2", "case_5")), {}),
        (cases(folds={"case_5": 0, "case_2": 1}), {}),
    ],
)
def test_no_choice_may_part_a_patient(listed: Cases, rule: dict) -> None:
    with pytest.raises(ValueError, match="parts patient [AB]: case_. would validate and case_. tr"):
        val_of(listed, groups=PATIENTS, **rule)


def test_whole_patients_may_be_named_and_how_many_are_known_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ldseg_monai.data")
    assert val_of(cases(), val_cases="case_0,case_1", groups=PATIENTS) == ["case_0", "case_1"]
    assert "3 patients are kept together, of 1 case none is known" in caplog.text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "; "])
@pytest.mark.parametrize("form", ["{}", "{}.nii.gz", "images/{}.png", "C:\\data\\{}.PNG", " {} "])
def test_a_table_of_patients_is_read_however_it_was_saved(
    tmp_path: Path, delimiter: str, form: str
) -> None:
    rows = [["name", "age", "patient ID"]]
    rows += [[form.format(name), "7", group] for name, group in PATIENTS.items()]
    path = tmp_path / "patients.csv"
    text = "\r\n".join(delimiter.join(row) for row in rows)
    path.write_text(f"sep={delimiter}\r\n{text}" if delimiter == ";" else text)  # as of Excel
    groups = match_groups(read_groups(path, "name", "patient ID"), NAMES)
    assert groups == {name: group for name, group in PATIENTS.items() if group}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("case_0,A\n", "5 of 6 cases have no patient in the table, case_1"),
        ("case_0,A\ncase_0,B\n", "has case_0 with 'A' and with 'B': expected one patient"),
        ("case_0,A\ncase_0.png,B\n", "'A' and 'B' for case_0: expected one patient"),
        ("case_0,\ncase_1,\n", "patients.csv has nothing under 'patient': expected the patient of"),
        ("0,A\n1,A\n", "groups are of 0, 1: expected case names such as case_0"),
    ],
)
def test_a_table_that_could_let_patients_leak_is_refused(
    tmp_path: Path, rows: str, message: str
) -> None:
    path = tmp_path / "patients.csv"
    path.write_text(f"name,patient\n{rows}")
    with pytest.raises(ValueError, match=message):
        val_of(cases(), groups=lambda: read_groups(path, "name", "patient"))


def test_a_patient_that_is_spelled_in_several_ways_is_one(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("name,patient\na,7\nb,7.0\nc,007\nd,P1\ne,p1\nf,70\ng,7.5\nh,\n")
    groups = read_groups(path, "name", "patient")
    assert len({groups[name] for name in "abc"}) == len({groups[name] for name in "de"}) == 1
    assert len(set(groups.values())) == 5  # 7, P1, 70, 7.5, and the unknown
    path.write_text("name,patient,patient\na,1,2\n")
    with pytest.raises(ValueError, match="patients.csv has 2 columns called patient: expected one"):
        read_groups(path, "name", "patient")


def test_a_table_is_read_when_cases_are_split(tmp_path: Path) -> None:
    split = Split(cases, groups=lambda: read_groups(tmp_path / "no.csv", "name", "patient"))
    assert len(split.part("all")) == 6
    with pytest.raises(FileNotFoundError, match="no.csv"):
        split.part("train")


def test_a_table_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("name,patient\ncase_0,A\n", encoding="utf-16")
    with pytest.raises(ValueError, match="patients.csv is no text in UTF-8"):
        read_groups(tmp_path / "patients.csv", "name", "patient")


# Of weights that are scored


def weights(folder: Path, *trained_on: str, note: str = "") -> Path:
    path = folder / "model.pt"
    TrainedCases(frozenset((name, "") for name in trained_on), note).write(path)
    return path


def test_what_weights_were_not_trained_on_validates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ldseg_monai.data")
    path = weights(tmp_path, "case_1", "case_2", "case_4", "elsewhere", note="nor what before")
    groups = {name: name for name in NAMES} | {"case_0": "case_1"}
    # Whatever the data set's own list says, of which the training knew nothing
    assert val_of(cases(("case_2",)), weights=path, groups=groups) == ["case_0", "case_3", "case_5"]
    assert caplog.messages == [
        "split: 3 of 6 cases validate (those that the weights were not trained on, by "
        "model_cases.json beside them; 1 of them are of patients that they were trained on; nor "
        "what before)"
    ]
    assert val_of(cases(), weights=path, val_cases=["case_1"]) == ["case_1"]
    assert val_of(cases(), weights=path, fold=0, num_folds=3) == ["case_0", "case_3"]


def test_weights_of_other_cases_may_be_scored_on_all(tmp_path: Path) -> None:
    assert val_of(cases(), weights=weights(tmp_path, "elsewhere")) == NAMES
    listed = Cases([{"image": "alone.png"}], Leftovers())
    split = Split(lambda: listed, weights=weights(tmp_path, "elsewhere"))
    assert len(split.part("val")) == 1


def test_no_validation_part_is_drawn_for_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was trained on all of these 6 cases, such as case_0"):
        val_of(cases(), weights=weights(tmp_path, *NAMES))
    unknown = tmp_path / "others.pt"
    with pytest.raises(ValueError, match="others.pt was trained on is not known, since .*others_c"):
        val_of(cases(), weights=unknown)
    assert val_of(cases(("case_4",)), weights=unknown) == ["case_4"]
    assert len(Split(lambda: cases(), weights=unknown).part("all")) == 6


def test_what_no_network_of_an_ensemble_was_trained_on_validates(tmp_path: Path) -> None:
    files = [
        weights(tmp_path / name, *trained_on)
        for name, trained_on in {"a": NAMES[:3], "b": NAMES[2:5], "c": NAMES[5:]}.items()
    ]
    assert val_of(cases(), weights=files[:2]) == NAMES[5:]
    with pytest.raises(ValueError, match="one of .*a/model.pt, .*c/model.pt was trained on each"):
        val_of(cases(), weights=files)
    files.append(tmp_path / "unknown.pt")
    with pytest.raises(ValueError, match="unknown.pt was trained on is not known"):
        val_of(cases(), weights=files)


@pytest.mark.parametrize("is_link", [True, False])
def test_one_image_under_two_names_is_never_in_both_parts(tmp_path: Path, is_link: bool) -> None:
    (tmp_path / "a").write_bytes(b"an image")
    (tmp_path / "b").write_bytes(b"AN image")  # as long, and the same from the middle on
    if is_link:
        (tmp_path / "c").symlink_to("a")
    else:
        (tmp_path / "c").write_bytes(b"an image")
    listed = [{"image": str(tmp_path / name)} for name in "abc"]
    with pytest.raises(ValueError, match="/a and .*/c are the same image, and one would train and"):
        Split(lambda: listed, val_cases=["c"]).part("train")
    val = Split(lambda: listed, val_cases=["a", "c"]).part("val")
    assert [case_name(item["image"]) for item in val] == ["a", "c"]


def test_headers_that_are_alike_are_different_images_by_their_voxels(tmp_path: Path) -> None:
    listed = []
    for name, voxels in (("a", b"one"), ("b", b"other"), ("c", b"one")):
        (tmp_path / name).mkdir()
        header = tmp_path / name / f"{name}.mhd"
        header.write_text("ObjectType = Image\nElementDataFile = ct.raw\n")
        (tmp_path / name / "ct.raw").write_bytes(voxels)
        listed.append({"image": str(header)})
    assert len(Split(lambda: listed[:2], val_cases=["b"]).part("train")) == 1
    with pytest.raises(ValueError, match="/a.mhd and .*/c.mhd are the same image"):
        Split(lambda: listed, val_cases=["c"]).part("train")


@pytest.mark.parametrize("rule", [{"val_cases": "a"}, {"test_cases": "a"}])
def test_images_of_one_label_are_never_in_both_parts(tmp_path: Path, rule: dict) -> None:
    one = tmp_path / "one.nii.gz"
    one.touch()
    listed = [{"image": f"/{name}.nii.gz", "label": str(one)} for name in "ab"]
    listed += [{"image": f"/{name}.nii.gz", "label": f"/{name}_label.nii.gz"} for name in "cd"]
    with pytest.raises(ValueError, match="/a.nii.gz and /b.nii.gz have one label, .*/one.nii.gz"):
        Split(lambda: listed, **rule).part("train")
    assert len(Split(lambda: listed, val_cases="a,b").part("val")) == 2


def test_accents_are_read_however_they_are_written() -> None:
    datalist = [{"image": f"{name}.png"} for name in ("\u00e9", "e\u0301t\u00e9", "b")]
    part = Split(lambda: datalist, val_cases="e\u0301,\u00e9te\u0301").part("val")
    assert [item["image"] for item in part] == ["\u00e9.png", "e\u0301t\u00e9.png"]
    assert match_groups({"e\u0301": "A"}, ["\u00e9"]) == {"\u00e9": "A"}
