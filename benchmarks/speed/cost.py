"""What it takes to segment very many studies: time, machines, money and disk.

    python -m benchmarks.speed.cost bundles/ldseg_knee3d --dataset_dir DIR --price 0.05

Runs the bundle's inference command on a few and on more images, from file to file, as a user would;
the difference says what one more image costs, the rest what a process costs to start. Everything
else is arithmetic on these two.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import command, report
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import case_name

FLEETS = (1, 10, 100, 1000)
ABOUT = """The inference command of the bundle, in a process of its own, on {few} and on {many}
images ({images}), label maps without pictures{settings}; medians over {rounds} rounds. One more
image takes {seconds} s, starting a process and reading the weights {start} s. Input takes {read} MB
an image, the label map {written} MB.

For {studies:,} images of one study each, on machines like the one below ({cores} of its cores used,
one process each), at {price} for an hour of one core, an assumption that --price sets: no time for
copying, for queues or for machines that fail, and no price of disk."""


@dataclass(frozen=True)
class Throughput:
    """What was measured.

    Attributes:
        seconds: of an image.
        start: seconds to start.
        read: bytes of an image's file.
        written: bytes of the file that is written for it.
    """

    seconds: float
    start: float
    read: float
    written: float


def run_inference(bundle: Bundle, images: Path, output_dir: Path, settings: Sequence[str]) -> float:
    """Seconds of the inference command on a folder of images."""
    config = str(bundle.config_file("inference.yaml"))
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config]
    places = {
        "bundle_root": bundle.root,
        "dataset_dir": images,
        "output_dir": output_dir,
        "save_overlay": False,
    }
    knobs = [setting.split("=", 1) for setting in settings]
    for name, value in [*places.items(), *knobs]:
        line += [f"--{name}", str(value)]
    start = time.perf_counter()
    process = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(line)} failed:\n{process.stdout[-3000:]}")
    return time.perf_counter() - start


def measure(
    bundle: Bundle,
    files: Sequence[str],
    numbers: tuple[int, int],
    rounds: int,
    settings: Sequence[str],
) -> Throughput:
    """Run on two numbers of images, which are the files in turn, and tell start and image apart."""
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as place:
        for number in numbers:
            images = Path(place, f"images_{number}")
            images.mkdir()
            for index in range(number):
                file = Path(files[index % len(files)]).resolve()
                extension = file.name[len(case_name(file)) :]
                (images / f"case_{index}{extension}").symlink_to(file)
        for repeat in range(rounds):
            for number in numbers:
                output_dir = Path(place, f"output_{number}_{repeat}")
                images = Path(place, f"images_{number}")
                seconds[number].append(run_inference(bundle, images, output_dir, settings))
        labels = list(output_dir.glob("*_label*"))
        written = sum(label.stat().st_size for label in labels) / len(labels)
    few, many = numbers
    image = (statistics.median(seconds[many]) - statistics.median(seconds[few])) / (many - few)
    read = statistics.mean(os.path.getsize(file) for file in files)
    return Throughput(image, statistics.median(seconds[few]) - few * image, read, written)


def table(throughput: Throughput, studies: int, cores: int, price: float) -> str:
    """A row for each number of machines."""
    rows = []
    for machines in FLEETS:
        hours = (throughput.start + throughput.seconds * -(-studies // machines)) / 3600
        core_hours = hours * machines * cores
        days = f"{report.number(hours / 24)} days"
        rows.append(
            {
                "machines": str(machines),
                "time": days if hours >= 48 else f"{report.number(hours)} hours",
                "core hours": report.number(core_hours),
                "price": report.number(core_hours * price),
            }
        )
    gigabytes = [
        report.number(studies * size / 1e9) for size in (throughput.read, throughput.written)
    ]
    return report.table(rows) + f"\nDisk: {gigabytes[0]} GB to read, {gigabytes[1]} GB written.\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Write cost.md for the bundle named on the command line, and print it."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    parser.add_argument(
        "--dataset_dir",
        default="",
        help="data set whose images are taken in turn (default: a phantom)",
    )
    parser.add_argument("--studies", type=int, default=1_000_000)
    parser.add_argument(
        "--price", type=float, default=0.05, help="of one core for an hour, in any currency"
    )
    parser.add_argument(
        "--numbers", type=int, nargs=2, default=(2, 22), help="images of the short and the long run"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KNOB=VALUE", help="knobs of inference.yaml"
    )
    arguments = parser.parse_args(argv)
    bundle, out = arguments.bundle, command.folder_of(arguments)
    head = report.header(
        f"Cost of many studies: {bundle.name}", "{about}", "speed.cost", argv, seed=0
    )
    with tempfile.TemporaryDirectory() as phantoms:
        overrides = {"dataset_dir": arguments.dataset_dir, "output_dir": phantoms}
        config = bundle.config("inference.yaml", num_phantoms=1, phantoms=True, **overrides)
        files = [case["image"] for case in config.get_parsed_content("datalist")]
        throughput = measure(
            bundle, files, tuple(arguments.numbers), arguments.rounds, arguments.set
        )
    about = ABOUT.format(
        few=arguments.numbers[0],
        many=arguments.numbers[1],
        images=f"{len(files)} of a data set, in turn" if arguments.dataset_dir else "a phantom",
        settings="".join(f", {setting}" for setting in arguments.set),
        rounds=arguments.rounds,
        seconds=report.number(throughput.seconds),
        start=report.number(throughput.start),
        read=report.number(throughput.read / 1e6),
        written=report.number(throughput.written / 1e6),
        studies=arguments.studies,
        cores=torch.get_num_threads(),
        price=arguments.price,
    )
    text = table(throughput, arguments.studies, torch.get_num_threads(), arguments.price)
    print(report.write(out / "cost.md", head.replace("{about}", about), text))


if __name__ == "__main__":
    main()
