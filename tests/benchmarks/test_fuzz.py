"""What the fuzzer feeds, and what it keeps, without the fuzzer."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz
from benchmarks.fuzz_targets import TARGETS
from ldseg_monai.runtime.errors import UserError


@pytest.mark.parametrize("name", fuzz.NAMES)
def test_good_files_are_read_and_bad_ones_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    first, *others = target.seeds()
    target.read(first, tmp_path)
    for content in others:
        try:
            target.read(content, tmp_path)
        except UserError as error:
            assert "expected" in str(error)
    with pytest.raises(UserError, match="expected") as caught:
        target.read(first[: len(first) // 2], tmp_path)
    assert str(tmp_path) in str(caught.value)


def fail(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_findings_are_kept_once_a_line_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def feed(line: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        folder = Path(line[-1])
        counts = np.memmap(folder / "counts", np.int64, "r+", shape=3)
        counts[:] = 1200, 700, 498
        for number in range(2):
            fuzz.note(folder, "ValueError", fail(f"bad {number}"), b"content")
        (folder / "oom-12").write_bytes(b"large")
        return subprocess.CompletedProcess(line, 1)

    monkeypatch.setattr(fuzz.subprocess, "run", feed)
    row = fuzz.run("tiff", tmp_path, 2)
    assert row == {
        "reader": "tiff",
        "seconds": "2",
        "files": "1,200",
        "read": "700",
        "refused": "498",
        "findings": "2",
    }
    one, other = fuzz.findings(tmp_path)
    assert one.startswith("ValueError at test_fuzz.py:") and one.endswith("bad 0")
    assert other == "more than 2 GB: oom-12"
    assert next(tmp_path.glob("finding_????????")).read_bytes() == b"content"
