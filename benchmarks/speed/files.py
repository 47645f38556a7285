"""How long a bundle takes from file to file, transform by transform, as it ships.

    python -m benchmarks.speed.files bundles/ldseg_knee3d --dataset_dir DIR

Without a data set it works on a phantom, as the bundle does.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import decollate_batch
from monai.data.utils import list_data_collate
from monai.transforms import Compose, LoadImaged, SaveImaged

from benchmarks import report
from benchmarks.speed import workload
from benchmarks.speed.measure import DECODING, DENOISING, ENCODING, Stopwatch
from ldseg_monai.evaluation.overlays import SaveOverlay
from ldseg_monai.inference.case_evaluator import ORIGINAL
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.networks.weights import load_weights

LOAD, PREPROCESSING, NETWORK, POSTPROCESSING, SAVE = (
    "load",
    "preprocessing",
    "network",
    "postprocessing",
    "save",
)
KINDS = (LOAD, PREPROCESSING, NETWORK, POSTPROCESSING, SAVE)
REST = "rest of the inferer"
ABOUT = """From one image file to the files of its segmentation, by the transforms, inferer and
network of the bundle's inference.yaml, each timed in its turn; the program's start and the reading
of the weights are left out. The network takes {size} voxels in one piece or window; weights:
{weights}; image: {image}. Medians over {rounds} repeats after one that is not counted, so the file
is in the system's cache."""


class Pipeline:
    """What an inference config does with one image, in steps that are timed.

    Args:
        config: a bundle's ``inference.yaml``.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, config: ConfigParser, device: str) -> None:
        self.device = device
        self.item: dict = config.get_parsed_content("datalist")[0]
        self.preprocessing = _transforms(config, "preprocessing")
        self.postprocessing = _transforms(config, "postprocessing")
        self.inferer = config.get_parsed_content("inferer")
        handlers = config.get_parsed_content("handlers")
        self.overlays = [handler for handler in handlers if isinstance(handler, SaveOverlay)]
        self.network = diffusion_segmenter(config.get_parsed_content("network")).eval()
        weights = Path(config.get_parsed_content("model_path"))
        self.shipped = weights.is_file()
        if self.shipped:
            load_weights(self.network, str(weights))
        self.kinds: dict[str, str] = {}
        self.stopwatch = Stopwatch(device)
        self.stopwatch.watch(self.network)
        self.kinds |= dict.fromkeys((ENCODING, DENOISING, DECODING), NETWORK)

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Segment the image.

        Returns:
            The seconds of each step, in order; ``kinds`` then says of what kind each is.
        """
        self.stopwatch.lap()
        data = self._apply(self.preprocessing, dict(self.item), 1, PREPROCESSING)
        with self._part("collating", PREPROCESSING):
            batch = list_data_collate([data])
        with self._part(REST, NETWORK):
            prediction = self.inferer(batch["image"].to(self.device), self.network)
        with self._part("decollating", POSTPROCESSING):
            data = decollate_batch({**batch, "pred": prediction})[0]
        data = self._apply(self.postprocessing, data, 1 + len(self.preprocessing), POSTPROCESSING)
        for overlay in self.overlays:
            with self._part("SaveOverlay", SAVE):
                state = SimpleNamespace(output=[data], batch=[data], epoch=1)
                overlay.draw(cast(Engine, SimpleNamespace(state=state)))
        seconds = self.stopwatch.lap()
        seconds[REST] -= sum(
            value for name, value in seconds.items() if self.kinds[name] == NETWORK and name != REST
        )
        return seconds

    def _apply(self, transforms: Sequence[Any], data: dict, first: int, kind: str) -> dict:
        """Apply transforms in order, numbered from the first."""
        for index, transform in enumerate(transforms, first):
            own_kind = kind
            if isinstance(transform, LoadImaged):
                own_kind = LOAD
            elif isinstance(transform, SaveImaged):
                own_kind = SAVE
            name = f"{index} {type(transform).__name__}"
            if keys := getattr(transform, "keys", ()):
                name += f" ({', '.join(map(str, keys))})"
            with self._part(name, own_kind):
                data = transform(data)
            if own_kind == LOAD:
                data[ORIGINAL] = data["image"]  # as `CaseDataset` does
        return data

    def _part(self, name: str, kind: str) -> Any:
        self.kinds[name] = kind
        return self.stopwatch.part(name)


def repeat(pipeline: Pipeline, rounds: int) -> tuple[list[dict[str, float]], list[float]]:
    """Seconds of each step and of the whole in each round after one that is not counted."""
    steps, totals = [], []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        seconds = pipeline.run()
        totals.append(time.perf_counter() - began)
        steps.append(seconds)
    return steps[1:], totals[1:]


def step_table(
    steps: Sequence[dict[str, float]], totals: Sequence[float], kinds: dict[str, str]
) -> str:
    """A row for each step."""
    rows = []
    for name in steps[0]:
        seconds = [step[name] for step in steps]
        rows.append({"step": name, "kind": kinds[name]} | _columns(seconds, totals))
    return report.table(rows)


def total_table(
    steps: Sequence[dict[str, float]], totals: Sequence[float], kinds: dict[str, str]
) -> str:
    """A row for each kind of step, one for the whole, and the whole over the network."""
    rows, sums = [], {}
    for kind in KINDS:
        names = [name for name in steps[0] if kinds[name] == kind]
        sums[kind] = [sum(map(step.__getitem__, names)) for step in steps]
        rows.append({"kind": kind} | _columns(sums[kind], totals))
    rows.append({"kind": "total"} | _columns(totals, totals))
    ratios = [total / network for total, network in zip(totals, sums[NETWORK], strict=True)]
    ratio = report.number(statistics.median(ratios))
    sentence = f"Total over network: {ratio} ({report.spread(ratios)})\n"
    return report.table(rows) + "\n" + sentence


def main(argv: Sequence[str] | None = None) -> None:
    """Write files.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    parser.add_argument(
        "--dataset_dir", default="", help="data set whose first image is taken (default: a phantom)"
    )
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    title = f"File to file: {work.name}"
    with tempfile.TemporaryDirectory() as folder:
        overrides = {"output_dir": folder, "dataset_dir": arguments.dataset_dir, "phantoms": True}
        pipeline = Pipeline(work.config("inference.yaml", **overrides), arguments.device)
        about = ABOUT.format(
            size="x".join(map(str, work.spatial_size)),
            weights="the shipped ones" if pipeline.shipped else "untrained",
            image="the first of a data set" if arguments.dataset_dir else "a phantom",
            rounds=arguments.rounds,
        )
        head = report.header(title, about, "speed.files", argv, arguments.seed)
        steps, totals = repeat(pipeline, arguments.rounds)
    tables = [make(steps, totals, pipeline.kinds) for make in (step_table, total_table)]
    print(report.write(arguments.out / "files.md", head, *tables))


def _transforms(config: ConfigParser, name: str) -> Sequence[Any]:
    """The transforms of a composition, without what nests them."""
    composition: Compose = config.get_parsed_content(name)
    return list(composition.flatten().transforms)


def _columns(seconds: Sequence[float], totals: Sequence[float]) -> dict[str, str]:
    share = statistics.median(part / total for part, total in zip(seconds, totals, strict=True))
    return {
        "seconds": report.number(statistics.median(seconds)),
        "range": report.spread(seconds),
        "share of the total": f"{100 * share:.1f}%",
    }


if __name__ == "__main__":
    main()
