from __future__ import annotations

import re

import pytest
import torch
from monai.bundle import ConfigParser

from ldseg_monai.bundle.knobs import (
    SHARED,
    check_device,
    check_output_dir,
    check_values,
    idle_knobs,
    keep_texts,
    kinds_of,
    use_threads,
    view_knobs,
)
from ldseg_monai.runtime.errors import InputError


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("positive", [1, 1000], [0, -1, 1.5, True, "1", None]),
        ("positives", [1, 30, [1, 300]], [0, [1, 0], 1.5, None, ["1"], True]),
        ("mirrors", [[], [0], [1, 0]], [0, [0, 0], [-1], [0.5], None]),
        ("some classes", [[], [1], [2, 1]], [1, [0], [1, 1], [True], None]),
        ("count", [0, 7], [-1, "x", False]),
        ("classes", [2, 3], [1, 2.0]),
        ("rate", [0, 1e-3, 5], [-0.1, "1e-3", float("nan"), float("inf")]),
        ("share", [0, 0.5, 1], [-0.1, 1.1, None]),
        ("fraction", [0.2], [0, 1, -0.5, float("nan")]),
        ("overlap", [0, 0.5, [0.5, 0.25]], [1.0, [0.5, 1.0], "0.5", [0.5], [0.1, 0.2, 0.3]]),
        ("spacing", [1.5, [1.0, 0.5]], [0, [1.0, 0], float("inf"), [1.0, 1.0, 1.0]]),
        ("precision", ["auto", True, False], [1, 0, "AUTO", None]),
        ("seed", [0, 2**63 - 1], [-1, 2**63, 1.0]),
        ("axes", ["RAS", "PIL"], ["ras", "RA", "RRS", "XYZ", "RASL", "", None, 5]),
        ("size", [[16, 16]], [16, [16, 0], [16.0, 16], [16], [16, 16, 16]]),
        ("switch", [True, False], ["flase", 1, None]),
        ("never", [False], [True, 0, None]),
        ("threads", [None, 1, 8], [0, -1, 1.5, True, "all"]),
        ("fold", [None, 0, 3], ["a", -1, 1.5, True]),
        ("text", [None, "", "a", 101, 1.5], [["a", "b"], [101]]),
        ("texts", [None, "", "a", ["a", "b"], 101, 1.5, [101, 102]], []),
    ],
)
def test_value_is_of_the_kind_that_the_config_says(kind: str, good: list, bad: list) -> None:
    for value, wrong in [*((value, False) for value in good), *((value, True) for value in bad)]:
        network = {"encoder": {"spatial_dims": 2}}
        config = {"mine": value, "knob_kinds": {kind: ["mine"]}, "network_def": network}
        if not wrong:
            check_values(ConfigParser(config))
            continue
        with pytest.raises(InputError) as caught:
            check_values(ConfigParser(config))
        assert str(caught.value).startswith(f"mine is {value!r}: expected ")
        assert ("1.0e-4 for a number" in str(caught.value)) == (value == "1e-3")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mine": "$1/0"}, "mine is '$1/0', which cannot be computed (ZeroDivisionError: "),
        ({"mine": "@other", "other": "@mine"}, "mine is '@other', which cannot be computed (Va"),
    ],
)
def test_an_expression_that_fails_is_told(config: dict, message: str) -> None:
    network = {"encoder": {"spatial_dims": 2}}
    rest = {"knob_kinds": {"positive": ["mine"]}, "network_def": network}
    with pytest.raises(InputError, match=re.escape(message)):
        check_values(ConfigParser({**config, **rest}))


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"smallest_object": [5, 1, 1]}, "smallest_object is [5, 1, 1]: expected one number, or a"),
        ({"smallest_object": []}, "smallest_object is []: expected one number, or a list of 2"),
        ({"largest_only": [1, 3]}, "largest_only is [1, 3]: expected classes from 1 to 2"),
        ({"num_classes": 2, "largest_only": [2]}, "largest_only is [2]: expected class 1 alone"),
        ({"mirror_axes": [2]}, "mirror_axes is [2]: expected axes from 0 to 1"),
        ({"mirrored": True}, "mirrored is true and mirror_axes is []: this bundle's training"),
        ({"mirrored": True, "mirror_axes": [0]}, "num_samples is 1 with 2 views: expected 2"),
        ({"turned": True}, "num_samples is 1 with 8 views: expected 8 or more"),
        (
            {"turned": True, "ensemble": ["a.pt"], "num_samples": 15},
            "num_samples is 15 with an ensemble of 2 networks and 8 views: expected 16",
        ),
    ],
)
def test_classes_and_views_that_are_not_there_are_refused(knobs: dict, told: str) -> None:
    config = {
        "num_classes": 3,
        "num_samples": 1,
        "mirror_axes": [],
        "network_def": {"encoder": {"spatial_dims": 2}},
    }
    check_values(ConfigParser(config))
    with pytest.raises(InputError, match=re.escape(told)):
        check_values(ConfigParser({**config, **knobs}))


@pytest.mark.parametrize(
    ("config", "knobs"),
    [
        ({"turned": False}, {"turned": True, "num_samples": 24}),
        ({"mirrored": False, "mirror_axes": [2]}, {"mirrored": True, "num_samples": 6}),
        ({"mirrored": False, "mirror_axes": [0, 2]}, {"mirrored": True, "num_samples": 12}),
    ],
)
def test_views_take_a_sample_of_each_network(config: dict, knobs: dict) -> None:
    assert view_knobs(ConfigParser(config), 3) == knobs


def test_axes_that_are_no_list_are_left_to_the_check_of_values() -> None:
    config = {"mirrored": False, "mirror_axes": 0}
    assert view_knobs(ConfigParser(config)) == {"mirrored": True, "num_samples": 2}
    with pytest.raises(InputError, match="mirror_axes is 0: expected a list"):
        check_values(ConfigParser(config))


@pytest.mark.parametrize("config", [{}, {"mirrored": False, "mirror_axes": []}])
def test_no_views_where_training_shows_none(config: dict) -> None:
    with pytest.raises(InputError, match=r"there are no views .* leave --views out"):
        view_knobs(ConfigParser(config))


@pytest.mark.parametrize(
    ("value", "typed", "text"),
    [
        (101, ["--mine", "101"], "101"),
        (202411, ["--mine", "2024_11"], "2024_11"),
        (1.0, ["--mine=1.00"], "1.00"),
        ((1, 2), ["--mine", "1,2"], "1,2"),
        ([1, 2], ["--mine", "[1, 2]"], ["1", "2"]),
        (101, [], "101"),  # as a file has it
        ("a", ["--mine", "a"], "a"),
        (None, ["--mine", "None"], None),
        ("of::1", ["--mine", "of#1"], "of#1"),  # as MONAI writes ids
        ("of::1", ["--mine", "of::1"], "of::1"),
        (["of::1", "b"], ["--mine", "['of#1', 'b']"], ["of#1", "b"]),
        ("of @#1 %#2 #3", ["--mine", "of @#1 %#2 #3"], "of @#1 %#2 #3"),
        (["of @#1", "b"], ["--mine", "['of @#1', 'b']"], ["of @#1", "b"]),
    ],
)
def test_a_text_is_what_was_typed(
    value: object, typed: list[str], text: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run", *typed])
    config = {
        "mine": value,
        "first": 1,
        "below": "$str(@mine) + '/below'",
        "knob_kinds": {"texts": ["mine"]},
    }
    parser = ConfigParser(config)
    parser.parse()
    parser.get_parsed_content("first")  # as `initialize` does
    keep_texts(parser)
    assert parser.get_parsed_content("mine") == text
    assert parser.get_parsed_content("below") == f"{text}/below"


@pytest.mark.parametrize(
    ("config", "given", "idle"),
    [
        ({"dataset_dir": "d", "fold": None, "val_cases": None}, ["dataset_dir", "seed"], []),
        ({"dataset_dir": "d"}, ["num_phantoms"], ["num_phantoms (dataset_dir is given)"]),
        ({"dataset_dir": "", "phantoms": False}, ["num_phantoms"],
         ["num_phantoms (phantoms is false)"]),
        ({"initial_weights": ""}, ["partial_weights"],
         ["partial_weights (initial_weights is not given)"]),
        ({"initial_weights": "w.pt"}, ["partial_weights"], []),
        ({"fold": None}, ["num_folds"], ["num_folds (fold is not given)"]),
        ({"fold": 0}, ["fold", "num_folds", "val_fraction"], ["val_fraction (fold is given)"]),
        ({"val_cases": "a", "fold": 1}, ["val_cases", "fold"],
         ["fold (val_cases names the validation cases)"]),
        ({"part": "all"}, ["val_cases"], ["val_cases (part is all)"]),
        ({"split": {"weights": "@of"}, "of": None}, ["val_fraction"], []),
        ({"split": {"weights": "@model_path"}, "model_path": "m", "part": "val"}, ["val_fraction"],
         ["val_fraction (the weights say which cases validate)"]),
        ({"split": {"weights": "@model_path"}, "model_path": "m", "fold": 0}, ["fold"], []),
        ({"run": ["$@a.run()"], "a": {"of": "@b", "at": "$@c#d"}, "b": 1, "c": {"d": 2, "e": 3},
          "lr": 1, "threads": 2, "z": {"y": "@lr"}},
         ["b", "a#of", "c#d", "c#e", "c", "lr", "threads", "z"],
         ["c#e (nothing that is run here uses it)", "lr (nothing that is run here uses it)",
          "z (nothing that is run here uses it)"]),
        ({"run": ["$@nowhere"], "lr": 1}, ["lr"], []),
    ],
)  # fmt: skip
def test_knobs_that_change_nothing_are_named(config: dict, given: list, idle: list) -> None:
    assert idle_knobs(ConfigParser(config), given) == idle


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"postive": ["seed"]}, "knob_kinds has the kind postive: expected one of positive, "),
        ({"count": ["seeed"]}, "knob_kinds#count names seeed: expected a knob of the config"),
        (None, "knob_kinds is None: expected names of knobs by their kinds"),
        ({"count": None}, "knob_kinds is {'count': None}: expected names of knobs by their kinds"),
    ],
)
def test_kind_or_knob_that_does_not_exist_is_told(kinds: dict | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_values(ConfigParser({"seed": 0, "knob_kinds": kinds}))


def test_knobs_that_bundles_share_have_kinds_whatever_the_config_says() -> None:
    with pytest.raises(InputError, match="^seed is -1: expected a whole number from 0 to 9"):
        check_values(ConfigParser({"seed": -1}))
    check_values(ConfigParser({"seed": -1, "knob_kinds": {"text": ["seed"]}}))
    assert kinds_of(ConfigParser({"seed": 0, "mine": 1})) == {"seed": "seed"}
    names = [name for kind in SHARED.values() for name in kind]
    assert len(names) == len(set(names))


def test_threads_are_those_that_torch_computes_in() -> None:
    before = torch.get_num_threads()
    try:
        for knobs in ({}, {"threads": None}):
            use_threads(ConfigParser(knobs))
            assert torch.get_num_threads() == before
        use_threads(ConfigParser({"threads": before + 1}))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


SCHEDULERS = {
    "LDSeg": "ldseg_monai.diffusion.EvenlySpacedScheduler",
    "CDAL": "ldseg_monai.diffusion.PosteriorScheduler",
}


@pytest.mark.parametrize(
    ("network", "scheduler", "good", "bad"),
    [
        ("LDSeg", {}, [1, 1000], [1001]),
        ("LDSeg", {"num_train_timesteps": 8}, [1, 8], [0, 9]),
        ("CDAL", {"num_train_timesteps": 2}, [2], [1, 3]),
        ("CDAL", {"num_train_timesteps": "@steps"}, [5], [4]),
    ],
)
def test_number_of_steps_is_one_that_the_network_s_class_takes(
    network: str, scheduler: dict, good: list[int], bad: list[int]
) -> None:
    for steps in good + bad:
        definition = {
            "_target_": f"ldseg_monai.networks.{network}",
            "scheduler": {"_target_": SCHEDULERS[network], **scheduler},
        }
        config = {"num_inference_steps": steps, "steps": 5, "network_def": definition}
        if steps in good:
            check_values(ConfigParser(config))
            continue
        with pytest.raises(ValueError, match=f"num_inference_steps is {steps}: expected"):
            check_values(ConfigParser(config))


@pytest.mark.parametrize(
    ("run", "share", "scheduler", "is_told"),
    [
        ("$@train::trainer.run()", 0.5, {}, True),  # EvenlySpacedScheduler's own: epsilon
        ("$@train#trainer.run()", "@half", {"prediction_type": "@kind"}, True),
        ("$@train#trainer.run()", 0.5, {"prediction_type": "sample"}, False),
        ("$@train#trainer.run()", 0, {"prediction_type": "flow"}, False),
        ("$@validate#evaluator.run()", 0.5, {"prediction_type": "flow"}, False),
    ],
)
def test_own_estimates_are_of_the_clean_latent(
    run: str, share: object, scheduler: dict, is_told: bool
) -> None:
    definition = {"scheduler": {"_target_": SCHEDULERS["LDSeg"], **scheduler}}
    config = {"half": 0.5, "kind": "flow", "run": [run], "network_def": definition}
    config["train"] = {"inferer": {"rollout_share": share}, "trainer": {}}
    if is_told:
        with pytest.raises(InputError, match="prediction_type is .*: expected sample"):
            check_values(ConfigParser(config))
    else:
        check_values(ConfigParser(config))


@pytest.mark.parametrize(
    ("network", "load", "message"),
    [
        ({"image_encoder": {"in_channels": 2}}, {"channels": 1}, "image_encoder#in_channels is 2"),
        ({"image_encoder": {"in_channels": 1}}, {"mode": "RGB"}, "image_encoder#in_channels is 1"),
        ({"in_channels": "$@planes + 2"}, {"mode": "L"}, "in_channels is 3: expected 1"),
        ({"label_decoder": {"out_channels": 4}}, {}, "label_decoder#out_channels is 4: expected 3"),
        ({"generator": {"out_channels": 2}}, {}, "generator#out_channels is 2: expected 3"),
        ({"out_channels": 1}, {}, "out_channels is 1: expected 3, as of num_classes"),
        # A network that is given padded channels
        ({"in_channels": 3, "network": {"in_channels": 4}}, {"mode": "RGB"}, ""),
        ({"image_encoder": {"in_channels": 2}}, {}, ""),  # which a reader of one's own gives
        ({"label_decoder": {"out_channels": "@num_classes"}}, {"channels": 1}, ""),
    ],
)
def test_network_takes_the_image_s_channels_and_scores_each_class(
    network: dict, load: dict, message: str
) -> None:
    parser = ConfigParser({"planes": 1, "num_classes": 3, "load": load, "network_def": network})
    if not message:
        check_values(parser)
        return
    with pytest.raises(InputError, match=f"^network_def#{message}"):
        check_values(parser)


@pytest.mark.parametrize(
    "device", ["hpu", "cuda:99", "privateuseone", "graphics card"]
)  # each another error
def test_device_that_is_not_there_is_an_error_that_names_it(device: str) -> None:
    with pytest.raises(
        InputError, match=rf"^device is '{device}', which is not there .* expected one of cpu"
    ):
        check_device(device)
    check_device("cpu")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "output_dir is '': expected a folder"),
        ("~/out", "output_dir is '~/out', whose ~ no shell has replaced"),
        ("out/" + "b" * 300, "with a name of 300 bytes: expected at most 255"),
    ],
)
def test_no_output_dir_is_told_before_any_work(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_output_dir(path)
    with pytest.raises(InputError, match=message.replace("output_dir", "tensorboard_dir")):
        check_output_dir(path, "tensorboard_dir")


@pytest.mark.parametrize("epochs", [0, -1, 1.5, "x"])
def test_epochs_that_a_client_sets_past_the_knob_are_checked(epochs: object) -> None:
    config = {"max_epochs": 3, "train": {"trainer": {"max_epochs": epochs}}}
    with pytest.raises(InputError, match=f"max_epochs is {epochs!r}: expected a whole number, 1"):
        check_values(ConfigParser(config))


@pytest.mark.parametrize("given", [("train",), ("validate",), ("train", "validate"), ()])
def test_cases_are_given_of_both_parts_or_of_none(given: tuple[str, ...]) -> None:
    case = {"image": "a.nii.gz", "label": "b.nii.gz"}
    config = {
        part: {"dataset": {"data": [case] if part in given else "$@split.part('x')"}}
        for part in ("train", "validate")
    }
    if len(given) != 1:
        check_values(ConfigParser(config))
        return
    told = f"{given[0]}#dataset#data is given and .* is not: expected both.*val_split between 0 and"
    with pytest.raises(InputError, match=told):
        check_values(ConfigParser(config))


def encoded(**size: list[int]) -> dict:
    encoder = {"_target_": "ldseg_monai.networks.ResidualEncoder", "spatial_dims": 2}
    encoder |= {"in_channels": 2, "out_channels": 1, "channels": [8, 8], "stem_stride": 4}
    network = {"_target_": "ldseg_monai.networks.LDSeg", "label_encoder": encoder}
    return {**size, "network_def": network}


def test_sizes_that_a_network_cannot_take_are_told_before_it_is_built() -> None:
    check_values(ConfigParser(encoded(spatial_size=[64, 72])))
    drawn = torch.random.get_rng_state()
    parser = ConfigParser(encoded(crop_size=[64, 100]))
    told = (
        "crop_size is [64, 100]: expected multiples of 8, the network's stride, such as [64, 104]"
    )
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        check_values(parser)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    made = parser.get_parsed_content("network_def#label_encoder")  # anew, with values
    assert not any(tensor.is_meta for tensor in made.parameters())
