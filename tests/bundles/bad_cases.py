"""Cases that no bundle can use: each written beside good ones, with what should be said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from small_data import write_picture, write_volume


@dataclass(frozen=True)
class Bad:
    """A way to write the case `bad`.

    Attributes:
        write: writes the pair into a data set's folder.
        says: part of the error's text, after the name of the file.
        file: which of the two the error names, below the folder and without ending.
    """

    write: Callable[[Path], None]
    says: str
    file: str = "images/bad"


def volume(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    label = np.zeros((20, 24, 18), np.uint8)
    label[5:10, 6:18, 4:14], label[10:15, 6:18, 4:14] = 1, 2
    return (label * 60 + np.random.default_rng(seed).normal(60, 5, label.shape)).astype(
        np.float32
    ), label


def picture(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    label = np.zeros((80, 96), np.uint8)
    label[20:50, 30:70] = 1
    noise = np.random.default_rng(seed).normal(100, 5, (*label.shape, 3))
    return (label[..., None] * 60 + noise).astype(np.uint8), label


def write_good(
    folder: Path, dims: int, names: tuple[str, ...] = ("good_0", "good_1", "good_2")
) -> None:
    for seed, name in enumerate(names, start=1):
        if dims == 3:
            write_volume(folder, name, *volume(seed))
        else:
            write_picture(folder, name, *picture(seed))


def _volume(edit: Callable[[np.ndarray, np.ndarray], dict]) -> Callable[[Path], None]:
    """Writes a pair of which some arguments of `write_volume` are others."""
    return lambda folder: write_volume(
        folder, "bad", **{**dict(zip(("image", "label"), volume(), strict=True)), **edit(*volume())}
    )


def _picture(edit: Callable[[np.ndarray, np.ndarray], dict]) -> Callable[[Path], None]:
    return lambda folder: write_picture(
        folder,
        "bad",
        **{**dict(zip(("image", "label"), picture(), strict=True)), **edit(*picture())},
    )


def _file(
    dims: int, change: Callable[[bytes], bytes], kind: str = "images"
) -> Callable[[Path], None]:
    """Writes a good pair and changes the bytes of one of its files."""

    def write(folder: Path) -> None:
        write_good(folder, dims, ("bad",))
        path = next((folder / kind).glob("bad.*"))
        path.write_bytes(change(path.read_bytes()))

    return write


def _spacing(step: float) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_good(folder, 3, ("bad",))
        path = folder / "images" / "bad.nii"
        image = nib.load(folder / "images" / "bad.nii.gz")
        image.header.set_sform(None, 0)
        image.header.set_qform(np.eye(4), 1)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
        (folder / "images" / "bad.nii.gz").unlink()
        content = bytearray(path.read_bytes())
        content[80:84] = np.float32(step).tobytes()  # pixdim[1]
        path.write_bytes(bytes(content))

    return write


def _affine(row: int, column: int, value: float) -> np.ndarray:
    affine = np.eye(4)
    affine[row, column] = value
    return affine


def _image_affine(affine: np.ndarray) -> Callable[[Path], None]:
    """Writes the header's bytes, since nibabel refuses to."""

    def write(folder: Path) -> None:
        image, label = volume()
        write_volume(folder, "bad", image, label)
        (folder / "images" / "bad.nii.gz").unlink()
        path = folder / "images" / "bad.nii"
        nib.save(nib.Nifti1Image(image, np.eye(4)), path)
        content = bytearray(path.read_bytes())
        content[280:328] = affine[:3].astype(np.float32).tobytes()  # srow_x, srow_y, srow_z
        path.write_bytes(bytes(content))

    return write


def _depth_of_16_bits(folder: Path) -> None:
    image, label = picture()
    write_picture(folder, "bad", image, label)
    Image.fromarray(image[..., 0].astype(np.uint16) * 256).save(folder / "images" / "bad.png")


def with_nan(image: np.ndarray, value: float = np.nan) -> np.ndarray:
    changed = image.copy()
    changed[3, 4, 5] = value
    return changed


VOLUMES = {
    "nan": Bad(
        _volume(lambda image, label: {"image": with_nan(image)}), "has voxels that are not finite"
    ),
    "infinity": Bad(
        _volume(lambda image, label: {"image": with_nan(image, -np.inf)}),
        "has voxels that are not finite",
    ),
    "constant": Bad(
        _volume(lambda image, label: {"image": image * 0 + 7}), "is 7: expected an image that shows"
    ),
    "two axes": Bad(
        _volume(lambda image, label: {"image": image[0], "label": label[0]}), "has 2 axes"
    ),
    "channels": Bad(
        _volume(lambda image, label: {"image": np.stack([image] * 2, -1)}),
        "has 2 channels: expected 1",
    ),
    "zero spacing": Bad(_spacing(0), "has a voxel spacing of 0 x 1 x 1"),
    "infinite spacing": Bad(_spacing(np.inf), "has a voxel spacing of inf x 1 x 1"),
    "affine of nan": Bad(_image_affine(_affine(0, 3, np.nan)), "has an affine that is not finite"),
    "affine of zero": Bad(_image_affine(_affine(0, 0, 0)), "has a voxel spacing of 0 x 1 x 1"),
    "affine in a plane": Bad(
        _image_affine(np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
        "has axes that lie in one plane",
    ),
    "cut short": Bad(_file(3, lambda content: content[: len(content) // 2]), "cannot be read"),
    "text": Bad(_file(3, lambda content: b"no image"), "cannot be read"),
    "no bytes": Bad(_file(3, lambda content: b""), "cannot be read"),
    "colors": Bad(
        _volume(lambda image, label: {"image": image.astype(np.complex64)}),
        "has voxels of type complex64",
    ),
}
PICTURES = {
    "constant": Bad(
        _picture(lambda image, label: {"image": image * 0 + 7}),
        "is 7: expected an image that shows",
    ),
    "cut short": Bad(_file(2, lambda content: content[: len(content) // 2]), "cannot be read"),
    "text": Bad(_file(2, lambda content: b"no image"), "cannot be read"),
    "no bytes": Bad(_file(2, lambda content: b""), "cannot be read"),
    "16 bits": Bad(_depth_of_16_bits, "with more than 8 bits a channel"),
}
VOLUME_LABELS = {
    "label of another size": Bad(
        _volume(lambda image, label: {"label": label[1:]}),
        "has size [19, 24, 18] and its image",
        "labels/bad",
    ),
    "label beside its image": Bad(
        _volume(lambda image, label: {"label_affine": _affine(1, 3, 2.0)}),
        "lies up to 2 voxels beside",
        "labels/bad",
    ),
    "label mirrored": Bad(
        _volume(lambda image, label: {"label_affine": np.diag([-1.0, 1, 1, 1])}),
        "lies up to 38 voxels beside",
        "labels/bad",
    ),
    "label of unknown values": Bad(
        _volume(lambda image, label: {"label": label * 4}),
        "has the values 4, 8: expected only classes, 0 to 2",
        "labels/bad",
    ),
    "label of 256": Bad(
        _volume(lambda image, label: {"label": label.astype(np.int16) * 256}),
        "has the values 256, 512",
        "labels/bad",
    ),
    "label of fractions": Bad(
        _volume(lambda image, label: {"label": label / np.float32(2)}),
        "has the values 0.5: expected",
        "labels/bad",
    ),
    "label of nan": Bad(
        _volume(lambda image, label: {"label": with_nan(label.astype(np.float32))}),
        "has the values nan: expected",
        "labels/bad",
    ),
    "label of channels": Bad(
        _volume(lambda image, label: {"label": np.stack([label] * 3, -1)}),
        "has 3 channels: expected 1",
        "labels/bad",
    ),
    "label cut short": Bad(
        _file(3, lambda content: content[: len(content) // 2], "labels"),
        "cannot be read",
        "labels/bad",
    ),
}
PICTURE_LABELS = {
    "label of another size": Bad(
        _picture(lambda image, label: {"label": label[1:]}),
        "has size [96, 79] and its image",
        "labels/bad",
    ),
    "label cut short": Bad(
        _file(2, lambda content: content[: len(content) // 2], "labels"),
        "cannot be read",
        "labels/bad",
    ),
}
IMAGES = {3: VOLUMES, 2: PICTURES}
LABELS = {3: VOLUME_LABELS, 2: PICTURE_LABELS}
