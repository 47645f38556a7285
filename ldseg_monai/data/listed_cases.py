"""Cases that a `dataset.json` lists: of the Decathlon, nnU-Net and their kin."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai.utils import ensure_tuple

from ldseg_monai.data.channels import names_of_files, require_all
from ldseg_monai.data.formats import is_volume, tell_once
from ldseg_monai.data.leftovers import Leftovers, is_hidden, some
from ldseg_monai.data.names import (
    CHANNEL,
    EXTENSIONS,
    PathLike,
    image_place,
    name_cases,
)
from ldseg_monai.runtime.errors import InputError, MissingFileError

# What lists are called, whoever wrote them
TRAINING = ("training", "train")
VALIDATION = ("validation", "validating", "val", "valid")
TEST = ("test", "testing")
LABELED = (*TRAINING, *VALIDATION)
EXPECTED = "expected a Decathlon file whose 'training' lists {'image': path, 'label': path}"
PARTS = ("image", "label")  # of an entry: paths
NNUNET = ("channel_names", "file_ending")  # keys of nnU-Net's own files, which list nothing
BACKGROUND, IGNORED = "background", "ignore"  # names of label values, the second nnU-Net's
NAME = "name of the case"  # in entries that are made of nnU-Net's folders
READ = (*PARTS, "fold", NAME)  # keys of an entry that say something here


class Cases(list[dict[str, Any]]):
    """A data list, with what the data set says beside.

    Attributes:
        leftovers: what is not used.
        validation: names of the cases that it keeps for validation itself.
        folds: the fold of each case that has one, by its name.
        class_names: what it calls each value of its labels, by the value.
        channel_names: what it calls the channels of an image, in their order; empty without names.
        source: file that lists it; "" where folders do.
    """

    def __init__(self, items: list[dict[str, Any]], leftovers: Leftovers) -> None:
        super().__init__(items)
        self.leftovers = leftovers
        self.validation: set[str] = set()
        self.folds: dict[str, int] = {}
        self.class_names: dict[int, str] = {}
        self.channel_names: list[str] = []
        self.source = ""


class _Entry(NamedTuple):
    """What a list says of a case: the key of the list, paths, fold, and a name of its own."""

    key: str
    paths: dict[str, Any]
    fold: int | None = None
    name: str | None = None


def listed_cases(dataset_json: Path, require_labels: bool) -> Cases:
    """Read a `dataset.json`: its labeled pairs, or all of its images.

    Args:
        dataset_json: the file. Paths in it are relative to its folder.
        require_labels: whether every image needs a label. The pairs are those of the training and
            the validation list then; else images of every list are taken.

    Raises:
        FileNotFoundError: if it lists nothing, or a file that is not there.
        ValueError: if it cannot be used.
    """
    leftovers = Leftovers()
    entries: dict[str, _Entry] = {}
    try:
        lists = _lists(_content(dataset_json), dataset_json)
        for entry in _entries(lists, dataset_json, require_labels, leftovers):
            (image,) = image_place(entry.paths["image"])
            other = entries.setdefault(os.path.abspath(image), entry)
            if other is not entry and require_labels:
                raise InputError(
                    f"{dataset_json} lists {image} under {other.key} and under {entry.key}: "
                    "expected it once"
                )
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{dataset_json}: {type(error).__name__} {error}; {EXPECTED}") from error
    if not entries:
        told = f"; {leftovers}" if leftovers else ""
        raise MissingFileError(
            f"{dataset_json} lists no images: expected some under 'training'{told}"
        )
    items = [entry.paths for entry in entries.values()]
    missing = [path for path in _files(items) if not os.path.isfile(path)]
    if missing:
        raise MissingFileError(
            f"{len(missing)} of the files that {dataset_json} lists or asks for do not exist: "
            f"{some(missing)}: expected paths from {dataset_json.parent} on, and a label of each "
            "training image; fetch these files, or correct the list"
        )
    _add_unlisted(items, lists, dataset_json.parent, leftovers)
    given: dict[tuple[str, ...], str] = {}
    for entry in entries.values():
        if entry.name:
            given[image_place(entry.paths["image"])] = entry.name
    names = name_cases([item["image"] for item in items], dataset_json.parent, given)
    named = dict(sorted(zip(names, entries.values(), strict=True)))
    cases = Cases([entry.paths for entry in named.values()], leftovers)
    cases.validation = {name for name, entry in named.items() if entry.key in VALIDATION}
    cases.folds = {name: entry.fold for name, entry in named.items() if entry.fold is not None}
    add_names(cases, dataset_json, require_labels)
    cases.channel_names = cases.channel_names or names_of_files(item["image"] for item in items)
    return cases


def add_names(cases: Cases, dataset_json: Path, require_labels: bool) -> None:
    """Add to cases what a `dataset.json` calls the values of labels and the channels of images.

    Args:
        cases: that it lists, or those of the folders beside it.
        dataset_json: the file.
        require_labels: whether labels are used, whose background has to be 0.

    Raises:
        ValueError: if another value is called the background.
    """
    cases.class_names = class_names(dataset_json)
    cases.channel_names = channel_names(dataset_json)
    cases.source = str(dataset_json)
    if require_labels:
        _check_class_names(dataset_json, cases.class_names)


def class_names(dataset_json: PathLike) -> dict[int, str]:
    """Names of the label values: Decathlon's by value, nnU-Net's by name; empty without any.

    The value that nnU-Net ignores is none of a class.
    """
    named = _labels(dataset_json)
    try:
        by_value = all(str(name).isdecimal() for name in named)
        if not by_value and all(str(value).isdecimal() for value in named.values()):
            named = {value: name for name, value in named.items()}
        names = {int(value): " ".join(str(name).split()) for value, name in named.items()}
        return {value: name for value, name in names.items() if name != IGNORED}
    except (ValueError, TypeError, AttributeError):  # of another form
        return {}


def _labels(dataset_json: PathLike) -> Any:
    """What a `dataset.json` says of label values; nothing where it cannot be read."""
    try:
        return json.loads(Path(dataset_json).read_text(encoding="utf-8-sig")).get("labels", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _check_class_names(file: Path, names: Mapping[int, str]) -> None:
    """Check that 0 is the background by the names of the label values, and say if they are unread.

    Raises:
        ValueError: if another value is called so.
    """
    said = _labels(file)
    if said and not names:
        tell_once(
            f"{file} has under 'labels' {str(said)[:80]}, of which no value is the name of one "
            "class, as regions are not: used without names"
        )
    for value, name in names.items():
        if value and _plain(name) == BACKGROUND != _plain(names.get(0, "")):
            raise InputError(
                f"{file} calls label value {value} {name}: expected 0 for the background; write "
                "the labels so, or correct 'labels' there"
            )


def channel_names(dataset_json: PathLike) -> list[str]:
    """Names of an image's channels: nnU-Net's ``channel_names``, the Decathlon's ``modality``.

    Returns:
        The names in their order; none where the file has none, or of another form.
    """
    try:
        content = json.loads(Path(dataset_json).read_text(encoding="utf-8-sig"))
        named = content.get("channel_names") or content["modality"]
        return [" ".join(str(named[str(number)]).split()) for number in range(len(named))]
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        return []


def _files(items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every file of some items."""
    for item in items:
        for files in item.values():
            yield from ensure_tuple(files)


def compare_class_names(cases: Cases, expected: Mapping[int, str]) -> None:
    """Compare what a data set calls its label values with a bundle's classes.

    Capitals, spaces and signs make no difference. Names of which neither knows the other's are said
    in one line: they may be another language's, or abbreviations.

    Args:
        cases: of the data set.
        expected: of the bundle's classes, by index.

    Raises:
        ValueError: if the name of one class stands at the value of another.
    """
    given = cases.class_names
    said = {value: _plain(name) for value, name in given.items()}
    known = {index: _plain(name) for index, name in expected.items()}
    others = []
    for value in sorted(said.keys() & known.keys()):
        if said[value] == known[value] or not value:
            continue
        if said[value] in known.values() or known[value] in said.values():
            raise InputError(
                f"{cases.source} calls label value {value} {given[value]}, and the bundle's class "
                f"{value} is {expected[value]}: expected the same order of classes; write the "
                "labels with the bundle's values, or correct 'labels' there"
            )
        others.append(f"{value} is {given[value]} there and {expected[value]} here")
    if others:
        tell_once(f"{cases.source} has other names of classes: {', '.join(others)}")


def compare_channel_names(cases: Cases, expected: Sequence[str]) -> None:
    """Compare what a data set, or its files' names, call an image's channels with a bundle's.

    Capitals, spaces and signs make no difference. Names that the bundle does not know say nothing.

    Args:
        cases: of the data set.
        expected: names of the bundle's channels, in their order.

    Raises:
        ValueError: if the name of one channel stands at the place of another.
    """
    given = cases.channel_names or names_of_files(case["image"] for case in cases)
    known = [_plain(name) for name in expected]
    for name, own in zip(map(_plain, given), known, strict=False):
        if name != own and name in known:
            place = cases.source or ", ".join(ensure_tuple(cases[0]["image"]))
            raise InputError(
                f"{place} has the channels {', '.join(given)}, and the bundle takes "
                f"{', '.join(expected)}: expected that order; list or number the files so, or "
                "correct the names"
            )


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def _content(file: Path) -> dict[str, Any]:
    """What the file holds.

    Raises:
        ValueError: if it is no JSON, or no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is no JSON in UTF-8 ({error}): {EXPECTED}; correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds {str(content)[:40]!r}: {EXPECTED}; correct it")
    return content


def _lists(content: Mapping[str, Any], file: Path) -> dict[str, list[Any]]:
    """Every list of the file, by its name; of nnU-Net's, by what its folders hold.

    Raises:
        ValueError: if what should list cases is no list, or nnU-Net's folders hold fewer cases than
            it says.
    """
    named = {key.lower(): key for key in content}
    is_listed = any(key in named for key in (*TRAINING, *TEST))
    is_nnunet = not is_listed and any(key in named for key in NNUNET)
    lists = _nnunet_lists(file.parent, content) if is_nnunet else {}
    for key, listed in content.items():
        if isinstance(listed, list):
            lists.setdefault(key, listed)
        elif listed and key.lower() in (*LABELED, *TEST):
            raise InputError(
                f"{file} has under {key} no list, but {str(listed)[:40]!r}: expected a list of "
                "cases; write them as under 'training'"
            )
    _compare_number(content.get("numTraining"), lists, file, is_nnunet)
    return lists


def _compare_number(
    said: Any, lists: Mapping[str, Sequence[Any]], file: Path, is_nnunet: bool
) -> None:
    """Say that there are more or fewer training cases than the file says.

    Raises:
        ValueError: where they are counted in nnU-Net's folders, which then are not whole.
    """
    found = sum(len(listed) for key, listed in lists.items() if key.lower() in TRAINING)
    if type(said) is not int or said == found:
        return
    if is_nnunet and found:
        raise InputError(
            f"{file} has numTraining {said}, and there are {found} cases: expected as many; fetch "
            "what is missing, or correct numTraining"
        )
    tell_once(f"{file} has numTraining {said}, but lists {found} cases for training: used these")


def _entries(
    lists: Mapping[str, list[Any]], file: Path, require_labels: bool, leftovers: Leftovers
) -> Iterator[_Entry]:
    """Every entry that is used."""
    wanted = TRAINING if require_labels else (*LABELED, *TEST)
    if not any(key.lower() in wanted for key in lists):
        raise InputError(f"{file} has no list 'training'; {EXPECTED}")
    unread: set[str] = set()
    for key, listed in lists.items():
        kind = key.lower()
        reason = ""
        if kind not in (*LABELED, *TEST):
            listed = [entry for entry in listed if _is_case(entry)]
            reason = f"under {key}, which is neither training, validation nor test"
        elif require_labels and kind in TEST:
            reason = f"under {key}, which is neither trained nor scored on"
        for number, entry in enumerate(listed, 1):
            entry = {"image": entry} if isinstance(entry, str) else entry
            if not isinstance(entry, dict):
                raise InputError(f"{file} has {entry!r} as number {number} of {key}: {EXPECTED}")
            unlabeled = require_labels and kind in VALIDATION and not entry.get("label")
            if reason or unlabeled:
                image = str(entry.get("image"))
                leftovers.add(reason or f"under {key}, without a label", image)
            else:
                unread |= entry.keys() - READ
                place = f"{file}, number {number} of {key},"
                yield _Entry(kind, *_read(entry, place, file.parent, require_labels))
    leftovers.add("what cases have beside image, label and fold", *sorted(unread))


def _add_unlisted(
    items: Sequence[Mapping[str, Any]],
    lists: Mapping[str, list[Any]],
    root: Path,
    leftovers: Leftovers,
) -> None:
    """Note the images beside listed ones that no list has."""
    listed = set(map(os.path.abspath, _files(items)))
    for entries in lists.values():
        for entry in entries:
            entry = {"image": entry} if isinstance(entry, str) else entry
            for part in PARTS if isinstance(entry, dict) else ():
                paths = entry.get(part) or []
                for path in [paths] if isinstance(paths, str) else paths:
                    listed.add(os.path.abspath(_path_of(str(path), root)))
    for folder in sorted({os.path.dirname(path) for path in _files(items)}):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if os.path.abspath(path) in listed or is_hidden(name):
                continue
            if name.lower().endswith(EXTENSIONS):
                leftovers.add("beside listed images, but not listed", path)


def _path_of(text: str, root: Path) -> str:
    """The path that a list gives, which a program on Windows may have written."""
    path = os.path.normpath(root / text)
    if "\\" in text and not os.path.exists(path):
        return os.path.normpath(root / text.replace("\\", "/"))
    return path


def _is_case(entry: Any) -> bool:
    """Whether an entry of a list of whatever name has an image."""
    image = entry.get("image") if isinstance(entry, dict) else None
    return isinstance(image, list) or str(image).lower().endswith(EXTENSIONS)


def _read(
    entry: Mapping[str, Any], place: str, root: Path, require_labels: bool
) -> tuple[dict[str, Any], int | None, str | None]:
    """Paths, fold and name that a list gives a case.

    Args:
        entry: of the list.
        place: of the entry, for messages.
        root: folder that paths are relative to.
        require_labels: whether a label has to be there.

    Raises:
        ValueError: for a part without a path, a label of several files, or a fold that is none.
    """
    item: dict[str, Any] = {}
    for part in PARTS if require_labels else PARTS[:1]:
        paths = entry.get(part)
        if isinstance(paths, list) and len(paths) == 1:
            paths = paths[0]
        if isinstance(paths, list) and paths:
            item[part] = _channels(paths, part, place, root)
            continue
        if not paths or not isinstance(paths, str):
            raise InputError(f"{place} has {paths!r} as {part}: {EXPECTED}; correct it")
        item[part] = _path_of(paths, root)
    fold = entry.get("fold")
    if fold is not None and (type(fold) is not int or fold < 0):
        raise InputError(f"{place} has the fold {fold!r}: expected whole numbers from 0 on")
    return item, fold, entry.get(NAME)


def _channels(paths: Sequence[Any], part: str, place: str, root: Path) -> list[str]:
    """The files of several channels.

    Raises:
        ValueError: if they are of a label, or no volumes.
    """
    texts = [str(path) for path in paths]
    if part != "image":
        raise InputError(
            f"{place} has {len(paths)} files for one {part}, {some(texts)}: expected one, with a "
            "class in each voxel; list the one that is wanted"
        )
    if not all(map(is_volume, texts)):
        raise InputError(
            f"{place} has {len(paths)} files for one image, {some(texts)}: expected volumes, a "
            "file for each channel; a picture is one file"
        )
    return [_path_of(text, root) for text in texts]


def _nnunet_lists(root: Path, content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of a data set of nnU-Net, whose folders say what is in it.

    An image is ``imagesTr/NAME_0000.nii.gz``, its further channels ``NAME_0001``..., its label
    ``labelsTr/NAME.nii.gz``.
    """
    ending = str(content.get("file_ending", ".nii.gz"))
    channels = len(content.get("channel_names") or content.get("modality") or ())
    lists: dict[str, list[Any]] = {"training": [], "test": []}
    for key, images, labels in (("training", "imagesTr", "labelsTr"), ("test", "imagesTs", "")):
        found: dict[str, dict[int, str]] = {}
        for path in sorted((root / images).glob(f"[!.]*{glob.escape(ending)}")):
            numbered = CHANNEL.fullmatch(path.name[: -len(ending)])
            if numbered is not None:
                found.setdefault(numbered[1], {})[int(numbered[2])] = f"{images}/{path.name}"
        for name, files in found.items():
            if is_volume(ending):  # a picture in colors is one file of three channels
                require_all(name, files, channels or max(files) + 1)
            in_order = [files[number] for number in sorted(files)]
            entry: dict[str, Any] = {NAME: name, "image": in_order}
            if labels:
                entry["label"] = f"{labels}/{name}{ending}"
            lists[key].append(entry)
    return lists
