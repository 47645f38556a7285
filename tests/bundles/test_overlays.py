"""An overlay on a config that it does not fit ends in one line, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import OVERLAYS, REPOSITORY, bases, load, name_of
from monai.bundle import ConfigParser

from ldseg_monai.bundle.names import check_names
from ldseg_monai.runtime.errors import InputError

METHODS = ("cdal", "ldseg")


def configs(path: Path) -> Path:
    """The folder of a bundle's configs."""
    return next(parent for parent in path.parents if parent.name == "configs")


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_overlay_fits_its_base(path: Path) -> None:
    check_names([*map(str, bases(path)), str(path)], {})


@pytest.mark.parametrize("base", ["train.yaml", "inference.yaml"])
@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_overlay_goes_on_or_is_refused_in_one_line(path: Path, base: str) -> None:
    # MONAI merges the files before anything of this package runs: a key below a section that is
    # not there would be its KeyError.
    files = [str(configs(path) / base), str(path)]
    ConfigParser.load_config_files(files)
    try:
        check_names(files, {})
    except InputError as error:
        told = str(error)
        assert str(path.relative_to(REPOSITORY)) in told and "\n" not in told
        assert bases(path) != [configs(path) / base], told


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_overlay_of_a_training_is_refused_on_inference(path: Path) -> None:
    if bases(path)[0].name == "inference.yaml" or is_of_the_network_alone(path):
        return
    with pytest.raises(InputError, match=r"(has the key|refers to) \S+"):
        check_names([str(configs(path) / "inference.yaml"), str(path)], {})


def is_of_the_network_alone(path: Path) -> bool:
    """Whether all that an overlay changes is there in inference.yaml too."""
    changes = ConfigParser.load_config_file(path)
    config = ConfigParser.load_config_file(configs(path) / "inference.yaml")
    return all(name.removeprefix("+").split("#")[0] in config for name in changes)


@pytest.mark.parametrize("data", ["cxr", "monuseg"])
def test_ldseg_as_a_peer_of_cdal_is_the_network_of_its_own_bundle(data: str) -> None:
    cdal, ldseg = (REPOSITORY / "bundles" / f"{method}_{data}" / "configs" for method in METHODS)
    peer = load(cdal / "train.yaml", cdal / "baselines" / "ldseg.yaml")
    own = load(ldseg / "train.yaml")
    for key in ("network_def", "latent_channels", "embedding_channels", "loss", "prepare_batch"):
        assert peer[key] == own[key], key
    for key in ("num_inference_steps", "batch_size", "learning_rate", "random_transforms"):
        assert peer[key] == own[key], key
    for share in ("pure_noise_share", "rollout_share"):
        assert peer.get_parsed_content(f"train#inferer#{share}") == own["train#inferer"][share]
