"""How well a bundle segments volumes of another voxel size than its weights know.

    python -m benchmarks.accuracy.voxel_size bundles/ldseg_hippocampus --dataset_dir DIR \
        --cases 10 --out benchmarks/results/ldseg_hippocampus/voxel_size.md

Each case is written anew with other voxels, image by interpolation and label by the nearest voxel,
and segmented. Mean foreground Dice, in the new file's own geometry, against the label there:

- Dice: as the bundle does it, resampled to the size that its weights know, and brought back;
- as it is: without that;
- limit: the new label itself brought to the known size and back, which is the most that a
  segmentation on that grid can reach.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import list_data_collate
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from monai.transforms import Spacing

from benchmarks import command, report
from ldseg_monai.bundle import Bundle
from ldseg_monai.data import KnownSpacingd, LoadImageVolumed
from ldseg_monai.data.datalist import PathLike, paired_datalist
from ldseg_monai.data.split import Split
from ldseg_monai.networks.weights import load_weights

SIDES = (0.5, 0.7, 1.0, 1.5, 2.0)  # mm


def write_resampled(case: dict[str, str], side: float, folder: Path) -> dict[str, str]:
    """Write a case with cubes of a side in mm as voxels, and return its paths."""
    paths = {}
    for key, mode in (("image", "bilinear"), ("label", "nearest")):
        volume = LoadImageVolumed("image", allow_constant=True)({"image": case[key]})["image"]
        resampled = Spacing([side] * 3, mode=mode, padding_mode="border")(volume)
        path = folder / f"{key}.nii.gz"
        voxels = resampled.as_tensor()[0].numpy()
        kind = np.uint8 if key == "label" else np.float32
        nib.save(nib.Nifti1Image(voxels.astype(kind), np.asarray(resampled.affine)), path)
        paths[key] = str(path)
    return paths


class VoxelSizes:
    """Scores of a bundle's segmentations of resampled volumes.

    Args:
        bundle: whose metadata and inference they are.
        weights: state dict; None for the bundle's own.
        overrides: items of its `train.yaml` to override, such as ``amp``.
    """

    def __init__(self, bundle: Bundle, weights: PathLike | None = None, **overrides: Any) -> None:
        self.configs = {}
        for metadata in ("", str(bundle.configs / "metadata.json")):  # nothing declared, and all
            self.configs[metadata] = bundle.config("train.yaml", metadata=metadata, **overrides)
        self.metadata = metadata
        self.num_classes: int = self.configs[metadata]["num_classes"]
        self.network = self.configs[metadata].get_parsed_content("network_def").eval()
        load_weights(self.network, str(weights or bundle.weights))

    @torch.no_grad()
    def segmented(self, case: dict[str, str], metadata: str) -> tuple[MetaTensor, MetaTensor]:
        """Prediction and label of a case, both in its file's geometry."""
        config = self.configs[metadata]
        data = config.get_parsed_content("validate#preprocessing")(dict(case))
        batch = list_data_collate([data])
        logits = config.get_parsed_content("validate#inferer")(batch["image"], self.network)
        item = decollate_batch({**batch, "pred": logits.float()})[0]
        result = config.get_parsed_content("validate#postprocessing")(item)
        return result["pred"], result["label"]

    def row(self, case: dict[str, str], side: float) -> dict[str, float]:
        """The Dice scores of one case at one size of voxels."""
        with tempfile.TemporaryDirectory() as folder:
            resampled = write_resampled(case, side, Path(folder))
            pred, label = self.segmented(resampled, self.metadata)
            as_it_is, _ = self.segmented(resampled, "")
        there_and_back = KnownSpacingd("label", self.metadata, mode="nearest")
        back = there_and_back.inverse(there_and_back({"label": label.clone()}))["label"]
        results = {"Dice": pred, "as it is": as_it_is, "limit": back}
        return {name: self.dice(mask, label) for name, mask in results.items()}

    def dice(self, prediction: torch.Tensor, label: torch.Tensor) -> float:
        """Mean foreground Dice of class indices ``(1, *spatial)``."""
        masks = []
        for classes in (prediction, label):
            whole = MetaTensor(classes).as_tensor()[None].round().long()
            masks.append(one_hot(whole, self.num_classes))
        return compute_dice(*masks, include_background=False).nanmean().item()


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of the bundle named on the command line."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cases", type=int, default=10, help="how many of docs/val_cases.txt")
    parser.add_argument(
        "--out", type=command.file_to_write, required=True, help="Markdown file to write"
    )
    arguments = parser.parse_args(argv)
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    head = report.header(
        f"Voxel sizes: {arguments.bundle.name}", about, "accuracy.voxel_size", argv, seed=0
    )
    names = arguments.bundle.val_cases(arguments.dataset_dir)
    datalist = partial(paired_datalist, arguments.dataset_dir)
    cases = Split(datalist, names, weights=arguments.bundle.weights).part("val")
    voxel_sizes = VoxelSizes(arguments.bundle, amp=False, num_samples=1)
    rows = []
    for side in SIDES:
        scores = [voxel_sizes.row(case, side) for case in cases[: arguments.cases]]
        means = {}
        for name in scores[0]:
            values = [score[name] for score in scores]
            means[name] = f"{statistics.mean(values):.3f}"
        rows.append({"voxel side, mm": f"{side:g}", "cases": str(len(scores)), **means})
        print(json.dumps(rows[-1]), flush=True)
    arguments.out.write_text(f"{head}\n{report.table(rows)}")


if __name__ == "__main__":
    main()
