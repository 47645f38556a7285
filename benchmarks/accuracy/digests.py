r"""What the bundles of a checkout compute, as digests: to compare two versions on one machine.

    python -m benchmarks.accuracy.digests --float32 --out before.txt
    git checkout OTHER_VERSION
    python -m benchmarks.accuracy.digests --float32 --out after.txt
    diff before.txt after.txt

Run it in the root of the checkout; it runs the bundles' own commands. A line is a name, a tab, and
a digest: of the values and the geometry of each image that an inference writes, and of each
``metrics.csv``. Of the trainings it has the losses of the first steps themselves. Images are
phantoms and, with ``--data``, the data sets.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import command

DATA = {  # folder of each bundle's data set below --data
    "cdal_cxr": "cxr",
    "cdal_hippocampus": "hippocampus",
    "cdal_monuseg": "monuseg",
    "ldseg_cxr": "cxr",
    "ldseg_echo": "echo_camus",
    "ldseg_glas": "glas",
    "ldseg_hippocampus": "hippocampus",
    "ldseg_knee3d": "knee",
    "ldseg_monuseg": "monuseg",
}
PARTS = ("inference", "scores", "overlays", "training", "variants")
STEPS = 20  # of a training
VARIANT_STEPS = 5  # of an ablation's or a baseline's
PROCESS_STEPS = 3  # of one in several processes
PHANTOMS = ("--num_phantoms", "2")
SEGMENTED = {PHANTOMS: ("--phantoms", "True", *PHANTOMS)}  # an inference has to be told
SLIDES = ((900, 700), (600, 1300))  # rows and columns of pictures larger than a window
PROCESSES = 2  # of the multi_gpu overlays
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

Line = tuple[str, str]  # name and digest


@dataclass(frozen=True)
class Programs:
    """The commands of one bundle.

    Attributes:
        root: folder of the bundle, relative to the current one.
        knobs: options of every command.
    """

    root: Path
    knobs: tuple[str, ...] = ()

    def configs(self, *names: str) -> list[str]:
        """Paths of config files."""
        return [str(self.root / "configs" / name) for name in names]

    def has(self, name: str) -> bool:
        """Whether the bundle has a config."""
        return (self.root / "configs" / name).is_file()

    def run(
        self, files: Sequence[str], options: Sequence[str], run_id: str = "run", processes: int = 1
    ) -> None:
        """Run `monai.bundle`.

        Raises:
            RuntimeError: if it fails, with the end of what it printed.
        """
        start = [sys.executable, "-m"]
        if processes > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            start += ["-m"]
        line = [*start, "monai.bundle", "run", run_id, "--config_file", str(list(files))]
        done = subprocess.run(
            [*line, *self.knobs, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)} failed:\n{done.stdout[-4000:]}")

    def images(
        self, name: str, files: Sequence[str], options: Sequence[str], processes: int = 1
    ) -> Iterator[Line]:
        """A line for each image that a command writes."""
        with tempfile.TemporaryDirectory() as folder:
            self.run(files, [*options, "--output_dir", folder], processes=processes)
            for path in sorted(Path(folder).iterdir()):
                if path.suffix in (".gz", ".png", ".tif"):
                    yield f"{name}/{path.name}", image_digest(path)

    def scores(
        self, name: str, files: Sequence[str], options: Sequence[str], processes: int = 1
    ) -> Line:
        """The line of an evaluation's metrics.csv."""
        with tempfile.TemporaryDirectory() as folder:
            self.run(files, [*options, "--output_dir", folder], processes=processes)
            return f"{name}/metrics.csv", digest(Path(folder, "metrics.csv").read_bytes())

    def losses(self, name: str, files: Sequence[str], steps: int, processes: int = 1) -> Line:
        """The line of a training's first steps: every number that it writes to TensorBoard."""
        train = yaml.safe_load(Path(files[0]).read_text())
        cases = train["batch_size"] * steps * processes
        sizes = ["--max_epochs", "1", "--val_interval", "1", "--num_phantoms", "5"]
        sizes += ["--cases_per_epoch", str(cases)]
        with tempfile.TemporaryDirectory() as folder:
            self.run(files, [*sizes, "--output_dir", folder], "training", processes)
            events = Path(folder, "rank0") if processes > 1 else Path(folder)
            return name, scalars(events)


def bundle_lines(
    programs: Programs, data: Path | None, parts: Sequence[str], samples: Sequence[int]
) -> Iterator[Line]:
    """The lines of a bundle, of some of `PARTS`."""
    name = programs.root.name
    sources = {"phantoms": PHANTOMS}
    if data is not None:
        sources["data"] = ("--dataset_dir", str(data / DATA[name]))
    for source, where in sources.items():
        if "inference" in parts:
            for number in samples:
                options = [*SEGMENTED.get(where, where), "--num_samples", str(number)]
                title = f"{name}/inference/{source}/{number}"
                yield from programs.images(title, programs.configs("inference.yaml"), options)
        if "scores" in parts:
            files = programs.configs("train.yaml", "evaluate.yaml")
            yield programs.scores(f"{name}/{source}", files, where)
    if "overlays" in parts:
        yield from overlay_lines(programs, samples)
    if "training" in parts:
        yield programs.losses(f"{name}/training", programs.configs("train.yaml"), STEPS)
    if "variants" in parts:
        yield from variant_lines(programs)


def overlay_lines(programs: Programs, samples: Sequence[int]) -> Iterator[Line]:
    """The lines of the overlays for large images and for several processes."""
    name = programs.root.name
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "sliding_window.yaml": SEGMENTED[PHANTOMS],
            "strips.yaml": ("--dataset_dir", folder),
        }
        write_slides(Path(folder))
        for overlay, where in sources.items():
            for number in samples if programs.has(overlay) else ():
                files = programs.configs("inference.yaml", overlay)
                options = [*where, "--num_samples", str(number)]
                yield from programs.images(f"{name}/{overlay}/{number}", files, options)
    files = programs.configs("inference.yaml", "multi_gpu_inference.yaml")
    yield from programs.images(f"{name}/multi_gpu_inference", files, SEGMENTED[PHANTOMS], PROCESSES)
    files = programs.configs("train.yaml", "evaluate.yaml", "multi_gpu_evaluate.yaml")
    yield programs.scores(f"{name}/multi_gpu_evaluate", files, PHANTOMS, PROCESSES)
    files = programs.configs("train.yaml", "multi_gpu_train.yaml")
    yield programs.losses(f"{name}/multi_gpu_train", files, PROCESS_STEPS, PROCESSES)


def variant_lines(programs: Programs) -> Iterator[Line]:
    """The lines of the ablations and the baselines, by the configs that each one's head names."""
    for kind in ("ablations", "baselines"):
        for path in sorted((programs.root / "configs" / kind).glob("*.yaml")):
            name = f"{programs.root.name}/{kind}/{path.name}"
            yield programs.losses(name, files_of_head(path), VARIANT_STEPS)


def files_of_head(overlay: Path) -> list[str]:
    """The configs in the command that the head of an overlay shows.

    Raises:
        ValueError: if it shows none.
    """
    found = re.search(r"--config_file \"\[(.*?)\]\"", overlay.read_text())
    if found is None:
        raise ValueError(f"{overlay} has no command in its head: expected its --config_file")
    return [part.strip("' ") for part in found[1].split(",")]


def image_digest(path: Path) -> str:
    """Digest of an image's values, their type, and its geometry, whatever its compression."""
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    geometry = np.array([*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()])
    kind = str((values.dtype, values.shape)).encode()
    return digest(kind + values.tobytes() + geometry.tobytes())


def digest(content: bytes) -> str:
    """The start of the SHA-256 of some content."""
    return hashlib.sha256(content).hexdigest()[:24]


def scalars(folder: Path) -> str:
    """Every number in the TensorBoard logs of a folder, with nine digits."""
    values = {}
    for event in sorted(folder.glob("events.*")):
        log = EventAccumulator(str(event))
        log.Reload()
        for tag in log.Tags()["scalars"]:
            values[tag] = ",".join(f"{scalar.value:.9g}" for scalar in log.Scalars(tag))
    return " ".join(f"{tag}={text}" for tag, text in sorted(values.items()))


def write_slides(folder: Path) -> None:
    """Write pictures that are larger than a window, as TIFF."""
    generator = np.random.default_rng(0)
    for index, (rows, columns) in enumerate(SLIDES):
        coarse = generator.integers(90, 255, [rows // 20, columns // 20, 3], dtype=np.uint8)
        picture = coarse.repeat(20, axis=0).repeat(20, axis=1)
        tifffile.imwrite(folder / f"slide_{index}.tif", picture, photometric="rgb")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the lines of the bundles, and write them."""
    parser = command.argument_parser(__doc__)
    parser.add_argument("--out", type=command.file_to_write, required=True, help="file to write")
    parser.add_argument(
        "--data", type=Path, help="folder with the data sets knee, hippocampus, glas"
    )
    parser.add_argument("--only", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[1, 3], help="drawn of an image (default: 1 3)"
    )
    parser.add_argument(
        "--float32", action="store_true", help="in place of the bundles' own precision"
    )
    arguments = parser.parse_args(argv)
    knobs = ("--amp", "False") if arguments.float32 else ()
    lines: list[str] = []
    for bundle in arguments.only:
        programs = Programs(Path("bundles", bundle), knobs)
        found = bundle_lines(programs, arguments.data, arguments.parts, arguments.samples)
        for name, text in found:
            lines.append(f"{name}\t{text}")
            print(lines[-1], flush=True)
            arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
