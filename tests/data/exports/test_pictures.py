from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from export_phantoms import blobs, label_of, write_metadata

from ldseg_monai.data.exports import SaveImageAsd
from ldseg_monai.data.formats import MICROMETERS

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


@pytest.mark.parametrize("shape", [(1030, 700), (300, 100), (20, 30), (1, 1), (256, 257)])
def test_tiff_has_the_pixels_in_tiles_and_levels(tmp_path: Path, shape: tuple[int, int]) -> None:
    voxels = blobs(shape)  # (columns, rows)
    SaveImageAsd("pred", str(tmp_path), "tiff", write_metadata(tmp_path))(
        {"pred": label_of("slide.png", voxels)}
    )
    with tifffile.TiffFile(tmp_path / "slide_label.ome.tif") as file:
        assert file.is_ome and len(file.pages) == len(file.series) == 1
        [series] = file.series
        assert series.axes == "YX" and series.is_pyramidal == (max(shape) > 256)
        for number, level in enumerate(series.levels):
            page = level.pages[0]
            assert page.tile == (256, 256) and page.compression.name == "ADOBE_DEFLATE"
            step = 2**number
            assert np.array_equal(level.asarray(), voxels.T[::step, ::step])
        assert max(series.levels[-1].shape) <= 256
        assert len(file.pages[0].subifds or ()) == len(series.levels) - 1
        pixels = ElementTree.fromstring(file.ome_metadata).find(f".//{OME}Pixels")
        assert pixels is not None
        assert (pixels.get("SizeX"), pixels.get("SizeY")) == tuple(map(str, shape))
        assert pixels.get("PhysicalSizeX") is None and pixels.get("Type") == "uint8"


@pytest.mark.parametrize(
    ("size", "expected"), [(0.5, ["0.5", "0.5"]), ([0.5, 0.25], ["0.5", "0.25"])]
)
def test_tiff_says_how_large_a_pixel_is(tmp_path: Path, size: object, expected: list[str]) -> None:
    label = label_of("slide.png", blobs((20, 30)), **{MICROMETERS: size})
    SaveImageAsd("pred", str(tmp_path), "tiff", write_metadata(tmp_path))({"pred": label})
    with tifffile.TiffFile(tmp_path / "slide_label.ome.tif") as file:
        pixels = ElementTree.fromstring(file.ome_metadata).find(f".//{OME}Pixels")
        image = ElementTree.fromstring(file.ome_metadata).find(f".//{OME}Image")
    assert pixels is not None and image is not None and image.get("Name") == "slide"
    assert [pixels.get(f"PhysicalSize{axis}") for axis in "XY"] == expected
    assert [pixels.get(f"PhysicalSize{axis}Unit") for axis in "XY"] == ["µm", "µm"]
