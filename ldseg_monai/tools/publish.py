"""A bundle where others find it: as a zip in a folder, or on Hugging Face's hub."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import monai.bundle

from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.data.leftovers import some
from ldseg_monai.runtime.errors import (
    ExistingFileError,
    InputError,
    MissingPackageError,
    NotAFolderError,
    RunError,
    UserError,
    one_line,
)
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.runtime.ownership import make_folder, require_new
from ldseg_monai.tools.new_bundle.model_card import UNKNOWN_TERMS
from ldseg_monai.tools.zoo import METADATA_FILE, PACKAGE, export_bundle

logger = logging.getLogger("ldseg_monai.tools")

CHECK = Path(__file__).with_name("published.py")
TOKEN = "HF_TOKEN"  # environment variable that huggingface_hub reads
MASKS = "*_label*"  # files of an inference
OF_EVERY_REPOSITORY = {".gitattributes"}  # which the hub makes
# Of the bundle as it is here, and of what is published: the same arithmetic in both
SEGMENT = {"phantoms": True, "force": True, "device": "cpu", "amp": False, "logging_file": False}


def publish_to_folder(
    bundle: str | Path, out: str | Path, scores: str | Path | None = None
) -> Path:
    """Write ``NAME_vVERSION.zip``, as `monai.bundle.download` takes it from a server or a release.

    Nothing is written before what is published was checked: see `checked_export`.

    Args:
        bundle: folder of a bundle, or its name.
        out: folder to write to.
        scores: as of `ldseg_monai.tools.zoo.export_bundle`.

    Returns:
        The zip.

    Raises:
        FileExistsError: if the zip is there already.
        NotADirectoryError: if ``out`` is a file.
        FileNotFoundError, ValueError, RuntimeError: as of `checked_export`.
    """
    found = Bundle.find(bundle)
    archive = Path(out) / archive_name(found)
    if Path(out).exists() and not Path(out).is_dir():
        raise NotAFolderError(
            f"--to folder {out}: expected a folder, and it is a file; choose another name"
        )
    require_new(archive)
    with checked_export(found, scores) as folder:
        make_folder(out)
        with whole_file(archive, new=True) as hidden:
            shutil.copyfile(folder.parent / archive.name, hidden)
    return archive


def publish_to_hub(
    bundle: str | Path, repo: str, public: bool = False, scores: str | Path | None = None
) -> str:
    """Push a bundle to a repository of Hugging Face's hub by MONAI's `push_to_hf_hub`.

    The commit gets the bundle's version as its tag, which `monai.bundle.download` takes with
    ``source="huggingface_hub"``. A repository that is there has to be this bundle's, and must not
    have the version. What is there afterwards is downloaded and compared, byte by byte.

    Args:
        bundle: folder of a bundle, or its name.
        repo: USER/NAME.
        public: whether everybody sees a repository that is made now; else its owner alone.
        scores: as of `ldseg_monai.tools.zoo.export_bundle`.

    Returns:
        URL of the commit.

    Raises:
        ImportError: if huggingface_hub is not installed.
        FileExistsError: if the repository is another's, or has the version already.
        ValueError: for a name of a repository that is none, or without a token.
        RuntimeError: if the hub refuses, or what is there afterwards is something else.
        FileNotFoundError: if there is no such bundle.
    """
    found = Bundle.find(bundle)
    version = str(found.metadata.get("version"))
    require_hub_package()
    if len([part for part in repo.split("/") if part]) != 2 or repo.count("/") != 1:
        raise InputError(f"repository {repo}: expected USER/NAME, such as me/{found.name}")
    with _hub_errors(repo):
        _check_repository(repo, found)
    with checked_export(found, scores) as folder:
        with _hub_errors(repo):
            url = monai.bundle.push_to_hf_hub(
                repo=repo,
                name=folder.name,
                bundle_dir=str(folder.parent),
                private=not public,
                version=version,
            )
            _check_pushed(repo, version, folder)
    return str(url)


def require_hub_package() -> None:
    """Check that huggingface_hub is installed.

    Raises:
        MissingPackageError: if it is not.
    """
    if find_spec("huggingface_hub") is None:
        raise MissingPackageError(
            "--to hf takes huggingface_hub: pip install 'ldseg_monai[hub]', or write the zip by "
            "--to folder DIR"
        )


def archive_name(bundle: Bundle) -> str:
    """The name by which `monai.bundle.download` looks for a bundle's zip."""
    return f"{bundle.name}_v{bundle.metadata.get('version')}.zip"


@contextmanager
def checked_export(bundle: Bundle, scores: str | Path | None = None) -> Iterator[Path]:
    """Export a bundle into a folder for a while, and check that others can use it.

    The zip is fetched by `monai.bundle.download`. Where this package cannot be imported, the zoo's
    `verify_net_in_out` is run, and the network that `monai.bundle.load` returns segments a phantom.
    Its masks have to be those of the bundle as it is here, byte by byte.

    Args:
        bundle: the bundle.
        scores: as of `ldseg_monai.tools.zoo.export_bundle`.

    Yields:
        The exported folder; the zip lies beside it.

    Raises:
        FileNotFoundError, ValueError: as of `export_bundle`.
        RuntimeError: if what is exported does not run alone, or gives other masks.
    """
    _require_terms(bundle)
    with tempfile.TemporaryDirectory() as place:
        folder = export_bundle(bundle.root, Path(place, "export"), None, scores)
        archive = folder.parent / archive_name(bundle)
        fetched, out = Path(place, "fetched"), Path(place, "masks")
        fetched.mkdir()
        _download(name=bundle.name, url=archive.as_uri(), bundle_dir=fetched)
        same = verify_fetched(bundle, fetched / bundle.name, out)
        logger.info("checked: it runs alone, with the same masks of a phantom (%s)", some(same))
        yield folder


def _require_terms(bundle: Bundle) -> None:
    """Check that a bundle says the terms of the data that its weights were trained on.

    Raises:
        ValueError: if it does not.
    """
    path = bundle.root / "docs" / "data_license.txt"
    if not path.is_file() or UNKNOWN_TERMS in path.read_text(encoding="utf-8"):
        raise InputError(
            f"{path} does not say the terms of the data: expected what others may do with the "
            "weights; write it there"
        )


def verify_fetched(bundle: Bundle, fetched: Path, out: Path) -> list[str]:
    """Check that a bundle as others have it verifies, runs alone, and gives the same masks.

    Args:
        bundle: the bundle as it is here.
        fetched: its folder, as it was unpacked.
        out: folder to write to.

    Returns:
        Names of the masks that are equal.

    Raises:
        RuntimeError: if it does not.
    """
    task = {"folder": str(fetched), "out": f"{out}/there"}
    _run("as others get it", [str(CHECK)], out, json.dumps(task))
    config = ["--config_file", str(bundle.config_file("inference.yaml"))]
    options = {**SEGMENT, "bundle_root": str(bundle.root.resolve()), "output_dir": f"{out}/here"}
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    _run("as it is here", ["-m", "monai.bundle", "run", *config, *given], out)
    here, there = (_contents(out / name, MASKS) for name in ("here", "there"))
    if here != there or not here:
        raise RunError(
            f"the masks of a phantom by {bundle.name} as others get it ({some(sorted(there))}) are "
            f"not those of the bundle here ({some(sorted(here))}): expected the same bytes; this "
            "is a fault of the export, so report it"
        )
    return sorted(here)


def _download(**options: Any) -> None:
    """Call MONAI's download; that it knows no digest to compare with is not told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No hash value provided")
        monai.bundle.download(progress=False, **options)


def _run(what: str, arguments: list[str], out: Path, task: str | None = None) -> None:
    """Run Python in a process of its own, to a good end."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=out,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        input=task,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        last = done.stdout.strip().splitlines()[-1:] or ["it printed nothing"]
        raise RunError(
            f"the bundle {what} does not segment a phantom (exit code {done.returncode}: {last[0]})"
            ": expected one that does; nothing was published"
        )


def _contents(folder: Path, pattern: str) -> dict[str, bytes]:
    """The files in a folder, by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


def _check_repository(repo: str, bundle: Bundle) -> None:
    """Check that there is a token, and that a repository is free, or this bundle's.

    Raises:
        InputError: without a token.
        ExistingFileError: if it has other files, is another bundle's, or has the version.
    """
    import huggingface_hub

    if not huggingface_hub.get_token():
        raise InputError(
            f"no token for {repo}: expected that of a user who may write there; set {TOKEN}, or "
            "log in once by `hf auth login`"
        )
    api = huggingface_hub.HfApi()
    if not api.repo_exists(repo):
        return
    files = set(api.list_repo_files(repo)) - OF_EVERY_REPOSITORY
    if not files:
        return
    if METADATA_FILE not in files:
        raise ExistingFileError(
            f"repository {repo} has files of others, such as {sorted(files)[0]}, and no "
            f"{METADATA_FILE}: expected an empty one, or this bundle's; choose another name"
        )
    path = huggingface_hub.hf_hub_download(repo, METADATA_FILE)
    theirs: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    if theirs.get("name") != bundle.metadata.get("name"):
        raise ExistingFileError(
            f"repository {repo} has the bundle {theirs.get('name')!r}: expected "
            f"{bundle.metadata.get('name')!r}, or an empty one; choose another name"
        )
    version = bundle.metadata.get("version")
    if version in [tag.name for tag in api.list_repo_refs(repo).tags]:
        raise ExistingFileError(
            f"repository {repo} has version {version} of {bundle.name} already: expected a new "
            f"one; raise version in its {METADATA_FILE}, with a line of changelog"
        )


def _check_pushed(repo: str, version: str, folder: Path) -> None:
    """Check that `monai.bundle.download` gets what was pushed.

    Raises:
        RunError: if it gets something else.
    """
    with tempfile.TemporaryDirectory() as place:
        source = {"source": "huggingface_hub", "repo": repo, "version": version}
        _download(name=folder.name, bundle_dir=place, **source)
        changed = []
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            there = Path(place, folder.name, name)
            if path.is_file() and not (there.is_file() and _same(there, path)):
                changed.append(str(name))
    if changed:
        raise RunError(
            f"repository {repo} at {version} has not what was pushed: {some(changed)} differ; "
            "expected the same bytes; look at it on the hub before you tell others"
        )


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


@contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    """Tell in one line what the hub, or the way to it, refuses."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Its bases are the errors of the package's HTTP client, such as that there is no network.
    refusals = (*HfHubHTTPError.__bases__, HFValidationError, OSError)
    try:
        yield
    except UserError:
        raise
    except refusals as error:
        raise RunError(
            f"repository {repo}: {one_line(error).rstrip('.')}; expected one that the token may "
            "write to, and a way to the hub"
        ) from error
