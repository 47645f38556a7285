"""Files that are cut, flipped, exchanged, empty or of another kind end in a right result or in one line.

A hundred bad files of each kind; `pytest --slow` makes two thousand.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from corrupted_files import (
    Exchange,
    corruptions,
    exchange_blocks,
    exchange_dicom,
    exchange_gzip,
    exchange_json,
    exchange_nifti,
    exchange_png,
    exchange_text,
    exchange_tiff,
)
from dicom_phantoms import Series
from PIL import Image
from reading_process import MAX_BYTES, ReadingProcess

from ldseg_monai.data import LoadImagePictured, LoadImageVolumed, resolve_datalist
from ldseg_monai.data.split import read_groups, read_val_cases
from ldseg_monai.inference.tiff import open_picture
from ldseg_monai.networks.weights import read_state

SHAPE = (7, 6, 5)
SIZE = (40, 30)  # rows, columns


def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)


def classes(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)


def picture() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def save_volume(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, np.diag([2, 1, 3, 1])), path)
    return path


# Good files


def write_nifti(folder: Path) -> Path:
    return save_volume(folder / "a.nii", volume())


def write_nifti_gz(folder: Path) -> Path:
    return save_volume(folder / "a.nii.gz", volume())


def write_label(folder: Path) -> Path:
    save_volume(folder / "image.nii.gz", volume())
    return save_volume(folder / "a.nii.gz", classes(SHAPE))


def itk_writer(ending: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        sitk.WriteImage(sitk.GetImageFromArray(volume().T), folder / f"a{ending}")
        return folder / f"a{ending}"

    return write


def picture_writer(ending: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        Image.fromarray(picture()).save(folder / f"a{ending}")
        return folder / f"a{ending}"

    return write


def write_picture_label(folder: Path) -> Path:
    Image.fromarray(picture()).save(folder / "image.png")
    Image.fromarray(classes(SIZE)).save(folder / "a.png")
    return folder / "a.png"


def write_tiled(folder: Path) -> Path:
    options: dict[str, Any] = {"tile": (16, 16), "compression": "zlib", "photometric": "rgb"}
    tifffile.imwrite(folder / "a.tif", picture(), **options)
    return folder / "a.tif"


def write_series(folder: Path) -> Path:
    series = folder / "series"
    Series().write(series)
    return sorted(series.iterdir())[2]


def write_dataset(folder: Path) -> Path:
    pairs = []
    for number in range(3):
        save_volume(folder / f"image_{number}.nii.gz", volume())
        save_volume(folder / f"label_{number}.nii.gz", classes(SHAPE))
        pairs.append({"image": f"image_{number}.nii.gz", "label": f"label_{number}.nii.gz"})
    content = {"labels": {"0": "background", "1": "a"}, "training": pairs, "test": []}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def write_patients(folder: Path) -> Path:
    rows = [f"case_{number},p{number // 2}" for number in range(9)]
    (folder / "patients.csv").write_text("\n".join(["name,patient ID", *rows]) + "\n")
    return folder / "patients.csv"


def write_names(folder: Path) -> Path:
    (folder / "val_cases.txt").write_text("".join(f"case_{number}\n" for number in range(9)))
    return folder / "val_cases.txt"


def write_weights(folder: Path) -> Path:
    torch.save({"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2)}, folder / "model.pt")
    return folder / "model.pt"


# What our code makes of a file


def read_volume(path: Path) -> np.ndarray:
    return LoadImageVolumed("image", dicom=True)({"image": str(path)})["image"].numpy()[0]


def read_volume_label(path: Path) -> np.ndarray:
    item = {"image": str(path.parent / "image.nii.gz"), "label": str(path)}
    return LoadImageVolumed(["image", "label"], num_classes=3)(item)["label"].numpy()[0]


def read_picture(path: Path) -> np.ndarray:
    return LoadImagePictured("image")({"image": str(path)})["image"].numpy().T


def read_picture_label(path: Path) -> np.ndarray:
    item = {"image": str(path.parent / "image.png"), "label": str(path)}
    return LoadImagePictured(["image", "label"], num_classes=3)(item)["label"].numpy()[0].T


def read_strips(path: Path) -> np.ndarray:
    with open_picture(str(path)) as opened:
        rows = [opened.rows(row, min(row + 16, opened.size[1])) for row in range(0, 40, 16)]
    return np.concatenate([np.asarray(part.convert("RGB")) for part in rows])


def read_series(path: Path) -> np.ndarray:
    return read_volume(path.parent)


def read_dataset(path: Path) -> list[dict[str, Any]]:
    return resolve_datalist(path.parent, "knee", path.parent / "phantoms")


def read_patients(path: Path) -> dict[str, str]:
    return read_groups(path, "name", "patient ID")


def read_names(path: Path) -> list[str]:
    return read_val_cases(path)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in read_state(str(path)).items()}


# What another program makes of it


def itk_volume(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


def nibabel_volume(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def itk_picture(path: Path) -> np.ndarray:
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return np.repeat(array[..., None], 3, 2) if array.ndim == 2 else array[..., :3]


def itk_label(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def tifffile_picture(path: Path) -> np.ndarray:
    array = tifffile.imread(path)
    gray = array.ndim == 2 or array.shape[2] < 3
    return np.repeat(array.reshape(*array.shape[:2], -1)[..., :1], 3, 2) if gray else array[..., :3]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        write: writes a good one to a folder, and what it needs beside it.
        read: what the package makes of one.
        exchange: how fields of it are exchanged.
        header: bytes at its start that are flipped.
        others: other programs' readings, in the form of ``read``'s; one of them has to agree.
        tolerance: largest mean difference between the two.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], Any]
    exchange: Exchange
    header: int = 200
    others: tuple[Callable[[Path], Any], ...] = ()
    tolerance: float = 0.0


NIFTI_HEADER = 352
VOLUMES = (itk_volume, nibabel_volume)
KINDS = {
    "nifti": Kind(write_nifti, read_volume, exchange_nifti, NIFTI_HEADER, VOLUMES, 1e-3),
    "nifti_gz": Kind(
        write_nifti_gz, read_volume, exchange_gzip(exchange_nifti), 400, VOLUMES, 1e-3
    ),
    "nifti_label": Kind(
        write_label, read_volume_label, exchange_gzip(exchange_nifti), 60, VOLUMES, 1e-3
    ),
    "mha": Kind(itk_writer(".mha"), read_volume, exchange_text, 300, (itk_volume,)),
    "nrrd": Kind(itk_writer(".nrrd"), read_volume, exchange_text, 300, (itk_volume,)),
    "png": Kind(picture_writer(".png"), read_picture, exchange_png, 80, (itk_picture,)),
    "png_label": Kind(write_picture_label, read_picture_label, exchange_png, 80, (itk_label,)),
    "jpeg": Kind(picture_writer(".jpg"), read_picture, exchange_blocks, 700, (itk_picture,), 4.0),
    "bmp": Kind(picture_writer(".bmp"), read_picture, exchange_blocks, 60, (itk_picture,)),
    "tiff": Kind(write_tiled, read_picture, exchange_tiff, 400, (tifffile_picture,)),
    "strips": Kind(write_tiled, read_strips, exchange_tiff, 400, (tifffile_picture,)),
    "dicom": Kind(write_series, read_series, exchange_dicom, 1200),
    "dataset_json": Kind(write_dataset, read_dataset, exchange_json, 300),
    "patients_csv": Kind(write_patients, read_patients, exchange_text, 200),
    "val_cases": Kind(write_names, read_names, exchange_text, 100),
    "weights": Kind(write_weights, read_weights, exchange_blocks, 2000),
}


@pytest.fixture(scope="module")
def process() -> Iterator[ReadingProcess]:
    with ReadingProcess() as running:
        yield running


@pytest.fixture(params=[100, pytest.param(2000, marks=pytest.mark.slow)])
def number(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.mark.parametrize("name", KINDS)
def test_a_bad_file_is_read_right_or_named(
    name: str, number: int, process: ReadingProcess, tmp_path: Path
) -> None:
    kind = KINDS[name]
    path = kind.write(tmp_path)
    good = path.read_bytes()
    expected = process(kind.read, path)
    assert expected.kind == "result", expected.value
    ends: Counter[str] = Counter()
    faults = []
    for bad in corruptions(good, kind.exchange, kind.header, number, seed=0):
        path.write_bytes(bad.content)
        outcome = process(kind.read, path)
        ends[outcome.kind] += 1
        if fault := fault_of(outcome, kind, path, expected.value):
            faults.append(f"{bad.what}: {fault}")
    print(name, dict(ends))
    assert not faults, f"{len(faults)} of {number}:\n" + "\n".join(faults[:20])
    assert ends["told"] > 10


def fault_of(outcome: Any, kind: Kind, path: Path, good: Any) -> str | None:
    """What is wrong with the end of a reading, if anything is."""
    if outcome.extra_bytes > MAX_BYTES:
        return f"{outcome.extra_bytes / 1e9:.1f} GB"
    if outcome.kind == "told":
        named = path.name in outcome.value or str(path.parent) in outcome.value
        return None if named and "\n" not in outcome.value else f"said {outcome.value!r}"
    if outcome.kind != "result":
        return f"{outcome.kind}: {outcome.value[-1500:]}"
    if not kind.others or alike(outcome.value, good, 0):
        return None
    said = []
    for read in kind.others:
        try:
            other = read(path)
        except Exception as error:
            said.append(str(error)[-200:])
            continue
        if alike(outcome.value, other, kind.tolerance):
            return None
        said.append(describe(other))
    return f"read as {describe(outcome.value)}, by other programs: {'; '.join(said)}"


def alike(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two arrays are the same, or two other values."""
    if not isinstance(one, np.ndarray):
        return bool(one == other)
    one, other = np.squeeze(one), np.squeeze(other)
    if one.shape != other.shape:
        return False
    difference = np.abs(one.astype(float) - other.astype(float)).mean()
    return bool(difference <= tolerance * max(1.0, float(np.abs(other).mean())))


def describe(value: Any) -> str:
    return f"{np.shape(value)} {np.asarray(value).ravel()[:4]}"
