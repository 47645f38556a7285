from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import faults


class Small(faults.Command):
    """A command that writes one mask, in a moment."""

    def __init__(self, folder: Path) -> None:
        self.kind, self.folder, self.seconds = "inference", folder, 1.0
        script = (
            "import os, pathlib, sys, time; time.sleep(0.3); "
            "folder = pathlib.Path(sys.argv[sys.argv.index('--output_dir') + 1]);"
            "folder.mkdir(exist_ok=True); (folder / 'a_label.nii.gz').write_bytes(os.urandom(9)"
            "if 'spoil' in sys.argv else b'')"
        )
        self.line = [faults.sys.executable, "-c", script]
        self.wait(self.start("whole"))
        self.whole = self.results("whole")


def test_what_is_lost_is_counted(tmp_path: Path) -> None:
    small = Small(tmp_path)
    assert list(small.whole) == ["a_label.nii.gz"]
    outcome = faults.signalled(faults.signal.SIGTERM)(small, "killed", 0.1)
    assert outcome.code == -faults.signal.SIGTERM
    assert (outcome.half, outcome.lost) == (0, 0)
    small.line.append("spoil")
    spoilt = faults.two_at_once(small, "two", 0.0)
    assert (spoilt.half, spoilt.lost) == (1, 1)


@pytest.mark.slow
def test_nothing_is_lost(tmp_path: Path) -> None:
    bundle = faults.Bundle.find("ldseg_hippocampus")
    rows = faults.run(bundle, tmp_path, 1, ["inference"])
    assert {row["half files"] + row["results lost"] for row in rows} == {"00"}
