"""`ldseg predict` segments as the bundle's command does, and says what it does."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from dicom_phantoms import AXIAL
from PIL import Image
from pydicom.uid import UltrasoundMultiFrameImageStorage
from slide_phantoms import write_svs

from ldseg_monai.bundle import Bundle
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.tools import predict as module
from ldseg_monai.tools.archives import unpacked
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.predict import folder_of_results, open_bundle, overlays_for, predict

BUNDLES = Path(__file__).parents[2] / "bundles"
HIPPOCAMPUS = BUNDLES / "ldseg_hippocampus"
GLAS = BUNDLES / "ldseg_glas"

pytestmark = pytest.mark.usefixtures("process_left_as_it_was", "own_cache")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ldseg_monai" / "unpacked"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms("hippocampus", folder, 2, seed=3)
    return folder / "images"


def run(*arguments: object) -> int:
    return main(["predict", *map(str, arguments)])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_masks_are_those_of_the_bundle_s_command(volumes: Path, tmp_path: Path) -> None:
    knobs = {"dataset_dir": str(volumes), "num_samples": 2, "save_overlay": False}
    Bundle(HIPPOCAMPUS).run("inference.yaml", output_dir=str(tmp_path / "command"), **knobs)
    assert run("-m", HIPPOCAMPUS, "-i", volumes, "-o", tmp_path / "own", "--num-samples", 2) == 0
    names = {path.name for path in (tmp_path / "own").glob("*.nii.gz")}
    assert names == {
        f"case_00{number}_{kind}.nii.gz" for number in (0, 1) for kind in ("label", "mean", "sd")
    }
    for name in names:
        own, command = (tmp_path / folder / name for folder in ("own", "command"))
        assert own.read_bytes() == command.read_bytes()


def test_a_file_is_segmented_beside_it_and_told_in_json(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = shutil.copy(volumes / "case_000.nii.gz", tmp_path / "scan#1.nii.gz")
    assert run("-m", HIPPOCAMPUS, "-i", image, "--json", "--preview", "--quiet") == 0
    (line,) = lines(capsys)
    assert line["image"] == str(image)
    assert (line["case"], line["status"]) == ("scan#1", "done")
    made = [str(tmp_path / f"scan#1_{end}") for end in ("label.nii.gz", "overlay.png")]
    assert line["files"] == made
    assert line["seconds"] > 0
    assert all(map(os.path.isfile, made))
    assert run("-m", HIPPOCAMPUS, "-i", image, "--json", "--preview", "--quiet") == 0
    assert [line["status"] for line in lines(capsys)] == ["finished before"]
    assert run("-m", HIPPOCAMPUS, "-i", image, "--json", "--preview", "--overwrite", "--quiet") == 0
    assert [line["status"] for line in lines(capsys)] == ["done"]


def test_each_image_of_a_folder_gets_its_own_kind(volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    shutil.copy(volumes / "case_000.nii.gz", tmp_path / "mixed" / "a.nii.gz")
    image = sitk.ReadImage(str(volumes / "case_001.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "mixed" / "b.nrrd"))
    assert run("-m", HIPPOCAMPUS, "-i", tmp_path / "mixed", "-o", tmp_path / "out") == 0
    made = {path.name for path in (tmp_path / "out").glob("*_label*")}
    assert made == {"a_label.nii.gz", "b_label.nii.gz", "b_label.nrrd"}


def test_quiet_is_over_when_the_command_is(
    volumes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("", *module.CHATTY)
    before = [logging.getLogger(name).level for name in names], os.environ.get("TQDM_DISABLE")
    image = volumes / "case_000.nii.gz"
    assert run("-m", HIPPOCAMPUS, "-i", image, "-o", tmp_path / "out", "--quiet") == 0
    after = [logging.getLogger(name).level for name in names], os.environ.get("TQDM_DISABLE")
    assert after == before


def test_a_bad_file_is_named_and_the_others_are_done(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "cut.nii.gz"
    bad.write_bytes((volumes / "case_001.nii.gz").read_bytes()[:500])
    good = volumes / "case_000.nii.gz"
    assert run("-m", HIPPOCAMPUS, "-i", bad, good, "-o", tmp_path / "out", "--json") == 2
    captured = capsys.readouterr()
    told = {line["case"]: line for line in map(json.loads, captured.out.splitlines())}
    assert {name: line["status"] for name, line in told.items()} == {
        "cut": "failed",
        "case_000": "done",
    }
    assert "cannot be read" in told["cut"]["error"]
    assert f"1 of 2 cases failed, the others are done:\n  {bad}" in captured.err


def test_files_of_one_name_are_told_apart(volumes: Path, tmp_path: Path) -> None:
    places = []
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        places.append(tmp_path / name / "scan.nii.gz")
        shutil.copy(volumes / f"case_00{number}.nii.gz", places[-1])
    out = tmp_path / "out"
    # Twice the same file is one image.
    assert run("-m", HIPPOCAMPUS, "-i", *places, places[0], "-o", out) == 0
    assert {path.name for path in out.glob("*.nii.gz")} == {
        "one_scan_label.nii.gz",
        "two_scan_label.nii.gz",
    }


def test_a_zip_in_a_zip_is_unpacked_for_a_while(
    volumes: Path, tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner, outer = tmp_path / "inner.zip", tmp_path / "scans.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.write(volumes / "case_000.nii.gz", "study/case_000.nii.gz")
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "inner.zip")
    for status in ("done", "finished before"):
        assert run("-m", HIPPOCAMPUS, "-i", outer, "-o", tmp_path / "out", "--json") == 0
        assert [(line["case"], line["status"]) for line in lines(capsys)] == [("case_000", status)]
    assert list(own_cache.iterdir()) == []


def test_images_of_several_folders_of_a_zip_are_found(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive_path = tmp_path / "scans.zip"
    with zipfile.ZipFile(archive_path, "w") as archive:
        archive.write(volumes / "case_000.nii.gz", "one/scan.nii.gz")
        archive.write(volumes / "case_001.nii.gz", "two/deep/scan.nii.gz")
        archive.writestr("readme.txt", "two patients")
    out = tmp_path / "out"
    assert run("-m", HIPPOCAMPUS, "-i", archive_path, "-o", out, "--json", "--quiet") == 0
    told = {line["case"]: line["image"] for line in lines(capsys)}
    assert told == {
        "one_scan": f"{archive_path}/one/scan.nii.gz",
        "two_deep_scan": f"{archive_path}/two/deep/scan.nii.gz",
    }


def test_messages_name_a_zip_and_what_is_in_it(
    volumes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("study/whole.nii.gz", (volumes / "case_000.nii.gz").read_bytes())
        archive.writestr("study/deep/part.nii.gz", b"\x1f\x8b no volume")
        archive.writestr("study/deep/notes.txt", "")
    with caplog.at_level("INFO"):
        assert run("-m", HIPPOCAMPUS, "-i", path, "-o", tmp_path / "out", "--json") == 2
    captured = capsys.readouterr()
    told = [*captured.err.splitlines(), *caplog.messages, *captured.out.splitlines()]
    assert not [line for line in told if "unpacked" in line]
    part = f"{path}/study/deep/part.nii.gz"
    failed = [line for line in told if f"{part} cannot be read" in line]
    assert len(failed) == 3  # in the log, as the error, in JSON
    images = [json.loads(line)["image"] for line in captured.out.splitlines()]
    assert sorted(images) == [part, f"{path}/study/whole.nii.gz"]
    with zipfile.ZipFile(path, "w") as archive:  # another one of that name
        archive.writestr("study/whole.nii.gz", (volumes / "case_001.nii.gz").read_bytes())
    assert run("-m", HIPPOCAMPUS, "-i", path, "-o", tmp_path / "out") == 2
    err = capsys.readouterr().err
    earlier = "an earlier scans/study/whole.nii.gz"
    assert f"made of {earlier}, not of {path}/study" in err and "unpacked" not in err
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("study/deep/notes.txt", "")
    assert run("-m", HIPPOCAMPUS, "-i", path, "-o", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert f"no images in {path}/study/deep: " in err and "unpacked" not in err


def test_a_picture_among_volumes_fails_alone(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (90, 80)).save(tmp_path / "picture.png")
    files = [tmp_path / "picture.png", volumes / "case_000.nii.gz"]
    assert run("-m", HIPPOCAMPUS, "-i", *files, "-o", tmp_path / "out", "--json") == 2
    captured = capsys.readouterr()
    told = {line["case"]: line["status"] for line in map(json.loads, captured.out.splitlines())}
    assert told == {"picture": "failed", "case_000": "done"}
    assert "picture.png is a picture: expected a volume" in captured.err


def test_files_of_an_earlier_segmentation_do_not_stay(volumes: Path, tmp_path: Path) -> None:
    base = ["-m", HIPPOCAMPUS, "-i", volumes / "case_000.nii.gz", "-o", tmp_path, "--quiet"]
    assert run(*base, "--num-samples", 2, "--format", "mha", "--statistics", "--preview") == 0
    first = {path.name for path in tmp_path.glob("case_000*")}
    assert len(first) == 6
    (tmp_path / "case_000_overlay.png").write_bytes(b"of another hand")
    assert run(*base, "--overwrite", "--seed", 7) == 0
    left = {path.name for path in tmp_path.glob("case_000*")}
    assert left == {"case_000_label.nii.gz", "case_000_overlay.png"}


def test_an_archive_that_climbs_out_stays_in(tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("../../../outside.txt", "x")
    with unpacked(evil) as folder:
        assert [path.name for path in Path(folder).iterdir()] == ["outside.txt"]
    assert not list(tmp_path.parent.glob("outside.txt"))


def test_a_zip_may_hold_a_name_once(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/one.txt", "1")
        archive.writestr("/a/one.txt", "2")
    with pytest.raises(InputError, match="scans.zip holds .*one.txt twice"), unpacked(path):
        pass


def test_a_zip_of_windows_has_folders(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "scans.zip"
    entry = zipfile.ZipInfo("a\\one.txt")
    entry.create_system = 0
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "1")
    with unpacked(path) as folder:
        assert Path(folder, "a", "one.txt").read_text() == "1"


def test_two_processes_unpack_one_archive_without_harm(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one.txt", "1")
    program = (
        "import sys\nfrom ldseg_monai.tools.archives import unpacked\n"
        "with unpacked(sys.argv[1]) as folder:\n    print(folder, flush=True)\n    input()\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        theirs = Path(other.stdout.readline().strip())
        with unpacked(path) as ours:
            assert Path(ours) != theirs
            assert (Path(ours) / "one.txt").read_text() == "1"
        assert (theirs / "one.txt").read_text() == "1"
        other.communicate("\n")
    assert list(own_cache.iterdir()) == []
    with unpacked(path) as ours:  # where it was
        assert Path(ours) == theirs


def test_an_archive_that_is_none_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=f"{broken} cannot be read"), unpacked(broken):
        pass


def test_a_sequence_gets_no_picture_of_planes(tmp_path: Path) -> None:
    write_phantoms("beat", tmp_path / "beats", 1, seed=0)
    out = tmp_path / "out"
    beat = next((tmp_path / "beats" / "images").iterdir())
    samples = ("--num-samples", 1, "--preview")
    assert run("-m", BUNDLES / "ldseg_echo", "-i", beat, "-o", out, *samples) == 0
    assert (out / "case_000_area.png").is_file() and not list(out.glob("*_overlay.png"))


def test_a_bundle_may_be_a_zip(tmp_path: Path) -> None:
    archive = shutil.make_archive(
        str(tmp_path / "glas"), "zip", root_dir=BUNDLES, base_dir="ldseg_glas/configs"
    )
    with open_bundle(archive) as bundle:
        assert bundle.title == "LDSeg colon glands"
    with pytest.raises(FileNotFoundError), open_bundle(tmp_path / "none.zip"):
        pass


def test_a_bundle_from_elsewhere_is_told_and_one_of_ours_is_not(
    volumes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = shutil.copytree(HIPPOCAMPUS, tmp_path / "other")
    told = f"{other} is none of the bundles here: its configs can run any code"
    image = volumes / "case_000.nii.gz"
    for bundle, is_told in ((HIPPOCAMPUS, False), (other, True)):
        caplog.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # MONAI's own, of many lines
            assert run("-m", bundle, "-i", image, "-o", tmp_path / bundle.name) == 0
        assert any(message.startswith(told) for message in caplog.messages) is is_told


def test_a_link_in_a_circle_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.nii.gz").symlink_to("a.nii.gz")
    model = ["-m", "ldseg_hippocampus"]
    assert main(["predict", *model, "-i", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "1 links to nowhere: " in capsys.readouterr().err


def test_results_lie_beside_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    assert folder_of_results([tmp_path / "scans"]) == tmp_path / "scans_segmentation"
    assert folder_of_results([tmp_path / "scans" / "a.png", tmp_path]) == tmp_path / "scans"


def test_results_of_a_slice_lie_beside_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = AXIAL.write(tmp_path / "series")
    enhanced = AXIAL.write_enhanced(tmp_path / "enhanced")
    for one in (min(folder.iterdir()), enhanced / "enhanced.dcm"):
        assert folder_of_results([one]) == Path(f"{one.parent}_segmentation")
        # There they would be images of the next run on the folder
        assert run("-m", HIPPOCAMPUS, "-i", one, "-o", one.parent) == 2
        assert "output_dir is" in capsys.readouterr().err
    clip = pydicom.dcmread(enhanced / "enhanced.dcm")
    clip.SOPClassUID = UltrasoundMultiFrameImageStorage
    clip.save_as(tmp_path / "clip")
    assert folder_of_results([tmp_path / "clip"]) == tmp_path


def test_one_series_of_a_folder_does_not_write_over_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = AXIAL.write(tmp_path / "both")
    replace(AXIAL, uid="1.2.3").write(folder)

    def segment(uid: str, *options: str) -> int:
        places = ["-i", folder, "-o", tmp_path / "out"]
        return run("-m", HIPPOCAMPUS, *places, "--set", f"series_uid={uid}", "--force", *options)

    assert segment(AXIAL.uid) == 0
    made = (tmp_path / "out" / "both_seg.dcm").read_bytes()
    for options in ((), ("--overwrite",)):
        assert segment("1.2.3", *options) == 2
        told = f"both_seg.dcm (made of the series {AXIAL.uid} of the same folder)"
        assert told in capsys.readouterr().err
    assert (tmp_path / "out" / "both_seg.dcm").read_bytes() == made
    assert segment(AXIAL.uid, "--overwrite") == 0
    assert run("-m", HIPPOCAMPUS, "-i", folder, "-o", tmp_path / "out", "--force") == 0


def test_the_images_choose_the_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    echo, glas = Bundle(BUNDLES / "ldseg_echo"), Bundle(GLAS)
    monkeypatch.setattr(module, "LARGE", 1000)
    small, large = tmp_path / "small.tif", tmp_path / "large.tif"
    for path, side in ((small, 20), (large, 50)):
        tifffile.imwrite(path, np.zeros((side, side, 3), np.uint8), photometric="rgb")
    Image.new("L", (50, 50)).save(tmp_path / "large.png")
    write_svs(tmp_path / "vendor.tif", [np.zeros((20, 20, 3), np.uint8)])
    for bundle, names, wanted in (
        (echo, ["clip.nii.gz"], ["sequences.yaml"]),
        (echo, ["frame.png"], []),
        (glas, ["small.tif"], []),
        (glas, ["small.tif", "large.tif"], ["strips.yaml"]),
        (glas, ["large.tif", "large.png"], []),
        (glas, ["small.tif", "vendor.tif"], ["strips.yaml"]),
        (Bundle(HIPPOCAMPUS), ["scan.nii.gz"], []),
    ):
        assert overlays_for(bundle, [str(tmp_path / name) for name in names]) == wanted
    with pytest.raises(InputError, match="is a sequence and .* a picture: expected .* one kind"):
        overlays_for(echo, [str(tmp_path / name) for name in ("clip.nii.gz", "frame.png")])


def test_a_slide_is_segmented_from_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms("gland", tmp_path / "glands", 1, seed=0)
    phantom = Image.open(tmp_path / "glands" / "images" / "case_000.png").convert("RGB")
    tissue = np.asarray(phantom.crop((0, 0, 128, 128)))
    pixels = np.full((128, 320, 3), 244, np.uint8)
    pixels[:, :128] = tissue
    picture, slide = tmp_path / "picture.png", tmp_path / "slide.svs"
    Image.fromarray(pixels).save(picture)
    write_svs(slide, [pixels.repeat(2, axis=0).repeat(2, axis=1), pixels], 0.31)
    options = ["--num-samples", 1, "--set", "window_size=[128, 128]", "--quiet"]
    more = ["--format", "geojson", "tiff", "--preview", "--statistics", "--json"]
    assert run("-m", GLAS, "-i", picture, "-o", tmp_path / "out", *options) == 0
    assert run("-m", GLAS, "-i", slide, "-o", tmp_path / "out", *options, *more) == 0
    (line,) = lines(capsys)
    ends = ("label.ome.tif", "objects.geojson", "overlay.png", "statistics.json")
    assert line["files"] == [str(tmp_path / "out" / f"slide_{end}") for end in ends]
    label = tifffile.imread(tmp_path / "out" / "slide_label.ome.tif")
    expected = np.asarray(Image.open(tmp_path / "out" / "picture_label.png"))
    assert label[:, :128].any()
    assert np.array_equal(label[:, :120], expected[:, :120])  # where glass is in no other window
    (row,) = json.loads((tmp_path / "out" / "slide_statistics.json").read_text())
    area = np.count_nonzero(label) * 0.62**2  # in square micrometers
    assert row["area_mm2"] == pytest.approx(area / 1e6)
    features = json.loads((tmp_path / "out" / "slide_objects.geojson").read_text())["features"]
    told = [feature["properties"]["measurements"] for feature in features]
    assert sum(each["Area µm^2"] for each in told) == pytest.approx(area)
    corners = np.concatenate(
        [np.array(feature["geometry"]["coordinates"][0]) for feature in features]
    )
    rows, columns = np.nonzero(label)
    assert corners.min(axis=0).tolist() == [2 * columns.min(), 2 * rows.min()]  # of level 0
    assert corners.max(axis=0).tolist() == [2 * columns.max() + 2, 2 * rows.max() + 2]
    overlay = Image.open(tmp_path / "out" / "slide_overlay.png").convert("RGB")
    assert overlay.width == 640 and overlay.height > 256  # a legend is below
    drawn = np.asarray(overlay)[:256]
    color = Bundle(GLAS).config("inference.yaml")["displayable_configs"]["label_colors"]["gland"]
    is_line = (drawn == color).all(axis=-1)
    assert is_line.any() and not is_line[:, 400:].any()


def test_a_slide_is_told_before_it_is_segmented(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.full((700, 900, 3), 244, np.uint8)
    pixels[:300, :300] = (190, 80, 170)
    slide = tmp_path / "slide.svs"
    write_svs(slide, [pixels.repeat(2, axis=0).repeat(2, axis=1), pixels], 0.31)
    assert main(["info", str(slide), "-m", str(GLAS)]) == 0
    told = capsys.readouterr().out.splitlines()
    for line in (
        "    whole-slide image of format aperio",
        "    levels: 1800 x 1400, 900 x 700 pixels, columns by rows",
        "    micrometers a pixel: 0.31",
        "    seen by the network as: 900 x 700, of 0.62 micrometers",
        "    windows: 4 of 800 x 544, of which 4 have tissue",
    ):
        assert line in told
    assert run("-m", HIPPOCAMPUS, "-i", slide, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "slide.svs is a whole-slide image, which ldseg_hippocampus does not take" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-m", HIPPOCAMPUS, "-i", "nowhere.nii.gz"], "input nowhere.nii.gz does not exist"),
        (["-m", "nothing", "-i", "."], "nothing is not a bundle"),
        (["-m", HIPPOCAMPUS, "-i", ".", "-o", "~/out"], "whose ~ no shell has replaced"),
        (["-m", HIPPOCAMPUS, "-i", ".", "--num-samples", 0], "num_samples is 0: expected"),
        (
            ["-m", BUNDLES / "ldseg_echo", "-i", ".", "--views"],
            "there are no views of these images",
        ),
        (["-m", HIPPOCAMPUS, "-i", ".", "--set", "num_sample=2"], "did you mean num_samples?"),
        (["-m", HIPPOCAMPUS, "-i", ".", "--device", "cuda:77"], "device is 'cuda:77'"),
        (["-m", HIPPOCAMPUS, "-i", "."], "no images in"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list,
    told: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ldseg: error: ") and told in error
    assert list(tmp_path.glob("here*")) == [tmp_path / "here"]
    assert list((tmp_path / "here").iterdir()) == []


def test_a_kind_of_dicom_alone_is_refused_before_any_work_for_another_file(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("-m", HIPPOCAMPUS, "-i", volumes, "-o", out, "--format", "rtstruct") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "case_000.nii.gz: kind of file 'rtstruct' for a volume that is no DICOM series" in error
    assert not out.exists()


def test_views_are_eight_samples_of_a_picture_that_is_turned(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path / "glands", 1, seed=0)
    image = tmp_path / "case_000.png"
    phantom = Image.open(tmp_path / "glands" / "images" / "case_000.png")
    phantom.crop((0, 0, 128, 96)).save(image)
    small = ["--set", "window_size=[128, 128]"]
    knobs = {"dataset_dir": str(image), "num_samples": 8, "turned": True, "save_overlay": False}
    knobs["window_size"] = [128, 128]
    Bundle(GLAS).run("inference.yaml", output_dir=str(tmp_path / "command"), **knobs)
    assert run("-m", GLAS, "-i", image, "-o", tmp_path / "own", "--views", *small) == 0
    own, command = (tmp_path / name / "case_000_mean.png" for name in ("own", "command"))
    assert own.read_bytes() == command.read_bytes()


def test_views_of_a_volume_are_its_mirror_images(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, own = volumes / "case_000.nii.gz", HIPPOCAMPUS / "models" / "model.pt"
    knobs = {"dataset_dir": str(image), "num_samples": 2, "mirrored": True, "save_overlay": False}
    knobs["mirror_axes"] = [0]
    Bundle(HIPPOCAMPUS).run("inference.yaml", output_dir=str(tmp_path / "command"), **knobs)
    options = ["-m", HIPPOCAMPUS, "-i", image, "--views", "--set", "mirror_axes=[0]"]
    assert run(*options, "-o", tmp_path / "own") == 0
    assert run(*options, "-o", tmp_path / "four", "--ensemble", own, own) == 0
    assert run(*options, "-o", tmp_path / "alone", "--num-samples", 4) == 0
    names = ("command", "own", "four", "alone")
    means = [nib.load(tmp_path / name / "case_000_mean.nii.gz").get_fdata() for name in names]
    assert np.array_equal(means[0], means[1])
    np.testing.assert_allclose(means[2], means[3], atol=1e-3)  # of networks that are the same
    assert run(*options[:-2], "-o", tmp_path / "none") == 2
    assert "there are no views of these images" in capsys.readouterr().err
    assert run(*options, "-o", tmp_path / "few", "--num-samples", 1) == 2
    assert "num_samples is 1 with 2 views: expected 2" in capsys.readouterr().err
    assert not (tmp_path / "none").exists() and not (tmp_path / "few").exists()


def test_an_ensemble_has_a_sample_of_each_network(
    volumes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = HIPPOCAMPUS / "models" / "model.pt"
    image = volumes / "case_000.nii.gz"
    files = [own, own, own]
    assert run("-m", HIPPOCAMPUS, "-i", image, "-o", tmp_path / "three", "--ensemble", *files) == 0
    assert run("-m", HIPPOCAMPUS, "-i", image, "-o", tmp_path / "one", "--num-samples", 3) == 0
    means = [
        nib.load(tmp_path / name / "case_000_mean.nii.gz").get_fdata() for name in ("three", "one")
    ]
    np.testing.assert_allclose(*means, atol=1e-3)
    missing = ["--ensemble", own, tmp_path / "none.pt"]
    assert run("-m", HIPPOCAMPUS, "-i", image, "-o", tmp_path / "out", *missing) == 2
    assert "none.pt: expected weights" in capsys.readouterr().err
    few = ["--ensemble", own, own, "--num-samples", 1]
    assert run("-m", HIPPOCAMPUS, "-i", image, "-o", tmp_path / "out", *few) == 2
    assert "num_samples is 1 with an ensemble of 2 networks: expected 2" in capsys.readouterr().err
    both = ["--ensemble", own, "--weights", own]
    assert run("-m", HIPPOCAMPUS, "-i", image, "-o", tmp_path / "out", *both) == 2
    assert not (tmp_path / "out").exists()


def test_monai_does_not_warn_of_pictures_that_nothing_resizes(tmp_path: Path) -> None:
    write_phantoms("gland", tmp_path / "glands", 1, seed=0)
    given = ["-i", tmp_path / "glands" / "images", "-o", tmp_path / "out", "--num-samples", 1]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert run("-m", GLAS, *given) == 0
    assert not [one for one in told if "inverse has been called" in str(one.message)]


def test_an_overlay_may_be_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing.yaml"):
        predict(HIPPOCAMPUS, [tmp_path], tmp_path / "out", ["nothing.yaml"])
