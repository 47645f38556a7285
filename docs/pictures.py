"""Draw the pictures of the documents, all of generated phantoms: ``python docs/pictures.py``.

It takes half a minute. Phantom pictures are segmented by the shipped weights, which know the like;
volumes are shown with their true labels: weights that know patients do not know these phantoms.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from monai.transforms import LoadImage
from PIL import Image

from ldseg_monai.bundle import Bundle, class_names
from ldseg_monai.data.phantoms import write_phantoms
from ldseg_monai.evaluation.pictures import (
    COLORS,
    MAX_SD,
    load_image,
    overlay,
    ramp,
    shown,
    uncertain,
    upright,
    window,
)
from ldseg_monai.evaluation.sheets import sheet

REPOSITORY = Path(__file__).resolve().parents[1]
VOLUMES = {"ldseg_knee3d": "knee", "ldseg_hippocampus": "hippocampus",
    "cdal_hippocampus": "hippocampus"}  # kind of each bundle's phantoms  # fmt: skip
PICTURES = {"ldseg_glas": "gland", "cdal_monuseg": "nuclei", "cdal_cxr": "thorax",
    "ldseg_echo": "echo", "ldseg_monuseg": "nuclei", "ldseg_cxr": "thorax"}  # fmt: skip
CLASSES = {"echo": 4}  # background included; of the others an object is numbered
SEED = 1  # of the phantoms; commands that are given no data generate theirs with seed 0
PART, INK = "#dbe9f6", "#444444"
TITLE = {"fontsize": 14, "fontweight": "bold", "color": INK}


def draw_all(out: Path) -> None:
    """Draw all pictures below a folder that is laid out as the repository."""
    pictures = out / "docs" / "pictures"
    cards = {bundle: out / "bundles" / bundle / "docs" for bundle in (*PICTURES, *VOLUMES)}
    for folder in (pictures, *cards.values()):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for bundle, kind in PICTURES.items():
            write_phantoms(kind, Path(folder, kind), 3, SEED)
            _segment(Path(folder, kind), bundle)
            _save(draw_picture(Path(folder, kind), "case_002"), cards[bundle] / "phantom.png")
        glands = Path(folder, "gland")
        _save(draw_method(glands, "case_001"), pictures / "method.png")
        _save(draw_picture(glands, "case_001"), pictures / "segmentation.png")
        for number, (bundle, kind) in enumerate(VOLUMES.items()):
            volumes = Path(folder, kind)
            write_phantoms(kind, volumes, len(VOLUMES), SEED)
            drawn = draw_volume(volumes, f"case_{number:03d}", bundle)
            _write(drawn, cards[bundle] / "phantom.png")


def draw_picture(data: Path, case: str) -> Figure:
    """A phantom picture, what the shipped weights find in it, and how sure they are."""
    image = load_image(str(data / "images" / f"{case}.png"))
    truth = _label(data, case)
    found = _values(data / "out" / f"{case}_label.png")
    mean, sd = (_values(data / "out" / f"{case}_{kind}.png") / 255 for kind in ("mean", "sd"))
    count = CLASSES.get(data.name, 2)
    classes = [one_hot(label[None], num_classes=count) for label in (found, truth)]
    dice = float(compute_dice(*classes, include_background=False).mean())
    found_in = "found (red)" if count == 2 else "found"
    plain = shown(image, image.shape[1:], window([image]))
    panels = {
        "image": plain,
        f"{found_in}, true (white): Dice {dice:.2f}": overlay(image, found, truth),
        "mean of 5 samples": mean[0].numpy(),
        "where they differ": uncertain(plain, sd),
    }
    return _panels(panels)


def draw_volume(data: Path, case: str, bundle: str) -> Image.Image:
    """Three planes of a phantom volume with the outlines of its true label."""
    read = LoadImage(image_only=True, ensure_channel_first=True)
    files = (data / kind / f"{case}.nii.gz" for kind in ("images", "labels"))
    image, label = (upright(read(file)) for file in files)
    names = list(class_names(REPOSITORY / "bundles" / bundle).values())[1:]
    colors = dict(zip(names, COLORS.tolist(), strict=False))
    return sheet(image, label, classes=colors)


def draw_method(data: Path, case: str) -> Figure:
    """Both ways through LDSeg's parts: training above, segmenting below, the image between them."""
    states = _states(load_image(str(data / "images" / f"{case}.png")), _label(data, case))
    figure, axes = _canvas(14.4, 5.3)
    training = [
        ("label", "label"),
        "label\nencoder",
        ("clean", "latent"),
        "+ noise",
        ("noisy", "noisy latent"),
        "latent\ndenoiser",
        ("estimate", "estimate"),
        "label\ndecoder",
        ("trained", "segmentation"),
    ]
    image = [("image", "image"), "image\nencoder", ("embedding", "embedding")]
    segmenting = [
        ("noise", "noise"),
        "latent\ndenoiser",
        ("sampled", "latent"),
        "label\ndecoder",
        ("segmented", "segmentation"),
    ]
    top, middle, bottom = 4.2, 2.55, 0.9
    axes.text(0.25, 5.05, "Training: one loss for all four parts", va="center", **TITLE)
    below = "Segmenting: from noise, in two steps;\nthe image is encoded once"
    axes.text(0.25, bottom, below, va="center", **TITLE)
    _row(axes, states, training, top, first=0)
    _row(axes, states, image, middle, first=0)
    _row(axes, states, segmenting, bottom, first=4)
    denoiser = _column(5)
    axes.plot([_column(2) + 0.72, denoiser], [middle, middle], color=INK, linewidth=1.5)
    _arrow(axes, (denoiser, middle), (denoiser, top - 0.4))
    _arrow(axes, (denoiser, middle), (denoiser, bottom + 0.4))
    return figure


def _shown(image: torch.Tensor) -> np.ndarray:
    """A picture ``(rows, columns)`` or ``(rows, columns, 3)`` for matplotlib."""
    return image.movedim(0, -1).squeeze(-1).numpy()


def _values(path: Path) -> torch.Tensor:
    """A map as its file has it, ``(1, rows, columns)``: of a palette the indices."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture)).float()[None]


def _label(data: Path, case: str) -> torch.Tensor:
    """Class indices ``(1, rows, columns)``."""
    values = _values(data / "labels" / f"{case}_anno.png")
    return values if data.name in CLASSES else (values > 0).float()


def _segment(data: Path, bundle: str) -> None:
    """Segment phantoms into ``out``, by the command of the bundle's card."""
    config = REPOSITORY / "bundles" / bundle / "configs" / "inference.yaml"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config)]
    knobs = {"dataset_dir": data, "output_dir": data / "out", "save_overlay": False, "amp": False,
        "num_samples": 5}  # fmt: skip
    options = [text for name, value in knobs.items() for text in (f"--{name}", str(value))]
    subprocess.run(command + options, check=True, cwd=REPOSITORY)


def _states(image: torch.Tensor, label: torch.Tensor) -> dict[str, np.ndarray]:
    """What the parts of the shipped gland network make of a phantom, as pictures."""
    network = Bundle(REPOSITORY / "bundles" / "ldseg_glas").network()
    rows, columns = (side // network.stride * network.stride for side in image.shape[1:])
    image, label = image[:, :rows, :columns], label[:, :rows, :columns]
    with torch.no_grad():
        embedding, features = network.encode_image(image[None] / 127.5 - 1)
        clean = network.encode_label(label[None])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        middle = torch.tensor([network.num_train_timesteps // 2])
        noisy = network.scheduler.add_noise(clean, noise, middle)
        prediction = network.denoiser(noisy, embedding, middle)
        estimate = network.scheduler.denoise(prediction, middle, noisy)
        sampled = network.sample_latent(embedding, noise[None])
        trained = network.label_decoder(estimate, features).argmax(dim=1)
        segmented = network.label_decoder(sampled, features).argmax(dim=1)
    return {
        "image": image.movedim(0, -1).numpy(),
        "label": label[0].numpy(),
        "embedding": _latent_picture(embedding),
        "clean": _latent_picture(clean),
        "noisy": _latent_picture(noisy),
        "estimate": _latent_picture(estimate),
        "trained": trained[0].numpy(),
        "noise": _latent_picture(noise),
        "sampled": _latent_picture(sampled),
        "segmented": segmented[0].numpy(),
    }


def _latent_picture(latent: torch.Tensor) -> np.ndarray:
    """The first three channels of a latent as red, green and blue, 2 SD each way."""
    shown = latent[0, :3].movedim(0, -1)  # (rows, columns, 3)
    return (shown / 4 / shown.std() + 0.5).clamp(0, 1).numpy()


def _row(axes: Axes, states: dict[str, np.ndarray], stations: list, y: float, first: int) -> None:
    """Pictures (state, caption) and parts (text) in turns, from a column on, with arrows."""
    for column, station in enumerate(stations, start=first):
        x = _column(column)
        is_part = isinstance(station, str)
        if is_part:
            box = {"boxstyle": "round,pad=0.35", "facecolor": PART, "edgecolor": INK}
            axes.text(x, y, station, ha="center", va="center", fontsize=13, bbox=box)
        else:
            state, caption = station
            _picture(axes, states[state], caption, x, y)
        if column > first:
            start, end = (0.72, 0.58) if is_part else (0.58, 0.72)
            _arrow(axes, (_column(column - 1) + start, y), (x - end, y))


def _picture(axes: Axes, shown: np.ndarray, caption: str, x: float, y: float) -> None:
    extent = (x - 0.7, x + 0.7, y - 0.55, y + 0.55)
    axes.imshow(shown, extent=extent, interpolation="nearest", aspect="auto", cmap="gray")
    axes.text(x, y - 0.75, caption, ha="center", va="center", fontsize=12, color=INK)


def _column(number: int) -> float:
    """Middle of a column; pictures and parts alternate."""
    return 0.95 + 1.56 * number


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of so many inches, and axes over all of it in the same unit."""
    figure = Figure(figsize=(width, height), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _panels(panels: Mapping[str, np.ndarray]) -> Figure:
    """Pictures, a map of the mean and one of the SD side by side, each under its title."""
    widths = [panel.shape[1] / panel.shape[0] for panel in panels.values()]
    figure = Figure(figsize=(2.8 * sum(widths), 3.8), dpi=105, layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)
    ramps = {
        "mean of 5 samples": ("probability", 1.0, "viridis"),
        "where they differ": ("SD of the probability", MAX_SD, ListedColormap(ramp(256) / 255)),
    }
    for axes, (title, panel) in zip(grid[0], panels.items(), strict=True):
        axes.imshow(panel, cmap="viridis", vmin=0, vmax=1)
        axes.set_title(title, fontsize=11)
        axes.axis("off")
        name, highest, colors = ramps.get(title, ("", 1.0, None))
        bar = ScalarMappable(Normalize(0, highest), colors)
        ticks = [0, highest / 2, highest]
        labels = [f"{tick:g}" for tick in ticks]
        place = {"ax": axes, "location": "bottom", "fraction": 0.05, "pad": 0.02}
        drawn = figure.colorbar(bar, ticks=ticks, label=name or " ", **place)
        drawn.ax.set_xticklabels(labels)
        drawn.ax.set_visible(bool(name))  # panels without one are as high
    return figure


def _save(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG file."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    _write(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]), path)


def _write(picture: Image.Image, path: Path) -> None:
    """Write a small PNG file, of 256 colors."""
    picture.quantize(palette=picture.quantize(256)).save(path, optimize=True)  # dithered


def main(argv: Sequence[str] | None = None) -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY,
        help="folder to write below, as docs/... and bundles/... (default: the repository)",
    )
    draw_all(parser.parse_args(argv).out)


if __name__ == "__main__":
    main()
