from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bundle_kinds import BUNDLES, dims
from config_files import load_config
from small_data import write_cuts
from workplace import Run, Workplace, listing, restored_process, written


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
def phantoms(bundle: str, num_classes: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of images/ and labels/: cut-outs of phantoms."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_cuts(folder, dims(bundle), num_classes=num_classes)
    return folder


@pytest.fixture(scope="session")
def num_classes(bundle: str) -> int:
    """Classes of a bundle's labels, background included."""
    return load_config(bundle, "train.yaml")["num_classes"]


@pytest.fixture(scope="session")
def untrained(bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny network that have learned nothing."""
    root = tmp_path_factory.mktemp("untrained")
    place = Workplace.make(root / "place", bundle)
    torch.manual_seed(0)
    network = place.workflow("infer", ["inference.yaml"]).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), root / "model.pt")
    return root / "model.pt"


@pytest.fixture(scope="session")
def trained(workplace: Workplace, phantoms: Path, written_by_training: dict[str, set[str]]) -> Run:
    """Two epochs in one go, from the repository root; evaluation and inference use their weights."""
    output_dir = workplace.root / "trained"
    before = listing(workplace.root)
    printed = workplace.run(
        "train.yaml", run_id="training", dataset_dir=str(phantoms), output_dir="trained"
    )
    written_by_training[workplace.bundle] = written(before, listing(workplace.root))
    models = workplace.bundle_root / "models"
    models.mkdir()
    shutil.copy(output_dir / "model.pt", models / "model.pt")
    return Run(printed, output_dir)


@pytest.fixture(scope="session")
def evaluated(workplace: Workplace, trained: Run, phantoms: Path) -> Run:
    output_dir = workplace.root / "evaluated"
    printed = workplace.run_here(
        "train.yaml", "evaluate.yaml", dataset_dir=str(phantoms), output_dir=str(output_dir)
    )
    return Run(printed, output_dir)


@pytest.fixture(scope="session")
def segmented(workplace: Workplace, trained: Run, phantoms: Path) -> Run:
    """Inference with everything at its default but the data, from inside the bundle folder."""
    printed = workplace.run("inference.yaml", place="inside", dataset_dir=str(phantoms))
    return Run(printed, workplace.bundle_root / "output")


@pytest.fixture
def process_left_as_it_was() -> Iterator[None]:
    """Undo what a workflow does to the process that it runs in."""
    with restored_process():
        yield
