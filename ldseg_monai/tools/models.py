"""Which bundles there are, and what each says of an image, without running it."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from monai.data import MetaTensor
from monai.utils import ensure_tuple, fall_back_tuple

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.bundle import SEQUENCES, STRIPS
from ldseg_monai.data.datalist import case_of_channels, find_cases
from ldseg_monai.data.formats import PICTURE_ENDINGS, SLIDE_ENDINGS, Slide, is_slide
from ldseg_monai.data.known import BODY_AXES
from ldseg_monai.data.sequences import find_sequences
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.inference.strips import StripInferer
from ldseg_monai.runtime.errors import InputError, MissingFileError, UserError, cause, one_line
from ldseg_monai.tools.archives import places_in, unpacked
from ldseg_monai.tools.forecast import bytes_of_image, number_of_windows
from ldseg_monai.tools.predict import files_of, overlays_for

WIDTH = 100  # columns of a terminal
INDENT = "            "
CONFIGS = ("train.yaml", "evaluate.yaml", "inference.yaml")
KNOBS = "# Knobs"  # the heading above them in a config; an overlay may do without
TERMS = "docs/data_license.txt"
COMMENT = "  # "  # between a knob's value and what it is
WIRING = ("writes", "knob_kinds")  # beside the knobs, for the package
SET = re.compile(r"^\+?([\w#]+):", re.MULTILINE)  # what an overlay sets
ENTRY = re.compile(r"(\w+): (.+)")


class Knob(NamedTuple):
    """A value at the top of a config that a command may set.

    Attributes:
        name: of the option.
        value: as the file has it.
        comment: what it is, in which unit.
    """

    name: str
    value: str
    comment: str


def describe_bundles(bundles: Sequence[Bundle]) -> str:
    """What each bundle segments, what its weights were trained on, their terms and their score."""
    return "\n".join(describe_bundle(bundle) for bundle in bundles)


def describe_bundle(bundle: Bundle) -> str:
    """A paragraph on a bundle, from its metadata and the terms of its data."""
    metadata = bundle.metadata
    names = [name for index, name in sorted(bundle.class_names.items()) if index > 0]
    has_weights = bundle.weights.is_file()
    lines = [f"{bundle.name} {metadata.get('version', '')}: {metadata.get('task', bundle.title)}"]
    lines += _entry("classes", ", ".join(names))
    lines += _entry("images", metadata.get("image_classes", ""))
    lines += _entry("trained on", metadata.get("data_source", "") if has_weights else "")
    scores = metadata.get("eval_metrics", {}) if has_weights else {}
    told = [f"{name.replace('_', ' ')} {value}" for name, value in scores.items()]
    lines += _entry("score", ", ".join(told))
    lines += _entry("terms", _terms(bundle.root))
    lines += _entry("folder", str(bundle.root))
    if not has_weights:
        lines += _entry("weights", "none yet: train it")
    return "\n".join(lines) + "\n"


def _entry(name: str, text: str) -> list[str]:
    if not text:
        return []
    first = f"  {name}:".ljust(len(INDENT) + 2)
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
    )


def _terms(root: Path) -> str:
    """The first paragraph of the terms of a bundle's data, and where a list that follows it is.

    Args:
        root: folder of the bundle.
    """
    path = root / TERMS
    if not path.is_file():
        return ""
    paragraph: str = path.read_text(encoding="utf-8").strip().split("\n\n")[0]
    text = " ".join(paragraph.split())
    return f"{text[:-1]} what {TERMS} lists" if text.endswith(":") else text


def describe_knobs(bundle: Bundle, names: Sequence[str] = CONFIGS) -> str:
    """The knobs of a bundle's configs: name, value, and what it is, by the comment beside it.

    Args:
        bundle: the bundle.
        names: files below its configs.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    parts = []
    for name in names:
        path = bundle.config_file(name)
        text = path.read_text(encoding="utf-8")
        knobs = read_knobs(text)
        above = " (those of train.yaml, too)" if name == "evaluate.yaml" else ""
        parts.append(f"{path}{above}")
        if not knobs:
            changed = f"no knobs of its own: it sets {', '.join(SET.findall(text)) or 'nothing'}"
            parts += textwrap.wrap(changed, WIDTH, initial_indent="  ", subsequent_indent="  ")
        width = max([len(knob.name) for knob in knobs], default=0) + 4
        for knob in knobs:
            first = f"  {knob.name}".ljust(width) + knob.value
            if knob.comment and len(first) + len(COMMENT + knob.comment) <= WIDTH:
                parts.append(first + COMMENT + knob.comment)
                continue
            parts.append(first)
            indent = " " * width + "# "
            parts += textwrap.wrap(
                knob.comment, WIDTH, initial_indent=indent, subsequent_indent=indent
            )
        parts.append("")
    return "\n".join(parts)


def read_knobs(text: str) -> list[Knob]:
    """The knobs in the text of a config: what is below `KNOBS`, up to the next heading.

    Without that heading, as in an overlay, they are the entries with a comment behind them.
    """
    has_heading = KNOBS in text.splitlines()
    is_below = not has_heading
    knobs = []
    for line in _entries(text):
        if line.startswith("# "):
            is_below = line == KNOBS if has_heading else True
        entry, _, comment = line.partition(COMMENT)
        found = ENTRY.fullmatch(entry.rstrip())
        if is_below and found and found[1] not in WIRING and (has_heading or comment):
            knobs.append(Knob(found[1], found[2], comment.strip()))
    return knobs


def _entries(text: str) -> list[str]:
    """The lines of a config, each with those that go on with it."""
    entries: list[str] = []
    for line in text.splitlines():
        if line.startswith((" ", "-")) and entries:
            # A value that begins on a line of its own is no knob's: `ENTRY` takes no such break
            entries[-1] += "\n" if entries[-1].endswith(":") else " "
            entries[-1] += line.strip()
        else:
            entries.append(line)
    return entries


def describe_image(path: str | os.PathLike[str] | Sequence[str], bundles: Sequence[Bundle]) -> str:
    """What bundles would make of an image: its size, what the network sees, whether it is known.

    Args:
        path: of a file, or of a folder with DICOM series; or those of the files of a volume's
            channels.
        bundles: that are asked.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    paths = [os.fspath(part) for part in ensure_tuple(path)]
    for part in paths:
        if not os.path.exists(part):
            raise MissingFileError(f"{part} does not exist: expected an image")
    with unpacked(paths[0]) as place:
        if place == paths[0]:
            return _described(", ".join(paths), paths, bundles)
        parts, refused = [], []
        for inside in places_in(place):
            name = os.path.normpath(os.path.join(paths[0], os.path.relpath(inside, place)))
            try:
                parts.append(_described(name, [inside], bundles))
            except InputError as error:
                refused.append(error)
        if not parts:
            raise refused[-1]
        return "".join([*parts, *(f"{error}\n" for error in refused)])


def _described(name: str, paths: Sequence[str], bundles: Sequence[Bundle]) -> str:
    """What bundles would make of an image that a person calls by a name.

    Raises:
        ValueError: if none of them can take it.
    """
    lines = [name]
    refused: list[tuple[Bundle, str]] = []
    for bundle in bundles:
        lines.append(f"  {bundle.name}")
        try:
            lines.extend(f"    {line.replace(paths[0], name)}" for line in _facts(paths, bundle))
        except Exception as error:  # a reader's or a transform's
            told = cause(error)
            if not isinstance(told, (UserError, OSError)):
                raise
            refused.append((bundle, one_line(told).replace(paths[0], name)))
            lines.append(f"    cannot take it: {refused[-1][1]}")
    if len(refused) == len(bundles):
        # Bundles of another kind of images say that alone
        endings = (*PICTURE_ENDINGS, *SLIDE_ENDINGS)
        are_pictures = any(file.lower().endswith(endings) for file in files_of(paths[0]))
        dims = 2 if are_pictures else 3
        reasons = [reason for bundle, reason in refused if bundle.spatial_dims == dims]
        raise InputError(f"no bundle here can take {name}: {(reasons or [refused[-1][1]])[-1]}")
    return "\n".join(lines) + "\n"


def _facts(paths: Sequence[str], bundle: Bundle) -> Iterator[str]:
    """Lines on an image and a bundle."""
    path = paths[0]
    if is_slide(path):
        yield from _slide_facts(path, bundle)
        return
    dims = bundle.spatial_dims
    overlays = [name for name in overlays_for(bundle, [path]) if name == SEQUENCES]
    config = bundle.config("inference.yaml", *overlays, dataset_dir=path, force=True)
    if len(paths) > 1:
        cases = case_of_channels(paths)
    elif overlays:
        cases = find_sequences(path)
    else:
        cases = find_cases(
            path,
            False,
            None if dims == 2 else "",
            channels=config.get("load", {}).get("channels", 1),
            dicom_pictures=config.get("datalist", {}).get("dicom_pictures", False),
        )
    if len(cases) > 1:
        first = ", ".join(ensure_tuple(cases[0]["image"]))
        yield f"{len(cases)} images, of which this is the first: {first}"
    loaded = config.get_parsed_content("load")(cases[0])
    image = loaded["image"]
    yield f"size: {_by(image.shape[1:])}{_place(image, dims)}"
    names = bundle.channel_names
    told = f" ({', '.join(names)})" if len(names) == len(image) > 1 else ""
    yield f"channels: {len(image)}{told}"
    known = config.get_parsed_content("known")
    reasons = list(known.reasons(MetaTensor(image), image.shape[1:]))
    yield from _known_line(reasons, known.unlike(image))
    seen = loaded
    for transform in config.get_parsed_content("image_transforms"):
        seen = transform(seen)
    size = list(seen["image"].shape[1:])
    yield f"seen by the network as: {_by(size)}"
    inferer = config.get_parsed_content("inferer")
    if isinstance(inferer, SlidingWindowSamplingInferer):
        window = fall_back_tuple(inferer.roi_size, size)
        number = number_of_windows(size, inferer)
        yield f"windows: {number} of {_by(window)}"
    yield _written_line(config)


def _slide_facts(path: str, bundle: Bundle) -> Iterator[str]:
    """Lines on a whole-slide image and a bundle."""
    if not (bundle.configs / STRIPS).is_file():
        raise InputError(f"{path} is a whole-slide image: expected a bundle with {STRIPS}")
    config = bundle.config("inference.yaml", STRIPS, dataset_dir=path, force=True)
    strips: StripInferer = config.get_parsed_content("strips")
    reader, known = strips.reader, config.get_parsed_content("known")
    with reader.open(path) as opened:
        slide = cast(Slide, opened)
        yield f"whole-slide image of format {slide.vendor}"
        yield f"levels: {', '.join(map(_by, slide.levels))} pixels, columns by rows"
        own = "not known" if slide.own_microns is None else f"{slide.own_microns[0]:.3g}"
        yield f"micrometers a pixel: {own}"
        yield from _known_line(list(reader.reasons(slide, known)))
        how = "its own pixels" if slide.microns is None else f"{slide.microns[0]:.3g} micrometers"
        yield f"seen by the network as: {_by(slide.size)}, of {how}"
        empty, number = strips.empty_windows(slide)
        window = _by(strips.inferer.window(slide.size))
        yield f"windows: {number} of {window}, of which {number - len(empty)} have tissue"
        network = config.get_parsed_content("network_def")
        memory = bytes_of_image(slide.size, strips.inferer, network, in_strips=True) / 1e9
        yield f"memory: about {memory:.2g} GB beside the network; predict times a window first"
    yield _written_line(config)


def _known_line(reasons: Sequence[str], unlike: str = "") -> Iterator[str]:
    if reasons:
        yield f"not known to the weights, refused without --force: {'; '.join(reasons)}"
    elif unlike:
        yield f"may not be known to the weights, and will be marked: {unlike}"
    else:
        yield "known to the weights, by what the bundle declares"


def _written_line(config: Any) -> str:
    samples = config.get_parsed_content("num_samples")
    results = ["label"] if samples == 1 else ["label", "mean", "sd"]
    return f"written: {', '.join(results)} ({samples} sample{'s' * (samples > 1)})"


def _place(image: Any, dims: int) -> str:
    """Spacing and directions of a volume."""
    if image.ndim < 4:
        return " pixels, columns by rows"
    if dims == 2:
        return " pixels and frames, columns by rows by frames"
    axes = np.asarray(image.affine, dtype=float)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    nearest = [BODY_AXES[int(np.abs(axes[:, axis]).argmax())] for axis in range(3)]
    names = ", ".join(name.replace("_", " to ") for name in nearest)
    return f" voxels of {' x '.join(f'{side:.3g}' for side in spacing)} mm; axes: {names}"


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(int(side)) for side in size)
