"""Good files made bad, from a seed: cut, with bytes flipped, with fields exchanged, empty, of another kind."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import tifffile

TENTHS = range(1, 10)
Exchange = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Corrupted:
    """A bad file: what was done to the good one, and its bytes."""

    what: str
    content: bytes


def corruptions(
    good: bytes, exchange: Exchange, header: int, number: int, seed: int
) -> Iterator[Corrupted]:
    """Make bad files of a good one.

    Args:
        good: its bytes.
        exchange: gives one field of the format another value, or two fields each other's.
        header: bytes at its start that are flipped.
        number: of bad files.
        seed: of the flips and exchanges.
    """
    fixed = [Corrupted(f"cut to {tenth}0%", good[: len(good) * tenth // 10]) for tenth in TENTHS]
    fixed += [
        Corrupted("cut by one byte", good[:-1]),
        Corrupted("empty", b""),
        Corrupted("all zero", bytes(len(good))),
        Corrupted("text", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ]
    yield from fixed
    generator = np.random.default_rng(seed)
    for index in range(number - len(fixed)):
        if index % 2:
            yield Corrupted(f"exchange {index}", exchange(good, generator))
        else:
            yield Corrupted(f"flip {index}", _flipped(good, header, generator))


def _flipped(good: bytes, header: int, generator: np.random.Generator) -> bytes:
    """One to four bytes of the header get other values."""
    content = bytearray(good)
    for _ in range(generator.integers(1, 5)):
        place = generator.integers(min(header, len(content)))
        content[place] ^= int(generator.integers(1, 256))
    return bytes(content)


ODD_NUMBERS = (0, -1, 1, 2, 3, 5, 7, 64, 255, 30000, 2**31 - 1, -(2**31), 1e30, np.nan, np.inf)


def exchange_nifti(good: bytes, generator: np.random.Generator) -> bytes:
    """Another value in a field of the header, one of its numbers in another place, or bytes swapped."""
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(good), check=False)
    fields = header.structarr.copy()
    names = [name for name in fields.dtype.names if fields[name].dtype.kind in "iuf"]
    name = str(generator.choice(names))
    kind = generator.integers(4)
    if kind == 0:
        return fields.byteswap().tobytes() + good[fields.nbytes :]
    values = np.atleast_1d(fields[name])
    if kind == 1 and values.size > 1:
        values = generator.permutation(values)
    else:
        number = ODD_NUMBERS[generator.integers(len(ODD_NUMBERS))]
        values[generator.integers(values.size)] = _fitting(number, values.dtype)
    fields[name] = values.reshape(np.shape(fields[name]))
    return fields.tobytes() + good[fields.nbytes :]


def _fitting(number: float, dtype: np.dtype) -> Any:
    """A number as a type can hold it."""
    if dtype.kind == "f":
        return number
    limits = np.iinfo(dtype)
    return int(np.clip(np.nan_to_num(number), limits.min, limits.max))


def exchange_gzip(exchange: Exchange) -> Exchange:
    """An exchange in what a gzip file holds."""

    def inside(good: bytes, generator: np.random.Generator) -> bytes:
        content = exchange(zlib.decompress(good, 31), generator)
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        return packer.compress(content) + packer.flush()

    return inside


def exchange_png(good: bytes, generator: np.random.Generator) -> bytes:
    """Another size, depth or kind of color in the first chunk, or chunks in another order; sums are right."""
    chunks = []
    place = 8
    while place < len(good):
        (length,) = struct.unpack_from(">I", good, place)
        chunks.append(good[place : place + 12 + length])
        place += 12 + length
    if generator.integers(3) == 0:
        return good[:8] + b"".join(chunks[place] for place in generator.permutation(len(chunks)))
    width, height, *kinds = struct.unpack(">IIBBBBB", chunks[0][8:21])
    fields = [width, height, *kinds]
    if generator.integers(3) == 0:
        fields[:2] = height, width
    else:
        field = generator.integers(7)
        choices = (0, 1, 2, 3, 4, 6, 8, 16) if field > 1 else (0, 1, 7, 40000, 2**31 - 1)
        fields[field] = int(generator.choice(choices))
    body = b"IHDR" + struct.pack(">IIBBBBB", *fields)
    first = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return good[:8] + first + b"".join(chunks[1:])


def exchange_tiff(good: bytes, generator: np.random.Generator) -> bytes:
    """Another code, type, count or value of a tag, two tags in each other's place, or the order of bytes."""
    content = bytearray(good)
    if generator.integers(8) == 0:
        content[:2] = b"MM" if good[:2] == b"II" else b"II"
        return bytes(content)
    with tifffile.TiffFile(io.BytesIO(good)) as file:
        tags = list(file.pages[0].tags)
    one, other = generator.choice(len(tags), 2, replace=False)
    start = tags[one].offset
    if generator.integers(3) == 0:
        second = tags[other].offset
        content[start : start + 12], content[second : second + 12] = (
            good[second : second + 12],
            good[start : start + 12],
        )
        return bytes(content)
    field, size = ((0, 2), (2, 2), (4, 4), (8, 4))[generator.integers(4)]
    number = int(np.clip(np.nan_to_num(generator.choice(ODD_NUMBERS)), 0, 256**size - 1))
    content[start + field : start + field + size] = number.to_bytes(size, "little")
    return bytes(content)


DICOM_VALUES = {
    "Rows": (0, 1, 9, 30000),
    "Columns": (0, 1, 9, 30000),
    "BitsAllocated": (0, 1, 8, 12, 32),
    "BitsStored": (0, 1, 20),
    "PixelRepresentation": (1, 2),
    "SamplesPerPixel": (0, 3),
    "PhotometricInterpretation": ("RGB", "PALETTE COLOR", ""),
    "PixelSpacing": ([0, 0], [1], [-1, 1], ["nan", "1"]),
    "ImagePositionPatient": ([0, 0], [1e30, 0, 0], []),
    "ImageOrientationPatient": ([0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0]),
    "RescaleSlope": (0, "nan"),
    "SeriesInstanceUID": ("", "1.2.3"),
    "SOPInstanceUID": ("",),
    "NumberOfFrames": (0, 2, 30000),
    "PixelData": (b"", b"\0\0"),
}


def exchange_dicom(good: bytes, generator: np.random.Generator) -> bytes:
    """Another value of an element, an element that is missing, or one of the syntaxes that this is not."""
    dataset = pydicom.dcmread(io.BytesIO(good))
    kind = generator.integers(4)
    names = [element.keyword for element in dataset if element.keyword]
    if kind == 0:
        del dataset[str(generator.choice(names))]
    elif kind == 1:
        syntaxes = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.5", "1.2")
        old = str(dataset.file_meta.TransferSyntaxUID).encode()
        new = str(generator.choice(syntaxes)).encode().ljust(len(old), b"\0")[: len(old)]
        return good.replace(old, new, 1)
    else:
        name = str(generator.choice(list(DICOM_VALUES)))
        values = DICOM_VALUES[name]
        _set(dataset, name, values[generator.integers(len(values))])
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def _set(dataset: pydicom.Dataset, name: str, value: Any) -> None:
    """Set an element, right or wrong."""
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    if name == "PixelData":
        dataset.PixelData = value
    else:
        setattr(dataset, name, value)


def exchange_json(good: bytes, generator: np.random.Generator) -> bytes:
    """Another value somewhere in the tree, of any type, or a missing one."""
    tree = json.loads(good)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, (dict, list)):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                walk(node[key])

    walk(tree)
    node, key = places[generator.integers(len(places))]
    values = (None, 0, -1.5, "", "x", "../..", [], {}, [[]], {"image": 1}, True, "\0", "a" * 5000)
    index = generator.integers(len(values) + 1)
    if index == len(values):
        del node[key]
    else:
        node[key] = values[index]
    return json.dumps(tree).encode()


def exchange_text(good: bytes, generator: np.random.Generator) -> bytes:
    """Two parts of a text in each other's place, or another separator, sign or encoding."""
    old = (b",", b"\n", b"a", b"0")[generator.integers(4)]
    new = (b";", b"\t", b"\r\n", b"", b'"', b"\0", b"\xff", b"\xc3\x28")[generator.integers(8)]
    parts = good.split(old)
    place = generator.integers(1, len(parts)) if len(parts) > 1 else 0
    return old.join(parts[:place]) + new + old.join(parts[place:])


def exchange_blocks(good: bytes, generator: np.random.Generator) -> bytes:
    """Two blocks of bytes in each other's place: for formats without fields of their own here."""
    size = 16
    count = len(good) // size
    one, other = sorted(generator.choice(count, 2, replace=False) * size)
    content = bytearray(good)
    content[one : one + size] = good[other : other + size]
    content[other : other + size] = good[one : one + size]
    return bytes(content)
