"""Whether the knobs of a config exist and have values that a run can use; MONAI takes any name in silence."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS
from monai.utils import ensure_tuple

from ldseg_monai.data.datalist import image_folder
from ldseg_monai.networks.cdal.network import CDAL

SECTIONS = {
    "imports",
    "initialize",
    "run",
    "finalize",
    "training",
    "_meta_",
}  # that MONAI looks for by name


class Rule(NamedTuple):
    """Which values a knob may have."""

    fits: Callable[[Any], bool]
    expected: str


def _whole(least: int) -> Rule:
    return Rule(
        lambda value: type(value) is int and value >= least, f"a whole number, {least} or more"
    )


RATE = Rule(
    lambda value: type(value) in (int, float) and 0 <= value < float("inf"), "a number, 0 or more"
)
SHARE = Rule(lambda value: type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1")
PART = Rule(
    lambda value: type(value) in (int, float) and 0 < value < 1,
    "a number between 0 and 1, such as 0.25",
)
SWITCH = Rule(
    lambda value: isinstance(value, bool), "true or false (on the command line True or False)"
)
SIZE = Rule(
    lambda value: (
        isinstance(value, (list, tuple)) and all(type(side) is int and side > 0 for side in value)
    ),
    "a list of whole numbers, 1 or more, one for each axis",
)
RULES = {
    **dict.fromkeys(
        ("num_samples", "num_inference_steps", "batch_size", "window_batch_size", "world_size"),
        _whole(1),
    ),
    **dict.fromkeys(("max_epochs", "cases_per_epoch", "val_interval", "num_phantoms"), _whole(1)),
    **dict.fromkeys(("num_workers", "seed", "rank"), _whole(0)),
    "num_classes": _whole(2),
    **dict.fromkeys(("learning_rate", "discriminator_learning_rate", "final_learning_rate"), RATE),
    "val_fraction": PART,
    **dict.fromkeys(("flip_probability", "rollout_share"), SHARE),
    "overlap": Rule(
        lambda value: all(
            type(part) in (int, float) and 0 <= part < 1 for part in ensure_tuple(value)
        ),
        "a number from 0 to below 1, or one for each axis",
    ),
    "voxel_size": Rule(
        lambda value: all(
            type(step) in (int, float) and 0 < step < float("inf") for step in ensure_tuple(value)
        ),
        "positive numbers, in mm",
    ),
    **dict.fromkeys(("amp", "save_overlay", "resume", "normalize_attention", "turned"), SWITCH),
    **dict.fromkeys(("spatial_size", "crop_size", "window_size"), SIZE),
}


def check_names(
    config_files: Sequence[str], overrides: Mapping[str, Any], tracking: Any = None
) -> None:
    """Check that every override, and every key of a file that goes on top of another, changes something.

    Args:
        config_files: config files, each over the ones before.
        overrides: config values by id, as the command line gives them.
        tracking: name or file of settings for experiment tracking, which has overrides of its own.

    Raises:
        ValueError: for an id that the config does not have and nothing refers to, with the nearest
            one that it has.
    """
    layers = [ConfigParser.load_config_file(path) for path in config_files]
    used = references([layers, dict(overrides)])
    for index, path in enumerate(config_files[1:], 1):
        base = ConfigParser(ConfigParser.load_config_files(list(config_files[:index])))
        for name in unknown_ids(base, layers[index], used):
            raise ValueError(f"{path} has the key {name}: {_advice(name, base)}")
    config = ConfigParser(ConfigParser.load_config_files(list(config_files)))
    allowed = used | _tracking_ids(tracking)
    arguments = [
        name for name in inspect.signature(ConfigWorkflow).parameters if name != "override"
    ]
    for name in unknown_ids(
        config, {k: v for k, v in overrides.items() if k not in arguments}, allowed
    ):
        raise ValueError(f"unknown knob --{name}: {_advice(name, config, arguments)}")


def check_values(parser: ConfigParser) -> None:
    """Check the values of those knobs that every bundle has and that no component of a config checks at its start.

    Args:
        parser: the config with its overrides.

    Raises:
        ValueError: for a value that no run could use, or a device that is not there.
    """
    fixed_split = any(parser.get(name) is not None for name in ("val_cases", "fold"))
    axes = parser.get("network_def", {}).get("spatial_dims")
    for name, rule in RULES.items():
        if name in parser and not (rule is PART and fixed_split):
            value = parser.get_parsed_content(name)
            if not rule.fits(value) or (rule is SIZE and axes in (2, 3) and len(value) != axes):
                raise ValueError(f"{name} is {value!r}: expected {rule.expected}")
    if "network_def" in parser and "num_inference_steps" in parser:
        _check_steps(parser["network_def"], parser.get_parsed_content("num_inference_steps"))
    if "device" in parser:
        check_device(parser.get_parsed_content("device"))


def check_device(device: str | torch.device) -> None:
    """Check that a device is there.

    Raises:
        ValueError: if it is not.
    """
    try:
        torch.empty(1, device=device)
    except (
        RuntimeError,
        AssertionError,
        TypeError,
        ImportError,
    ) as error:  # torch raises each, by device
        count = torch.cuda.device_count()
        there = ["cpu", *(f"cuda:{index}" for index in range(count))]
        raise ValueError(
            f"device is {str(device)!r}, which is not there ({str(error).splitlines()[0]}): expected one of "
            f"{', '.join(there)}"
        ) from error


def check_output_dir(path: str) -> None:
    """Check that a folder can be written to, or made; nothing is.

    Raises:
        NotADirectoryError: if it, or a folder that it is in, is a file.
        PermissionError: if it is read-only.
    """
    there = Path(path).absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(
            f"output_dir is {path!r}, but {there} is a file: expected a folder, or none yet"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f"output_dir is {path!r}, but {there} is read-only: expected one that can be written to"
        )


def check_apart(output_dir: str, dataset_dir: str) -> None:
    """Check that what a run writes is not taken for images by the next one.

    Raises:
        ValueError: if `output_dir` is the folder whose every image is taken, or would be once it is
            there.
    """
    taken = [Path(dataset_dir, "images")]
    if not Path(dataset_dir, "dataset.json").is_file():
        taken.append(image_folder(dataset_dir))
    if Path(output_dir).resolve() in [folder.resolve() for folder in taken]:
        raise ValueError(
            f"output_dir is {output_dir!r}, the folder of the images: expected another one, or the next run would "
            "segment what this one writes"
        )


def unknown_ids(
    base: ConfigParser, changes: Mapping[str, Any], used: Iterable[str] = ()
) -> list[str]:
    """Ids among some changes of a config that change nothing of it.

    Args:
        base: the config.
        changes: values by id; an id may begin with `+`, which merges.
        used: ids that something refers to.
    """
    known = SECTIONS.union(
        *({"#".join(parts[:end]) for end in range(1, len(parts) + 1)} for parts in _split(used))
    )
    return [
        name
        for name in _ids(base, changes)
        if name not in base
        and not name.startswith("knob_kinds#")  # an overlay's own knobs have kinds too
        and not _is_argument(base, name, known)
    ]


def references(content: Any) -> set[str]:
    """Every id that a config refers to, with `#` between its levels."""
    found: set[str] = set()
    for text in _strings(content):
        if text.startswith(("@", "$")):
            found |= {
                name.replace("::", "#") for name in ReferenceResolver.match_refs_pattern(text)
            }
        elif text.startswith("%"):
            found.add(text[1:].replace("::", "#"))
    return found


def _split(names: Iterable[str]) -> list[list[str]]:
    return [name.split("#") for name in names]


def _ids(base: ConfigParser, changes: Mapping[str, Any], parent: str = "") -> Iterator[str]:
    """The ids that changes set; of a dictionary that is merged into another, the ids of its entries."""
    for key, value in changes.items():
        name = parent + key.removeprefix("+").replace("::", "#")
        if key.startswith("+") and isinstance(value, dict) and name in base:
            yield from _ids(base, value, f"{name}#")
        else:
            yield name


def _is_argument(base: ConfigParser, name: str, known: set[str]) -> bool:
    """Whether an id that a config lacks is known, or an argument that a component's config leaves out."""
    parent, _, argument = name.rpartition("#")
    if not parent:
        return name in known
    return name in known or (
        parent in base and (_is_plain(parent, base[parent]) or _takes(base[parent], argument))
    )


def _is_plain(name: str, content: Any) -> bool:
    """Whether content goes whole to a component, entries of any name included: a dictionary in a part of a section."""
    return "#" in name and isinstance(content, dict) and "_target_" not in content


def _takes(component: Any, argument: str) -> bool:
    parameters = _parameters(component)
    return "**" in parameters or argument in parameters or argument in ConfigComponent.non_arg_keys


def _parameters(component: Any) -> dict[str, Any]:
    """Names and defaults of the arguments of what a component's config makes, ``**`` among them if it takes any name.

    Those that a class hands on to the one that it is derived from are included; there are none for
    other content.
    """
    target = component.get("_target_") if isinstance(component, dict) else None
    found = locate(target) or _monai_component(target) if isinstance(target, str) else None
    if not callable(found):
        return {}
    kinds = inspect.getmro(found)[:-1] if inspect.isclass(found) else []
    makers = [vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)] or [found]
    names: dict[str, Any] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        names = {parameter.name: parameter.default for parameter in parameters} | names
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            return names
    return names | {"**": None}


def _monai_component(name: str) -> Any:
    """What MONAI finds by a name without a module."""
    module = ComponentLocator().get_component_module_name(name)
    return locate(f"{module}.{name}") if isinstance(module, str) else None


def _check_steps(network: Any, steps: int) -> None:
    """Check the number K of reverse steps against the T of the network's config, where the network has such."""
    parameters = _parameters(network)
    if "num_train_timesteps" not in parameters:
        return
    timesteps = network.get("num_train_timesteps", parameters["num_train_timesteps"])
    least = timesteps if locate(network["_target_"]) is CDAL else 1
    if isinstance(timesteps, int) and not least <= steps <= timesteps:
        trained = f"{timesteps}, the steps in training; set num_train_timesteps and train again"
        wanted = trained if least == timesteps else f"1 to {timesteps}"
        raise ValueError(f"num_inference_steps is {steps}: expected {wanted}")


def _tracking_ids(tracking: Any) -> set[str]:
    """Ids that settings of experiment tracking bring with them."""
    if tracking is None:
        return set()
    known: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS
    settings = known.get(tracking) if isinstance(tracking, str) else tracking
    if not isinstance(settings, dict):
        settings = ConfigParser.load_config_files(ensure_tuple(tracking))
    return set(settings.get("configs", {}))


def _advice(name: str, base: ConfigParser, arguments: Sequence[str] = ()) -> str:
    """What is wanted instead of an id that nothing has."""
    parent, _, last = name.rpartition("#")
    section = base.get(parent, {}) if parent else base.get()
    names = [*section, *_parameters(section)] if isinstance(section, dict) else []
    close = get_close_matches(last, [*names, *([] if parent else arguments)], n=1, cutoff=0.5)
    place = f"in {parent}" if parent else "in the config"
    hint = f"; did you mean {parent + '#' if parent else ''}{close[0]}?" if close else ""
    return f"there is none of that name {place}, and nothing refers to it{hint}"


def _strings(content: Any) -> Iterator[str]:
    """Every string value of a config."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _strings(value)
