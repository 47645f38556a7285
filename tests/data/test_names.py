"""What cases are called, where their files' names are not enough."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from ldseg_monai.data.names import LONGEST, case_name, name_cases
from ldseg_monai.data.writers import output_name


def test_plain_names_stay_where_they_are_different(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("x/a.nii.gz", "y/b.1.NII.GZ", "z/3.0-T1 AX")]
    assert name_cases(paths, tmp_path) == ["a", "b.1", "3.0-T1 AX"]
    assert [case_name(path) for path in paths] == ["a", "b.1", "3.0-T1 AX"]


def test_a_shared_name_becomes_the_path_below_the_data_set(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("P1/s/t1.nii.gz", "P2/s/t1.nii.gz", "P2/other.nii")]
    assert name_cases(paths, tmp_path) == ["P1_s_t1", "P2_s_t1", "other"]
    assert [case_name(path) for path in paths] == ["P1_s_t1", "P2_s_t1", "other"]
    image = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": paths[1]})
    assert case_name(image) == case_name(image.meta) == "P2_s_t1"


@pytest.mark.parametrize("names", [("a_b/c/x.png", "a/b_c/x.png"), ("i/a.png", "i/a.jpg")])
def test_names_that_meet_all_the_same_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="two files for case .*: expected one; remove one"):
        name_cases([str(tmp_path / name) for name in names], tmp_path)


def test_a_long_path_is_cut_and_stays_one_of_its_own(tmp_path: Path) -> None:
    deep = Path(*["a_long_folder_name_é"] * 15)
    paths = [str(tmp_path / deep / patient / "x.nii.gz") for patient in ("P1", "P2")]
    names = name_cases(paths, tmp_path)
    assert len(set(names)) == 2 and all(len(name.encode()) <= LONGEST for name in names)


def test_a_long_name_of_a_file_leaves_room_for_what_is_written(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{'a' * 240}{end}.nii.gz") for end in "bc"]
    names = name_cases(paths, tmp_path)
    assert len(set(names)) == 2 and all(len(name.encode()) <= LONGEST for name in names)
    assert [case_name(path) for path in paths] == names
    kept = "a" * LONGEST
    assert case_name(str(tmp_path / f"{kept}.nii.gz")) == kept


def test_series_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    folder = str(tmp_path / "study")
    given = {(folder, "1.2"): "study_3", (folder, "1.3"): "study_4"}
    assert name_cases([[folder, "1.2"], [folder, "1.3"]], tmp_path, given) == ["study_3", "study_4"]
    meta = {"filename_or_obj": folder, "dicom_series_uid": "1.3"}
    assert case_name(meta) == case_name([folder, "1.3"]) == "study_4"


@pytest.mark.parametrize("name", ["a.nii.gz", "X.NII.GZ", "3.000000-T1 AX-45123", "a.b.png"])
def test_results_are_called_as_their_case(tmp_path: Path, name: str) -> None:
    save = SaveImage(
        tmp_path, "label", ".nii.gz", separate_folder=False, output_name_formatter=output_name
    )
    path = str(tmp_path / "data" / name)
    save(MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": path}))
    assert (tmp_path / f"{case_name(path)}_label.nii.gz").is_file()
