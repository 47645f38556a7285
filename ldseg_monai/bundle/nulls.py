"""Whether a config has null where what it makes needs something.

MONAI hands a null on, and the traceback is of whatever comes to it first.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent

from ldseg_monai.bundle.components import find_target, has_id, references, strings
from ldseg_monai.runtime.errors import InputError

NULLS = (None, "$None")  # the second: of the command line, where MONAI leaves out a None
NULLABLE = ("None", "Optional", "Any")  # in the annotation of an argument that may be None
PART = "network_def"  # which clients and checks read themselves


def check_nulls(config: ConfigParser, base: Mapping[str, Any]) -> None:
    """Check that nothing is null that a component or an expression needs.

    An argument that is annotated without None needs something. So does an expression of what the
    first config has as a component, a list or entries, unless it asks about None.

    Args:
        config: the config with its overlays and overrides.
        base: the first config, before any of them.

    Raises:
        InputError: for an id that is null and is needed, with what needs it.
    """
    if has_id(config, PART) and config[PART] in NULLS:
        raise _needed(PART, "the network")
    for component in _components(config.config):
        for argument, value in component.items():
            name = _null(config, argument, value)
            if name is not None and not _takes_null(component, argument):
                raise _needed(name, f"{component['_target_']} for {argument}")
    before = ConfigParser(dict(base))
    for text in strings(config.config):
        asks = not text.startswith("$") or "None" in text  # such as `@discriminator is None`
        for name in () if asks else sorted(references(text)):
            had = before[name] if has_id(before, name) else None
            is_null = has_id(config, name) and config[name] in NULLS
            if is_null and isinstance(had, (dict, list)):
                raise _needed(name, repr(text))


def _needed(name: str, by: str) -> InputError:
    return InputError(
        f"{name} is null, which {by} needs: expected a component or a value; leave {name} out to "
        "keep the bundle's own"
    )


def _components(content: Any) -> Iterator[Mapping[str, Any]]:
    """Every component of a config that has a name for its ``_target_``, and is not disabled."""
    if isinstance(content, dict):
        if isinstance(content.get("_target_"), str) and not content.get("_disabled_"):
            yield content
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _components(value)


def _null(config: ConfigParser, argument: str, value: Any) -> str | None:
    """What is null of an argument: itself, or the id that it refers to; None where nothing is."""
    name = argument
    while isinstance(value, str) and value.startswith("@"):
        name = value[1:].replace("::", "#")
        if not has_id(config, name):
            return None
        value = config[name]
    return name if value in NULLS else None


def _takes_null(component: Mapping[str, Any], argument: str) -> bool:
    """Whether an argument of a component may be None, as far as its signature says."""
    if argument in ConfigComponent.non_arg_keys:
        return True
    found = find_target(component["_target_"])
    if not callable(found):
        return True
    try:
        parameter = inspect.signature(found).parameters.get(argument)
    except ValueError:  # of some functions that are not written in Python
        return True
    if parameter is None or parameter.default is None or parameter.annotation is parameter.empty:
        return True
    return any(word in str(parameter.annotation) for word in NULLABLE)
