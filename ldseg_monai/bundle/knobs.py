"""Whether the knobs of a config have values that a run can use."""

from __future__ import annotations

import ast
import copy
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple
from PIL import ImageMode

from ldseg_monai.bundle.components import (
    dependencies,
    find_target,
    has_id,
    parameters,
    references,
)
from ldseg_monai.bundle.names import KINDS
from ldseg_monai.bundle.reader import find_reader
from ldseg_monai.data.datalist import PARTS, image_folder
from ldseg_monai.data.dicom.series import folder_of_slice
from ldseg_monai.networks.segmenter import LARGEST_SEED, ORIENTATIONS, DiffusionSegmenter
from ldseg_monai.runtime.errors import (
    InputError,
    NotAFolderError,
    ReadOnlyError,
    UserError,
    cause,
    one_line,
)
from ldseg_monai.runtime.places import require_own_place

RUN = ("initialize", "run", "training", "finalize")  # ids that MONAI runs
# Ids that this package or MONAI reads itself, whatever refers to them
READ = ("imports", "bundle_root", "dataset_dir", "output_dir", "threads", "writes", KINDS)
# Axes of the body by their letters, as MONAI's `Orientation` has them
BODY = {"L": "x", "R": "x", "P": "y", "A": "y", "I": "z", "S": "z"}
EPOCHS = "train#trainer#max_epochs"
# Knobs that let the samples see images in all orientations, or mirrored along some axes
TURNED, MIRRORED, MIRROR_AXES = "turned", "mirrored", "mirror_axes"
OWN = "train#inferer#rollout_share"  # of what a network learns from its own estimates
SCHEDULER = "network_def#scheduler"
DATA = ("train#dataset#data", "validate#dataset#data")  # the cases of both parts
TEXT = "text"  # the kind of knobs that are texts, whatever they look like
EXPONENT = re.compile(r"[-+]?\d+e[-+]?\d+", re.I)  # a number that YAML takes for a text
LONGEST_NAME = 255  # bytes of a file's or folder's name, in most file systems
SIZES = ("crop_size", "spatial_size", "window_size")  # of images that a network sees
ENCODER = "network_def#label_encoder"
TEXTS = "texts"  # of those that may be a list of texts too


class Rule(NamedTuple):
    """Which values a knob may have."""

    fits: Callable[[Any], bool]
    expected: str


def _whole(least: int) -> Rule:
    def fits(value: Any) -> bool:
        return type(value) is int and value >= least

    return Rule(fits, f"a whole number, {least} or more")


def _number(fits: Callable[[float], bool], expected: str) -> Rule:
    return Rule(lambda value: type(value) in (int, float) and fits(value), expected)


def _numbers(fits: Callable[[float], bool], expected: str) -> Rule:
    """A number, or one for each axis."""
    one = _number(fits, expected)
    return Rule(lambda value: all(map(one.fits, ensure_tuple(value))), expected)


def _are_different(value: Any, least: int) -> bool:
    """Whether a value is a list of different whole numbers, each of at least so much."""
    if not isinstance(value, (list, tuple)) or not all(map(_whole(least).fits, value)):
        return False
    return len(set(value)) == len(value)


def _is_size(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_whole(1).fits, value))


def _are_axes(value: Any) -> bool:
    """Whether a text has one letter of each axis of the body, in any order."""
    if not isinstance(value, str):
        return False
    return sorted(BODY.get(letter, "") for letter in value) == sorted(set(BODY.values()))


def _is_text(value: Any) -> bool:
    """Whether a value is a text, or none."""
    return value is None or isinstance(value, str)


def _are_texts(value: Any) -> bool:
    """Whether a value is a text, or none, or a list of texts."""
    return all(map(_is_text, value)) if isinstance(value, (list, tuple)) else _is_text(value)


# The kinds of knobs.
RULES = {
    "positive": _whole(1),
    "positives": Rule(
        lambda value: all(map(_whole(1).fits, ensure_tuple(value))),
        "a whole number, 1 or more, or a list of one for each class but the background",
    ),
    "count": _whole(0),
    "classes": _whole(2),
    "rate": _number(lambda value: 0 <= value < float("inf"), "a number, 0 or more"),
    "share": _number(lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "fraction": _number(lambda value: 0 < value < 1, "a number between 0 and 1, such as 0.25"),
    "overlap": _numbers(
        lambda value: 0 <= value < 1, "a number from 0 to below 1, or one for each axis"
    ),
    "spacing": _numbers(lambda value: 0 < value < float("inf"), "positive numbers, in mm"),
    "microns": Rule(
        lambda value: value is None or (type(value) in (int, float) and 0 < value < float("inf")),
        "a positive number, in micrometers, or null (on the command line None) for none",
    ),
    "size": Rule(_is_size, "a list of whole numbers, 1 or more, one for each axis"),
    "switch": Rule(
        lambda value: isinstance(value, bool), "true or false (on the command line True or False)"
    ),
    "never": Rule(
        lambda value: value is False,
        "false (on the command line False), since this config cannot do it",
    ),
    "precision": Rule(
        lambda value: isinstance(value, bool) or value == "auto",
        "auto, true or false (on the command line auto, True or False)",
    ),
    "seed": Rule(
        lambda value: _whole(0).fits(value) and value <= LARGEST_SEED,
        f"a whole number from 0 to {LARGEST_SEED}",
    ),
    "axes": Rule(
        _are_axes, "one letter for each axis of the body: L or R, P or A, I or S, such as RAS"
    ),
    "mirrors": Rule(
        lambda value: _are_different(value, 0),
        "a list of different axes of the image, 0 for the first; [] for none",
    ),
    "some classes": Rule(
        lambda value: _are_different(value, 1),
        "a list of different classes, 1 for the first beside the background; [] for none",
    ),
    "fold": Rule(
        lambda value: value is None or _whole(0).fits(value),
        "the number of a fold, from 0 on, or null (on the command line None) for none",
    ),
    "threads": Rule(
        lambda value: value is None or _whole(1).fits(value),
        "a whole number, 1 or more, or null (on the command line None) for PyTorch's own choice",
    ),
    TEXT: Rule(_is_text, "one text"),
    TEXTS: Rule(_are_texts, "a text, or a list of texts"),
}
# The kinds of the knobs that bundles share. A config's `knob_kinds` has those of its own, and goes
# before this.
SHARED = {
    "positive": [
        "batch_size", "cases_per_epoch", "max_epochs", "num_folds", "num_inference_steps",
        "num_phantoms", "num_samples", "val_interval", "window_batch_size", "world_size",
    ],
    "positives": ["smallest_object"],
    "some classes": ["largest_only"],
    "mirrors": ["mirror_axes"],
    "count": ["num_workers", "rank"],
    "seed": ["seed"],
    "axes": ["orientation"],
    "classes": ["num_classes"],
    "rate": ["final_learning_rate", "learning_rate"],
    "fraction": ["val_fraction"],
    "overlap": ["overlap"],
    "spacing": ["voxel_size"],
    "microns": ["slide_microns"],
    "size": [*SIZES],
    "switch": [
        "force", "mirrored", "partial_weights", "phantoms", "require_codes", "resume",
        "save_overlay", "save_statistics", "skip_empty", "skip_unreadable", "turned",
    ],
    "precision": ["amp"],
    "fold": ["fold"],
    "threads": ["threads"],
    TEXT: [
        "bundle_root", "initial_weights", "model_path", "output_dir", "part",
        "patients", "series_uid", "tensorboard_dir", "training_dir",
    ],
    TEXTS: ["dataset_dir", "ensemble", "save_as", "val_cases", "test_cases"],
}  # fmt: skip
# Where a config says how many channels the network takes of an image, the first that is there
TAKEN = tuple(f"network_def#{part}in_channels" for part in ("image_encoder#", "", "network#"))
# Where it says the number of classes, beside `num_classes`
CLASSES = (
    "network_def#label_decoder#out_channels",
    "network_def#generator#out_channels",
    "network_def#network#out_channels",
    "network_def#out_channels",
    "discriminator_def#in_channels",
)
IMAGE_DIMS = "image_dims"  # of a config whose network sees planes of a volume: 3


def check_values(parser: ConfigParser) -> None:
    """Check a config's knobs that are of a kind, what a client sets, its steps and its device.

    So that no training begins that cannot end well, the network has to take the channels that
    ``load`` gives, and to give a score for each class.

    Args:
        parser: the config with its overrides.

    Raises:
        InputError: for a value that no run could use, a device that is not there, or as of
            `kinds_of`.
    """
    keep_texts(parser)
    axes = next(_values(parser.get("network_def"), "spatial_dims"), None)
    if has_id(parser, IMAGE_DIMS):  # a network of planes has fewer axes than the volume
        axes = parser[IMAGE_DIMS]
    for name, kind in kinds_of(parser).items():
        if kind in (TEXT, TEXTS) and isinstance(parser[name], str):
            continue  # an expression may be of a rank that is not known yet
        value = _computed(parser, name)
        listed = isinstance(value, (list, tuple)) or kind == "size"
        for_axes = kind in ("size", "overlap", "spacing") and axes in (2, 3) and listed
        wrong_length = for_axes and len(ensure_tuple(value)) != axes
        if wrong_length or not RULES[kind].fits(value):
            is_number = isinstance(value, str) and EXPONENT.fullmatch(value)
            hint = "; YAML takes 1e-4 for a text, and 1.0e-4 for a number" if is_number else ""
            raise InputError(f"{name} is {value!r}: expected {RULES[kind].expected}{hint}")
    _check_trainer(parser)
    _check_steps(parser)
    _check_own_estimates(parser)
    _check_channels(parser)
    _check_sizes(parser)
    _check_classes(parser)
    _check_views(parser)
    _check_samples(parser)
    if "device" in parser:
        check_device(parser.get_parsed_content("device"))


def kinds_of(parser: ConfigParser) -> dict[str, str]:
    """The kind of each knob of a config, by its name.

    Raises:
        InputError: if its ``knob_kinds`` is null or has such an entry, has a kind that is none of
            `RULES`, or names a knob that the config does not have.
    """
    kinds: dict[str, str] = {}
    config: Any = parser.config  # MONAI's parser looks for similar names where one is not there
    for kind, names in SHARED.items():
        kinds |= {name: kind for name in names if name in config}
    own = config.get(KINDS, {})
    if not isinstance(own, dict) or None in own.values():
        raise InputError(
            f"{KINDS} is {own!r}: expected names of knobs by their kinds, such as {{switch: [a]}}; "
            "leave it out to keep the bundle's own"
        )
    for kind, names in own.items():
        if kind not in RULES:
            raise InputError(f"{KINDS} has the kind {kind}: expected one of {', '.join(RULES)}")
        for name in ensure_tuple(names):
            if not has_id(parser, name):
                raise InputError(f"{KINDS}#{kind} names {name}: expected a knob of the config")
            kinds[name] = kind
    return kinds


def _computed(parser: ConfigParser, name: str) -> Any:
    """The value of a knob, which may be an expression.

    Raises:
        InputError: for an expression that fails, or that refers to itself.
    """
    try:
        return parser.get_parsed_content(name)
    except Exception as error:  # of the expression, or MONAI's own
        reason = cause(error)
        if isinstance(reason, UserError):
            raise
        raise InputError(
            f"{name} is {parser[name]!r}, which cannot be computed ({one_line(reason)}): correct it"
        ) from error


def keep_texts(parser: ConfigParser) -> None:
    """Let knobs that are texts be what was typed: ``--output_dir 20241128``, ``--val_cases 101``.

    MONAI makes a number of what looks like one, so that ``2024_11`` is 202411, and ``::`` of every
    ``#``, which stands for that between ids. What was typed is on the command line; a number in a
    file is written as a text.

    Args:
        parser: the config, which may be being read.
    """
    config: Any = parser.config
    given = find_reader().command or {}
    for name, kind in kinds_of(parser).items():
        if kind not in (TEXT, TEXTS):
            continue
        value, typed = parser[name], _typed(name)
        meant = given.get(name) if typed is None else typed
        if isinstance(value, list) and typed is not None:
            meant = _listed(typed)
        if _is_mangled(name, value, meant):
            # What is used of it; in the config itself MONAI would replace it again
            parser.ref_resolver.resolved_content[name] = meant
            continue
        if RULES[kind].fits(value) or (kind == TEXT and _is_list(value, typed)):
            continue
        text = _as_text(value, typed)
        config[name] = text
        # As `parser[name] = text`, which would forget everything that is made already
        item = parser.ref_resolver.get_item(name)
        if item is not None:
            item.update_config(text)
            parser.ref_resolver.remove_resolved_content(name)


def _is_mangled(name: str, value: Any, meant: Any) -> bool:
    """Whether MONAI replaced a ``#`` of a text, or of one in a list, that is no expression.

    It writes ``::`` for it, and takes ``@#`` for the begin of an id beside the knob's own.
    """
    if isinstance(value, list) and isinstance(meant, (list, tuple)) and len(value) == len(meant):
        for index, (item, typed) in enumerate(zip(value, meant, strict=True)):
            if _is_mangled(f"{name}::{index}", item, typed):
                return True
        return False
    if not isinstance(meant, str) or not isinstance(value, str) or value.startswith("$"):
        return False
    return "#" in meant and value == ConfigParser.resolve_relative_ids(name, meant)


def _listed(typed: str) -> Any:
    """The list that was typed, as Python has it; None where it is written otherwise."""
    try:
        return ast.literal_eval(typed)
    except (ValueError, SyntaxError):  # such as [a, b], which Fire takes for texts
        return None


def _as_text(value: Any, typed: str | None) -> Any:
    """A value, or each of its items, as a text."""
    if _is_list(value, typed):
        return [str(item) for item in value]
    return str(value) if typed is None else typed


def _is_list(value: Any, typed: str | None) -> bool:
    """Whether a value is a list, and was not typed as a text with commas."""
    return isinstance(value, (list, tuple)) and (typed is None or typed[:1] in ("[", "("))


def _typed(name: str) -> str | None:
    """What follows a knob on the command line; None where it is not there."""
    for index, argument in enumerate(sys.argv):
        knob, equals, value = argument.lstrip("-").partition("=")
        if knob.replace("-", "_") != name or not argument.startswith("-"):
            continue
        return value if equals else next(iter(sys.argv[index + 1 :]), None)
    return None


def use_threads(parser: ConfigParser) -> None:
    """Let PyTorch compute in as many threads as a config's ``threads`` says, if it says."""
    threads = parser.get_parsed_content("threads") if has_id(parser, "threads") else None
    if threads is not None:
        torch.set_num_threads(threads)


def idle_knobs(parser: ConfigParser, given: Iterable[str]) -> list[str]:
    """Knobs that were given and change nothing, each with the reason.

    Args:
        parser: the config.
        given: names of the knobs.
    """

    def value(name: str) -> Any:
        return parser.get_parsed_content(name) if has_id(parser, name) else None

    reasons = dict.fromkeys(_unused(parser, given), "nothing that is run here uses it")
    if value("dataset_dir"):
        reasons |= dict.fromkeys(["num_phantoms", "phantoms"], "dataset_dir is given")
    elif has_id(parser, "phantoms") and not value("phantoms"):
        reasons["num_phantoms"] = "phantoms is false"
    if has_id(parser, "initial_weights") and not value("initial_weights"):
        reasons["partial_weights"] = "initial_weights is not given"
    if value("fold") is not None:
        reasons["val_fraction"] = "fold is given"
    else:
        reasons["num_folds"] = "fold is not given"
    if value("val_cases") is not None:
        names = ["val_fraction", "fold", "num_folds"]
        reasons |= dict.fromkeys(names, "val_cases names the validation cases")
    elif value("fold") is None and value("split#weights"):
        reasons["val_fraction"] = "the weights say which cases validate"
    if value("part") in ("all", "test"):
        names = ["val_cases", "val_fraction", "fold", "num_folds", "patients", "test_cases"]
        if value("part") == "test":
            names = names[:-2]  # no patient may be parted
        reasons |= dict.fromkeys(names, f"part is {value('part')}")
    return [f"{name} ({reasons[name]})" for name in given if name in reasons]


def _unused(parser: ConfigParser, given: Iterable[str]) -> list[str]:
    """Knobs that were given, and that nothing refers to which is run."""
    roots = [name for name in RUN if has_id(parser, name)]
    try:
        used = dependencies(parser, roots) if roots else {}
    except InputError:  # of a reference to nothing, which MONAI tells when it comes to it
        return []
    unused = []
    for name in given:
        idle = not any(f"{item}#".startswith(f"{name}#") for item in used)
        idle &= not any(name.startswith(f"{item}#") for item in used)
        if used and idle and has_id(parser, name) and name.split("#")[0] not in READ:
            unused.append(name)
    return unused


def check_epochs(epochs: Any) -> None:
    """Check a number of epochs, which a client such as MONAI Label sets past the knob.

    Raises:
        InputError: for a number of epochs that is none.
    """
    if not RULES["positive"].fits(epochs):
        raise InputError(f"max_epochs is {epochs!r}: expected {RULES['positive'].expected}")


def _check_trainer(parser: ConfigParser) -> None:
    """Check what a client such as MONAI Label sets of a training, past the knobs.

    Raises:
        InputError: for a number of epochs that is none, or if the cases of one part are given and
            those of the other would be the bundle's own, or phantoms.
    """
    if has_id(parser, EPOCHS):
        check_epochs(parser.get_parsed_content(EPOCHS))
    there = [name for name in DATA if has_id(parser, name)]
    given = [name for name in there if isinstance(parser[name], list)]
    if len(given) == 1:
        (other,) = set(DATA) - set(given)
        raise InputError(
            f"{given[0]} is given and {other} is not: expected both, or the weights would be "
            "chosen on other data than they learn from; in MONAI Label give a val_split between "
            "0 and 1"
        )


def _check_steps(parser: ConfigParser) -> None:
    """Let the network's class say whether it can take as many steps, before it is built."""
    network = parser.get("network_def", {})
    method = find_target(network.get("_target_"))
    is_diffusion = isinstance(method, type) and issubclass(method, DiffusionSegmenter)
    if not is_diffusion or "num_inference_steps" not in parser:
        return
    scheduler = network.get("scheduler", {})
    default = parameters(scheduler).get("num_train_timesteps")
    timesteps = scheduler.get("num_train_timesteps", default)
    if isinstance(timesteps, str):  # a reference or an expression
        timesteps = parser.get_parsed_content("network_def#scheduler#num_train_timesteps")
    if isinstance(timesteps, int):
        method.check_steps(parser.get_parsed_content("num_inference_steps"), timesteps)


def _check_own_estimates(parser: ConfigParser) -> None:
    """Check that a network that is to learn from its own estimates predicts the clean latent.

    Raises:
        InputError: for another prediction.
    """
    # MONAI writes every `#` as `::`
    trains = "train#trainer" in str(parser.get("run")).replace("::", "#")
    if not trains or not has_id(parser, OWN) or not has_id(parser, SCHEDULER):
        return
    share, name = parser.get_parsed_content(OWN), f"{SCHEDULER}#prediction_type"
    kind = parameters(parser[SCHEDULER]).get("prediction_type")
    if has_id(parser, name):
        kind = parser.get_parsed_content(name)
    if share and kind is not None and kind != "sample":
        raise InputError(
            f"{name} is {kind}: expected sample, since {OWN} is {share}: own estimates are of the "
            f"clean latent; or set {OWN} to 0"
        )


def _check_channels(parser: ConfigParser) -> None:
    """Check what the network takes and gives, before it is built.

    Raises:
        InputError: for other channels than `load` gives, or other classes than `num_classes`.
    """
    given = None
    if has_id(parser, "load#channels"):
        given = "load#channels", parser.get_parsed_content("load#channels")
    elif has_id(parser, "load#mode"):
        given = "load#mode", len(ImageMode.getmode(parser["load#mode"]).bands)
    wanted = [(name, given) for name in TAKEN if has_id(parser, name)][:1]
    if has_id(parser, "num_classes"):
        classes = "num_classes", parser.get_parsed_content("num_classes")
        wanted += [(name, classes) for name in CLASSES if has_id(parser, name)]
    for name, said in wanted:
        got = parser.get_parsed_content(name)
        if said is not None and got != said[1]:
            raise InputError(f"{name} is {got}: expected {said[1]}, as of {said[0]}")


def _check_sizes(parser: ConfigParser) -> None:
    """Check that the sizes that a network sees are multiples of its stride, before it is built.

    The stride of an LDSeg is that of its label's encoder, which is made of no values for it.

    Raises:
        InputError: for a size that is none.
    """
    sizes = {name: parser.get_parsed_content(name) for name in SIZES if has_id(parser, name)}
    if not sizes or not has_id(parser, ENCODER):
        return
    apart = ConfigParser(copy.deepcopy(dict(parser.get())))  # which keeps what it makes
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            stride = apart.get_parsed_content(ENCODER).stride
    except Exception:  # what cannot be made so is told when the network is
        return
    for name, size in sizes.items():
        fitting = [-(-side // stride) * stride for side in size]
        if fitting != list(size):
            raise InputError(
                f"{name} is {list(size)}: expected multiples of {stride}, the network's stride, "
                f"such as {fitting}"
            )


def _check_classes(parser: ConfigParser) -> None:
    """Check that the knobs that are per class fit the classes that there are."""
    if not has_id(parser, "num_classes"):
        return
    foreground = parser.get_parsed_content("num_classes") - 1
    if has_id(parser, "smallest_object"):
        smallest = parser.get_parsed_content("smallest_object")
        if isinstance(smallest, (list, tuple)) and len(smallest) != foreground:
            raise InputError(
                f"smallest_object is {smallest!r}: expected one number, or a list of {foreground}, "
                "one for each class but the background"
            )
    if has_id(parser, "largest_only"):
        classes = parser.get_parsed_content("largest_only")
        if any(index > foreground for index in classes):
            there = f"classes from 1 to {foreground}" if foreground > 1 else "class 1 alone"
            raise InputError(f"largest_only is {classes!r}: expected {there}")
    for name, keeps_all in (("smallest_object", 1), ("largest_only", [])):
        if not has_id(parser, name) or name in references(parser.config):
            continue  # a transform takes it
        value = parser.get_parsed_content(name)
        if set(ensure_tuple(value)) - set(ensure_tuple(keeps_all)):
            raise InputError(
                f"{name} is {value!r}, but this config (strips, sequences) leaves no pieces out: "
                f"expected {keeps_all}"
            )


def _check_views(parser: ConfigParser) -> None:
    """Check that there are the mirror images that samples are to see."""
    if not has_id(parser, MIRROR_AXES):
        return
    axes = parser.get_parsed_content(MIRROR_AXES)
    spatial_dims = next(_values(parser.get("network_def"), "spatial_dims"), None)
    if isinstance(spatial_dims, int) and any(axis >= spatial_dims for axis in axes):
        raise InputError(
            f"{MIRROR_AXES} is {axes!r}: expected axes from 0 to {spatial_dims - 1}, which the "
            "network's images have"
        )
    if not axes and _is_on(parser, MIRRORED):
        raise InputError(
            f"{MIRRORED} is true and {MIRROR_AXES} is []: this bundle's training knows no mirror "
            f"images; set {MIRRORED} to false"
        )


def view_knobs(parser: ConfigParser, networks: int = 1) -> dict[str, Any]:
    """Knobs that let the samples see an image in all views that the training knows.

    Args:
        parser: a config whose samples are drawn.
        networks: of an ensemble, each of which gets a sample of each view.

    Raises:
        InputError: where images are known as they are alone.
    """
    for switch in (TURNED, MIRRORED):
        if has_id(parser, switch) and _views_by(parser, switch) > 1:
            return {switch: True, "num_samples": networks * _views_by(parser, switch)}
    raise InputError(
        "there are no views of these images: expected a bundle whose training turns or mirrors "
        f"them, with a knob {TURNED}, or {MIRRORED} and {MIRROR_AXES}; leave --views out"
    )


def _views_by(parser: ConfigParser, switch: str) -> int:
    """How many views of an image a switch turns on."""
    if switch == TURNED:
        return ORIENTATIONS
    if not has_id(parser, MIRROR_AXES):
        return 1
    return 2 ** len(ensure_tuple(parser.get_parsed_content(MIRROR_AXES)))


def _is_on(parser: ConfigParser, switch: str) -> bool:
    return has_id(parser, switch) and bool(parser.get_parsed_content(switch))


def _check_samples(parser: ConfigParser) -> None:
    """Check that each network of an ensemble gets a sample, of each view where there are views."""
    further = parser.get_parsed_content("ensemble") if has_id(parser, "ensemble") else ()
    networks = 1 + len(ensure_tuple(further or ()))
    views = 1
    for switch in (TURNED, MIRRORED):
        if _is_on(parser, switch):
            views = _views_by(parser, switch)
    if networks * views == 1 or not has_id(parser, "num_samples"):
        return
    samples = parser.get_parsed_content("num_samples")
    if samples < networks * views:
        counted = [f"an ensemble of {networks} networks"] if networks > 1 else []
        counted += [f"{views} views"] if views > 1 else []
        raise InputError(
            f"num_samples is {samples} with {' and '.join(counted)}: expected {networks * views} "
            "or more, so that each has its say"
        )


def _values(content: Any, key: str) -> Iterator[Any]:
    """Every value that a config has under a key, the outermost first."""
    if isinstance(content, dict):
        if key in content:
            yield content[key]
        for value in content.values():
            yield from _values(value, key)


def check_device(device: str | torch.device) -> None:
    """Check that a device is there.

    Raises:
        InputError: if it is not.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:  # each by some device
        count = torch.cuda.device_count()
        there = ["cpu", *(f"cuda:{index}" for index in range(count))]
        raise InputError(
            f"device is {str(device)!r}, which is not there ({str(error).splitlines()[0]}): "
            f"expected one of {', '.join(there)}"
        ) from error


def check_output_dir(path: str, name: str = "output_dir") -> None:
    """Check that a folder can be written to, or made; nothing is.

    Args:
        path: of the folder.
        name: of the knob that names it.

    Raises:
        InputError: if it is "", begins with ~, has a name that is too long, or is inside of the
            installed package.
        NotAFolderError: if it, or a folder that it is in, is a file.
        ReadOnlyError: if it is read-only.
    """
    if not path:
        raise InputError(f"{name} is '': expected a folder; '.' is the current one")
    check_home(path, name)
    require_own_place(path)
    there = Path(path).absolute()
    for part in there.parts:
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise InputError(
                f"{name} is {path!r}, with a name of {len(os.fsencode(part))} bytes: expected "
                f"at most {LONGEST_NAME}"
            )
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotAFolderError(
            f"{name} is {path!r}, but {there} is a file: expected a folder, or none yet"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ReadOnlyError(
            f"{name} is {path!r}, but {there} is read-only: expected one that can be written to"
        )


def check_home(path: str | os.PathLike[str], name: str = "output_dir") -> None:
    """Check that a folder to write to does not begin with ~, of which Python makes a folder.

    Raises:
        InputError: if it does.
    """
    if os.fspath(path).startswith("~"):
        raise InputError(
            f"{name} is {os.fspath(path)!r}, whose ~ no shell has replaced: expected a whole "
            "path; write it without quotes, or from / on"
        )


def check_apart(output_dir: str, dataset_dir: str) -> None:
    """Check that what a run writes is not taken for images or labels by the next one.

    Raises:
        InputError: if `output_dir` is a folder whose every file is taken, or would be once it is
            there.
    """
    dataset_dir = os.fspath(folder_of_slice(dataset_dir))
    taken = [Path(dataset_dir, part) for part in PARTS]
    if not Path(dataset_dir, "dataset.json").is_file():
        taken.append(image_folder(dataset_dir))
    if Path(output_dir).resolve() in [folder.resolve() for folder in taken]:
        raise InputError(
            f"output_dir is {output_dir!r}, the folder of the images or of the labels: expected "
            "another one, or the next run would take for data what this one writes"
        )
