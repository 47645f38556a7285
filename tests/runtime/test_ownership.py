"""Whose a file is, and which command has a folder."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prepared_python import Command

from ldseg_monai.runtime.errors import BusyFolderError, ExistingFileError, LostFolderError
from ldseg_monai.runtime.files import save_whole, whole_file
from ldseg_monai.runtime.ownership import (
    CHANGED,
    FREE,
    LOCK,
    NOTES,
    OTHERS,
    OWN,
    UNKNOWN,
    claim,
    claim_of,
    copy_folder,
    release_folders,
    require_new,
    take_folder,
    whose,
)


@pytest.fixture(autouse=True)
def no_claims():
    yield
    release_folders()


def write(path: Path, text: str, of: str | None = "image") -> None:
    with whole_file(path, of) as hidden:
        Path(hidden).write_text(text)


def test_whose_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "mask"
    assert whose(path, "image") == FREE
    write(path, "mask")
    assert whose(path, "image") == OWN
    assert whose(path, "other") == OTHERS
    os.utime(path, ns=(0, 0))
    assert whose(path, "image") == OWN
    path.write_text("MASK")  # of the same size
    assert whose(path, "image") == CHANGED
    (tmp_path / "stranger").touch()
    assert whose(tmp_path / "stranger", "image") == UNKNOWN
    (tmp_path / "link").symlink_to("nowhere")
    assert whose(tmp_path / "link", "image") == UNKNOWN
    (tmp_path / "folder").mkdir()
    assert whose(tmp_path / "folder", "image") == UNKNOWN


def test_a_change_that_keeps_size_and_time_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mask"
    write(path, "mask")
    then = path.stat().st_mtime_ns
    path.write_text("MASK")
    os.utime(path, ns=(then, then))
    with pytest.raises(ExistingFileError, match="mask .changed after it was written"):
        write(path, "new")
    assert path.read_text() == "MASK"


def test_own_file_is_written_over_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "mask"
    write(path, "first")
    write(path, "second")
    assert path.read_text() == "second"
    with pytest.raises(ExistingFileError, match=r"mask \(made of image, not of other\)"):
        write(path, "third", "other")
    path.write_text("by hand")
    with pytest.raises(ExistingFileError, match=r"mask \(changed after it was written\)"):
        write(path, "third")
    assert path.read_text() == "by hand"
    (tmp_path / NOTES).unlink()
    with pytest.raises(ExistingFileError, match=r"mask \(not written by this program\)"):
        write(path, "third")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask"]


def test_command_killed_between_note_and_file_leaves_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    write(path, "first")

    def killed(*arguments: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        write(path, "second")
    assert path.read_text() == "first" and whose(path, "image") == OWN
    write(path, "third")


def test_client_without_a_claim_writes_as_it_asks(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("shipped")
    save_whole({}, path)
    assert path.read_bytes() != b"shipped"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("kind", ["write", "device"])
def test_write_that_fails_leaves_nothing_half(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "mask", "whole")
    with pytest.raises(OSError, match=r"mask cannot be written \(No space left on device\)"):
        with whole_file(tmp_path / "mask", "image") as hidden:
            if kind == "device":  # always full
                os.symlink("/dev/full", hidden)
                with open(hidden, "w") as file:
                    file.write("half")
                    file.flush()
            Path(hidden).write_text("half")
            raise OSError(28, "No space left on device")
    assert (tmp_path / "mask").read_text() == "whole"
    assert {entry.name for entry in tmp_path.iterdir()} == {"mask", NOTES}


def test_weights_that_do_not_fit_on_the_disk_name_their_file(tmp_path: Path) -> None:
    """PyTorch's own error is of the end of the file, and names nothing."""
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"model.pt cannot be written \(File too large\): make"):
            save_whole({"weight": torch.zeros(100_000)}, tmp_path / "model.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    assert list(tmp_path.iterdir()) == []


def test_tools_take_new_names_only(tmp_path: Path) -> None:
    require_new(tmp_path / "new")
    (tmp_path / "old").symlink_to("nowhere")
    with pytest.raises(ExistingFileError, match="old is there already: expected a new name"):
        require_new(tmp_path / "old")


def test_of_two_tools_at_once_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.ts"
    with pytest.raises(ExistingFileError, match="is there already: expected a new name"):
        with whole_file(path, new=True) as hidden:
            Path(hidden).write_text("the second tool's")
            path.write_text("the first tool's")  # which began later, and is ready before
    assert path.read_text() == "the first tool's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file; expected a folder"):
        require_new(tmp_path / "file" / "new" / "a.zip")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    for name in ("a.zip", "new/a.zip"):
        with pytest.raises(PermissionError, match=f"{tmp_path} is read-only; expected a folder"):
            require_new(tmp_path / name)


# Folders

HOLD = """
import sys, time
from ldseg_monai.runtime.ownership import claim
claim(sys.argv[1], "images", sys.argv[2], int(sys.argv[3])).take()
print("taken", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder: Path, command: str, rank: int) -> Iterator[Command]:
    """A process that holds the folder until it is killed."""
    (folder.parent / "hold.py").write_text(HOLD)
    with Command("hold", str(folder), command, str(rank), cwd=folder.parent) as process:
        process.wait_until(lambda: process.printed == "taken\n", "the folder")
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def test_folder_is_of_one_command_whose_processes_share_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with holder(folder, "infer", 0) as process:
        owner = json.loads((folder / LOCK).read_text())
        with pytest.raises(BusyFolderError) as caught:
            claim(folder, "images", "another")
        assert str(caught.value).startswith(
            f"output_dir {folder} is in use (process {process.pid} on {owner['host']} since "
        )
        with pytest.raises(BusyFolderError):
            claim(folder, "images", "infer", 0)
        claim(folder, "images", "infer", 1).take()
    claim(folder, "images", "another").take()  # a killed process keeps nothing
    release_folders()
    assert not (folder / LOCK).exists()


def test_claim_alone_writes_nothing_and_goes_with_its_empty_folder(tmp_path: Path) -> None:
    claim(tmp_path / "out", "images", "infer")
    assert not (tmp_path / "out").exists()
    take_folder(tmp_path / "out")
    assert (tmp_path / "out" / LOCK).is_file()
    release_folders()
    assert claim_of(tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


def test_what_a_command_writes_is_of_its_data(tmp_path: Path) -> None:
    claim(tmp_path, "images", "evaluate")
    write(tmp_path / "metrics.csv", "rows", None)
    assert whose(tmp_path / "metrics.csv", "images") == OWN
    claim(tmp_path, "others", "evaluate")
    with pytest.raises(ExistingFileError, match="made of images, not of others"):
        write(tmp_path / "metrics.csv", "rows", None)


def test_half_files_of_killed_runs_go(tmp_path: Path) -> None:
    (tmp_path / ".partial.17.mask.nii.gz").touch()
    claim(tmp_path, "images", "infer").take()
    assert [entry.name for entry in tmp_path.iterdir()] == [LOCK]


def test_folder_removed_in_the_middle_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    claim(folder, "images", "infer").take()
    (folder / LOCK).unlink()
    folder.rmdir()
    folder.mkdir()  # as MONAI's writer makes it
    with pytest.raises(LostFolderError, match="was removed while this command wrote to it"):
        write(folder / "mask", "late")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_of_many_processes_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    arguments = [
        [sys.executable, "-c", HOLD, str(tmp_path), str(number), "0"] for number in range(6)
    ]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(each, **silent) for each in arguments]  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 100
        while sum(process.poll() is None for process in processes) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert sum(process.returncode == -signal.SIGKILL for process in processes) == 1


def test_copy_of_a_read_only_folder_can_be_written_to(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    (source / "below").mkdir(parents=True)
    for path in (source / "below" / "a.yaml", source / "below" / "b.json"):
        path.write_text(path.name)
        path.chmod(0o444)
    for folder in (source / "below", source):
        folder.chmod(0o555)
    try:
        copy_folder(source, copy, shutil.ignore_patterns("*.json"))
    finally:
        for folder in (source, source / "below"):
            folder.chmod(0o755)
    assert [path.name for path in sorted(copy.rglob("*"))] == ["below", "a.yaml"]
    assert (copy / "below" / "a.yaml").read_text() == "a.yaml"
    assert all(path.stat().st_mode & stat.S_IWUSR for path in [copy, *copy.rglob("*")])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, as Linux has it")
def test_folder_that_cannot_be_made_is_told() -> None:
    with pytest.raises(OSError, match="the folder /proc/out cannot be made .*choose another"):
        claim("/proc/out", "images", "infer").take()
