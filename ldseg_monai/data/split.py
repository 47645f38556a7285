"""Which cases train and which validate."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import ensure_tuple

from ldseg_monai.data.formats import voxel_files
from ldseg_monai.data.leftovers import some, tell
from ldseg_monai.data.listed_cases import Cases, compare_class_names
from ldseg_monai.data.names import PathLike, case_name, image_place, plain_name
from ldseg_monai.data.trained_cases import TrainedCases, cases_file, digest
from ldseg_monai.runtime.errors import InputError, MissingFileError, counted

WHOLE_NUMBER = re.compile(r"0*(\d+)(?:\.0+)?")
SAMPLE = 4096  # bytes of an image's file by which two are found that may be the same


class Split:
    """Parts of a datalist to train and to validate on, whatever the datalist's order.

    The validation part is named, or one of several folds, or the data set's own, or drawn, in this
    order of precedence; one line of the log says which. Cases of one group, such as the pictures of
    one patient, are never in both parts.

    Args:
        datalist: makes the items, each with an "image", when a part is first asked for. So a client
            with cases of its own, such as MONAI Label, which makes every component of a config,
            neither reads a data set nor writes phantoms.
        val_cases: names of the validation cases (see `case_name`), with commas between them, or a
            text file with one a line; None to draw them.
        val_fraction: share of the cases drawn for validation, at least one case.
        seed: seed of the draw.
        fold: number of the fold that validates, from 0; None for a draw. The folds are the data
            set's own if it has any. Else each group goes to the fold that is the smallest so far,
            large groups first: cases without groups are dealt out in the order of their names.
        num_folds: number of folds.
        groups: group of each case by its name, or what reads it, as `read_groups` does, when the
            cases are split. A case's name may have its folder and ending there.
        weights: file of the weights that are scored, or files of an ensemble's; None in a training.
            Where neither `val_cases` nor `fold` says, those cases validate that none of them was
            trained on, by what is beside them (`TrainedCases`). Where nothing is, none are drawn:
            that is an error.
        class_names: of the bundle's classes by their index, with which the names that a data set
            gives its label values are compared; None to compare nothing.
        test_cases: names of cases that neither train nor validate, as ``val_cases`` has them; None
            for none. The rest is split as if it were all.
    """

    def __init__(
        self,
        datalist: Callable[[], Sequence[dict[str, str]]],
        val_cases: Sequence[str] | PathLike | None = None,
        val_fraction: float = 0.25,
        seed: int = 0,
        fold: int | None = None,
        num_folds: int = 5,
        groups: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        weights: PathLike | Sequence[PathLike] | None = None,
        class_names: Mapping[int, str] | None = None,
        test_cases: Sequence[str] | PathLike | None = None,
    ) -> None:
        self.test_cases = test_cases
        self.read = datalist
        self.val_cases = val_cases
        self.val_fraction = val_fraction
        self.seed = seed
        self.fold = fold
        self.num_folds = num_folds
        self.groups = groups
        self.weights = [os.fspath(path) for path in ensure_tuple(weights or ())]
        self.class_names = class_names

    @cached_property
    def datalist(self) -> Sequence[dict[str, str]]:
        """The items, read once.

        Raises:
            ValueError: if the data set gives a label value the name of another class.
        """
        items = self.read()
        if isinstance(items, Cases):
            compare_class_names(items, self.class_names or {})
        return items

    @cached_property
    def validation(self) -> set[str]:
        """Names of the cases that validate, chosen once.

        Raises:
            ValueError: as of `part`.
        """
        names = sorted(set(self._items) - self.test)
        known = self.known_groups
        groups = {name: known[name] for name in names if name in known}
        if self._trained is not None:
            chosen, how = self._not_trained_on(names, groups, self._trained)
            tell(f"split: {len(chosen)} of {len(names)} cases validate ({how})")
            return chosen
        if len(names) < 2:
            raise InputError(
                f"{len(names)} case: expected at least 2, one to train on and one to validate on; "
                "add cases"
            )
        chosen, how = self._choose(names, groups)
        _require_whole_groups(chosen, names, groups, how)
        _require_different_images(self._items, chosen)
        train = len(names) - len(chosen)
        together = f"; {_told(groups, names)}" if groups else ""
        held = f"; {len(self.test)} test, named by test_cases" if self.test else ""
        tell(
            f"split: {counted(train, 'case')} train{'s' * (train == 1)}, {len(chosen)} "
            f"validate{'s' * (len(chosen) == 1)} ({how}){together}{held}"
        )
        return chosen

    @cached_property
    def test(self) -> set[str]:
        """Names of the cases that are held back, none of whose patient trains or validates.

        Raises:
            ValueError: as of `part`.
        """
        if self.test_cases is None:
            return set()
        names = sorted(self._items)
        chosen = _named_cases(names, self.test_cases, "test_cases", "test")
        _require_whole_groups(chosen, names, self.known_groups, "named by test_cases", "test")
        _require_different_images(self._items, chosen, "test_cases")
        return chosen

    @cached_property
    def _trained(self) -> TrainedCases | None:
        """What weights were trained on whose validation cases nothing else names, if it is known.

        Raises:
            ValueError: as of `TrainedCases.read`.
        """
        if not self.weights or self.val_cases is not None or self.fold is not None:
            return None
        return TrainedCases.read(self.weights)

    def _not_trained_on(
        self, names: Sequence[str], groups: Mapping[str, str], trained: TrainedCases
    ) -> tuple[set[str], str]:
        """The cases that weights were not trained on, and what is known of them.

        Raises:
            ValueError: if there is none.
        """
        chosen = {name for name in names if not trained.has(self._items[name]["image"])}
        listed = " or ".join(dict.fromkeys(cases_file(path).name for path in self.weights))
        if not chosen:
            all_cases = f"all of these {len(names)} cases, such as {names[0]}"
            told = f"{self.weights[0]} was trained on {all_cases} ({listed} beside it)"
            if len(self.weights) > 1:
                told = f"of {all_cases}, one of {', '.join(self.weights)} was trained on each"
            raise InputError(
                f"{told}: expected some that it was not trained on; take others, or score these "
                "with --part all, which marks them"
            )
        how = f"those that the weights were not trained on, by {listed} beside them"
        others = {groups[name] for name in names if name in groups and name not in chosen}
        parted = [name for name in chosen if groups.get(name) in others]
        if parted:
            how += f"; {len(parted)} of them are of patients that they were trained on"
        if trained.note:
            how += f"; {trained.note}"
        return chosen, how

    @cached_property
    def known_groups(self) -> dict[str, str]:
        """The group of each case of which one is known.

        Raises:
            ValueError, FileNotFoundError: as of `match_groups` and of what reads them.
        """
        read = self.groups() if callable(self.groups) else self.groups
        return match_groups(read, sorted(self._items)) if read else {}

    def part(self, name: str) -> list[dict[str, str]]:
        """Take one part.

        Args:
            name: "train", "val" or "test"; "all" for every case, however they are split.

        Returns:
            The part's items, sorted by case name.

        Raises:
            ValueError: unknown part or case, fewer than 2 cases, a part left empty, groups of other
                cases or of some cases alone, or a choice that would part a group.
        """
        if name not in ("train", "val", "test", "all"):
            raise InputError(f"split {name!r}: expected 'train', 'val', 'test' or 'all'")
        if name == "test" and not self.test:
            raise InputError(
                "part is 'test', and test_cases names none: expected --test_cases FILE, the names "
                "of the cases that were held back"
            )
        names = set(self._items)
        if name == "test":
            names = self.test
        elif name != "all":
            names -= self.test
            names = self.validation if name == "val" else names - self.validation
        return [self._items[case] for case in sorted(names)]

    @cached_property
    def _items(self) -> dict[str, dict[str, str]]:
        """The items by the names of their cases."""
        items = {case_name(item["image"]): item for item in self.datalist}
        if len(items) != len(self.datalist):
            raise InputError(
                f"{len(self.datalist)} items but {len(items)} case names: expected one name for "
                "each; rename files"
            )
        return items

    def _choose(self, names: list[str], groups: Mapping[str, str]) -> tuple[set[str], str]:
        """The validation cases, and how they were chosen."""
        own: set[str] = getattr(self.datalist, "validation", set()) - self.test
        folds: dict[str, int] = getattr(self.datalist, "folds", {})
        unused = ""
        if own and (self.val_cases is not None or self.fold is not None):
            unused = f", and not the {len(own)} of the data set's own validation list"
        if self.val_cases is not None:
            chosen = _named_cases(names, self.val_cases, held=self.test)
            return chosen, f"named by val_cases{unused}"
        if folds and (self.fold is not None or not own):
            return _own_fold(names, folds, self.fold or 0), (
                f"fold {self.fold or 0}, as the data set has it; --fold N takes another{unused}"
            )
        grouped = _grouped(names, groups)
        if self.fold is not None:
            chosen = _fold_of_cases(grouped, self.fold, self.num_folds)
            return chosen, f"fold {self.fold} of {self.num_folds}{unused}"
        if own:
            if len(own) == len(names):
                raise InputError(
                    f"the data set lists all {len(names)} cases for validation: expected one to "
                    "train on"
                )
            return set(own), "the data set's own validation list"
        for path in self.weights:
            if not cases_file(path).is_file():
                raise InputError(
                    f"which cases {path} was trained on is not known, since there is no "
                    f"{cases_file(path).name} beside it: expected the cases to score; name them "
                    "with --val_cases or --fold, or take all with --part all"
                )
        chosen = _draw_cases(grouped, self.val_fraction, self.seed)
        return chosen, f"drawn with seed {self.seed}"


def read_groups(path: PathLike, case_column: str, group_column: str) -> dict[str, str]:
    """Read which cases belong together, such as one patient's, from a table with a head line.

    Columns are parted by commas, semicolons or tabs.

    Args:
        path: the file; "" where every case is a group of its own.
        case_column: name of the column with the case names.
        group_column: name of the column with what they share; blank where nothing is known of it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it lacks a column, has two groups for one case, or none at all.
    """
    if not path:
        return {}
    if not os.path.isfile(path):
        raise MissingFileError(
            f"there is no {os.fspath(path)}, the table of the cases' patients, without which one "
            "patient may be trained and validated on: expected that file; give another with "
            "--patients FILE, or --patients '' if each case is a patient's only one"
        )
    columns, rows = read_table(path)
    missing = {case_column, group_column} - set(columns)
    if missing:
        raise InputError(f"{path} has columns {columns}: expected {some(missing)} among them")
    for column in (case_column, group_column):
        if columns.count(column) > 1:
            raise InputError(
                f"{path} has {columns.count(column)} columns called {column}: expected one; rename "
                "or remove the others"
            )
    groups: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for row in rows:
        case, group = row[case_column], row[group_column]
        group = spelled.setdefault(_as_read(group), group)
        if case and groups.setdefault(case, group) != group:
            raise InputError(
                f"{path} has {case} with {groups[case]!r} and with {group!r}: expected one patient "
                "for each case"
            )
    if not any(groups.values()):
        raise InputError(
            f"{path} has nothing under {group_column!r}: expected the patient of each case; fill "
            "it, or, where each is a patient's only one, remove the column or pass --patients ''"
        )
    return groups


def _as_read(group: str) -> str:
    """What programs that write a patient's name in several ways mean: 7, 7.0 and 007; A and a."""
    number = WHOLE_NUMBER.fullmatch(group)
    return number[1] if number else group.casefold()


def _read_text(path: PathLike) -> str:
    """The text in a file.

    Raises:
        ValueError: if it is none.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{os.fspath(path)} is no text in UTF-8 ({error}): save it in UTF-8"
        ) from error


def read_table(path: PathLike) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table with a head line, of columns parted by commas, semicolons or tabs.

    Returns:
        Names of the columns, and the cells of each row by them, without blanks around.

    Raises:
        ValueError: if it is no text.
    """
    text = _read_text(path)
    head, _, rest = text.partition("\n")
    if head.strip().strip('"').lower().startswith("sep="):  # as Excel begins a table
        text = rest
        head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True
    )
    columns = [column.strip() for column in reader.fieldnames or () if column]
    rows = []
    for row in reader:
        cells = {name.strip(): cell for name, cell in row.items() if name}
        rows.append({name: (cell or "").strip() for name, cell in cells.items()})
    return columns, rows


def match_groups(groups: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Give each case its group, by its name or by that of its file.

    Args:
        groups: group by what a table calls a case; "" where none is known.
        names: of all cases.

    Raises:
        ValueError: if it says nothing of some cases, or two things of one.
    """
    if not groups:
        return {}
    matched: dict[str, str] = {}
    known = set(names)
    for case, group in groups.items():
        case = unicodedata.normalize("NFC", case)
        name = case if case in known else plain_name(case.replace("\\", "/"))
        if matched.setdefault(name, group) != group:
            raise InputError(
                f"the table of patients has {matched[name]!r} and {group!r} for {name}: expected "
                "one patient for each case"
            )
    missing = [name for name in names if name not in matched]
    if len(missing) == len(names):
        raise InputError(f"groups are of {some(groups)}: expected case names such as {some(names)}")
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} cases have no patient in the table, {some(missing)}, "
            "so that a patient may be in both parts: expected every case; add them, with a blank "
            "patient if it is not known"
        )
    return {name: matched[name] for name in names if matched[name]}


def _told(groups: Mapping[str, str], names: Sequence[str]) -> str:
    """What is known of the patients of some cases."""
    number = len(set(groups.values()))
    text = f"{counted(number, 'patient')} {'is' if number == 1 else 'are'} kept together"
    unknown = len(names) - len(groups)
    return f"{text}, of {counted(unknown, 'case')} none is known" if unknown else text


def _require_whole_groups(
    chosen: set[str],
    names: Sequence[str],
    groups: Mapping[str, str],
    how: str,
    part: str = "validation",
) -> None:
    """Check that no group is in a part and outside of it.

    Raises:
        ValueError: naming one that is.
    """
    for group in sorted({groups[name] for name in chosen if name in groups}):
        members = {name for name in names if groups.get(name) == group}
        left = members - chosen
        if left:
            does, others = ("validate", "train")
            if part == "test":
                does, others = ("test", "not")
            raise InputError(
                f"the {part} part ({how}) parts patient {group}: {some(members - left)} would "
                f"{does} and {some(left)} {others}; expected whole patients; name all of them or "
                "none (or part them knowingly, with --patients '')"
            )


def require_different_images(
    training: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]
) -> None:
    """Check that no image is in both parts that a client gives: the rule of `Split`.

    Raises:
        ValueError: naming one that is.
    """
    items: dict[str, Mapping[str, Any]] = {}
    chosen: set[str] = set()
    for part, cases in (("train", training), ("validate", validation)):
        for number, case in enumerate(cases):
            name = f"{part} {number}"
            items[name] = case
            if cases is validation:
                chosen.add(name)
    _require_different_images(items, chosen)


def _require_different_images(
    items: Mapping[str, Mapping[str, Any]], chosen: set[str], knob: str = "val_cases"
) -> None:
    """Check that no image is in both parts, under another name, nor images of one label.

    Raises:
        ValueError: naming one that is.
    """
    apart = "train and the other validate" if knob == "val_cases" else "test and the other not"
    first_of: dict[str, str] = {}
    for name, item in items.items():
        if not os.path.isfile(item.get("label", "")):
            continue
        other = first_of.setdefault(os.path.realpath(item["label"]), name)
        if (other in chosen) != (name in chosen):
            raise InputError(
                f"{items[other]['image']} and {item['image']} have one label, {item['label']}, and "
                f"one would {apart}: expected cases of one patient in one part; give each its own "
                f"label, or put both into one part by {knob}"
            )
    by_sample: dict[tuple[int, bytes], list[str]] = {}
    for name, item in items.items():
        path = voxel_files(image_place(item["image"])[0])[0]  # of several the first
        if os.access(path, os.R_OK) and os.path.isfile(path):
            by_sample.setdefault(_sample(path), []).append(name)
    by_sample.pop((0, b""), None)  # empty files, which are told when they are read
    for alike in by_sample.values():
        if len(chosen.intersection(alike)) in (0, len(alike)):
            continue
        first: dict[str, str] = {}
        for name in alike:
            other = first.setdefault(digest(items[name]["image"]), name)
            if (other in chosen) != (name in chosen):
                raise InputError(
                    f"{items[other]['image']} and {items[name]['image']} are the same image, and "
                    f"one would {apart}: expected different ones; remove one, or put both into one "
                    f"part by {knob}"
                )


def _sample(path: PathLike) -> tuple[int, bytes]:
    """Size of a file and what is in its middle: files that differ seldom agree in both.

    So that no data set is read as a whole, whose files have one size.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(size // 2)
        return size, file.read(SAMPLE)


def _grouped(names: list[str], groups: Mapping[str, str]) -> list[list[str]]:
    """The case names of each group, groups in the order of their first name."""
    members: dict[tuple[bool, str], list[str]] = {}
    for name in names:
        members.setdefault((name in groups, groups.get(name, name)), []).append(name)
    return list(members.values())


def _draw_cases(groups: list[list[str]], fraction: float, seed: int) -> set[str]:
    """Whole groups in random order that fit into the fraction; the smallest if none does."""
    if not 0.0 < fraction < 1.0:
        raise InputError(
            f"val_fraction {fraction}: expected a number between 0 and 1, such as 0.25"
        )
    _require_two(groups)
    count = sum(map(len, groups))
    wanted = min(max(1, round(fraction * count)), count - 1)
    chosen: set[str] = set()
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if len(chosen) + len(groups[index]) <= wanted:
            chosen.update(groups[index])
    smallest: list[str] = min(groups, key=len)
    return chosen or set(smallest)


def _fold_of_cases(groups: list[list[str]], fold: int, num_folds: int) -> set[str]:
    _require_two(groups)
    if not 2 <= num_folds <= len(groups):
        raise InputError(
            f"num_folds {num_folds}: expected 2 to {len(groups)}, the number of cases (or patients)"
        )
    if not 0 <= fold < num_folds:
        raise InputError(
            f"fold {fold}: expected 0 to {num_folds - 1}, or null to draw the validation cases"
        )
    folds: list[set[str]] = [set() for _ in range(num_folds)]
    for group in sorted(groups, key=len, reverse=True):
        min(folds, key=len).update(group)
    return folds[fold]


def _require_two(groups: list[list[str]]) -> None:
    if len(groups) < 2:
        raise InputError(
            f"all {len(groups[0])} cases are of one group: expected at least 2, one to train on "
            "and one to validate on"
        )


def _own_fold(names: list[str], folds: Mapping[str, int], fold: int) -> set[str]:
    """The cases of a fold of the data set's own; those without one always train."""
    if fold not in folds.values():
        raise InputError(
            f"fold {fold}: expected one of those that the data set has, "
            f"{', '.join(map(str, sorted(set(folds.values()))))}"
        )
    chosen = {name for name in names if folds.get(name) == fold}
    if len(chosen) == len(names):
        raise InputError(f"all {len(names)} cases are of fold {fold}: expected one to train on")
    if not chosen:
        raise InputError(f"test_cases names all of fold {fold}: expected one to validate on")
    return chosen


def _named_cases(
    names: list[str],
    named: Sequence[str] | PathLike,
    knob: str = "val_cases",
    does: str = "validate on",
    held: Set[str] = frozenset(),
) -> set[str]:
    """The cases that a knob names.

    Raises:
        ValueError: if there is no such case, it is held back, or none or all are named.
    """
    wanted = named
    if isinstance(wanted, (str, os.PathLike)):
        wanted = read_val_cases(wanted)
        if len(wanted) == 1 and wanted[0] not in names:
            wanted = [name.strip() for name in wanted[0].split(",") if name.strip()]
    chosen = {unicodedata.normalize("NFC", str(name)) for name in wanted}
    if chosen & held:
        raise InputError(
            f"{some(chosen & held)} is in {knob} and in test_cases: expected a case in one of them"
        )
    unknown = chosen - set(names)
    if unknown:
        raise InputError(
            f"{knob}: unknown {some(unknown)}; expected names such as {some(names)}, or a "
            "file of them"
        )
    if not 0 < len(chosen) < len(names):
        raise InputError(
            f"{knob} names {len(chosen)} of {len(names)} cases: expected at least one case to "
            f"{does} and one to train on; leave {knob} null"
            + (" to draw them" if knob == "val_cases" else " for none")
        )
    return chosen


def read_val_cases(path: PathLike) -> list[str]:
    """Names of validation cases in a text file, one a line; without a file, the text itself.

    Raises:
        ValueError: if the file is no text.
    """
    if not os.path.isfile(path):
        return [str(path)]
    lines = _read_text(path).splitlines()
    return [line.strip() for line in lines if line.strip()]
