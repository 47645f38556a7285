r"""How long one image takes a bundle's network, its peers, and diffusion on the whole grid.

    python -m benchmarks.speed.inference bundles/ldseg_knee3d
    python -m benchmarks.speed.inference bundles/ldseg_hippocampus --samples 1 5 \
        --beside bundles/cdal_hippocampus

All run in one process in turns, and the ratios are to the bundle's network in its own steps and
precision, round by round. One step of the pixel-space diffusion is measured; its further rows are
that times the steps. ``--samples`` adds the bundle, and each one ``--beside`` it, drawing so many
segmentations by the inferer of its inference.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import nn

from benchmarks import command, report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Build
from benchmarks.speed.workload import PEERS, PRECISIONS, Workload

STEPS = (1, 2, 10, 50, 1000)
MEMORY_STEPS = 10
OWN, PIXEL_DIFFUSION = "own", "PixelDiffusion"
ABOUT = """One image of {size} voxels, from network input to class logits; untrained weights. {own}
is the bundle's, with K reverse steps; its parameters include what only training uses. The others
are MONAI's, each in the faster of two memory layouts (see the remark): {peers}. PixelDiffusion is
MONAI's DiffusionModelUNet on the image's own grid, with noisy label channels beside the image; one
step was measured and the rows with more steps are that times the steps. Precision bfloat16 means
autocast. A side that a network cannot take is padded (see the remark). Each ran once a round, in
turns, in one process; ratios are of the same round. Memory is of a process of its own; it does not
depend on K, and was measured for up to {steps} steps. A bundle's name stands for its network and
its inferer as inference.yaml has them, which draws so many samples."""


class Row(NamedTuple):
    """A candidate.

    Attributes:
        network: its name.
        steps: reverse steps, 0 where it has none.
        precision: one of `PRECISIONS`.
        samples: of a bundle's own inferer; 0 of the others.
    """

    network: str
    steps: int
    precision: str
    samples: int = 0

    def __str__(self) -> str:
        return f"{self.label} {f'K = {self.steps} ' if self.steps else ''}{self.precision}"

    @property
    def label(self) -> str:
        """The network and, of a bundle's, its samples."""
        number = f"{self.samples} sample{'s' if self.samples > 1 else ''}"
        return f"{self.network}, {number}" if self.samples else self.network


def reference_of(work: Workload) -> Row:
    """The bundle's network, to which the ratios are."""
    steps = int(work.config()["num_inference_steps"])
    return Row(work.about.method, steps, work.precision)


def candidates(
    work: Workload,
    names: Sequence[str],
    steps: Sequence[int],
    beside: Sequence[Workload],
    samples: Sequence[int],
    precisions: Sequence[str],
) -> dict[Row, Mapping[str, Build]]:
    """Builds of each candidate, the reference among them."""
    size = work.spatial_size
    rows: dict[Row, Mapping[str, Build]] = {}
    reference = reference_of(work)
    for precision, amp in PRECISIONS.items():
        for number in sorted({reference.steps, *steps}):
            row = Row(work.about.method, number, precision)
            asked_for = OWN in names and precision in precisions
            if asked_for or row == reference:
                rows[row] = {"": partial(workload.segmenter_call, work, size, number, amp)}
    for one in (work, *beside):
        for number in samples:
            row = Row(one.name, 0, work.precision, number)
            rows[row] = {"": partial(workload.samples_call, one, size, number, work.amp)}
    for name in PEERS:
        for precision in precisions:
            if name in names:
                amp = PRECISIONS[precision]
                builds = workload.layouts(workload.peer_call, work, name, size, amp)
                rows[Row(name, 0, precision)] = builds
    for precision in precisions:
        if PIXEL_DIFFUSION in names:
            amp = PRECISIONS[precision]
            builds = workload.layouts(workload.pixel_diffusion_call, work, size, amp)
            rows[Row(PIXEL_DIFFUSION, 1, precision)] = builds
    return rows


def parameters(work: Workload, name: str, beside: Sequence[Workload]) -> str:
    """Millions of parameters of a network, or a dash where it cannot be made."""
    makers: dict[str, Callable[[], nn.Module]] = {
        **{one.name: one.network for one in (work, *beside)},
        work.about.method: work.network,
        PIXEL_DIFFUSION: partial(workload.pixel_diffusion_network, work),
    }
    make = makers.get(name, partial(workload.peer_network, work, name, work.spatial_size))
    try:
        return f"{workload.parameters(make()) / 1e6:.1f}"
    except Exception:  # whatever it is: the reason is in the row's remark
        return report.NONE


def padding(name: str, size: Sequence[int]) -> str:
    """Remark on the size that a network gets, where that is not the image's."""
    strides = {
        PIXEL_DIFFUSION: workload.PIXEL_DIFFUSION_STRIDE,
        **{peer: PEERS[peer].stride for peer in PEERS},
    }
    sides = workload.padded(size, strides.get(name, 1))
    return "" if sides == list(size) else "padded to " + "x".join(map(str, sides))


def table(
    work: Workload,
    results: Mapping[Row, measure.Result],
    steps: Sequence[int],
    beside: Sequence[Workload] = (),
) -> str:
    """A row for each candidate, and for each number of steps of the pixel-space diffusion."""
    names = {row.network for row in results}
    millions = {name: parameters(work, name, beside) for name in names}
    rows, reference = [], reference_of(work)
    for row, result in results.items():
        remark = padding(row.network, work.spatial_size)
        multiplied = row.network == PIXEL_DIFFUSION and not result.failure
        for number in sorted({1, *steps}) if multiplied else [row.steps]:
            repeats = number if multiplied else 1
            name = f"{reference.network} K = {reference.steps}"
            columns = report.measured(result, results[reference], name, repeats)
            if remark and not result.failure:
                columns["remark"] = f"{columns['remark']}; {remark}"
            about = {
                "network": row.label,
                "steps K": str(number or report.NONE),
                "precision": row.precision,
                "parameters, M": millions[row.network],
            }
            rows.append({**about, **columns})
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write inference_KIND.md, of this kind of processor, for the bundle named, and print it."""
    names = [OWN, *PEERS, PIXEL_DIFFUSION]
    parser = workload.argument_parser(__doc__)
    workload.add_comparison(parser)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        help="networks beside the reference; own: the bundle's",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=list(PRECISIONS),
        default=list(PRECISIONS),
        help="of the networks; the reference has the bundle's, which `amp` sets",
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", default=STEPS, help="numbers of reverse steps"
    )
    parser.add_argument(
        "--samples",
        type=int,
        nargs="+",
        default=[],
        help="also segmentations of one image, so many",
    )
    parser.add_argument(
        "--beside",
        type=command.bundle,
        nargs="+",
        default=[],
        help="bundles that draw samples too",
    )
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    beside = [replace(work, bundle=bundle, overrides={}) for bundle in arguments.beside]
    peers = "; ".join(f"{name} ({peer.about})" for name, peer in PEERS.items())
    about = ABOUT.format(
        size="x".join(map(str, work.spatial_size)),
        own=work.about.method,
        peers=peers,
        steps=MEMORY_STEPS,
    )
    head = report.header(
        f"Inference time: {work.name}", about, "speed.inference", argv, arguments.seed
    )
    chosen = candidates(
        work,
        arguments.only,
        arguments.steps,
        beside,
        arguments.samples,
        arguments.precision,
    )
    memory = [row for row in chosen if row.steps <= MEMORY_STEPS and not arguments.no_memory]
    results = measure.compare(chosen, arguments.rounds, arguments.budget, arguments.device, memory)
    name = f"inference_{report.processor_kind(arguments.device)}.md"
    text = table(work, results, arguments.steps, beside)
    print(report.write(arguments.out / name, head, text))


if __name__ == "__main__":
    main()
