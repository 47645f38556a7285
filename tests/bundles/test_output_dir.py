"""What is in an output_dir of a command already: files of others stay, and are told of before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from workplace import Workplace, listing

from ldseg_monai.runtime.errors import ExistingFileError, UserError, cause
from ldseg_monai.runtime.ownership import note_written, release_folders

COMMANDS = {
    "train": ("train.yaml",),
    "evaluate": ("train.yaml", "evaluate.yaml"),
    "infer": ("inference.yaml",),
}
FILES = {
    "train": ["model.pt", "checkpoint.pt"],
    "evaluate": ["metrics.csv", "summary.json", "report.html"],
    "infer": ["case_001_label.nii.gz", "case_000_overlay.png"],
}
pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


def refused(
    workplace: Workplace, kind: str, dataset_dir: Path, output_dir: Path, model: Path
) -> str:
    """The error of a command that leaves all as it was."""
    options = {} if kind == "train" else {"model_path": str(model)}
    before = listing(output_dir)
    with pytest.raises(Exception) as caught:
        workplace.run_here(
            *COMMANDS[kind], dataset_dir=str(dataset_dir), output_dir=str(output_dir), **options
        )
    release_folders()
    assert listing(output_dir) == before
    told = cause(caught.value)
    assert isinstance(told, UserError)
    assert isinstance(told, ExistingFileError)
    return str(told)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in FILES for name in FILES[kind]])
def test_file_that_no_command_wrote_is_refused(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path, kind: str, name: str
) -> None:
    (tmp_path / name).write_text("years of work")
    told = refused(workplace, kind, phantoms, tmp_path, untrained)
    assert f"{tmp_path / name} (not written by this program)" in told
    assert "choose another output_dir, or move these files away" in told


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_results_of_another_data_set_are_refused(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / FILES[kind][0]
    path.write_text("of other cases")
    note_written(path, "/others/images")
    told = refused(workplace, kind, phantoms, tmp_path, untrained)
    assert f"{path} (made of /others/images, not of {phantoms}/images)" in told


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_results_that_were_changed_are_refused(
    workplace: Workplace, untrained: Path, phantoms: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / FILES[kind][0]
    path.write_text("results")
    note_written(path, f"{phantoms}/images")
    path.write_text("results, and remarks")
    told = refused(workplace, kind, phantoms, tmp_path, untrained)
    assert f"{path} (changed after it was written)" in told
