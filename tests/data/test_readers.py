from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from ldseg_monai.data import PictureReader


def read(path: Path) -> np.ndarray:
    reader = PictureReader(converter=lambda picture: picture.convert("RGB"))
    return reader.get_data(reader.read(str(path)))[0]


def write_png_of_48_bits(path: Path, pixels: np.ndarray) -> None:
    """Pillow reads such pictures, but writes none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

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
    with pytest.raises(ValueError, match=f"{kind} (is of mode .* more than 8 bits a channel|cannot be read)"):
        read(path)


def test_picture_of_8_bits_is_read_columns_first(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), pixels.transpose(1, 0, 2))
