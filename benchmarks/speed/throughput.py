"""Which share of the time many files through one process are in the network.

    python -m benchmarks.speed.throughput bundles/ldseg_hippocampus --num 100

It runs the evaluator of the bundle's inference.yaml, as the command does, on phantoms or on a data
set. The process's start and the reading of the weights are left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.engines.utils import IterationEvents

from benchmarks import report
from benchmarks.speed import workload

PARTS = (
    "network",
    "waiting for the next file",
    "postprocessing, writing, drawing",
    "total",
)
ABOUT = """{number} files one after the other through the evaluator of inference.yaml. The network
is the inferer: the samples and the windows. The next file is read and preprocessed in a thread
meanwhile. Weights: {weights}; files: {files}."""


class Clock:
    """The seconds from each start to the stop that follows, added up.

    Args:
        device: ``cpu`` or ``cuda``, which is waited for.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds = 0.0
        self.began = 0.0

    def start(self) -> None:
        """Begin."""
        self.began = self._now()

    def stop(self) -> None:
        """Add what has passed."""
        self.seconds += self._now() - self.began

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def seconds_of(config: ConfigParser, device: str) -> tuple[int, dict[str, float]]:
    """Segment every case of an inference config.

    Returns:
        Number of cases, and seconds of each part and of the whole.
    """
    evaluator = config.get_parsed_content("evaluator")
    network, waiting, total = Clock(device), Clock(device), Clock(device)
    evaluator.add_event_handler(Events.EPOCH_STARTED, total.start)
    evaluator.add_event_handler(Events.GET_BATCH_STARTED, waiting.start)
    evaluator.add_event_handler(Events.GET_BATCH_COMPLETED, waiting.stop)
    evaluator.add_event_handler(Events.ITERATION_STARTED, network.start)
    evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, network.stop)
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, total.stop)
    evaluator.run()
    rest = total.seconds - network.seconds - waiting.seconds
    parts = [network.seconds, waiting.seconds, rest, total.seconds]
    return int(evaluator.state.epoch_length), dict(zip(PARTS, parts, strict=True))


def table(number: int, seconds: dict[str, float]) -> str:
    """A row for each part."""
    rows = []
    for part, value in seconds.items():
        each = {"seconds": report.number(value), "each file": report.number(value / number)}
        rows.append({"part": part} | each | {"share": f"{100 * value / seconds[PARTS[-1]]:.1f}%"})
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write throughput.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    parser.add_argument("--num", type=int, default=100, help="phantoms (default: %(default)s)")
    parser.add_argument("--dataset_dir", default="", help="data set (default: phantoms)")
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        data = {"dataset_dir": arguments.dataset_dir, "num_phantoms": arguments.num}
        config = work.config("inference.yaml", output_dir=folder, phantoms=True, **data)
        config.get_parsed_content("datalist")  # phantoms are written before the clock runs
        shipped = "the shipped ones" if work.bundle.weights.is_file() else "untrained"
        files = "a data set" if arguments.dataset_dir else "phantoms"
        about = ABOUT.format(number=arguments.num, weights=shipped, files=files)
        title = f"Throughput: {work.name}"
        head = report.header(title, about, "speed.throughput", argv, arguments.seed)
        number, seconds = seconds_of(config, arguments.device)
    print(report.write(arguments.out / "throughput.md", head, table(number, seconds)))


if __name__ == "__main__":
    main()
