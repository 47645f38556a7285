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
        if path.name != "finished.jsonl"
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


def cut_label(folder: Path) -> None:
    os.truncate(folder / "out" / "b_label.nii.gz", 40)


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
        (cut_label, {}, "b"),
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


def test_files_of_another_run_are_not_taken_for_finished(
    tmp_path: Path, cases: list[dict[str, str]]
) -> None:
    infer(tmp_path, cases[:2])
    first = contents(tmp_path)
    other = write_images(tmp_path / "others", "a", brightest=3.0)
    assert infer(tmp_path, other) == ["a"]  # over the first run's
    assert infer(tmp_path, cases[:2]) == ["a"]
    with pytest.raises(KeyboardInterrupt):  # written, but not noted
        infer(tmp_path, cases[:1], level=0.5, fail={"a": KeyboardInterrupt()})
    assert contents(tmp_path) != first
    assert infer(tmp_path, cases[:2]) == ["a"]
    assert contents(tmp_path) == first


def test_stopped_run_ends_with_the_files_of_an_uninterrupted_one(
    tmp_path: Path, cases: list[dict[str, str]]
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "images", whole / "images", copy_function=shutil.copy2)
    shutil.copy(tmp_path / "model.pt", whole)
    infer(whole, cases)
    with pytest.raises(KeyboardInterrupt):
        infer(tmp_path, cases, fail={"c": KeyboardInterrupt()})
    os.truncate(tmp_path / "out" / "c_label.nii.gz", 40)
    with open(tmp_path / "out" / "finished.jsonl", "a") as file:
        file.write('{"case": "c", "orig')  # a process killed while it wrote
    assert infer(tmp_path, cases) == ["c", "d"]
    assert contents(tmp_path) == contents(whole)


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
