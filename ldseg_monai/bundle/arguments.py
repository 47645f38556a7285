"""Whether a config has null, or a value of another kind, where what it makes needs something.

MONAI hands any value on, and the traceback is of whatever comes to it first.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent

from ldseg_monai.bundle.components import find_target, has_id, references, strings
from ldseg_monai.runtime.errors import InputError

NULLS = (None, "$None")  # the second: of the command line, where MONAI leaves out a None
NULLABLE = re.compile(r"\b(None|Optional|Any)\b")  # an annotation by which a value may be None
NUMBER = re.compile(r"\b(int|float)\b")
TEXT = re.compile(r"\b(str|Any|\w*PathLike)\b")
ONE_NUMBER = ("int", "float", "<class 'int'>", "<class 'float'>")  # whole annotations
REFERS = ("@", "$", "%")  # what a text begins with that stands for another value
PART = "network_def"  # which clients and checks read themselves


def check_arguments(config: ConfigParser, base: Mapping[str, Any]) -> None:
    """Check that components and expressions get what they need, as far as a config tells.

    - An argument that is annotated without None needs something. So does an expression of what the
      first config has as a component, a list or entries, or that takes an attribute of it, unless
      it asks about None.
    - An argument that is annotated as a number is no text, and one number is no list. Knobs that it
      refers to have rules of their own: see `check_values`.
    - What the first config has as a component is one, or nothing, or refers to another value.
      As an entry of a list it is never null, which MONAI would hand on.

    Args:
        config: the config with its overlays and overrides.
        base: the first config, before any of them.

    Raises:
        InputError: for an id that is null and is needed, with what needs it, or that has a value of
            another kind.
    """
    if has_id(config, PART) and config[PART] in NULLS:
        raise _needed(PART, "the network")
    for name in _component_ids(base):
        if not has_id(config, name):
            continue
        value = config[name]
        if value in NULLS and name.rpartition("#")[2].isdecimal():
            raise InputError(
                f"{name} is null: expected a component, as each of its list; to leave it out, set "
                f"{name}#_disabled_ to true"
            )
        if value not in NULLS and not isinstance(value, dict) and not _refers(value):
            target = ConfigParser(dict(base))[name]["_target_"]
            raise InputError(
                f"{name} is {value!r}: expected a component, such as {{_target_: {target}, ...}}"
            )
    for component in _components(config.config):
        for argument, given in component.items():
            name, value = _followed(config, argument, given)
            _check_argument(component, argument, name, value)
    before = ConfigParser(dict(base))
    for text in strings(config.config):
        asks = not text.startswith("$") or "None" in text  # such as `@discriminator is None`
        for name in () if asks else sorted(references(text)):
            had = before[name] if has_id(before, name) else None
            is_null = has_id(config, name) and config[name] in NULLS
            is_needed = isinstance(had, (dict, list)) or f"@{name}." in text.replace("::", "#")
            if is_null and is_needed:
                raise _needed(name, repr(text))


def _check_argument(component: Mapping[str, Any], argument: str, name: str, value: Any) -> None:
    """Check a value of a component's argument, which the config has by a name."""
    is_null = value in NULLS
    if not is_null and (_refers(value) or not isinstance(value, (str, list, dict))):
        return
    if isinstance(value, dict) and "_target_" in value:
        return
    parameter = _parameter(component, argument)
    if parameter is None or parameter.annotation is parameter.empty:
        return
    annotation = str(parameter.annotation)
    target = component["_target_"]
    if is_null:
        if parameter.default is not None and not NULLABLE.search(annotation):
            raise _needed(name, f"{target} for {argument}")
        return
    is_number = NUMBER.search(annotation) and not TEXT.search(annotation)
    if name == argument and (annotation in ONE_NUMBER or (is_number and isinstance(value, str))):
        raise InputError(f"{argument} of {target} is {value!r}: expected a number")


def _needed(name: str, by: str) -> InputError:
    return InputError(
        f"{name} is null, which {by} needs: expected a component or a value; leave {name} out to "
        "keep the bundle's own"
    )


def _refers(value: Any) -> bool:
    """Whether a value stands for another one."""
    return isinstance(value, str) and value.startswith(REFERS)


def _component_ids(content: Any, place: str = "") -> Iterator[str]:
    """The ids of a config's components, an outer one before those in it."""
    if isinstance(content, dict):
        if place and isinstance(content.get("_target_"), str):
            yield place
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(content, (dict, list)):
        entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        yield from _component_ids(value, f"{place}#{key}" if place else str(key))


def _components(content: Any) -> Iterator[Mapping[str, Any]]:
    """Every component of a config that has a name for its ``_target_``, and is not disabled."""
    if isinstance(content, dict):
        if isinstance(content.get("_target_"), str) and not content.get("_disabled_"):
            yield content
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _components(value)


def _followed(config: ConfigParser, name: str, value: Any) -> tuple[str, Any]:
    """What a value refers to, and so on: the last id, and its value."""
    followed: set[str] = set()
    while isinstance(value, str) and value.startswith("@"):
        following = value[1:].replace("::", "#")
        if not has_id(config, following) or following in followed:
            break
        followed.add(following)
        name, value = following, config[following]
    return name, value


def _parameter(component: Mapping[str, Any], argument: str) -> inspect.Parameter | None:
    """A component's argument in its signature; None where there is none to be seen."""
    if argument in ConfigComponent.non_arg_keys:
        return None
    found = find_target(component["_target_"])
    if not callable(found):
        return None
    try:
        return inspect.signature(found).parameters.get(argument)
    except ValueError:  # of some functions that are not written in Python
        return None
