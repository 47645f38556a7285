from __future__ import annotations

import copy

import pytest
from monai.bundle import ConfigParser

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.arguments import check_arguments
from ldseg_monai.bundle.names import check_names
from ldseg_monai.runtime.errors import InputError

OVERLAY = "ablations/no_attention.yaml"
BASE = {
    "rate": 0.1,
    "module": "$torch.nn.Identity()",
    "parameters": "$@module.parameters()",
    "weights": [{"_target_": "torch.nn.Identity"}],
    "layer": {"_target_": "torch.nn.Linear", "in_features": "@rate", "out_features": 1},
    "decay": "$lambda epoch: @rate ** epoch",
    "optimizer": {"_target_": "torch.optim.SGD", "params": "$list(@weights)", "lr": "@rate"},
    "scheduler": {
        "_target_": "torch.optim.lr_scheduler.LambdaLR",
        "optimizer": "@optimizer",
        "lr_lambda": "@decay",
    },
    "loss": {"_target_": "torch.nn.CrossEntropyLoss", "weight": "@rate"},
}


@pytest.mark.parametrize("null", [None, "$None"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("optimizer", "optimizer is null, which torch.optim.lr_scheduler.LambdaLR for optimizer"),
        ("decay", "decay is null, which torch.optim.lr_scheduler.LambdaLR for lr_lambda"),
        ("weights", r"weights is null, which '\$list\(@weights\)' needs"),
        ("module", r"module is null, which '\$@module.parameters\(\)' needs"),
        ("layer#out_features", "out_features is null, which torch.nn.Linear for out_features"),
        ("network_def", "network_def is null, which the network needs"),
    ],
)
def test_null_that_something_needs_is_told(name: str, told: str, null: str | None) -> None:
    config = ConfigParser(copy.deepcopy(BASE))
    config[name] = null
    with pytest.raises(InputError, match=told):
        check_arguments(config, BASE)


@pytest.mark.parametrize("name", ["loss", "loss#weight", "loss#reduction", "scheduler"])
def test_null_that_nothing_needs_is_taken(name: str) -> None:
    """CrossEntropyLoss takes no weight; its reduction is a text, and the scheduler unused."""
    config = ConfigParser(copy.deepcopy(BASE))
    config[name] = None
    if name == "loss#reduction":
        with pytest.raises(InputError, match="reduction is null"):
            check_arguments(config, BASE)
        config["loss#_disabled_"] = "$True"
    check_arguments(config, BASE)


@pytest.mark.parametrize(
    "name",
    [
        *("network_def", "network_def#label_decoder", "network_def#scheduler"),
        *("loss", "optimizer", "lr_scheduler", "split", "image_transforms", "average"),
    ],
)
def test_part_of_a_training_that_is_null_is_told(name: str) -> None:
    file = Bundle.find("ldseg_echo").config_file("train.yaml")
    with pytest.raises(InputError, match="is null, which .* needs: expected .*; leave .* out"):
        check_names([str(file)], {name: "$None"})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "loss#gamma",
            "abc",
            "gamma of ldseg_monai.training.LDSegLoss is 'abc': expected a number",
        ),
        ("loss#gamma", [1], r"gamma of .* is \[1\]: expected a number"),
        ("optimizer#lr", "abc", "lr of torch.optim.AdamW is 'abc': expected a number"),
        ("optimizer", 5, "optimizer is 5: expected a component, such as {_target_: torch.optim"),
        ("train#handlers#3", "$None", "handlers#3 is null: .* set train#handlers#3#_disabled_ to"),
        ("network_def", 5, "network_def is 5: expected a component"),
        ("network_def#denoiser", 5, "network_def#denoiser is 5: expected a component"),
    ],
)
def test_value_of_another_kind_is_told(name: str, value: object, told: str) -> None:
    file = Bundle.find("ldseg_echo").config_file("train.yaml")
    with pytest.raises(InputError, match=told):
        check_names([str(file)], {name: value})


def test_text_in_a_knob_is_left_to_its_own_rule() -> None:
    """It says what is wanted, and of 1e-4 in YAML why it is a text."""
    config = ConfigParser(copy.deepcopy(BASE))
    config["rate"] = "1e-4"
    check_arguments(config, BASE)


def test_overlays_with_null_are_taken() -> None:
    """A part that nothing needs any more may be null."""
    files = [Bundle.find("cdal_cxr").config_file(name) for name in ("train.yaml", OVERLAY)]
    assert ConfigParser.load_config_file(files[1])["discriminator"] is None
    check_names([str(file) for file in files], {})
