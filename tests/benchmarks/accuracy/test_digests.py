from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from programs import ROOT
from torch.utils.tensorboard import SummaryWriter

from benchmarks.accuracy import digests

CONFIGS = sorted((ROOT / "bundles").glob("*/configs"))
VARIANTS = [
    path
    for kind in ("ablations", "baselines")
    for path in sorted((ROOT / "bundles").glob(f"*/configs/{kind}/*.yaml"))
]


def write(path: Path, voxels: np.ndarray, spacing: float = 1.0) -> Path:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing([spacing] * 3)
    sitk.WriteImage(image, str(path), useCompression=path.suffix == ".gz")
    return path


def test_digest_is_of_values_type_and_geometry_and_not_of_the_file(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    changed = voxels.copy()
    changed[1, 2, 3] = 0
    own = digests.image_digest(write(tmp_path / "a.nii.gz", voxels))
    assert own == digests.image_digest(write(tmp_path / "b.nii", voxels))
    others = [(changed, 1.0), (voxels.astype(np.int16), 1.0), (voxels, 2.0)]
    for number, (values, spacing) in enumerate(others):
        assert own != digests.image_digest(write(tmp_path / f"{number}.nii", values, spacing))


def test_losses_are_all_that_tensorboard_has(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step, loss in enumerate((0.5, 0.25)):
            writer.add_scalar("train_loss", loss, step)
        writer.add_scalar("dice", 1 / 3, 0)
    assert digests.scalars(tmp_path) == "dice=0.333333343 train_loss=0.5,0.25"


@pytest.mark.parametrize(
    "path", VARIANTS, ids=[f"{path.parents[2].name}-{path.stem}" for path in VARIANTS]
)
def test_every_variant_says_the_configs_of_its_command(path: Path) -> None:
    first, *overlays = digests.files_of_head(path)
    root = path.parents[2].relative_to(ROOT)
    assert first == f"{root}/configs/train.yaml"
    assert overlays[-1] == str(path.relative_to(ROOT))
    assert all((ROOT / name).is_file() for name in overlays)


def test_every_bundle_is_compared() -> None:
    assert sorted(digests.DATA) == [path.parent.name for path in CONFIGS]


def test_one_command_writes_a_line_for_each_image_and_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[list[str], list[str]]] = []

    def run(self, files, options, run_id="run", processes=1) -> None:
        lines.append((files, [*self.knobs, *options]))
        folder = Path(options[options.index("--output_dir") + 1])
        write(folder / "case_label.nii.gz", np.zeros((2, 2, 2), np.uint8))
        (folder / "metrics.csv").write_text("case,dice\n")
        (folder / "finished.jsonl").write_text("of this run alone")

    monkeypatch.setattr(digests.Programs, "run", run)
    out = tmp_path / "out.txt"
    parts = ["--parts", "inference", "scores", "--only", "ldseg_glas", "--samples", "2"]
    digests.main(["--out", str(out), "--float32", "--data", "data", *parts])
    names = [line.split("\t")[0] for line in out.read_text().splitlines()]
    assert names == [
        "ldseg_glas/inference/phantoms/2/case_label.nii.gz",
        "ldseg_glas/phantoms/metrics.csv",
        "ldseg_glas/inference/data/2/case_label.nii.gz",
        "ldseg_glas/data/metrics.csv",
    ]
    files, options = lines[2]
    assert files == ["bundles/ldseg_glas/configs/inference.yaml"]
    assert options[:6] == ["--amp", "False", "--dataset_dir", "data/glas", "--num_samples", "2"]
