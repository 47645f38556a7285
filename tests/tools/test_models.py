"""`ldseg knobs`: what a config says of its knobs, held to the config as MONAI reads it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import yaml
from bundle_kinds import BUNDLES, FOLDER
from monai.bundle import ConfigParser

from ldseg_monai.bundle import Bundle
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.models import CONFIGS, WIDTH, WIRING, describe_bundle, read_knobs


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("bundle", BUNDLES)
def test_knobs_are_the_values_above_the_network(bundle: str, config: str) -> None:
    path = FOLDER / bundle / "configs" / config
    knobs = read_knobs(path.read_text())
    content = ConfigParser.load_config_file(path)
    assert {knob.name: yaml.safe_load(knob.value) for knob in knobs} == {
        knob.name: content[knob.name] for knob in knobs
    }
    names = [knob.name for knob in knobs]
    if config == "evaluate.yaml":
        assert {"part", "model_path", "force"} <= set(names)
        return
    keys = [name for name in content if name not in (*WIRING, "imports")]
    after = "latent_channels" if "latent_channels" in keys else "network_def"
    last = {"displayable_configs", after} & set(keys)
    assert names == keys[: min(map(keys.index, last))]


def test_each_is_told_with_its_comment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knobs", "ldseg_echo", "inference.yaml", "sequences.yaml"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert "  frames_at_once  8  # frames in one pass of the network" in lines
    assert all(len(line) <= WIDTH for line in lines if line.lstrip().startswith("# "))


def test_an_overlay_without_knobs_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knobs", "ldseg_hippocampus", "baselines/unet.yaml"]) == 0
    path, told = capsys.readouterr().out.split("\n")[:2]
    assert path.endswith("baselines/unet.yaml")
    assert (
        told == "  no knobs of its own: it sets network_def, loss, train, prepare_batch, validate"
    )


@pytest.mark.parametrize("bundle", BUNDLES)
def test_terms_are_told_to_their_end(bundle: str) -> None:
    told = " ".join(describe_bundle(Bundle(FOLDER / bundle)).split())
    (terms,) = re.findall(r"terms: (.*?) folder: ", told)
    assert terms.startswith("The weights in models/model.pt were trained on ")
    assert terms.endswith(("ask to cite what docs/data_license.txt lists", "with this bundle."))
    assert re.search("CC BY|for research|research only", terms)


def test_config_that_is_not_there_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["knobs", "ldseg_glas", "baselines/unett.yaml"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "did you mean baselines/unet.yaml" in err


def test_what_a_zip_holds_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_phantoms("gland", tmp_path / "glands", 1, seed=0)
    archive = tmp_path / "glands.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(tmp_path / "glands" / "images" / "case_000.png", "case_000.png")
    assert main(["info", str(archive), "-m", str(FOLDER / "cdal_cxr")]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{archive}\n  cdal_cxr\n    size: ") and "cache" not in told
    assert "may not be known to the weights, and will be marked: it looks unlike them" in told
    assert main(["info", str(archive), "-m", str(FOLDER / "ldseg_knee3d")]) == 2
    assert f"no bundle here can take {archive}: " in capsys.readouterr().err


def test_the_reason_is_of_a_bundle_of_such_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(b"\x1f\x8b no volume")
    assert main(["info", str(path)]) == 2  # bundles of pictures are asked, too
    assert f"no bundle here can take {path}: {path} cannot be read" in capsys.readouterr().err
