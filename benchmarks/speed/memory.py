r"""Peak memory and time of a bundle's inference, from file to file, against the size of the image.

    python -m benchmarks.speed.memory bundles/ldseg_knee3d \
        --sizes 256x256x400 512x512x400 512x512x800
    python -m benchmarks.speed.memory bundles/ldseg_glas \
        --sizes 20000x2000 20000x5000 20000x20000 --set num_samples=1
    python -m benchmarks.speed.memory bundles/ldseg_glas --slide 0.25 \
        --sizes 40000x10000 40000x40000 --set num_samples=1 overlap=0.05

Each is the bundle's own command, in a process of its own. A picture's size is columns and rows.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks import report
from benchmarks.speed import workload
from benchmarks.speed.measure import kilobytes
from benchmarks.speed.workload import Workload
from ldseg_monai.data.phantoms.gland import gland_phantom
from ldseg_monai.data.phantoms.knee import knee_phantom

SIZES = {2: ("4000x1000", "4000x4000"), 3: ("128x128x128", "256x256x256")}
OVERLAYS = (
    "strips.yaml",
    "sliding_window.yaml",
)  # for images that are large; a bundle has at most one
AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
TILE = 256
GLASS, TISSUE = 244, 8000  # of a slide: its gray, and the pixels along each side of what is none
LAYOUT: dict[str, Any] = {
    "dtype": np.uint8,
    "tile": (TILE, TILE),
    "compression": "zlib",
    "photometric": "rgb",
}
ABOUT = """The whole of `{command}`, imports and weights included, on one image of each size, in a
process of its own. Peak memory is the largest resident set that the kernel saw (VmHWM). The image
is a {phantom} phantom, repeated; {grid}. The noise field of the whole image is part of it, and
grows with its area or volume, up to 2048 positions of the latent along an axis."""


def write_volume(path: Path, size: Sequence[int], spacing: Sequence[float], seed: int) -> None:
    """Write the knee phantom, repeated, as NIfTI of int16; axes right, anterior, superior."""
    phantom, _, _ = knee_phantom(seed)
    places = [np.arange(side) % length for side, length in zip(size, phantom.shape, strict=True)]
    nib.save(nib.Nifti1Image(phantom[np.ix_(*places)], np.diag([*spacing, 1.0])), path)


def write_picture(path: Path, size: Sequence[int], seed: int) -> None:
    """Write the gland phantom, repeated, as a tiled, compressed TIFF file, tile by tile."""
    import tifffile

    phantom, _ = gland_phantom(seed)
    tifffile.imwrite(path, _tiles(phantom, size), shape=(*size[::-1], 3), **LAYOUT)


def write_slide(path: Path, size: Sequence[int], seed: int, microns: float) -> None:
    """Write an SVS with the gland phantom, repeated, as tissue in the middle of glass.

    Args:
        path: of the file.
        size: columns and rows of level 0.
        seed: of the phantom.
        microns: micrometers of a pixel of level 0.
    """
    import tifffile

    phantom, _ = gland_phantom(seed)
    text = f"Aperio Image Library |MPP = {microns}"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in (1, 4, 16):
            sides = [-(-side // step) for side in size]
            tiles = _tiles(phantom, sides, step, TISSUE)
            shape = (*sides[::-1], 3)
            file.write(tiles, shape=shape, description=text, metadata=None, **LAYOUT)
            if step == 1:  # the second page of an SVS is a thumbnail, in strips
                file.write(np.full((8, 8, 3), GLASS, np.uint8), photometric="rgb", metadata=None)


def _tiles(
    phantom: np.ndarray, size: Sequence[int], step: int = 1, tissue: int | None = None
) -> Iterator[np.ndarray]:
    """Tiles of a phantom, repeated, of which every so manyeth pixel is taken.

    Args:
        phantom: ``(rows, columns, 3)``.
        size: columns and rows.
        step: from a pixel to the next one.
        tissue: pixels of the phantom along each side, in the middle of glass; None for all.
    """
    columns, rows = size
    for row in range(0, rows, TILE):
        for column in range(0, columns, TILE):
            down, across = step * (row + np.arange(TILE)), step * (column + np.arange(TILE))
            pixels = phantom[np.ix_(down % phantom.shape[0], across % phantom.shape[1])]
            if tissue is not None:
                outside = [
                    abs(places - step * side / 2) > tissue / 2
                    for places, side in ((down, rows), (across, columns))
                ]
                pixels[outside[0]] = GLASS
                pixels[:, outside[1]] = GLASS
            yield pixels


def voxel_size(config: Any) -> list[float]:
    """Of a volume (right, anterior, superior) that the config resamples to the same grid."""
    sizes = [1.0] * 3
    if "voxel_size" in config:
        for axis, length in zip(config["orientation"], config["voxel_size"], strict=True):
            sizes[AXES[axis]] = float(length)
    return sizes


def configs(work: Workload) -> list[str]:
    """The files of the bundle's inference on large images, below its configs/."""
    return [
        "inference.yaml",
        *(name for name in OVERLAYS if (work.bundle.configs / name).is_file()),
    ]


def files_of(work: Workload) -> list[str]:
    """Their paths."""
    return [str(work.bundle.config_file(name)) for name in configs(work)]


def settings_of(work: Workload) -> dict[str, Any]:
    """The knobs of its configs that the command line sets."""
    sizes = [
        knob
        for knob in workload.SIZES
        if work.size is not None and knob in work.config("inference.yaml")
    ]
    of_size = {knob: list(work.size or ()) for knob in sizes}
    return {"force": True, **of_size, **work.overrides}  # the weights need not know such sizes


def command(work: Workload, dataset_dir: Path, output_dir: Path) -> list[str]:
    """The bundle's inference."""
    values = {
        "bundle_root": str(work.bundle.root),
        "device": f"$torch.device('{work.device}')",
        "seed": work.seed,
    }
    values |= {
        **settings_of(work),
        "dataset_dir": str(dataset_dir),
        "output_dir": str(output_dir),
    }
    arguments = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files_of(work))]
    for name, value in values.items():
        arguments += [f"--{name}", str(value)]
    return arguments


def peak_of(arguments: Sequence[str]) -> tuple[int, float]:
    """Run a command; return the peak of its resident memory in bytes, and seconds.

    Raises:
        RuntimeError: if it fails.
    """
    with tempfile.TemporaryFile() as printed:
        began, peak = time.perf_counter(), 0
        process = subprocess.Popen(arguments, stdout=printed, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                peak = kilobytes(f"/proc/{process.pid}/status", "VmHWM")
            except (OSError, ValueError):  # it has just ended
                pass
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        if process.returncode:
            printed.seek(0)
            end = printed.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(arguments)} failed ({process.returncode}):\n{end}")
    return 1024 * peak, seconds


def measure_size(
    work: Workload,
    size: Sequence[int],
    rounds: int,
    spacing: Sequence[float] | None = None,
    microns: float | None = None,
) -> dict[str, str]:
    """The row of one size.

    Args:
        work: of the bundle.
        size: of the image.
        rounds: runs of the command.
        spacing: of a volume in mm; None for the grid that the bundle resamples to.
        microns: of a pixel of a slide; None for a picture.
    """
    config = work.bundle.config(*configs(work), **settings_of(work))
    peaks, times, seen = [], [], size
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "data" / "images"
        images.mkdir(parents=True)
        if microns is not None:
            write_slide(images / "slide.svs", size, work.seed, microns)
            with config.get_parsed_content("reader").open(str(images / "slide.svs")) as slide:
                seen = slide.size
        elif len(size) == 2:
            write_picture(images / "picture.tif", size, work.seed)
        else:
            write_volume(images / "volume.nii.gz", size, spacing or voxel_size(config), work.seed)
        for number in range(rounds):
            peak, seconds = peak_of(command(work, images.parent, Path(folder) / f"output_{number}"))
            peaks.append(peak)
            times.append(seconds)
    network = work.network()
    samples = int(config.get_parsed_content("num_samples"))
    positions = math.prod(config.get_parsed_content("inferer").noise_field_shape(network, seen))
    return {
        "size": "x".join(map(str, size)),
        **(
            {}
            if len(size) == 2
            else {"spacing, mm": " x ".join(f"{step:g}" for step in spacing or voxel_size(config))}
        ),
        **({} if microns is None else {"read as": "x".join(map(str, seen))}),
        "million voxels": report.number(math.prod(size) / 1e6),
        "peak memory, MB": " to ".join(
            dict.fromkeys(f"{peak / 1e6:.0f}" for peak in (min(peaks), max(peaks)))
        ),
        "noise field, MB": report.number(4 * samples * network.num_draws() * positions / 1e6),
        "seconds": report.spread(times) if rounds > 1 else report.number(times[0]),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write memory.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", metavar="AxB[xC]", help="sizes of the images")
    parser.add_argument(
        "--spacing", type=float, nargs=3, help="mm of volumes that are measured too, and resampled"
    )
    parser.add_argument(
        "--slide",
        type=float,
        metavar="MICRONS",
        help="write pictures as slides of so many micrometers a pixel, with tissue in the middle",
    )
    parser.set_defaults(rounds=1)
    arguments = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(workload.torch.get_num_threads()))
    work = workload.workload_of(arguments)
    dims = work.about.spatial_dims
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes or SIZES[dims]]
    for size in sizes:
        if len(size) != dims:
            raise ValueError(f"--sizes {'x'.join(map(str, size))}: expected {dims} sides")
    about = ABOUT.format(
        command=f"python -m monai.bundle run --config_file {' + '.join(configs(work))}",
        phantom="gland" if dims == 2 else "knee",
        grid=_grid(dims, arguments.slide),
    )
    head = report.header(
        f"Memory against image size: {work.name}", about, "speed.memory", argv, arguments.seed
    )
    file = arguments.out / ("memory.md" if arguments.slide is None else "slides.md")
    rows = []
    spacings = [None] if arguments.spacing is None else [None, arguments.spacing]
    for size, spacing in itertools.product(sizes, spacings):
        rows.append(measure_size(work, size, arguments.rounds, spacing, arguments.slide))
        report.write(file, head, report.table(rows))  # the next may take an hour
    print(report.write(file, head, report.table(rows)))


def _grid(dims: int, microns: float | None) -> str:
    """What the files are, for a person."""
    if dims == 3:
        return "without --spacing, it is on the grid that the bundle resamples to"
    if microns is None:
        return "a tiled TIFF"
    return f"an SVS of {microns:g} micrometers a pixel, with {TISSUE} x {TISSUE} pixels of tissue"


if __name__ == "__main__":
    main()
