"""Whether samples differ as raters do: generalized energy distance on generated glands.

    U="--peer baselines/unet.yaml --peer baselines/efficientnet_unet.yaml"
    python -m benchmarks.accuracy.raters ldseg_glas $U

Four simulated raters outline each generated picture in their own ways: as it is, too small, too
large, and shifted, in a direction drawn for each picture. Each training step of each network sees
the outline of one rater, drawn at random. The samples of unseen pictures are then compared with the
outlines of all four.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from benchmarks import command, report
from benchmarks.accuracy.quality import cell, mean
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.phantoms.gland import gland_phantom
from ldseg_monai.networks.segmenter import DiffusionSegmenter
from ldseg_monai.networks.weights import load_imagenet_weights
from ldseg_monai.runtime.precision import autocast

ABOUT = """Generalized energy distance (Kohl et al., 2018, after Bellemare et al., 2017), with 1 -
IoU as the distance, of {samples} samples and the outlines of four raters, on {tested} generated
pictures of {side} x {side} pixels that no training saw: 0 where both are spread alike. Its parts:
distance between samples and raters, among the samples, among the raters ({among:.3f}). The raters
outline as it is, {pixels} pixels too small, as much too large, and shifted by as much. All networks
were trained alike, for {steps} steps of {batch} pictures of {num}, by their own losses, each
step with the outlines of one rater, drawn at random. IoU: of the networks' most probable classes
with the outline as it is."""
RATERS = 4
BATCH = 8
LEARNING_RATE, FINAL = 1e-3, 0.01
TEST_SEED = 1  # of the pictures that no training sees
Drawn = Callable[[torch.Tensor, int], torch.Tensor]


class Picture(NamedTuple):
    """A picture with its raters' outlines."""

    image: torch.Tensor  # (3, side, side), -1 to 1
    outlines: torch.Tensor  # (RATERS, side, side), 0 or 1; the first as it is


def rated(label: NDArray[np.bool_], pixels: int, seed: Sequence[int]) -> NDArray[np.bool_]:
    """A label as each rater has it: as it is, smaller, larger and shifted, ``(RATERS, *shape)``."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    shift = np.round(pixels * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    shifted = ndimage.shift(label.astype(np.uint8), shift, order=0, mode="nearest") > 0
    smaller = ndimage.binary_erosion(label, iterations=pixels, border_value=1)
    return np.stack([label, smaller, ndimage.binary_dilation(label, iterations=pixels), shifted])


def pictures(num: int, seed: int, side: int, pixels: int) -> list[Picture]:
    """Middles of generated pictures of glands, with their raters' outlines."""
    made = []
    for index in range(num):
        colors, label = gland_phantom([seed, index])
        outlines = rated(label > 0, pixels, [seed, index])
        top, left = ((length - side) // 2 for length in label.shape)
        middle = (..., slice(top, top + side), slice(left, left + side))
        image = torch.from_numpy(colors).movedim(-1, 0).float() / 127.5 - 1
        made.append(Picture(image[middle], torch.from_numpy(outlines[middle]).long()))
    return made


def train(
    network: nn.Module, config: Any, data: Sequence[Picture], steps: int, seed: int
) -> Iterator[float]:
    """Train a network, each step with one rater's outlines; yields the losses.

    Args:
        network: the bundle's own, or a peer.
        config: of which ``loss`` and, of a diffusion method, ``train#inferer`` are taken.
        data: pictures to draw from.
        steps: of the optimizer.
        seed: of all that is drawn.
    """
    loss_function, inferer = (config.get_parsed_content(key) for key in ("loss", "train#inferer"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, FINAL ** (1 / steps))
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network.train()
    for _ in range(steps):
        rater = int(torch.randint(RATERS, (), generator=generator))
        chosen = torch.randint(len(data), (BATCH,), generator=generator)
        flipped = bool(torch.rand((), generator=generator) < 0.5)
        image = torch.stack([data[index].image for index in chosen])
        label = torch.stack([data[index].outlines[rater] for index in chosen])[:, None]
        if flipped:
            image, label = image.flip(-1), label.flip(-1)
        with_label = {"label": label} if isinstance(network, DiffusionSegmenter) else {}
        output = inferer(image, network, **with_label)
        loss = loss_function(output, label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay.step()
        yield loss.item()
    network.eval()


def from_diffusion(network: DiffusionSegmenter, steps: int) -> Drawn:
    """What draws foreground masks ``(samples, *spatial)`` of an image ``(1, C, *spatial)``."""

    def draw(image: torch.Tensor, samples: int) -> torch.Tensor:
        noise = network.seeded_noise(network.noise_shape(image), 0, samples, steps)
        drawn = map(network.enlarge, network.draw(image, noise, steps))
        return torch.stack([logits.argmax(dim=1)[0] for logits in drawn])

    return draw


def from_softmax(network: nn.Module, kind: str) -> Drawn:
    """As `from_diffusion`, from one softmax.

    Args:
        network: a deterministic one.
        kind: ``pixels``: each pixel for itself; ``threshold``: all pixels above one threshold,
            which is drawn, so that masks are smooth; ``argmax``: always the most probable class.
    """

    def draw(image: torch.Tensor, samples: int) -> torch.Tensor:
        foreground = network(image).float().softmax(dim=1)[0, 1]
        generator = torch.Generator().manual_seed(0)
        if kind == "pixels":
            limits = torch.rand(samples, *foreground.shape, generator=generator)
        elif kind == "threshold":
            limits = torch.rand(samples, 1, 1, generator=generator)
        else:
            limits = torch.full([samples, 1, 1], 0.5)
        return (foreground > limits).long()

    return draw


def distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """1 - IoU of all pairs of masks ``(n, *spatial)``, ``(m, *spatial)``; 0 of two empty ones."""
    one, other = (masks.flatten(1).double() for masks in (first, second))
    common = one @ other.T
    union = one.sum(dim=1)[:, None] + other.sum(dim=1)[None] - common
    return torch.where(union > 0, 1 - common / union.clamp(min=1), 0.0)


def energy_distance(samples: torch.Tensor, outlines: torch.Tensor) -> dict[str, float]:
    """Generalized energy distance, squared, of masks ``(n, *spatial)``, and its parts."""
    between = distances(samples, outlines).mean().item()
    among_samples = distances(samples, samples).mean().item()
    among_raters = distances(outlines, outlines).mean().item()
    return {
        "distance": 2 * between - among_samples - among_raters,
        "to raters": between,
        "among samples": among_samples,
        "among raters": among_raters,
    }


@torch.no_grad()
def scores(draw: Drawn, data: Sequence[Picture], samples: int) -> dict[str, float]:
    """Mean over the pictures of the distance, its parts, and the IoU of what most samples say."""
    columns: dict[str, list[float]] = {}
    for picture in data:
        with autocast(picture.image.device, "auto"):
            masks = draw(picture.image[None], samples)
        most = masks.double().mean(dim=0) > 0.5
        row = energy_distance(masks, picture.outlines)
        row["IoU"] = 1 - distances(most[None], picture.outlines[:1]).item()
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: mean(values) for name, values in columns.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, sample and compare; write and print the table."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="OVERLAY", help="one over the other"
    )
    for name, default, what in (
        ("steps", 400, "of the optimizer"),
        ("num", 64, "pictures to train on"),
        ("tested", 24, "pictures to compare on"),
        ("side", 128, "of a picture in pixels, a multiple of the stride"),
        ("pixels", 4, "by which raters differ"),
        ("samples", 16, "of each picture"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} ({default})")
    arguments = parser.parse_args(argv)
    if not arguments.peer:
        parser.error("there is no --peer: expected the overlays of one")
    bundle: Bundle = arguments.bundle
    data = pictures(arguments.num, 0, arguments.side, arguments.pixels)
    unseen = pictures(arguments.tested, TEST_SEED, arguments.side, arguments.pixels)
    among = mean(distances(one.outlines, one.outlines).mean().item() for one in unseen)
    about = ABOUT.format(**vars(arguments), batch=BATCH, among=among)
    head = report.header(f"Raters: {bundle.name}", about, "accuracy.raters", argv, 0)
    rows = []
    for overlays in ([], arguments.peer):
        config = bundle.config("train.yaml", *overlays)
        torch.manual_seed(0)
        network = config.get_parsed_content("network")
        load_imagenet_weights(network)
        losses = list(train(network, config, data, arguments.steps, 0))
        print(f"{type(network).__name__}: loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
        name = type(network).__name__
        ways: dict[str, Drawn] = {}
        if isinstance(network, DiffusionSegmenter):
            for steps in (1, 2, 10):
                ways[f"{name}, K = {steps}"] = from_diffusion(network, steps)
        else:
            ways[f"{name}, pixels drawn from its softmax"] = from_softmax(network, "pixels")
            ways[f"{name}, its softmax at drawn thresholds"] = from_softmax(network, "threshold")
            ways[f"{name}, the most probable class"] = from_softmax(network, "argmax")
        for way, draw in ways.items():
            found = scores(draw, unseen, arguments.samples)
            rows.append({"samples of": way, **{key: cell(value) for key, value in found.items()}})
    print(report.write(command.folder_of(arguments) / "raters.md", head, report.table(rows)))


if __name__ == "__main__":
    main()
