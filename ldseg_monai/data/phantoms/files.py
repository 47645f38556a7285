"""Seeded phantoms as data sets: the files that volumes and pictures are written to.

They stand in for a data set where none is given, so that every command works on a bare machine, and
they carry what breaks programs: oblique anisotropic affines with flips, touching structures,
background as bright as the target.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ldseg_monai.data.formats import label_picture, value_number
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.runtime.ownership import make_folder, require_own

logger = logging.getLogger("ldseg_monai.data")

PhantomKind = Literal["knee", "hippocampus", "tumor", "gland", "nuclei", "thorax", "echo", "beat"]
VOLUMES = ("knee", "hippocampus", "tumor", "beat")
CHANNELS = {"tumor": 2}  # that a volume has unless asked otherwise, of kinds that can have several

# Raise it when the same seed gives other voxels: phantoms already on disk are then rewritten.
GENERATOR_VERSION = 2
MANIFEST_NAME = "phantoms.json"
BEAT_FRAMES = 16  # of a sequence


def phantom_files(
    kind: str, out_dir: str | os.PathLike[str], num: int, channels: int = 1
) -> list[dict[str, Any]]:
    """Names of the files of each case, `{"image": ..., "label": ...}`, in order.

    The image of several channels is a list, `case_000_0000.nii.gz` and on.
    """
    if kind not in get_args(PhantomKind):
        raise InputError(f"phantom {kind!r}: expected one of {', '.join(get_args(PhantomKind))}")
    if channels < 1 or (channels > 1 and kind not in CHANNELS):
        raise InputError(
            f"phantom {kind} of {channels} channels: expected 1, or more of {', '.join(CHANNELS)}"
        )
    image_end, label_end = (".nii.gz", ".nii.gz") if kind in VOLUMES else (".png", "_anno.png")
    images, labels = Path(out_dir) / "images", Path(out_dir) / "labels"
    files: list[dict[str, Any]] = []
    for index in range(num):
        name = f"case_{index:03d}"
        image: Any = str(images / f"{name}{image_end}")
        if channels > 1:
            image = [str(images / f"{name}_{part:04d}{image_end}") for part in range(channels)]
        files.append({"image": image, "label": str(labels / f"{name}{label_end}")})
    return files


def phantoms_complete(
    kind: str,
    out_dir: str | os.PathLike[str],
    num: int,
    seed: int = 0,
    label_values: Sequence[int | str] | None = None,
    channels: int = 1,
) -> bool:
    """Whether `out_dir` holds, finished, the phantoms that `write_phantoms` would write."""
    try:
        manifest = json.loads((Path(out_dir) / MANIFEST_NAME).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    wanted = _manifest(kind, seed, label_values, channels) | {"complete": True}
    if any(manifest.get(key) != value for key, value in wanted.items()):
        return False
    return all(map(os.path.isfile, _paths(phantom_files(kind, out_dir, num, channels))))


def write_phantoms(
    kind: PhantomKind,
    out_dir: str | os.PathLike[str],
    num: int,
    seed: int = 0,
    label_values: Sequence[int | str] | None = None,
    channels: int = 1,
) -> None:
    """Write `num` phantoms as `images/case_000.nii.gz`, `labels/case_000.nii.gz`; pictures as PNG.

    Case i depends on `seed` and i alone. Files appear whole or not at all, and `phantoms.json`,
    which says what the folder holds, counts it as complete only after the last one; several
    processes may write the same phantoms at once.

    Args:
        kind: "knee", "hippocampus" or "tumor" (volumes); "beat" (sequences, NIfTI whose last axis
            is time); "gland" or "nuclei" (RGB images, label stems
            ending in `_anno`); "thorax" or "echo" (gray images, the same stems).
        out_dir: folder to write to; made where missing.
        num: number of cases.
        seed: first half of each case's seed; the case's index is the other.
        label_values: value of the background and of each class in the label files, a number or a
            color such as ``#800000``, where phantoms stand in for a data set with these values;
            labels beyond the last class are of the last class. None for the phantoms' own.
        channels: of a "tumor", each in a file of its own where there are several.

    Raises:
        ValueError: unknown kind, channels that it does not have, `num` < 1, `seed` < 0, or a folder
            that holds other data, which is never overwritten.
        FileExistsError: a folder that holds phantoms of another seed, or changed ones.
    """
    if num < 1:
        raise InputError(f"num {num}: expected at least 1 phantom")
    if seed < 0:
        raise InputError(f"seed {seed}: expected 0 or more")
    files = phantom_files(kind, out_dir, num, channels)
    _refuse_other_data(Path(out_dir), files)
    of = f"{kind} phantoms of seed {seed} with label values {label_values or 'of their own'}"
    if channels > 1:
        of += f" and {channels} channels"
    require_own(sorted(_paths(files)), of, out_dir)
    for folder in ("images", "labels"):
        make_folder(Path(out_dir) / folder)
    manifest = _manifest(kind, seed, label_values, channels) | {"num": num}
    _write_manifest(Path(out_dir), manifest | {"complete": False})
    for index, item in enumerate(tqdm(files, desc=f"{kind} phantoms")):
        if kind in VOLUMES:
            volume, mask, affine = _volume(kind, [seed, index], channels)
            mask = _with_values(mask, label_values)
            paths = [item["image"]] if channels == 1 else item["image"]
            for part, path in enumerate(paths):
                voxels = volume if channels == 1 else volume[..., part]
                _write_whole(path, nib.Nifti1Image(voxels, affine).to_filename, of, out_dir)
            _write_whole(item["label"], nib.Nifti1Image(mask, affine).to_filename, of, out_dir)
        else:
            picture, label = _picture(kind, [seed, index])
            _write_whole(item["image"], Image.fromarray(picture).save, of, out_dir)
            mask = _with_values(label.astype(np.uint8), label_values)
            _write_whole(item["label"], label_picture(mask).save, of, out_dir)
    _write_manifest(Path(out_dir), manifest | {"complete": True})
    logger.info("wrote %d %s phantoms to %s", num, kind, out_dir)


def _volume(
    kind: str, seed: Sequence[int], channels: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Make a volume, with several channels in the last axis, its label and its affine."""
    if kind == "knee":  # imported here, since SciPy's parts for it take long
        from ldseg_monai.data.phantoms.knee import knee_phantom

        return knee_phantom(seed)
    if kind == "beat":
        from ldseg_monai.data.phantoms.echo import beating_ventricle, frame_spacing

        frames, labels = beating_ventricle(seed, BEAT_FRAMES)
        affine = np.diag([*frame_spacing(seed), 1.0, 1.0])
        return frames.transpose(2, 1, 0), labels.transpose(2, 1, 0), affine  # columns, rows, frames
    if kind == "tumor":
        from ldseg_monai.data.phantoms.tumor import tumor_phantom

        return tumor_phantom(seed, channels)
    from ldseg_monai.data.phantoms.hippocampus import hippocampus_phantom

    return hippocampus_phantom(seed)


def _manifest(
    kind: str, seed: int, label_values: Sequence[int | str] | None, channels: int
) -> dict[str, Any]:
    values = None if label_values is None else list(label_values)
    said = {"kind": kind, "seed": seed, "version": GENERATOR_VERSION, "label_values": values}
    return said | {"channels": channels} if channels > 1 or kind in CHANNELS else said


def _picture(kind: str, seed: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make a picture and its label, of instances or classes."""
    if kind == "gland":
        from ldseg_monai.data.phantoms.gland import gland_phantom

        return gland_phantom(seed)
    if kind == "thorax":
        from ldseg_monai.data.phantoms.thorax import thorax_phantom

        return thorax_phantom(seed)
    if kind == "echo":
        from ldseg_monai.data.phantoms.echo import echo_phantom

        return echo_phantom(seed)
    from ldseg_monai.data.phantoms.nuclei import nuclei_phantom

    return nuclei_phantom(seed)


def _with_values(
    label: NDArray[np.uint8], label_values: Sequence[int | str] | None
) -> NDArray[Any]:
    """Give each class its value in files; unsigned, of as few bits as hold it."""
    if label_values is None:
        return label
    numbers = [value_number(value) for value in label_values]
    values = np.array(numbers, np.min_scalar_type(max(numbers)))
    return values[np.minimum(label, len(values) - 1)]


def _write_manifest(out_dir: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content) + "\n"
    _write_whole(str(out_dir / MANIFEST_NAME), lambda name: Path(name).write_text(text))


def _refuse_other_data(out_dir: Path, files: list[dict[str, Any]]) -> None:
    """Raise unless the folder is empty or holds nothing but phantoms of these names."""
    present = {*map(str, out_dir.glob("images/[!.]*")), *map(str, out_dir.glob("labels/[!.]*"))}
    # Looked up after the files: another process writes it before them.
    ours = (out_dir / MANIFEST_NAME).is_file()
    foreign = sorted(present - _paths(files) if ours else present)
    if foreign:
        raise InputError(
            f"{out_dir} already holds {len(foreign)} other files, such as {foreign[0]}: expected "
            "an empty folder or one with the same phantoms; choose another folder or empty this one"
        )


def _paths(files: list[dict[str, Any]]) -> set[str]:
    parts = chain.from_iterable(item.values() for item in files)
    return set(chain.from_iterable(map(ensure_tuple, parts)))


def _write_whole(
    path: str,
    write: Callable[[str], object],
    of: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> None:
    """Write a file so that it is always whole; the rest as of `whole_file`."""
    with whole_file(path, of, root) as hidden:
        write(hidden)
