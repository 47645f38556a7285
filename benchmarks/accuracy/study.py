r"""What each design decision costs and brings: variants of a bundle, trained on an equal budget.

    python -m benchmarks.accuracy.study benchmarks/accuracy/studies/hippocampus.yaml \
        --dataset_dir DIR --out runs/study

Each variant of the YAML file is a bundle's `train.yaml` with some overrides (and perhaps
``overlays``, config files on top of it), trained by the bundle's own command in ``--out``; what is
already trained or scored there is not done again, and refused if the YAML has changed since. A
variant that names another one's ``weights`` differs in its sampling alone and is not trained. Then
every variant is scored on the validation cases, alone on the machine, and the table is written to
``--out``/table.md and table.csv. The table's columns:

- ceiling: the true label encoded and decoded without the image (all other columns decode with the
  image's features, if the variant has them); swapped: another case's latent decoded; between cases:
  share of the latents' variance that is not their mean picture's; own, other at T/2: one denoising
  of the noised true latent, or of another case's, beside the same image;
- K = 1, 2, 10: Dice in so many steps; noise S: K = 2 on an image under Gaussian noise of SD S (in
  the network's input units); mean of 8: the mean probability of eight samples;
- SD wrong, SD right: their standard deviation on wrong and right voxels (of a deterministic peer,
  sqrt(p (1 - p)) of its softmax, which is another thing: compare it by AUROC and ECE only); AUROC:
  how well it ranks wrong ones; ECE: expected calibration error of the mean; SD-Dice r: correlation
  of a case's spread with its Dice;
- ms: one segmentation with K = 2, median of 15, all variants in turns; K = 10 time: that of ten
  steps over it (about 1 for a peer without steps); MB: growth of the resident memory by one
  segmentation, in a process of its own.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Compose

from benchmarks import command, report
from benchmarks.accuracy.quality import cell, ldseg_scores, peer_scores
from benchmarks.speed import measure
from benchmarks.speed.measure import Call
from ldseg_monai.bundle import Bundle
from ldseg_monai.inference.autocast import AutocastInferer
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.segmenter import DiffusionSegmenter
from ldseg_monai.networks.weights import load_weights
from ldseg_monai.runtime.precision import autocast

LOG = "log.txt"  # of a training, in its folder: all that its command prints
TRAINED = "trained"  # there when it is whole


def folder_name(variant: str) -> str:
    """Name of the folder that a variant is trained in."""
    return variant.replace("/", "_").replace(" ", "_")


def config_names(variant: dict[str, Any]) -> list[str]:
    """The config files of a variant, below the bundle's configs/."""
    return ["train.yaml", *variant.get("overlays", [])]


def configs(study: dict[str, Any], variant: dict[str, Any]) -> list[str]:
    """The paths of a variant's config files."""
    return [f"{study['bundle']}/configs/{name}" for name in config_names(variant)]


def overrides(study: dict[str, Any], variant: dict[str, Any], **run: str) -> dict[str, Any]:
    """The config values of a variant.

    An overlay brings a network and an inferer of its own, which LDSeg's values are not for.
    """
    common = {
        key: value
        for key, value in study["common"].items()
        if "overlays" not in variant or not key.startswith(("network_def#", "train#inferer#"))
    }
    own = {key: value for key, value in variant.items() if key not in ("overlays", "weights")}
    return {**common, **own, **run}


def claim(study: dict[str, Any], variant: dict[str, Any], folder: Path) -> None:
    """Note in a variant's folder what it is trained and scored with.

    Raises:
        ValueError: if that was something else when the folder was made.
    """
    config = parsed(study, variant).get()
    settings = {key: value for key, value in config.items() if key not in ("_meta_", "bundle_root")}
    settings |= {name: study.get(name) for name in ("noise", "to_input")} | {
        "weights": variant.get("weights")
    }
    text, path = json.dumps(settings, indent=1), folder / "settings.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    elif path.read_text() != text:
        raise ValueError(
            f"{folder} was made with other settings, see {path.name}: remove it, or choose another "
            "--out"
        )


def train(study: dict[str, Any], variant: dict[str, Any], dataset_dir: str, folder: Path) -> None:
    """Train a variant by the bundle's command, unless it is; what it prints goes to log.txt."""
    if "weights" in variant or (folder / TRAINED).exists():
        return
    files = str(configs(study, variant))
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files]
    run = {"dataset_dir": dataset_dir, "output_dir": str(folder)}
    for key, value in overrides(study, variant, **run).items():
        text = "$None" if value is None else value  # MONAI drops a plain None
        command += [f"--{key}", text if isinstance(text, str) else repr(text)]
    with open(folder / LOG, "a") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
    (folder / TRAINED).touch()


def parsed(study: dict[str, Any], variant: dict[str, Any], **run: str) -> ConfigParser:
    """The config of a variant."""
    values = overrides(study, variant, **run)
    return Bundle(study["bundle"]).config(*config_names(variant), **values)


@torch.no_grad()
def score(
    study: dict[str, Any], variant: dict[str, Any], dataset_dir: str, folder: Path
) -> dict[str, float]:
    """Score a trained variant on the validation cases, on the network's grid."""
    parser = parsed(study, variant, dataset_dir=dataset_dir, output_dir=str(folder))
    network = parser.get_parsed_content("network_def").eval()
    weights = folder.parent / folder_name(variant["weights"]) if "weights" in variant else folder
    load_weights(network, str(weights / "model.pt"))
    with autocast(torch.device("cpu"), parser.get_parsed_content("amp")):
        parser["to_input"] = study.get("to_input", [])
        steps = parser.get_parsed_content("train#deterministic_transforms")
        on_grid = Compose([*steps, *parser.get_parsed_content("to_input")])
        pairs = []
        for item in parser.get_parsed_content("validate#dataset#data"):
            pair = on_grid(item)
            pairs.append((pair["image"].as_tensor()[None], pair["label"].as_tensor()[None].long()))
        scores = ldseg_scores if isinstance(network, DiffusionSegmenter) else peer_scores
        figures = scores(network, pairs, study["noise"])
    return {**figures, "M params": sum(p.numel() for p in network.parameters()) / 1e6}


def segmenter(study: dict[str, Any], variant: dict[str, Any], steps: int) -> Call:
    """Build a variant's network, untrained; the call segments one image in so many steps."""
    parser = parsed(study, variant)
    network = parser.get_parsed_content("network_def").eval()
    amp = parser.get_parsed_content("amp")
    inferer: Inferer = AutocastInferer(SimpleInferer(), amp)
    if isinstance(network, DiffusionSegmenter):
        inferer = SamplingInferer(num_inference_steps=steps, amp=amp)
    image = torch.zeros(1, *study["image_size"])

    def call() -> object:
        with torch.no_grad():
            return inferer(image, network)

    return call


def costs(study: dict[str, Any], names: list[str], rounds: int = 15) -> dict[str, dict[str, float]]:
    """Time and memory of the variants, all in turns in one process, whatever their weights."""
    chosen = {name: study["variants"][name] for name in names}
    builds = {}
    for name in names:
        for steps in (2, 10):
            builds[name, steps] = {"": partial(segmenter, study, chosen[name], steps)}
    memory = [key for key in builds if key[1] == 2]
    results = measure.compare(builds, rounds, budget=60, memory=memory)
    rows = {}
    for name in names:
        two, ten = results[name, 2], results[name, 10]
        if two.failure:
            raise RuntimeError(f"variant {name!r}: {two.failure}")
        assert two.memory is not None
        rows[name] = {"ms": 1000 * two.median, "K = 10 time": statistics.median(ten.ratios(two))}
        rows[name]["MB"] = two.memory.increase / 1e6
    return rows


def table(scores: dict[str, dict[str, float]]) -> str:
    """The scores as Markdown, one row a variant."""
    columns = columns_of(scores.values())
    rows = []
    for name, row in scores.items():
        cells = {column: cell(row.get(column)) for column in columns}
        rows.append({"variant": name, **cells})
    return report.table(rows)


def columns_of(rows: Iterable[dict[str, float]]) -> list[str]:
    """Every column that a row has, in order."""
    columns: dict[str, float] = {}
    for row in rows:
        columns |= row
    return list(columns)


def main() -> None:
    """Train and score what is left of the study named on the command line."""
    parser = command.argument_parser(__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", help="names of variants (default: all)")
    parser.add_argument("--train_only", action="store_true", help="leave the scores for later")
    arguments = parser.parse_args()
    study = yaml.safe_load(arguments.study.read_text())
    head = report.header(
        f"Study: {arguments.study.stem}", study["about"], "accuracy.study", None, 0
    )
    folders = {name: arguments.out / folder_name(name) for name in study["variants"]}
    unknown = set(arguments.only or ()) - set(folders)
    if unknown:
        parser.error(f"--only {sorted(unknown)}: expected some of {list(folders)}")
    chosen = [name for name in folders if not arguments.only or name in arguments.only]
    for name in chosen:
        claim(study, study["variants"][name], folders[name])
    for name in chosen:
        train(study, study["variants"][name], arguments.dataset_dir, folders[name])
    for name in [] if arguments.train_only else chosen:
        path = folders[name] / "scores.json"
        if not path.exists():
            figures = score(study, study["variants"][name], arguments.dataset_dir, folders[name])
            path.write_text(json.dumps(figures))
    scored = {
        name: folder / "scores.json"
        for name, folder in folders.items()
        if (folder / "scores.json").exists()
    }
    if scored:
        cost = costs(study, list(scored))
        scores = {
            name: {**json.loads(path.read_text()), **cost[name]} for name, path in scored.items()
        }
        (arguments.out / "table.md").write_text(f"{head}\n{table(scores)}")
        with open(arguments.out / "table.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, ["variant", *columns_of(scores.values())])
            writer.writeheader()
            writer.writerows({"variant": name, **row} for name, row in scores.items())


if __name__ == "__main__":
    main()
