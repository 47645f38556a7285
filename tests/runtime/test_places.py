from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.knobs import check_output_dir
from ldseg_monai.runtime import places

ROOT = Path(__file__).parents[2]


def write_bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text("{}")
    return folder


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundles of a package that is installed from a wheel, `bones` and `glands`."""
    package = tmp_path / "site-packages" / "ldseg_monai"
    for name in ("glands", "bones"):
        write_bundle(package / "bundles" / name)
    write_bundle(package.parent / "bundles" / "somebody_else_s")
    monkeypatch.setattr(places, "PACKAGE", package)
    monkeypatch.setattr(places, "OF_WHEEL", package / "bundles")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    return package / "bundles"


def test_bundle_is_the_folder_then_the_one_in_bundles_then_the_installed_one(wheel: Path) -> None:
    empty = Path.cwd()
    assert Bundle.find("bones").root == wheel / "bones"
    assert Bundle.find(wheel / "glands").root == wheel / "glands"
    own = write_bundle(empty / "bundles" / "bones")
    assert (Bundle.find("bones").root, Bundle.find("glands").root) == (own, wheel / "glands")
    here = write_bundle(empty / "bones")
    assert Bundle.find("bones").root == here


def test_each_bundle_is_listed_once_the_own_ones_first(wheel: Path) -> None:
    assert [bundle.root for bundle in Bundle.installed()] == [wheel / "bones", wheel / "glands"]
    own = [write_bundle(Path.cwd() / "bundles" / name) for name in ("glands", "zebras")]
    assert [bundle.root for bundle in Bundle.installed()] == [*own, wheel / "bones"]


def test_error_lists_the_own_and_the_installed_ones(wheel: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        Bundle.find("lungs")
    assert str(raised.value) == (
        "lungs is not a bundle: expected a folder with configs/metadata.json, or the name of one in "
        "./bundles (which has none) or of an installed one (bones, glands)"
    )
    write_bundle(Path("bundles", "zebras"))
    with pytest.raises(FileNotFoundError, match=r"in ./bundles \(zebras\) or of an installed one"):
        Bundle.find("lungs")


def test_folder_in_bundles_that_is_not_whole_does_not_become_the_installed_one(wheel: Path) -> None:
    Path("bundles", "bones").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"bones is not a bundle: .*installed one \(glands\)"
    ):
        Bundle.find("bones")
    assert [bundle.name for bundle in Bundle.installed()] == ["glands"]


def test_a_checkout_s_installed_bundles_are_the_repository_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = sorted(path.parents[1] for path in ROOT.glob("bundles/*/configs/metadata.json"))
    assert [bundle.root for bundle in Bundle.installed()] == there
    assert Bundle.find(there[0].name).root == there[0]


def test_nothing_is_written_into_the_installed_package(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(wheel)
    for place in (wheel / "bones" / "output", wheel, tmp_path / "link" / "bones"):
        with pytest.raises(
            ValueError, match="inside of the installed package: .*give --output_dir"
        ):
            check_output_dir(str(place))
    monkeypatch.chdir(wheel / "bones")
    with pytest.raises(ValueError, match="output_dir is './output', inside of the installed"):
        check_output_dir("./output")
    check_output_dir(str(tmp_path / "bones" / "output"))


def test_folder_is_found_without_pytorch() -> None:
    lines = "from ldseg_monai.tools.cli import main; main(['path', 'ldseg_glas']); import sys"
    done = subprocess.run(
        [sys.executable, "-c", f"{lines}; print({{'torch', 'numpy', 'monai'}} & set(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{ROOT / 'bundles' / 'ldseg_glas'}\nset()\n"
