"""What the values of label files mean: gray values, palettes, colors, floats, softened outlines."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from PIL import Image

from ldseg_monai.data import LoadImagePictured, LoadImageVolumed
from ldseg_monai.data.formats import COLOR, LabelReading, label_picture, value_name, value_number

MASK = np.zeros((20, 30), np.uint8)
MASK[4:9, 5:20] = 1  # 75 of 600 pixels


def red_and_green() -> np.ndarray:
    """A mask whose left half is class 1 and whose right half is class 2."""
    mask = MASK.copy()
    mask[:, 12:] *= 2
    return mask


def colored(mask: np.ndarray, colors: list[tuple[int, int, int]]) -> Image.Image:
    return Image.fromarray(np.array(colors, np.uint8)[mask])


def listed(mask: np.ndarray, colors: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(mask)
    picture.putpalette(np.array(colors, np.uint8).tobytes())
    assert picture.mode == "P"
    return picture


def read(folder: Path, picture: Image.Image, name: str = "a.png", **options: Any) -> np.ndarray:
    """Values, ``(rows, columns)``."""
    picture.save(folder / name)
    return LabelReading(**options).picture(str(folder / name)).T


BLACK, WHITE, RED, GREEN, BLUE = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 64, 0), (0, 0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "F", "RGB", "RGBA"])
def test_gray_labels_have_their_gray_values(tmp_path: Path, mode: str) -> None:
    pixels: np.ndarray = {
        "1": MASK.astype(bool),
        "I;16": 700 * MASK.astype(np.uint16),
        "F": 4 * MASK.astype(np.float32),
    }.get(mode, 4 * MASK)
    if mode == "LA":
        pixels = np.dstack([pixels, np.full_like(MASK, 255)])
    elif mode.startswith("RGB"):
        pixels = np.dstack([pixels, pixels, pixels, np.full_like(MASK, 255)])[..., : len(mode)]
    picture = Image.fromarray(pixels)
    assert picture.mode == mode
    drawn = {"1": 1, "I;16": 700}.get(mode, 4)
    name = "a.tif" if mode == "F" else "a.png"
    assert np.array_equal(read(tmp_path, picture, name), drawn * MASK.astype(int))


def test_a_mask_as_pillow_lists_its_two_colors_is_not_inverted(tmp_path: Path) -> None:
    for mask in (MASK, 1 - MASK):
        for colors in ([BLACK, WHITE], [BLACK, RED]):
            picture = colored(mask, colors).quantize(2)
            assert np.array_equal(read(tmp_path, picture), mask)


@pytest.mark.parametrize("padding", [0, 200])
def test_indices_are_classes_behind_a_first_color_that_is_black(
    tmp_path: Path, padding: int
) -> None:
    picture = listed(
        red_and_green(), [BLACK, RED, GREEN, *[(9, 9, index) for index in range(padding)]]
    )
    assert np.array_equal(read(tmp_path, picture), red_and_green())
    alone = np.where(MASK, 2, 0).astype(np.uint8)  # the first class is not in this file
    assert np.array_equal(read(tmp_path, listed(alone, [BLACK, RED, GREEN])), alone)


def test_indices_of_a_list_of_grays_are_gray_values(tmp_path: Path) -> None:
    picture = Image.fromarray(np.where(MASK, 7, 3).astype(np.uint8)).convert("P")
    assert np.unique(read(tmp_path, picture)).tolist() == [3, 7]


def test_black_elsewhere_in_a_palette_is_still_the_background(tmp_path: Path) -> None:
    values = read(tmp_path, listed(red_and_green(), [RED, BLACK, GREEN]))
    expected = [value_number("#800000"), 0, value_number("#004000")]
    assert np.array_equal(values, np.array(expected)[red_and_green()])


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ([WHITE, RED, GREEN], r"no black in its palette \(0 #ffffff, 1 #800000, 2 #004000\)"),
        ([BLACK, RED, RED], r"one color at several indices .*1 #800000, 2 #800000"),
    ],
)
def test_palette_that_does_not_tell_is_refused_and_shown(
    tmp_path: Path, colors: list, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, listed(red_and_green(), colors))


def test_palettes_of_a_data_set_must_agree(tmp_path: Path) -> None:
    reading = LabelReading()
    for name, colors in (("a", [BLACK, RED, GREEN]), ("b", [BLACK, GREEN, RED])):
        listed(red_and_green(), colors).save(tmp_path / f"{name}.png")
    reading.picture(str(tmp_path / "a.png"))
    with pytest.raises(
        ValueError, match=r"b.png has #004000 for 1 .*a.png #800000 for 1: expected"
    ):
        pickle.loads(pickle.dumps(reading)).picture(str(tmp_path / "b.png"))
    by_color = LabelReading([0, "#800000", "#004000"])
    one, other = (by_color.picture(str(tmp_path / f"{name}.png")).T for name in "ab")
    swapped = np.array([0, value_number("#004000"), value_number("#800000")])
    assert np.array_equal(other, swapped[red_and_green()]) and not np.array_equal(one, other)
    ids = LabelReading(instances=True)  # whose colors are drawn at random
    assert all((ids.picture(str(tmp_path / f"{name}.png")).T > 0).sum() == 75 for name in "ab")


def test_colors_stay_apart_and_are_named(tmp_path: Path) -> None:
    colors = [BLACK, RED, GREEN, BLUE, WHITE, (0, 0, 3), (3, 3, 3)]
    values = read(tmp_path, Image.fromarray(np.array([colors], np.uint8)), any_outline=True)[0]
    names = ["0", "#800000", "#004000", "#0000ff", "255", "#000003", "3"]
    assert [value_name(value) for value in values] == names
    as_text = [name if name[0] == "#" else int(name) for name in names]
    assert [value_number(value) for value in as_text] == values.tolist()
    assert value_number("#FFFFFF") == 255 and len(set(values)) == len(colors)
    assert np.array_equal(np.asarray(label_picture(values[None]))[0], colors)


@pytest.mark.parametrize("text", ["red", "#12345", "800000"])
def test_text_that_is_no_color_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"label value '{text}': expected a whole number, or"):
        value_number(text)


def test_more_colors_than_classes_are_counted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"a.png has 600 colors: expected at most 64"):
        read(tmp_path, Image.fromarray(noise))
    ids = np.zeros((20, 30, 3), np.uint8)
    for number in range(1, 100):  # squares in colors of their own
        row, column = divmod(number, 10)
        ids[2 * row : 2 * row + 1, 3 * column : 3 * column + 2] = number, 255 - number, 7
    assert len(np.unique(read(tmp_path, Image.fromarray(ids), instances=True))) == 100


def test_colors_without_black_are_refused_unless_they_are_named(tmp_path: Path) -> None:
    picture = colored(MASK, [WHITE, RED])
    with pytest.raises(ValueError, match="colors 255, #800000 and no black, so nothing says"):
        read(tmp_path, picture)
    values = read(tmp_path, picture, label_values=["#ffffff", "#800000"])
    assert np.unique(values).tolist() == [255, value_number("#800000")]


def test_what_is_transparent_is_not_drawn(tmp_path: Path) -> None:
    shown = np.dstack([np.full((20, 30, 3), 255, np.uint8), 255 * MASK])
    assert np.array_equal(read(tmp_path, Image.fromarray(shown)), 255 * MASK.astype(int))
    with pytest.raises(ValueError, match="is transparent everywhere"):
        read(tmp_path, Image.fromarray(0 * shown))
    for drawn in (0, 255 * MASK[:, ::-1, None]):  # all of it black, or a part
        black = np.dstack([np.zeros_like(shown[..., :3]) + drawn, 255 * MASK])
        with pytest.raises(ValueError, match="has black and transparent pixels, and either may"):
            read(tmp_path, Image.fromarray(black.astype(np.uint8)))
    shown[4, 5, 3] = 100
    with pytest.raises(ValueError, match="transparent in 3 degrees: .* softened outline"):
        read(tmp_path, Image.fromarray(shown))


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_instance_ids_leave_something_to_the_background(tmp_path: Path, ending: str) -> None:
    """Background 1 and object 255, or an ignored -1, became one object that is everywhere."""

    def values(mask: np.ndarray) -> np.ndarray:
        path = str(tmp_path / f"a{ending}")
        reading = LabelReading(instances=True)
        if ending == ".png":
            Image.fromarray(mask).save(path)
            return reading.picture(path).T
        nib.save(nib.Nifti1Image(mask[..., None], np.eye(4)), path)
        return reading.volume(path)[0][..., 0]

    everywhere = MASK * 0 + 7
    for good in (MASK, 9 * MASK, MASK * 0, everywhere):
        assert np.array_equal(values(good), good)
    with pytest.raises(ValueError, match="has the values 1, 255: expected instance ids from 1"):
        values(1 + 254 * MASK)
    if ending != ".png":
        with pytest.raises(ValueError, match="has the values -1, 0: expected instance ids"):
            values(-MASK.astype(np.int16))


def test_a_scaling_that_makes_every_class_0_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(MASK[..., None] * np.float32(2e-6), np.eye(4)), path)
    with pytest.raises(
        ValueError, match=r"values up to [12].*e-06, .* 0 as whole numbers.*scl_slope"
    ):
        LabelReading().volume(path)
    assert not LabelReading().picture(saved(tmp_path / "b.tif", 0.0 * MASK)).any()


def saved(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels.astype(np.float32)).save(path)
    return str(path)


def soft(mask: np.ndarray, high: float = 255.0) -> np.ndarray:
    """A mask of twice the size, resized to its own by averages."""
    odd = np.pad(np.repeat(np.repeat(mask, 2, 0), 2, 1), ((1, 1), (1, 1)))
    return np.asarray(
        Image.fromarray(odd.astype(np.float32) * high).resize(
            mask.shape[::-1], Image.Resampling.BOX
        )
    )


@pytest.mark.parametrize("kind", ["gray", "color", "volume"])
def test_softened_outlines_are_refused(tmp_path: Path, kind: str) -> None:
    values = soft(MASK).astype(np.uint8)
    assert len(np.unique(values)) > 3
    message = "along outlines alone, between 0 and .*softened outline\\? threshold it"
    with pytest.raises(ValueError, match=message):
        if kind == "gray":
            read(tmp_path, Image.fromarray(values), instances=True)
        elif kind == "color":
            read(tmp_path, Image.fromarray(np.dstack([values, 0 * values, 0 * values])))
        else:
            volume = np.repeat(values[..., None], 5, axis=2)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii.gz")
            LabelReading().volume(str(tmp_path / "a.nii.gz"))


def test_softened_outlines_of_several_classes_are_refused(tmp_path: Path) -> None:
    halves = MASK * np.where(np.arange(MASK.shape[1]) < 12, 100, 200).astype(np.uint8)
    wide = Image.fromarray(np.kron(halves, np.ones((8, 8), np.uint8)))
    values = np.asarray(wide.resize((360, 240), Image.Resampling.BILINEAR))
    middle = (values == 100).sum()
    assert middle > 0.5 * ((values > 0) & (values < 200)).sum()  # a class, and not a slope
    with pytest.raises(ValueError, match="along outlines alone, between 0 and 200"):
        read(tmp_path, Image.fromarray(values))


def test_thin_classes_and_instances_are_no_softened_outlines(tmp_path: Path) -> None:
    vessels = np.zeros((20, 30), np.uint8)
    vessels[5], vessels[12], vessels[:, 9] = 128, 255, 255  # an artery that two veins cross
    blobs = np.kron(np.arange(6).reshape(2, 3) * 50, np.ones((10, 10), int)).astype(np.uint8)
    for values in (vessels, blobs, 80 * red_and_green()):
        assert np.array_equal(read(tmp_path, Image.fromarray(values)), values)
    ring = soft(MASK).astype(np.uint8) // 64 * 64  # which a person says are classes
    known = np.unique(ring).tolist()
    assert np.array_equal(read(tmp_path, Image.fromarray(ring), label_values=known), ring)
    assert np.array_equal(read(tmp_path, Image.fromarray(ring), any_outline=True), ring)


def volume_pair(folder: Path, label: np.ndarray, slope: float = 1.0) -> dict[str, str]:
    paths = {name: str(folder / f"{name}.nii.gz") for name in ("image", "label")}
    image = np.arange(label.size, dtype=np.float32).reshape(label.shape)
    nib.save(nib.Nifti1Image(image, np.eye(4)), paths["image"])
    file = nib.Nifti1Image(label, np.eye(4))
    if slope != 1:
        file.header.set_slope_inter(slope, 0)
    nib.save(file, paths["label"])
    return paths


@pytest.mark.parametrize("offset", [0.0, 6e-8, 4e-4])
def test_floats_beside_whole_numbers_are_these(tmp_path: Path, offset: float) -> None:
    label = red_and_green()[..., None].repeat(3, axis=2)
    paths = volume_pair(tmp_path, (label * (1 - offset)).astype(np.float32))
    case = LoadImageVolumed(["image", "label"], num_classes=3)(paths)
    assert np.array_equal(case["label"][0], label)


def test_a_slope_is_applied(tmp_path: Path) -> None:
    label = red_and_green()[..., None].repeat(3, axis=2)
    paths = volume_pair(tmp_path, label.astype(np.int16) * 10000, slope=1e-4)
    values = np.asanyarray(nib.load(paths["label"]).dataobj)
    assert not np.array_equal(values, label)  # but near
    case = LoadImageVolumed(["image", "label"], num_classes=3)(paths)
    assert np.array_equal(case["label"][0], label)


def test_fractions_are_shown_with_their_digits(tmp_path: Path) -> None:
    label = MASK[..., None].repeat(3, axis=2) * np.float32(0.998)
    message = "label.nii.gz has the values 0.998000026: expected whole numbers, .* nearest neighbor"
    with pytest.raises(ValueError, match=message):
        LoadImageVolumed(["image", "label"], num_classes=3)(volume_pair(tmp_path, label))


def test_label_values_may_name_colors(tmp_path: Path) -> None:
    paths = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png")}
    colored(red_and_green(), [BLACK, RED, GREEN]).save(paths["label"])
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(paths["image"])
    load = LoadImagePictured(
        ["image", "label"], num_classes=3, label_values=[0, "#800000", "#004000"]
    )
    config = {
        "label_values": [0, "#800000", "#004000"],
        "load": {
            "_target_": "ldseg_monai.data.LoadImagePictured",
            "keys": ["image", "label"],
            "num_classes": 3,
            "label_values": "@label_values",
        },
    }
    of_config = ConfigParser(config).get_parsed_content("load")  # MONAI writes :: for each #
    for loads in (load, of_config):
        label = loads(paths)["label"]
        assert label.dtype == torch.uint8
        assert np.array_equal(label[0].T, red_and_green())
    without = LoadImagePictured(["image", "label"], num_classes=3)
    with pytest.raises(ValueError, match="has the values #004000, #800000: .* in label_values"):
        without(paths)


def test_a_label_whose_0_is_white_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ldseg_monai.data.formats.kinds._told", set())
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, MASK.astype(bool))  # as tifffile has it, white where it is False
    assert np.array_equal(LabelReading().picture(str(path)).T, 1 - MASK)
    assert "mask.tif says that its 0 is white" in caplog.text


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_label_without_exact_colors_is_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ValueError, match=f"a.tif is of mode {mode}, in which colors are not exact"):
        read(tmp_path, colored(MASK, [BLACK, RED]).convert(mode), "a.tif")


def test_a_color_is_no_gray_value() -> None:
    assert value_number("#0000ff") == COLOR + 255 != value_number("#ffffff")
