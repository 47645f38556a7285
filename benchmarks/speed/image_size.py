"""How the time for one image grows with its size, beside a UNet and diffusion on the whole grid.

    python -m benchmarks.speed.image_size bundles/ldseg_knee3d

As Figure 6b of the LDSeg paper. The slope in logarithmic axes says how: 1 is linear in the voxels.
Other diffusion methods of the bundle come beside it by ``--overlays``, each in as many steps
(``--steps``; the figure has 50), or in its own with ``--steps own``, as the cDAL paper compares its
time to SegDiff's (Section 3.4). Files that go together are joined by ``+``:

    python -m benchmarks.speed.image_size bundles/ldseg_glas --steps 50 \
        --overlays baselines/sdf_ddpm.yaml baselines/segdiff.yaml
    python -m benchmarks.speed.image_size bundles/cdal_monuseg --steps own \
        --overlays baselines/segdiff_rrdb.yaml
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Build, Result
from benchmarks.speed.workload import Workload

STEPS = 2  # where --steps does not say
OWN = "own"  # of --steps: as many as a method's config says
UNET, PIXEL_DIFFUSION = "UNet", "PixelDiffusion, one step"
FACTORS = {2: (0.25, 0.5, 1.0, 2.0), 3: (0.25, 0.5, 0.75, 1.0, 1.5)}
ABOUT = """One image, from network input to class logits, in {precision} with untrained
weights. UNet is MONAI's ({unet}); PixelDiffusion is one step of MONAI's DiffusionModelUNet on the
image's own grid. Ratios are to the bundle's network at the same size, in the same round. Memory is
of a process of its own."""


class Row(NamedTuple):
    """A candidate: a network and the size of its image."""

    network: str
    size: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.network}, {'x'.join(map(str, self.size))}"


def methods_of(work: Workload, overlays: Sequence[str]) -> dict[str, Workload]:
    """The bundle's network and those that overlays make of it, by their names.

    Raises:
        ValueError: for an overlay that there is not.
    """
    methods = {work.about.method: work}
    for item in overlays:
        names = tuple(item.split("+"))
        for name in names:
            if not (work.bundle.configs / name).is_file():
                raise ValueError(
                    f"--overlays {item}: {work.bundle.configs / name} does not exist; expected a "
                    "file of configs/"
                )
        methods[Path(names[-1]).stem] = dataclasses.replace(work, overlays=names)
    return methods


def sizes(work: Workload, factors: Sequence[float]) -> list[tuple[int, ...]]:
    """The bundle's size times each factor, in multiples that all networks take, smallest first."""
    stride = math.lcm(
        work.about.stride, workload.PEERS[UNET].stride, workload.PIXEL_DIFFUSION_STRIDE
    )
    scaled = set()
    for factor in factors:
        cells = [max(1, round(factor * side / stride)) for side in work.spatial_size]
        scaled.add(tuple(stride * cell for cell in cells))
    return sorted(scaled, key=math.prod)


def number_of_steps(text: str) -> int | None:
    """What --steps says: a number, or None for each method's own.

    Raises:
        ArgumentTypeError: for anything else.
    """
    if text == OWN:
        return None
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of steps, or {OWN}")
    return int(text)


def candidates(
    methods: Mapping[str, Workload],
    image_sizes: Sequence[tuple[int, ...]],
    steps: int | None = STEPS,
) -> dict[Row, Mapping[str, Build]]:
    """Builds of each network at each size, the bundle's own first.

    Args:
        methods: as of `methods_of`.
        image_sizes: as of `sizes`.
        steps: of each method; None for its own.
    """
    rows: dict[Row, Mapping[str, Build]] = {}
    work = next(iter(methods.values()))
    numbers = dict.fromkeys(methods, steps)
    if steps is None:
        for name, method in methods.items():
            numbers[name] = int(method.config().get_parsed_content("num_inference_steps"))
    for size in image_sizes:
        for name, method in methods.items():
            call = partial(workload.segmenter_call, method, size, numbers[name], work.amp)
            rows[Row(f"{name}, K = {numbers[name]}", size)] = {"": call}
        rows[Row(UNET, size)] = workload.layouts(workload.peer_call, work, UNET, size, work.amp)
        rows[Row(PIXEL_DIFFUSION, size)] = workload.layouts(
            workload.pixel_diffusion_call, work, size, work.amp
        )
    return rows


def networks_of(results: Mapping[Row, Result]) -> list[str]:
    """Names of the networks, the bundle's own first."""
    return list(dict.fromkeys(row.network for row in results))


def curve(results: Mapping[Row, Result], network: str) -> tuple[list[float], list[float]]:
    """Voxels and median seconds of a network, smallest first, without sizes at which it failed."""
    done = [
        (row, result)
        for row, result in results.items()
        if row.network == network and not result.failure
    ]
    points = sorted((math.prod(row.size), result.median) for row, result in done)
    return [float(voxels) for voxels, _ in points], [seconds for _, seconds in points]


def slope(voxels: Sequence[float], seconds: Sequence[float]) -> float:
    """Least squares slope in logarithmic axes.

    Raises:
        ValueError: for fewer than two points.
    """
    if len(voxels) < 2:
        raise ValueError(f"{len(voxels)} points: expected two for a slope")
    return float(np.polyfit(np.log(voxels), np.log(seconds), 1)[0])


def slopes(results: Mapping[Row, Result]) -> str:
    """Table of each network's slope, over all sizes and over the larger half.

    Overhead matters less in the larger half.
    """
    rows = []
    for network in networks_of(results):
        voxels, seconds = curve(results, network)
        half = min(len(voxels) // 2, max(len(voxels) - 2, 0))
        row = {"slope": network}
        for name, first in (("all sizes", 0), ("larger half", half)):
            row[name] = (
                f"{slope(voxels[first:], seconds[first:]):.2f}" if len(voxels) > 1 else report.NONE
            )
        rows.append(row)
    return report.table(rows)


def table(results: Mapping[Row, Result]) -> str:
    """A row for each network at each size."""
    rows = []
    own = networks_of(results)[0]
    for row, result in results.items():
        about = {
            "size": "x".join(map(str, row.size)),
            "voxels, millions": report.number(math.prod(row.size) / 1e6),
            "network": row.network,
        }
        reference = results[Row(own, row.size)]
        rows.append(about | report.measured(result, reference, own))
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write image_size.md and its plot, with K in their names where it is given; print it."""
    parser = workload.argument_parser(__doc__)
    workload.add_comparison(parser)
    parser.add_argument(
        "--factors", type=float, nargs="+", help="of the size (default: 2D 1/4 to 2, 3D 1/4 to 1.5)"
    )
    parser.add_argument(
        "--steps",
        type=number_of_steps,
        default=STEPS,
        metavar=f"K|{OWN}",
        help="reverse steps of each method (default: %(default)s)",
    )
    parser.add_argument(
        "--overlays", nargs="+", default=[], help="other diffusion methods, below configs/"
    )
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    methods = methods_of(work, arguments.overlays)
    about = ABOUT.format(precision=work.precision, unet=workload.PEERS[UNET].about)
    head = report.header(
        f"Time against image size: {work.name}", about, "speed.image_size", argv, arguments.seed
    )
    factors = arguments.factors or FACTORS[len(work.spatial_size)]
    chosen = candidates(methods, sizes(work, factors), arguments.steps)
    memory = () if arguments.no_memory else tuple(chosen)
    results = measure.compare(chosen, arguments.rounds, arguments.budget, arguments.device, memory)
    lines = {network: curve(results, network) for network in networks_of(results)}
    stem = "image_size"
    if arguments.steps != STEPS:
        stem += f"_{arguments.steps or OWN}"
    plot = arguments.out / f"{stem}.png"
    picture = report.plot(plot, lines, "voxels", "seconds for one image")
    sections = (head, table(results), slopes(results), picture)
    print(report.write(plot.with_suffix(".md"), *sections))


if __name__ == "__main__":
    main()
