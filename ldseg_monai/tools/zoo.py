"""A bundle as MONAI's model zoo takes it: a folder and a zip that need nothing but packages from a registry."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monai.bundle import ConfigParser

from ldseg_monai import __version__
from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.runtime.errors import ExistingFileError, InputError

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
NOT_VENDORED = ("__pycache__", "tools")
WEIGHTS = "models/model.pt"
FILES = (
    "LICENSE",
    "docs/README.md",
    "configs/metadata.json",
    "configs/train.yaml",
    "configs/inference.yaml",
    WEIGHTS,
)
METADATA = (
    "version",
    "changelog",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
)
MAX_FILE_BYTES = 25e6  # the zoo's limit

# MONAI puts a bundle's folder on Python's path only when `ConfigWorkflow.run` begins: too late for
# `initialize`, and never for `monai.bundle.load` and MONAI's client in federated learning. So each
# config does it first of all, with `site.addsitedir`, which adds a folder once. The folder is the
# `bundle_root` that its client gives, or else that of the workflow that is reading the config:
# nothing else knows where the config is.
BUNDLE_ROOT = (
    "$str(next((frame.f_locals['self'].config_root_path.parent for frame, _ in traceback.walk_stack(None)"
    " if isinstance(frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)), '.'))"
)
FIND_PACKAGE = "$site.addsitedir(@bundle_root)"


def export_bundle(bundle: str | Path, out: str | Path, large_files: str | None = None) -> Path:
    """Write ``out/NAME`` and ``out/NAME_vVERSION.zip``, which `monai.bundle.download` unpacks to the same folder.

    The code of this package goes with the bundle under a name of its own, ``ldseg_monai_NAME``: of
    two packages of one name, a process imports only the first. Every config is there as YAML and as
    JSON, which `monai.bundle.load` and MONAI's client in federated learning look for, and finds the
    bundle's folder from anywhere.

    Args:
        bundle: folder of a bundle, or the name of one in ``bundles`` below the current directory.
        out: folder to write to.
        large_files: URL that ``models/model.pt`` can be downloaded from. If given, the folder has
            ``large_files.yml`` instead of the weights, as the zoo wants it of files above 25 MB;
            the zip has the weights all the same.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if there is no such bundle.
        ValueError: if it is not whole, or one that the zoo would not take.
        FileExistsError: if the folder or the zip is there already.
    """
    found = Bundle.find(bundle)
    source, metadata = found.root, found.metadata
    check_bundle(source, metadata, large_files)
    folder = Path(out) / source.name
    archive = Path(out) / f"{source.name}_v{metadata['version']}.zip"
    for path in (folder, archive):
        if path.exists():
            raise ExistingFileError(
                f"{path} exists: remove it, or choose another folder to write to"
            )

    for part in ("configs", "docs"):
        shutil.copytree(source / part, folder / part)
    for name in ("LICENSE", WEIGHTS):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, folder / name)
    shutil.copytree(
        PACKAGE,
        folder / f"{PACKAGE.name}_{source.name}",
        ignore=shutil.ignore_patterns(*NOT_VENDORED),
    )
    for path in [*folder.rglob("*.py"), *folder.rglob("*.yaml"), *folder.rglob("*.md")]:
        path.write_text(stand_alone(path.read_text(), path.suffix, source.name, metadata))
    for path in folder.rglob("*.yaml"):
        path.with_suffix(".json").write_text(
            json.dumps(ConfigParser.load_config_file(path), indent=4) + "\n"
        )
    shutil.make_archive(str(archive.with_suffix("")), "zip", out, source.name)

    if large_files is not None:
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        entry = {"path": WEIGHTS, "url": large_files, "hash_val": digest, "hash_type": "sha256"}
        ConfigParser.export_config_file(
            {"large_files": [entry]}, str(folder / "large_files.yml"), fmt="yaml"
        )
        shutil.rmtree((folder / WEIGHTS).parent)
    logger.info("wrote %s and %s", folder, archive)
    return folder


def check_bundle(source: Path, metadata: dict[str, Any], large_files: str | None) -> None:
    """Check that a bundle is whole and one that the zoo would take.

    Args:
        source: folder of the bundle.
        metadata: content of its ``metadata.json``.
        large_files: as of `export_bundle`.

    Raises:
        ValueError: if it is not.
    """
    if not source.name.isidentifier():
        raise InputError(
            f"bundle {source.name}: expected a name of letters, digits and _, as of a Python package"
        )
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise InputError(
            f"{source} has no {', '.join(missing)}: expected a trained bundle with all of its files"
        )
    missing = [key for key in METADATA if key not in metadata]
    if missing:
        raise InputError(
            f"metadata.json of {source.name} has no {', '.join(missing)}: the zoo requires them"
        )
    version, changelog = metadata["version"], metadata["changelog"]
    if version not in changelog:
        raise InputError(
            f"version {version} of {source.name} is not in the changelog of its metadata.json, which has "
            f"{', '.join(changelog) or 'nothing'}: add a line on it"
        )
    if large_files is not None and not (
        urlsplit(large_files).scheme and urlsplit(large_files).path
    ):
        raise InputError(
            f"large files at {large_files}: expected the URL of model.pt, such as https://HOST/model.pt"
        )
    for path in [
        source / "LICENSE",
        source / WEIGHTS,
        *source.glob("configs/**/*"),
        *source.glob("docs/**/*"),
    ]:
        is_weights = path == source / WEIGHTS
        if (
            path.is_file()
            and path.stat().st_size > MAX_FILE_BYTES
            and not (is_weights and large_files is not None)
        ):
            advice = "upload it and give --large-files its URL" if is_weights else "make it smaller"
            raise InputError(
                f"{path} has {path.stat().st_size / 1e6:.0f} MB: the zoo takes at most {MAX_FILE_BYTES / 1e6:.0f} MB a "
                f"file; {advice}"
            )


def stand_alone(text: str, suffix: str, name: str, metadata: dict[str, Any]) -> str:
    """Rewrite what a file says of this package and repository, so that it is true in the exported folder.

    Args:
        text: content of the file.
        suffix: kind of the file: ``.py``, ``.yaml`` or ``.md``.
        name: the bundle's name.
        metadata: content of its ``metadata.json``.

    Returns:
        The new content.
    """
    package = f"{PACKAGE.name}_{name}"
    text = re.sub(rf"\b{PACKAGE.name}(?=\.\w|/| import )", package, text)
    if suffix == ".py":
        return text
    text = text.replace(f"bundles/{name}/", "").replace(
        "the repository root", "the bundle's folder"
    )
    if suffix == ".yaml":
        return find_itself(text, package)
    text = re.sub(r"\[([^]]+)]\(\.\./\.\./[^)]*\)", r"\1", text)
    text = text.replace(
        "pip install -c constraints.txt -e .", f"pip install {' '.join(requirements(metadata))}"
    )
    origin = (
        f"Exported from the repository of {PACKAGE.name} {__version__}, whose code is in `{package}`. What this text "
        "says of `benchmarks`, of pages in `docs` and of the command `ldseg` is there."
    )
    return re.sub(
        r"^## \*\*Additional Usage Steps\*\*\n", rf"\g<0>{origin}\n\n", text, flags=re.MULTILINE
    )


def find_itself(config: str, package: str) -> str:
    """Let the text of a YAML config find the bundle's folder, and the package in it, from anywhere."""
    edits = {
        r"^imports:\n": r"\g<0>- $import site\n- $import traceback\n",
        r"^bundle_root: .*$": f'bundle_root: "{BUNDLE_ROOT}"',
        r"^initialize:\n": rf"\g<0>- {FIND_PACKAGE}\n",
        rf"^network_def:.*\n(?=  _target_: {package}\.)": rf"\g<0>  _requires_: {FIND_PACKAGE}\n",
    }
    for pattern, replacement in edits.items():
        config = re.sub(pattern, replacement, config, flags=re.MULTILINE)
    return config


def requirements(metadata: dict[str, Any]) -> list[str]:
    """The packages of a bundle's metadata, each with its version, as pip takes them."""
    packages = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    packages |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    return [f"{name}=={version}" for name, version in packages.items()]
