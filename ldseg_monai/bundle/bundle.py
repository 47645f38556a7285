"""A bundle: a folder of configs, weights and a card."""

from __future__ import annotations

from pathlib import Path

from ldseg_monai.data.datalist import PathLike, case_name, resolve_datalist
from ldseg_monai.data.split import read_val_cases


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


def shipped_val_cases(bundle: PathLike, dataset_dir: PathLike) -> list[str] | None:
    """The cases that the training of a bundle's own weights left out.

    Args:
        bundle: folder of the bundle; its ``docs/val_cases.txt`` names them.
        dataset_dir: data set.

    Returns:
        Their names; None where the bundle names none, or the data set is not the one that has them.
    """
    path = Path(bundle, "docs", "val_cases.txt")
    if not path.is_file():
        return None
    names = read_val_cases(path)
    there = {
        case_name(item["image"])
        for item in resolve_datalist(dataset_dir, phantom="", phantom_dir="")
    }
    return names if there.issuperset(names) else None
