"""Which folder a bundle is in."""

from __future__ import annotations

from pathlib import Path


def find_bundle(bundle: str | Path) -> Path:
    """The absolute folder of a bundle, given as a folder or as a name in ``bundles`` below the current directory.

    Raises:
        FileNotFoundError: if there is none.
    """
    for folder in (Path(bundle), Path("bundles", bundle)):
        if (folder / "configs" / "metadata.json").is_file():
            return folder.absolute()
    there = sorted(path.parents[1].name for path in Path("bundles").glob("*/configs/metadata.json"))
    raise FileNotFoundError(
        f"{bundle} is not a bundle: expected a folder with configs/metadata.json, or the name of one in ./bundles "
        f"({', '.join(there) or 'which has none: run this in the repository root'})"
    )
