"""What views of an image, ensembles and the choice of pieces cost in time.

    python -m benchmarks.speed.views bundles/ldseg_glas

What they gain in Dice is measured by `benchmarks.accuracy.views` and `benchmarks.accuracy.pieces`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from benchmarks import report
from benchmarks.known_views import AS_IT_IS, KnownViews, known_views
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Build, Call, Result
from benchmarks.speed.workload import Workload
from ldseg_monai.inference import DropSmallObjectsd
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks import EnsembleSegmenter

NETWORKS = 5
SMALLEST = 100  # voxels of a piece; the time does not depend on it
ONE = "one sample of one network"
ABOUT = """One image of {size} voxels, from network input to class logits (one sample) or to the
mean and the standard deviation of the class probabilities (more), in {precision} with {steps}
reverse steps and untrained weights. Ratios are to one sample of one network, in the same round. The
choice of pieces is on the label map of a generated phantom, {label} voxels in its file."""


def sampling_call(
    work: Workload, networks: int, num_samples: int, views: KnownViews = AS_IT_IS
) -> Call:
    """Build the networks; the call draws samples of one image, which they see in some views."""
    own = [work.network() for _ in range(networks)]
    network = own[0] if networks == 1 else EnsembleSegmenter(own).eval()
    inferer = SamplingInferer(num_samples, seed=work.seed, amp=work.amp)
    views.let_see(inferer)
    image = work.image(work.spatial_size)
    return lambda: inferer(image, network)


def pieces_call(label: torch.Tensor, smallest: int, largest_only: Sequence[int]) -> Call:
    """The call keeps some pieces of a label map."""
    drop = DropSmallObjectsd("pred", smallest, largest_only)
    return lambda: drop({"pred": label})


def phantom_label(work: Workload, folder: str) -> torch.Tensor:
    """Label map of a phantom of the bundle's, ``(1, *spatial)``, as its file has it."""
    config = work.config(dataset_dir="", output_dir=folder, num_phantoms=1)
    case = dict(config.get_parsed_content("datalist")()[0])
    label: torch.Tensor = config.get_parsed_content("load")(case)["label"]
    return torch.as_tensor(label).to(torch.uint8)


def candidates(
    work: Workload, networks: int, label: torch.Tensor
) -> dict[str, Mapping[str, Build]]:
    """What is timed: one sample first."""
    views = known_views(work.config(), none_too=True)
    number = views.number
    classes = range(1, work.about.out_channels)
    chosen: dict[str, Build] = {ONE: partial(sampling_call, work, 1, 1)}
    if number > 1:
        chosen[f"{number} samples"] = partial(sampling_call, work, 1, number)
        chosen[f"{number} views"] = partial(sampling_call, work, 1, number, views)
    chosen[f"{networks} networks"] = partial(sampling_call, work, networks, networks)
    if number > 1:
        every = partial(sampling_call, work, networks, networks * number, views)
        chosen[f"{networks} networks, {number} views"] = every
    chosen["pieces of a smallest size"] = partial(pieces_call, label, SMALLEST, ())
    chosen["the largest piece of each class"] = partial(pieces_call, label, 1, classes)
    return {name: {"": build} for name, build in chosen.items()}


def table(results: Mapping[str, Result]) -> str:
    """A row for each candidate."""
    rows = []
    for name, result in results.items():
        rows.append({"what": name} | report.measured(result, results[ONE], "one sample"))
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write views_time.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    workload.add_comparison(parser)
    parser.add_argument(
        "--networks", type=int, default=NETWORKS, help="of an ensemble (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        label = phantom_label(work, folder)
    about = ABOUT.format(
        size="x".join(map(str, work.spatial_size)),
        precision=work.precision,
        steps=work.network().num_inference_steps,
        label="x".join(map(str, label.shape[1:])),
    )
    head = report.header(
        f"Time of views, ensembles and pieces: {work.name}",
        about,
        "speed.views",
        argv,
        arguments.seed,
    )
    chosen = candidates(work, arguments.networks, label)
    memory = () if arguments.no_memory else tuple(chosen)
    results = measure.compare(chosen, arguments.rounds, arguments.budget, arguments.device, memory)
    print(report.write(arguments.out / "views_time.md", head, table(results)))


if __name__ == "__main__":
    main()
