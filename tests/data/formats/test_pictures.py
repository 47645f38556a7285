"""Pictures are read as viewers show them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from ldseg_monai.data import LoadImagePictured
from ldseg_monai.data.formats import MICROMETERS, load_picture
from ldseg_monai.inference.tiff import open_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
STORED = {  # what a file holds of a picture that is shown as PIXELS, by its orientation
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.swapaxes(0, 1),
    6: np.rot90(PIXELS, 1),
    7: PIXELS[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(PIXELS, -1),
}


def write(path: Path, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation])
    if path.suffix == ".tif":
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[tag])
        return
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(path, exif=exif)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_turned_picture_and_its_label_are_as_shown(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    paths = {"image": tmp_path / f"image.{ending}", "label": tmp_path / "label.png"}
    write(paths["image"], orientation)
    label = (PIXELS[..., 0] > 200).astype(np.uint8)
    Image.fromarray(label).save(paths["label"])
    load = LoadImagePictured(["image", "label"], num_classes=2)
    case = load({name: str(path) for name, path in paths.items()})
    assert np.array_equal(case["image"].numpy().transpose(2, 1, 0), PIXELS)
    assert np.array_equal(case["label"][0].T, label)


def test_a_jpeg_is_turned(tmp_path: Path) -> None:
    smooth = np.linspace(0, 250, 30 * 20 * 3).reshape(20, 30, 3).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "a.jpg"
    Image.fromarray(np.rot90(smooth).copy()).save(path, quality=95, exif=exif)
    shown = np.asarray(load_picture(str(path))).astype(int)
    assert shown.shape == smooth.shape and np.abs(shown - smooth).max() < 12


def test_white_at_0_is_inverted_or_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, PIXELS[..., 0], photometric="miniswhite")
    assert np.array_equal(np.asarray(load_picture(path)), 255 - PIXELS[..., 0])
    tifffile.imwrite(path, PIXELS[..., 0].astype(np.uint16), photometric="miniswhite")
    with pytest.raises(ValueError, match="has white at 0 and more than 8 bits"):
        load_picture(path)


def test_hidden_colors_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alpha = np.full((20, 30, 1), 255, np.uint8)
    alpha[0] = 0
    for name in ("a.png", "b.png"):
        Image.fromarray(np.concatenate([PIXELS, alpha], axis=-1)).save(tmp_path / name)
        image = LoadImagePictured("image")({"image": str(tmp_path / name)})["image"]
        assert np.array_equal(image.numpy().transpose(2, 1, 0), PIXELS)
    assert sum("transparent pixels" in text for text in caplog.messages) <= 1


def test_fractions_are_no_gray_of_16_bits(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(path, PIXELS[..., 0] / np.float32(7))
    with pytest.raises(ValueError, match="is of mode F, .*expected up to 16"):
        LoadImagePictured("image", mode="I")({"image": path})


def test_a_volume_is_no_picture_and_a_picture_no_volume(tmp_path: Path) -> None:
    from ldseg_monai.data import LoadImageVolumed

    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a.png is a picture: expected a volume, a file ending"):
        LoadImageVolumed("image")({"image": str(tmp_path / "a.png")})


def test_a_strip_that_holds_more_makes_up_for_none_that_holds_less(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.arange(1200, dtype=np.uint16).reshape(40, 30).astype(np.uint8)
    tifffile.imwrite(path, pixels, rowsperstrip=16, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["StripByteCounts"].overwrite((1200, 0, 240))
    with pytest.raises(
        ValueError, match="a.tif cannot be read .720 bytes of pixels, by its header"
    ):
        load_picture(str(path))
    with pytest.raises(ValueError, match="a.tif cannot be read .piece 1 lacks pixels"):
        with open_picture(str(path)) as picture:
            picture.rows(0, 40)


@pytest.mark.parametrize("rows", [7, 40])
def test_planes_in_strips_of_their_own_are_read(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30)).astype(np.uint8)
    options = {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": rows}
    tifffile.imwrite(path, pixels, **options)
    assert np.array_equal(np.asarray(load_picture(str(path))), np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_an_animation_is_no_picture(tmp_path: Path, kind: str) -> None:
    """Pillow gave the first of its pictures, without a word."""
    path = tmp_path / "a.png"
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="a.png is animated, of 2 pictures: expected one"):
        load_picture(str(path))


def test_what_a_camera_puts_behind_its_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path, quality=95)
    alone = np.asarray(load_picture(str(path)))
    behind = Image.fromarray(255 - PIXELS)
    Image.fromarray(PIXELS).save(path, "MPO", save_all=True, append_images=[behind], quality=95)
    assert np.array_equal(np.asarray(load_picture(str(path))), alone)


@pytest.mark.parametrize(
    ("kind", "message"),
    [(np.int8, "a.tif has signed bytes"), (np.uint32, "a.tif has values above 2147483647")],
)
def test_numbers_that_pillow_takes_for_others_are_refused(
    tmp_path: Path, kind: type, message: str
) -> None:
    path = tmp_path / "a.tif"
    limits = np.iinfo(kind)
    pixels = np.array([[limits.min, limits.max]] * 9, kind)
    tifffile.imwrite(path, pixels, photometric="minisblack")
    with Image.open(path) as picture:
        assert not np.array_equal(np.asarray(picture), pixels)
    with pytest.raises(ValueError, match=message):
        load_picture(str(path))
    tifffile.imwrite(path, (pixels // 2 * 0 + 7), photometric="minisblack")
    if kind is np.uint32:
        assert (np.asarray(load_picture(str(path))) == 7).all()


def test_a_picture_that_is_too_large_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    write(tmp_path / "a.png", 1)
    with pytest.raises(ValueError, match="a.png is too large to be read at once .*in strips"):
        load_picture(str(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "A.NRRD"])
def test_volume_is_no_picture(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"volume")
    with pytest.raises(ValueError, match=f"{name} is a volume: expected a picture, a file ending"):
        load_picture(str(tmp_path / name))


def test_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: expected a file with an image"):
        load_picture(str(tmp_path))


# How large a pixel is


def with_resolution(path: Path, side: float, **options: Any) -> None:
    """A picture whose file gives a side in micrometers as a resolution."""
    Image.fromarray(PIXELS).save(path, dpi=(25_400 / side,) * 2, **options)


def as_ome(path: Path, unit: str = "µm", rows: float = 0.25) -> None:
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": unit}
    size |= {"PhysicalSizeY": rows, "PhysicalSizeYUnit": unit, "axes": "YXS"}
    tifffile.imwrite(path, PIXELS, ome=True, photometric="rgb", metadata=size)


def of_imagej(path: Path, unit: str) -> None:
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=(4, 4), metadata={"unit": unit})


@pytest.mark.parametrize(
    ("write", "side"),
    [
        (partial(with_resolution, side=0.25), 0.25),
        (partial(with_resolution, side=25_400 / 300), None),  # of print
        (as_ome, 0.25),
        (partial(as_ome, unit="mm"), None),
        (partial(as_ome, rows=0.5), None),  # no square
        (partial(of_imagej, unit="um"), 0.25),
        (partial(of_imagej, unit="micron"), 0.25),
        (partial(of_imagej, unit="inch"), None),
        (lambda path: Image.fromarray(PIXELS).save(path), None),
    ],
)
def test_side_of_a_pixel_is_that_of_the_file(
    tmp_path: Path, write: Callable[[Path], None], side: float | None
) -> None:
    write(tmp_path / "a.tif")
    read = LoadImagePictured("image")({"image": str(tmp_path / "a.tif")})["image"]
    assert read.meta.get(MICROMETERS) == (side and pytest.approx(side, rel=1e-3))


def test_side_of_a_pixel_of_png_and_jpeg(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        with_resolution(tmp_path / name, 0.62)
        found = load_picture(str(tmp_path / name)).info[MICROMETERS]
        assert found == pytest.approx(0.62, rel=1e-2)
