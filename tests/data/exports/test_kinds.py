from __future__ import annotations

import pytest

from ldseg_monai.data.exports import KINDS, check_kinds, kinds


def test_every_kind_fits_what_it_says() -> None:
    volumes = [name for name, kind in KINDS.items() if kind.spatial_dims == 3]
    assert check_kinds([*volumes, *volumes], 3, is_dicom=True) == tuple(volumes)
    assert check_kinds(volumes, 3) == tuple(volumes)  # not known yet whether it is DICOM
    assert check_kinds(("geojson", "tiff"), 2, is_dicom=False) == ("geojson", "tiff")
    assert check_kinds(list(KINDS)) == tuple(KINDS)
    assert check_kinds("stl", 3) == ("stl",)
    assert check_kinds([], 2) == ()


@pytest.mark.parametrize(
    ("name", "spatial_dims", "is_dicom", "told"),
    [
        ("dwg", 3, None, "kind of file 'dwg': expected some of mha, nrrd, stl, obj, rtstruct, labe"),
        (None, 3, None, "kind of file None: expected some of mha"),
        ("stl", 2, None, "'stl' for a picture: it fits volumes; expected some of geojson, tiff"),
        ("tiff", 3, False, "'tiff' for a volume: it fits pictures; expected some of mha, nrrd, stl, obj"),
        ("geojson", 3, True, "it fits pictures; expected some of mha, nrrd, stl, obj, rtstruct"),
        ("rtstruct", 2, False, "'rtstruct' for a picture: it fits DICOM series; expected some of geo"),
        ("rtstruct", 3, False, "for a volume that is no DICOM series: it fits DICOM series; expecte"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_an_error(
    name: str, spatial_dims: int, is_dicom: bool | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        check_kinds(name, spatial_dims, is_dicom)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("stl", r"'stl' takes scikit-image: pip install 'ldseg_monai\[exports\]', or leave it out"),
        ("tiff", r"'tiff' takes tifffile: pip install 'ldseg_monai\[exports\]'"),
        ("rtstruct", r"'rtstruct' takes pydicom: pip install 'ldseg_monai\[dicom\]'"),
        ("labelmap", r"'labelmap' takes highdicom: pip install 'ldseg_monai\[dicom\]'"),
    ],
)
def test_missing_package_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setattr(kinds, "find_spec", lambda module: None)
    with pytest.raises(ImportError, match=told):
        check_kinds([name])
    assert check_kinds(["mha", "nrrd", "geojson"]) == ("mha", "nrrd", "geojson")
