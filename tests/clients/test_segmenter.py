"""A bundle as a Python object gives what its commands write."""

from __future__ import annotations

import json
import logging
import pickle
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from PIL import Image
from workplace import restored_process

from ldseg_monai import Bundle, Segmenter
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.runtime.errors import ArgumentError, InputError

BUNDLES = Path(__file__).parents[2] / "bundles"
REPOSITORY = BUNDLES.parent
NOISE = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
KINDS = {"hippocampus": "ldseg_hippocampus", "gland": "ldseg_glas", "echo": "ldseg_echo"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A phantom of each kind; the volume's axes are neither in order nor of one size."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        write_phantoms(kind, folder, 1, seed=1)
        (found[kind],) = (folder / "images").iterdir()
    volume = nib.load(found["hippocampus"])
    turned = volume.as_reoriented(np.array([[2, -1], [0, 1], [1, 1]]))
    nib.save(turned, found["hippocampus"])
    return found


@pytest.fixture(scope="module")
def segmenters() -> dict[str, Segmenter]:
    return {kind: Segmenter(BUNDLES / name, num_samples=2) for kind, name in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_label_and_maps_are_those_of_the_command(
    kind: str, images: dict[str, Path], segmenters: dict[str, Segmenter], tmp_path: Path
) -> None:
    with restored_process():
        Bundle(BUNDLES / KINDS[kind]).run(
            "inference.yaml",
            dataset_dir=str(images[kind]),
            output_dir=str(tmp_path),
            num_samples=2,
            save_overlay=False,
        )
    result = segmenters[kind](images[kind])
    name = images[kind].name.split(".")[0]
    if kind == "hippocampus":
        files = {
            end: nib.load(tmp_path / f"{name}_{end}.nii.gz") for end in ("label", "mean", "sd")
        }
        label, mean, sd = (np.asarray(files[end].dataobj) for end in files)
        assert np.array_equal(result.probability, np.moveaxis(mean, -1, 0))
        assert np.array_equal(result.sd, sd)
        assert np.array_equal(result.affine, files["label"].affine)
    else:
        label = np.asarray(Image.open(tmp_path / f"{name}_label.png"))
        assert result.probability.shape == (len(result.class_names), *label.shape)
        assert result.affine is None
    assert result.label.dtype == np.uint8
    assert np.array_equal(result.label, label)
    assert result.label.any()
    np.testing.assert_allclose(result.probability.sum(axis=0), 1, atol=1e-5)
    assert result.case == name


def test_every_kind_of_image_gives_the_same(
    images: dict[str, Path], segmenters: dict[str, Segmenter]
) -> None:
    volume, segment = images["hippocampus"], segmenters["hippocampus"]
    wanted = segment(volume).label
    loaded = nib.load(volume)
    array = np.asarray(loaded.dataobj)
    assert np.array_equal(segment(loaded).label, wanted)
    assert np.array_equal(segment(array, affine=loaded.affine).label, wanted)
    with_place = MetaTensor(torch.from_numpy(array[None].astype(np.float32)), affine=loaded.affine)
    assert np.array_equal(segment(with_place).label, wanted)
    tensor = torch.from_numpy(array.astype(np.float64))
    assert np.array_equal(segment(tensor, affine=loaded.affine).label, wanted)
    assert np.array_equal(segment(sitk.ReadImage(volume)).label.transpose(), wanted)
    picture, segment = images["gland"], segmenters["gland"]
    wanted = segment(str(picture)).label
    opened = Image.open(picture)
    assert np.array_equal(segment(opened).label, wanted)
    assert np.array_equal(segment(np.asarray(opened)).label, wanted)


def test_spacing_stands_for_an_affine_without_turns(segmenters: dict[str, Segmenter]) -> None:
    array = np.random.default_rng(0).normal(size=(35, 50, 36)).astype(np.float32)
    segment = segmenters["hippocampus"]
    by_affine = segment(array, affine=np.diag([1.0, 1.1, 0.9, 1.0]))
    sides = [1.0, 1.1, 0.9]
    for spacing in (sides, np.array(sides), torch.tensor(sides, dtype=torch.float64)):
        by_spacing = segment(array, spacing=spacing)
        assert np.array_equal(by_spacing.probability, by_affine.probability)
        assert np.allclose(by_spacing.affine, np.diag([1.0, 1.1, 0.9, 1.0]))


def test_statistics_are_those_of_the_table(images: dict[str, Path], tmp_path: Path) -> None:
    knobs = {"num_samples": 3, "save_overlay": False, "save_statistics": True}
    with restored_process():
        Bundle(BUNDLES / "ldseg_hippocampus").run(
            "inference.yaml",
            dataset_dir=str(images["hippocampus"]),
            output_dir=str(tmp_path),
            **knobs,
        )
    segment = Segmenter(BUNDLES / "ldseg_hippocampus", num_samples=3, keep_samples=True)
    rows = segment(images["hippocampus"]).statistics
    written = json.loads((tmp_path / "statistics.json").read_text())
    assert [{"case": row["case"]} | own for row, own in zip(written, rows, strict=True)] == written
    assert all(row["volume_ml_sd"] > 0 for row in rows)


def test_one_sample_has_probabilities_too(images: dict[str, Path]) -> None:
    for kind in ("hippocampus", "gland"):
        result = Segmenter(BUNDLES / KINDS[kind], num_samples=1)(images[kind])
        assert np.array_equal(result.probability.argmax(axis=0), result.label)
        with pytest.raises(InputError, match="one sample has no standard deviation"):
            _ = result.sd


def test_threads_and_each_give_what_one_call_gives(
    images: dict[str, Path],
) -> None:
    segment = Segmenter(BUNDLES / "ldseg_glas", num_samples=2, window_size=[128, 128])
    picture = np.asarray(Image.open(images["gland"]))[:96, :128]
    turned = [np.ascontiguousarray(np.rot90(picture, number)) for number in range(4)]
    alone = [segment(image).probability for image in turned]
    with ThreadPoolExecutor(4) as threads:
        together = [result.probability for result in threads.map(segment, turned)]
    in_order = [result.probability for result in segment.each(turned)]
    for one, two, three in zip(alone, together, in_order, strict=True):
        assert np.array_equal(one, two) and np.array_equal(one, three)


def test_a_copy_in_another_process_gives_the_same(
    images: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(BUNDLES)
    segment = Segmenter("ldseg_glas", num_samples=2, window_size=[128, 128])
    sent = pickle.dumps(segment)
    assert len(sent) < 10_000  # no weights: they are loaded where it arrives
    monkeypatch.chdir(tmp_path)
    picture = np.asarray(Image.open(images["gland"]))[:96, :128]
    result = pickle.loads(sent)(picture)
    assert np.array_equal(result.probability, segment(picture).probability)


def test_warnings_name_what_was_given(
    images: dict[str, Path], segmenters: dict[str, Segmenter], caplog: pytest.LogCaptureFixture
) -> None:
    volume = nib.load(images["hippocampus"])
    volume.header.set_xyzt_units("micron")
    volume.set_sform(volume.affine @ np.diag([1000, 1000, 1000, 1]), 1)
    volume.set_qform(None, 0)
    factory = logging.getLogRecordFactory()
    segmenters["hippocampus"](volume)
    assert "the Nifti1Image given is in units of 1000 a mm: brought to mm" in caplog.text
    assert "image.nii" not in caplog.text
    assert logging.getLogRecordFactory() is factory


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.mha", "mask.nrrd"])
def test_a_saved_mask_lies_on_its_image(
    name: str, images: dict[str, Path], segmenters: dict[str, Segmenter], tmp_path: Path
) -> None:
    result = segmenters["hippocampus"](images["hippocampus"])
    result.save(tmp_path / name)
    saved, image = sitk.ReadImage(tmp_path / name), sitk.ReadImage(images["hippocampus"])
    assert np.array_equal(sitk.GetArrayFromImage(saved).transpose(), result.label)
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(saved, get)(), getattr(image, get)(), atol=1e-4)
    with pytest.raises(FileExistsError):
        result.save(tmp_path / name)
    result.save(tmp_path / name, overwrite=True)


def test_a_saved_picture_holds_the_classes(
    images: dict[str, Path], segmenters: dict[str, Segmenter], tmp_path: Path
) -> None:
    result = segmenters["gland"](images["gland"])
    result.save(tmp_path / "mask.png")
    saved = Image.open(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(saved), result.label)
    assert saved.getpalette()[:6] == [0, 0, 0, 255, 80, 60]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        result.save(tmp_path / "none" / "mask.png")
    with pytest.raises(InputError, match="expected a name that ends in .png"):
        result.save(tmp_path / "mask.nii.gz")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("gland", "mask.png"), ("hippocampus", "mask.nii.gz"), ("hippocampus", "mask.mha")],
)
def test_a_mask_that_does_not_fit_on_the_disk_leaves_the_one_before(
    kind: str,
    name: str,
    images: dict[str, Path],
    segmenters: dict[str, Segmenter],
    tmp_path: Path,
) -> None:
    result = segmenters[kind](images[kind])
    path = tmp_path / name
    path.write_bytes(b"before")
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="mask.*cannot be written .*: make room"):
            result.save(path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_frames_of_a_sequence_are_segmented(tmp_path: Path) -> None:
    write_phantoms("beat", tmp_path, 1, seed=0)
    (path,) = (tmp_path / "images").iterdir()
    result = Segmenter(BUNDLES / "ldseg_echo", configs=["sequences.yaml"], num_samples=1)(path)
    assert result.label.shape == nib.load(path).shape
    assert result.label.any()
    with pytest.raises(InputError, match="statistics are of a volume or a picture: got a sequence"):
        _ = result.statistics


@pytest.mark.parametrize(
    ("kind", "image", "options", "error", "told"),
    [
        ("hippocampus", np.zeros((9, 9, 9)), {}, InputError, "expected affine or spacing"),
        ("hippocampus", np.zeros((9, 9, 9)), {"spacing": [1.0, 1.0]}, InputError, "three positive"),
        ("hippocampus", "nowhere.nii.gz", {}, FileNotFoundError, "nowhere.nii.gz"),
        ("hippocampus", np.ones((40, 40, 40)), {"spacing": [1, 1, 1]}, InputError, "every voxel"),
        ("hippocampus", np.ones((9, 9, 9)), {"spacing": [-1, 1, 1]}, InputError, "three positive"),
        ("hippocampus", np.ones((9, 9, 9)), {"spacing": "abc"}, InputError, "three positive"),
        ("hippocampus", np.ones((9, 9, 9)), {"spacing": 1}, InputError, "three positive"),
        (
            "hippocampus",
            np.ones((9, 9, 9)),
            {"affine": np.eye(3)},
            InputError,
            r"expected \(4, 4\)",
        ),
        (
            "hippocampus",
            np.ones((9, 9, 9)),
            {"affine": np.zeros((4, 4))},
            InputError,
            "spacing of 0",
        ),
        ("hippocampus", np.ones((0, 9, 9)), {"spacing": [1, 1, 1]}, InputError, "three axes"),
        (
            "hippocampus",
            np.ones((9, 9, 9), complex),
            {"spacing": [1, 1, 1]},
            InputError,
            "complex128",
        ),
        ("hippocampus", "", {}, InputError, "empty path"),
        ("gland", Image.new("CMYK", (90, 90)), {}, InputError, "of mode CMYK"),
        ("gland", Image.new("I", (90, 90)), {}, InputError, "of mode I: expected gray or colors"),
        ("gland", np.zeros((0, 90, 3), np.uint8), {}, InputError, "shape"),
        ("gland", np.zeros((90, 90, 3)), {}, InputError, "uint8 from 0 to 255"),
        ("gland", 5, {}, ArgumentError, "expected a path, an array"),
        ("gland", NOISE, {}, InputError, "^the ndarray given is none of .* or force=True to go on"),
        ("gland", "a.png", {"spacing": [1, 1]}, InputError, "a file has its own"),
    ],
)
def test_what_is_no_image_is_told(
    kind: str, image: object, options: dict, error: type, told: str, segmenters: dict
) -> None:
    with pytest.raises(error, match=told):
        segmenters[kind](image, **options)


def test_an_archive_is_no_image(segmenters: dict, tmp_path: Path) -> None:
    (tmp_path / "scans.zip").touch()
    with pytest.raises(InputError, match="scans.zip is an archive: expected an image; unpack it"):
        segmenters["hippocampus"](tmp_path / "scans.zip")


def test_a_result_says_that_it_stays_in_its_process(segmenters: dict, images: dict) -> None:
    with pytest.raises(ArgumentError, match="send its label"):
        pickle.dumps(segmenters["gland"](images["gland"]))


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"num_sample": 2}, "has no knob num_sample"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"weights": "nowhere.pt"}, "nowhere.pt"),
        ({"device": "cuda:77"}, "device is 'cuda:77'"),
    ],
)
def test_a_wrong_knob_is_told_at_once(knobs: dict, told: str) -> None:
    with pytest.raises((InputError, FileNotFoundError), match=told):
        Segmenter(BUNDLES / "ldseg_glas", **knobs)


@pytest.mark.slow  # mypy reads all of torch and MONAI
def test_types_are_seen_from_outside(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from ldseg_monai import Bundle, Segmenter\n"
        "result = Segmenter('ldseg_glas', num_samples=5)('a.png')\n"
        "reveal_type(result.label)\n"
        "reveal_type(Bundle('ldseg_glas').evaluate(part='all'))\n"
        "result.nothing\n"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--ignore-missing-imports",
            "--follow-imports=silent",
            program,
        ],
        cwd=tmp_path,
        env={"MYPYPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
    )
    told = run.stdout.splitlines()
    assert "dtype[numpy.unsignedinteger[numpy._typing._nbit_base._8Bit]]" in told[0]
    assert "dict[str, Any]" in told[1] or "builtins.dict[builtins.str, Any]" in told[1]
    assert '"Segmentation" has no attribute "nothing"' in told[2]
