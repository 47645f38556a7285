"""Where the bundles' configs are run: a copy of the repository's bundles/ folder, and sizes that take seconds."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from config_files import REPOSITORY, STANDALONE
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism
from PIL import Image
from prepared_python import Command
from small_networks import SMALL

from ldseg_monai.data.datalist import LABEL_ENDINGS


@dataclass(frozen=True)
class Tiny:
    """Overrides that make a bundle small: of every config, and further ones of some, by their path below configs/."""

    every: dict[str, Any]
    some: dict[str, dict[str, Any]] = field(default_factory=dict)


PHANTOMS = {"phantoms": True}  # where a run is given no data set
TRAINING = {"cases_per_epoch": 4, "batch_size": 2, "max_epochs": 2, "val_interval": 1}
# In float32: a CPU without native bfloat16, such as most that run tests, takes ten times as long and
# more with it. `test_bfloat16_is_what_a_bundle_computes_with` is of bfloat16.
TINY = {
    "ldseg_knee3d": Tiny(
        every={
            **SMALL["ldseg_knee3d"],
            "spatial_size": [48, 32, 32],
            "num_phantoms": 4,
            "amp": False,
        },
        some={
            "train.yaml": TRAINING,
            "inference.yaml": PHANTOMS,
            "sliding_window.yaml": {"voxel_size": [2.0, 2.0, 2.0]},
        },
    ),
    "ldseg_hippocampus": Tiny(
        every={
            **SMALL["ldseg_hippocampus"],
            "spatial_size": [32, 24, 28],
            "num_phantoms": 4,
            "amp": False,
        },
        some={
            "train.yaml": TRAINING,
            "inference.yaml": PHANTOMS,
            "ablations/paper.yaml": {"spatial_size": [32, 32, 32]},
            "baselines/swin_unetr.yaml": {"spatial_size": [64, 32, 32]},  # halved five times
        },
    ),
    "cdal_hippocampus": Tiny(
        every={
            **SMALL["cdal_hippocampus"],
            "spatial_size": [32, 24, 28],
            "num_samples": 1,
            "overlap": 0.0,
            "num_phantoms": 3,
            "amp": False,
        },
        some={
            "train.yaml": {
                "discriminator_def#channels": [8, 8, 8],
                "penalty_interval": 2,
                "crop_size": [24, 24, 24],
                **TRAINING,
            },
            "inference.yaml": PHANTOMS,
            # They halve crops four and five times
            "baselines/basic_unet.yaml": {"crop_size": [32, 32, 32]},
            "baselines/swin_unetr.yaml": {"crop_size": [64, 32, 32], "spatial_size": [64, 32, 32]},
        },
    ),
    "cdal_monuseg": Tiny(
        every={
            **SMALL["cdal_monuseg"],
            "num_samples": 1,
            "window_size": [96, 96],
            "num_phantoms": 3,
            "amp": False,
        },
        some={
            "train.yaml": {
                "discriminator_def#channels": [8, 8, 8, 8],
                "penalty_interval": 2,
                "crop_size": [64, 64],
                **TRAINING,
            },
            "inference.yaml": PHANTOMS,
            "ablations/attention_level_4.yaml": {"discriminator_def#channels": [8, 8, 8, 8, 8]},
        },
    ),
    "cdal_cxr": Tiny(
        every={
            **SMALL["cdal_cxr"],
            "num_samples": 1,
            "spatial_size": [64, 64],
            "num_phantoms": 3,
            "amp": False,
        },
        some={
            "train.yaml": {
                "discriminator_def#channels": [8, 8, 8, 8, 8],
                "penalty_interval": 2,
                **TRAINING,
            },
            "inference.yaml": PHANTOMS,
        },
    ),
    "ldseg_echo": Tiny(
        every={
            **SMALL["ldseg_echo"],
            "num_samples": 1,
            "spatial_size": [64, 64],
            "num_phantoms": 4,
            "amp": False,
        },
        some={"train.yaml": {"patients": "", **TRAINING}, "inference.yaml": PHANTOMS},
    ),
    "ldseg_cxr": Tiny(
        every={
            **SMALL["ldseg_cxr"],
            "num_samples": 1,
            "spatial_size": [64, 64],
            "num_phantoms": 3,
            "amp": False,
        },
        some={"train.yaml": TRAINING, "inference.yaml": PHANTOMS},
    ),
    "ldseg_monuseg": Tiny(
        every={
            **SMALL["ldseg_monuseg"],
            "num_samples": 1,
            "window_size": [96, 96],
            "num_phantoms": 4,
            "amp": False,
        },
        some={"train.yaml": {"crop_size": [64, 64], **TRAINING}, "inference.yaml": PHANTOMS},
    ),
    "ldseg_glas": Tiny(
        every={
            **SMALL["ldseg_glas"],
            "num_samples": 1,
            "window_size": [96, 96],
            "num_phantoms": 4,
            "amp": False,
        },
        # No table of patients lies beside the phantoms
        some={
            "train.yaml": {"crop_size": [64, 64], "patients": "", **TRAINING},
            "inference.yaml": PHANTOMS,
        },
    ),
}


def tiny_overrides(bundle: str, *configs: str) -> dict[str, Any]:
    """The overrides for a run of these configs; what an overlay puts in place of a part of the network stays."""
    if bundle not in TINY:
        pytest.fail(f"bundle {bundle} has no tiny overrides: add some to TINY in {__file__}")
    overrides = dict(TINY[bundle].every)
    for name in configs:
        overrides |= TINY[bundle].some.get(name, {})
        if name in ("inference.yaml", "evaluate.yaml"):
            overrides["force"] = True  # the tests' images are of any size and shape
    folder = REPOSITORY / "bundles" / bundle / "configs"
    overlays = [
        ConfigParser.load_config_file(folder / name) for name in configs if name not in STANDALONE
    ]
    replaced = {key for overlay in overlays for key in overlay if key.startswith("network_def")}
    return {
        key: value
        for key, value in overrides.items()
        if not any(key == other or key.startswith(f"{other}#") for other in replaced)
    }


@contextlib.contextmanager
def restored_process() -> Iterator[None]:
    """Undo what a workflow does to the process that it runs in."""
    cwd, path, cudnn = os.getcwd(), list(sys.path), torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in ("benchmark", "deterministic")}
    try:
        yield
    finally:
        os.chdir(cwd)
        sys.path[:] = path
        for name, value in flags.items():
            setattr(cudnn, name, value)
        set_determinism(None)


@dataclass(frozen=True)
class Workplace:
    """A folder with nothing but `bundles/NAME`, as in the repository, so that every file that a run writes shows."""

    root: Path
    bundle: str

    @classmethod
    def make(cls, root: Path, bundle: str) -> Workplace:
        """Copy the bundle, without weights and without what runs left in it."""
        shutil.copytree(
            REPOSITORY / "bundles" / bundle,
            root / "bundles" / bundle,
            ignore=lambda folder, names: {"models", "output", "eval"} & set(names),
        )
        (root / "elsewhere").mkdir()
        return cls(root, bundle)

    @property
    def bundle_root(self) -> Path:
        return self.root / "bundles" / self.bundle

    def command(
        self,
        *configs: str,
        run_id: str = "run",
        place: str = "root",
        launcher: tuple[str, ...] = (),
        **overrides: Any,
    ) -> dict[str, Any]:
        """What starts a command that runs configs of the bundle, as arguments and options of `Command`.

        Args:
            configs: paths below the bundle's configs/, each over the ones before.
            run_id: what to run.
            place: current directory: `root` of the repository, `inside` the bundle, or `elsewhere`.
            launcher: what starts the module, after the interpreter's `-m`.
            overrides: config values besides the tiny ones.
        """
        cwd, paths, values = self._places(configs, place, overrides)
        arguments = ["--config_file", paths[0] if len(paths) == 1 else str(paths)]
        for name, value in values.items():
            arguments += [f"--{name}", value if isinstance(value, str) else repr(value)]
        module = (*launcher, "-m") if launcher else ()
        return {
            "args": [*module, "monai.bundle", "run", run_id, *arguments],
            "cwd": cwd,
            "env": os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        }

    def start(self, *configs: str, env: dict[str, str] | None = None, **options: Any) -> Command:
        """Start a command in a process of its own; more variables of its environment may be given."""
        command = self.command(*configs, **options)
        return Command(*command["args"], cwd=command["cwd"], env=command["env"] | (env or {}))

    def workflow(self, kind: str, configs: list[str], **overrides: Any) -> ConfigWorkflow:
        """The configs as MONAI's clients use them, in their own process."""
        return ConfigWorkflow(
            config_file=[str(self.bundle_root / "configs" / name) for name in configs],
            logging_file=False,
            workflow_type=kind,
            **{
                **tiny_overrides(self.bundle, *configs),
                "bundle_root": str(self.bundle_root),
                **overrides,
            },
        )

    def _places(
        self, configs: tuple[str, ...], place: str, overrides: dict[str, Any]
    ) -> tuple[Path, list[str], dict[str, Any]]:
        """Where a command runs, with which files and which values."""
        cwd, folder = {
            "root": (self.root, Path("bundles", self.bundle)),
            "inside": (self.bundle_root, Path()),
            "elsewhere": (self.root / "elsewhere", self.bundle_root),
        }[place]
        values = tiny_overrides(self.bundle, *configs) | overrides
        if place == "elsewhere":
            values["bundle_root"] = str(self.bundle_root)
        return cwd, [str(folder / "configs" / name) for name in configs], values

    def run_here(
        self, *configs: str, run_id: str = "run", place: str = "root", **overrides: Any
    ) -> str:
        """What `run` does, in this process, which takes seconds less; return what is logged."""
        cwd, paths, values = self._places(configs, place, overrides)
        log, stream = logging.getLogger(), io.StringIO()
        handler, level = logging.StreamHandler(stream), log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            with restored_process():
                os.chdir(cwd)
                values = {"device": "cpu", **values}
                monai.bundle.run(run_id, config_file=paths, logging_file=False, **values)
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
        return stream.getvalue()

    def run(self, *configs: str, **options: Any) -> str:
        """Run configs to their end in a process of their own, and return what they print."""
        with self.start(*configs, **options) as command:
            code = command.wait(timeout=600)
        assert code == 0, f"{' '.join(command.args)}\n{command.printed[-6000:]}"
        return command.printed

    def run_anew(self, *configs: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """What a person's shell does, whose interpreter has imported nothing yet."""
        command = self.command(*configs, **options)
        command["args"] = [sys.executable, "-m", *command["args"]]
        merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(**command, **merged, timeout=600)


@dataclass(frozen=True)
class Run:
    """What a run printed and where it wrote."""

    printed: str
    output_dir: Path


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder below a folder, by relative path."""
    paths = sorted(folder.rglob("*"))
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        if path.is_file()
        else (0, 0)
        for path in paths
    }


def written(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    """Paths that were made, changed or removed between two listings."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def read_image(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Array and, for NIfTI, affine of an image file, without MONAI."""
    if ".nii" in path.name:
        image = nib.load(path)
        return np.asanyarray(image.dataobj), image.affine
    return np.asarray(Image.open(path)), None


def read_label(folder: Path, name: str, num_classes: int) -> np.ndarray:
    """Classes of a case's true label, whose instances, if it has them, are all of the last class."""
    names = [ending for ending in ("", *LABEL_ENDINGS) if list(folder.glob(f"{name}{ending}.*"))]
    assert len(names) == 1, f"{name} in {folder}: {names}"
    return np.minimum(read_image(find_case(folder, name + names[0]))[0], num_classes - 1)


def find_case(folder: Path, name: str) -> Path:
    """The one file of a folder with this name, whatever its extension."""
    paths = [path for path in folder.iterdir() if path.name.split(".")[0] == name]
    assert len(paths) == 1, f"{name} in {folder}: {paths}"
    return paths[0]
