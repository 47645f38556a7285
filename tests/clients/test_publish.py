"""What is published is what MONAI's own clients get: from a server of files, and from the hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import monai.bundle
import pytest
import torch
from bundle_kinds import FOLDER, QUICK
from hub_stand_in import Hub

from ldseg_monai.bundle import Bundle
from ldseg_monai.runtime.errors import RunError
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.publish import archive_name, verify_fetched

pytestmark = pytest.mark.clients
BUNDLE = Bundle(FOLDER / QUICK)
VERSION = BUNDLE.metadata["version"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_zip_is_downloaded_from_a_server_and_gives_the_same_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server_folder, fetched = tmp_path / "server", tmp_path / "fetched"
    fetched.mkdir()
    assert main(["publish", str(BUNDLE.root), "--to", "folder", str(server_folder)]) == 0
    name = archive_name(BUNDLE)
    assert [path.name for path in server_folder.iterdir()] == [name]
    assert f"published {server_folder / name}\n" in capsys.readouterr().out
    handler = partial(Quiet, directory=str(server_folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        monai.bundle.download(name=QUICK, url=url, bundle_dir=fetched, progress=False)
        server.shutdown()
        thread.join()
    assert verify_fetched(BUNDLE, fetched / QUICK, tmp_path / "masks") == ["case_000_label.png"]

    weights = fetched / QUICK / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({key: value * 2 for key, value in state.items()}, weights)
    with pytest.raises(RunError, match="are not those of the bundle here"):
        verify_fetched(BUNDLE, fetched / QUICK, tmp_path / "others")
    weights.write_bytes(b"")
    with pytest.raises(
        RunError, match=r"as others get it does not segment a phantom \(exit code 1: \w+Error:"
    ):
        verify_fetched(BUNDLE, fetched / QUICK, tmp_path / "none")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    with Hub().serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def publish(repo: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Publish in a process of its own: huggingface_hub reads its variables when it is imported."""
    command = [sys.executable, "-m", "ldseg_monai.tools.cli", "publish", str(BUNDLE.root)]
    return subprocess.run(
        [*command, "--to", "hf", repo, *options], capture_output=True, text=True, timeout=300
    )


def test_bundle_goes_to_the_hub_once(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = publish("me/glas")
    assert done.returncode == 0, done.stderr
    assert hub.private == {"me/glas": True}
    files = hub.commits["me/glas"][VERSION]
    assert files["README.md"].startswith(b"---\ntags:\n- monai\n")
    assert files["models/model.pt"] == BUNDLE.weights.read_bytes()
    call = done.stdout.splitlines()[-1].replace('"."', repr(str(tmp_path)))
    assert f'version="{VERSION}"' in call
    subprocess.run([sys.executable, "-c", f"import monai.bundle; {call}"], check=True)
    got = {path: (tmp_path / QUICK / path).read_bytes() for path in files if path[0] != "."}
    assert got == {path: content for path, content in files.items() if path[0] != "."}

    again = publish("me/glas")
    assert again.returncode == 2
    assert f"me/glas has version {VERSION} of {QUICK} already" in again.stderr
    metadata = hub.commits["me/glas"]["main"]["configs/metadata.json"]
    title = BUNDLE.metadata["name"].encode()
    hub.commits["me/glas"]["main"]["configs/metadata.json"] = metadata.replace(title, b"Another")
    assert "has the bundle 'Another': expected" in publish("me/glas").stderr


def test_repository_of_others_is_left_as_it_is(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commits["me/thesis"] = {"main": {"thesis.tex": b"all of it"}}
    done = publish("me/thesis")
    assert done.returncode == 2 and "has files of others, such as thesis.tex" in done.stderr
    assert hub.commits["me/thesis"] == {"main": {"thesis.tex": b"all of it"}}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused = publish("me/new")
    assert refused.returncode == 2 and "401" in refused.stderr.splitlines()[-1]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    away = publish("me/new")
    assert away.returncode == 2
    assert away.stderr.splitlines()[-1].startswith("ldseg: error: repository me/new: ")
