"""Exported bundles, as `monai.bundle.download` unpacks them, in processes that cannot import ldseg_monai."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_kinds import BUNDLES
from config_files import REPOSITORY
from monai.bundle import ConfigParser, ConfigWorkflow
from workplace import find_case, read_image, tiny_overrides

from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.tools.zoo import export_bundle

SCHEMA = (
    REPOSITORY.parent / "shared" / "clients" / "meta_schema_20240725.json"
)  # the zoo's, beside the repository
# Everything here runs in float32: many processors emulate bfloat16, slowly. The volumes are smaller
# than those that the weights know, so that they are forced.
SIDE = 40  # voxels of a volume: no bundle needs more than one window
pytestmark = pytest.mark.clients


@pytest.fixture(scope="module", params=BUNDLES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every bundle, exported and unpacked from its zip."""
    exports, folder = tmp_path_factory.mktemp("exports"), tmp_path_factory.mktemp("zoo")
    for bundle in BUNDLES:
        exported = export_bundle(REPOSITORY / "bundles" / bundle, exports)
        [archive] = exports.glob(f"{bundle}_v*.zip")
        monai.bundle.download(name=bundle, url=archive.as_uri(), bundle_dir=folder, progress=False)
        assert contents(folder / bundle) == contents(exported)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Makes a data set of the kind that a bundle segments."""

    def make(bundle: str, num: int) -> Path:
        config = ConfigParser.load_config_file(
            REPOSITORY / "bundles" / bundle / "configs" / "train.yaml"
        )
        folder = tmp_path_factory.mktemp("phantoms")
        write_phantoms(config["datalist"]["phantom"], str(folder), num, seed=3)
        return folder

    return make


@pytest.fixture(scope="module")
def image(phantoms: Callable[[str, int], Path]) -> Callable[[str], Path]:
    """A data set of one image for each bundle, of a phantom or, if that is a volume, of its corner."""

    @cache
    def make(bundle: str) -> Path:
        folder = phantoms(bundle, 1)
        for path in folder.glob("images/*.nii.gz"):
            volume = nib.load(path)
            nib.save(volume.slicer[:SIDE, :SIDE, :SIDE], path)
        return folder

    return make


@pytest.fixture(scope="module")
def segmentation(
    image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], np.ndarray]:
    """Each bundle's label map of its image, by the bundle as it is in the repository."""

    @cache
    def make(bundle: str) -> np.ndarray:
        folder, out = REPOSITORY / "bundles" / bundle, tmp_path_factory.mktemp("segmentation")
        options = {
            "bundle_root": str(folder),
            "dataset_dir": str(image(bundle)),
            "output_dir": str(out),
        }
        config = str(folder / "configs" / "inference.yaml")
        workflow = ConfigWorkflow(
            config,
            workflow_type="infer",
            logging_file=False,
            device="cpu",
            amp=False,
            force=True,
            **options,
        )
        workflow.initialize()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the processes, for the same bits
        workflow.run()
        torch.set_num_threads(threads)
        return label_map(out)

    return make


def label_map(out: Path) -> np.ndarray:
    labels = read_image(find_case(out, "case_000_label"))[0]
    assert len(np.unique(labels)) > 1
    return labels


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process that cannot import ldseg_monai, wherever it is installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['ldseg_monai'] = None\n")
    return os.environ | {
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., None]:
    """Runs Python in such a process, to a good end."""

    def call(*arguments: str, cwd: Path = tmp_path, task: dict[str, Any] | None = None) -> None:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            input=json.dumps(task),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"

    return call


@pytest.fixture
def act(run: Callable[..., None]) -> Callable[..., None]:
    """Runs an act of zoo_client.py."""

    def call(name: str, **task: Any) -> None:
        run(str(Path(__file__).with_name("zoo_client.py")), name, task=task)

    return call


def test_there_is_no_ldseg_monai_in_the_processes(run: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="No module named 'ldseg_monai.networks'"):
        run("-c", "import ldseg_monai.networks")


def test_metadata_is_as_the_schema_wants(zoo: Path, name: str, tmp_path: Path) -> None:
    pytest.importorskip("jsonschema", reason="MONAI validates with jsonschema")
    if not SCHEMA.is_file():
        pytest.skip(f"no copy of the zoo's schema at {SCHEMA}")
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")
    monai.bundle.verify_metadata(
        meta_file=str(zoo / name / "configs" / "metadata.json"), filepath=schema
    )
    broken = json.loads((zoo / name / "configs" / "metadata.json").read_text()) | {"task": None}
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="None is not of type 'string'"):
        monai.bundle.verify_metadata(meta_file=str(tmp_path / "broken.json"), filepath=schema)


def test_zoo_verifies_it_and_it_loads_and_runs_from_outside(
    zoo: Path,
    name: str,
    act: Callable[..., None],
    tmp_path: Path,
    image: Callable[[str], Path],
    segmentation: Callable[[str], np.ndarray],
) -> None:
    values = tiny_overrides(name, "train.yaml")
    act(
        "verify",
        folder=str(zoo / name),
        out=str(tmp_path),
        dataset_dir=str(image(name)),
        values=values,
    )
    assert np.array_equal(label_map(tmp_path), segmentation(name))


def test_inference_runs_from_inside(
    zoo: Path,
    name: str,
    run: Callable[..., None],
    image: Callable[[str], Path],
    segmentation: Callable[[str], np.ndarray],
) -> None:
    config = [
        "--config_file",
        "configs/inference.json",
        "--dataset_dir",
        str(image(name)),
        "--device",
        "cpu",
        "--amp",
        "False",
        "--force",
        "True",
    ]
    run("-m", "monai.bundle", "run", *config, cwd=zoo / name)
    assert np.array_equal(label_map(zoo / name / "output"), segmentation(name))


def test_it_trains_and_takes_part_in_federated_learning(
    zoo: Path,
    name: str,
    act: Callable[..., None],
    phantoms: Callable[[str, int], Path],
    tmp_path: Path,
) -> None:
    values = {
        **tiny_overrides(name, "train.yaml", "evaluate.yaml"),
        "dataset_dir": str(phantoms(name, 3)),
    }
    act("train", folder=str(zoo / name), out=str(tmp_path), values=values)


def test_bundles_share_a_process(
    zoo: Path,
    act: Callable[..., None],
    tmp_path: Path,
    image: Callable[[str], Path],
    segmentation: Callable[[str], np.ndarray],
) -> None:
    folders, outs = (
        [str(zoo / bundle) for bundle in BUNDLES],
        [str(tmp_path / bundle) for bundle in BUNDLES],
    )
    act("share", folders=folders, outs=outs, datasets=[str(image(bundle)) for bundle in BUNDLES])
    for bundle, out in zip(BUNDLES, outs, strict=True):
        assert np.array_equal(label_map(Path(out)), segmentation(bundle)), bundle
