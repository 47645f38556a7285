from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ldseg_monai.data.trained_cases import TrainedCases, cases_file, digest, tell_trained_on


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Three images of different bytes."""
    paths = []
    for name in ("a", "b", "c"):
        paths.append(tmp_path / f"{name}.png")
        paths[-1].write_bytes(name.encode() * 5)
    return paths


def test_digest_is_that_of_the_file_or_of_several_after_each_other(images: list[Path]) -> None:
    assert digest(str(images[0])) == hashlib.sha256(b"aaaaa").hexdigest()
    assert digest([str(path) for path in images[:2]]) == hashlib.sha256(b"aaaaabbbbb").hexdigest()
    folder = images[0].parent / "series"
    folder.mkdir()
    for path in images[:2]:
        path.rename(folder / path.name)
    assert digest(folder) == hashlib.sha256(b"aaaaabbbbb").hexdigest()
    assert digest("nowhere.png") == ""


def test_digest_of_a_header_is_that_of_its_voxels(tmp_path: Path) -> None:
    header = "ObjectType = Image\nElementDataFile = ct.raw\n"
    for patient, voxels in (("1", b"one"), ("2", b"other")):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "ct.mhd").write_text(header)
        (tmp_path / patient / "ct.raw").write_bytes(voxels)
    digests = [digest(str(tmp_path / patient / "ct.mhd")) for patient in "12"]
    assert digests == [hashlib.sha256(voxels).hexdigest() for voxels in (b"one", b"other")]


def test_what_is_written_beside_weights_is_read_again(images: list[Path], tmp_path: Path) -> None:
    weights = tmp_path / "new" / "model.pt"
    trained = TrainedCases.of([{"image": str(path)} for path in images[:2]])
    trained.write(weights)
    assert cases_file(weights).name == "model_cases.json"
    assert [path.name for path in weights.parent.iterdir()] == ["model_cases.json"]
    assert TrainedCases.read(weights) == trained
    listed = json.loads(cases_file(weights).read_text())["cases"]
    assert listed[0] == {"case": "a", "sha256": hashlib.sha256(b"aaaaa").hexdigest()}
    assert TrainedCases.read(tmp_path / "other.pt") is None


def test_a_renamed_file_is_known_and_another_of_the_same_name_is_not(images: list[Path]) -> None:
    trained = TrainedCases.of([{"image": str(path)} for path in images[:2]])
    renamed = images[0].rename(images[0].with_name("renamed.png"))
    assert trained.has(str(renamed)) and trained.has(str(images[1]))
    images[0].write_bytes(b"of other data")
    assert not trained.has(str(images[0])) and not trained.has(str(images[2]))


def test_where_only_a_name_is_known_it_decides(images: list[Path]) -> None:
    trained = TrainedCases(frozenset({("a", "")}), "only names are known")
    assert trained.has(str(images[0])) and not trained.has(str(images[1]))
    told = tell_trained_on(trained, {"a": True, "b": False})
    assert told == "1 of 2 cases were trained on (a); only names are known"
    assert tell_trained_on(None, {"a": False}).endswith("is not known")


def test_cases_of_the_weights_that_a_training_started_from_count(images: list[Path]) -> None:
    first, second = (TrainedCases.of([{"image": str(path)}]) for path in images[:2])
    both = second.joined(first)
    assert both.has(str(images[0])) and both.has(str(images[1]))


def test_what_is_not_known_of_the_weights_of_the_start_is_told_as_theirs(
    images: list[Path], tmp_path: Path
) -> None:
    start = tmp_path / "my_organ" / "models" / "model.pt"
    TrainedCases(frozenset({("b", "")}), "only names are known").write(start)
    both = TrainedCases.of([{"image": str(images[0])}]).started_from(start)
    assert both.has(str(images[0])) and both.has(str(images[1]))
    named = "the weights that it started from, my_organ/models/model.pt"
    assert both.note == f"of {named}: only names are known"
    cases_file(start).unlink()
    assert TrainedCases(frozenset()).started_from(start).note == f"{named}, do not say theirs"


def test_a_client_whose_images_are_no_files_has_no_digests() -> None:
    trained = TrainedCases.of([{"image": "/nowhere/a.nii.gz"}, {"image": object()}])
    assert trained.digests == {("a", ""), ("", "")}


@pytest.mark.parametrize("text", ["{", "[]", '{"cases": [1]}', '{"cases": [{"case": "a"}]}'])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    cases_file(tmp_path / "model.pt").write_text(text)
    with pytest.raises(ValueError, match=r"model_cases.json cannot be read .*copy it again"):
        TrainedCases.read(tmp_path / "model.pt")
