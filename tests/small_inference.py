"""An inference over a few small volumes, with all that one of a bundle has, in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine
from monai.data import DataLoader
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Transform,
)
from torch import nn

from ldseg_monai.data.writers import SaveImageVolumed
from ldseg_monai.inference.case_evaluator import CaseDataset, CaseEvaluator

TOO_BRIGHT = 1000  # a voxel that the network fails on


class Threshold(nn.Module):
    """Class 1 is what is above a level."""

    def __init__(self, level: float = 0.0) -> None:
        super().__init__()
        self.level = level
        self.calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if image.max() >= TOO_BRIGHT:
            raise ArithmeticError("too bright")
        return torch.cat([self.level - image, image - self.level], dim=1)


def write_images(folder: Path, *names: str, brightest: float = 1.0) -> list[dict[str, str]]:
    """Write a volume of noise for each name, and return the cases."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        volume = (
            np.random.default_rng(len(name) + ord(name[0]))
            .normal(size=(6, 7, 8))
            .astype(np.float32)
        )
        volume[0, 0, 0] = brightest
        nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / f"{name}.nii.gz")
    return [{"image": str(folder / f"{name}.nii.gz")} for name in names]


def preprocessing(*keys: str) -> Compose:
    return Compose([LoadImaged(keys, reader="NibabelReader"), EnsureChannelFirstd(keys)])


def postprocessing(output_dir: Path, *before: Transform) -> Compose:
    save = SaveImageVolumed("pred", str(output_dir))
    return Compose([AsDiscreted("pred", argmax=True), *before, save])


def small_evaluator(
    output_dir: Path,
    cases: list[dict[str, str]],
    network: nn.Module | None = None,
    transforms: Compose | None = None,
    num_workers: int = 0,
    **arguments: Any,
) -> CaseEvaluator:
    keys = list(cases[0]) if cases else ["image"]
    dataset = CaseDataset(cases, preprocessing(*keys))
    sampler = arguments.pop("sampler", range(len(cases)))
    return CaseEvaluator(
        output_dir=str(output_dir),
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, sampler=sampler, num_workers=num_workers),
        network=Threshold() if network is None else network,
        postprocessing=postprocessing(output_dir) if transforms is None else transforms,
        **arguments,
    )


class Done:
    """Handler that keeps the names of the cases that came so far, and may fail on some."""

    def __init__(self, event: Any, fail: dict[str, BaseException] | None = None) -> None:
        self.event = event
        self.fail = fail or {}
        self.names: list[str] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(self.event, self)

    def __call__(self, engine: Engine) -> None:
        for case in engine.state.output:
            name = Path(case["image"].meta["filename_or_obj"]).name.split(".")[0]
            if name in self.fail:
                raise self.fail[name]
            self.names.append(name)
