"""Whether cDAL listens to the noisy label of its last step, which is all that diffusion tells that step.

    python -m benchmarks.accuracy.noisy_label bundles/cdal_hippocampus --dataset_dir DIR

The cases of ``--val_cases`` (default: the bundle's docs/val_cases.txt) that fit into one window are
segmented with the bundle's weights, one sample each, and scored in their files' own geometry.
Before the last step, the estimate of the label from which its noisy label is drawn is replaced. A
network that segments as well beside a wrong label as beside its own does not use it: it is a U-Net
with a diffusion model beside it. Writes a Markdown table and a CSV file with a row a case.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.accuracy.latent import GridScores
from benchmarks.accuracy.quality import cell, deviation, mean
from ldseg_monai.data.datalist import case_name, resolve_datalist
from ldseg_monai.data.split import Split, read_val_cases
from ldseg_monai.inference.samplers import CDALSamplingInferer
from ldseg_monai.networks.cdal.network import CDAL

ABOUT = """Mean foreground Dice over {count} validation cases, shipped weights, one sample each, in the files' own
geometry; mean and SD over the cases. The last reverse step is told a noisy label that is drawn by the posterior around
an estimate of the label: the network's own, as in segmenting; the true label; another case's, laid on this one's
grid; or one that is all background. {left_out} cases that take several windows are left out."""
ESTIMATES = ("own", "true", "another case's", "background")


@contextmanager
def estimate_before_the_last_step(network: CDAL, clean: torch.Tensor | None) -> Iterator[None]:
    """Replace the generator's estimates of x_0, except that of the last step, by ``clean`` (None: leave them)."""

    def replace(
        module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        return output if clean is None or int(inputs[1][0]) == 0 else clean.to(output)

    hook = network.generator.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def scores_of_cases(
    grid: GridScores, datalist: Sequence[dict]
) -> tuple[dict[str, dict[str, float]], int]:
    """Dice of each case that fits into one window, by what the last step is told, and how many cases do not fit."""
    network: CDAL = grid.network
    labels = [grid.on_grid(item)["label"].as_tensor()[None] for item in datalist]
    cases = [grid.original(item) for item in datalist]
    fits = [
        index
        for index, case in enumerate(cases)
        if list(case["image"].shape[1:]) == grid.spatial_size
    ]
    scores = {}
    for place, index in enumerate(fits):
        own, other = (network.encode_label(labels[each]) for each in (index, fits[place - 1]))
        none = network.encode_label(torch.zeros_like(labels[index]))
        row = {}
        for name, clean in zip(ESTIMATES, (None, own, other, none), strict=True):
            with estimate_before_the_last_step(network, clean):
                logits = CDALSamplingInferer(amp=grid.amp)(
                    cases[index]["image"].as_tensor()[None], network
                )
            row[name] = grid.dice(logits, cases[index])
        scores[case_name(datalist[index]["image"])] = row
    return scores, len(cases) - len(fits)


def main(argv: Sequence[str] | None = None) -> None:
    """Score the bundle named on the command line; write and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "bundle", type=Path, help="folder of a bundle with a CDAL, such as bundles/cdal_hippocampus"
    )
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument(
        "--val_cases",
        nargs="+",
        help="names of the cases, or a file of them (default: docs/val_cases.txt)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the table (default: benchmarks/results/BUNDLE)"
    )
    arguments = parser.parse_args(argv)
    overrides = {"dataset_dir": arguments.dataset_dir}
    grid = GridScores(arguments.bundle, overrides, arguments.bundle / "models" / "model.pt")
    if not isinstance(grid.network, CDAL):
        parser.error(
            f"{arguments.bundle} has a {type(grid.network).__name__}: expected a CDAL; latent.py is LDSeg's"
        )
    datalist = resolve_datalist(arguments.dataset_dir, phantom="", phantom_dir="")
    named = arguments.val_cases or [arguments.bundle / "docs" / "val_cases.txt"]
    val_cases = [name for item in named for name in read_val_cases(item)]
    scores, left_out = scores_of_cases(grid, Split(datalist, val_cases=val_cases).part("val"))
    out = arguments.out or Path(__file__).parents[1] / "results" / arguments.bundle.resolve().name
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "noisy_label.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *ESTIMATES])
        writer.writerows([case, *row.values()] for case, row in scores.items())
    about = ABOUT.format(count=len(scores), left_out=left_out or "No")
    head = report.header(
        f"Noisy label: {arguments.bundle.resolve().name}", about, "accuracy.noisy_label", argv, 0
    )
    columns = {name: [row[name] for row in scores.values()] for name in ESTIMATES}
    rows = [
        {"told to the last step": name, "Dice": f"{cell(mean(values))} ± {cell(deviation(values))}"}
        for name, values in columns.items()
    ]
    print(report.write(out / "noisy_label.md", head, report.table(rows)))


if __name__ == "__main__":
    main()
