"""What is particular to the cDAL bundle: a second network in training, and nothing of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_kinds import BUNDLES
from config_files import REPOSITORY, overlays_on
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.networks.nets import DynUNet, UNet
from workplace import Run, Workplace

from ldseg_monai.networks.cdal.discriminator import CDALDiscriminator

NAME = "cdal_hippocampus"
SEVERAL = ("discriminator", "discriminator_optimizer", "discriminator_lr_scheduler")
pytestmark = [
    pytest.mark.parametrize(
        "bundle", [name for name in BUNDLES if name == NAME], indirect=True, scope="session"
    ),
    pytest.mark.usefixtures("process_left_as_it_was"),
]
# What each overlay on training makes of it.
CHANGES: dict[str, Callable[[ConfigWorkflow], bool]] = {
    "ablations/attention_level_0.yaml": lambda run: run.trainer.discriminator.attention_level == 0,
    "ablations/attention_level_2.yaml": lambda run: run.trainer.discriminator.attention_level == 2,
    "ablations/four_steps.yaml": lambda run: run.network_def.num_train_timesteps == 4,
    "ablations/mean_steps.yaml": lambda run: not run.network_def.stochastic,
    "ablations/no_attention.yaml": lambda run: run.trainer.discriminator is None,
    "ablations/no_latent.yaml": lambda run: run.network_def.latent_size == 0,
    "ablations/no_rollout.yaml": lambda run: run.trainer.rollout_share == 0,
    "ablations/no_segmentation_loss.yaml": lambda run: (
        run.trainer.loss_function.segmentation_weight == 0
    ),
    "ablations/paper.yaml": lambda run: (
        (run.trainer.pairs, run.trainer.discriminator_steps, run.trainer.rollout_share)
        == ("same_noise", 2, 0)
    ),
    "ablations/raw_attention.yaml": lambda run: not run.trainer.normalize_attention,
    "ablations/separate_discriminators.yaml": lambda run: (
        len(run.trainer.discriminator.discriminators) == 2
    ),
    "ablations/slices.yaml": lambda run: run.network_def.spatial_dims == 2,
    "baselines/dynunet.yaml": lambda run: isinstance(run.network_def, DynUNet),
    "baselines/segdiff.yaml": lambda run: (
        (
            run.network_def.num_train_timesteps,
            run.network_def.latent_size,
            run.trainer.rollout_share,
        )
        == (100, 0, 0)
        and run.trainer.loss_function.segmentation_weight == 0
        and run.parser.get_parsed_content("num_samples") == 1
    ),
    "baselines/segdiff_rrdb.yaml": lambda run: (
        run.network_def.scheduler.prediction_type == "epsilon"
        and run.network_def.scheduler.indices == list(range(99, -1, -1))
    ),
    "baselines/unet.yaml": lambda run: isinstance(run.network_def, UNet),
}
PEERS = (
    "basic_unet",
    "unetpp",
    "vnet",
    "swin_unetr",
    "swin_unet",
    "nnunet",
    "nnunet_augmentation",
)  # tests/networks/test_peers.py
WITHOUT_DISCRIMINATOR = {"no_attention.yaml", "dynunet.yaml", "segdiff.yaml", "segdiff_rrdb.yaml",
    "unet.yaml"}  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes of hardly more than one window, with all classes."""
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    label = np.zeros((20, 16, 16), np.uint8)
    label[4:10, 4:12, 4:12], label[10:16, 4:12, 4:12] = 1, 2
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for index in range(3):
        image = label + rng.normal(0, 0.1, label.shape)
        nib.save(
            nib.Nifti1Image(image.astype(np.float32), np.eye(4)),
            folder / "images" / f"case_{index}.nii.gz",
        )
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labels" / f"case_{index}.nii.gz")
    return folder


def test_checkpoint_has_both_networks_with_all_that_trains_them(trained: Run) -> None:
    # That a resumed run ends in the same bits, a test of every bundle shows for all that is in the
    # checkpoint.
    state = load(trained.output_dir / "checkpoint.pt")
    assert {"network", "average", "optimizer", "lr_scheduler", "best", "trainer", *SEVERAL} <= set(
        state
    )
    for optimizer in ("optimizer", "discriminator_optimizer"):
        steps = {float(moments["step"]) for moments in state[optimizer]["state"].values()}
        assert steps == {state["trainer"]["iteration"]}, optimizer
    for scheduler in ("lr_scheduler", "discriminator_lr_scheduler"):
        assert state[scheduler]["last_epoch"] == 2, scheduler


def test_weights_are_of_the_network_that_segments(trained: Run) -> None:
    state = load(trained.output_dir / "checkpoint.pt")
    assert load(trained.output_dir / "model.pt").keys() == state["network"].keys()
    assert state["network"].keys().isdisjoint(state["discriminator"])


@pytest.mark.parametrize(
    ("kind", "configs"), [("infer", ["inference.yaml"]), ("eval", ["train.yaml", "evaluate.yaml"])]
)
def test_segmenting_builds_no_discriminator(
    workplace: Workplace,
    trained: Run,
    volumes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    configs: list[str],
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail("a discriminator was built")

    monkeypatch.setattr(CDALDiscriminator, "__init__", fail)
    workflow = workplace.workflow(
        kind, configs, device="cpu", dataset_dir=str(volumes), output_dir=str(tmp_path)
    )
    workflow.initialize()
    workflow.run()
    assert len(list(tmp_path.glob("case_*_overlay.png"))) == 3


def test_every_overlay_on_training_is_in_the_table(bundle: str) -> None:
    others = {"evaluate.yaml", "multi_gpu_evaluate.yaml", "multi_gpu_train.yaml"}
    others |= {f"baselines/{peer}.yaml" for peer in PEERS}
    assert {stack[-1] for stack in overlays_on(bundle, "train.yaml")} - others == set(CHANGES)


@pytest.mark.parametrize("overlay", CHANGES)
def test_overlay_does_what_it_says_and_takes_a_step(
    workplace: Workplace, volumes: Path, tmp_path: Path, overlay: str
) -> None:
    stack = next(
        stack for stack in overlays_on(workplace.bundle, "train.yaml") if stack[-1] == overlay
    )
    places = {"device": "cpu", "dataset_dir": str(volumes), "output_dir": str(tmp_path)}
    sizes = {
        "spatial_size": [16, 16, 16],
        "crop_size": [16, 16, 16],
        "cases_per_epoch": 2,
        "max_epochs": 1,
    }
    workflow = workplace.workflow("train", stack, **places, **sizes)
    workflow.initialize()
    workflow.run()
    assert CHANGES[overlay](workflow)
    state = load(tmp_path / "checkpoint.pt")
    assert state["trainer"]["iteration"] == 1
    assert set(SEVERAL) & set(state) == (
        set() if Path(overlay).name in WITHOUT_DISCRIMINATOR else set(SEVERAL)
    )
    assert all(value.isfinite().all() for value in load(tmp_path / "model.pt").values())


def test_other_steps_than_those_of_the_training_are_refused(
    workplace: Workplace, volumes: Path, tmp_path: Path, trained: Run
) -> None:
    options = {
        "device": "cpu",
        "dataset_dir": str(volumes),
        "output_dir": str(tmp_path),
        "num_inference_steps": 4,
    }
    workflow = workplace.workflow(
        "infer", ["inference.yaml"], model_path=str(trained.output_dir / "model.pt"), **options
    )
    with pytest.raises(RuntimeError) as error:
        workflow.initialize()
    assert "num_inference_steps is 4: expected 2, the steps in training" in str(
        error.value.__cause__ or error.value
    )


def test_all_losses_are_in_the_curves(trained: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: set[str] = set()
    for path in trained.output_dir.glob("events.out.tfevents*"):
        tags |= set(EventAccumulator(str(path)).Reload().Tags()["scalars"])
    assert {"train_loss", "train_discriminator_loss", "val_mean_dice"} <= tags


def test_both_networks_are_wrapped_in_several_processes(bundle: str) -> None:
    overlay = ConfigParser.load_config_file(
        REPOSITORY / "bundles" / bundle / "configs" / "multi_gpu_train.yaml"
    )
    for network in ("network", "discriminator"):
        assert overlay[network] == f"$idist.auto_model(@{network}_def.to(@device))"
