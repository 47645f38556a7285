r"""How well images of another kind are told from those that a bundle's weights know.

    python -m benchmarks.accuracy.appearance bundles/cdal_cxr --dataset_dir DIR --phantoms thorax \
        --other glands DIR --other hearts DIR --out DIR

The numbers of `ldseg_monai.data.appearance` are taken of the images that the weights were trained
on, and of phantoms of their kind. ``known_images`` in the bundle's ``metadata.json`` has what they
have in common, with the limits; ``--declare`` writes it there. Then other images are compared with
them: those of the same data set that did not train, the same ones altered, further phantoms, those
of other kinds, and the images of ``--other``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import GaussianSmooth
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks import command, report
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.appearance import FEWEST, Group, nearest
from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.known import CheckKnownImaged
from ldseg_monai.data.phantoms.files import VOLUMES, PhantomKind, write_phantoms
from ldseg_monai.data.trained_cases import TrainedCases
from ldseg_monai.runtime.errors import UserError, cause
from ldseg_monai.tools.new_bundle.config_tree import components

FITTED = 40  # phantoms that a group is fitted to
PHANTOMS = 20  # of each kind that is compared
BLUR = 2.0  # pixels or voxels: SD of the blur
NOISE = 0.5  # SD of the noise, in that of the image
FEWER = (8, 12, 24, 50)  # images that a group is fitted to, as of a small data set
DRAWS = 10  # of such images
SAME = "same data set"
ABOUT = """Images of each kind beside those that the weights were trained on. Refused: by the sizes
and ranges that the bundle declares. Unlike: beyond the limit of the appearance's distance, which is
a warning and a mark in the results. Distances are in limits. Not read: a volume, for a bundle of
pictures, and the other way round. AUROC is of the distance, of these images beside those of the
same data set that did not train; 1 means that each is further. At most {most} images of a kind,
evenly spaced.

The rows from half to noise alone are of the images of the same data set that did not train. They
are at half and at twice the scale, blurred by {blur:g} pixels, with gray noise of {noise:g} of
their standard deviation, inverted, and replaced by white noise.
{resized}

The limits are {limits}.
Each is a quantile of the distances of the group's images to the others, times a margin. The margin
and the numbers were chosen with all of these sets in view."""
FEWER_ABOUT = """A group of fewer images of this data set, as `ldseg new-bundle` fits one. Unlike is
the share of all its other images that is beyond the limit. AUROC is of other data sets beside
these. Means of {draws} draws.
"""
RESIZED = {
    True: "The network sees every image at one size, so half and double are no other kind to it.",
    False: "The network sees an image at its own scale, so half and double are another kind to it.",
}
Alteration = Callable[[torch.Tensor], torch.Tensor]


class Measured(NamedTuple):
    """Images of one kind: ``(images, numbers)`` of those that are read, refused or not."""

    numbers: NDArray[np.float64]
    refused: int
    unread: int


class Images:
    """Reads images as a bundle's inference does.

    Args:
        bundle: the bundle.
        most: images of a folder that are read, evenly spaced.
    """

    def __init__(self, bundle: Bundle, most: int) -> None:
        self.config = bundle.config("inference.yaml")
        self.load = self.config.get_parsed_content("load")
        self.check: CheckKnownImaged = self.config.get_parsed_content("known")
        self.resized = bool(components(self.config.config, "Resized"))
        self.check.known = self.check.known._replace(appearance_resized=self.resized)
        self.most = most

    def measure(
        self, paths: Sequence[Any], alter: Alteration | None = None, every: bool = False
    ) -> Measured:
        """Appearance of images.

        Args:
            paths: their files.
            alter: what is done to ``(C, *spatial)`` before it is looked at.
            every: whether all of them are read, and not ``most``.
        """
        number = len(paths) if every else min(self.most, len(paths))
        chosen = np.linspace(0, len(paths) - 1, number).astype(int)
        found, refused, unread = [], 0, 0
        for index in chosen:
            try:
                image = self.load({"image": paths[index]})["image"]
            except Exception as error:
                if not isinstance(cause(error), UserError):
                    raise
                unread += 1
                continue
            if alter is not None:
                values = alter(image.as_tensor().float())
                image = MetaTensor(values, affine=image.affine, meta=dict(image.meta))
            refused += any(True for _ in self.check.reasons(image, image.shape[1:]))
            found.append(self.check.looks(image))
        return Measured(np.array(found), refused, unread)


def alterations() -> dict[str, Alteration]:
    """What makes another kind of an image, by its name."""
    generator = torch.Generator().manual_seed(0)

    def scaled(image: torch.Tensor, factor: float) -> torch.Tensor:
        is_picture = image.ndim == 3
        if factor < 1:
            pool = functional.avg_pool2d if is_picture else functional.avg_pool3d
            return pool(image[None], round(1 / factor))[0]
        mode = "bilinear" if is_picture else "trilinear"
        return functional.interpolate(image[None], scale_factor=factor, mode=mode)[0]

    def with_noise(image: torch.Tensor) -> torch.Tensor:
        gray = torch.randn(image.shape[1:], generator=generator)
        return (image + NOISE * image.std() * gray).clamp(image.min(), image.max())

    def noise_alone(image: torch.Tensor) -> torch.Tensor:
        white = torch.rand(image.shape, generator=generator)
        return image.min() + (image.max() - image.min()) * white

    def blurred(image: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(GaussianSmooth(BLUR)(image))

    return {
        "half": lambda image: scaled(image, 0.5),
        "double": lambda image: scaled(image, 2),
        "blurred": blurred,
        "with noise": with_noise,
        "inverted": lambda image: image.max() + image.min() - image,
        "noise alone": noise_alone,
    }


def images_in(folder: Path) -> list[Any]:
    """The images of a folder, or of the ``images`` in it."""
    inside = folder / "images"
    cases = find_cases(inside if inside.is_dir() else folder, require_labels=False)
    return [case["image"] for case in cases]


def other_kinds(own: PhantomKind) -> list[PhantomKind]:
    """Kinds of phantoms with as many axes as one, without it and without sequences."""
    kinds: tuple[PhantomKind, ...] = get_args(PhantomKind)
    alike = [kind for kind in kinds if (kind in VOLUMES) == (own in VOLUMES)]
    return [kind for kind in alike if kind not in (own, "beat")]


def auroc(known: Sequence[float], others: Sequence[float]) -> float:
    """Probability that one of the others is further than a known one, ties half."""
    near, far = np.array(known)[:, None], np.array(others)[None]
    return float(((far > near) + 0.5 * (far == near)).mean())


def compare(measured: Mapping[str, Measured], groups: Mapping[str, Group]) -> list[dict[str, str]]:
    """A row for each kind of images, the first of which is of the same data set."""
    rows: list[dict[str, str]] = []
    known: list[float] = []
    for name, (numbers, refused, unread) in measured.items():
        pairs = [nearest(one, groups) for one in numbers]
        distances = [far / limit for far, limit in pairs]
        row = {"images": name, "read": f"{len(numbers)}", "not read": f"{unread}"}
        row["refused"] = f"{refused}"
        row["unlike"] = f"{sum(one > 1 for one in distances)}" if distances else report.NONE
        row["median distance"] = f"{np.median(distances):.2f}" if distances else report.NONE
        is_compared = rows and known and distances
        row["AUROC"] = f"{auroc(known, distances):.3f}" if is_compared else report.NONE
        known = known if rows else distances
        rows.append(row)
    return rows


def of_fewer(own: NDArray[np.float64], others: Mapping[str, Measured]) -> list[dict[str, str]]:
    """A row for each number of images that a group is fitted to, the others compared with it.

    Args:
        own: ``(images, numbers)`` of one kind.
        others: of other kinds, by their names.
    """
    draw = np.random.default_rng(0)
    rows = []
    for count in FEWER:
        if 2 * count > len(own):
            break
        row: dict[str, list[float]] = {}
        for _ in range(DRAWS):
            order = draw.permutation(len(own))
            group = Group.fit(own[order[:count]])
            known = [group.distance(one) for one in own[order[count:]]]
            found = {"same data set, unlike": sum(far > group.limit for far in known) / len(known)}
            for name, (numbers, _, _) in others.items():
                distances = [group.distance(one) for one in numbers]
                if distances:
                    found[f"{name}, AUROC"] = auroc(known, distances)
            for name, value in found.items():
                row.setdefault(name, []).append(value)
        means = {name: f"{np.mean(values):.3f}" for name, values in row.items()}
        rows.append({"images": f"{count}", **means})
    return rows


def declare(bundle: Bundle, groups: Mapping[str, Group], resized: bool) -> None:
    """Write the groups into the bundle's ``metadata.json``, which keeps its indent."""
    path = bundle.configs / "metadata.json"
    text = path.read_text(encoding="utf-8")
    metadata, second = json.loads(text), text.splitlines()[1]
    indent = len(second) - len(second.lstrip())
    known = metadata["known_images"]
    for name in ("appearance_limit", "appearance_resized"):
        known.pop(name, None)
    known["appearance"] = {name: group.declared() for name, group in groups.items()}
    if resized:
        known["appearance_resized"] = True
    path.write_text(
        json.dumps(metadata, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Fit and compare for the bundle named on the command line; write and print the table."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--phantoms", required=True, help="kind of the bundle's phantoms")
    parser.add_argument("--other", nargs=2, action="append", default=[], metavar=("NAME", "DIR"))
    parser.add_argument("--most", type=int, default=100, help="images of a kind at most")
    parser.add_argument("--declare", action="store_true", help="write it into metadata.json")
    arguments = parser.parse_args(argv)
    bundle: Bundle = arguments.bundle
    trained = TrainedCases.read(bundle.weights)
    if trained is None:
        parser.error(f"{bundle.weights} has no file of its cases beside it: expected such weights")
    images = Images(bundle, arguments.most)
    own = images_in(arguments.dataset_dir)
    inside = [path for path in own if trained.has(path)]
    if len(inside) < FEWEST:
        parser.error(f"{len(inside)} images trained the weights: expected {FEWEST} or more")
    outside = [path for path in own if path not in inside]
    with tempfile.TemporaryDirectory() as folder:

        def phantoms(kind: PhantomKind, number: int, seed: int) -> list[Any]:
            place = Path(folder, f"{kind}_{seed}")
            write_phantoms(kind, place, number, seed=seed)
            return images_in(place)

        head = report.header(
            f"Images of another kind: {bundle.name}", "ABOUT", "accuracy.appearance", argv, 0
        )
        trained_on = images.measure(inside, every=True)
        made = images.measure(phantoms(arguments.phantoms, FITTED, 0), every=True)
        measured = {SAME: images.measure(outside)}
        for name, alter in alterations().items():
            measured[name] = images.measure(outside, alter)
        measured["phantoms"] = images.measure(phantoms(arguments.phantoms, PHANTOMS, 1))
        for kind in other_kinds(arguments.phantoms):
            measured[f"phantoms: {kind}"] = images.measure(phantoms(kind, PHANTOMS, 1))
    others = {name: images.measure(images_in(Path(place))) for name, place in arguments.other}
    groups = {
        "training images": Group.fit(trained_on.numbers),
        "phantoms": Group.fit(made.numbers),
    }
    own_numbers = [one.numbers for one in (trained_on, measured[SAME]) if len(one.numbers)]
    fewer = of_fewer(np.concatenate(own_numbers), others)
    if arguments.declare:
        declare(bundle, groups, images.resized)
    limits = " and ".join(f"{group.limit:g} ({name})" for name, group in groups.items())
    about = ABOUT.format(
        limits=limits,
        most=arguments.most,
        blur=BLUR,
        noise=NOISE,
        resized=RESIZED[images.resized],
    )
    print(
        report.write(
            command.folder_of(arguments) / "appearance.md",
            head.replace("ABOUT", about, 1),
            report.table(compare(measured | others, groups)),
            FEWER_ABOUT.format(draws=DRAWS),
            report.table(fewer),
        )
    )


if __name__ == "__main__":
    main()
