"""What it costs that threads without work wait awake or asleep, quiet and beside other processes.

    python -m benchmarks.speed.waiting bundles/ldseg_glas

One segmentation in two steps, in a process of its own for each row: PyTorch's OpenMP threads wait
awake by default, asleep with ``OMP_WAIT_POLICY=passive``, as the `ldseg` command sets it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks import command, report
from benchmarks.speed import measure, workload
from benchmarks.speed.workload import Workload

STEPS = 2
VARIABLE = "OMP_WAIT_POLICY"
AWAKE, ASLEEP = "awake (not set)", "asleep (passive)"
BUSY = "while True: pass"  # a process that takes all of a core that it gets
ABOUT = """Seconds of a segmentation of {size} in two steps, median and range over {rounds} rounds,
in a process of its own that runs beside so many others, each of which takes all that it gets of a
core. The last column is the time awake over the time asleep: below 1, waiting awake pays."""


def seconds_of(work: Workload, rounds: int) -> list[float]:
    """Seconds of a segmentation in each round, here and now."""
    call = partial(workload.segmenter_call, work, work.spatial_size, STEPS, "auto")
    results = measure.compare({"": {"": call}}, rounds, budget=120, device=work.device)
    return list(results[""].seconds.values())


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Let so many processes take all that they get of a core each."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def waiting_environment(policy: str) -> dict[str, str]:
    """This process's environment variables, with the policy in place of its own."""
    variables = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if policy == ASLEEP:
        variables[VARIABLE] = "passive"
    return variables


def table(found: Mapping[int, Mapping[str, Sequence[float]]]) -> str:
    """A row for each number of other processes."""
    rows = []
    for number, seconds in found.items():
        row = {"other processes": str(number)}
        for policy, values in seconds.items():
            row[policy] = report.number(statistics.median(values))
            row[f"range {policy.split()[0]}"] = report.spread(values)
        ratio = statistics.median(seconds[AWAKE]) / statistics.median(seconds[ASLEEP])
        rows.append(row | {"awake over asleep": report.number(ratio)})
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write waiting.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    parser.add_argument(
        "--others", type=int, nargs="+", default=[0, 4], help="other processes (%(default)s)"
    )
    command.add_here(parser)
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    if arguments.here:
        print(json.dumps(seconds_of(work, arguments.rounds)))
        return
    size = " x ".join(map(str, work.spatial_size))
    about = ABOUT.format(size=size, rounds=arguments.rounds)
    head = report.header(f"Waiting: {work.name}", about, "speed.waiting", argv, arguments.seed)
    found: dict[int, dict[str, list[float]]] = {}
    for number in arguments.others:
        found[number] = {}
        for policy in (AWAKE, ASLEEP):
            with busy(number):
                variables = waiting_environment(policy)
                found[number][policy] = command.measured_apart("speed.waiting", argv, variables)
    print(report.write(arguments.out / "waiting.md", head, table(found)))


if __name__ == "__main__":
    main()
