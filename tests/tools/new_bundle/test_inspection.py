from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_data import write_picture, write_volume

from ldseg_monai.data.datalist import paired_datalist
from ldseg_monai.data.formats import value_number
from ldseg_monai.tools.new_bundle.inspection import Inspection, inspect_datalist


def inspect(folder: Path) -> Inspection:
    return inspect_datalist(paired_datalist(folder))


def volume(shape=(4, 6, 8)) -> tuple[np.ndarray, np.ndarray]:
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    label = np.zeros(shape, np.uint8)
    label[:2] = 1
    return image, label


def test_volume_is_measured_along_anatomical_axes(tmp_path: Path) -> None:
    image, label = volume()
    affine = np.array(
        [[0, 0, -3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]], float
    )  # axes A, S, L
    write_volume(tmp_path, "a", image, label, affine)
    case = inspect(tmp_path).cases[0]
    assert case.shape == (8, 4, 6)
    assert case.spacing == (3, 1, 2)
    assert (case.low, case.high) == (0, image.max())
    assert case.counts == {0: 96, 1: 96}
    np.testing.assert_array_equal(np.sort(case.foreground), np.sort(image[:2].ravel()))


def test_picture_is_measured_in_columns_and_rows(tmp_path: Path) -> None:
    gray = np.arange(24, dtype=np.uint8).reshape(4, 6)
    write_picture(tmp_path, "a", np.stack([gray] * 3, axis=-1), (gray > 20).astype(np.uint8) * 255)
    inspection = inspect(tmp_path)
    assert inspection.cases[0].shape == (6, 4)
    assert inspection.label_values == [0, 255]
    assert inspection.spatial_dims == 2 and not inspection.colored


def test_colors_are_colors(tmp_path: Path) -> None:
    colors = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    write_picture(tmp_path, "a", colors, np.ones((4, 6), np.uint8))
    assert inspect(tmp_path).colored


def test_16_bits_are_kept(tmp_path: Path) -> None:
    write_picture(
        tmp_path,
        "a",
        np.arange(3977, 4001, dtype=np.uint16).reshape(4, 6),
        np.ones((4, 6), np.uint8),
    )
    assert inspect(tmp_path).cases[0].high == 4000


def test_little_is_kept_of_a_large_foreground(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ldseg_monai.tools.new_bundle.inspection.SAMPLED_VOXELS", 10)
    for name, columns in (
        ("a", 6),
        ("b", 3),
        ("c", 1),
    ):  # 24, 12 and 4 voxels, 2 of them background
        label = np.ones((4, columns), np.uint8)
        label[:2, 0] = 0
        write_picture(
            tmp_path, name, np.arange(4 * columns, dtype=np.uint8).reshape(4, columns), label
        )
    kept = [case.foreground for case in inspect(tmp_path).cases]
    assert [len(values) for values in kept] == [8, 10, 2]
    assert all(values.base is None for values in kept)


def test_stack_of_pictures_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path, "a", np.zeros((4, 6), np.uint8), np.ones((4, 6), np.uint8))
    (tmp_path / "images" / "a.png").unlink()
    page = Image.fromarray(np.zeros((4, 6), np.uint8))
    page.save(tmp_path / "images" / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(ValueError, match=r"a\.tif is a stack of pages: expected one picture"):
        inspect(tmp_path)


def test_shares_are_means_over_cases_and_table_has_the_median(tmp_path: Path) -> None:
    for name, side in (("a", 4), ("b", 6), ("c", 20)):
        image, label = volume((side, 6, 8))
        write_volume(tmp_path, name, image, label)
    inspection = inspect(tmp_path)
    assert inspection.share(1) == pytest.approx(np.mean([2 / 4, 2 / 6, 2 / 20]))
    assert inspection.cases_with(1) == ["a", "b", "c"] and inspection.cases_with(2) == []
    assert (
        dict(inspection.table())["size (min / median / max)"]
        == "4 x 6 x 8 / 6 x 6 x 8 / 20 x 6 x 8"
    )


@pytest.mark.parametrize(("low", "ct"), [(-1000.0, True), (-3.0, False)])
def test_hounsfield_units_are_known_by_their_air(tmp_path: Path, low: float, ct: bool) -> None:
    image, label = volume()
    write_volume(tmp_path, "a", image + low, label)
    assert inspect(tmp_path).is_ct is ct


@pytest.mark.parametrize(
    ("value", "lowest", "ct", "told"),
    [
        (-32768, 0, False, "25% of the voxels of a are -32768, and all others 48 to 191"),
        (-32768, -1000, True, "25% of the voxels of a are -32768, and all others -952 to -809"),
        (65535, 0, False, "25% of the voxels of a are 65535, and all others 48 to 191"),
        (-200, 0, True, ""),  # as air and tissue lie
    ],
)
def test_padding_is_told_and_no_air(
    tmp_path: Path, value: int, lowest: int, ct: bool, told: str
) -> None:
    image, label = volume()
    image += lowest
    image[0] = value
    write_volume(tmp_path, "a", image, label)
    inspection = inspect(tmp_path)
    notes = [note for note in inspection.warnings if "padding" in note]
    assert inspection.is_ct is ct
    assert notes == [note for note in notes if note.startswith(told)] and bool(notes) is bool(told)


def test_one_slice_is_told(tmp_path: Path) -> None:
    write_volume(tmp_path, "a", *volume((4, 6, 1)))
    with pytest.raises(ValueError, match=r"has shape \(4, 6, 1\), one slice: expected several"):
        inspect(tmp_path)


def corrupt(kind: str, image: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    other = {
        "nan": {"image": np.where(image == 7, np.nan, image)},
        "size": {"label": label[:-1]},
        "fraction": {"label": label * np.float32(0.5)},
        "negative": {"label": -label.astype(np.int16)},
        "axes of time": {"image": np.stack([image[..., None]] * 2, axis=-1).repeat(2, 3)},
        "label of channels": {"label": np.stack([label, label], axis=-1)},
        "axes": {"label_affine": np.diag([-1.0, 1, 1, 1])},
        "shifted": {
            "label_affine": np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        },
        "constant": {"image": image * 0 + 5},
        "empty": {"label": label * 0},
    }
    return {"image": image, "label": label, **other[kind]}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "not finite"),
        ("size", "expected the same"),
        ("fraction", "has the values 0.5: expected whole numbers"),
        ("negative", "values -1 to 0"),
        ("axes of time", "expected a volume of three axes, and perhaps one of channels"),
        ("label of channels", "expected a volume of three axes, with a class in each voxel"),
        ("axes", "lies up to .* voxels beside its image"),
        ("shifted", "lies up to 1 voxels beside its image"),
        ("constant", "every voxel of .* is 5"),
        ("empty", "every label of the 1 cases is 0"),
    ],
)
def test_what_no_training_can_use_is_an_error(tmp_path: Path, kind: str, message: str) -> None:
    write_volume(tmp_path, "a", **corrupt(kind, *volume()))
    with pytest.raises(ValueError, match=message):
        inspect(tmp_path)


def test_channels_are_measured_each_and_of_one_number(tmp_path: Path) -> None:
    image, label = volume()
    both = np.stack([image, image**2 + 3], axis=-1)
    write_volume(tmp_path, "a", both, label)
    write_volume(tmp_path, "b", both, label)
    inspection = inspect(tmp_path)
    assert (inspection.channels, inspection.is_ct, len(inspection.shapes[0])) == (2, False, 3)
    assert inspection.channel_names == ["channel 0", "channel 1"]
    assert ("channels", "channel 0, channel 1") in inspection.table()
    for channel, found in zip(both.T, inspection.cases[0].quantiles, strict=True):
        standard = (channel - channel.mean()) / channel.std()
        assert found["middle"] == pytest.approx(np.median(standard), abs=1e-4)
    write_volume(tmp_path, "b", image, label)
    with pytest.raises(
        ValueError, match="b has 1 channel and a 2 channels: expected as many of ev"
    ):
        inspect(tmp_path)


def test_every_faulty_case_is_named_at_once(tmp_path: Path) -> None:
    image, label = volume()
    for name in "abc":
        write_volume(tmp_path, name, image * (np.nan if name != "b" else 1), label)
    with pytest.raises(ValueError) as error:
        inspect(tmp_path)
    assert all((f"{name}.nii.gz" in str(error.value)) is (name != "b") for name in "abc")


def test_colors_are_values_of_their_own(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 64, 0]], np.uint8)  # of one gray
    numbers = np.repeat([0, 1, 2], 8).reshape(4, 6)
    for name, order in (("a", [0, 1, 2]), ("b", [0, 2, 1])):
        write_picture(
            tmp_path, name, np.arange(24, dtype=np.uint8).reshape(4, 6), colors[order][numbers]
        )
    inspection = inspect(tmp_path)
    values = [0, value_number("#004000"), value_number("#800000")]
    assert inspection.label_values == values
    assert [case.counts for case in inspection.cases] == [dict.fromkeys(values, 8)] * 2


def test_axes_of_1_and_floats_are_taken_as_in_training(tmp_path: Path) -> None:
    image, label = volume()
    write_volume(tmp_path, "a", image[..., None], label * np.float32(0.99999994))
    case = inspect(tmp_path).cases[0]
    assert case.shape == (4, 6, 8) and case.counts == {0: 96, 1: 96}


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    write_picture(tmp_path, "a", np.zeros((4, 6), np.uint8), np.ones((4, 6), np.uint8))
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be read"):
        inspect(tmp_path)


def test_volumes_beside_pictures_are_refused(tmp_path: Path) -> None:
    write_volume(tmp_path, "a", *volume())
    write_picture(tmp_path, "b", np.zeros((4, 6), np.uint8), np.ones((4, 6), np.uint8))
    with pytest.raises(ValueError, match="volumes beside pictures"):
        inspect(tmp_path)


def test_what_may_be_meant_is_a_warning(tmp_path: Path) -> None:
    image, label = volume()
    write_volume(tmp_path, "empty", image, label * 0)
    write_volume(tmp_path, "wide", image, label, np.diag([2.0, 1, 1, 1]))
    warnings = "\n".join(inspect(tmp_path).warnings)
    assert "empty: the label is all background" in warnings
    assert "from 1 x 1 x 1 to 2 x 1 x 1 mm" in warnings and "2 cases are few" in warnings
    assert "measured on 8 cases or more" in warnings


def test_labels_without_a_background_are_said(tmp_path: Path) -> None:
    image, label = volume()
    write_volume(tmp_path, "a", image=image, label=label + 1)
    told = inspect(tmp_path).warnings
    assert any("no label has the value 0, the background, but 1, 2" in text for text in told)
    write_volume(tmp_path, "a", image=image, label=label)
    assert not any("no label has the value 0" in text for text in inspect(tmp_path).warnings)
