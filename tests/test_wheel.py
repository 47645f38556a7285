"""A wheel is all that is needed: bundles, weights and commands, without a checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_BYTES = 100e6
IN_WHEEL = "ldseg_monai/"  # what the path of a bundle's file begins with there
SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
BUNDLE = "from ldseg_monai.bundle import Bundle; print(Bundle.find('ldseg_hippocampus').root)"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs git"
    ),
]


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """What a command prints, with a folder that Python looks in first, and no other."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        given["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path, out: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "-w", out, ".", cwd=source)
    (wheel,) = out.glob("*.whl")
    return wheel


def digests(wheel: Path) -> dict[str, str]:
    """The SHA-256 of what is in a wheel, by its path there."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: sha256(archive.read(name)) for name in archive.namelist()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    listed = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def source(tracked: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which somebody has worked: with results, caches and a bundle of their own."""
    folder = tmp_path_factory.mktemp("source")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    run("git", "init", "-q", cwd=folder)
    run("git", "add", "-A", cwd=folder)
    left = [
        "ldseg_glas/output/model.pt",
        "ldseg_glas/configs/mine.yaml",
        "ldseg_glas/configs/__pycache__/mine.pyc",
        "my_organ/configs/metadata.json",
    ]
    built = "build/lib/ldseg_monai/"  # by an earlier build
    for name in [*(f"bundles/{one}" for one in left), f"{built}old.py", f"{built}bundles/old/a"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index")
    run(*pip, "--target", folder, wheel, cwd=folder)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_wheel_has_every_file_of_the_bundles_and_of_the_package_and_nothing_else(
    wheel: Path, tracked: Sequence[str]
) -> None:
    found = digests(wheel)
    bundles = {name for name in tracked if name.startswith("bundles/")}
    code = {name for name in tracked if name.startswith(IN_WHEEL)}
    packed = {name for name in found if ".dist-info/" not in name}
    assert packed == {IN_WHEEL + name for name in bundles} | code
    assert all(found[IN_WHEEL + name] == sha256((ROOT / name).read_bytes()) for name in bundles)
    assert len([name for name in packed if name.endswith("models/model.pt")]) > 5
    assert wheel.stat().st_size < MAX_BYTES


def test_source_distribution_makes_the_same_wheel_without_git(
    wheel: Path, source: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-c", SDIST, tmp_path, cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert digests(build_wheel(unpacked, tmp_path)) == digests(wheel)


def test_installed_bundle_is_found_and_segments_from_an_empty_folder(
    installed: Path, empty: Path
) -> None:
    bundle = installed / "ldseg_monai" / "bundles" / "ldseg_hippocampus"
    assert run(sys.executable, "-c", BUNDLE, cwd=empty, path=installed).strip() == str(bundle)
    ldseg = (sys.executable, "-m", "ldseg_monai.tools.cli")
    folder = run(*ldseg, "path", "ldseg_hippocampus", cwd=empty, path=installed).strip()
    assert folder == str(bundle)
    run(*ldseg, "phantom", "hippocampus", "--out", "data", "--num", "1", cwd=empty, path=installed)
    command = (sys.executable, "-m", "monai.bundle", "run", "--dataset_dir", "data")
    config = ("--config_file", f"{folder}/configs/inference.yaml", "--device", "cpu")
    run(*command, *config, "--output_dir", "out", cwd=empty, path=installed)
    assert {"case_000_label.nii.gz", "case_000_overlay.png"} <= set(os.listdir(empty / "out"))
    with pytest.raises(AssertionError, match="inside of the installed package: .*--output_dir"):
        run(*command, *config, cwd=empty, path=installed)
    assert not (bundle / "output").exists()


def test_new_bundle_starts_from_an_installed_one(installed: Path, empty: Path) -> None:
    ldseg = (sys.executable, "-m", "ldseg_monai.tools.cli")
    run(*ldseg, "phantom", "knee", "--out", "data", "--num", "4", cwd=empty, path=installed)
    options = ("--from", "ldseg_knee3d", "--name", "mine", "--dataset_dir", "data")
    printed = run(*ldseg, "new-bundle", *options, cwd=empty, path=installed)
    train = "--config_file bundles/mine/configs/train.yaml --dataset_dir data"
    assert train in printed
    assert (empty / "bundles" / "mine" / "configs" / "train.yaml").is_file()
    assert run(*ldseg, "path", "mine", cwd=empty, path=installed).strip() == str(
        empty / "bundles" / "mine"
    )
