from __future__ import annotations

import configparser
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, download_large_files

from ldseg_monai.data.trained_cases import TrainedCases
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.zoo import PACKAGE, export_bundle

REPOSITORY = Path(__file__).parents[2]
BUNDLES = sorted(
    path.parent.parent.name for path in REPOSITORY.glob("bundles/*/configs/metadata.json")
)


@pytest.fixture(scope="module", params=BUNDLES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def source(name: str) -> Path:
    return REPOSITORY / "bundles" / name


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each bundle, exported."""
    return export_bundle(source, tmp_path_factory.mktemp("out"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle to break, with a few bytes in place of its weights."""
    source = REPOSITORY / "bundles" / BUNDLES[0]
    folder = tmp_path / "bundles" / BUNDLES[0]
    shutil.copytree(
        source, folder, ignore=lambda folder, names: {"models", "output", "eval"} & set(names)
    )
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"weights")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def texts(folder: Path) -> Iterator[tuple[Path, str]]:
    for suffix in ("py", "yaml", "json", "md"):
        for path in folder.rglob(f"*.{suffix}"):
            yield path, path.read_text()


def change_metadata(bundle: Path, **changes: Any) -> None:
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(
        json.dumps({key: value for key, value in metadata.items() if value is not None})
    )


def test_folder_has_the_bundle_and_its_code_and_the_zip_has_the_folder(
    name: str, source: Path, folder: Path
) -> None:
    package = {path for path in files(folder) if path.startswith(f"ldseg_monai_{name}/")}
    assert {
        f"ldseg_monai_{name}/{module}" for module in ("__init__.py", "networks/ldseg/network.py")
    } <= package
    modules = {f"ldseg_monai/{path.removeprefix(f'ldseg_monai_{name}/')}" for path in package}
    everything = {f"{PACKAGE.name}/{path}" for path in files(PACKAGE) if "__pycache__" not in path}
    assert modules < everything
    assert {path.split("/")[1] for path in everything - modules} == {"tools"}
    tools = re.compile(rf"ldseg_monai_{name}\.tools|from \.+tools|import tools")
    assert [path for path in package if tools.search((folder / path).read_text())] == []
    yaml = {path for path in files(source) if path.endswith(".yaml")}
    others = {"LICENSE", "configs/metadata.json", "configs/logging.conf", "models/model.pt"}
    others.add("models/model_cases.json")
    docs = {"docs/README.md", "docs/data_license.txt", "docs/val_cases.txt", "docs/phantom.png"}
    assert (
        files(folder) - package
        == yaml | {path.replace(".yaml", ".json") for path in yaml} | others | docs
    )
    assert [
        path for path in others if (folder / path).read_bytes() != (source / path).read_bytes()
    ] == []

    version = json.loads((source / "configs" / "metadata.json").read_text())["version"]
    with zipfile.ZipFile(folder.parent / f"{name}_v{version}.zip") as archive:
        zipped = {path: archive.read(path) for path in archive.namelist() if not path.endswith("/")}
    assert zipped == {f"{name}/{path}": (folder / path).read_bytes() for path in files(folder)}


def test_every_name_is_that_of_the_vendored_package(name: str, folder: Path) -> None:
    code = re.compile(r"\bldseg_monai(\w*)[./]\w|(?:from|import) ldseg_monai(\w*)")
    found = {
        (path, match[1] or match[2])
        for path, text in texts(folder)
        for match in code.finditer(text)
    }
    assert {suffix for _, suffix in found} == {f"_{name}"}, found


def test_config_is_its_source_s_but_for_names_and_the_folder(
    name: str, source: Path, folder: Path
) -> None:
    paths = sorted(folder.rglob("*.yaml"))
    assert paths
    for path in paths:
        config = ConfigParser.load_config_file(path)
        assert json.loads(path.with_suffix(".json").read_text()) == config
        expected = ConfigParser.load_config_file(source / path.relative_to(folder))
        if "bundle_root" in expected:
            assert config["bundle_root"] != expected["bundle_root"]
            config["bundle_root"] = expected["bundle_root"]
            assert [config["imports"].pop(0) for _ in range(2)] == [
                "$import site",
                "$import traceback",
            ]
        if expected.get("network_def", {}).get("_target_", "").startswith("ldseg_monai."):
            assert config["network_def"].pop("_requires_") == "$site.addsitedir(@bundle_root)"
        if "initialize" in expected:
            assert config["initialize"].pop(0) == "$site.addsitedir(@bundle_root)"
        assert (
            json.loads(json.dumps(config).replace(f"ldseg_monai_{name}.", "ldseg_monai."))
            == expected
        ), path


def test_network_is_the_source_s(
    name: str, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = []
    for config in (source / "configs" / "train.yaml", folder / "configs" / "train.json"):
        parser = ConfigParser(ConfigParser.load_config_file(config))
        parser["bundle_root"] = str(folder)
        size = [32, 48, 48][: len(parser.get("spatial_size", [0, 0]))]
        if "spatial_size" in parser:
            parser["spatial_size"] = size
        torch.manual_seed(0)
        network = parser.get_parsed_content("network_def").eval()
        with torch.no_grad():
            found.append((network, network(torch.ones(1, network.in_channels, *size))))
    (network, output), (vendored, same) = found
    assert (type(network).__module__.split(".")[0], type(vendored).__module__.split(".")[0]) == (
        "ldseg_monai",
        f"ldseg_monai_{name}",
    )
    assert torch.equal(output, same) and output.std() > 0


def test_docs_are_true_in_the_folder(name: str, source: Path, folder: Path) -> None:
    text, original = ((where / "docs" / "README.md").read_text() for where in (folder, source))
    assert re.findall("^#.*$", text, re.MULTILINE) == re.findall("^#.*$", original, re.MULTILINE)
    assert not re.search(r"\]\(\.\.|constraints\.txt|repository root", text)
    assert f"whose code is in `ldseg_monai_{name}`" in text
    for path, content in texts(folder):
        commands = (
            re.findall(r"monai\.bundle run .*", content) if path.suffix in (".md", ".yaml") else []
        )
        named = {file for command in commands for file in re.findall(r"[\w./-]+\.yaml", command)}
        named |= set(re.findall(r"bundles/\S+\.pt\b", content)) if path.suffix == ".md" else set()
        assert {file for file in named if not (folder / file).is_file()} == set(), path
        assert commands or path.suffix != ".yaml", path


def test_required_packages_are_those_of_this_package(name: str, source: Path, folder: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    needed = set(re.findall(r"^[\w.-]+", setup["options"]["install_requires"], re.MULTILINE))
    needed.remove("ruamel.yaml")  # of tools, which do not go with a bundle
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    versions = dict(re.findall(r"^([\w.-]+)==([\d.]+)(?!.*<)", "\n".join(lines), re.MULTILINE))
    [command] = re.findall("`pip install (monai==.*)`", (folder / "docs" / "README.md").read_text())
    assert dict(item.split("==") for item in command.split()) == {
        package: versions[package] for package in needed
    }


def test_large_files_are_left_out_of_the_folder_and_can_be_fetched(
    bundle: Path, tmp_path: Path
) -> None:
    weights = bundle / "models" / "model.pt"
    with weights.open("r+b") as file:
        file.truncate(26_000_000)
    folder = export_bundle(bundle, tmp_path / "out", large_files=weights.as_uri())
    [entry] = ConfigParser.load_config_file(folder / "large_files.yml")["large_files"]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    expected = {
        "path": "models/model.pt",
        "url": weights.as_uri(),
        "hash_val": digest,
        "hash_type": "sha256",
    }
    assert entry == expected
    assert not (folder / "models").exists()
    [archive] = (tmp_path / "out").glob("*.zip")
    with zipfile.ZipFile(archive) as zipped:
        assert zipped.read(f"{bundle.name}/models/model.pt") == weights.read_bytes()
        assert f"{bundle.name}/large_files.yml" not in zipped.namelist()
    download_large_files(str(folder))
    assert (folder / "models" / "model.pt").read_bytes() == weights.read_bytes()


def test_command_takes_the_name_of_a_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["zoo-export", bundle.name, "out"]) == 0
    assert {path.name.split("_v")[0] for path in (tmp_path / "out").iterdir()} == {bundle.name}
    assert (
        main(["zoo-export", str(bundle), "again", "--large-files", "https://host.org/model.pt"])
        == 0
    )
    assert (tmp_path / "again" / bundle.name / "large_files.yml").is_file()


def no_bundle(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").unlink()


def no_weights(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()


def other_version(bundle: Path) -> None:
    change_metadata(bundle, version="9.0.0", changelog={"8.0.0": "first"})


def no_torch_version(bundle: Path) -> None:
    change_metadata(bundle, pytorch_version=None)


def large_weights(bundle: Path) -> None:
    with (bundle / "models" / "model.pt").open("r+b") as file:
        file.truncate(26_000_000)


def large_picture(bundle: Path) -> None:
    with (bundle / "docs" / "picture.png").open("wb") as file:
        file.truncate(26_000_000)


def nothing(bundle: Path) -> None:
    pass


def odd_name(bundle: Path) -> None:
    shutil.copytree(bundle, bundle.with_name("odd-name"))


@pytest.mark.parametrize(
    ("harm", "argv", "message"),
    [
        (
            no_bundle,
            ["NAME"],
            "is not a bundle: expected a folder with configs/metadata.json, or the name of one in",
        ),
        (nothing, ["no_such_bundle"], "no_such_bundle is not a bundle"),
        (odd_name, ["odd-name"], "bundle odd-name: expected a name of letters, digits and _"),
        (no_weights, ["NAME"], "has no models/model.pt: expected a trained bundle"),
        (
            other_version,
            ["NAME"],
            "version 9.0.0 of NAME is not in the changelog of its metadata.json, which has 8.0.0",
        ),
        (no_torch_version, ["NAME"], "metadata.json of NAME has no pytorch_version"),
        (
            large_weights,
            ["NAME"],
            "model.pt has 26 MB: the zoo takes at most 25 MB a file; upload it and give",
        ),
        (
            large_picture,
            ["NAME", "--large-files", "https://host.org/model.pt"],
            "picture.png has 26 MB",
        ),
        (
            nothing,
            ["NAME", "--large-files", "models"],
            "large files at models: expected the URL of model.pt",
        ),
    ],
)
def test_error_is_told_before_anything_is_written(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
    harm,
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    harm(bundle)
    argv = [argument.replace("NAME", bundle.name) for argument in argv]
    assert main(["zoo-export", argv[0], "out", *argv[1:]]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message.replace("NAME", bundle.name) in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("function", ["copyfile", "make_archive"])
def test_export_that_cannot_be_written_leaves_nothing(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: str,
) -> None:
    """Of a disk that is full, while files are copied or when the zip is written."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, function, full)
    assert main(["zoo-export", str(bundle), str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be written" in line and "No space left on device" in line
    assert line.count("No space left") == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "zip"])
def test_export_that_is_there_is_not_overwritten(bundle: Path, tmp_path: Path, what: str) -> None:
    version = json.loads((bundle / "configs" / "metadata.json").read_text())["version"]
    path = tmp_path / "out" / {"folder": bundle.name, "zip": f"{bundle.name}_v{version}.zip"}[what]
    path.parent.mkdir()
    path.touch()
    with pytest.raises(FileExistsError, match="is there already: expected a new name"):
        export_bundle(bundle, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [path]


def test_of_two_exports_at_once_the_first_that_is_ready_stays(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is refused, and neither takes away what the other wrote."""
    out, make_archive = tmp_path / "out", shutil.make_archive

    def overtaken(*arguments: str) -> str:
        monkeypatch.setattr(shutil, "make_archive", make_archive)
        export_bundle(bundle, out)
        return make_archive(*arguments)

    monkeypatch.setattr(shutil, "make_archive", overtaken)
    with pytest.raises(FileExistsError, match="is there already: expected a new name"):
        export_bundle(bundle, out)
    (archive,) = out.glob("*.zip")
    with zipfile.ZipFile(archive) as written:
        files = [name for name in written.namelist() if not name.endswith("/")]
        assert {name: (out / name).read_bytes() for name in files} == {
            name: written.read(name) for name in files
        }
    assert sorted(out.iterdir()) == sorted([archive, out / bundle.name])


# A card that says that the bundle is not trained


@pytest.fixture
def untrained_card(bundle: Path) -> Path:
    """The card of the bundle to break as `new_bundle` writes one."""
    path = bundle / "docs" / "README.md"
    path.write_text(
        "# A bundle\n\n## **Performance**\nNot trained, so not measured. Score\nthem.\n\n"
        "## **Additional Usage Steps**\nTrain.\n"
    )
    change_metadata(
        bundle,
        version="0.1.0",
        changelog={"0.1.0": "written by `ldseg new-bundle` from ldseg_glas, not trained"},
    )
    return path


def write_summary(path: Path, weights: bytes = b"weights") -> None:
    path.parent.mkdir(exist_ok=True)
    statistics = {"mean": 0.8125, "sd": 0.05, "n": 2}
    scores = dict.fromkeys(("dice", "iou", "precision"), statistics)
    scores["recall"] = {"mean": 0.5, "sd": None, "n": 1}
    scores["hd95"] = {"mean": None, "sd": None, "n": 0}
    summary = {
        "cases": 2,
        "units": {"hd95": "mm"},
        "classes": {"1": {**scores, "name": r"a\1b"}, "2": {**scores, "name": "tail"}},
        "all": scores,
        "trained_on": "0 of 2 cases were trained on",
        "weights": hashlib.sha256(weights).hexdigest(),
    }
    path.write_text(json.dumps(summary))


def test_card_that_says_not_trained_is_refused_without_scores(
    bundle: Path, untrained_card: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="says that the bundle is not trained.* give --scores the"):
        export_bundle(bundle, tmp_path / "out")
    write_summary(tmp_path / "summary.json", b"others")
    with pytest.raises(ValueError, match="summary.json is of other weights than .*model.pt"):
        export_bundle(bundle, tmp_path / "out", scores=tmp_path / "summary.json")
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(
        ValueError, match="summary.json cannot be read .*evaluate the weights again"
    ):
        export_bundle(bundle, tmp_path / "out", scores=tmp_path / "summary.json")
    assert not (tmp_path / "out").exists()


def test_scores_fill_the_card_s_table(bundle: Path, untrained_card: Path, tmp_path: Path) -> None:
    write_summary(bundle / "output" / "summary.json")
    folder = export_bundle(bundle, tmp_path / "out")
    card = (folder / "docs" / "README.md").read_text()
    assert "not measured" not in card and card.count("## **") == 2
    assert r"| a\1b | 0.812 ± 0.050 | 0.812 ± 0.050 | 0.812 ± 0.050 | 0.500 | – |" in card
    assert "| class | Dice | IoU | precision | recall | HD95 (mm) |" in card
    assert "| mean of the classes | 0.812" in card
    assert "Training: 0 of 2 cases were trained on." in card
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["changelog"] == {"0.1.0": "written by `ldseg new-bundle` from ldseg_glas"}
    assert metadata["eval_metrics"] == {"mean_dice": 0.812}
    assert "Not trained" in untrained_card.read_text()


def test_own_components_are_exported_and_what_is_not_is_told(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (bundle / "my_part.py").write_text("from ldseg_monai.networks import LDSeg\n")
    (bundle / "models" / "older.pt").write_bytes(b"")
    (bundle / "notes").mkdir()
    (bundle / "output").mkdir()
    with caplog.at_level("WARNING", "ldseg_monai"):
        folder = export_bundle(bundle, tmp_path / "out")
    assert (folder / "my_part.py").read_text() == (
        f"from ldseg_monai_{bundle.name}.networks import LDSeg\n"
    )
    assert caplog.messages == [
        "not exported, since no bundle of the zoo has it: models/older.pt, notes",
    ]


def test_every_file_that_only_this_bundle_has_is_told(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "ldseg_monai"):
        export_bundle(bundle, tmp_path / "out")
    assert not [line for line in caplog.messages if "go along" in line]
    (bundle / "configs" / "ablations" / "tried.yaml").write_text("num_samples: 3\n")
    (bundle / "docs" / "patients.csv").write_text("")
    with caplog.at_level("INFO", "ldseg_monai"):
        folder = export_bundle(bundle, tmp_path / "again")
    (told,) = [line for line in caplog.messages if "go along" in line]
    assert ": configs/ablations/tried.yaml, docs/patients.csv; remove what must not" in told
    assert (folder / "docs" / "patients.csv").is_file()


def test_card_has_the_scores_of_the_weights(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = tmp_path / "scores" / "summary.json"
    with pytest.raises(FileNotFoundError, match="summary.json does not exist: expected"):
        export_bundle(bundle, tmp_path / "out", scores=summary)
    write_summary(summary)
    with pytest.raises(ValueError, match="a mean Dice of 0.812, .* a mean_dice of 0.954: expected"):
        export_bundle(bundle, tmp_path / "out", scores=summary)
    change_metadata(bundle, eval_metrics={"mean_dice": 0.8123})
    with pytest.raises(ValueError, match=r"README.md lacks 0.8123, the mean_dice of .*: expected"):
        export_bundle(bundle, tmp_path / "out", scores=summary)
    with open(bundle / "docs" / "README.md", "a") as card:
        card.write("Dice: 0.81\n")
    write_summary(summary, b"others")
    with pytest.raises(ValueError, match="summary.json is of other weights than"):
        export_bundle(bundle, tmp_path / "out", scores=summary)
    assert not (tmp_path / "out").exists()
    write_summary(summary)
    trained = TrainedCases(frozenset(), "", "val_mean_dice 0.7900 in epoch 3")
    trained.write(bundle / "models" / "model.pt")
    with caplog.at_level("INFO", "ldseg_monai"):
        export_bundle(bundle, tmp_path / "out", scores=summary)
    noted = "the training noted val_mean_dice 0.7900 in epoch 3"
    assert f"the card's mean Dice is 0.8123; {noted}" in caplog.messages
