from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from ldseg_monai.data.readers import LabelPictureReader, PictureReader


def read(path: Path) -> np.ndarray:
    reader = PictureReader("RGB")
    return reader.get_data(reader.read(str(path)))[0]


def write_png_of_48_bits(path: Path, pixels: np.ndarray) -> None:
    """Pillow reads such pictures, but writes none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


@pytest.mark.parametrize("kind", ["gray.png", "gray.tif", "color.png", "color.tif"])
def test_picture_of_16_bits_is_refused_and_not_cut_to_8(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    pixels = np.arange(30 * 20 * 3, dtype=np.uint16).reshape(20, 30, 3)
    if kind == "color.tif":
        tifffile.imwrite(path, pixels, photometric="rgb")
    elif kind == "color.png":
        write_png_of_48_bits(path, pixels)
    else:
        Image.fromarray(pixels[..., 0]).save(path)
    with pytest.raises(
        ValueError, match=f"{kind} (is of mode .* more than 8 bits a channel|cannot be read)"
    ):
        read(path)


def write_pages(path: Path, *pages: np.ndarray, **options: Any) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(pages[0], photometric="rgb")
        for page in pages[1:]:
            file.write(page, **options)


def test_stack_is_refused_and_a_picture_with_smaller_copies_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    larger = np.tile(pixels, (2, 2, 1))  # as behind a thumbnail
    for other in (pixels, pixels[..., 0], pixels[1:], larger):
        write_pages(path, pixels, pixels[::2, ::2], other)
        for reader in (PictureReader(), LabelPictureReader()):
            with pytest.raises(
                ValueError, match=r"a\.tif is a stack of pages: expected one picture; write each"
            ):
                reader.get_data(reader.read(str(path)))
    write_pages(path, pixels, pixels[::2, ::2], pixels[::4, ::4], subfiletype=1)
    assert np.array_equal(read(path), pixels.transpose(1, 0, 2))


def test_page_that_pillow_does_not_know_does_not_matter(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    write_pages(path, pixels, np.zeros((4, 4, 3)), photometric="rgb")  # of 64 bits
    assert np.array_equal(read(path), pixels.transpose(1, 0, 2))


def test_picture_of_8_bits_is_read_columns_first(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), pixels.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {}), ("a.png", {"format": "jpeg"}), ("a.tif", {"compression": "jpeg"})],
)
def test_label_with_loss_is_refused(tmp_path: Path, name: str, options: dict) -> None:
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(tmp_path / name, **options)
    assert read(tmp_path / name).shape == (16, 16, 3)  # as an image it may be
    with pytest.raises(
        ValueError, match=f"{name} is a JPEG or its like, .* expected a label without loss"
    ):
        LabelPictureReader().get_data([str(tmp_path / name)])
