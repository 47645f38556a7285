"""What a bundle's commands lose when they are disturbed: killed, short of disk, raced, cut off.

    python -m benchmarks.faults --times 3

Each fault is brought about in a command on a few small generated volumes, several times, at
moments spread over the command. Then the same command runs again, undisturbed. What it leaves is
read back and compared, byte by byte, with what a command leaves that was never disturbed.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from benchmarks import command, report
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.phantoms.knee import knee_phantom

CASES = 3
FILE_LIMIT = 300  # bytes: a mask has more
SLOW = """
import builtins, time
plain = builtins.open
def slow(*arguments, **options):
    if str(arguments[0]).endswith((".nii.gz", "model.pt")):
        time.sleep(1)
    return plain(*arguments, **options)
builtins.open = slow
"""
TRAINING = "--max_epochs 2 --cases_per_epoch 2 --batch_size 1 --val_interval 1 --val_fraction 0.4"
KEPT = ("*_label.nii.gz", "metrics.csv", "model.pt")  # what a command is for
POLL = 0.01  # seconds between two looks at a folder
# What a command has in its folder when a phase begins: pattern, and how many such files
PHASES = {
    "has its folder": dict.fromkeys(("inference", "evaluate", "train"), (".lock", 1)),
    "wrote its first file": {
        "inference": ("*_label.nii.gz", 1),
        "evaluate": ("*_overlay.png", 1),
        "train": ("*_overlay.png", 1),
    },
    "wrote its last file": {
        "inference": ("*_label.nii.gz", CASES),
        "evaluate": ("metrics.csv", 1),
        "train": ("checkpoint.pt", 1),
    },
}


class Outcome(NamedTuple):
    """How a disturbed command ended, and how many of its files differ after the next one."""

    code: int
    said: str
    half: int
    lost: int


class Command:
    """A command of a bundle on small volumes, whose undisturbed result is known.

    Args:
        kind: ``inference``, ``evaluate`` or ``train``.
        bundle: whose it is.
        folder: for its data and results.
    """

    def __init__(self, kind: str, bundle: Bundle, folder: Path) -> None:
        self.kind = kind
        self.folder = folder / kind
        configs = [str(bundle.config_file(f"{kind}.yaml"))]
        if kind == "evaluate":
            configs.insert(0, str(bundle.config_file("train.yaml")))
        self.line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(configs)]
        self.line += ["--bundle_root", str(bundle.root), "--dataset_dir", str(folder / "data")]
        self.line += ["--amp", "False", "--device", "cpu"]
        self.line += TRAINING.split() if kind == "train" else ["--force", "True"]
        begin = time.monotonic()
        code, said = self.wait(self.start("whole"))
        if code:
            raise RuntimeError(f"the undisturbed command ended with {code}: {said}")
        self.seconds = time.monotonic() - begin
        self.whole = self.results("whole")

    def out(self, name: str) -> Path:
        """The output folder of a run."""
        return self.folder / name

    def start(self, name: str, *extra: str, **options: object) -> subprocess.Popen[str]:
        """Start the command."""
        line = [*self.line, "--output_dir", str(self.out(name)), *extra]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            line, **pipes, **options
        )
        return process

    def wait(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit code, and the line of the error."""
        printed, _ = process.communicate()
        lines = [line for line in printed.splitlines() if "error: " in line]
        return process.returncode, lines[-1] if lines else ""

    def results(self, name: str) -> dict[str, str]:
        """Digest of each file that the command is for; of weights, their values'."""
        found = {}
        for pattern in KEPT:
            for path in sorted(self.out(name).glob(pattern)):
                content = path.read_bytes()
                if path.suffix == ".pt":
                    state = torch.load(path, map_location="cpu", weights_only=True)
                    content = b"".join(value.numpy().tobytes() for value in state.values())
                found[path.name] = hashlib.sha256(content).hexdigest()
        return found

    def half_files(self, name: str) -> int:
        """Masks, tables and weights that a reader cannot read."""
        count = 0
        for path in self.out(name).glob("*"):
            try:
                if path.name.endswith(".nii.gz"):
                    np.asarray(nib.load(path).dataobj)
                elif path.suffix == ".pt":
                    torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # whatever a reader raises
                count += 1
        return count

    def after(self, name: str, process: subprocess.Popen[str]) -> Outcome:
        """What a disturbed command left, once the same command has run again."""
        code, said = self.wait(process)
        half = self.half_files(name)
        self.wait(self.start(name))
        again = self.results(name)
        lost = [file for file, digest in self.whole.items() if again.get(file) != digest]
        return Outcome(code, said, half, len(lost))


def signalled(number: signal.Signals) -> Callable[[Command, str, float], Outcome]:
    """A signal to the command."""

    def disturb(one: Command, name: str, share: float) -> Outcome:
        process = one.start(name)
        time.sleep(share * one.seconds)
        process.send_signal(number)
        return one.after(name, process)

    return disturb


def in_phase(number: signal.Signals, phase: str) -> Callable[[Command, str, float], Outcome]:
    """A signal within half a second after a phase of `PHASES` has begun."""

    def disturb(one: Command, name: str, share: float) -> Outcome:
        pattern, count = PHASES[phase][one.kind]
        process = one.start(name)
        while process.poll() is None and len(list(one.out(name).glob(pattern))) < count:
            time.sleep(POLL)
        time.sleep(share / 2)
        process.send_signal(number)
        return one.after(name, process)

    return disturb


def while_it_starts(number: signal.Signals) -> Callable[[Command, str, float], Outcome]:
    """A signal in the second after the process began, while Python imports MONAI."""

    def disturb(one: Command, name: str, share: float) -> Outcome:
        process = one.start(name)
        time.sleep(share)
        process.send_signal(number)
        return one.after(name, process)

    return disturb


def disk_full(one: Command, name: str, share: float) -> Outcome:
    """No file may get longer than some bytes, which fails as a full disk does."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = int(FILE_LIMIT * (1 + share))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return one.after(name, one.start(name, preexec_fn=limit))


def folder_removed(one: Command, name: str, share: float) -> Outcome:
    """The output folder goes when the first file is there."""
    process = one.start(name)
    while process.poll() is None and not list(one.out(name).glob("*_label.nii.gz")):
        time.sleep(POLL)
    shutil.rmtree(one.out(name), ignore_errors=True)
    return one.after(name, process)


def worker_killed(one: Command, name: str, share: float) -> Outcome:
    """A process that loads images is killed as soon as it is there."""
    knob = "dataloader#num_workers" if one.kind == "inference" else "num_workers"
    process = one.start(name, f"--{knob}", "1", env=_slow_environment(one))
    while process.poll() is None and not _children(process.pid):
        time.sleep(POLL)
    time.sleep(share)
    for child in _children(process.pid):
        os.kill(child, signal.SIGKILL)
    return one.after(name, process)


def two_at_once(one: Command, name: str, share: float) -> Outcome:
    """The same command a second time, into the same folder."""
    first = one.start(name)
    time.sleep(share * 2)
    second = one.start(name)
    ends = [one.wait(process) for process in (first, second)]
    code, said = max(ends)
    half = one.half_files(name)
    again = one.results(name)
    lost = [file for file, digest in one.whole.items() if again.get(file) != digest]
    return Outcome(code, said, half, len(lost))


def slow_reads(one: Command, name: str, share: float) -> Outcome:
    """Every file of images and weights takes a second to open, as over a slow network."""
    return one.after(name, one.start(name, env=_slow_environment(one)))


FAULTS = [
    ("inference", "SIGTERM, spread over it", signalled(signal.SIGTERM)),
    ("inference", "killed (SIGKILL)", signalled(signal.SIGKILL)),
    ("inference", "disk full", disk_full),
    ("inference", "output folder removed", folder_removed),
    ("inference", "loader process killed", worker_killed),
    ("inference", "two at once", two_at_once),
    ("inference", "slow reads", slow_reads),
    ("evaluate", "SIGTERM, spread over it", signalled(signal.SIGTERM)),
    ("evaluate", "disk full", disk_full),
    ("evaluate", "two at once", two_at_once),
    ("train", "SIGTERM, spread over it", signalled(signal.SIGTERM)),
    ("train", "killed (SIGKILL)", signalled(signal.SIGKILL)),
    ("train", "disk full", disk_full),
    ("train", "two at once", two_at_once),
]
for kind in ("inference", "evaluate", "train"):
    FAULTS.append((kind, "SIGTERM while it starts", while_it_starts(signal.SIGTERM)))
    for phase in PHASES:
        fault = f"SIGTERM once it {phase}"
        FAULTS.append((kind, fault, in_phase(signal.SIGTERM, phase)))


def write_volumes(folder: Path) -> None:
    """Write a few small volumes of 1 mm with labels: cut out of knee phantoms."""
    for number in range(CASES):
        image, label, _ = knee_phantom([0, number])
        cut = (slice(28, 68), slice(8, 38), slice(20, 50))
        for kind, voxels in (("images", image), ("labels", label)):
            place = folder / "data" / kind
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"case_{number}.nii.gz"
            nib.save(nib.Nifti1Image(voxels[cut], np.eye(4)), path)


def run(
    bundle: Bundle, folder: Path, times: int, wanted: Sequence[str], word: str = ""
) -> list[dict[str, str]]:
    """The row of each fault whose name has a word."""
    write_volumes(folder)
    commands = {kind: Command(kind, bundle, folder) for kind in wanted}
    rows = []
    for kind, fault, disturb in FAULTS:
        if kind not in wanted or word not in fault:
            continue
        outcomes = []
        for number in range(times):
            name = f"{fault}_{number}".replace(" ", "_").replace(",", "")
            share = (number + 0.5) / times
            outcomes.append(disturb(commands[kind], name, share))
        ends = sorted({str(outcome.code) for outcome in outcomes})
        row = {
            "command": kind,
            "fault": fault,
            "times": str(times),
            "exit codes": ", ".join(ends),
            "half files": str(sum(outcome.half for outcome in outcomes)),
            "results lost": str(sum(outcome.lost for outcome in outcomes)),
        }
        print(row, {outcome.said for outcome in outcomes}, flush=True)
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = command.argument_parser(__doc__)
    parser.add_argument("--bundle", type=command.bundle, default="ldseg_hippocampus")
    parser.add_argument("--times", type=int, default=3, help="trials of each fault")
    kinds = list(dict.fromkeys(kind for kind, _, _ in FAULTS))
    parser.add_argument("--commands", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--faults", default="", help="those alone whose name has this word")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = run(arguments.bundle, place, arguments.times, arguments.commands, arguments.faults)
    print(report.table(rows))


def _slow_environment(one: Command) -> dict[str, str]:
    """Variables of a process whose reads are slow."""
    folder = one.folder / "slow"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(SLOW)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


if __name__ == "__main__":
    main()
