"""Whole-slide images: which files are, and what is read of them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_phantoms import write_svs

from ldseg_monai.data.formats import Slide, Tissue, is_slide, load_picture
from ldseg_monai.data.formats import slides as module

TISSUE, GLASS = (190, 80, 170), (243, 241, 244)


def smooth_picture(rows: int = 150, columns: int = 200) -> np.ndarray:
    """Colors that change slowly, so that compression keeps them."""
    y, x = np.mgrid[:rows, :columns] / [[[rows]], [[columns]]]
    return np.stack([250 * x, 250 * y, 120 + 100 * x * y], axis=-1).astype(np.uint8)


def tiles(pixels: np.ndarray, side: int, kind: str, **options: object) -> Iterator[bytes]:
    """The tiles of a picture as Pillow compresses them."""
    for top in range(0, pixels.shape[0], side):
        for left in range(0, pixels.shape[1], side):
            part = pixels[top : top + side, left : left + side]
            margin = [(0, side - part.shape[0]), (0, side - part.shape[1]), (0, 0)]
            file = io.BytesIO()
            Image.fromarray(np.pad(part, margin, mode="edge")).save(file, kind, **options)
            yield file.getvalue()


def write_compressed(path: Path, pixels: np.ndarray, kind: str, description: str = "") -> None:
    """Write a TIFF of one level in tiles of JPEG or JPEG 2000, which tifffile does by a package."""
    options = {"JPEG": {"quality": 95, "keep_rgb": True}, "JPEG2000": {"no_jp2": True}}[kind]
    tifffile.imwrite(
        path,
        tiles(pixels, 64, kind, **options),
        shape=pixels.shape,
        dtype=np.uint8,
        tile=(64, 64),
        compression="zlib",  # says what it is not, until the next line
        photometric="rgb",
        description=description or None,
        metadata=None,
    )
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite({"JPEG": 7, "JPEG2000": 33005}[kind])


def test_slides_are_told_from_pictures(tmp_path: Path) -> None:
    pixels = smooth_picture()
    found = {}
    write_svs(tmp_path / "vendor.tif", [pixels])
    kinds = {
        "microns.tif": {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"},
        "screen.tif": {"resolution": (72, 72), "resolutionunit": "INCH"},  # of no microscope
        "plain.tif": {},
    }
    for name, options in kinds.items():
        tifffile.imwrite(tmp_path / name, pixels, tile=(64, 64), photometric="rgb", **options)
    layout = {"tile": (64, 64), "photometric": "rgb", **kinds["microns.tif"]}
    tifffile.imwrite(tmp_path / "deep.tif", pixels.astype(np.uint16), **layout)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([pixels, pixels]), **layout)
    write_compressed(tmp_path / "jpeg.tif", pixels, "JPEG")
    (tmp_path / "broken.tif").write_bytes(b"II*\0no picture")
    for path in sorted(tmp_path.iterdir()):
        found[path.name] = is_slide(path)
    assert found == {
        "broken.tif": False,
        "deep.tif": False,  # OpenSlide would cut it to 8 bits
        "jpeg.tif": True,
        "microns.tif": True,
        "plain.tif": False,
        "screen.tif": False,
        "stack.tif": False,
        "vendor.tif": True,
    }
    assert is_slide("a.SVS") and not is_slide("a.png")


@pytest.mark.parametrize(
    ("microns", "own", "level", "size", "read"),
    [
        (None, None, 0, (400, 300), 0.25),  # the file's own
        (0.25, None, 0, (400, 300), 0.25),
        (0.24, None, 0, (400, 300), 0.25),  # within 10%
        (0.5, None, 1, (200, 150), 0.5),  # a level
        (0.62, None, 1, (161, 121), 0.62),  # scaled, from the next finer level
        (0.4, None, 0, (250, 188), 0.4),
        (0.125, None, 0, (800, 600), 0.125),  # finer than there is
        (0.5, 1.0, 1, (200, 150), 0.5),  # what the file says goes before
    ],
)
def test_a_slide_is_read_at_the_resolution_that_is_asked_for(
    tmp_path: Path,
    microns: float | None,
    own: float | None,
    level: int,
    size: tuple[int, int],
    read: float,
) -> None:
    path = tmp_path / "slide.svs"
    whole = smooth_picture(300, 400)
    write_svs(path, [whole, whole[::2, ::2]], 0.25)
    slide = Slide(str(path), microns, own)
    assert (slide.vendor, slide.own_microns) == ("aperio", (0.25, 0.25))
    assert (slide.level, slide.size) == (level, size)
    assert slide.microns == pytest.approx((read, read), rel=0.01)
    assert slide.scale == pytest.approx((400 / size[0], 300 / size[1]))
    slide.close()


def test_microns_may_be_said_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_svs(path, [smooth_picture()], None)
    assert Slide(str(path), 1.0).microns is None
    slide = Slide(str(path), 1.0, own_microns=0.5)
    assert (slide.size, slide.microns) == ((100, 75), (1.0, 1.0))


def test_rows_of_a_level_are_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 256, (*size, 3), np.uint8) for size in ((90, 70), (45, 35)))
    write_svs(path, [first, second], 0.5)
    for microns, pixels in ((0.5, first), (1.0, second)):
        rows = Slide(str(path), microns).rows(11, 40)
        assert np.array_equal(np.asarray(rows), pixels[11:40])


def test_scaled_rows_are_those_of_the_whole_slide_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.svs"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    write_svs(path, [pixels], 0.25)
    monkeypatch.setattr(module, "PIECE", 100)  # so that there are several
    slide = Slide(str(path), 0.62)
    whole = Image.fromarray(pixels).resize(slide.size, Image.Resampling.BILINEAR)
    for start, stop in ((0, 121), (37, 80)):
        rows = np.asarray(slide.rows(start, stop)).astype(int)
        assert np.abs(rows - np.asarray(whole)[start:stop]).max() <= 1


def test_no_more_than_a_piece_is_decoded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.svs"
    write_svs(path, [smooth_picture(900, 1200)], 0.25)  # without a smaller level
    monkeypatch.setattr(module, "PIECE", 128)
    slide = Slide(str(path), 0.62)
    read = slide.slide.read_region
    asked = []
    monkeypatch.setattr(
        type(slide.slide), "read_region", lambda self, *box: asked.append(box[2]) or read(*box)
    )
    slide.rows(0, slide.size[1])
    small = slide.thumbnail(100)
    assert small.shape == (75, 100, 3)
    assert max(map(max, asked)) <= 128 + 2 * 14  # with what averaging takes from beyond


def test_parts_that_are_not_needed_are_background(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_svs(path, [smooth_picture()], 0.5)
    assert (np.asarray(Slide(str(path)).rows(3, 40, lambda box: False)) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_compressed_slides_have_their_colors(tmp_path: Path, kind: str) -> None:
    path, pixels = tmp_path / "slide.svs", smooth_picture()
    write_compressed(path, pixels, kind, "Aperio Image Library v11.2.1 |AppMag = 20|MPP = 0.5")
    slide = Slide(str(path))
    assert (slide.vendor, slide.own_microns) == ("aperio", (0.5, 0.5))
    difference = np.asarray(slide.rows(0, 150)).astype(int) - pixels
    assert np.abs(difference).mean() < 3


def test_a_slide_is_no_picture_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(b"no slide")
    with pytest.raises(ValueError, match=r"slide.svs cannot be read .*: expected a whole file"):
        Slide(str(path))
    with pytest.raises(ValueError, match=r"slide.svs is a whole-slide image: .*strips.yaml"):
        load_picture(str(path))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Slide(str(tmp_path / "none.svs"))


def test_a_slide_cut_short_is_named_where_it_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    write_compressed(path, smooth_picture(), "JPEG", "Aperio |MPP = 0.5")
    with tifffile.TiffFile(path) as file:
        offset, length = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = bytes(length)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"slide.svs cannot be read at columns 0 to 200 and rows"):
        Slide(str(path)).rows(0, 150)


def test_without_openslide_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.svs"
    write_svs(path, [smooth_picture()])
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r'pip install "ldseg-monai\[slides\]"'):
        Slide(str(path))


# Tissue


def test_tissue_is_what_is_stained() -> None:
    random = np.random.default_rng(0)
    thumbnail = np.empty((80, 100, 3))
    thumbnail[:] = GLASS
    thumbnail[20:40, 50:90] = TISSUE
    thumbnail = (thumbnail + random.normal(0, 1, thumbnail.shape)).clip(0, 255).astype(np.uint8)
    tissue = Tissue(thumbnail, (1000, 800))
    expected = np.zeros((80, 100), bool)
    expected[20:40, 50:90] = True
    assert np.array_equal(tissue.mask, expected)
    assert tissue.share == 0.1
    assert tissue.is_in((0, 0, 1000, 800)) and tissue.is_in((890, 390, 900, 400))
    assert not tissue.is_in((0, 0, 480, 800)) and not tissue.is_in((0, 430, 1000, 800))
    assert tissue.is_in((0, 0, 495, 800))  # a pixel of the thumbnail beside it


@pytest.mark.parametrize(("color", "share"), [(GLASS, 0), (TISSUE, 1)])
def test_a_slide_of_one_kind_is_not_parted(color: tuple[int, int, int], share: int) -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (50, 50, 1))
    thumbnail = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
    assert Tissue(thumbnail, (500, 500)).share == share
