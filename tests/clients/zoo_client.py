"""What the model zoo and MONAI's clients do with an exported bundle: python zoo_client.py ACT, with the task on stdin.

It runs where ``ldseg_monai`` cannot be imported. A failed act ends with a traceback and exit code
1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.networks.utils import get_state_dict

MAX_FILE_BYTES = 25e6


def verify(folder: str, out: str, dataset_dir: str, values: dict[str, Any]) -> None:
    """What the zoo's CI verifies in its modes min, regular and full, but for the metadata's schema; then load and run.

    Args:
        folder: the bundle.
        out: folder to write to.
        dataset_dir: images to segment.
        values: config values that make training small; it generates its data.
    """
    root = Path(folder)
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    files = [path for path in root.rglob("*") if path.is_file()]
    names = {str(path.relative_to(root)) for path in files}
    assert {"LICENSE", "configs/metadata.json", "models/model.pt"} <= names
    assert {"configs/inference.json", "configs/inference.yaml"} & names
    assert metadata["version"] in metadata["changelog"]
    assert [path for path in files if path.stat().st_size > MAX_FILE_BYTES] == []

    common: dict[str, Any] = {
        "net_id": "network_def",
        "meta_file": str(root / "configs" / "metadata.json"),
        "config_file": str(
            root / "configs" / "inference.yaml"
        ),  # the zoo's CI takes it rather than the JSON
        "bundle_root": folder,
    }
    monai.bundle.verify_net_in_out(device="cpu", **common)
    monai.bundle.ckpt_export(
        filepath=f"{out}/model.ts", ckpt_file=str(root / "models" / "model.pt"), **common
    )
    same_weights(torch.jit.load(f"{out}/model.ts"), root)

    load(folder)
    options = {"output_dir": out, "device": "cpu", "amp": False, "logging_file": False}
    inference = {"dataset_dir": dataset_dir, "force": True}
    for kind, overrides in (("train", values), ("inference", inference)):
        for suffix in ("json", "yaml"):
            config = str(root / "configs" / f"{kind}.{suffix}")
            workflow = monai.bundle.create_workflow(
                config_file=config, workflow_type=kind, **{**overrides, **options}
            )
            assert workflow.bundle_root == folder
            assert workflow.check_properties() == []

    config = str(root / "configs" / "inference.json")
    monai.bundle.run(
        config_file=config,
        dataset_dir=dataset_dir,
        output_dir=out,
        device="cpu",
        amp=False,
        force=True,
    )


def load(folder: str) -> None:
    """Load the network by the bundle's name, of the training and of the inference config."""
    root = Path(folder)
    for kind in ("train", "inference"):
        network = monai.bundle.load(
            root.name, bundle_dir=root.parent, workflow_type=kind, source="github", device="cpu"
        )
        assert type(network).__module__.startswith(f"ldseg_monai_{root.name}.")
        same_weights(network, root)


def same_weights(network: torch.nn.Module, root: Path) -> None:
    """Assert that a network has the weights of the bundle's file."""
    expected = torch.load(root / "models" / "model.pt", map_location="cpu", weights_only=True)
    state = network.state_dict()
    assert state.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(state[name], expected[name])] == []


def train(folder: str, out: str, values: dict[str, Any]) -> None:
    """Two rounds and an evaluation of MONAI's client in federated learning, which NVFlare runs; then train alone.

    Args:
        folder: the bundle.
        out: folder to write to.
        values: config values: of the data, and those that make training small.
    """
    root = Path(folder)
    options = {
        **values,
        "device": "cpu",
        "amp": False,
        "output_dir": f"{out}/federated",
        "learning_rate": 1e-6,
    }
    client = MonaiAlgo(
        bundle_root=root.name, train_kwargs=dict(options), eval_kwargs={**options, "force": True}
    )
    client.initialize({ExtraItems.CLIENT_NAME: "site-1", ExtraItems.APP_ROOT: str(root.parent)})
    trained = {name for name, _ in client.trainer.network.named_parameters()}
    given = {name: value.clone() for name, value in get_state_dict(client.trainer.network).items()}
    for epoch in (1, 2):
        given = {name: value + 0.01 if name in trained else value for name, value in given.items()}
        client.train(ExchangeObject(weights=given))
        got = client.get_weights()
        assert got.weight_type == WeightType.WEIGHT_DIFF and got.weights.keys() == given.keys()
        change = max(float(got.weights[name].abs().max()) for name in trained)
        assert 0 < change < 1e-3, (
            f"round {epoch} did not begin with the server's weights: they changed by {change}"
        )
        assert client.trainer.state.epoch == epoch
    score = client.evaluate(ExchangeObject(weights=given)).metrics["val_mean_dice"]
    assert 0 <= score <= 1
    client.finalize()

    values.pop("force")  # a knob of scoring
    options = {
        **values,
        "device": "cpu",
        "amp": False,
        "output_dir": f"{out}/alone",
        "max_epochs": 1,
    }
    monai.bundle.run("training", config_file=str(root / "configs" / "train.json"), **options)
    weights = torch.load(f"{out}/alone/model.pt", weights_only=True)
    assert weights and all(value.isfinite().all() for value in weights.values())


def share(folders: list[str], outs: list[str], datasets: list[str]) -> None:
    """Load several bundles, and segment with each, in this one process: initialize all before the first runs."""
    for folder in folders:
        load(folder)
    workflows = [
        monai.bundle.create_workflow(
            config_file=f"{folder}/configs/inference.json",
            workflow_type="inference",
            logging_file=False,
            **{
                "dataset_dir": dataset,
                "output_dir": out,
                "device": "cpu",
                "amp": False,
                "force": True,
            },
        )
        for folder, out, dataset in zip(folders, outs, datasets, strict=True)
    ]
    for workflow in workflows:
        workflow.run()


if __name__ == "__main__":
    {"verify": verify, "train": train, "share": share}[sys.argv[1]](**json.load(sys.stdin))
