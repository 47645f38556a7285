"""The configs as MONAI's clients use them: one `ConfigWorkflow` in their own process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from config_files import STANDALONE, load_config
from monai.bundle import ConfigParser
from workplace import Workplace, listing

from ldseg_monai.training.resume import ResumableCheckpoint

WORKFLOWS = [
    ("train", ["train.yaml"]),
    ("infer", ["inference.yaml"]),
    ("eval", ["train.yaml", "evaluate.yaml"]),
]

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


@pytest.mark.parametrize(("kind", "configs"), WORKFLOWS[:2])
def test_workflow_has_all_properties(
    workplace: Workplace, phantoms: Path, tmp_path: Path, kind: str, configs: list[str]
) -> None:
    overrides = {"device": "cpu", "dataset_dir": str(phantoms), "output_dir": str(tmp_path)}
    workflow = workplace.workflow(kind, configs, **overrides)
    workflow.initialize()
    assert not workflow.check_properties()


@pytest.mark.parametrize(("kind", "configs"), WORKFLOWS)
def test_initialize_writes_nothing(
    workplace: Workplace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    configs: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = listing(workplace.root)
    workplace.workflow(kind, configs).initialize()
    assert listing(workplace.root) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "configs"), WORKFLOWS)
def test_unknown_dataset_dir_is_an_error_that_names_it(
    workplace: Workplace, tmp_path: Path, kind: str, configs: list[str]
) -> None:
    missing, output_dir = tmp_path / "no" / "such folder", tmp_path / "output"
    workflow = workplace.workflow(
        kind, configs, dataset_dir=str(missing), output_dir=str(output_dir)
    )
    workflow.initialize()
    with pytest.raises(RuntimeError) as error:
        workflow.run()
    first: BaseException = error.value
    while first.__cause__ is not None:
        first = first.__cause__
    assert isinstance(first, FileNotFoundError) and str(missing) in str(first)
    assert list(tmp_path.iterdir()) == []


def test_network_segments_an_image_alone(workplace: Workplace) -> None:
    workflow = workplace.workflow("infer", ["inference.yaml"], device="cpu")
    workflow.initialize()
    metadata = workflow.parser["_meta_"]["network_data_format"]
    image = metadata["inputs"]["image"]
    shape = [1, image["num_channels"], *workflow.parser.get("spatial_size", image["spatial_shape"])]
    with torch.no_grad():
        prediction = workflow.network_def.eval()(torch.zeros(shape))
    assert prediction.shape == (1, metadata["outputs"]["pred"]["num_channels"], *shape[2:])
    assert prediction.dtype == torch.float32


def test_bfloat16_is_what_a_bundle_computes_with(workplace: Workplace) -> None:
    # The other tests set `amp` to False.
    for name in STANDALONE:
        assert load_config(workplace.bundle, name)["amp"] == "auto"
    logits = []
    for amp in (True, False):
        workflow = workplace.workflow("infer", ["inference.yaml"], device="cpu", amp=amp)
        workflow.initialize()
        torch.manual_seed(0)
        network = workflow.network_def.eval()
        size = workflow.parser.get("spatial_size", [64, 64])
        image = torch.rand(1, network.in_channels, *size, generator=torch.manual_seed(1))
        logits.append(workflow.inferer(inputs=image, network=network))
    half, full = (result.float() for result in logits)
    if workflow.network_def.stride == 1:  # logarithms, which blow up what is near 0
        half, full = half.exp(), full.exp()
    assert 0 < (half - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize("loads", [False, True])
def test_run_that_a_client_starts_from_weights_saves_over_them_and_has_no_checkpoint(
    workplace: Workplace, phantoms: Path, tmp_path: Path, loads: bool
) -> None:
    path = str(tmp_path / "models" / "model.pt")
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": path,
        "load_dict": {"model": "$@network"},
    }
    config = ConfigParser.load_config_file(workplace.bundle_root / "configs" / "train.yaml")
    handlers = {
        "train#handlers": [loader] * loads + config["train"]["handlers"]
    }  # as MONAI Label overrides them
    places = {"device": "cpu", "dataset_dir": str(phantoms), "output_dir": str(tmp_path / "output")}
    workflow = workplace.workflow("train", ["train.yaml"], **places, **handlers)
    workflow.initialize()
    Path(path).parent.mkdir()
    torch.save(workflow.parser.get_parsed_content("network").state_dict(), path)
    built = workflow.parser.get_parsed_content("train#handlers")
    assert any(isinstance(handler, ResumableCheckpoint) for handler in built) != loads
    saved = workflow.parser.get_parsed_content("validate#best").path
    assert saved == (path if loads else str(tmp_path / "output" / "model.pt"))
