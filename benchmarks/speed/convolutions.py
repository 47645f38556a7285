"""What it is worth to compute small 3D convolutions by oneDNN, in float32 on a CPU.

    python -m benchmarks.speed.convolutions bundles/ldseg_hippocampus

One segmentation in two steps as inference computes it (`ldseg_monai.runtime.precision`), beside the
kernels that PyTorch chooses itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Call, Result
from benchmarks.speed.workload import Workload
from ldseg_monai.runtime.precision import autocast

OURS, PYTORCH = "oneDNN for small ones too", "PyTorch's choice"
ABOUT = """A segmentation of {size} in two steps, float32, untrained weights. Ratios are to ours, in
the same round."""


def call_of(work: Workload, name: str) -> Call:
    """Build the bundle's network; the call segments one image."""
    network, image = work.network(), work.image(work.spatial_size)

    def call() -> torch.Tensor:
        chosen = autocast(image.device, False) if name == OURS else nullcontext()
        with torch.no_grad(), chosen:
            return network.segment(image)

    return call


def table(results: Mapping[str, Result]) -> str:
    """A row for each."""
    rows = []
    for name, result in results.items():
        rows.append({"convolutions": name} | report.measured(result, results[OURS], "ours"))
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write convolutions.md for the bundle named on the command line, and print it."""
    arguments = workload.argument_parser(__doc__).parse_args(argv)
    work = workload.workload_of(arguments)
    about = ABOUT.format(size=" x ".join(map(str, work.spatial_size)))
    title = f"Small convolutions: {work.name}"
    head = report.header(title, about, "speed.convolutions", argv, arguments.seed)
    candidates = {name: {"": partial(call_of, work, name)} for name in (OURS, PYTORCH)}
    results = measure.compare(candidates, arguments.rounds, budget=60, device=arguments.device)
    print(report.write(arguments.out / "convolutions.md", head, table(results)))


if __name__ == "__main__":
    main()
