"""A bundle as MONAI's model zoo takes it: a folder and a zip that need published packages only."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monai.bundle import ConfigParser
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from ldseg_monai import __version__
from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.bundle.reader import FIND_BUNDLE_ROOT
from ldseg_monai.data.leftovers import some
from ldseg_monai.data.trained_cases import TrainedCases, cases_file, digest
from ldseg_monai.runtime.errors import InputError, MissingFileError, UserError
from ldseg_monai.runtime.files import unwritable
from ldseg_monai.runtime.ownership import copy_folder, make_folder, require_new
from ldseg_monai.tools.new_bundle.yaml_text import dump_config, load_config

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
# Nothing else of the package imports the tools; a wheel has bundles too
NOT_VENDORED = ("__pycache__", "tools", "bundles")
PARTS = ("configs", "docs")
OWN_OUTPUT = ("output", "eval", "__pycache__")  # in a bundle's folder
WEIGHTS = "models/model.pt"
CARD = "docs/README.md"
METADATA_FILE = "configs/metadata.json"
FILES = (
    "LICENSE",
    CARD,
    METADATA_FILE,
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
PERFORMANCE = re.compile(r"(^## \*\*Performance\*\*\n).*?(?=^## )", re.DOTALL | re.MULTILINE)
UNTRAINED_CARD = re.compile(r"\bnot (?:yet )?trained\b(?! on\b)", re.IGNORECASE)
UNTRAINED = ", not trained"  # in the changelog of a new bundle
MAX_FILE_BYTES = 25e6  # the zoo's limit

# A config finds the package that goes with it first of all, for `initialize`, `monai.bundle.load`
# and MONAI's client in federated learning: `site.addsitedir` adds the bundle's folder once.
FIND_PACKAGE = "$site.addsitedir(@bundle_root)"


def export_bundle(
    bundle: str | Path,
    out: str | Path,
    large_files: str | None = None,
    scores: str | Path | None = None,
) -> Path:
    """Write ``out/NAME``, and ``out/NAME_vVERSION.zip``, which unpacks to the same folder.

    `monai.bundle.download` unpacks it. The code of this package goes with the bundle under a name
    of its own, ``ldseg_monai_NAME``: of two packages of one name, a process imports only the first.
    Every config is there as YAML and as JSON, which `monai.bundle.load` and MONAI's client in
    federated learning look for, and finds the bundle's folder from anywhere.

    Args:
        bundle: folder of a bundle, or its name, as of `Bundle.find`.
        out: folder to write to.
        large_files: URL that ``models/model.pt`` can be downloaded from. If given, the folder has
            ``large_files.yml`` instead of the weights, as the zoo wants it of files above 25 MB;
            the zip has the weights all the same.
        scores: ``summary.json`` of an evaluation of the weights, for the card of a bundle that
            `new_bundle` wrote, which has none; None for the one in the bundle's ``output``.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: if there is no such bundle.
        ValueError: if it is not whole, or one that the zoo would not take.
        FileExistsError: if the folder or the zip is there already.
        OSError: if it cannot be written, for example because the disk is full; nothing of it is
            left then.
    """
    found = Bundle.find(bundle)
    source, metadata = found.root, found.metadata
    check_bundle(source, metadata, large_files)
    check_scores(found, scores)
    trained = trained_texts(found, scores)
    folder = Path(out) / source.name
    archive = Path(out) / f"{source.name}_v{metadata['version']}.zip"
    for path in (folder, archive):
        require_new(path)

    own = ", ".join(sorted(_own_files(found)))
    if own:
        logger.info("no other bundle here has these, which go along: %s; remove what must not", own)
    make_folder(out)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=out) as place:
            draft, draft_archive = Path(place, folder.name), Path(place, archive.name)
            _write(found, draft, draft_archive, trained, large_files)
            for path in (folder, archive):  # another command may have written them meanwhile
                require_new(path)
            draft_archive.rename(archive)
            draft.rename(folder)
    except UserError:
        raise
    except OSError as error:
        raise unwritable(folder, error) from error
    left = [str(path) for path in _left_behind(source)]
    if left:
        logger.warning("not exported, since no bundle of the zoo has it: %s", some(left))
    return folder


def _write(
    bundle: Bundle,
    folder: Path,
    archive: Path,
    trained: dict[str, str],
    large_files: str | None,
) -> None:
    """Write an exported bundle, as a folder and as a zip: see `export_bundle`.

    Args:
        bundle: the bundle.
        folder: to write.
        archive: to write.
        trained: texts that are others than the bundle's own, by their paths.
        large_files: URL of the weights, or None.
    """
    source, metadata = bundle.root, bundle.metadata
    for part in PARTS:
        copy_folder(source / part, folder / part, shutil.ignore_patterns("__pycache__"))
    for module in source.glob("*.py"):  # which a config may name
        shutil.copyfile(module, folder / module.name)
    for name, text in trained.items():
        (folder / name).write_text(text)
    cases = cases_file(WEIGHTS)
    for name in ("LICENSE", WEIGHTS, str(cases)):
        if (source / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(source / name, folder / name)
    copy_folder(
        PACKAGE,
        folder / f"{PACKAGE.name}_{source.name}",
        shutil.ignore_patterns(*NOT_VENDORED),
    )
    for path in [*folder.rglob("*.py"), *folder.rglob("*.yaml"), *folder.rglob("*.md")]:
        path.write_text(stand_alone(path.read_text(), path.suffix, source.name, metadata))
    for path in folder.rglob("*.yaml"):
        path.with_suffix(".json").write_text(
            json.dumps(ConfigParser.load_config_file(path), indent=4) + "\n"
        )
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder.parent, source.name)

    if large_files is not None:
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        entry = {"path": WEIGHTS, "url": large_files, "hash_val": digest, "hash_type": "sha256"}
        ConfigParser.export_config_file(
            {"large_files": [entry]}, str(folder / "large_files.yml"), fmt="yaml"
        )
        (folder / WEIGHTS).unlink()
        if not (folder / cases).is_file():
            (folder / WEIGHTS).parent.rmdir()


def _own_files(bundle: Bundle) -> set[str]:
    """What is exported with a bundle and no other one here has, such as overlays of one's own."""
    roots = [other.root for other in Bundle.installed()]
    others = [root for root in roots if root.resolve() != bundle.root.resolve()]
    return _exported(bundle.root).difference(*map(_exported, others))


def _exported(source: Path) -> set[str]:
    """Names of the modules, configs and documents that are exported with a bundle."""
    files = [*source.glob("*.py"), *(path for part in PARTS for path in (source / part).rglob("*"))]
    names = {path.relative_to(source) for path in files if path.is_file()}
    return {str(name) for name in names if "__pycache__" not in name.parts}


def _left_behind(source: Path) -> Iterator[Path]:
    """What a bundle's folder holds and its export does not, but for what commands write there."""
    for path in sorted([*source.iterdir(), *(source / "models").iterdir()]):
        name = path.relative_to(source)
        exported = [*PARTS, "models", "LICENSE", WEIGHTS, str(cases_file(WEIGHTS))]
        if str(name) in exported or name.suffix == ".py" and path.is_file():
            continue
        if path.name not in OWN_OUTPUT and not path.name.startswith("."):
            yield name


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
            f"bundle {source.name}: expected a name of letters, digits and _, as of a Python "
            "package"
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
            f"version {version} of {source.name} is not in the changelog of its metadata.json, "
            f"which has {', '.join(changelog) or 'nothing'}: add a line on it"
        )
    url = urlsplit(large_files or "https://HOST/model.pt")
    if not (url.scheme and url.path):
        raise InputError(
            f"large files at {large_files}: expected the URL of model.pt, such as "
            "https://HOST/model.pt"
        )
    named = [source / "LICENSE", source / WEIGHTS]
    for path in [*named, *source.glob("configs/**/*"), *source.glob("docs/**/*")]:
        if not path.is_file() or path.stat().st_size <= MAX_FILE_BYTES:
            continue
        advice = "make it smaller"
        if path == source / WEIGHTS:
            if large_files is not None:
                continue
            advice = "upload it and give --large-files its URL"
        raise InputError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB: the zoo takes at most "
            f"{MAX_FILE_BYTES / 1e6:.0f} MB a file; {advice}"
        )


def check_scores(bundle: Bundle, scores: str | Path | None = None) -> None:
    """Check that the card of a trained bundle has the scores of its weights.

    What the training noted of the weights is told beside the card's mean Dice. The two need not be
    the same number: a training scores its validation cases as the network sees them.

    Args:
        bundle: the bundle.
        scores: ``summary.json`` of an evaluation, to compare the card with; None for none.

    Raises:
        ValueError: if the card lacks the Dice of ``metadata.json``, or the summary is of other
            weights, or has another mean Dice.
    """
    card = (bundle.root / CARD).read_text()
    if UNTRAINED_CARD.search(card):
        return  # `trained_texts` puts scores into it, or refuses
    said = bundle.metadata.get("eval_metrics", {}).get("mean_dice")
    if said is not None and not _has(card, said):
        raise InputError(
            f"{bundle.root / CARD} lacks {said}, the mean_dice of {METADATA_FILE}: expected the "
            "same scores in both, of the weights that are there; correct one of them"
        )
    if scores is not None:
        _, dice = _scores_of(bundle, scores)
        if said is None or round(said, 3) != dice:
            raise InputError(
                f"{scores} has a mean Dice of {dice}, {METADATA_FILE} of {bundle.name} a mean_dice "
                f"of {said}: expected the same; correct the card and {METADATA_FILE}"
            )
    trained = TrainedCases.read(bundle.weights)
    if trained is not None and trained.score:
        logger.info("the card's mean Dice is %s; the training noted %s", said, trained.score)


def _has(card: str, value: float) -> bool:
    """Whether a text has a number, perhaps rounded, but to two decimals at least."""
    for number in re.findall(r"\d\.\d{2,}", card):
        if float(number) == round(value, len(number) - len("0.")):
            return True
    return False


def trained_texts(bundle: Bundle, scores: str | Path | None = None) -> dict[str, str]:
    """What a bundle says of itself now that it has weights, where it says that it has none.

    Args:
        bundle: the bundle.
        scores: as of `export_bundle`.

    Returns:
        Content of its card and its ``metadata.json`` by their paths; none where they are right.

    Raises:
        ValueError: if the card says that the bundle is not trained and there are no scores of its
            weights to put in that place.
    """
    card, metadata = (bundle.root / CARD).read_text(), dict(bundle.metadata)
    changes = {name: text.replace(UNTRAINED, "") for name, text in metadata["changelog"].items()}
    texts = {}
    if UNTRAINED_CARD.search(card):
        table, dice = _scores_of(bundle, scores)
        metadata["eval_metrics"] = {"mean_dice": dice}
        texts[CARD] = PERFORMANCE.sub(lambda found: f"{found[1]}{table}\n\n", card)
    if UNTRAINED_CARD.search(texts.get(CARD, "")):
        raise InputError(
            f"{bundle.root / CARD} says that the bundle is not trained outside of its section "
            "Performance: expected none of it, since there are weights; remove it"
        )
    if texts or changes != metadata["changelog"]:
        texts[METADATA_FILE] = json.dumps(metadata | {"changelog": changes}, indent=4) + "\n"
    return texts


def _scores_of(bundle: Bundle, scores: str | Path | None) -> tuple[str, float]:
    """The table of a ``summary.json`` of a bundle's weights, and its mean Dice."""
    path = Path(scores or bundle.root / "output" / "summary.json")
    if not path.is_file() and scores is not None:
        raise MissingFileError(
            f"{path} does not exist: expected the summary.json of an evaluation of the weights"
        )
    if not path.is_file():
        raise InputError(
            f"{bundle.root / CARD} says that the bundle is not trained, and there are weights: "
            f"expected what they score, and there is no file {path}; give --scores the "
            "summary.json of an evaluation of them, or write it into the card yourself"
        )
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
        table, dice = performance(summary), round(summary["all"]["dice"]["mean"], 3)
        evaluated = summary["weights"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__} {error}): expected the summary.json of "
            "an evaluation by this version, with scores; evaluate the weights again"
        ) from error
    if evaluated != digest(bundle.weights):
        raise InputError(
            f"{path} is of other weights than {bundle.weights}: expected scores of these; evaluate "
            "them"
        )
    return table, dice


def performance(summary: dict[str, Any]) -> str:
    """A card's table of an evaluation, in Markdown.

    Args:
        summary: content of its ``summary.json``.
    """
    titles = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall"}
    titles["hd95"] = f"HD95 ({summary['units']['hd95']})"
    lines = [
        f"Mean ± SD over {summary['cases']} cases, on the original labels, in their geometry.",
        f"Training: {summary['trained_on']}.",
        "",
        f"| class | {' | '.join(titles.values())} |",
        "|---" * (len(titles) + 1) + "|",
    ]
    groups = {scores["name"]: scores for scores in summary["classes"].values()}
    if len(groups) > 1:
        groups["mean of the classes"] = summary["all"]
    for name, scores in groups.items():
        cells = [_mean_and_sd(scores[score]) for score in titles]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_sd(statistics: dict[str, Any]) -> str:
    if statistics["mean"] is None:
        return "–"
    spread = "" if statistics["sd"] is None else f" ± {statistics['sd']:.3f}"
    return f"{statistics['mean']:.3f}{spread}"


def stand_alone(text: str, suffix: str, name: str, metadata: dict[str, Any]) -> str:
    """Rewrite what a file says of this package and repository, to be true in the exported folder.

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
        f"Exported from the repository of {PACKAGE.name} {__version__}, whose code is in "
        f"`{package}`. What this text says of `benchmarks`, of pages in `docs` and of the command "
        "`ldseg` is there."
    )
    return re.sub(
        r"^## \*\*Additional Usage Steps\*\*\n", rf"\g<0>{origin}\n\n", text, flags=re.MULTILINE
    )


def find_itself(text: str, package: str) -> str:
    """Let a YAML config find the bundle's folder, and the package in it, from anywhere."""
    config = load_config(text)
    if "imports" in config:
        config["imports"].insert(0, "$import site")
        config["imports"].insert(1, "$import traceback")
    if "bundle_root" in config:
        config["bundle_root"] = DoubleQuotedScalarString(FIND_BUNDLE_ROOT)
    if "initialize" in config:
        config["initialize"].insert(0, FIND_PACKAGE)
    network = config.get("network_def", {})
    if network.get("_target_", "").startswith(f"{package}."):
        network.insert(1, "_requires_", FIND_PACKAGE)  # clients make it without `initialize`
    return dump_config(config)


def requirements(metadata: dict[str, Any]) -> list[str]:
    """The packages of a bundle's metadata, each with its version, as pip takes them."""
    packages = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    packages |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    return [f"{name}=={version}" for name, version in packages.items()]
