from __future__ import annotations

import csv
import errno
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from case_engine import case_engine
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader
from monai.transforms import Compose, Flipd, Lambdad, NormalizeIntensityd, Orientationd
from small_inference import (
    TOO_BRIGHT,
    Done,
    Threshold,
    postprocessing,
    small_evaluator,
    write_images,
)
from torch import nn

from ldseg_monai.data import LoadImageVolumed
from ldseg_monai.evaluation import overlays
from ldseg_monai.evaluation.overlays import SaveOverlay
from ldseg_monai.evaluation.report.handler import Report
from ldseg_monai.evaluation.scores import CaseScores
from ldseg_monai.inference.case_evaluator import (
    ORIGINAL,
    CaseDataset,
    CaseEvaluator,
    CaseLoader,
    FailedCases,
)


def truncate(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:-20])


def refuse(name: str, error: Exception) -> Callable[[Any], Any]:
    """A transform of one case that fails as MONAI's do: from an error that is its first cause."""

    def check(prediction: Any) -> Any:
        if name in str(prediction.meta["filename_or_obj"]):
            raise RuntimeError("applying transform") from error
        return prediction

    return check


@pytest.mark.parametrize("num_workers", [0, 2])
def test_failed_cases_are_logged_at_once_and_listed_after_the_good_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    cases = write_images(tmp_path, "a", "cut", "text", "c", "late", "picture", "z")
    cases[4:4] = write_images(tmp_path, "bright", brightest=TOO_BRIGHT)
    truncate(cases[1]["image"])
    Path(cases[2]["image"]).write_text("no image")
    cases.append({"image": str(tmp_path / "missing.nii.gz")})
    transforms = postprocessing(
        tmp_path / "out", Lambdad("pred", refuse("late", ValueError("not so late")))
    )
    drawn = Done(IterationEvents.MODEL_COMPLETED, {"picture": KeyError("no picture")})
    seen = Done(Events.ITERATION_COMPLETED)
    evaluator = small_evaluator(
        tmp_path / "out",
        cases,
        transforms=transforms,
        val_handlers=[drawn, seen],
        num_workers=num_workers,
    )
    with caplog.at_level(logging.ERROR), pytest.raises(FailedCases) as caught:
        evaluator.run()
    lines = str(caught.value).splitlines()
    assert lines[0] == "6 of 9 cases failed, the others are done:"
    assert "run the same command again" in lines[-1]
    listed = {
        Path(line.split(": ")[0].strip()).name.split(".")[0]: line.split(": ", 1)[1]
        for line in lines[1:-1]
    }
    causes = {
        "bright": "ArithmeticError: too bright",
        "cut": "EOFError: Compressed file ended",
        "late": "ValueError: not so late",
        "missing": "FileNotFoundError: ",
        "picture": "KeyError: 'no picture'",
        "text": "nibabel.filebasedimages.ImageFileError: ",
    }
    assert list(listed) == sorted(causes)
    for name, cause in causes.items():
        assert cause in listed[name], name
        assert (
            len(
                [
                    record
                    for record in caplog.messages
                    if f"{name}.nii.gz: " in record and cause in record
                ]
            )
            == 1
        )
    assert drawn.names == seen.names == ["a", "c", "z"]
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {
        f"{n}_label.nii.gz" for n in ("a", "c", "z", "picture")
    }


def test_one_case_that_fails_is_an_error_too_and_the_next_run_begins_anew(tmp_path: Path) -> None:
    cases = write_images(tmp_path, "a")
    content = Path(cases[0]["image"]).read_bytes()
    truncate(cases[0]["image"])
    evaluator = small_evaluator(tmp_path / "out", cases)
    with pytest.raises(FailedCases, match=r"1 of 1 cases failed:\n .*a\.nii\.gz: EOFError"):
        evaluator.run()
    Path(cases[0]["image"]).write_bytes(content)
    evaluator.run()
    assert (tmp_path / "out" / "a_label.nii.gz").is_file()


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "OUT/b_label.nii.gz"), True),
        (OSError(errno.EROFS, "Read-only file system", "OUT"), True),
        (PermissionError(errno.EACCES, "Permission denied", "/"), True),  # a folder above
        (PermissionError(errno.EACCES, "Permission denied", "/elsewhere/b.nii.gz"), False),
        (OSError(errno.EIO, "Input/output error", "OUT/b_label.nii.gz"), False),
    ],
    ids=["full", "quota", "read-only", "forbidden", "unreadable image", "bad block"],
)
def test_output_folder_that_cannot_be_written_to_stops_the_run(
    tmp_path: Path, error: OSError, stops: bool
) -> None:
    cases, out = write_images(tmp_path, "a", "b", "c"), tmp_path / "out"
    if error.filename is not None:
        error.filename = error.filename.replace("OUT", str(out))
    done = Done(IterationEvents.MODEL_COMPLETED)
    transforms = postprocessing(out, Lambdad("pred", refuse("b.nii", error)))
    evaluator = small_evaluator(out, cases, transforms=transforms, val_handlers=[done])
    with pytest.raises(OSError if stops else FailedCases) as caught:
        evaluator.run()
    assert done.names == (["a"] if stops else ["a", "c"])
    if stops:
        assert caught.value.errno == error.errno
        assert f"output_dir {out} cannot be written to" in str(
            caught.value
        ) and error.strerror in str(caught.value)


def test_file_in_place_of_the_output_folder_stops_the_run(tmp_path: Path) -> None:
    cases, network = write_images(tmp_path, "a", "b"), Threshold()
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match=f"output_dir {tmp_path / 'out'} cannot be written to"):
        small_evaluator(tmp_path / "out", cases, network).run()
    assert network.calls == 1


def test_interrupt_stops_the_run(tmp_path: Path) -> None:
    done = Done(IterationEvents.MODEL_COMPLETED, {"b": KeyboardInterrupt()})
    evaluator = small_evaluator(
        tmp_path / "out", write_images(tmp_path, "a", "b", "c"), val_handlers=[done]
    )
    with pytest.raises(KeyboardInterrupt):
        evaluator.run()
    assert done.names == ["a"] and not evaluator.failures


def test_weights_that_do_not_load_are_an_error_before_the_first_case(tmp_path: Path) -> None:
    network = Threshold()
    torch.save({"other": torch.zeros(1)}, tmp_path / "cut.pt")
    truncate(str(tmp_path / "cut.pt"))
    loader = CheckpointLoader(str(tmp_path / "cut.pt"), {"model": network})
    evaluator = small_evaluator(
        tmp_path / "out", write_images(tmp_path, "a"), network, val_handlers=[loader]
    )
    with pytest.raises(Exception) as caught:
        evaluator.run()
    assert not isinstance(caught.value, (FailedCases, OSError)) and network.calls == 0


def test_batches_of_several_cases_are_refused(tmp_path: Path) -> None:
    loader = DataLoader(CaseDataset(write_images(tmp_path, "a", "b"), None), batch_size=2)
    with pytest.raises(ValueError, match="batches of 2 cases: expected 1"):
        CaseEvaluator(
            output_dir=str(tmp_path),
            device=torch.device("cpu"),
            val_data_loader=loader,
            network=nn.Identity(),
        )


def test_run_without_cases_begins_and_ends(tmp_path: Path) -> None:
    events: list[str] = []
    evaluator = small_evaluator(tmp_path / "out", [])
    for event in (
        Events.STARTED,
        Events.EPOCH_COMPLETED,
        Events.ITERATION_STARTED,
        Events.COMPLETED,
    ):
        evaluator.add_event_handler(event, events.append, event.name)
    evaluator.run()
    assert events == ["STARTED", "EPOCH_COMPLETED", "COMPLETED"]


# Evaluation


def evaluation(folder: Path, bad: str) -> CaseEvaluator:
    """Of three cases, with all handlers; the images or labels of those in ``bad`` are cut short."""
    names = ("a", "b", "c")
    images, labels = (
        write_images(folder / "images", *names),
        write_images(folder / "labels", *names),
    )
    for label in labels:
        volume = (np.indices((6, 7, 8))[0] > 2).astype(np.uint8)
        nib.save(nib.Nifti1Image(volume, np.eye(4)), label["image"])
    cases = [
        {**image, "label": label["image"]} for image, label in zip(images, labels, strict=True)
    ]
    for number, name in enumerate(names):
        if name in bad:
            truncate(cases[number]["label" if name == "b" else "image"])
    out = folder / "out"
    scores = CaseScores(str(out), 2)
    handlers = [SaveOverlay(str(out)), scores, Report(scores, str(folder), str(folder))]
    return small_evaluator(out, cases, val_handlers=handlers)


def test_scores_and_report_of_the_good_cases_are_written_before_the_error(tmp_path: Path) -> None:
    evaluation(tmp_path / "good", "").run()
    with pytest.raises(
        FailedCases, match=r"1 of 3 cases failed, .*\n .*images/b.nii.gz with .*labels/b.nii.gz: "
    ):
        evaluation(tmp_path / "bad", "b").run()
    rows, fewer = (
        (tmp_path / kind / "out" / "metrics.csv").read_text().splitlines()
        for kind in ("good", "bad")
    )
    assert len(rows) == 4 and fewer == [rows[0], rows[1], rows[3]]
    assert json.loads((tmp_path / "bad" / "out" / "summary.json").read_text())["cases"] == 2
    assert "Scores of 2 cases" in (tmp_path / "bad" / "out" / "report.html").read_text()


def test_evaluation_whose_cases_all_fail_lists_them(tmp_path: Path) -> None:
    with pytest.raises(FailedCases, match="3 of 3 cases failed:"):
        evaluation(tmp_path, "abc").run()
    with open(tmp_path / "out" / "metrics.csv", newline="") as file:
        assert list(csv.DictReader(file)) == []


# CaseDataset


def test_good_cases_are_those_of_monais_data_set(tmp_path: Path) -> None:
    cases = write_images(tmp_path, "a", "b")
    assert CaseDataset(cases, None)[1] == Dataset(cases, None)[1] == cases[1]


def test_image_is_kept_as_its_file_has_it(tmp_path: Path) -> None:
    (case,) = write_images(tmp_path, "a")
    steps = [
        LoadImageVolumed("image"),
        Orientationd("image", "RAS", labels=None),
        NormalizeIntensityd("image"),
        Flipd("image", 0),
    ]
    item = CaseDataset([case], Compose(steps))[0]
    file = nib.load(case["image"]).get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(item[ORIGINAL][0].numpy(), file)
    expected = Compose(steps)(case)["image"]
    np.testing.assert_array_equal(item["image"].numpy(), expected.numpy())


def test_picture_is_the_same_without_reading_the_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = write_images(tmp_path, "a")
    item = CaseDataset([case], Compose([LoadImageVolumed("image")]))[0]
    item["pred"] = item["image"] > item["image"].mean()
    reread = {key: value for key, value in item.items() if key != ORIGINAL}
    drawn = []
    for name, one in (("read", reread), ("kept", item)):
        engine = case_engine()
        SaveOverlay(str(tmp_path / name)).attach(engine)
        engine.run([[one]])
        drawn.append((tmp_path / name / "a_overlay.png").read_bytes())
        monkeypatch.setattr(overlays, "load_image", None)  # from here on it cannot be read
    assert drawn[0] == drawn[1]


def test_evaluator_draws_without_reading_the_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlays, "load_image", None)
    cases = write_images(tmp_path, "a", "b")
    evaluator = small_evaluator(tmp_path, cases, val_handlers=[SaveOverlay(str(tmp_path))])
    data = CaseDataset(cases, Compose([LoadImageVolumed("image")]))
    evaluator.data_loader = CaseLoader(data, sampler=range(2))
    evaluator.run()
    drawn = sorted(path.name for path in tmp_path.glob("*.png"))
    assert drawn == ["a_overlay.png", "b_overlay.png"]


# CaseLoader


class Slow(Dataset):
    """Cases that are noted as they are read."""

    def __init__(self, number: int, fails_at: int = -1) -> None:
        super().__init__(list(range(number)))
        self.fails_at = fails_at
        self.read: dict[int, threading.Event] = {}
        for index in range(number):
            self.read[index] = threading.Event()

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        if index == self.fails_at:
            raise OSError(f"{index} fails")
        self.read[index].set()
        return index


def test_next_case_is_read_while_the_engine_is_at_one() -> None:
    data = Slow(4)
    seen = []
    for batch in CaseLoader(data):
        index = int(batch)
        seen.append(index)
        assert index == 3 or data.read[index + 1].wait(10)
        assert index >= 2 or not data.read[index + 2].is_set()
    assert seen == [0, 1, 2, 3]


def test_error_in_the_thread_is_that_of_the_loop() -> None:
    seen = []
    with pytest.raises(OSError, match="2 fails"):
        for batch in CaseLoader(Slow(4, fails_at=2)):
            seen.append(int(batch))
    assert seen == [0, 1]


def test_loop_that_is_left_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = iter(CaseLoader(Slow(4)))
    next(batches)
    batches.close()
    assert threading.active_count() == before
