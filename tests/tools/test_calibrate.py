from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from small_bundles import BUNDLES, write_config
from small_networks import SMALL_HIPPOCAMPUS

from ldseg_monai.data.trained_cases import TrainedCases
from ldseg_monai.evaluation.temperature import (
    TEMPERATURES,
    calibration_error,
    count,
    fit_temperature,
)
from ldseg_monai.runtime.errors import counted
from ldseg_monai.tools.calibrate import calibrate
from ldseg_monai.tools.cli import main

SHARES = (0.8, 0.1, 0.1)
LAST = "label_decoder.to_logits.2."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of noise with random labels, their axes as RAS wants none of them, smaller than the network's window."""
    folder = tmp_path_factory.mktemp("data")
    for index in range(3):
        random = np.random.default_rng(index)
        label = random.choice(3, size=(14, 10, 12), p=SHARES).astype(np.uint8)
        for kind, volume in (
            ("images", random.normal(size=label.shape).astype(np.float32)),
            ("labels", label),
        ):
            (folder / kind).mkdir(exist_ok=True)
            turned = np.array([[0, -1.0, 0, 0], [0, 0, 2, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
            nib.save(nib.Nifti1Image(volume, turned), folder / kind / f"case{index}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hippocampus bundle, small, with untrained weights that know each class's share, and exaggerate it."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    small = {**SMALL_HIPPOCAMPUS, "spatial_size": [16, 16, 16], "amp": False}
    train = write_config(folder, "ldseg_hippocampus", "train.yaml", small)
    (folder / "models").mkdir()
    source = BUNDLES / "ldseg_hippocampus" / "configs"
    shutil.copy(source / "evaluate.yaml", folder / "configs")
    metadata = json.loads((source / "metadata.json").read_text())
    metadata["known_images"] = {"voxel_mm": [1, 1, 1], "field_of_view_mm": [5, 30]}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.manual_seed(0)
    state = ConfigParser(train).get_parsed_content("network_def").state_dict()
    state[LAST + "weight"] *= 0.02
    state[LAST + "bias"] = 2 * torch.tensor(SHARES).log()
    torch.save(state, folder / "models" / "model.pt")
    TrainedCases(frozenset({("case1", "")})).write(folder / "models" / "model.pt")
    return folder


def scaled(bundle: Path, path: Path, factor: float) -> Path:
    """The bundle's weights with logits so many times as large."""
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    torch.save(
        {name: tensor * (factor if name.startswith(LAST) else 1) for name, tensor in state.items()},
        path,
    )
    return path


def made_up_case(
    temperature: float, voxels: int = 20000, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of which labels are drawn at a temperature, which therefore is the right one."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(3, voxels // 20, 20, generator=generator)
    probabilities = (logits / temperature).softmax(0).flatten(1).T
    return logits, torch.multinomial(probabilities, 1, generator=generator).view(
        1, *logits.shape[1:]
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_temperature_is_the_one_that_the_labels_were_drawn_at(temperature: float) -> None:
    fit = fit_temperature([count(*made_up_case(temperature, seed=seed)) for seed in range(3)])
    assert fit.temperature == pytest.approx(temperature, rel=0.1)  # a step of the search is 9%
    assert fit.error_after < 0.02 and fit.error_unseen < 0.02
    assert (fit.error_before > 0.05) == (temperature != 1)


def test_each_case_is_judged_at_the_temperature_of_the_others() -> None:
    cases = [count(*made_up_case(temperature)) for temperature in (1.0, 8.0)]
    fit = fit_temperature(cases)
    others = cases[0].bins[TEMPERATURES.index(8)] + cases[1].bins[TEMPERATURES.index(1)]
    assert 1 < fit.temperature < 8
    assert (
        fit.error_unseen == pytest.approx(calibration_error(others))
        and fit.error_unseen > fit.error_after
    )
    assert math.isnan(fit_temperature(cases[:1]).error_unseen)


def test_calibration_error_by_hand() -> None:
    logits = torch.tensor([[2.0, 2.0, 2.0, 0.1], [0.0, 0.0, 0.0, 0.0]])
    bins = count(logits, torch.tensor([[0, 0, 1, 0]])).bins[TEMPERATURES.index(1)]
    sure, unsure = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-0.1))
    assert calibration_error(bins) == pytest.approx(
        0.75 * abs(sure - 2 / 3) + 0.25 * (1 - unsure), abs=1e-6
    )


def test_weights_that_differ_by_a_factor_of_their_logits_become_the_same(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    factors = {"own": 1.0, "sure": 4.0}
    fits = {
        name: calibrate(
            bundle,
            str(data),
            tmp_path / f"{name}.pt",
            scaled(bundle, tmp_path / f"{name}_raw.pt", by),
            part="all",
        )
        for name, by in factors.items()
    }
    assert fits["sure"].temperature == pytest.approx(4 * fits["own"].temperature)
    assert (
        fits["sure"].error_after == pytest.approx(fits["own"].error_after)
        and fits["sure"].error_before > 0.05
    )
    own, sure = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in factors)
    before = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert own.keys() == before.keys()
    torch.testing.assert_close(own, sure)
    for name, tensor in before.items():
        expected = tensor / fits["own"].temperature if name.startswith(LAST) else tensor
        torch.testing.assert_close(own[name], expected)


def test_probabilities_become_those_of_the_labels_in_their_files_geometry(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    """Volumes are padded for the network, by more than half, as it would say at once of background's share."""
    fit = calibrate(bundle, str(data), tmp_path / "new.pt", knobs={"val_cases": ["case0", "case2"]})
    assert (
        fit.cases == 2
        and fit.temperature == pytest.approx(2, rel=0.1)
        and fit.error_after < 0.03 < fit.error_before
    )
    probabilities = torch.load(tmp_path / "new.pt", weights_only=True)[LAST + "bias"].softmax(0)
    torch.testing.assert_close(probabilities, torch.tensor(SHARES), rtol=0, atol=0.03)


def test_command_says_what_it_did(bundle: Path, data: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "cases.txt").write_text("case1\n")
    options = [
        "--dataset_dir",
        str(data),
        "--out",
        str(tmp_path / "new.pt"),
        "--set",
        f"val_cases={tmp_path}/cases.txt",
    ]
    assert main(["calibrate", str(bundle), *options]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'new.pt'}: temperature " in printed and " by 1 case," in printed
    assert printed.endswith("after\n")  # nothing of others, which there are none of
    written = ["cases.txt", "new.pt", "new_cases.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    assert main(["calibrate", str(bundle), *options]) == 2
    assert "new.pt is there already: expected a new name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ([], 2),
        (["--set", "amp=False"], 2),
        (["--set", "fold=1"], 1),
        (["--set", "split#fold=1"], 1),
        (["--part", "all"], 3),
    ],
)
def test_own_weights_are_calibrated_on_the_cases_that_their_training_left_out_unless_told_otherwise(
    bundle: Path, data: Path, tmp_path: Path, capsys, options: list[str], number: int
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "small"))
    (folder / "docs").mkdir()
    (folder / "docs" / "val_cases.txt").write_text("case0\ncase2\n")
    assert (
        main(
            [
                "calibrate",
                str(folder),
                "--dataset_dir",
                str(data),
                "--out",
                str(tmp_path / "new.pt"),
                *options,
            ]
        )
        == 0
    )
    assert f" by {counted(number, 'case')}," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "nowhere is not a bundle"),
        (["BUNDLE", "--weights", "none.pt"], "there is no file none.pt"),
        (
            ["BUNDLE", "--out", "folder/new.pt"],
            "folder is not there: expected a folder to write to",
        ),
        (["BUNDLE", "--set", "fold=7"], "fold 7: expected 0 to 2"),
        (["BUNDLE", "--set", "folds=1"], "unknown knob --folds"),
        (["BUNDLE", "--set", "seed=[1"], "--set seed=[1: expected a value as YAML has it"),
        (["BUNDLE", "--set", "val_cases=2021-13-01"], "expected a value as YAML has it"),
        (
            ["BUNDLE", "--set", "num_samples=5"],
            "knobs have num_samples: expected none of bundle_root",
        ),
        (["BUNDLE", "--set", "part=all"], "knobs have part: expected none of bundle_root"),
        (["BUNDLE", "--set", "fold"], "--set fold: expected KEY=VALUE"),
        (
            [str(BUNDLES / "cdal_hippocampus"), "--part", "all"],
            "CDAL, which has no logits to scale: expected",
        ),
    ],
)
def test_user_error_is_one_line(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch, capsys, options, message
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = [str(bundle) if option == "BUNDLE" else option for option in options]
    assert (
        main(["calibrate", *argv[:1], "--dataset_dir", str(data), "--out", "new.pt", *argv[1:]])
        == 2
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ldseg: error: ") and message in error
    assert not list(tmp_path.iterdir())


def test_bad_case_is_named(bundle: Path, data: Path, tmp_path: Path, capsys) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    label = nib.load(folder / "labels" / "case1.nii.gz")
    nib.save(
        nib.Nifti1Image(label.get_fdata() + 5, label.affine), folder / "labels" / "case1.nii.gz"
    )
    options = ["--dataset_dir", str(folder), "--out", str(tmp_path / "new.pt"), "--part", "all"]
    assert main(["calibrate", str(bundle), *options]) == 2
    assert (
        "case1.nii.gz" in capsys.readouterr().err.splitlines()[-1]
        and not (tmp_path / "new.pt").exists()
    )


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1e3, "no temperature from 0.25 to 16 fits best"),
        (float("nan"), "raw.pt has NaN or infinite numbers"),
    ],
)
def test_weights_that_no_temperature_helps_are_refused(
    bundle, data, tmp_path, capsys, factor, message
) -> None:
    weights = scaled(bundle, tmp_path / "raw.pt", factor)
    options = [
        "--dataset_dir",
        str(data),
        "--out",
        str(tmp_path / "new.pt"),
        "--weights",
        str(weights),
        "--part",
        "all",
    ]
    assert main(["calibrate", str(bundle), *options]) == 2
    assert (
        message in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "new.pt").exists()
    )


def test_mistake_in_the_program_keeps_its_traceback(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "ldseg_monai.tools.calibrate.fit_temperature", lambda cases: torch.zeros(2) @ torch.zeros(3)
    )
    with pytest.raises(RuntimeError):
        main(
            [
                "calibrate",
                str(bundle),
                "--dataset_dir",
                str(data),
                "--out",
                str(tmp_path / "new.pt"),
            ]
        )


def test_cases_that_were_trained_on_are_told_and_stay_with_the_weights(
    bundle: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "small"))
    image = str(data / "images" / "case1.nii.gz")
    trained = TrainedCases.of([{"image": image}, {"image": "elsewhere.nii.gz"}])
    trained.write(folder / "models" / "model.pt")
    with caplog.at_level("INFO", "ldseg_monai"):
        calibrate(folder, str(data), tmp_path / "new.pt", part="all")
    assert "1 of 3 cases were trained on (case1)" in caplog.messages
    assert TrainedCases.read(tmp_path / "new.pt") == trained


def test_own_weights_are_not_calibrated_on_a_part_of_other_data(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "small"))
    (folder / "docs").mkdir()
    (folder / "docs" / "val_cases.txt").write_text("knee_1\nknee_2\n")
    with pytest.raises(ValueError, match="lacks 2 of them, such as knee_1: expected that data set"):
        calibrate(folder, str(data), tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()


def test_cases_that_were_not_trained_on_are_taken_where_nothing_names_them(
    bundle: Path, data: Path, tmp_path: Path, caplog, capsys
) -> None:
    with caplog.at_level("INFO", "ldseg_monai"):
        assert calibrate(bundle, str(data), tmp_path / "new.pt").cases == 2
    assert "0 of 2 cases were trained on" in caplog.messages
    weights = scaled(bundle, tmp_path / "raw.pt", 1.0)
    options = ["--dataset_dir", str(data), "--out", str(tmp_path / "x.pt")]
    assert main(["calibrate", str(bundle), *options, "--weights", str(weights)]) == 2
    assert f"which cases {weights} was trained on is not known" in capsys.readouterr().err


def test_image_that_the_weights_do_not_know_is_refused_or_told(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    for kind in ("images", "labels"):
        path = folder / kind / "case2.nii.gz"
        volume = nib.load(path)
        large = np.diag([4, 4, 4, 1]) @ volume.affine
        nib.save(nib.Nifti1Image(np.asanyarray(volume.dataobj), large), path)
    options = ["--dataset_dir", str(folder), "--out", str(tmp_path / "new.pt")]
    assert main(["calibrate", str(bundle), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "case2.nii.gz is none of the images that the weights know: its field of view" in error
    assert "--force True to go on" in error and not (tmp_path / "new.pt").exists()
    assert main(["calibrate", str(bundle), *options, "--force", "True"]) == 0
    trained = TrainedCases.read(tmp_path / "new.pt")
    assert trained.note == "calibrated on 1 image outside of known_images (case2)"
