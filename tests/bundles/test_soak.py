"""Hundreds of inferences in one process: its memory stays flat, and no file or thread is left open."""

from __future__ import annotations

import gc
import os
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_kinds import BUNDLES
from config_files import overlays_on
from ignite.engine import Engine, Events
from PIL import Image
from workplace import Workplace

CASES = 250  # for each number of samples
EVERY = 5  # cases between two looks at the memory
SAMPLES = (1, 3)
TOLERANCE = 8e6  # bytes that the second fifth's median may grow by until the last fifth
STACKS = [
    (bundle, stack)
    for bundle in BUNDLES
    for stack in [["inference.yaml"], *overlays_on(bundle, "inference.yaml")]
]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("process_left_as_it_was")]


def write_images(folder: Path, picture: bool, num: int) -> None:
    """Write images of mixed sizes, from smaller than a window to several windows, each under ten names or more."""
    rng = np.random.default_rng(0)
    originals = folder.parent / "originals"
    originals.mkdir(parents=True)
    folder.mkdir(parents=True)
    for number in range(20):
        if picture:
            path = originals / f"{number}{'.png' if number % 2 else '.tif'}"
            rows, columns = rng.integers(40, 200, 2)
            Image.fromarray(rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)).save(path)
        else:
            path = originals / f"{number}{'.nii.gz' if number % 2 else '.nii'}"
            volume = rng.integers(0, 1000, rng.integers(20, 70, 3), dtype=np.int16)
            nib.save(nib.Nifti1Image(volume, np.diag([*rng.uniform(0.8, 1.2, 3), 1])), path)
    names = sorted(originals.iterdir())
    for number in range(num):
        original = names[rng.integers(len(names))]
        (folder / f"case_{number:03d}{original.name.lstrip('0123456789')}").symlink_to(original)


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def note_memory(engine: Engine, memory: list[int]) -> None:
    if engine.state.iteration % EVERY == 0:  # collecting garbage takes longer than a tiny network
        memory.append(resident())


def open_things() -> dict[str, object]:
    """What this process has open."""
    files = [
        os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if os.path.lexists(entry)
    ]
    return {
        "files": sorted(file for file in files if not file.endswith("/fd")),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(os.listdir("/proc/self/task")),
    }


@pytest.fixture
def place(
    bundle_and_stack: tuple[str, list[str]], tmp_path: Path
) -> Iterator[tuple[Workplace, list[str]]]:
    bundle, stack = bundle_and_stack
    workplace = Workplace.make(tmp_path / "place", bundle)
    write_images(tmp_path / "data" / "images", "glas" in bundle, CASES)
    yield workplace, stack


@pytest.mark.parametrize("bundle_and_stack", STACKS, ids=lambda pair: f"{pair[0]}-{pair[1][-1]}")
def test_memory_is_flat_and_nothing_stays_open(
    place: tuple[Workplace, list[str]], tmp_path: Path, capfd
) -> None:
    workplace, stack = place
    weights = tmp_path / "model.pt"
    before: dict[str, object] = {}
    for num_samples in SAMPLES:
        output_dir = tmp_path / f"output_{num_samples}"
        workflow = workplace.workflow(
            "infer",
            stack,
            device="cpu",
            dataset_dir=str(tmp_path / "data"),
            output_dir=str(output_dir),
            model_path=str(weights),
            num_samples=num_samples,
        )
        workflow.initialize()
        torch.save(workflow.network_def.state_dict(), weights)
        evaluator = workflow.parser.get_parsed_content("evaluator")
        memory: list[int] = []
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, note_memory, memory)
        workflow.run()
        workflow.finalize()
        assert len(memory) == CASES // EVERY
        assert (
            len(
                [
                    path
                    for path in output_dir.iterdir()
                    if path.name.split(".")[0].endswith("_label")
                ]
            )
            == CASES
        )
        fifth = len(memory) // 5
        early, late = (
            statistics.median(memory[first : first + fifth])
            for first in (fifth, len(memory) - fifth)
        )
        del workflow, evaluator
        gc.collect()
        now = open_things()
        with capfd.disabled():
            print(
                f"\n{workplace.bundle} {stack[-1]}, {num_samples} sample(s): {early / 1e6:.1f} MB in the second fifth, "
                f"{late / 1e6:.1f} MB in the last, {len(now['files'])} files, {now['tasks']} threads",
                end="",
            )
        assert late - early < TOLERANCE
        assert not before or now == before
        before = now
