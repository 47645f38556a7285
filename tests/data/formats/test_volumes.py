"""Where a volume is: forms, codes, units and axes of 1, by closed forms, nibabel and SimpleITK."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from monai.transforms import Orientationd

from ldseg_monai.data import LoadImageVolumed, NiftiReader
from ldseg_monai.data.formats import kinds, load_volume
from ldseg_monai.data.formats.volumes import read_voxels

VOXELS = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
QFORM = np.array([[2.0, 0, 0, 1], [0, 3, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]])
SFORM = QFORM + np.array([[0, 0, 0, 10.0], [0, 0, 0, -5], [0, 0, 0, 3], [0, 0, 0, 0]])


@pytest.fixture
def told_anew(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was told before, and what is told now is caught."""
    monkeypatch.setattr(kinds, "_told", set())
    caplog.set_level(logging.WARNING, "ldseg_monai.data")


def write(
    path: Path,
    voxels: np.ndarray = VOXELS,
    qform: np.ndarray = QFORM,
    qcode: int = 1,
    sform: np.ndarray = QFORM,
    scode: int = 1,
    change: Callable[[Any], None] = lambda header: None,
) -> str:
    header = nib.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_qform(qform, qcode)
    header.set_sform(sform, scode)
    change(header)
    nib.save(nib.Nifti1Image(voxels, None, header), path)
    return str(path)


def test_one_form_says_nothing(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    for qcode, scode in ((1, 1), (1, 0), (0, 2), (3, 4)):
        path = write(tmp_path / f"{qcode}{scode}.nii.gz", qcode=qcode, scode=scode)
        np.testing.assert_allclose(load_volume(path).affine, QFORM)
    assert not [text for text in caplog.messages if ".nii" in text]


def test_the_sform_is_used_and_named_where_the_two_differ(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nii.gz", sform=SFORM, scode=2)
    for _ in range(2):
        np.testing.assert_allclose(load_volume(path).affine, SFORM)
    told = [text for text in caplog.messages if path in text]
    shift = np.linalg.norm([10, -5, 3]) / 2  # in the smallest voxel side
    assert len(told) == 1
    assert f"an sform (code 2) and a qform (code 1) that differ by {shift:.3g} voxels" in told[0]
    assert "used the sform" in told[0]
    beside = QFORM.copy()
    beside[0, 3] += 1.5  # mm, of voxels of 2 mm
    near = write(tmp_path / "b.nii.gz", sform=beside)
    load_volume(near)
    assert not [text for text in caplog.messages if near in text]


def test_a_volume_without_codes_is_not_mirrored(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nii.gz", qcode=0, scode=0)
    assert nib.load(path).affine[0, 0] == -2  # which nibabel mirrors
    np.testing.assert_allclose(load_volume(path).affine, np.diag([2.0, 3, 4, 1]))
    (told,) = [text for text in caplog.messages if path in text]
    assert "no form code" in told and "used its voxel size of 2 x 3 x 4 mm" in told
    with pytest.raises(ValueError, match="a.nii.gz has no form code .*--require_codes False"):
        LoadImageVolumed("image", require_codes=True)({"image": path})


def test_a_qform_that_is_none_does_not_stop_the_sform(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.nii"
    write(path)
    content = bytearray(path.read_bytes())
    content[256:264] = np.array([3, 3], np.float32).tobytes()  # quatern_b and quatern_c
    path.write_bytes(bytes(content))
    np.testing.assert_allclose(load_volume(str(path)).affine, QFORM)
    assert any("qform that is none: used its sform" in text for text in caplog.messages)


def test_voxel_sizes_that_differ_are_said(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    wide = QFORM @ np.diag([2.0, 2, 2, 1])
    path = write(tmp_path / "a.nii.gz", qcode=0, sform=wide)
    np.testing.assert_allclose(load_volume(path).affine, wide)
    assert any("4 x 6 x 8 mm by its sform and of 2 x 3 x 4 mm" in text for text in caplog.messages)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_units_are_brought_to_millimeters_as_by_itk(
    tmp_path: Path, unit: str, factor: float
) -> None:
    def to_unit(header: nib.Nifti1Header) -> None:
        header.set_xyzt_units(unit)

    path = write(tmp_path / "a.nii.gz", change=to_unit)
    affine = load_volume(path).affine
    np.testing.assert_allclose(affine[:3], factor * QFORM[:3])
    np.testing.assert_allclose(np.diag(affine)[:3], sitk.ReadImage(path).GetSpacing())
    path = write(tmp_path / "no_code.nii.gz", qcode=0, scode=0, change=to_unit)
    spacing = np.diag(load_volume(path).affine)[:3]
    np.testing.assert_allclose(spacing, sitk.ReadImage(path).GetSpacing())


@pytest.mark.parametrize(
    "shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1), (1, 4, 5, 6), (1, 1, 4, 5, 6), (4, 5, 1, 1)]
)
def test_axes_of_1_are_dropped_and_said_once(
    tmp_path: Path, shape: tuple, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    size = (4, 5, 1) if shape == (4, 5, 1, 1) else (4, 5, 6)
    label = (VOXELS[tuple(map(slice, size))] > 9).astype(np.uint8)
    paths = {}
    for name, values in (("image", VOXELS[tuple(map(slice, size))]), ("label", label)):
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(values.reshape(shape), QFORM), paths[name])
    case = LoadImageVolumed(["image", "label"], num_classes=2)(paths)
    assert case["image"].shape == case["label"].shape == (1, *size)
    assert np.array_equal(case["label"][0], label)
    told = [text for text in caplog.messages if "without axes of 1" in text]
    assert len(told) == 1 and f"has shape {list(shape)}: read as {list(size)}" in told[0]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 5, 6, 2), "has 2 channels: expected 1"),
        ((4, 5, 6, 1, 3), "has 3 channels: expected 1"),
        ((1, 4, 5, 3), r"has shape \[1, 4, 5, 3\], one slice of 3 channels or a volume behind"),
    ],
)
def test_other_axes_are_channels(tmp_path: Path, shape: tuple, message: str) -> None:
    path = str(tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random(shape, np.float32), QFORM), path)
    with pytest.raises(ValueError, match=message):
        LoadImageVolumed("image")({"image": path})


@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd", "nhdr", "MHA"])
def test_what_simpleitk_reads_is_in_its_place(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(VOXELS.transpose(2, 1, 0))
    image.SetSpacing((2, 3, 4))
    image.SetOrigin((-7, 11, 13))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    written = tmp_path / f"a.{ending.lower()}"
    sitk.WriteImage(image, str(written))
    path = written.rename(tmp_path / f"a.{ending}")
    case = LoadImageVolumed("image")({"image": str(path)})["image"]
    assert np.array_equal(case[0], VOXELS)
    for index in ((0, 0, 0), (3, 1, 5)):
        place = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        np.testing.assert_allclose((case.affine.numpy() @ [*index, 1])[:3], place, atol=1e-6)


def test_itk_files_with_channels_or_cut_short_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.mha")
    sitk.WriteImage(sitk.GetImageFromArray(np.random.rand(6, 5, 4, 2), isVector=True), path)
    with pytest.raises(ValueError, match="has 2 channels: expected 1"):
        LoadImageVolumed("image")({"image": path})
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:100])
    with pytest.raises(ValueError, match="a.mha cannot be read"):
        LoadImageVolumed("image")({"image": path})


def test_files_of_several_channels_share_a_place(tmp_path: Path) -> None:
    one, two = (
        write(tmp_path / f"{name}.nii.gz", VOXELS + shift) for name, shift in (("a", 0), ("b", 1))
    )
    image = LoadImageVolumed("image", channels=2)({"image": [one, two]})["image"]
    assert np.array_equal(image, np.stack([VOXELS, VOXELS + 1]))
    moved = write(tmp_path / "c.nii.gz", qform=SFORM, sform=SFORM)
    with pytest.raises(ValueError, match=r"c.nii.gz lies up to .* voxels beside .*a.nii.gz"):
        NiftiReader().get_data([one, moved])
    with pytest.raises(ValueError, match=r"d.nii.gz has size .* expected the same three axes"):
        NiftiReader().get_data([one, write(tmp_path / "d.nii.gz", VOXELS[:2])])


def test_a_label_made_with_nibabel_lies_on_its_image_without_codes(tmp_path: Path) -> None:
    image = write(tmp_path / "image.nii.gz", qcode=0, scode=0)
    label = (VOXELS > 50).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, nib.load(image).affine), tmp_path / "label.nii.gz")
    load = LoadImageVolumed(["image", "label"], num_classes=2)
    case = load({"image": image, "label": str(tmp_path / "label.nii.gz")})
    turned = Orientationd(["image", "label"], "LPS", labels=None)(case)
    assert np.array_equal(turned["label"] == 1, turned["image"] > 50)


@pytest.mark.parametrize("form", [QFORM, SFORM])
def test_a_label_by_either_form_lies_on_its_image(tmp_path: Path, form: np.ndarray) -> None:
    paths = {"image": write(tmp_path / "image.nii.gz", sform=SFORM)}
    label = (VOXELS > 50).astype(np.uint8)
    paths["label"] = write(tmp_path / "label.nii.gz", label, qform=form, sform=form)
    case = LoadImageVolumed(["image", "label"], num_classes=2)(paths)
    np.testing.assert_allclose(case["label"].affine, SFORM)
    beside = SFORM + np.array([[0, 0, 0, 2.0], [0] * 4, [0] * 4, [0] * 4])
    paths["label"] = write(tmp_path / "beside.nii.gz", label, qform=beside, sform=beside)
    with pytest.raises(ValueError, match="beside.nii.gz lies up to 1 voxels beside its image"):
        LoadImageVolumed(["image", "label"], num_classes=2)(paths)


def test_a_header_that_itk_does_not_take_for_a_meta_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(60).reshape(3, 4, 5)), str(path))
    path.write_bytes(path.read_bytes().replace(b"ObjectType = Image", b"ObjectType = Im\0ge"))
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(path))
    with pytest.raises(ValueError, match=r"a.mha cannot be read \(SimpleITK knows no such header"):
        load_volume(str(path))


@pytest.mark.parametrize("ending", [".nii.gz", ".Nii.GZ"])
def test_checksum_of_a_compressed_file_is_compared(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    large = np.random.default_rng(0).normal(size=(20, 20, 20))  # past what nibabel opens a file by
    good = gzip.compress(Path(write(tmp_path / "b.nii", large)).read_bytes())
    path.write_bytes(good)
    voxels, _ = read_voxels(str(path))
    np.testing.assert_array_equal(voxels, large)
    path.write_bytes(good[:-8] + bytes([good[-8] ^ 1]) + good[-7:])
    with pytest.raises(ValueError, match=r"a\.\w+\.\w+ cannot be read \(CRC check failed"):
        read_voxels(str(path))


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0)])
@pytest.mark.parametrize("axes", [[1], [3], [1, 2, 3]])
def test_a_voxel_size_below_0_is_refused(
    tmp_path: Path, codes: tuple[int, int], axes: list[int]
) -> None:
    path = write(tmp_path / "a.nii", qcode=codes[0], scode=codes[1])
    right = sitk.GetArrayFromImage(sitk.ReadImage(path)), sitk.ReadImage(path).GetDirection()
    change_header(path, pixdim=[-4.0 if axis in axes else 2.0 for axis in range(8)])
    assert sitk.ReadImage(path).GetDirection() != right[1]  # mirrored, where nibabel's is not
    with pytest.raises(ValueError, match=r"a.nii has a voxel spacing of .*-4.*expected positive"):
        load_volume(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("offset", "message"),
    [(0, "has its voxels from byte 0 on"), (348, "cannot be read .vox offset 348 too low")],
)
def test_voxels_within_the_header_are_refused(
    tmp_path: Path, kind: type, offset: int, message: str
) -> None:
    path = str(tmp_path / "a.nii")
    nib.save(kind(VOXELS, QFORM), path)
    np.testing.assert_array_equal(read_voxels(path)[0], VOXELS)
    change_header(path, kind.header_class, vox_offset=offset)
    with pytest.raises(ValueError, match=f"a.nii {message}"):
        load_volume(path)


def test_a_code_that_no_form_has_is_refused(tmp_path: Path) -> None:
    """nibabel takes it for 0 and mirrors the volume; ITK takes the form."""
    for field, code in (("sform_code", 99), ("sform_code", -1), ("qform_code", 6)):
        path = write(tmp_path / "a.nii")
        change_header(path, **{field: code})
        with pytest.raises(ValueError, match=f"a.nii has the {field} {code}: expected 0 to 5"):
            load_volume(path)


def test_voxel_sizes_that_are_none_beside_an_sform_are_said(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nii", qcode=0)
    change_header(path, pixdim=[1] + [np.nan] * 7)
    np.testing.assert_allclose(load_volume(path).affine, QFORM)
    told = "a.nii has voxels of 2 x 3 x 4 mm by its sform and of nan x nan x nan mm by pixdim"
    assert told in caplog.text


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_header_that_leaves_voxels_out_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T), path, useCompression=ending == ".nii.gz")
    content = gzip.decompress(path.read_bytes()) if ending == ".nii.gz" else path.read_bytes()
    whole = content + bytes(100)  # zeros may fill up the end
    if ending in (".mha", ".nrrd"):
        cut = content.replace(b"4 5 6\n", b"4 5 5\n", 1)
    else:
        cut = content[:46] + (5).to_bytes(2, "little") + content[48:]  # dim[3]
    assert cut != content
    results = []
    for changed in (whole, cut):
        path.write_bytes(gzip.compress(changed) if ending == ".nii.gz" else changed)
        try:
            results.append(np.array_equal(read_voxels(str(path))[0], VOXELS))
        except ValueError as error:
            results.append(str(error))
    assert results[0] is True
    assert "holds 80 bytes more than its header says" in str(results[1])  # a slice of 4 x 5 voxels


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_a_header_that_leaves_compressed_voxels_out_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T), path, useCompression=True)
    assert np.array_equal(read_voxels(str(path))[0], VOXELS)
    path.write_bytes(path.read_bytes().replace(b"4 5 6\n", b"4 5 5\n", 1))
    with pytest.raises(ValueError, match="holds 80 bytes more than its header says"):
        read_voxels(str(path))


def test_an_nrrd_without_space_is_said_or_refused(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T), path)
    load_volume(str(path), require_codes=True)
    assert "no space" not in caplog.text
    lines = [line for line in path.read_bytes().split(b"\n") if not line.startswith(b"space")]
    path.write_bytes(b"\n".join(lines))
    load_volume(str(path))
    assert "a.nrrd has no space in its header: its axes are taken to the left" in caplog.text
    with pytest.raises(ValueError, match="a.nrrd has no space in its header.*require_codes False"):
        load_volume(str(path), require_codes=True)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_a_header_that_leaves_voxels_of_another_file_out_is_refused(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T), path)
    voxels = tmp_path / "a.raw"
    voxels.write_bytes(voxels.read_bytes() + bytes(100))  # zeros may fill up the end
    assert np.array_equal(read_voxels(str(path))[0], VOXELS)
    path.write_bytes(path.read_bytes().replace(b"4 5 6\n", b"4 5 5\n", 1))
    with pytest.raises(ValueError, match="holds 80 bytes more than its header says"):
        read_voxels(str(path))


def write_nrrd(path: Path, space: str, units: str = "mm") -> str:
    """Write an NRRD of 2 mm along each axis, by hand; a space of time has an axis of it."""
    is_timed = space.endswith("-time")
    rows = np.diag([2, 2, 2, 1])[: 4 if is_timed else 3, : 4 if is_timed else 3]
    directions = " ".join(f"({','.join(map(str, row))})" for row in rows)
    sizes = "4 5 6 1" if is_timed else "4 5 6"
    names = " ".join(f'"{units}"' for _ in rows)
    lines = ["NRRD0004", "type: float", f"dimension: {len(rows)}", f"space: {space}"]
    lines += [f"sizes: {sizes}", f"space directions: {directions}", f"space units: {names}"]
    lines += ["endian: little", "encoding: raw"]
    voxels = VOXELS.astype("<f4").tobytes(order="F")
    path.write_bytes("\n".join([*lines, "", ""]).encode() + voxels)
    return str(path)


def test_an_nrrd_says_its_sides_by_the_axes_of_the_body(
    tmp_path: Path, told_anew: None, caplog: pytest.LogCaptureFixture
) -> None:
    for space, sides in (("RAS", [2, 2, 2]), ("LAS", [-2, 2, 2]), ("LPS", [-2, -2, 2])):
        volume = load_volume(write_nrrd(tmp_path / "a.nrrd", space), require_codes=True)
        assert volume.has_sides and np.array_equal(np.diag(volume.affine)[:3], sides)
    path = write_nrrd(tmp_path / "a.nrrd", "scanner-xyz")
    assert not load_volume(path).has_sides
    assert "a.nrrd has the space scanner-xyz in its header: its axes are taken to" in caplog.text
    with pytest.raises(ValueError, match="the space scanner-xyz in its header, so nothing says"):
        load_volume(path, require_codes=True)
    assert load_volume(write_nrrd(tmp_path / "a.nrrd", "left-posterior-superior-time")).has_sides
    path = write_nrrd(tmp_path / "a.nrrd", "right-anterior-superior-time")
    with pytest.raises(ValueError, match="has the space right-anterior-superior-time, in which"):
        load_volume(path)


def test_an_nrrd_in_other_units_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a.nrrd has the space units m: expected mm"):
        load_volume(write_nrrd(tmp_path / "a.nrrd", "LPS", "m"))


def change_header(path: str, kind: type = nib.Nifti1Header, **fields: Any) -> None:
    """Change fields of a NIfTI file as no library would."""
    with open(path, "r+b") as file:
        header = kind.from_fileobj(file, check=False)
        for name, value in fields.items():
            header[name] = value
        file.seek(0)
        file.write(header.binaryblock)
