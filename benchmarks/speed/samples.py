"""How the time of a bundle's network grows with the samples of an image, and which part takes it.

    python -m benchmarks.speed.samples bundles/ldseg_knee3d

The image is encoded once whatever the number of samples. Latents are denoised in one batch, and
decoded one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import DECODING, DENOISING, ENCODING, Call, Result, Stopwatch
from benchmarks.speed.workload import Workload
from ldseg_monai.inference.samplers import SamplingInferer

NUMBERS = (1, 5, 20, 100)
ENSEMBLE = "ensemble"
PARTS = (ENCODING, DENOISING, DECODING, ENSEMBLE)
ABOUT = """One image of {size} voxels, from network input to class logits (one sample) or to the
mean and the standard deviation of the class probabilities (more), in {precision} with {steps}
reverse steps and untrained weights. Ratios are to one sample, in the same round; the parts are
medians, in seconds, "ensemble" with the decoder's last interpolation, where it has one. Memory is
of a process of its own."""


def sampling_call(work: Workload, num_samples: int) -> Call:
    """Build the network; the call draws samples of one image and returns its parts' seconds."""
    network, image = work.network(), work.image(work.spatial_size)
    inferer = SamplingInferer(num_samples, seed=work.seed, amp=work.amp)
    if work.compile_mode:
        inferer(image, network)
    stopwatch = Stopwatch(work.device)
    stopwatch.watch(network)

    def call() -> dict[str, float]:
        with stopwatch.part(ENSEMBLE):
            inferer(image, network)
        parts = stopwatch.lap()
        parts[ENSEMBLE] -= parts[ENCODING] + parts[DENOISING] + parts[DECODING]
        return parts

    return call


def table(results: Mapping[int, Result]) -> str:
    """A row for each number of samples."""
    rows = []
    for number, result in results.items():
        parts = result.median_parts()
        each = report.number(result.median / number) if parts else report.NONE
        rows.append(
            {"samples": str(number), "seconds for each": each}
            | {name: report.number(parts[name]) if parts else report.NONE for name in PARTS}
            | report.measured(result, results[min(results)], "one sample")
        )
    return report.table(rows)


def lines(results: Mapping[int, Result]) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds against samples, of the whole and of its parts."""
    done = {number: result for number, result in results.items() if not result.failure}
    numbers = [float(number) for number in done]
    curves = {"all": (numbers, [result.median for result in done.values()])}
    for name in PARTS:
        curves[name] = (numbers, [result.median_parts()[name] for result in done.values()])
    return curves


def main(argv: Sequence[str] | None = None) -> None:
    """Write samples.md and its plot, and print the table."""
    parser = workload.argument_parser(__doc__)
    workload.add_comparison(parser)
    parser.add_argument(
        "--samples", type=int, nargs="+", default=NUMBERS, help="numbers of samples, beside one"
    )
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    about = ABOUT.format(
        size="x".join(map(str, work.spatial_size)),
        precision=work.precision,
        steps=work.network().num_inference_steps,
    )
    head = report.header(
        f"Time of several samples: {work.name}", about, "speed.samples", argv, arguments.seed
    )
    chosen = {
        number: {"": partial(sampling_call, work, number)}
        for number in sorted({1, *arguments.samples})
    }
    memory = () if arguments.no_memory else tuple(chosen)
    results = measure.compare(chosen, arguments.rounds, arguments.budget, arguments.device, memory)
    picture = report.plot(
        arguments.out / "samples.png", lines(results), "samples", "seconds for one image"
    )
    print(report.write(arguments.out / "samples.md", head, table(results), picture))


if __name__ == "__main__":
    main()
