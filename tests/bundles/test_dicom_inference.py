"""inference.yaml on DICOM: every 3D bundle segments a series and writes DICOM; the others say what they read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from bundle_kinds import dims
from dicom_phantoms import OBLIQUE, nifti_voxels, segmentation_voxels
from PIL import Image
from workplace import Workplace

SERIES = replace(OBLIQUE, shape=(12, 40, 36), spacing=(3.0, 1.0, 1.0), big_endian=True)

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


def infer(workplace: Workplace, **overrides: object) -> None:
    workflow = workplace.workflow("infer", ["inference.yaml"], device="cpu", **overrides)
    workflow.initialize()
    workflow.run()


def reads_dicom(workplace: Workplace) -> bool:
    return "series_uid" in workplace.workflow("infer", ["inference.yaml"]).parser


def first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@pytest.mark.costly
def test_a_series_is_segmented_and_written_as_nifti_and_dicom(
    workplace: Workplace, untrained: Path, tmp_path: Path
) -> None:
    if not reads_dicom(workplace):
        pytest.skip("the bundle reads pictures")
    folder, output_dir = SERIES.write(tmp_path / "knee 1"), tmp_path / "output"
    replace(SERIES, uid="1.2.3.4", shape=(3, 40, 36)).write(folder)
    infer(
        workplace,
        dataset_dir=str(folder),
        series_uid=SERIES.uid,
        output_dir=str(output_dir),
        model_path=str(untrained),
    )
    assert {path.name for path in output_dir.iterdir()} >= {
        f"knee 1_{end}" for end in ("label.nii.gz", "seg.dcm", "overlay.png")
    }
    voxels = segmentation_voxels(output_dir / "knee 1_seg.dcm")
    voxels.assert_same(nifti_voxels(output_dir / "knee 1_label.nii.gz"))

    metadata = json.loads((workplace.bundle_root / "configs" / "metadata.json").read_text())
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert set(voxels.classes) == set(range(1, len(channels))), (
        "untrained weights should label some of each class"
    )
    item = pydicom.dcmread(output_dir / "knee 1_seg.dcm")
    assert [segment.SegmentLabel for segment in item.SegmentSequence] == list(channels.values())[1:]
    algorithm = item.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (
        metadata["name"],
        metadata["version"],
    )
    assert item.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES.uid
    assert max(Image.open(output_dir / "knee 1_overlay.png").size) >= 400


@pytest.mark.costly(by=dims)
def test_tags_that_look_like_paths_commands_or_expressions_are_text(
    workplace: Workplace, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reads_dicom(workplace):
        pytest.skip("the bundle reads pictures")
    monkeypatch.chdir(tmp_path)
    folder, output_dir = (
        SERIES.write(tmp_path / "data" / "$(touch evil) @seed"),
        tmp_path / "output",
    )
    hostile = {
        "PatientName": "../../evil",
        "PatientID": "$(touch evil)",
        "StudyDescription": "$__import__('pathlib').Path('evil').touch()",
        "SeriesDescription": "@seed",
        "Manufacturer": "%evil.yaml",
    }
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        for keyword, value in hostile.items():
            setattr(item, keyword, value)
        item.save_as(path)
    before = {path for path in tmp_path.rglob("*")}
    infer(
        workplace,
        dataset_dir=str(tmp_path / "data"),
        output_dir=str(output_dir),
        model_path=str(untrained),
    )
    made = {path for path in tmp_path.rglob("*")} - before
    assert made and all(output_dir in (path, *path.parents) for path in made)
    assert (output_dir / "$(touch evil) @seed_seg.dcm").is_file()


def test_what_cannot_be_read_is_an_error_before_any_work(
    workplace: Workplace, tmp_path: Path
) -> None:
    folder, output_dir = SERIES.write(tmp_path / "knee", drop=[5]), tmp_path / "output"
    message = "holds DICOM files, which this bundle does not read"
    if reads_dicom(workplace):
        message = "add the slices that are missing"
    elif "dicom_pictures" in workplace.workflow("infer", ["inference.yaml"]).parser["datalist"]:
        message = "DICOM, but no picture: slices of a volume"
    with pytest.raises(RuntimeError) as caught:
        infer(workplace, dataset_dir=str(folder), output_dir=str(output_dir))
    assert message in first_cause(caught.value)
    assert not output_dir.exists()
