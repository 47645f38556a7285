"""How a command ends that an error stops."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from prepared_python import Command

from ldseg_monai.runtime.errors import cause

FAILING_CACHE = """
import atexit, time
from monai.data import CacheDataset
from monai.transforms import Lambda
from ldseg_monai.bundle.command import finish_thread_pools

def load(case):
    if case == "bad":
        time.sleep(0.2)  # until the pool has the next case too
        raise ValueError("bad case")
    time.sleep(1.0)
    print("next case ended")

atexit.register(finish_thread_pools)
CacheDataset(["bad", "next"], Lambda(load), num_workers=2, progress=False)
"""


def test_thread_that_loads_a_case_is_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FAILING_CACHE)
    with Command("program", cwd=tmp_path, errors_apart=True) as process:
        assert process.wait(timeout=120) == 1
    assert "ValueError: bad case" in process.errors
    assert process.printed == "next case ended\n"


# bundle_root


def write_bundle(folder: Path, **content: Any) -> Path:
    """A bundle whose config checks the command that reads it."""
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{}")
    path = folder / "configs" / "inference.json"
    check = {"_target_": "ldseg_monai.bundle.check_command"}
    base = {"bundle_root": ".", "model_path": "$@bundle_root + '/models/model.pt'"}
    path.write_text(json.dumps({**base, "initialize": [check], "run": [], **content}))
    return path


def write_weights(bundle: Path, content: bytes = b"") -> str:
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(content)
    return str(bundle)


@pytest.mark.parametrize("place", ["anywhere", "another", "namesake", "mine"])
def test_config_finds_its_bundle_from_any_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = "$'bundles/mine' if __import__('os').path.isdir('bundles/mine') else '.'"
    found = ["$print(@bundle_root, @model_path)"]
    path = write_bundle(tmp_path / "there" / "mine", bundle_root=root, run=found)
    own = write_weights(tmp_path / "there" / "mine")
    if place == "another":  # the current directory is another bundle
        write_bundle(tmp_path / "another")
    if place == "namesake":
        write_bundle(tmp_path / "namesake" / "bundles" / "mine")
    folder = tmp_path / place
    if place == "mine":  # inside of it
        folder, own = tmp_path / "there" / "mine", "."
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monai.bundle.run(config_file=str(path), logging_file=False)
    assert capsys.readouterr().out.splitlines()[-1] == f"{own} {own}/models/model.pt"


def test_bundle_root_that_is_given_is_taken_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_bundle(tmp_path / "mine", run=["$print(@bundle_root)"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as raised:
        monai.bundle.run(config_file=str(path), logging_file=False, bundle_root=".")
    assert str(cause(raised.value)) == (
        "bundle_root is '.', which has no configs/metadata.json: expected the folder of the bundle "
        f"of the config; leave --bundle_root out, or give {tmp_path / 'mine'}"
    )
    write_bundle(tmp_path / "other")
    other = write_weights(tmp_path / "other")
    monai.bundle.run(config_file=str(path), logging_file=False, bundle_root=other)
    assert capsys.readouterr().out.splitlines()[-1] == other


def test_bundle_root_that_a_config_names_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "other")
    other = write_weights(tmp_path / "other")
    path = write_bundle(tmp_path / "mine", bundle_root=other, run=["$print(@bundle_root)"])
    monkeypatch.chdir(tmp_path)
    monai.bundle.run(config_file=str(path), logging_file=False)
    assert capsys.readouterr().out.splitlines()[-1] == other


def test_config_that_is_in_no_bundle_has_no_folder_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "mine")
    (tmp_path / "mine" / "configs" / "metadata.json").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as raised:
        monai.bundle.run(config_file=str(path), logging_file=False)
    assert "there is no file ./models/model.pt" in str(cause(raised.value))


@pytest.mark.parametrize(
    ("given", "shown"),
    [({"run": "null"}, "'null'"), ({"run": "$None"}, "null"), ({"run": []}, r"\[\]"),
     ({"run": ["later"]}, r"\['later'\]"), ({"run_id": "seed", "seed": 3}, "3"),
     ({"run_id": "training", "run": ""}, "''")],
)  # fmt: skip
def test_command_that_would_run_nothing_is_told(
    given: dict[str, Any], shown: str, tmp_path: Path
) -> None:
    path = write_bundle(tmp_path / "mine", seed=0, training="@run", run=["$print('done')"])
    write_weights(tmp_path / "mine")
    with pytest.raises(Exception) as raised:
        monai.bundle.run(config_file=str(path), logging_file=False, **given)
    assert re.match(f"[a-z]+ is {shown}, by which nothing is run", str(cause(raised.value)))


@pytest.mark.parametrize(
    "given", [{}, {"run": ["$print('done')"]}, {"run": "@again", "again": "$print('done')"}]
)
def test_command_that_runs_something_is_taken(
    given: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = {"run": ["$print('done')"], "again": None}
    path = write_bundle(tmp_path / "mine", **content)
    write_weights(tmp_path / "mine")
    monai.bundle.run(config_file=str(path), logging_file=False, **given)
    assert capsys.readouterr().out.splitlines()[-1] == "done"


def test_imports_that_are_null_are_told(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "mine", imports=None)
    with pytest.raises(Exception) as raised:
        monai.bundle.run(config_file=str(path), logging_file=False)
    assert str(cause(raised.value)).startswith("imports is null, which the expressions")


def test_curves_cannot_go_into_a_file(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "mine", tensorboard_dir=str(tmp_path / "a.txt"))
    write_weights(tmp_path / "mine")
    (tmp_path / "a.txt").touch()
    with pytest.raises(Exception) as raised:
        monai.bundle.run(config_file=str(path), logging_file=False)
    told = str(cause(raised.value))
    assert told.startswith("tensorboard_dir is ") and "a.txt is a file: expected a folder" in told


@pytest.mark.parametrize("names", [["T1", "T2"], ["t-2", "T 1"], ["flair", "T2"]])
def test_channels_come_in_the_order_of_the_bundle(tmp_path: Path, names: list[str]) -> None:
    path = write_bundle(
        tmp_path / "mine", load={"channels": 2}, dataset_dir=str(tmp_path / "data"), run=["$1"]
    )
    write_weights(tmp_path / "mine")
    channels = {"image": {"channel_def": {"0": "T1", "1": "T2"}}}
    metadata = {"network_data_format": {"inputs": channels}}
    (tmp_path / "mine" / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (tmp_path / "data" / "imagesTr").mkdir(parents=True)
    for number in range(2):
        (tmp_path / "data" / "imagesTr" / f"a_000{number}.nii.gz").touch()
    said = {"file_ending": ".nii.gz", "channel_names": dict(enumerate(names))}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(said))
    if names[0] != "t-2":
        monai.bundle.run(config_file=str(path), logging_file=False)
        return
    with pytest.raises(Exception) as raised:
        monai.bundle.run(config_file=str(path), logging_file=False)
    told = (
        "dataset.json has the channels t-2, T 1, and the bundle takes T1, T2: expected that order"
    )
    assert told in str(cause(raised.value))
