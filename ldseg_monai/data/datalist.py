"""Which image belongs to which label."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
from monai.data import load_decathlon_datalist

from ldseg_monai.data.dicom.series import dicom_files, series_datalist
from ldseg_monai.data.formats import PICTURE_ENDINGS, VOLUME_ENDINGS
from ldseg_monai.data.phantoms.files import (
    PhantomKind,
    phantom_files,
    phantoms_complete,
    write_phantoms,
)
from ldseg_monai.runtime.errors import InputError, MissingFileError

logger = logging.getLogger("ldseg_monai.data")
EXTENSIONS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)
LABEL_ENDINGS = ("_anno", "_label", "_gt")
PathLike = str | os.PathLike[str]


def case_name(path: PathLike) -> str:
    """Name of the case: the file's without folder and ending, `a/knee.1.nii.gz` -> `knee.1`."""
    name = os.path.basename(os.fspath(path))
    extension = next((end for end in EXTENSIONS if name.lower().endswith(end)), "")
    return name[: len(name) - len(extension)]


def paired_datalist(dataset_dir: PathLike, require_labels: bool = True) -> list[dict[str, str]]:
    """Pair the images of a folder with their labels, before anything is read.

    The folder holds `images/` and `labels/` paired by stem, where a label's stem may end in
    `_anno`, `_label` or `_gt`, or a Medical Segmentation Decathlon `dataset.json`. Hidden files are
    ignored.

    Args:
        dataset_dir: the folder.
        require_labels: whether every image needs a label. Without, the images alone are listed:
            those of `images/`, or of `dataset.json` (training and test), or else those in
            `dataset_dir` itself.

    Returns:
        `[{"image": path, "label": path}, ...]` sorted by case name; no "label" if labels are not
        required.

    Raises:
        FileNotFoundError: a folder or a listed file is missing, or there are no images.
        ValueError: an image or a label without its partner, two files for one case, or an
            unreadable `dataset.json`.
    """
    root = Path(dataset_dir)
    if not root.is_dir():
        raise MissingFileError(
            f"dataset_dir {root} does not exist: expected a folder; {_layouts()}"
        )
    has_images = (root / "images").is_dir()
    if not has_images and (root / "dataset.json").is_file():
        return _decathlon_datalist(root / "dataset.json", require_labels)
    if not require_labels:
        images = _files_by_case(image_folder(root))
        return [{"image": images[name]} for name in sorted(images)]
    for folder in ("images", "labels"):
        if not (root / folder).is_dir():
            raise MissingFileError(f"{root} has no folder {folder}/: {_layouts()}")
    return _pair(_files_by_case(root / "images"), _files_by_case(root / "labels"))


def image_folder(dataset_dir: PathLike) -> Path:
    """The folder of which inference takes every image, unless a `dataset.json` lists them."""
    images = Path(dataset_dir) / "images"
    return images if images.is_dir() else Path(dataset_dir)


def resolve_datalist(
    dataset_dir: PathLike | None,
    phantom: str,
    phantom_dir: PathLike,
    num_phantoms: int = 12,
    seed: int = 0,
    require_labels: bool = True,
    series_uid: str | None = None,
    label_values: Sequence[int | str] | None = None,
) -> list[dict[str, Any]]:
    """List the cases of `dataset_dir`, or of generated phantoms where no `dataset_dir` is given.

    Args:
        dataset_dir: as in `paired_datalist`; None or "" for phantoms.
        phantom: kind of phantom, "knee" or "gland".
        phantom_dir: folder that the phantoms are written to unless they are there already.
        num_phantoms: number of phantoms.
        seed: seed of the phantoms.
        require_labels: as in `paired_datalist`. Without, `dataset_dir` may also be the folder of a
            DICOM series, or one with such folders at any depth, and no images of other kinds.
        series_uid: Series Instance UID of the DICOM series that is wanted, "" for the one in each
            folder; None where DICOM is not read.
        label_values: of the phantoms, as in `write_phantoms`.

    Raises:
        FileNotFoundError: `dataset_dir` was given and does not exist; phantoms are no answer to a
            misspelt path.
        ValueError: DICOM that cannot be read (see `series_datalist`), or a `series_uid` for other
            data.
    """
    if dataset_dir:
        if not os.path.isdir(dataset_dir):
            raise MissingFileError(
                f"dataset_dir {os.fspath(dataset_dir)!r} does not exist: expected a folder; "
                "correct the path, leave "
                f"dataset_dir empty to use generated phantoms, or write them there with "
                f"`ldseg phantom {phantom} --out {os.fspath(dataset_dir)}`"
            )
        series = [] if require_labels else _dicom_datalist(Path(dataset_dir), series_uid)
        return series or paired_datalist(dataset_dir, require_labels)
    if series_uid:
        raise InputError(
            f"series_uid {series_uid} without dataset_dir: give the folder that has the series"
        )
    logger.warning(
        "no dataset_dir given: using %d generated %s phantoms in %s",
        num_phantoms,
        phantom,
        phantom_dir,
    )
    with idist.one_rank_first():
        if not phantoms_complete(phantom, phantom_dir, num_phantoms, seed, label_values):
            write_phantoms(
                cast(PhantomKind, phantom), phantom_dir, num_phantoms, seed, label_values
            )
    files = phantom_files(phantom, phantom_dir, num_phantoms)
    return files if require_labels else [{"image": item["image"]} for item in files]


def _dicom_datalist(root: Path, series_uid: str | None) -> list[dict[str, Any]]:
    """The DICOM series in a data set's folder and all below it; none if it has other images.

    Raises:
        ValueError: DICOM files where none are read or beside other images, a `series_uid` where
            there are none.
    """
    folder = image_folder(root)
    images = [path.name for path in folder.glob("[!.]*") if path.name.lower().endswith(EXTENSIONS)]
    only_here = images or (root / "dataset.json").is_file()
    folders = [
        below for below in ([folder] if only_here else _folders_in(folder)) if dicom_files(below)
    ]
    if series_uid and not folders:
        raise InputError(
            f"series_uid {series_uid} but no DICOM files in {root}: leave it out, or correct "
            "dataset_dir"
        )
    if folders and series_uid is None:
        raise InputError(
            f"{folders[0]} holds DICOM files, which this bundle does not read: expected files "
            "ending in "
            f"{', '.join(EXTENSIONS)}; convert them"
        )
    if folders and images:
        raise InputError(
            f"{folder} holds DICOM files and {_some(images)}: expected one kind; move the others "
            "away"
        )
    return series_datalist(folders, series_uid or "") if folders else []


def _folders_in(root: Path) -> list[Path]:
    """A folder and all below it."""
    return [Path(folder) for folder, _, _ in sorted(os.walk(root))]


def _files_by_case(folder: Path) -> dict[str, str]:
    """Map the case name of every visible image file in a folder to its path."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    paths = [str(folder / name) for name in names if name.lower().endswith(EXTENSIONS)]
    if not paths:
        endings = ", ".join(EXTENSIONS)
        raise MissingFileError(
            f"no images in {folder}: expected files ending in {endings}; {_layouts()}"
        )
    return _unique_by_case(paths)


def _unique_by_case(paths: Iterable[str]) -> dict[str, str]:
    by_case: dict[str, str] = {}
    for path in paths:
        other = by_case.setdefault(case_name(path), path)
        if other != path:
            raise InputError(
                f"two files for case {case_name(path)!r}, {other} and {path}: expected one; remove "
                "one"
            )
    return by_case


def _pair(images: dict[str, str], labels: dict[str, str]) -> list[dict[str, str]]:
    """Give every image its label."""
    label_of: dict[str, str] = {}
    for stem, path in labels.items():
        stripped = (stem.removesuffix(end) for end in LABEL_ENDINGS if stem.endswith(end))
        name = stem if stem in images else next(stripped, stem)
        other = label_of.setdefault(name, path)
        if other != path:
            raise InputError(
                f"two labels for image {name!r}, {other} and {path}: expected one; remove one"
            )
    for what, partner, lonely in (
        ("images", "label", [images[name] for name in images.keys() - label_of.keys()]),
        ("labels", "image", [label_of[name] for name in label_of.keys() - images.keys()]),
    ):
        if lonely:
            raise InputError(
                f"{len(lonely)} {what} without {partner}, {_some(lonely)}: expected equal stems (a "
                "label's may end in "
                f"{', '.join(LABEL_ENDINGS)}); add the missing files or remove these"
            )
    return [{"image": images[name], "label": label_of[name]} for name in sorted(images)]


def _decathlon_datalist(dataset_json: Path, require_labels: bool) -> list[dict[str, str]]:
    """Read a Decathlon `dataset.json`: its training pairs, or all of its images."""
    try:
        content = json.loads(dataset_json.read_text())
        keys = (
            ["training"]
            if require_labels
            else [key for key in ("training", "test") if content.get(key)]
        )
        listed = [
            item for key in keys for item in load_decathlon_datalist(str(dataset_json), True, key)
        ]
        parts = ("image", "label") if require_labels else ("image",)
        items = [{part: str(item[part]) for part in parts} for item in listed]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{dataset_json}: {type(error).__name__} {error}; expected a Decathlon file whose "
            "'training' lists "
            "{'image': path, 'label': path}"
        ) from error
    if not items:
        raise MissingFileError(f"{dataset_json} lists no images: expected some under 'training'")
    missing = [path for item in items for path in item.values() if not os.path.isfile(path)]
    if missing:
        raise MissingFileError(
            f"{len(missing)} files listed in {dataset_json} do not exist: {_some(missing)}"
        )
    _unique_by_case(item["image"] for item in items)
    return sorted(items, key=lambda item: case_name(item["image"]))


def _some(names: Iterable[str], limit: int = 5) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (", ..." if len(ordered) > limit else "")


def _layouts() -> str:
    return (
        "lay the data out as images/ and labels/ paired by file stem, or with a Decathlon "
        "dataset.json"
    )
