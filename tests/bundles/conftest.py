from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from config_files import BUNDLES
from monai.utils import set_determinism
from workplace import Run, Workplace, listing, written


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as the processes that `Workplace` starts: another number of them rounds otherwise."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.fixture(scope="session", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> str:
    """Name of each bundle."""
    return request.param


@pytest.fixture(scope="session")
def workplace(bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace.make(tmp_path_factory.mktemp(bundle), bundle)


@pytest.fixture(scope="session")
def written_by_training() -> dict[str, set[str]]:
    """Paths that the fixture `trained` saw change, by bundle."""
    return {}


@pytest.fixture(scope="session")
def trained(workplace: Workplace, written_by_training: dict[str, set[str]]) -> Run:
    """Two epochs on phantoms in one go, from the repository root; evaluation and inference use their weights."""
    output_dir = workplace.root / "trained"
    before = listing(workplace.root)
    printed = workplace.run("train.yaml", run_id="training", output_dir="trained")
    written_by_training[workplace.bundle] = written(before, listing(workplace.root))
    models = workplace.bundle_root / "models"
    models.mkdir()
    shutil.copy(output_dir / "model.pt", models / "model.pt")
    return Run(printed, output_dir)


@pytest.fixture(scope="session")
def phantoms(trained: Run) -> Path:
    """A data set of images/ and labels/, which the training generated."""
    return trained.output_dir / "phantoms_0"


@pytest.fixture(scope="session")
def evaluated(workplace: Workplace, phantoms: Path) -> Run:
    output_dir = workplace.root / "evaluated"
    printed = workplace.run(
        "train.yaml", "evaluate.yaml", dataset_dir=str(phantoms), output_dir=str(output_dir)
    )
    return Run(printed, output_dir)


@pytest.fixture(scope="session")
def segmented(workplace: Workplace, phantoms: Path) -> Run:
    """Inference with everything at its default but the data, from inside the bundle folder."""
    printed = workplace.run("inference.yaml", place="inside", dataset_dir=str(phantoms))
    return Run(printed, workplace.bundle_root / "output")


@pytest.fixture
def process_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a workflow does to the process that it runs in."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic)
    yield
    set_determinism(None)
