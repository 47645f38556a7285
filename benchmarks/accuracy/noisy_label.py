"""Whether cDAL listens to the noisy label of its last step: all that diffusion tells that step.

    python -m benchmarks.accuracy.noisy_label bundles/cdal_hippocampus --dataset_dir DIR

The cases of ``--val_cases`` (default: the bundle's docs/val_cases.txt) that fit into one window are
segmented with the bundle's weights, one sample each, and scored in their files' own geometry.
Before the last step, the estimate of the label from which its noisy label is drawn is replaced. A
network that segments as well beside a wrong label as beside its own does not use it: it is a U-Net
with a diffusion model beside it. Writes a Markdown table and a CSV file with a row a case.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from benchmarks import command, report
from benchmarks.accuracy.latent import GridScores
from benchmarks.accuracy.quality import cell, deviation, mean
from ldseg_monai.data.datalist import case_name, resolve_datalist
from ldseg_monai.data.split import Split, read_val_cases
from ldseg_monai.inference.samplers import SamplingInferer

ABOUT = """Mean foreground Dice over {count} validation cases, shipped weights, one sample each, in
the files' own geometry; mean and SD over the cases. The last reverse step is told a noisy label
that is drawn by the posterior around an estimate of the label: the network's own, as in segmenting;
the true label; another case's, laid on this one's grid; or one that is all background. {left_out}
cases that take several windows are left out."""
ESTIMATES = ("own", "true", "another case's", "background")


@contextmanager
def estimate_before_the_last_step(
    generator: nn.Module, clean: torch.Tensor | None
) -> Iterator[None]:
    """Replace the estimates of x_0, but that of the last step, by ``clean`` (None: leave them).

    Args:
        generator: what estimates x_0 from a noisy label and its timestep.
        clean: ``(1, classes, *spatial)``.
    """

    def replace(
        module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        return output if clean is None or int(inputs[1][0]) == 0 else clean.to(output)

    hook = generator.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def scores_of_cases(
    grid: GridScores, datalist: Sequence[dict]
) -> tuple[dict[str, dict[str, float]], int]:
    """Segment the cases that fit into one window.

    Returns:
        The Dice of each by what the last step is told, and how many cases do not fit.
    """
    network = grid.network
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
            with estimate_before_the_last_step(network.generator, clean):
                image = cases[index]["image"].as_tensor()[None]
                logits = SamplingInferer(amp=grid.amp)(image, network)
            row[name] = grid.dice(logits, cases[index])
        scores[case_name(datalist[index]["image"])] = row
    return scores, len(cases) - len(fits)


def main(argv: Sequence[str] | None = None) -> None:
    """Score the bundle named on the command line; write and print the table."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument(
        "--val_cases",
        nargs="+",
        help="names of the cases, or a file of them (default: docs/val_cases.txt)",
    )
    arguments = parser.parse_args(argv)
    bundle = arguments.bundle
    grid = GridScores(bundle, dataset_dir=arguments.dataset_dir)
    if not hasattr(grid.network, "generator"):
        parser.error(
            f"{bundle.name} has a {type(grid.network).__name__}: expected a network whose "
            "generator is told a noisy label, such as CDAL's; latent.py is of LDSeg's"
        )
    datalist = resolve_datalist(arguments.dataset_dir, phantom="", phantom_dir="")
    val_cases: list[str] = []
    for item in arguments.val_cases or [bundle.root / "docs" / "val_cases.txt"]:
        val_cases += read_val_cases(item)
    scores, left_out = scores_of_cases(
        grid, Split(lambda: datalist, val_cases=val_cases).part("val")
    )
    out = command.folder_of(arguments)
    with open(out / "noisy_label.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *ESTIMATES])
        writer.writerows([case, *row.values()] for case, row in scores.items())
    about = ABOUT.format(count=len(scores), left_out=left_out or "No")
    head = report.header(f"Noisy label: {bundle.name}", about, "accuracy.noisy_label", argv, 0)
    rows = []
    for name in ESTIMATES:
        dice = [row[name] for row in scores.values()]
        text = f"{cell(mean(dice))} ± {cell(deviation(dice))}"
        rows.append({"told to the last step": name, "Dice": text})
    print(report.write(out / "noisy_label.md", head, report.table(rows)))


if __name__ == "__main__":
    main()
