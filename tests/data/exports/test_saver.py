"""What holds for every kind of file: names, whose the files are, resuming, remarks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from export_phantoms import CLASSES, blobs, label_of, oblique, write_metadata
from monai.transforms import SaveImaged

from ldseg_monai.data import SaveImageAsd
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.exports.label_map import classes_of
from ldseg_monai.inference.finished_cases import ENDINGS
from ldseg_monai.runtime.files import saved_files
from ldseg_monai.runtime.ownership import OWN, outputs, place_of, whose

KINDS = {3: ["mha", "nrrd", "stl", "obj"], 2: ["geojson", "tiff"]}
FILES = {
    3: [
        "a.1_label.mha",
        "a.1_label.nrrd",
        "a.1_surface.femur.obj",
        "a.1_surface.femur.stl",
        "a.1_surface.left_right_lump.obj",
        "a.1_surface.left_right_lump.stl",
    ],
    2: ["a.1_label.ome.tif", "a.1_objects.geojson"],
}
NAMES = {3: "a.1.nii.gz", 2: "a.1.png"}


def save(folder: Path, voxels: np.ndarray, kinds: Any = None, **meta: Any) -> Any:
    """Write all kinds of a label map, and return it."""
    folder.mkdir(exist_ok=True)
    dims = voxels.ndim
    affine = oblique() if dims == 3 else None
    label = label_of(folder / NAMES[dims], voxels, affine, **meta)
    write = SaveImageAsd("pred", str(folder / "out"), kinds or KINDS[dims], write_metadata(folder))
    return write({"pred": label})["pred"]


def shape(dims: int) -> tuple[int, ...]:
    return (9, 8, 7)[:dims]


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir() if path.name[0] == "a")


def test_clients_know_it_by_name_and_class() -> None:
    assert issubclass(SaveImageAsd, SaveImaged) and "SaveImage" in SaveImageAsd.__name__


@pytest.mark.parametrize("dims", [2, 3])
def test_files_are_noted_and_found_as_those_of_their_case(tmp_path: Path, dims: int) -> None:
    label = save(tmp_path, blobs(shape(dims)))
    assert written(tmp_path) == FILES[dims]
    image, out = tmp_path / NAMES[dims], tmp_path / "out"
    paths = [str(out / name) for name in FILES[dims]]
    assert sorted(saved_files(label)) == paths
    assert [whose(path, place_of(image)) for path in paths] == [OWN] * len(paths)
    assert list(outputs(out, ["a.1", "a"], ENDINGS)) == [("a.1", path) for path in paths]
    assert torch.equal(label.as_tensor()[0], torch.as_tensor(blobs(shape(dims))))


@pytest.mark.parametrize(("dims", "name"), [(dims, name) for dims in FILES for name in FILES[dims]])
def test_a_file_of_somebody_else_is_not_written_over(tmp_path: Path, dims: int, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(FileExistsError, match="not written by this program"):
        save(tmp_path, blobs(shape(dims)))
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_surface_that_was_changed_is_not_written_over(tmp_path: Path) -> None:
    save(tmp_path, blobs(shape(3)))
    path = tmp_path / "out" / "a.1_surface.femur.stl"
    path.write_text("corrected")
    for voxels in (blobs(shape(3)), 0 * blobs(shape(3))):
        with pytest.raises(FileExistsError, match="changed after it was written"):
            save(tmp_path, voxels, ["stl"])
    assert path.read_text() == "corrected"


def test_surfaces_of_what_is_not_found_any_more_are_removed(tmp_path: Path) -> None:
    voxels = blobs(shape(3))
    save(tmp_path, voxels)
    label = save(tmp_path, np.where(voxels == 2, 0, voxels))
    assert written(tmp_path) == [name for name in FILES[3] if "lump" not in name]
    assert sorted(map(os.path.basename, saved_files(label))) == written(tmp_path)
    assert save(tmp_path, voxels) is not None and written(tmp_path) == FILES[3]


@pytest.mark.parametrize("dims", [2, 3])
def test_empty_label_is_written(tmp_path: Path, dims: int) -> None:
    save(tmp_path, np.zeros(shape(dims), np.uint8))
    assert written(tmp_path) == [name for name in FILES[dims] if "surface" not in name]
    if dims == 2:
        content = json.loads((tmp_path / "out" / "a.1_objects.geojson").read_text())
        assert content == {"type": "FeatureCollection", "features": []}


WHY = "its modality is CT, expected MR; 99% of its intensities are a few \u03c3 too large"


@pytest.mark.parametrize("dims", [2, 3])
def test_files_say_that_the_weights_do_not_know_the_image(tmp_path: Path, dims: int) -> None:
    save(tmp_path, blobs(shape(dims)), **{OUTSIDE: WHY})
    out, said = tmp_path / "out", f"outside of known images: {WHY}"
    if dims == 2:
        assert json.loads((out / "a.1_objects.geojson").read_text())[OUTSIDE] == said
        with tifffile.TiffFile(out / "a.1_label.ome.tif") as file:
            assert f"<Description>{said}</Description>" in (file.ome_metadata or "")
        return
    for ending in ("mha", "nrrd"):
        image = sitk.ReadImage(str(out / f"a.1_label.{ending}"))
        assert image.GetMetaData(OUTSIDE).encode("utf-8", "surrogateescape").decode() == said
        assert np.array_equal(sitk.GetArrayFromImage(image).T, blobs(shape(3)))
    assert f"# {said}" in (out / "a.1_surface.femur.obj").read_text(encoding="utf-8").splitlines()
    header = (out / "a.1_surface.femur.stl").read_bytes()[:80]
    assert header == f"ldseg_monai SPACE=LPS; {said}".encode("ascii", "replace")[:80]


def test_own_kind_is_that_of_each_image(tmp_path: Path) -> None:
    kinds = ["own", "nrrd"]
    write = SaveImageAsd("pred", str(tmp_path / "out"), kinds, write_metadata(tmp_path))
    for image in ("a.nii.gz", "b.MHA", "c.nhdr"):
        write({"pred": label_of(image, blobs((4, 5, 6)))})
    made = {path.name for path in (tmp_path / "out").glob("*_label*")}
    assert made == {"a_label.nrrd", "b_label.mha", "b_label.nrrd", "c_label.nrrd"}


def test_none_is_asked_for(tmp_path: Path) -> None:
    label = label_of("a.png", blobs((4, 5)))
    write = SaveImageAsd("pred", str(tmp_path / "out"), [], "nowhere.json")
    assert write({"pred": label})["pred"] is label
    assert not (tmp_path / "out").exists()


def test_kinds_are_held_to_the_image_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'stl' for a picture"):
        save(tmp_path, blobs((4, 5)), ["geojson", "stl"])
    with pytest.raises(ValueError, match="'rtstruct' for a volume that is no DICOM series"):
        save(tmp_path, blobs((4, 5, 6)), ["mha", "rtstruct"])
    with pytest.raises(ValueError, match="kind of file 'jpeg'"):
        SaveImageAsd("pred", str(tmp_path / "out"), ["jpeg"], "nowhere.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [*KINDS[2], *KINDS[3]])
def test_value_without_a_class_is_an_error(tmp_path: Path, kind: str) -> None:
    voxels = np.zeros((6, 7, 8) if kind in KINDS[3] else (6, 7), np.uint8)
    voxels[2:4, 2:4] = 7
    with pytest.raises(ValueError, match=r"label map of a.1 has the values \[7\]: expected 0 to 3"):
        save(tmp_path, voxels, kind)
    assert not (tmp_path / "out").exists()


def test_label_without_the_path_of_its_image_is_an_error(tmp_path: Path) -> None:
    write = SaveImageAsd("pred", str(tmp_path), "geojson", write_metadata(tmp_path))
    with pytest.raises(ValueError, match=r"label map pred of shape \[1, 4, 5\]: expected"):
        write({"pred": torch.zeros(1, 4, 5)})
    with pytest.raises(ValueError, match=r"of shape \[2, 4, 5\]: expected \(1, \*spatial\)"):
        write({"pred": label_of("a.png", blobs((4, 5))).repeat(2, 1, 1)})


# Classes


def classes(names: list[str], **arguments: Any) -> list[Any]:
    defined = {"pred": {"channel_def": {str(number): name for number, name in enumerate(names)}}}
    metadata = {"network_data_format": {"outputs": defined}}
    return classes_of(metadata, "pred", arguments.get("colors"))


def test_names_of_files_are_those_of_one_class_each() -> None:
    names = ["background", "A/b", "a b", "../..", "x.stl", "\u00e9" * 60, "Knorpel-1"]
    found = [item.file_name for item in classes(names)]
    assert found == ["A_b", "a_b_2", "class", "x_stl", "\u00e9" * 20, "Knorpel-1"]


def test_a_class_is_renamed_by_its_definition_alone() -> None:
    colors = {"femur": [1, 2, 3], "tibia": [4, 5, 6]}
    found = classes(["background", "thighbone", "tibia"], colors=colors)
    assert [(item.name, item.color) for item in found] == [
        ("thighbone", (1, 2, 3)),
        ("tibia", (4, 5, 6)),
    ]
    found = classes(["background", "tibia", "femur"], colors=colors)  # by name, not by place
    assert [item.color for item in found] == [(4, 5, 6), (1, 2, 3)]


def test_more_classes_than_colors_take_them_again() -> None:
    found = [item.color for item in classes([str(number) for number in range(9)])]
    assert len(set(found)) == 6 and found[6:] == found[:2]


@pytest.mark.parametrize(
    ("colors", "told"),
    [
        ({"tibia": [1, 2, 3]}, "colors of tibia: expected those of classes, background, femur"),
        ({"femur": [1, 2]}, r"color \[1, 2\] of femur: expected red, green and blue, 0 to 255"),
        ({"femur": [1, 2, 256]}, "0 to 255 each"),
        ({"femur": [0.1, 0.2, 0.3]}, "0 to 255 each"),
    ],
)
def test_colors_that_are_none_are_an_error(colors: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        classes(list(CLASSES.values()), colors=colors)
