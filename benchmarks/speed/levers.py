"""What each measure that makes a bundle fast brings: the time and memory with it and without it.

    python -m benchmarks.speed.levers bundles/ldseg_knee3d

The stem, the latent's size and the image's features change the network:
`benchmarks/accuracy/study.py` has what they cost, beside the accuracy that they bring.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, Invertd

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Build, Call, Result
from benchmarks.speed.workload import LAYOUTS, Workload
from ldseg_monai.inference.ensemble import summarize
from ldseg_monai.inference.postprocessing import InvertLabeld, SplitPredictiond
from ldseg_monai.inference.samplers import SamplingInferer

SAMPLES, STEPS = 5, 2
WITH, WITHOUT = "with", "without"
PRECISION, LAYOUT = "bfloat16 autocast, or float32", "channels-last layout, or channels first"
ENCODING = f"one encoding of the image for {SAMPLES} samples, or one each"
LABEL = "the label is brought back to the image's geometry, or the logits are"
ABOUT = """Each lever with and without, the rest as in the bundle's inference.yaml, {steps} reverse
steps, untrained weights, an image of {size} voxels. The first three are from network input to class
logits, or to mean and standard deviation of the samples; the last is from class logits on the
network's grid to a label map in the geometry of the file, of {image}. Each ran once a round, in
turns, in one process; ratios are to the run with the lever, of the same round. Memory is of a
process of its own."""


def candidates(
    work: Workload, dataset_dir: str, folder: str
) -> dict[tuple[str, str], Mapping[str, Build]]:
    """Builds with and without each lever; what the bundle generates goes to the folder."""
    network = partial(network_call, work)
    back = partial(back_call, work, dataset_dir, folder)
    builds: dict[tuple[str, str], Build] = {
        (PRECISION, WITH): network,
        (PRECISION, WITHOUT): partial(network, amp=False),
        (LAYOUT, WITH): network,
        (LAYOUT, WITHOUT): partial(network, layout=LAYOUTS[1]),
        (ENCODING, WITH): partial(network, num_samples=SAMPLES),
        (ENCODING, WITHOUT): partial(encodings_call, work),
        (LABEL, WITH): partial(back, label=True),
        (LABEL, WITHOUT): partial(back, label=False),
    }
    return {key: {"": build} for key, build in builds.items()}


def network_call(
    work: Workload, amp: bool = True, layout: str = LAYOUTS[0], num_samples: int = 1
) -> Call:
    """Build the network in a precision and a layout of `LAYOUTS`; the call segments one image."""
    network = workload.laid_out(work.network(), layout, work.about.spatial_dims)
    inferer = SamplingInferer(num_samples, STEPS, work.seed, amp)
    image = work.image(work.spatial_size)
    return lambda: inferer(image, network)


def encodings_call(work: Workload) -> Call:
    """Build the network; the call segments one image `SAMPLES` times, encoding it each time."""
    network, image = work.network(), work.image(work.spatial_size)
    inferers = [SamplingInferer(1, STEPS, work.seed + index) for index in range(SAMPLES)]
    return lambda: summarize(inferer(image, network) for inferer in inferers)


def back_call(work: Workload, dataset_dir: str, folder: str, label: bool) -> Call:
    """Preprocess the first image; the call makes its logits a label map in its file's geometry."""
    bring_back, item = way_back(work, dataset_dir, folder, label)

    def call() -> None:
        bring_back(dict(item))

    return call


def way_back(
    work: Workload, dataset_dir: str, folder: str, label: bool
) -> tuple[Compose, dict[str, Any]]:
    """Transforms from logits to a label map ``(1, *file)``, and the item that they take.

    Args:
        work: of the bundle whose preprocessing is inverted.
        dataset_dir: data set, or "" for a phantom.
        folder: of the phantoms.
        label: whether the label is chosen first and brought back, as the bundle does, or the logits
            are brought back.

    Returns:
        The transforms, and an item with an ``image`` and logits as ``pred``.
    """
    config = work.config(
        "inference.yaml", dataset_dir=dataset_dir, output_dir=folder, phantoms=not dataset_dir
    )
    preprocessing = config.get_parsed_content("preprocessing")
    item = preprocessing(dict(config.get_parsed_content("datalist")[0]))
    classes = work.about.out_channels
    generator = torch.Generator().manual_seed(work.seed)
    logits = MetaTensor(
        torch.randn([classes, *item["image"].shape[1:]], generator=generator).to(work.device)
    )
    choose_first = [SplitPredictiond("pred", classes), InvertLabeld("pred", preprocessing)]
    choose_last = [
        Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False),
        AsDiscreted("pred", argmax=True, dtype=torch.uint8),
    ]
    return Compose(choose_first if label else choose_last), {**item, "pred": logits}


def table(results: Mapping[tuple[str, str], Result]) -> str:
    """Two rows for each lever."""
    return report.table(
        [
            {"lever": lever if side == WITH else "", "it": side}
            | report.measured(result, results[lever, WITH], "with it")
            for (lever, side), result in results.items()
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write levers.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    workload.add_comparison(parser)
    parser.add_argument(
        "--dataset_dir", default="", help="data set whose first image is taken (default: a phantom)"
    )
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    about = ABOUT.format(
        steps=STEPS,
        size="x".join(map(str, work.spatial_size)),
        image="the first image of a data set" if arguments.dataset_dir else "a phantom",
    )
    head = report.header(f"Levers: {work.name}", about, "speed.levers", argv, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        chosen = candidates(work, arguments.dataset_dir, folder)
        memory = () if arguments.no_memory else list(chosen)
        results = measure.compare(
            chosen, arguments.rounds, arguments.budget, arguments.device, memory
        )
    print(report.write(arguments.out / "levers.md", head, table(results)))


if __name__ == "__main__":
    main()
