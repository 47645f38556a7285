"""Bytes that a fuzzer makes, guided by the lines of code that they reach, read as files.

    python -m benchmarks.fuzz dicom tiff dataset --seconds 600

Each file ends in what it holds, or is refused by an error of one line. Anything else is a finding:
another exception, more than 10 s, more than 2 GB, or an end of the process. It takes `pip install
atheris`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

NAMES = ("dicom", "tiff", "dataset")
MAX_SECONDS = 10
MAX_MEGABYTES = 2000  # beyond what the process has before it reads
MAX_LENGTH = 8192  # bytes of a file
# Packages whose lines are watched
WATCHED = ["ldseg_monai", "pydicom", "tifffile", "PIL"]
ENDS = ("files", "read", "refused")
SEED = 1  # of the fuzzer, which draws one itself for 0
# What the fuzzer writes before it ends the process
ARTIFACTS = {"timeout-": "more than 10 s", "oom-": "more than 2 GB", "crash-": "process ended"}


def feed(name: str, folder: Path, seconds: int) -> None:
    """Read files until the time is up or the fuzzer ends the process.

    Args:
        name: of the target.
        folder: for what is found.
        seconds: for how long.
    """
    import atheris

    with atheris.instrument_imports(include=WATCHED):
        from benchmarks.fuzz_targets import TARGETS
        from ldseg_monai.runtime.errors import UserError
    logging.disable()
    warnings.simplefilter("ignore")
    target = TARGETS[name]
    corpus = folder / "corpus"
    if not corpus.is_dir():
        corpus.mkdir()
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed_{number}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{word}"\n' for word in (*target.words, "1")))
    counts = np.memmap(folder / "counts", np.int64, "r+", shape=len(ENDS))

    def read(content: bytes) -> None:
        counts[0] += 1
        try:
            target.read(content, folder)
        except UserError as error:
            counts[2] += 1
            if "\n" in str(error):
                note(folder, "a message of several lines", error, content)
        except Exception as error:
            note(folder, type(error).__name__, error, content)
        else:
            counts[1] += 1

    options = {
        "seed": SEED,
        "max_total_time": seconds,
        "timeout": MAX_SECONDS,
        "rss_limit_mb": MAX_MEGABYTES + own_megabytes(),
        "max_len": MAX_LENGTH,
        "artifact_prefix": f"{folder}/",
        "dict": words,
        "verbosity": 0,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], read)
    atheris.Fuzz()


def note(folder: Path, kind: str, error: Exception, content: bytes) -> None:
    """Keep a finding, once for each kind of error and line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    digest = hashlib.sha256(f"{kind} {place}".encode()).hexdigest()[:8]
    path = folder / f"finding_{digest}"
    if path.exists():
        return
    path.write_bytes(content)
    told = {"kind": kind, "place": place, "said": str(error)[:300]}
    told["traceback"] = "".join(traceback.format_exception(error))
    path.with_suffix(".json").write_text(json.dumps(told))


def own_megabytes() -> int:
    """Memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // 10**6


def findings(folder: Path) -> list[str]:
    """A line for each finding."""
    lines = []
    for path in sorted(folder.glob("finding_*.json")):
        told = json.loads(path.read_text())
        lines.append(f"{told['kind']} at {told['place']}: {told['said']}")
    for start, what in ARTIFACTS.items():
        lines += [f"{what}: {path.name}" for path in sorted(folder.glob(f"{start}*"))]
    return lines


def run(name: str, folder: Path, seconds: int) -> dict[str, str]:
    """Feed a target for some time, in as many processes as that takes, and return its row."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.memmap(folder / "counts", np.int64, "w+", shape=len(ENDS))
    end = time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 0:
        line = [sys.executable, "-m", "benchmarks.fuzz", name, "--seconds", str(left)]
        with open(folder / "log", "a", encoding="utf-8") as log:
            code = subprocess.run([*line, "--feed", folder], stdout=log, stderr=log).returncode
        if counts[0] == 0:
            raise RuntimeError(f"the fuzzer ended with {code}: see {folder / 'log'}")
    found = findings(folder)
    print(*found, sep="\n", flush=True)
    ends = {end: f"{count:,}" for end, count in zip(ENDS, counts.tolist(), strict=True)}
    return {"reader": name, "seconds": str(seconds), **ends, "findings": str(len(found))}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("targets", nargs="+", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--folder", type=Path, help="for what is found (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="Markdown file to write (default: none)")
    parser.add_argument("--feed", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.feed:
        feed(arguments.targets[0], arguments.feed, arguments.seconds)
        return
    from benchmarks import report

    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    head = report.header("Files made by a fuzzer", about, "fuzz", argv, seed=SEED)
    folder = arguments.folder or Path(tempfile.mkdtemp())
    rows = [run(name, folder / name, arguments.seconds) for name in arguments.targets]
    text = f"{head}\n{report.table(rows)}"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
