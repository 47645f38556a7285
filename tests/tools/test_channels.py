"""From a folder of two-channel cases to masks, by the commands of a user."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from small_networks import LDSEG_3D_FEATURES
from workplace import restored_process

from ldseg_monai import Bundle, Segmenter
from ldseg_monai.data.known import read_known
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.runtime.errors import ArgumentError
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.new_bundle import write

BUNDLES = Path(__file__).parents[2] / "bundles"
SMALL: dict[str, Any] = {**LDSEG_3D_FEATURES, "device": "cpu", "amp": False, "latent_channels": 2}
pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of two channels, a bundle for them, and weights of a step."""
    root = tmp_path_factory.mktemp("place")
    write_phantoms("tumor", root / "data", 3, channels=2)
    with pytest.MonkeyPatch.context() as patch, restored_process():
        patch.setattr(write, "_other_json", lambda folder, names: {"ablations", "baselines"})
        argv = ["new-bundle", "--from", str(BUNDLES / "ldseg_hippocampus"), "--name", "tumor"]
        argv += ["--dataset_dir", str(root / "data"), "--out", str(root / "bundles")]
        assert main([*argv, "--classes", "edema,core"]) == 0
        overlay = root / "bundles" / "tumor" / "configs" / "small.yaml"
        overlay.write_text(json.dumps(SMALL))
        argv = ["train", "-m", str(root / "bundles" / "tumor"), "--data", str(root / "data")]
        argv += ["-o", str(root / "run"), "--epochs", "1", "--overlay", "small.yaml", "--set"]
        assert main([*argv, "cases_per_epoch=2", "batch_size=2", "val_interval=1"]) == 0
    return root


def files(place: Path, case: str = "case_001") -> list[str]:
    return [str(place / "data" / "images" / f"{case}_{part:04d}.nii.gz") for part in (0, 1)]


def predict(place: Path, out: Path, *inputs: str, form: str = "nrrd") -> int:
    argv = ["predict", "-m", str(place / "bundles" / "tumor"), "-i", *inputs, "-o", str(out)]
    weights = ["--weights", str(place / "run" / "model.pt"), "--statistics", "--format", form]
    return main([*argv, *weights, "--config", "small.yaml"])


def test_the_bundle_says_its_channels(place: Path) -> None:
    bundle = Bundle(place / "bundles" / "tumor")
    image = bundle.metadata["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == 2
    assert image["channel_def"] == {"0": "channel 0", "1": "channel 1"}
    assert "2 channels" in bundle.metadata["image_classes"]
    assert len(read_known(str(bundle.configs / "metadata.json")).intensity) == 2
    for name in ("train.yaml", "inference.yaml"):
        config = bundle.config(name)
        assert config["load"]["channels"] == config["network_def#image_encoder#in_channels"] == 2
        (normalize,) = [step for step in config["image_transforms"] if "Normalize" in str(step)]
        assert normalize["channel_wise"] is True
        assert config["datalist"]["phantom"] == "tumor"


def test_each_channel_is_standardized_alone(place: Path) -> None:
    config = Bundle(place / "bundles" / "tumor").config("inference.yaml", dataset_dir="x")
    seen = config.get_parsed_content("load")({"image": files(place)})
    for transform in config.get_parsed_content("image_transforms")[:3]:
        seen = transform(seen)
    for channel in seen["image"]:
        assert (float(channel.mean()), float(channel.std())) == pytest.approx((0, 1), abs=1e-3)


def test_files_of_a_case_become_one_mask_in_its_place(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(place, tmp_path / "one", *files(place)) == 0
    masks = [path.name for path in (tmp_path / "one").glob("*.nii.gz")]
    assert masks == ["case_001_label.nii.gz"]
    mask = nib.load(tmp_path / "one" / "case_001_label.nii.gz")
    image = nib.load(files(place)[0])
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine)
    rows = json.loads((tmp_path / "one" / "case_001_statistics.json").read_text())
    columns = [name for name in rows[0] if "intensity" in name]
    assert columns == [f"{kind}_intensity_{part}" for part in (0, 1) for kind in ("mean", "sd")]
    assert predict(place, tmp_path / "all", str(place / "data")) == 0
    names = {path.name for path in (tmp_path / "all").glob("*_label.nii.gz")}
    assert names == {f"case_00{number}_label.nii.gz" for number in range(3)}
    capsys.readouterr()
    assert predict(place, tmp_path / "less", files(place)[0]) == 2
    told = capsys.readouterr().err
    assert "case_001_0000 has 1 channel: expected 2" in told
    assert not (tmp_path / "less").exists()


def test_a_case_is_done_again_if_its_second_channel_changed(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copies = [str(tmp_path / Path(file).name) for file in files(place)]
    for file, copy in zip(files(place), copies, strict=True):
        shutil.copyfile(file, copy)
    done = "1 of 1 cases are finished already"
    caplog.set_level("INFO")
    for again in (False, True):
        caplog.clear()
        assert predict(place, tmp_path / "out", *copies) == 0
        assert (done in caplog.text) is again
    volume = nib.load(copies[1])
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj) + 1, volume.affine), copies[1])
    caplog.clear()
    assert predict(place, tmp_path / "out", *copies) == 0
    assert done not in caplog.text


def test_a_class_is_renamed_in_one_place(place: Path, tmp_path: Path) -> None:
    metadata = place / "bundles" / "tumor" / "configs" / "metadata.json"
    before = metadata.read_text()
    content = json.loads(before)
    content["network_data_format"]["outputs"]["pred"]["channel_def"]["2"] = "Enhancing tumor"
    metadata.write_text(json.dumps(content))
    try:
        assert predict(place, tmp_path, *files(place), form="stl") == 0
    finally:
        metadata.write_text(before)
    rows = json.loads((tmp_path / "case_001_statistics.json").read_text())
    assert [row["name"] for row in rows] == ["edema", "Enhancing tumor"]
    surfaces = {path.name for path in tmp_path.glob("*.stl")}
    assert surfaces == {
        f"case_001_surface.{row['name'].replace(' ', '_')}.stl" for row in rows if row["voxels"]
    }


def test_a_bundle_of_one_channel_refuses_two_before_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "-m", str(BUNDLES / "ldseg_hippocampus"), "--data", str(place / "data")]
    assert main([*argv, "-o", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("ldseg: error: case_000 has 2 channels: expected 1, as the network tak")
    assert not (tmp_path / "run" / "model.pt").exists()


def test_arrays_and_paths_give_the_mask_of_the_command(place: Path, tmp_path: Path) -> None:
    assert predict(place, tmp_path, *files(place)) == 0
    mask = np.asarray(nib.load(tmp_path / "case_001_label.nii.gz").dataobj)
    weights = place / "run" / "model.pt"
    segment = Segmenter(place / "bundles" / "tumor", weights, configs=["small.yaml"])
    result = segment(files(place))
    assert result.case == "case_001"
    np.testing.assert_array_equal(result.label, mask)
    volumes = [nib.load(file) for file in files(place)]
    array = np.stack([np.asarray(volume.dataobj) for volume in volumes])
    np.testing.assert_array_equal(segment(array, affine=volumes[0].affine).label, mask)
    with pytest.raises(ArgumentError, match="a list of what are no paths: expected the path of"):
        segment([array[0], array[1]])
    with pytest.raises(ValueError, match="has 1 channels: expected 2; give a file of each"):
        segment(array[0], affine=volumes[0].affine)
    with pytest.raises(ValueError, match="_0001.nii.gz, .*_0000.nii.gz: expected .* in the order"):
        segment(files(place)[::-1])


def test_info_says_the_channels(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", *files(place), "-m", str(place / "bundles" / "tumor")]) == 0
    assert "channels: 2 (channel 0, channel 1)\n" in capsys.readouterr().out
    assert main(["info", *files(place), "-m", str(BUNDLES / "ldseg_hippocampus")]) == 2
    told = capsys.readouterr().err
    assert "no bundle here can take " in told and "has 2 channels: expected 1; choose one" in told
