"""Whether `amp: auto` chooses the faster precision, on this processor and on older ones.

    python -m benchmarks.speed.precision bundles/ldseg_hippocampus

One segmentation in two steps, in each precision, in a process of its own for each set of
instructions: the processor's own, and those that ``ONEDNN_MAX_CPU_ISA`` and
``ATEN_CPU_CAPABILITY`` hold it to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks import command, report
from benchmarks.speed import measure, workload
from benchmarks.speed.workload import Workload

STEPS = 2
AMPS = {"auto": "auto", "bfloat16": True, "float32": False}
OWN = "its own"
OLDER = {
    OWN: {},
    "AVX512_CORE_BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
NEEDS = {"AVX512_CORE_BF16": "avx512_bf16", "AVX512_CORE": "avx512f", "AVX2": "avx2"}
ABOUT = """Median seconds of a segmentation of {size} in two steps. The last column is the time of
`amp: auto` over the faster of the other two, in the same rounds; 1.2 is the most that is wanted."""


def seconds_of(work: Workload, rounds: int) -> dict[str, float]:
    """Median seconds of a segmentation by the name of its precision, here and now."""
    candidates = {}
    for name, amp in AMPS.items():
        call = partial(workload.segmenter_call, work, work.spatial_size, STEPS, amp)
        candidates[name] = {"": call}
    results = measure.compare(candidates, rounds, budget=60, device=work.device)
    return {name: result.median for name, result in results.items()}


def instruction_sets(flags: Sequence[str]) -> list[str]:
    """Names of `OLDER` that a processor with these flags has."""
    return [name for name in OLDER if name == OWN or NEEDS[name] in flags]


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each set of instructions."""
    rows = []
    for name, seconds in found.items():
        better = min(seconds["bfloat16"], seconds["float32"])
        cells = {precision: report.number(value) for precision, value in seconds.items()}
        ratio = report.number(seconds["auto"] / better)
        rows.append({"instructions": name} | cells | {"auto to the faster": ratio})
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write precision.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    command.add_here(parser)
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    if arguments.here:
        print(json.dumps(seconds_of(work, arguments.rounds)))
        return
    about = ABOUT.format(size=" x ".join(map(str, work.spatial_size)))
    head = report.header(f"Precision: {work.name}", about, "speed.precision", argv, arguments.seed)
    found = {}
    for name in instruction_sets(report.cpu_flags()):
        variables = {**os.environ, **OLDER[name]}
        found[name] = command.measured_apart("speed.precision", argv, variables)
    print(report.write(arguments.out / "precision.md", head, table(found)))


if __name__ == "__main__":
    main()
