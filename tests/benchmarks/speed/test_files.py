from __future__ import annotations

from pathlib import Path

import pytest
from programs import ROOT, overrides, tables

from benchmarks.speed import files
from benchmarks.speed.workload import argument_parser, workload_of


def test_steps_are_the_config_in_order_and_add_up_to_the_whole(
    tiny: list[str], tmp_path: Path
) -> None:
    work = workload_of(argument_parser("").parse_args(tiny))
    config = work.config("inference.yaml", output_dir=str(tmp_path), phantoms=True)
    pipeline = files.Pipeline(config, "cpu")
    steps, totals = files.repeat(pipeline, 2)

    transforms = config.get_parsed_content("preprocessing").transforms
    transforms += config.get_parsed_content("postprocessing").transforms
    numbered = [name.split()[1] for name in steps[0] if name[0].isdigit()]
    assert numbered == [type(transform).__name__ for transform in transforms]
    assert {"image encoding", "denoising", "decoding", "SaveOverlay"} <= set(steps[0])
    assert set(pipeline.kinds.values()) == set(files.KINDS)
    for step, total in zip(steps, totals, strict=True):
        assert all(seconds > 0 for seconds in step.values())
        assert sum(step.values()) == pytest.approx(total, rel=0.05)
    assert (tmp_path / "case_000_label.nii.gz").is_file()


def test_cdal_is_timed_by_the_same_parts(tmp_path: Path) -> None:
    network = overrides("cdal_hippocampus")
    values = ["model_path=none", "num_samples=2", "overlap=0", "amp=False", *network]
    options = ["--size", "52", "52", "40", "--out", str(tmp_path), "--set", *values]
    work = workload_of(
        argument_parser("").parse_args([str(ROOT / "bundles" / "cdal_hippocampus"), *options])
    )
    step = files.Pipeline(
        work.config("inference.yaml", output_dir=str(tmp_path), phantoms=True), "cpu"
    ).run()
    assert {"image encoding", "denoising", "decoding"} <= set(step)
    assert all(seconds > 0 for seconds in step.values())


def test_tables_of_a_tiny_run(tiny: list[str], tmp_path: Path) -> None:
    files.main(tiny)
    text = (tmp_path / "files.md").read_text()
    steps, kinds = tables(text)
    assert sum(float(row["share of the total"].rstrip("%")) for row in steps) == pytest.approx(
        100, abs=15
    )
    assert [row["kind"] for row in kinds] == [*files.KINDS, "total"]
    assert "weights: untrained; image: a phantom" in " ".join(text.split())


def test_ratio_is_that_of_total_and_network() -> None:
    kinds = {kind: kind for kind in files.KINDS}
    step = {
        files.LOAD: 1.0,
        files.PREPROCESSING: 0.5,
        files.NETWORK: 2.0,
        files.POSTPROCESSING: 0.5,
        files.SAVE: 1.0,
    }
    assert "Total over network: 2.5 (2.5 to 2.5)" in files.total_table([step], [5.0], kinds)
