from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from programs import evaluated, tables

from benchmarks.accuracy import experiments
from benchmarks.accuracy.disturbances import DISTURBANCES, NOISE, value_range
from benchmarks.accuracy.experiment import PARTS, Experiment, PartHarmed, name_of
from benchmarks.accuracy.plots import widest_slice
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.trained_cases import TrainedCases


def run(
    experiment: str, bundle: Path, data: Path, out: Path, *options: str
) -> tuple[list[dict], list[dict], str]:
    """Rows of the table, rows of the cases, and the text of an experiment's report."""
    experiments.main(
        [experiment, str(bundle), "--dataset_dir", str(data), "--out", str(out), *options]
    )
    text = (out / f"{experiment}.md").read_text()
    with open(out / f"{experiment}.csv", newline="") as file:
        cases = list(csv.DictReader(file))
    assert Image.open(out / f"{experiment}.png").size[0] > 300
    assert str(data) not in text and str(bundle) not in text
    (rows,) = tables(text)
    return rows, cases, text


def test_steps_gives_the_dice_of_the_bundles_evaluation(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    rows, cases, text = run("steps", bundle, data, tmp_path, "--steps", "1", "3")
    assert [row["steps"] for row in rows] == ["K = 1", "K = 3"] and "2 cases" in text
    for number in (1, 3):
        expected = evaluated(bundle, data, tmp_path / "evaluation", num_inference_steps=number)
        found = {row["case"]: float(row[f"K = {number}"]) for row in cases}
        assert found == pytest.approx(expected, abs=1e-5)
        row = rows[(1, 3).index(number)]
        assert float(row["mean"]) == pytest.approx(np.mean(list(expected.values())), abs=1e-3)
        assert float(row["SD"]) == pytest.approx(np.std(list(expected.values()), ddof=1), abs=1e-3)


def test_named_cases_are_scored(bundle: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("case1\n")
    for named in ("case1", str(tmp_path / "names.txt")):
        _, cases, text = run(
            "steps", bundle, data, tmp_path / "out", "--steps", "1", "--val_cases", named
        )
        assert [row["case"] for row in cases] == ["case1"] and "1 cases" in text


def test_shipped_weights_are_scored_on_the_cases_that_their_training_left_out(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "small"))
    (folder / "docs").mkdir()
    (folder / "docs" / "val_cases.txt").write_text("case1\n")
    options = ("--steps", "1")
    scored = {}
    for name, more in {
        "shipped": (),
        "others": ("--model_path", str(folder / "models" / "model.pt")),
    }.items():
        _, cases, _ = run("steps", folder, data, tmp_path / name, *options, *more)
        scored[name] = [row["case"] for row in cases]
    (folder / "docs" / "val_cases.txt").write_text("another_data_set\n")
    assert scored["shipped"] == ["case1"] and len(scored["others"]) == 2
    with pytest.raises(ValueError, match="lacks 1 of them, such as another_data_set"):
        run("steps", folder, data, tmp_path / "elsewhere", *options)
    TrainedCases(frozenset({("case1", ""), ("case2", "")})).write(folder / "models" / "model.pt")
    text = run("steps", folder, data, tmp_path / "all", *options, "--part", "all")[2]
    assert "2 of 3 cases were trained on (case1, case2)" in " ".join(text.split())


def test_noise_compares_with_peers_and_is_none_at_sigma_0(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    peer = ("--peer", "baselines/unet.yaml", str(bundle / "unet.pt"))
    rows, cases, _ = run("noise", bundle, data, tmp_path, *peer, "--sigmas", "0", "0.3")
    assert [row["network"] for row in rows] == ["LDSeg", "unet"]
    for name, overlays, weights in (
        ("LDSeg", (), "models/model.pt"),
        ("unet", ("baselines/unet.yaml",), "unet.pt"),
    ):
        clean = evaluated(
            bundle, data, tmp_path / name, *overlays, model_path=str(bundle / weights)
        )
        assert {row["case"]: float(row[f"{name}, 0"]) for row in cases} == pytest.approx(
            clean, abs=1e-5
        )
        assert any(
            float(row[f"{name}, 0.3"]) != pytest.approx(clean[row["case"]], abs=1e-4)
            for row in cases
        )


def test_robustness_compares_areas_and_is_the_clean_score_at_strength_0(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    names = ["blur", "missing slices"]
    experiments.main(
        ["robustness", str(bundle), "--dataset_dir", str(data), "--out", str(tmp_path)]
        + ["--peer", "baselines/unet.yaml", str(bundle / "unet.pt")]
        + ["--other", "again", str(bundle / "models" / "model.pt"), "--only", *names]
    )
    text = (tmp_path / "robustness.md").read_text()
    areas, *curves = tables(text)
    assert [(row["disturbance"], row["network"]) for row in areas] == [
        (name, network) for name in names for network in ("LDSeg", "again", "unet")
    ]
    with open(tmp_path / "robustness.csv", newline="") as file:
        cases = list(csv.DictReader(file))
    for name, overlays, weights in (
        ("LDSeg", (), "models/model.pt"),
        ("unet", ("baselines/unet.yaml",), "unet.pt"),
    ):
        clean = evaluated(
            bundle, data, tmp_path / name, *overlays, model_path=str(bundle / weights)
        )
        for disturbance in names:
            found = {row["case"]: float(row[f"{disturbance}: {name}, 0"]) for row in cases}
            assert found == pytest.approx(clean, abs=1e-5)
    for disturbance, rows in zip(names, curves, strict=True):
        strengths = [float(strength) for strength in rows[0] if strength != "network"]
        by_network = {}
        for network in ("LDSeg", "unet"):
            dice = [
                [float(row[f"{disturbance}: {network}, {strength:g}"]) for row in cases]
                for strength in strengths
            ]
            by_network[network] = np.trapezoid(dice, strengths, axis=0) / strengths[-1]
        (peer,) = (
            row for row in areas if (row["disturbance"], row["network"]) == (disturbance, "unet")
        )
        assert float(peer["area"]) == pytest.approx(by_network["unet"].mean(), abs=1e-3)
        differences = by_network["LDSeg"] - by_network["unet"]
        assert float(peer["difference"]) == pytest.approx(differences.mean(), abs=1e-3)
        assert peer["ahead in"] == f"{np.sum(differences > 0)} of 2"
    again = [row for row in areas if row["network"] == "again"]
    assert [(row["difference"], row["ahead in"]) for row in again] == [("0.000", "0 of 2")] * 2
    assert Image.open(tmp_path / "robustness.png").size[0] > 600


def test_uncertainty_has_a_row_of_each_way_and_map_and_each_cases_doubt(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    weights = str(bundle / "models" / "model.pt")
    rows, cases, text = run(
        "uncertainty", bundle, data, tmp_path, "--num_samples", "3",
        "--peer", "baselines/unet.yaml", str(bundle / "unet.pt"), "--ensemble", weights, weights,
    )  # fmt: skip
    named = [(row["network"], row["probabilities"], row["doubt"]) for row in rows]
    assert named == [
        ("LDSeg", "3 samples", "SD"),
        ("LDSeg", "3 samples", "entropy"),
        ("LDSeg", "one softmax", "entropy"),
        ("ensemble of 2", "a sample of each", "SD"),
        ("ensemble of 2", "a sample of each", "entropy"),
        ("unet", "one softmax", "entropy"),
    ]
    for way, overlays, overrides in (
        ("LDSeg, 3 samples", (), {"num_samples": 3}),
        ("LDSeg, one softmax", (), {}),
        ("ensemble of 2, a sample of each", (), {"num_samples": 2}),  # of one network twice
        ("unet, one softmax", ("baselines/unet.yaml",), {"model_path": str(bundle / "unet.pt")}),
    ):
        expected = evaluated(bundle, data, tmp_path / way, *overlays, **overrides)
        found = {row["case"]: float(row[f"{way}: Dice"]) for row in cases}
        assert found == pytest.approx(expected, abs=1e-5)
        for row in rows:
            if f"{row['network']}, {row['probabilities']}" == way:
                assert float(row["Dice"]) == pytest.approx(
                    np.mean(list(expected.values())), abs=1e-3
                )
                least_sure = max(cases, key=lambda case: float(case[f"{way}: {row['doubt']}"]))
                (surest,) = (case for case in cases if case is not least_sure)
                assert float(row["Dice of the surest"]) == pytest.approx(
                    expected[surest["case"]], abs=1e-3
                )
    assert all(0 < float(row["LDSeg, 3 samples: SD"]) <= 0.5 for row in cases)
    assert Image.open(tmp_path / "uncertainty_maps.png").size[0] > 600 and "_maps" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["uncertainty", "--ensemble", "a.pt"], "expected two or more"),
        (["noise", "--ensemble", "a.pt", "b.pt"], "--ensemble is for uncertainty"),
        (["noise", "--only", "blur"], "--only is for robustness"),
        (["noise", "--parts"], "--parts is for robustness"),
        (["steps", "--other", "a", "a.pt"], "leave them out of steps"),
        (["noise", "--other", "a", "a.pt", "--other", "a", "b.pt"], "expected different ones"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    options: list[str],
    message: str,
    bundle: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment, *more = options
    with pytest.raises(SystemExit):
        experiments.main([experiment, str(bundle), "--dataset_dir", str(data), *more])
    assert message in capsys.readouterr().err


def test_noise_is_seeded_by_the_case_and_grows_with_the_range(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    seen: list[torch.Tensor] = []
    overrides = {"dataset_dir": str(data), "output_dir": str(tmp_path), "part": "val"}
    experiment = Experiment(Bundle(bundle), **overrides)
    inferer = experiment.inferer
    experiment.inferer = lambda image, network: (
        seen.append(image.clone()),
        inferer(image, network),
    )[1]
    for sigma in (0.0, 0.1, 0.1):
        list(experiment.run(NOISE, sigma))
    clean, once, again = seen[:2], seen[2:4], seen[4:]
    assert all(map(torch.equal, once, again))
    noises = [noisy - image for noisy, image in zip(once, clean, strict=True)]
    for noise, image in zip(noises, clean, strict=True):
        assert noise.std().item() == pytest.approx(0.1 * value_range(image), rel=0.05)
    assert not torch.allclose(noises[0][..., :16, :], noises[1][..., :16, :], atol=0.1)


def test_disturbance_of_other_images_is_refused(bundle: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--only JPEG: these images have no such thing"):
        run("robustness", bundle, data, tmp_path, "--only", "blur", "JPEG")


def test_one_part_alone_sees_the_disturbed_image(bundle: Path, data: Path, tmp_path: Path) -> None:
    overrides = {"dataset_dir": str(data), "output_dir": str(tmp_path), "part": "val"}
    (gaps,) = (kind for kind in DISTURBANCES if kind.name == "missing slices")
    for part in PARTS:
        experiment = PartHarmed(Bundle(bundle), part, **overrides)
        network: Any = experiment.network
        given, inferer, sampler = [], experiment.inferer, experiment.sampler

        def keep(image: torch.Tensor, network: Any, inferer=inferer, given=given) -> torch.Tensor:
            given.append(inferer(image, network))
            return given[-1]

        experiment.inferer = keep
        experiment.case(0, gaps, 0.4)
        clean, _ = experiment.image(0)
        harmed = gaps.apply(clean, 0.4, 0)
        of_latent, of_decoder = (harmed, clean) if part == "embedding" else (clean, harmed)
        with torch.no_grad():
            embedding, _ = network.encode_image(of_latent)
            _, features = network.encode_image(of_decoder)
            draws = sampler.seeded_noise(network, network.noise_shape(clean)).field[:, 0]
            latent = network.sample_latent(embedding, draws, 2)
            expected = network.label_decoder(latent, features)
        torch.testing.assert_close(given[0], expected, atol=1e-4, rtol=1e-4)


def test_parts_are_two_more_rows(bundle: Path, data: Path, tmp_path: Path) -> None:
    experiments.main(
        ["robustness", str(bundle), "--dataset_dir", str(data), "--out", str(tmp_path)]
        + ["--only", "blur", "--parts"]
    )
    rows, _ = tables((tmp_path / "robustness.md").read_text())
    named = [row["network"] for row in rows]
    assert named == ["LDSeg", "LDSeg, embedding alone", "LDSeg, features alone"]


def test_maps_are_of_one_axial_plane_in_the_files_geometry_upright(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    overrides = {"dataset_dir": str(data), "output_dir": str(tmp_path), "part": "val"}
    experiment = Experiment(Bundle(bundle), **overrides)
    experiment.sampler.num_samples = 2
    for case in experiment.run():
        planes = widest_slice(case)
        volume = nib.load(data / "labels" / f"{name_of(case)}.nii.gz").get_fdata()
        fullest = (volume > 0).sum(axis=(0, 1))
        index = int(np.flatnonzero(fullest == fullest.max())[-1])  # the one nearest to the head
        axial = (slice(None, None, -1), slice(None, None, -1), index)  # of axes to right and front
        assert np.array_equal(planes["label"][0].numpy(), volume[axial].T)
        image = nib.load(data / "images" / f"{name_of(case)}.nii.gz").get_fdata()
        np.testing.assert_allclose(planes["image"][0].numpy(), image[axial].T, rtol=1e-4)
        assert {plane.shape for plane in planes.values()} == {planes["label"].shape}
        assert 0 <= planes["mean"].min() and planes["mean"].max() <= 1 and planes["SD"].max() <= 0.5


def test_views_of_volumes_are_a_way_of_a_network_and_of_a_peer(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    peer = ["--peer", "baselines/unet.yaml", str(bundle / "unet.pt")]
    options = ["--num_samples", "3", "--views", *peer]
    rows, cases, _ = run("uncertainty", bundle, data, tmp_path, *options)
    ways = {(row["network"], row["probabilities"]) for row in rows}
    assert {("LDSeg", "2 views"), ("LDSeg", "3 samples in views"), ("unet", "2 views")} <= ways
    knobs = {"num_samples": 2, "mirrored": True}
    expected = evaluated(bundle, data, tmp_path / "own", **knobs)
    found = {case["case"]: float(case["LDSeg, 2 views: Dice"]) for case in cases}
    assert found == pytest.approx(expected, abs=1e-5)


def test_one_sample_has_no_spread(
    bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        experiments.main(
            ["uncertainty", str(bundle), "--dataset_dir", str(data), "--num_samples", "1"]
        )
    assert "expected 2 or more" in capsys.readouterr().err


def test_mean_leaves_out_cases_without_a_score() -> None:
    assert experiments.mean_and_deviation([0.25, 0.75, math.nan]) == {
        "mean": "0.500",
        "SD": "0.354",
    }
    assert experiments.mean_and_deviation([1.0]) == {
        "mean": "1.000",
        "SD": "–",
    }  # one case has no spread
