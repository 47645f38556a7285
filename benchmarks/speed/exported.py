"""How fast a bundle's exported files are beside the bundle itself, and whether they segment alike.

    python -m benchmarks.speed.exported bundles/ldseg_glas --dataset_dir DIR

The first image of the data set (a phantom without --dataset_dir), preprocessed as inference.yaml
says and cut or padded to the network's size, is segmented with the shipped weights and the bundle's
number of samples: by the bundle's inferer, by the TorchScript file and, in ONNX Runtime, by the
ONNX file, with the same noise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from monai.bundle import ConfigParser
from monai.transforms import ResizeWithPadOrCrop

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Call, Result
from benchmarks.speed.workload import PRECISIONS, Workload
from ldseg_monai.evaluation.report.trajectory import sampler_of
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.networks.weights import load_weights
from ldseg_monai.tools.export import export, random_inputs

REFERENCE = "bundle, float32"
ENDINGS = {"TorchScript": ".ts", "ONNX Runtime": ".onnx"}
ABOUT = """One image of {size} voxels, from network input to class probabilities, mean of {samples}
sample(s), shipped weights. The files compute in float32. Ratios are to the bundle in float32, in
the same round. Voxels that differ: of the label map, from the bundle's in float32 on the same
noise. Memory is of a process of its own, making included."""


def config_of(work: Workload, dataset_dir: str, output_dir: str) -> ConfigParser:
    """The bundle's inference with its own weights, on a data set."""
    overrides = {} if dataset_dir else {"num_phantoms": 1, "phantoms": True}
    return work.config(
        "inference.yaml", dataset_dir=dataset_dir, output_dir=output_dir, **overrides
    )


def image_of(config: ConfigParser, size: Sequence[int]) -> torch.Tensor:
    """The first image of the data set as the network takes it, ``(1, in_channels, *size)``."""
    image = config.get_parsed_content("dataset")[0]["image"]
    return ResizeWithPadOrCrop(size)(image).as_tensor()[None].contiguous()


def bundle_call(work: Workload, amp: bool, image: torch.Tensor) -> Call:
    """The bundle's network and the inferer of a window."""
    config = work.config("inference.yaml", amp=amp)
    network = diffusion_segmenter(config.get_parsed_content("network_def")).eval()
    load_weights(network, str(work.bundle.weights))
    sampler = sampler_of(config.get_parsed_content("inferer"))
    assert sampler is not None  # which a diffusion segmenter's config has

    def call() -> torch.Tensor:
        output = sampler(image, network)
        if sampler.num_samples == 1:
            return output.softmax(dim=1)
        return output[:, : network.out_channels]  # without the SD

    return call


def torchscript_call(file: Path, image: torch.Tensor) -> Call:
    """The TorchScript file."""
    segmenter = torch.jit.load(file)
    return torch.no_grad()(partial(segmenter, image))


def onnx_call(work: Workload, file: Path, num_samples: int, image: torch.Tensor) -> Call:
    """The ONNX file in ONNX Runtime, with as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    network = work.config("inference.yaml").get_parsed_content("network_def")
    inputs = {"image": image, **random_inputs(network, image, seed=0, num_samples=num_samples)}
    feed = {name: value.numpy() for name, value in inputs.items()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def table(
    results: Mapping[str, Result],
    labels: Mapping[str, torch.Tensor],
    megabytes: Mapping[str, float],
) -> str:
    """A row for the bundle in each precision, and for each file."""
    rows = []
    for name, result in results.items():
        differing = int((labels[name] != labels[REFERENCE]).sum())
        rows.append(
            {
                "form": name,
                "file, MB": f"{megabytes[name]:.1f}" if name in megabytes else report.NONE,
                "voxels that differ": f"{differing} of {labels[name].numel()}",
            }
            | report.measured(result, results[REFERENCE], REFERENCE)
        )
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write exported_KIND.md of a bundle, on this kind of processor, and print it."""
    parser = workload.argument_parser(__doc__)
    workload.add_comparison(parser)
    parser.add_argument(
        "--dataset_dir",
        default="",
        help="data set whose first image is segmented (default: a phantom)",
    )
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(work, arguments.dataset_dir, folder)
        image, num_samples = image_of(config, work.spatial_size), int(config["num_samples"])
        files = {name: Path(folder) / f"segmenter{ending}" for name, ending in ENDINGS.items()}
        for file in files.values():
            export(work.bundle.root, file, num_samples=num_samples)
        calls: dict[str, Callable[[], Call]] = {
            f"bundle, {precision}": partial(bundle_call, work, amp, image)
            for precision, amp in PRECISIONS.items()
        }
        calls["TorchScript"] = partial(torchscript_call, files["TorchScript"], image)
        calls["ONNX Runtime"] = partial(onnx_call, work, files["ONNX Runtime"], num_samples, image)
        memory = () if arguments.no_memory else tuple(calls)
        chosen = {name: {"": build} for name, build in calls.items()}
        results = measure.compare(
            chosen, arguments.rounds, arguments.budget, arguments.device, memory
        )
        labels = {}
        for name, build in calls.items():
            logits: Any = build()()
            labels[name] = logits.argmax(dim=1)
        megabytes = {name: file.stat().st_size / 1e6 for name, file in files.items()}
    about = ABOUT.format(size="x".join(map(str, work.spatial_size)), samples=num_samples)
    head = report.header(
        f"Exported files: {work.name}", about, "speed.exported", argv, arguments.seed
    )
    name = f"exported_{report.processor_kind(arguments.device)}.md"
    print(report.write(arguments.out / name, head, table(results, labels, megabytes)))


if __name__ == "__main__":
    main()
