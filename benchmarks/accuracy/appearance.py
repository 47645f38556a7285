r"""How well images of another kind are told from those that a bundle's weights know.

    python -m benchmarks.accuracy.appearance bundles/cdal_cxr --dataset_dir DIR --phantoms thorax \
        --other glands DIR --other hearts DIR --out DIR

The numbers of `ldseg_monai.data.appearance` are taken of the images that the weights were trained
on, and of phantoms of their kind. ``known_images`` in the bundle's ``metadata.json`` has their
mean, their standard deviation and the limit; ``--declare`` writes them there. Then other images are
compared with them: those of the same data set that did not train, further phantoms, and those of
``--other``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import command, report
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.appearance import FEWEST, Group, appearance, distance, fit, limit
from ldseg_monai.data.datalist import find_cases
from ldseg_monai.data.known import CheckKnownImaged
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.data.trained_cases import TrainedCases
from ldseg_monai.runtime.errors import UserError, cause

PHANTOMS = 20
SAME = "same data set"
ABOUT = """Images of each kind beside those that the weights were trained on. Refused: by the sizes
and ranges that the bundle declares. Unlike: beyond the limit of the appearance's distance,
{limit:g}, which is a warning and a mark in the results. Not read: a volume, for a bundle of
pictures, and the other way round. AUROC is of the distance, of these images beside those of the
same data set that did not train; 1 means that each is further. At most {most} images of a kind,
evenly spaced. The numbers and the limit's margin were chosen with most of these sets in view."""


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
        self.most = most

    def numbers(self, paths: Sequence[Any]) -> tuple[NDArray[np.float64], int, int]:
        """Appearance of images, and how many are refused and how many not read.

        Returns:
            ``(images, numbers)`` of those that are read, refused or not.
        """
        chosen = np.linspace(0, len(paths) - 1, min(self.most, len(paths))).astype(int)
        found, refused, unread = [], 0, 0
        for index in chosen:
            try:
                image = self.load({"image": paths[index]})["image"]
            except Exception as error:
                if not isinstance(cause(error), UserError):
                    raise
                unread += 1
                continue
            refused += any(True for _ in self.check.reasons(image, image.shape[1:]))
            found.append(appearance(image.as_tensor()))
        return np.array(found), refused, unread


def images_in(folder: Path) -> list[Any]:
    """The images of a folder, or of the ``images`` in it."""
    inside = folder / "images"
    cases = find_cases(inside if inside.is_dir() else folder, require_labels=False)
    return [case["image"] for case in cases]


def auroc(known: Sequence[float], others: Sequence[float]) -> float:
    """Probability that one of the others is further than a known one, ties half."""
    near, far = np.array(known)[:, None], np.array(others)[None]
    return float(((far > near) + 0.5 * (far == near)).mean())


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
    kinds: dict[str, list[Any]] = {SAME: [path for path in own if path not in inside]}
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for seed in (0, 1):
            write_phantoms(arguments.phantoms, Path(folder, str(seed)), PHANTOMS, seed=seed)
            made.append(images_in(Path(folder, str(seed))))
        groups: dict[str, Group] = {}
        limits = []
        for name, paths in (("training images", inside), ("phantoms", made[0])):
            numbers, _, _ = images.numbers(paths)
            groups[name] = fit(numbers)
            limits.append(limit(numbers))
        far = max(limits)
        kinds["phantoms"] = made[1]
        for name, place in arguments.other:
            kinds[name] = images_in(Path(place))
        rows, known = [], []
        for name, paths in kinds.items():
            numbers, refused, unread = images.numbers(paths)
            distances = [distance(one, groups) for one in numbers]
            known = distances if name == SAME else known
            unlike = sum(one > far for one in distances)
            row = {"images": name, "read": len(numbers), "not read": unread, "refused": refused}
            row["unlike"] = unlike if distances else "–"
            row["median distance"] = f"{np.median(distances):.2f}" if distances else "–"
            is_compared = name != SAME and known and distances
            row["AUROC"] = f"{auroc(known, distances):.3f}" if is_compared else "–"
            rows.append({key: str(value) for key, value in row.items()})
    if arguments.declare:
        path = bundle.configs / "metadata.json"
        text = path.read_text(encoding="utf-8")
        metadata, second = json.loads(text), text.splitlines()[1]
        indent = len(second) - len(second.lstrip())  # the file's own
        declared = {name: group._asdict() for name, group in groups.items()}
        metadata["known_images"] |= {"appearance": declared, "appearance_limit": far}
        path.write_text(
            json.dumps(metadata, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    head = report.header(
        f"Images of another kind: {bundle.name}",
        ABOUT.format(limit=far, most=arguments.most),
        "accuracy.appearance",
        argv,
        0,
    )
    print(report.write(command.folder_of(arguments) / "appearance.md", head, report.table(rows)))


if __name__ == "__main__":
    main()
