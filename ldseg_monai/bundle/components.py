"""The text of a config: its ids, what refers to them, and what its components are made by."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.config_item import ComponentLocator

from ldseg_monai.bundle.reader import find_reader
from ldseg_monai.runtime.errors import InputError

# Modules whose names a config may use without the module
MONAI_MODULES = [
    f"monai.{name}"
    for name in ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks.nets")
] + ["monai.transforms"]
VERSIONED = {"monai", "torch", "ignite"}  # packages that are known by their versions


def references(content: Any) -> set[str]:
    """Every id that a config refers to, with `#` between its levels."""
    found: set[str] = set()
    for text in strings(content):
        if text.startswith(("@", "$")):
            names = ReferenceResolver.match_refs_pattern(text)
            found |= {name.replace("::", "#") for name in names}
        elif text.startswith("%"):
            found.add(text[1:].replace("::", "#"))
    return found


def strings(content: Any) -> Iterator[str]:
    """Every string value of a config."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from strings(value)


def targets(content: Any) -> Iterator[str]:
    """Every ``_target_`` of a config that is a name."""
    if isinstance(content, dict):
        target = content.get("_target_")
        if isinstance(target, str) and not target.startswith(("@", "$", "%")):
            yield target
    if isinstance(content, (dict, list)):
        for value in content.values() if isinstance(content, dict) else content:
            yield from targets(value)


def find_target(name: Any) -> Any:
    """What a ``_target_`` names, as MONAI finds it; None if there is nothing of that name."""
    if not isinstance(name, str):
        return None
    found = locate(name)
    if found is not None:
        return found
    module = _locator().get_component_module_name(name)
    return locate(f"{module}.{name}") if isinstance(module, str) else None


@cache
def _locator() -> ComponentLocator:
    """MONAI's table of its components, which it makes by looking through all of its modules."""
    return ComponentLocator()


def parameters(component: Any) -> dict[str, Any]:
    """Names and defaults of the arguments of what a component's config makes.

    ``**`` is among them if it takes any name. Those that a class hands on to the one that it is
    derived from are included; there are none for other content.
    """
    found = find_target(component.get("_target_")) if isinstance(component, dict) else None
    if not callable(found):
        return {}
    makers = [found]
    if inspect.isclass(found):
        kinds = [kind for kind in inspect.getmro(found)[:-1] if "__init__" in vars(kind)]
        makers = [vars(kind)["__init__"] for kind in kinds] or makers
    names: dict[str, Any] = {}
    for maker in makers:
        signature = inspect.signature(maker).parameters.values()
        names = {parameter.name: parameter.default for parameter in signature} | names
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature):
            return names
    return names | {"**": None}


def check_targets(content: Any, folders: Sequence[str | Path]) -> None:
    """Check that every component of a config can be imported.

    Args:
        content: the config.
        folders: where a module of one's own can lie.

    Raises:
        InputError: for one that cannot, with the nearest names that can.
    """
    for name in sorted(set(targets(content))):
        try:
            found = locate(name) or ("." not in name and _locator().get_component_module_name(name))
        except ErrorDuringImport as error:
            reason = " ".join(str(error.value).split()) or type(error.value).__name__
            raise InputError(
                f"the config has _target_ {name}, whose module {error.filename} cannot be imported "
                f"({reason}): correct it, or install what it needs"
            ) from error
        if not found:
            places = " or ".join(dict.fromkeys(str(folder) for folder in folders))
            close = nearest_targets(name)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InputError(
                f"the config has _target_ {name}, and there is nothing of that name: expected a "
                f"name of MONAI's, or MODULE.NAME of an installed package or of a file MODULE.py "
                f"in {places}{hint}"
            )


def nearest_targets(name: str) -> list[str]:
    """The names of components that are nearest to one that is none, at most three.

    They are those of MONAI's modules for a name without a dot; else those of the module that is
    named, or of the nearest one where there is none of that name.
    """
    if "." not in name:
        known = {entry for module in MONAI_MODULES for entry in dir(import_module(module))}
        return get_close_matches(name, sorted(known), n=3)
    parent, _, last = name.rpartition(".")
    modules = [parent]
    if _module(parent) is None:
        above, _, own = parent.rpartition(".")
        package = _module(above) if above else None
        below = [entry.name for entry in iter_modules(getattr(package, "__path__", []))]
        modules = [f"{above}.{entry}" for entry in get_close_matches(own, below, n=1)]
    found = []
    for module in modules:
        close = get_close_matches(last, dir(_module(module)), n=3)
        found += [f"{module}.{entry}" for entry in close]
    return found


def _module(name: str) -> Any:
    """A module, or a class in one; None where there is none, or it cannot be imported."""
    try:
        return locate(name)
    except ErrorDuringImport:
        return None


def config_text(of: Sequence[str], without: Sequence[str] = ()) -> dict[str, Any]:
    """Give the text of the config that is being read, as far as some items of it depend on it.

    A component of a config, for `ldseg_monai.inference.FinishedCases`. A value that the text
    computes counts as it is written there: one that depends on the machine, such as the device, is
    better given beside it.

    Args:
        of: ids of the items. What they refer to is included, and what that refers to.
        without: ids that are left out, and followed no further: they change nothing of the results.

    Returns:
        ``items``, the content by id, and ``code``, digests of the files that make the components
        (those of MONAI, PyTorch and Ignite excepted), by module.

    Raises:
        InputError: for an id that the config does not have.
    """
    parser, _ = find_reader()
    if parser is None:
        raise InputError("no config is being read: expected config_text as a component of one")
    items = dependencies(parser, of, without)
    names = set(targets(list(items.values())))
    return {"items": dict(sorted(items.items())), "code": _code(names)}


def has_id(parser: ConfigParser, name: str) -> bool:
    """Whether a config has an id, as ``name in parser`` says.

    MONAI's own answer first compares the spelling of every other id (1.6.1), 10 ms for one that is
    not there.
    """
    content: Any = parser.config
    for part in name.replace("::", "#").split("#"):
        if isinstance(content, list):
            if not part.isdecimal() or int(part) >= len(content):
                return False
            content = content[int(part)]
        elif isinstance(content, dict) and part in content:
            content = content[part]
        else:
            return False
    return True


def dependencies(
    parser: ConfigParser, of: Sequence[str], without: Sequence[str] = ()
) -> dict[str, Any]:
    """Give the content of some items of a config, and of what they refer to, by id.

    Args:
        parser: the config.
        of: ids of the items.
        without: ids that are left out, and followed no further.

    Raises:
        InputError: for an id that the config does not have.
    """
    without = [name.replace("::", "#") for name in without]  # MONAI writes every `#` as `::`
    items: dict[str, Any] = {}
    left = [name.replace("::", "#") for name in of]
    while left:
        name = left.pop()
        if name in items or _is_below(name, without):
            continue
        if not has_id(parser, name):
            raise InputError(f"the config has no {name}: expected it, since results depend on it")
        items[name] = _content(parser[name], name, without)
        left.extend(sorted(references(items[name])))
    return items


def _is_below(name: str, others: Sequence[str]) -> bool:
    """Whether an id is one of some others, or of an item in one."""
    return any(name == other or name.startswith(f"{other}#") for other in others)


def _content(content: Any, name: str, without: Sequence[str]) -> Any:
    """A config's content at an id, without what is left out."""
    if not isinstance(content, (dict, list)):
        return content
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    kept = {
        str(key): _content(value, f"{name}#{key}", without)
        for key, value in entries
        if f"{name}#{key}" not in without
    }
    return kept if isinstance(content, dict) else list(kept.values())


def _code(names: set[str]) -> dict[str, str]:
    """Digests of the packages, or of the files beside a module, that components are made by."""
    digests: dict[str, str] = {}
    for name in sorted(names):
        if "." not in name:  # MONAI's own
            continue
        found = find_target(name)
        package = getattr(found, "__module__", name).partition(".")[0]
        path = getattr(sys.modules.get(package), "__file__", None)
        if package in VERSIONED | digests.keys() or path is None:
            continue
        is_package = hasattr(sys.modules[package], "__path__")
        files = sorted(Path(path).parent.glob("**/*.py" if is_package else "*.py"))
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
        digests[package] = digest.hexdigest()
    return digests
