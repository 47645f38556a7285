from __future__ import annotations

import dataclasses
import importlib.util
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from programs import ROOT, tables
from small_networks import SMALL, count_calls

from benchmarks.speed import image_size
from benchmarks.speed.image_size import Row
from benchmarks.speed.measure import Result
from benchmarks.speed.workload import Workload, segmenter_call
from ldseg_monai.bundle import Bundle

NETWORKS = ("LDSeg, K = 2", image_size.UNET, image_size.PIXEL_DIFFUSION)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_slope_of_a_power_is_its_exponent(power: float) -> None:
    voxels = [1e3, 1e4, 1e6]
    assert image_size.slope(voxels, [3e-7 * n**power for n in voxels]) == pytest.approx(power)


def test_larger_half_leaves_the_overhead_out() -> None:
    sides = (16, 32, 64, 128, 256)
    results = {
        Row(network, (side,)): Result({0: 1e-3 * max(side, 64)})
        for network in NETWORKS
        for side in sides
    }
    rows = tables(image_size.slopes(results))[0]
    assert all(float(row["all sizes"]) < 0.8 for row in rows)
    assert all(float(row["larger half"]) == 1 for row in rows)


def test_failed_sizes_are_left_out_of_the_curve() -> None:
    results = {Row("UNet", (8,)): Result({0: 1.0}), Row("UNet", (16,)): Result(failure="no memory")}
    assert image_size.curve(results, "UNet") == ([8.0], [1.0])
    assert tables(image_size.slopes(results))[0][0]["all sizes"] == "–"


def test_sizes_are_multiples_that_all_networks_take() -> None:
    work = Workload(Bundle(ROOT / "bundles" / "ldseg_knee3d"))
    assert image_size.sizes(work, [1.5, 0.01, 0.25, 0.3]) == [
        (16, 16, 16),
        (64, 32, 32),
        (80, 32, 32),
        (384, 192, 192),
    ]


def test_overlays_are_measured_in_as_many_steps() -> None:
    work = Workload(Bundle(ROOT / "bundles" / "ldseg_glas"), overrides=SMALL["ldseg_glas"])
    overlays = ["baselines/sdf_ddpm.yaml", "baselines/lsegdiff_2.yaml+baselines/sdseg.yaml"]
    methods = image_size.methods_of(work, overlays)
    assert list(methods) == ["LDSeg", "sdf_ddpm", "sdseg"]
    chosen = image_size.candidates(methods, [(32, 32)], 3)
    assert [row.network for row in chosen][:3] == [f"{name}, K = 3" for name in methods]
    plain = dataclasses.replace(methods["sdf_ddpm"], overrides={})
    network = plain.network()
    assert network.noise_shape(plain.image((32, 32))) == [2, 32, 32]  # the label's own pixels
    calls = count_calls(network.denoiser)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workload, "network", lambda self: network)
        assert segmenter_call(plain, (32, 32), 3, False)().shape == (1, 2, 32, 32)
    assert len(calls) == 3
    with pytest.raises(ValueError, match=r"none.yaml does not exist; expected a file of configs/"):
        image_size.methods_of(work, ["baselines/none.yaml"])


def test_methods_may_take_their_own_steps() -> None:
    work = Workload(Bundle(ROOT / "bundles" / "cdal_monuseg"))
    methods = image_size.methods_of(work, ["baselines/segdiff.yaml", "baselines/ldseg.yaml"])
    chosen = image_size.candidates(methods, [(32, 32)], image_size.number_of_steps("own"))
    own = [row.network for row in chosen][:3]
    assert own == ["CDAL, K = 4", "segdiff, K = 100", "ldseg, K = 2"]
    for wrong in ("mine", "0"):
        with pytest.raises(ArgumentTypeError, match="expected a number of steps, or own"):
            image_size.number_of_steps(wrong)


@pytest.mark.slow  # Figure 6 at two sizes, with memory
def test_tables_of_a_tiny_run(tiny: list[str], tmp_path: Path) -> None:
    image_size.main([*tiny, "--no_memory", "--factors", "1", "2"])
    rows, slopes = tables((tmp_path / "image_size.md").read_text())
    assert [row["size"] for row in rows] == ["16x32x16"] * 3 + ["32x64x32"] * 3
    assert all(row["times LDSeg, K = 2"] == "1" for row in rows if row["network"] == "LDSeg, K = 2")
    assert [row["slope"] for row in slopes] == list(NETWORKS)
    assert (tmp_path / "image_size.png").is_file() == (
        importlib.util.find_spec("matplotlib") is not None
    )
