from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor, decollate_batch
from monai.transforms import CastToTyped, Compose, LoadImaged, ScaleIntensityRanged
from PIL import Image
from slide_phantoms import write_svs
from small_networks import small_ldseg

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.formats import load_picture
from ldseg_monai.data.known import CheckKnownImaged
from ldseg_monai.inference import tiff
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.inference.strip_reader import StripReader, small_picture
from ldseg_monai.inference.strips import MeasurePictured, StripInferer
from ldseg_monai.inference.tiff import TiledFile, open_picture
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.runtime.files import saved_files

WINDOW = (32, 24)  # columns and rows


def picture_of(columns: int, rows: int, bands: int = 3) -> np.ndarray:
    return np.random.default_rng(columns + rows).integers(
        0, 256, (rows, columns, bands), dtype=np.uint8
    )


def network() -> LDSeg:
    channels = {"in_channels": 3, "out_channels": 2, "latent_channels": 2, "embedding_channels": 8}
    return small_ldseg(stem_stride=2, **channels).eval()


def preprocessing() -> Compose:
    return Compose(
        [
            LoadImaged(
                "image",
                "PILReader",
                converter=lambda picture: picture.convert("RGB"),
                ensure_channel_first=True,
            ),
            ScaleIntensityRanged("image", 0, 255, -1, 1),
            CastToTyped("image", torch.float32),
        ]
    )


def windows(num_samples: int = 1, amp: bool = False, **arguments) -> SlidingWindowSamplingInferer:
    sampler = SamplingInferer(num_samples, seed=3, amp=amp)
    settings = {"overlap": 0.25, "mode": "gaussian", "padding_mode": "replicate", "buffer_dim": 1}
    return SlidingWindowSamplingInferer(sampler, WINDOW, **{**settings, **arguments})


def in_strips(
    path: Path,
    folder: Path,
    inferer: SlidingWindowSamplingInferer,
    reader: StripReader | None = None,
) -> dict[str, np.ndarray]:
    """The files that are written of a picture, by what follows its name."""
    size = MeasurePictured("image", reader=reader)({"image": path})["image"]
    batch = MetaTensor(size.as_tensor()[None], meta={"filename_or_obj": [str(path)]})
    output = StripInferer(inferer, preprocessing(), str(folder), reader)(batch, network())
    files = sorted(path for path in folder.iterdir() if path.name != "written.jsonl")
    (written,) = decollate_batch(output)
    assert sorted(saved_files(written)) == [str(file) for file in files]
    names = [file.name.removeprefix(f"{path.stem}_").split(".") for file in files]
    assert [ending for _, *ending in names] == [["ome", "tif"]] * len(files)  # nothing else is left
    return {
        name: np.asarray(Image.open(file)) for (name, *_), file in zip(names, files, strict=True)
    }


def test_tiff_says_that_the_weights_do_not_know_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(9, 20, 3), dtype=np.uint8)).save(
        path
    )
    for name, known in {"known": {}, "outside": {OUTSIDE: ["its size is 9"]}}.items():
        meta = {"filename_or_obj": [str(path)], **known}
        batch = MetaTensor(torch.tensor([[20, 9]]), meta=meta)
        StripInferer(windows(), preprocessing(), str(tmp_path / name))(batch, network())
        with tifffile.TiffFile(tmp_path / name / "picture_label.ome.tif") as file:
            said = "outside of known images: its size is 9" if known else ""
            assert (
                ElementTree.fromstring(file.ome_metadata).findtext(".//{*}Description", "") == said
            )


def as_a_whole(path: Path, inferer: SlidingWindowSamplingInferer) -> dict[str, np.ndarray]:
    """The same from the whole picture, by NumPy."""
    output = (
        inferer(preprocessing()({"image": str(path)})["image"][None], network())[0]
        .numpy()
        .swapaxes(1, 2)
    )
    label = output[:2].argmax(0).astype(np.uint8)
    if len(output) == 2:
        return {"label": label}
    return {
        "label": label,
        "mean": (255 * output[1]).astype(np.uint8),
        "sd": (255 * output[2]).astype(np.uint8),
    }


@pytest.mark.parametrize(
    ("columns", "rows", "num_samples", "amp"),
    [
        (70, 90, 1, True),
        (70, 90, 3, False),
        (70, 24, 3, False),  # one row of windows
        (70, 9, 1, False),  # lower than a window
        (20, 61, 3, False),  # narrower than one
        (20, 9, 3, False),
        (57, 25, 1, False),  # the last window a row after the first
    ],
)
def test_strips_are_the_whole_picture_byte_by_byte(
    tmp_path: Path, columns: int, rows: int, num_samples: int, amp: bool
) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture_of(columns, rows), tile=(16, 32), compression="zlib")
    found = in_strips(path, tmp_path / "out", windows(num_samples, amp))
    expected = as_a_whole(path, windows(num_samples, amp))
    assert found.keys() == expected.keys()
    for name, pixels in expected.items():
        assert pixels.shape == (rows, columns) and (name == "label" or len(np.unique(pixels)) > 1)
        assert found[name].tobytes() == pixels.tobytes(), name


@pytest.mark.parametrize(
    "arguments", [{"sw_batch_size": 5}, {"overlap": 0.7}, {"overlap": 0}, {"mode": "constant"}]
)
def test_strips_are_the_whole_picture_with_any_windows(tmp_path: Path, arguments: dict) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture_of(71, 83), rowsperstrip=7)
    found, expected = (
        in_strips(path, tmp_path / "out", windows(**arguments)),
        as_a_whole(path, windows(**arguments)),
    )
    assert found["label"].tobytes() == expected["label"].tobytes()


def test_only_the_rows_of_a_strip_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture_of(40, 400), tile=(16, 16))
    asked: list[tuple[int, int]] = []
    read = tiff.TiffPicture.rows
    monkeypatch.setattr(
        tiff.TiffPicture,
        "rows",
        lambda self, start, stop: asked.append((start, stop)) or read(self, start, stop),
    )
    in_strips(path, tmp_path / "out", windows())
    asked = [rows for rows in asked if rows != (0, 1)]  # the look into it when it is opened
    assert asked[0] == (0, 24) and asked[-1] == (376, 400)
    assert [stop - start for start, stop in asked] == [24] * len(asked)
    assert asked == sorted(set(asked))


# Slides


def stained(columns: int, rows: int, seed: int = 0) -> np.ndarray:
    """Random pixels whose every part is saturated, as stained tissue is."""
    random = np.random.default_rng(seed).integers(0, 120, (rows, columns, 3), dtype=np.uint8)
    return random + np.array([120, 0, 120], np.uint8)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_strips_of_a_slide_are_those_of_the_same_picture(tmp_path: Path, num_samples: int) -> None:
    pixels = stained(70, 90)
    fine = pixels.repeat(2, axis=0).repeat(2, axis=1)
    write_svs(tmp_path / "slide.svs", [fine, pixels], 0.31)
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    (tmp_path / "metadata.json").write_text('{"known_images": {"microns_per_pixel": 0.62}}')
    reader = StripReader(str(tmp_path / "metadata.json"))
    inferer = windows(num_samples)
    found = in_strips(tmp_path / "slide.svs", tmp_path / "out", inferer, reader)
    expected = as_a_whole(tmp_path / "slide.png", inferer)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
    with tifffile.TiffFile(tmp_path / "out" / "slide_label.ome.tif") as file:
        pixel = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        assert (pixel.get("PhysicalSizeX"), pixel.get("PhysicalSizeXUnit")) == ("0.62", "µm")


@pytest.mark.parametrize("num_samples", [1, 2])
def test_windows_without_tissue_are_background_and_not_computed(
    tmp_path: Path,
    num_samples: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.full((160, 110, 3), 244, np.uint8)
    pixels[50:100, :50] = stained(50, 50)
    write_svs(tmp_path / "slide.svs", [pixels], 0.62)
    computed = []
    inferer, sample = windows(num_samples), SamplingInferer.__call__
    monkeypatch.setattr(
        SamplingInferer,
        "__call__",
        lambda self, images, *rest, **more: (
            computed.append(len(images)) or sample(self, images, *rest, **more)
        ),
    )
    with caplog.at_level("INFO"):
        found = in_strips(tmp_path / "slide.svs", tmp_path / "out", inferer)
    starts = inferer.starts((110, 160))
    near = [  # windows that touch the tissue, or one pixel of it beside them
        start for start in starts if start[0] <= 50 and start[1] <= 100 and start[1] + 24 >= 49
    ]
    assert sum(computed) == len(near) < len(starts) / 2
    told = f"{len(near)} of {len(starts)} windows are computed, those without tissue are background"
    assert any(told in message for message in caplog.messages)
    everything = in_strips(
        tmp_path / "slide.svs",
        tmp_path / "all",
        windows(num_samples),
        StripReader(skip_empty=False),
    )
    for name, values in found.items():
        assert np.array_equal(values[55:95, :45], everything[name][55:95, :45]), name
        assert not values[:25].any() and not values[:, 85:].any(), name


def test_a_slide_without_tissue_is_background(tmp_path: Path) -> None:
    write_svs(tmp_path / "slide.svs", [np.full((90, 70, 3), 244, np.uint8)], 0.62)
    found = in_strips(tmp_path / "slide.svs", tmp_path / "out", windows(3))
    assert {name: values.max() for name, values in found.items()} == dict.fromkeys(found, 0)


@pytest.mark.parametrize(
    ("microns", "said", "reason"),
    [
        (None, None, "it does not say its micrometers a pixel, expected 0.5 or less"),
        (None, 0.5, None),
        (0.25, None, None),
        (0.6, None, None),  # 20% larger
        (0.7, None, "its pixels are 0.7 micrometers, expected 0.5 or less"),
    ],
)
def test_a_slide_of_another_resolution_is_not_known(
    tmp_path: Path, microns: float | None, said: float | None, reason: str | None
) -> None:
    path, metadata = tmp_path / "slide.svs", tmp_path / "metadata.json"
    write_svs(path, [stained(70, 90)], microns)
    metadata.write_text('{"known_images": {"microns_per_pixel": 0.5}}')
    reader = StripReader(str(metadata), said)
    measure = MeasurePictured("image", CheckKnownImaged("image", str(metadata)), reader)
    if reason is None:
        measure({"image": path})
        return
    with pytest.raises(ValueError, match=reason):
        measure({"image": path})
    force = MeasurePictured("image", CheckKnownImaged("image", str(metadata), force=True), reader)
    size = force({"image": path})["image"]
    assert reason in size.meta[OUTSIDE]
    if microns is None:
        assert size.tolist() == [70, 90]


def test_a_scanner_s_tiff_is_not_taken_for_a_picture_without_openslide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.tif"
    write_svs(path, [stained(70, 90)])
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r'slide.tif .*pip install "ldseg-monai\[slides\]"'):
        MeasurePictured("image")({"image": path})


@pytest.mark.parametrize("name", ["slide.svs", "picture.tif", "picture.png"])
def test_small_copies_are_of_the_whole_picture(tmp_path: Path, name: str) -> None:
    pixels = np.zeros((160, 240, 3), np.uint8)
    pixels[80:, :120] = (200, 10, 90)
    if name == "slide.svs":
        write_svs(tmp_path / name, [pixels])
    else:
        Image.fromarray(pixels).save(tmp_path / name)
    with open_picture(str(tmp_path / name)) as picture:
        small = small_picture(picture, 60)
    assert small.shape == (40, 60, 3)
    assert np.abs(small[3:17].astype(int)).max() == 0 and (small[23:, 33:] == 0).all()
    assert np.abs(small[23:, :27].astype(int) - (200, 10, 90)).max() <= 1


# Pictures


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize(
    "layout",
    [
        {"tile": (16, 32)},
        {"tile": (32, 16), "compression": "zlib", "predictor": True},
        {"rowsperstrip": 5},
        {"rowsperstrip": 50, "compression": "zlib"},
        {"rowsperstrip": 7, "compression": "zlib", "predictor": True, "byteorder": ">"},
        {"tile": (16, 16), "compression": "zlib", "bigtiff": True},
    ],
)
def test_rows_of_a_tiff_are_those_of_pillow(tmp_path: Path, layout: dict, bands: int) -> None:
    path, pixels = tmp_path / "picture.tif", picture_of(45, 50, bands).squeeze()
    kind = {1: {"photometric": "minisblack"}, 3: {"photometric": "rgb"}}.get(
        bands, {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    )
    tifffile.imwrite(path, pixels, **layout, **kind)
    with open_picture(str(path)) as picture:
        assert picture.size == (45, 50)
        for start, stop in [(0, 50), (0, 1), (49, 50), (13, 37)]:
            expected = Image.open(path).crop((0, start, 45, stop))
            rows = picture.rows(start, stop)
            assert (rows.mode, rows.tobytes()) == (expected.mode, expected.tobytes())


@pytest.mark.parametrize(
    "kind",
    [
        {"photometric": "ycbcr"},
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
    ],
)
def test_colors_of_a_strip_are_those_of_the_whole_picture(tmp_path: Path, kind: dict) -> None:
    path = tmp_path / "picture.tif"
    pixels = picture_of(45, 50, 4)
    pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])  # as premultiplied colors are
    tifffile.imwrite(
        path, pixels if "extrasamples" in kind else pixels[..., :3], rowsperstrip=7, **kind
    )
    whole = np.asarray(load_picture(str(path)).convert("RGB"))
    with open_picture(str(path)) as picture:
        rows = picture.rows(13, 37).convert("RGB")
    assert np.array_equal(np.asarray(rows), whole[13:37])


@pytest.mark.parametrize("rows_per_strip", [8, 50])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize(
    "compression", ["raw", "packbits", "tiff_adobe_deflate", "tiff_lzw", "jpeg", "zstd", "lzma"]
)
def test_compressions_of_another_program_are_read_or_refused_before_any_work(
    tmp_path: Path, compression: str, predictor: int, rows_per_strip: int
) -> None:
    path = tmp_path / "picture.tif"
    rows, columns = np.mgrid[:50, :45]
    pixels = np.stack([rows * 5, columns * 5, rows + columns], axis=-1).astype(np.uint8)
    tags = {278: rows_per_strip}
    if compression in ("tiff_adobe_deflate", "tiff_lzw"):
        tags[317] = predictor
    Image.fromarray(pixels).save(path, compression=compression, tiffinfo=tags)
    whole = np.asarray(load_picture(str(path)))
    try:
        MeasurePictured("image")({"image": path})
    except ValueError as error:  # of what tifffile does not decode where imagecodecs is missing
        assert compression in ("tiff_lzw", "jpeg", "zstd")
        assert f"{path} cannot be read" in str(error) and "imagecodecs installed" in str(error)
        return
    with open_picture(str(path)) as picture:
        strip = np.asarray(picture.rows(13, 37).convert("RGB"))
    assert np.array_equal(strip, whole[13:37])


def test_pictures_to_be_turned_are_turned_or_refused(tmp_path: Path) -> None:
    pixels = picture_of(30, 40)
    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(274, "H", 1, 3, True)])
    with pytest.raises(ValueError, match=r"to be turned .*\(orientation 3\), .*not done in strips"):
        MeasurePictured("image")({"image": path})
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "picture.png"
    Image.fromarray(np.rot90(pixels).copy()).save(path, exif=exif)
    assert MeasurePictured("image")({"image": path})["image"].tolist() == [30, 40]
    with open_picture(str(path)) as picture:
        assert np.array_equal(np.asarray(picture.rows(5, 12)), pixels[5:12])


def test_small_pictures_of_other_formats_are_cut_in_memory(tmp_path: Path) -> None:
    path, pixels = tmp_path / "picture.png", picture_of(30, 40)
    Image.fromarray(pixels).save(path)
    with open_picture(str(path)) as picture:
        assert np.array_equal(np.asarray(picture.rows(5, 12)), pixels[5:12])


def test_large_pictures_of_other_formats_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(picture_of(30, 40)).save(path)
    for limit in (1000, 500):  # Pillow would warn of the first and refuse the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(
            ValueError, match=r"picture.png has too many pixels .* expected TIFF; convert it"
        ):
            MeasurePictured("image")({"image": path})


def test_tiff_that_cannot_be_read_in_strips_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.tif"
    pixels = picture_of(30, 40)
    for wrong, options, what in (
        (pixels.astype(np.uint16), {}, "RGB of 3 x 16 bits"),
        (
            pixels,
            {"photometric": "rgb", "planarconfig": "separate", "data": pixels.transpose(2, 0, 1)},
            "axes SYX",
        ),
        (pixels[..., 0], {"photometric": "miniswhite"}, "MINISWHITE"),
    ):
        tifffile.imwrite(path, **{"data": wrong, **options})
        with pytest.raises(
            ValueError, match=f"picture.tif is .*{what}.*: expected gray or RGB of 8 bits"
        ):
            MeasurePictured("image")({"image": path})
    tifffile.imwrite(path, np.stack([pixels, pixels]), photometric="rgb")
    with pytest.raises(ValueError, match="picture.tif is a stack of pages: expected one picture"):
        MeasurePictured("image")({"image": path})
    with tifffile.TiffWriter(path) as file:  # a mask behind its picture
        file.write(pixels, photometric="rgb")
        file.write(pixels[..., 0])
    with pytest.raises(ValueError, match="picture.tif is a stack of pages: expected one picture"):
        MeasurePictured("image")({"image": path})
    with tifffile.TiffWriter(path) as file:  # a slide scanner's, with a smaller copy
        file.write(pixels, photometric="rgb")
        file.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
    assert MeasurePictured("image")({"image": path})["image"].tolist() == [30, 40]
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="picture.tif cannot be read .*: expected a whole file"):
        MeasurePictured("image")({"image": path})
    tifffile.imwrite(path, pixels, rowsperstrip=40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(
        ValueError, match="is in pieces of 40 rows and 30 columns: expected smaller"
    ):
        MeasurePictured("image")({"image": path})


def test_tiff_cut_short_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, picture_of(70, 90), rowsperstrip=4, compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[18]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 40)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"rows 54 to 78 of .*picture.tif cannot be read"):
        in_strips(path, tmp_path / "out", windows())
    assert not list((tmp_path / "out").iterdir())


def test_preprocessing_that_changes_the_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, picture_of(70, 90))
    batch = MetaTensor(torch.tensor([[70, 90]]), meta={"filename_or_obj": [str(path)]})
    inferer = StripInferer(windows(), lambda data: {"image": torch.zeros(3, 70, 10)}, str(tmp_path))
    with pytest.raises(ValueError, match=r"preprocessing made \[70, 10\] of \[70, 24\] pixels"):
        inferer(batch, network())


def test_windows_that_do_not_come_together_row_by_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="buffer_dim of the inferer is 0: expected 1"):
        StripInferer(windows(buffer_dim=0), preprocessing(), str(tmp_path))


# Files


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("heights", [[300, 1, 400], [5, 5], [256], [900]])
def test_file_holds_the_rows_that_came(tmp_path: Path, heights: list[int], samples: int) -> None:
    path, pixels = tmp_path / "file.tif", picture_of(300, sum(heights), samples)
    with TiledFile(str(path), (300, sum(heights))) as file:
        for part in np.split(pixels, np.cumsum(heights)[:-1]):
            file.append(part)
        assert not path.exists()
        file.save()
    assert np.array_equal(tifffile.imread(path), pixels.squeeze())
    levels = tifffile.TiffFile(path).series[0].levels
    for number, level in enumerate(levels):  # every second row and column of the one before
        step = 2**number
        assert np.array_equal(level.asarray().squeeze(), pixels[::step, ::step].squeeze())
    assert max(levels[-1].shape[:2]) <= 256
    page = tifffile.TiffFile(path).pages[0]
    assert (page.tilelength, page.tilewidth, page.compression.name) == (256, 256, "ADOBE_DEFLATE")
    assert list(tmp_path.iterdir()) == [path]


def test_a_sampler_that_keeps_its_samples_is_refused(tmp_path: Path) -> None:
    inferer = windows()
    inferer.sampler.keep_samples = True
    with pytest.raises(ValueError, match="keep_samples of the sampler is true: expected false"):
        StripInferer(inferer, lambda data: data, str(tmp_path))
