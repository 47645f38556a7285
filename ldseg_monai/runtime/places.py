"""Where bundles are: in ``./bundles``, and installed with the package.

This imports neither PyTorch nor MONAI, so that `ldseg path` takes no time.
"""

from __future__ import annotations

import os
from pathlib import Path

from ldseg_monai.runtime.errors import InputError, MissingFileError
from ldseg_monai.runtime.nearest import did_you_mean

PACKAGE = Path(__file__).parents[1]
OF_WHEEL = PACKAGE / "bundles"  # which setup.py puts into a wheel
METADATA = Path("configs", "metadata.json")
PathLike = str | os.PathLike[str]


def installed_bundles() -> Path:
    """The folder of the installed bundles: a wheel's own, or in a checkout the repository's."""
    return OF_WHEEL if OF_WHEEL.is_dir() else PACKAGE.parent / "bundles"


def bundle_folders() -> dict[str, Path]:
    """The bundles' folders by their names: those in ``./bundles``, then those installed."""
    return _own() | _installed()


def find_bundle(bundle: PathLike) -> Path:
    """The folder of a bundle.

    Args:
        bundle: the folder itself, or a name: of one in ``./bundles``, else of an installed one.

    Raises:
        FileNotFoundError: if there is none, or the folder of that name in ``./bundles`` is none.
    """
    own, installed = _own(), _installed()
    for folder in (Path(bundle), Path("bundles", bundle)):
        if (folder / METADATA).is_file():
            return folder.absolute()
    name = os.fspath(bundle)
    if name in installed:
        return installed[name]
    raise MissingFileError(
        f"{name} is not a bundle: expected a folder with {METADATA.as_posix()}, or the name of one "
        f"in ./bundles ({', '.join(own) or 'which has none'}) or of an installed one "
        f"({', '.join(installed) or 'there is no other'})"
        f"{did_you_mean(Path(name).name, own | installed)}"
    )


def require_own_place(output_dir: PathLike) -> None:
    """Check that results would not go into the installed package, which an update replaces.

    Raises:
        InputError: if they would.
    """
    place = Path(output_dir).resolve()
    if OF_WHEEL.resolve() in [place, *place.parents]:
        raise InputError(
            f"output_dir is {os.fspath(output_dir)!r}, inside of the installed package: expected a "
            "folder of your own; give --output_dir"
        )


def _own() -> dict[str, Path]:
    return _folders_in(Path("bundles").absolute())


def _installed() -> dict[str, Path]:
    """The installed bundles but those whose name a folder in ``./bundles`` has, even if not whole.

    The installed one would not be the one that was meant.
    """
    folders = _folders_in(installed_bundles().absolute())
    return {name: path for name, path in folders.items() if not Path("bundles", name).exists()}


def _folders_in(place: Path) -> dict[str, Path]:
    """The bundles in a folder, sorted by their names."""
    found = sorted(path.parents[1] for path in place.glob(f"*/{METADATA.as_posix()}"))
    return {folder.name: folder for folder in found}
