"""What `ldseg publish` refuses before any work; tests/clients/test_publish.py publishes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bundle_kinds import FOLDER, QUICK

from ldseg_monai.bundle import Bundle
from ldseg_monai.runtime.errors import RunError
from ldseg_monai.tools import publish
from ldseg_monai.tools.cli import main

BUNDLE = Bundle(FOLDER / QUICK)


@pytest.fixture
def nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("exported before the check")

    monkeypatch.setattr(publish, "export_bundle", fail)


@pytest.mark.usefixtures("nothing_is_exported")
@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--to", "ftp", "host"], "--to ftp: expected hf or folder"),
        (["--to", "folder", "out", "--public"], "--public with --to folder"),
        (["--to", "hf", "me/glas"], "--to hf takes huggingface_hub: pip install"),
        (["--to", "folder", "out/ldseg_glas_v0.8.0.zip"], "expected a folder, and it is a file"),
        (["--to", "folder", "out"], "ldseg_glas_v0.8.0.zip is there already: expected a new name"),
    ],
)
def test_error_is_told_before_anything_is_exported(
    argv: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publish, "find_spec", lambda name: None)
    monkeypatch.setattr(publish, "archive_name", lambda bundle: "ldseg_glas_v0.8.0.zip")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ldseg_glas_v0.8.0.zip").write_text("another's")
    assert main(["publish", str(BUNDLE.root), *argv]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and told in err
    assert (tmp_path / "out" / "ldseg_glas_v0.8.0.zip").read_text() == "another's"


@pytest.mark.usefixtures("nothing_is_exported")
@pytest.mark.parametrize(
    ("repo", "token", "told"),
    [
        ("glas", "hf_x", "repository glas: expected USER/NAME, such as me/ldseg_glas"),
        ("a/b/c", "hf_x", "repository a/b/c: expected USER/NAME"),
        ("me/glas", None, "no token for me/glas: .* set HF_TOKEN, or log in once"),
    ],
)
def test_hub_needs_a_name_and_a_token(
    repo: str, token: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = SimpleNamespace(HfHubHTTPError=OSError, HFValidationError=ValueError)
    package = SimpleNamespace(get_token=lambda: token, errors=errors)
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.setattr(publish, "find_spec", lambda name: package)
    with pytest.raises(ValueError, match=told):
        publish.publish_to_hub(BUNDLE.root, repo)


def test_bundle_that_fails_alone_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(bundle: Bundle, fetched: Path, out: Path) -> list[str]:
        assert (fetched / "models" / "model.pt").read_bytes() == BUNDLE.weights.read_bytes()
        raise RunError("other masks")

    monkeypatch.setattr(publish, "verify_fetched", fail)
    with pytest.raises(RunError, match="other masks"):
        publish.publish_to_folder(BUNDLE.root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
