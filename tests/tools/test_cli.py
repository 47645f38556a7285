from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from prepared_python import Command

from ldseg_monai.data.datalist import paired_datalist
from ldseg_monai.data.phantoms.files import PhantomKind
from ldseg_monai.runtime.errors import TRACEBACK, InputError
from ldseg_monai.tools.cli import PHANTOMS, main

MODEL = str(Path(__file__).parents[2] / "bundles" / "ldseg_hippocampus")


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("knee", ".nii.gz"),
        ("gland", ".png"),
        ("nuclei", ".png"),
        ("thorax", ".png"),
        ("echo", ".png"),
        ("beat", ".nii.gz"),
    ],
)
def test_phantom_writes_a_data_set(tmp_path: Path, kind: str, end: str) -> None:
    assert main(["phantom", kind, "--out", str(tmp_path / "new"), "--num", "2", "--seed", "3"]) == 0
    datalist = paired_datalist(tmp_path / "new")
    assert [Path(item["image"]).name for item in datalist] == [f"case_000{end}", f"case_001{end}"]


def test_every_kind_of_phantom_can_be_written() -> None:
    assert get_args(PhantomKind) == PHANTOMS


def test_phantom_passes_the_seed_on(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert (
            main(["phantom", "gland", "--out", str(tmp_path / name), "--num", "1", "--seed", seed])
            == 0
        )
    a, b, c = ((tmp_path / name / "images" / "case_000.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fantom"], "invalid choice: 'fantom'"),
        (["phantom", "elbow", "--out", "x"], "invalid choice: 'elbow'"),
        (["phantom", "knee"], "the following arguments are required: --out"),
        (
            ["phantom", "knee", "--out", "x", "--nu", "1"],
            "no option --nu; did you mean --num? (see",
        ),
        (["phantom", "knee", "--out", "x", "y"], "unrecognized arguments: y"),
        (["phantmo"], "did you mean phantom?"),
        (["phantom", "kne"], "did you mean knee?"),
        (["predict", "--num-sample", "5"], "; did you mean --num-samples?"),
        (["predict", "--inptu=x"], "; did you mean --input?"),
        (["train", "--batch_size", "2"], "a knob of the bundle is given as --set batch_size=VALUE"),
        (
            ["predict", "-m", "x", "-i", "file", "--set", "views=True"],
            "--set views=True: the command sets views itself; leave it out, and give the",
        ),
        (
            ["train", "-m", MODEL, "--data", "x", "-o", "y", "--set", "output_dir=z"],
            "--set output_dir=z: the command sets output_dir itself",
        ),
        (
            ["predict", "-m", "x", "-i", "file", "--seed", "1", "--set", "seed=2"],
            "--set seed=2: the command sets seed itself",
        ),
        (
            ["predict", "-m", "x", "-i", "file", "--set", "a=1", "--set", "a=2"],
            "--set a=2: a is set twice",
        ),
        (["predict", "-m", "x", "-i", "file", "--set", "=5"], "--set =5: expected KEY=VALUE"),
        (["--versoin"], "did you mean --version?"),
        (["predict", "-m", "ldseg_gals", "-i", "file"], "did you mean ldseg_glas?"),
        (["phantom", "knee", "--out", "x", "--num", "many"], "invalid int value: 'many'"),
        (["phantom", "knee", "--out", "x", "--num", "0"], "num 0: expected at least 1"),
        (["phantom", "knee", "--out", "x", "--seed", "-1"], "seed -1: expected 0 or more"),
        (["phantom", "knee", "--out", "file"], "file"),
        (["new-bundle", "--from", "x"], "the following arguments are required: --name, --dataset"),
        (["new-bundle", "--from", "x", "--name", "a", "--dataset", "d"], "x is not a bundle"),
    ],
)
def test_user_error_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch, capsys, argv, message
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("ldseg: error: ") and message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_knob_in_a_message_is_told_as_the_command_takes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("give --skip_unreadable True, --force True, --mine FILE or --mine '' here")

    monkeypatch.setattr("ldseg_monai.tools.predict.predict", refuse)
    assert main(["predict", "-m", "x", "-i", str(tmp_path)]) == 2
    told = "give --set skip_unreadable=True, --force True, --set mine=FILE or --set mine='' here"
    assert told in capsys.readouterr().err


def test_an_option_of_several_values_may_be_given_several_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict = {}
    monkeypatch.setattr(
        "ldseg_monai.tools.predict.predict",
        lambda *places, **knobs: given.update(knobs, places=places),
    )
    pairs = [("-i", "b"), ("--set", "two=2"), ("--format", "obj"), ("--overlay", "d.yaml")]
    options = [part for pair in pairs for part in pair]
    first = ["-i", "a", "--set", "one=1", "--format", "stl", "--overlay", "c.yaml"]
    assert main(["predict", "-m", "x", *first, *options]) == 0
    assert (given["one"], given["two"], given["save_as"]) == (1, 2, ["stl", "obj"])
    assert given["places"][1] == ["a", "b"] and given["places"][3] == ["c.yaml", "d.yaml"]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("", ""),
        ("''", ""),
        ("null", "$None"),
        ("None", "$None"),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        ("[-2E3, .5e1]", [-2000.0, 5.0]),
        ("'1e-4'", "1e-4"),
        ("1e", "1e"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_what_is_set_reaches_the_config(
    monkeypatch: pytest.MonkeyPatch, typed: str, value: object
) -> None:
    given: dict = {}
    monkeypatch.setattr(
        "ldseg_monai.tools.predict.predict", lambda *_, **knobs: given.update(knobs)
    )
    assert main(["predict", "-m", "x", "-i", "y", "--set", f"mine={typed}"]) == 0
    assert given["mine"] == value


def test_help_names_the_subcommands(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "phantom" in printed and "new-bundle" in printed


def test_variable_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(ValueError, match="num 0"):
        main(["phantom", "gland", "--out", str(tmp_path), "--num", "0"])


def test_mistake_in_the_program_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "ldseg_monai.data.phantoms.files.write_phantoms", lambda *_: int("no number")
    )
    with pytest.raises(ValueError, match="no number"):
        main(["phantom", "gland", "--out", str(tmp_path)])


def test_error_of_the_system_is_told_and_not_what_came_before_it(
    monkeypatch, tmp_path: Path, capsys
) -> None:
    refused = PermissionError("not permitted")
    refused.__context__ = FileNotFoundError("no parent")  # as Path.mkdir has it

    def refuse(*_: object, **__: object) -> None:
        raise refused

    monkeypatch.setattr("ldseg_monai.data.phantoms.files._refuse_other_data", lambda *_: None)
    monkeypatch.setattr("ldseg_monai.data.phantoms.files.make_folder", refuse)
    assert main(["phantom", "gland", "--out", str(tmp_path), "--num", "1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "ldseg: error: not permitted"


def test_process_ends_without_traceback(tmp_path: Path) -> None:
    options = ["--out", str(tmp_path), "--num", "0"]
    with Command("ldseg_monai.tools.cli", "phantom", "gland", *options, cwd=tmp_path) as command:
        assert command.wait() == 2
    assert command.printed.splitlines()[-1].startswith("ldseg: error: num 0")
    assert "Traceback" not in command.printed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_monai_is_imported_ends_in_one_line(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    # A package of that name that is found first, and takes as long as it is let
    (tmp_path / "torch.py").write_text(
        "print('importing', flush=True)\nimport time\ntime.sleep(60)"
    )
    command = [sys.executable, "-m", "ldseg_monai.tools.cli", "phantom", "gland", "--out", "there"]
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[number]
    assert (process.returncode, errors.strip()) == (code, f"ldseg: stopped by {name}")
