"""Whether the names in overlays and on the command line are ids of a config.

MONAI takes any in silence.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ConfigComponent

from ldseg_monai.bundle.arguments import check_arguments
from ldseg_monai.bundle.components import has_id, parameters, references
from ldseg_monai.bundle.tracking import tracking_ids
from ldseg_monai.runtime.errors import InputError, one_line
from ldseg_monai.runtime.nearest import did_you_mean

META = "_meta_"  # where MONAI puts the content of metadata.json
SECTIONS = {"imports", "initialize", "run", "finalize", "training", META}  # MONAI looks for them
KINDS = "knob_kinds"
OF_WHOLE = {"bundle_root", "initialize", "network_def"}  # ids that no overlay has all of
ENDINGS = (".yaml", ".yml", ".json")  # of configs


def check_names(
    config_files: Sequence[str], overrides: Mapping[str, Any], tracking: Any = None
) -> None:
    """Check that every name changes something, and that what is referred to is there.

    Args:
        config_files: config files, each over the ones before.
        overrides: config values by id, as the command line gives them.
        tracking: name or file of settings for experiment tracking, which has overrides of its own.

    Raises:
        InputError: for an id of an overlay or an override that the config does not have and nothing
            refers to, with the nearest one that it has; for an id that is referred to and that the
            config does not have; as of `check_arguments`, for a value that is needed or of another
            kind.
    """
    layers = [ConfigParser.load_config_file(path) for path in config_files]
    used = references([layers, dict(overrides)])
    for index, path in enumerate(config_files[1:], 1):
        base = ConfigParser(ConfigParser.load_config_files(list(config_files[:index])))
        for name in unknown_ids(base, layers[index], used):
            raise InputError(f"{path} has the key {name}: {_advice(name, base)}; {_goes(path)}")
    config = ConfigParser(ConfigParser.load_config_files(list(config_files)))
    tracked = tracking_ids(tracking)
    arguments = [
        name for name in inspect.signature(ConfigWorkflow).parameters if name != "override"
    ]
    given = {name: value for name, value in overrides.items() if name not in arguments}
    for name in unknown_ids(config, given, used | tracked):
        raise InputError(f"unknown knob --{name}: {_advice(name, config, arguments)}")
    config.update(given)
    for name in sorted(references(config.config)):
        if has_id(config, name) or name.startswith("#") or name.split("#")[0] in {META, *tracked}:
            continue
        hint = _hint(name, config)
        for path, layer in reversed(list(zip(config_files, layers, strict=True))):
            if name in references(layer):
                raise InputError(
                    f"{path} refers to @{name}, which the config does not have{hint}; {_goes(path)}"
                )
        raise InputError(f"an override refers to @{name}, which the config does not have{hint}")
    check_arguments(config, layers[0])


def check_layers(files: Sequence[str]) -> None:
    """Check that files are a config and what goes over it.

    Raises:
        InputError: for a file that is no YAML or JSON of ids, or a whole config as an overlay.
    """
    for path in files:
        if not path.lower().endswith(ENDINGS):
            raise InputError(f"{path} is no config: expected a file ending in {', '.join(ENDINGS)}")
        try:
            content = ConfigParser.load_config_file(path)
        except Exception as error:  # YAML, JSON and text raise several kinds
            raise InputError(
                f"{path} cannot be read ({one_line(error)}): expected YAML or JSON; correct it"
            ) from error
        if not isinstance(content, dict):
            held = repr(content)[:40] if content else "nothing"
            raise InputError(f"{path} holds {held}: expected ids with values, such as 'seed: 1'")
        if content.keys() >= OF_WHOLE and path != files[0]:
            raise InputError(
                f"{path} is a whole config, no overlay of {files[0]}: expected one that changes "
                "a part of it; leave it out"
            )


def check_levels(config: ConfigParser, overrides: Mapping[str, Any]) -> None:
    """Check that MONAI can set each override: a new entry of what is there, or a value of it.

    Raises:
        InputError: for the first level of an id that the config does not have, with the nearest one
            that it has.
    """
    for name in overrides:
        levels = name.removeprefix("+").replace("::", "#").split("#")
        for end in range(1, len(levels) + 1):
            place, item = ("#".join(levels[:depth]) for depth in (end - 1, end))
            may_be_new = end == len(levels) and isinstance(config[place], dict)
            if not may_be_new and not has_id(config, item):
                raise InputError(f"unknown knob --{name}: {_missing(item, config)}")


def unknown_ids(
    base: ConfigParser, changes: Mapping[str, Any], used: Iterable[str] = ()
) -> list[str]:
    """Ids among some changes of a config that change nothing of it.

    Args:
        base: the config.
        changes: values by id; an id may begin with `+`, which merges.
        used: ids that something refers to.
    """
    # An argument may be that of a component that the same changes put in place.
    base = ConfigParser(copy.deepcopy(base.get()))
    for name, value in changes.items():
        _put_component(base, name, value)
    known = {*SECTIONS, KINDS}
    for name in used:
        parts = name.split("#")
        known |= {"#".join(parts[:end]) for end in range(1, len(parts) + 1)}
    names = [name for name in _ids(base, changes) if not has_id(base, name)]
    # An overlay's own knobs have kinds too.
    names = [name for name in names if not name.startswith("knob_kinds#")]
    return [name for name in names if not _is_argument(base, name, known)]


def _put_component(base: ConfigParser, name: str, value: Any) -> None:
    """Put a change into a config if it says which component an id of the config is."""
    merges, name = name.startswith("+"), name.removeprefix("+").replace("::", "#")
    is_component = isinstance(value, dict) and "_target_" in value
    if not has_id(base, name) or not (is_component or name.endswith("#_target_")):
        return
    if merges and is_component:
        value = {**base[name], "_target_": value["_target_"]}
    base[name] = copy.copy(value)


def _ids(base: ConfigParser, changes: Mapping[str, Any], parent: str = "") -> Iterator[str]:
    """The ids that changes set; of a dictionary that is merged, those of its entries."""
    for key, value in changes.items():
        name = parent + key.removeprefix("+").replace("::", "#")
        if key.startswith("+") and isinstance(value, dict) and has_id(base, name):
            yield from _ids(base, value, f"{name}#")
        else:
            yield name


def _is_argument(base: ConfigParser, name: str, known: set[str]) -> bool:
    """Whether an id that a config lacks is known, or an argument that a component leaves out."""
    parent, _, argument = name.rpartition("#")
    if name in known or parent == KINDS:  # an overlay's own knobs have kinds too
        return True
    if not parent or not has_id(base, parent):
        return False
    return _is_plain(parent, base[parent]) or _takes(base[parent], argument)


def _is_plain(name: str, content: Any) -> bool:
    """Whether content goes whole to a component, entries of any name included.

    So does a dictionary in a part of a section.
    """
    return "#" in name and isinstance(content, dict) and "_target_" not in content


def _takes(component: Any, argument: str) -> bool:
    names = parameters(component)
    return "**" in names or argument in names or argument in ConfigComponent.non_arg_keys


def _advice(name: str, base: ConfigParser, arguments: Sequence[str] = ()) -> str:
    """What is wanted instead of an id that nothing has."""
    parent = name.rpartition("#")[0]
    place = f"in {parent}" if parent else "in the config"
    hint = _hint(name, base, arguments)
    return f"there is none of that name {place}, and nothing refers to it{hint}"


def _missing(name: str, base: ConfigParser) -> str:
    """What is wanted instead of an item of which an override would set a part."""
    parent, _, last = name.rpartition("#")
    sections: dict[str, Any] = {} if parent else base.get()
    inner = [f"{key}#{last}" for key, content in sections.items() if _has(content, last)]
    hint = f"; did you mean {inner[0]}?" if inner else _hint(name, base)
    return f"there is no {last} in {parent or 'the config'}{hint}"


def _has(content: Any, name: str) -> bool:
    return isinstance(content, dict) and name in content


def _hint(name: str, base: ConfigParser, arguments: Sequence[str] = ()) -> str:
    """The nearest id that there is, if one is near."""
    parent, _, last = name.rpartition("#")
    section = base.get(parent, {}) if parent else base.get()
    names = [*section, *parameters(section)] if isinstance(section, dict) else []
    if not parent:
        names += arguments
    return did_you_mean(last, names, cutoff=0.5, before=f"{parent}#" if parent else "")


def _goes(path: str) -> str:
    return f"if {path} is an overlay, its first lines say of which config"
