"""What only ldseg_glas has: a start from ImageNet's weights, and samples of turned pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from workplace import Workplace

from ldseg_monai.networks.blocks.efficientnet import imagenet_state
from ldseg_monai.networks.weights import find_imagenet_weights


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace.make(tmp_path, "ldseg_glas")


@pytest.mark.usefixtures("process_left_as_it_was")
def test_training_starts_from_imagenet(place: Workplace) -> None:
    workflow = place.workflow(
        "train", ["train.yaml"], device="cpu", output_dir=str(place.root / "output")
    )
    workflow.initialize()
    network = workflow.parser.get_parsed_content("train#trainer").network
    backbone = network.image_encoder.backbone
    published = imagenet_state(torch.load(find_imagenet_weights(), weights_only=True))
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, published[name]), name


@pytest.mark.usefixtures("process_left_as_it_was")
def test_evaluation_does_without_them(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "ldseg_monai.networks.weights.find_imagenet_weights", lambda _: pytest.fail("looked for")
    )
    options = {"device": "cpu", "output_dir": str(place.root / "output")}
    place.workflow("eval", ["train.yaml", "evaluate.yaml"], **options).initialize()
    assert "ImageNet" not in caplog.text


@pytest.mark.usefixtures("process_left_as_it_was")
@pytest.mark.parametrize("turned", [False, True])
def test_knob_lets_samples_see_turned_pictures(place: Workplace, turned: bool) -> None:
    options = {"device": "cpu", "output_dir": str(place.root / "output"), "turned": turned}
    options["num_samples"] = 8
    for files in (
        ["train.yaml", "evaluate.yaml"],
        ["inference.yaml"],
        ["inference.yaml", "strips.yaml"],
    ):
        parser = place.workflow("eval", files, **options).parser
        inferer = parser.get_parsed_content(
            "inferer" if "inferer" in parser else "validate#inferer"
        )
        assert inferer.sampler.turned is turned
