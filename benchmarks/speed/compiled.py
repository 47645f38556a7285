"""What `torch.compile` brings a bundle's network, and on a GPU the CUDA graphs that it can take.

    python -m benchmarks.speed.compiled bundles/ldseg_hippocampus

One segmentation in two steps; compiling itself, some seconds to minutes, is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Result

STEPS = 2
AS_IT_IS = "as it is"
MODES = {AS_IT_IS: "", "torch.compile": "default"}
GRAPHS = {"torch.compile with CUDA graphs": "reduce-overhead"}
ABOUT = """A segmentation of {size} in {steps} steps, {precision}, untrained weights, each part of
the network compiled by itself. Ratios are to the network as it is, in the same round."""


def table(results: Mapping[str, Result]) -> str:
    """A row for each."""
    rows = []
    for name, result in results.items():
        columns = report.measured(result, results[AS_IT_IS], "as it is")
        rows.append({"network": name} | columns)
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write compiled_KIND.md of a bundle, on this kind of processor, and print it."""
    arguments = workload.argument_parser(__doc__).parse_args(argv)
    work = workload.workload_of(arguments)
    size = work.spatial_size
    about = ABOUT.format(size=" x ".join(map(str, size)), steps=STEPS, precision=work.precision)
    title = f"Compiled networks: {work.name}"
    head = report.header(title, about, "speed.compiled", argv, arguments.seed)
    modes = MODES | (GRAPHS if arguments.device == "cuda" else {})
    candidates = {}
    for name, mode in modes.items():
        compiled = replace(work, compile_mode=mode)
        call = partial(workload.segmenter_call, compiled, size, STEPS, work.amp)
        candidates[name] = {"": call}
    results = measure.compare(candidates, arguments.rounds, budget=60, device=arguments.device)
    name = f"compiled_{report.processor_kind(arguments.device)}.md"
    print(report.write(arguments.out / name, head, table(results)))


if __name__ == "__main__":
    main()
