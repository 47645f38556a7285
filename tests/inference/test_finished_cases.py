from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.engines.utils import IterationEvents
from small_inference import Done, Threshold, postprocessing, small_evaluator, write_images

from ldseg_monai.inference.finished_cases import FinishedCases

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, str]]:
    (tmp_path / "model.pt").write_bytes(b"weights")
    return write_images(tmp_path / "images", *NAMES)


def infer(folder: Path, cases: list[dict[str, str]], **options: Any) -> list[str]:
    """Segment what is left to do into ``folder/out``, and return the names of what was done."""
    out = folder / "out"
    network, transforms = Threshold(options.pop("level", 0.0)), postprocessing(out)
    share = options.pop("share", (0, 1))
    fail = options.pop("fail", None)
    settings = {"network": {"level": network.level}}
    finished = FinishedCases(str(out), cases, [str(folder / "model.pt")], settings, **options)
    done = Done(IterationEvents.MODEL_COMPLETED, fail)
    small_evaluator(
        out,
        cases,
        network,
        transforms,
        sampler=finished.remaining(*share),
        val_handlers=[done, finished],
    ).run()
    return done.names


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in (folder / "out").iterdir()
        if path.name not in ("finished.jsonl", "written.jsonl")
    }


def test_finished_cases_are_left_as_they_are(
    tmp_path: Path, cases: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ldseg_monai"):
        assert infer(tmp_path, cases) == list(NAMES)
        assert "finished already" not in caplog.text
        times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
        assert infer(tmp_path, cases) == []
    assert (
        len(
            [
                message
                for message in caplog.messages
                if "4 of 4 cases are finished already" in message
            ]
        )
        == 1
    )
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times


def replace_image(folder: Path) -> None:
    write_images(folder / "images", "b", brightest=2.0)


def touch_image(folder: Path) -> None:
    os.utime(folder / "images" / "b.nii.gz", ns=(0, 0))


def remove_label(folder: Path) -> None:
    (folder / "out" / "b_label.nii.gz").unlink()


def spoil_note(folder: Path) -> None:
    path = folder / "out" / "finished.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(["17\n", "[]\n", lines[0], lines[1][:50] + "\n", *lines[2:]]))


def replace_weights(folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"WEIGHTS")


@pytest.mark.parametrize(
    ("change", "options", "again"),
    [
        (replace_image, {}, "b"),
        (touch_image, {}, "b"),
        (remove_label, {}, "b"),
        (spoil_note, {}, "b"),
        (replace_weights, {}, "abcd"),
        (None, {"level": 0.5}, "abcd"),
        (None, {"resume": False}, "abcd"),
    ],
)
def test_case_is_done_again_if_anything_that_it_depends_on_changed(
    tmp_path: Path,
    cases: list[dict[str, str]],
    change: Callable[[Path], None] | None,
    options: dict[str, Any],
    again: str,
) -> None:
    infer(tmp_path, cases)
    if change:
        change(tmp_path)
    assert infer(tmp_path, cases, **options) == list(again)
    if options != {"resume": False}:
        assert infer(tmp_path, cases, **options) == []


def test_what_another_hand_changed_is_kept_and_told(
    tmp_path: Path, cases: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    infer(tmp_path, cases)
    corrected = tmp_path / "out" / "b_label.nii.gz"
    corrected.write_bytes(b"corrected by hand")
    replace_weights(tmp_path)
    with caplog.at_level(logging.INFO, "ldseg_monai"):
        assert infer(tmp_path, cases) == ["a", "c", "d"]
        assert corrected.read_bytes() == b"corrected by hand"
        assert (
            f"1 of 4 cases are kept as they are, since these files were changed after they were "
            f"written: {corrected}; --resume False, or --overwrite of ldseg predict, replaces them"
            in caplog.text
        )
        assert infer(tmp_path, cases, resume=False) == list(NAMES)
    assert (
        f"resume is False: replacing 1 file that was changed after being written: {corrected}"
        in caplog.text
    )
    assert corrected.read_bytes() != b"corrected by hand"
    assert infer(tmp_path, cases) == []


def test_file_that_was_only_touched_or_copied_is_no_other_hand_s(
    tmp_path: Path, cases: list[dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    infer(tmp_path, cases)
    os.utime(tmp_path / "out" / "b_label.nii.gz", ns=(0, 0))
    infer(tmp_path, cases)
    assert "kept" not in caplog.text


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("ending", ["label.nii.gz", "seg.dcm", "overlay.png", "mean.nii.gz"])
def test_file_that_this_program_did_not_write_is_refused_before_any_work(
    tmp_path: Path, cases: list[dict[str, str]], ending: str, resume: bool
) -> None:
    foreign = tmp_path / "out" / f"c_{ending}"
    foreign.parent.mkdir()
    foreign.write_bytes(b"years of work")
    with pytest.raises(FileExistsError) as caught:
        infer(tmp_path, cases, resume=resume)
    assert str(caught.value) == (
        f"this would write over {foreign} (not written by this program): expected a folder without "
        "them; choose another output_dir, or move these files away"
    )
    assert list(foreign.parent.iterdir()) == [foreign]
    assert foreign.read_bytes() == b"years of work"


@pytest.mark.parametrize("resume", [True, False])
def test_data_sets_with_equal_names_do_not_meet(
    tmp_path: Path, cases: list[dict[str, str]], resume: bool
) -> None:
    infer(tmp_path, cases[:2])
    first = contents(tmp_path)
    other = write_images(tmp_path / "others", "a", brightest=3.0)
    with pytest.raises(FileExistsError) as caught:
        infer(tmp_path, other, resume=resume)
    assert f"a_label.nii.gz (made of {cases[0]['image']}, not of {tmp_path}/others)" in str(
        caught.value
    )
    assert contents(tmp_path) == first
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert infer(tmp_path, [{"image": str(tmp_path / "link" / "a.nii.gz")}], resume=False) == ["a"]


def test_stopped_run_ends_with_the_files_of_an_uninterrupted_one(
    tmp_path: Path, cases: list[dict[str, str]]
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "images", whole / "images", copy_function=shutil.copy2)
    shutil.copy(tmp_path / "model.pt", whole)
    infer(whole, cases)
    with pytest.raises(KeyboardInterrupt):
        infer(tmp_path, cases, fail={"c": KeyboardInterrupt()})
    with open(tmp_path / "out" / "finished.jsonl", "a") as file:
        file.write('{"case": "c", "orig')  # a process killed while it wrote
    with open(tmp_path / "out" / "written.jsonl", "a") as file:
        file.write('{"file": "d_la')
    assert infer(tmp_path, cases) == ["c", "d"]
    assert contents(tmp_path) == contents(whole)
    assert infer(tmp_path, cases) == []


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_the_cases_whatever_is_finished(
    tmp_path: Path, cases: list[dict[str, str]], world_size: int
) -> None:
    infer(tmp_path, cases[1:2])
    done = [infer(tmp_path, cases, share=(rank, world_size)) for rank in range(world_size)]
    assert sorted(name for part in done for name in part) == ["a", "c", "d"]
    assert max(map(len, done)) <= -(-len(cases) // world_size)
    assert infer(tmp_path, cases) == []


def test_rank_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rank 2 of world_size 2: expected 0 to 1"):
        FinishedCases(str(tmp_path), [], []).remaining(2, 2)


def test_resume_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume is 'false': expected True or False"):
        FinishedCases(str(tmp_path), [], [], resume="false")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "item", [lambda folder: folder, lambda folder: [folder, "1.2.3"]], ids=["folder", "series"]
)
def test_dicom_series_is_known_by_its_files(tmp_path: Path, item: Callable[[str], Any]) -> None:
    (tmp_path / "knee 1").mkdir()
    for number in range(3):
        (tmp_path / "knee 1" / f"{number}.dcm").write_bytes(b"slice")
    cases = [{"image": item(str(tmp_path / "knee 1"))}]

    def origin() -> str:
        return FinishedCases(str(tmp_path), cases, [])._origin(cases[0])

    before = origin()
    assert origin() == before
    os.utime(tmp_path / "knee 1" / "1.dcm", ns=(0, 0))
    assert origin() != before


@pytest.mark.parametrize("data", ["a.raw", "LIST\na.raw", "a%d.raw 1 1 1"])
def test_a_header_is_known_by_its_voxels_too(tmp_path: Path, data: str) -> None:
    header, voxels = tmp_path / "a.mhd", tmp_path / ("a1.raw" if "%" in data else "a.raw")
    header.write_text(f"ObjectType = Image\nElementDataFile = {data}\n")
    voxels.write_bytes(b"voxels")
    cases = [{"image": str(header)}]

    def origin() -> str:
        return FinishedCases(str(tmp_path), cases, [])._origin(cases[0])

    before = origin()
    assert origin() == before
    os.utime(voxels, ns=(0, 0))
    assert origin() != before


def test_a_slide_of_mirax_is_known_by_the_folder_beside_it(tmp_path: Path) -> None:
    head, data = tmp_path / "a.mrxs", tmp_path / "a" / "Data0000.dat"
    data.parent.mkdir()
    for path in (head, data):
        path.write_bytes(b"slide")
    cases = [{"image": str(head)}]

    def origin() -> str:
        return FinishedCases(str(tmp_path), cases, [])._origin(cases[0])

    before = origin()
    os.utime(data, ns=(0, 0))
    assert origin() != before
    before = origin()
    os.utime(head, ns=(0, 0))
    assert origin() != before
