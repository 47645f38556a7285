from __future__ import annotations

from pathlib import Path

import pytest
from programs import tables

from benchmarks.speed import cost
from ldseg_monai.bundle import Bundle

THROUGHPUT = cost.Throughput(seconds=0.5, start=10.0, read=2e6, written=1e5)


def test_image_and_start_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("a.nii.gz", "b.1.nii.gz")]
    for size, file in zip((1000, 3000), files, strict=True):
        file.write_bytes(bytes(size))

    def run(bundle: Bundle, images: Path, output_dir: Path, settings: list[str]) -> float:
        linked = sorted(images.iterdir())
        assert {image.resolve() for image in linked} == {file.resolve() for file in files}
        output_dir.mkdir()
        for image in linked:
            (output_dir / image.name.replace(".nii.gz", "_label.nii.gz")).write_bytes(bytes(50))
        return 10 + 0.5 * len(linked)

    monkeypatch.setattr(cost, "run_inference", run)
    measured = cost.measure(Bundle(tmp_path), [str(file) for file in files], (2, 6), 2, [])
    assert (measured.seconds, measured.start) == pytest.approx((0.5, 10.0))
    assert (measured.read, measured.written) == (2000, 50)


def test_machines_share_the_time_and_not_the_price() -> None:
    (rows,) = tables(cost.table(THROUGHPUT, studies=1_000_000, cores=2, price=0.1))
    by_machines = {row["machines"]: row for row in rows}
    hours = 1_000_000 * 0.5 / 3600
    assert by_machines["1"]["time"] == f"{hours / 24:.3g} days"
    assert by_machines["100"]["time"] == f"{hours / 100:.3g} hours"
    assert float(by_machines["1"]["core hours"]) == pytest.approx(2 * hours, rel=0.01)
    assert float(by_machines["1"]["price"]) == pytest.approx(0.2 * hours, rel=0.01)
    assert float(by_machines["1000"]["price"]) == pytest.approx(
        0.2 * (hours + 1000 * 10 / 3600), rel=0.03
    )


def test_disk_is_that_of_all_studies() -> None:
    assert "2000 GB to read, 100 GB written" in cost.table(THROUGHPUT, 1_000_000, 2, 0.1)
