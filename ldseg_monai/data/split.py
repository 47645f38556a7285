"""Which cases train and which validate."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ldseg_monai.data.datalist import PathLike, _some, case_name
from ldseg_monai.runtime.errors import InputError

logger = logging.getLogger("ldseg_monai.data")


class Split:
    """Parts of a datalist to train and to validate on, whatever the datalist's order.

    The validation part is named, or one of several folds, or drawn, in this order of precedence.
    Cases of one group, such as the pictures of one patient, fall into the same part (unless they
    are named).

    Args:
        datalist: makes the items, each with an "image", when a part is first asked for. So a client
            with cases of its own, such as MONAI Label, which makes every component of a config,
            neither reads a data set nor writes phantoms.
        val_cases: names of the validation cases (see `case_name`), or a text file with one a line;
            None to draw them.
        val_fraction: share of the cases drawn for validation, at least one case.
        seed: seed of the draw.
        fold: number of the fold that validates, from 0; None for a draw. Each group goes to the
            fold that is the smallest so far, large groups first: cases without groups are dealt out
            in the order of their names.
        num_folds: number of folds.
        groups: group of each case by its name, as of `read_groups`; a case that is not in it is a
            group of its own.
    """

    def __init__(
        self,
        datalist: Callable[[], Sequence[dict[str, str]]],
        val_cases: Sequence[str] | PathLike | None = None,
        val_fraction: float = 0.25,
        seed: int = 0,
        fold: int | None = None,
        num_folds: int = 5,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        self.read = datalist
        self.val_cases = val_cases
        self.val_fraction = val_fraction
        self.seed = seed
        self.fold = fold
        self.num_folds = num_folds
        self.groups = groups or {}

    @cached_property
    def datalist(self) -> Sequence[dict[str, str]]:
        """The items, read once."""
        return self.read()

    def part(self, name: str) -> list[dict[str, str]]:
        """Take one part.

        Args:
            name: "train" or "val"; "all" for every case, however they are split.

        Returns:
            The part's items, sorted by case name.

        Raises:
            ValueError: unknown part or case, fewer than 2 cases, a part left empty, or groups of
                other cases.
        """
        if name not in ("train", "val", "all"):
            raise InputError(f"split {name!r}: expected 'train', 'val' or 'all'")
        items = {case_name(item["image"]): item for item in self.datalist}
        if len(items) != len(self.datalist):
            raise InputError(
                f"{len(self.datalist)} items but {len(items)} case names: expected one name for "
                "each; rename files"
            )
        names = sorted(items)
        if name == "all":
            return [items[case] for case in names]
        chosen = self._validation_cases(names)
        return [items[case] for case in names if (case in chosen) == (name == "val")]

    def _validation_cases(self, names: list[str]) -> set[str]:
        if len(names) < 2:
            raise InputError(
                f"{len(names)} case: expected at least 2, one to train on and one to validate on; "
                "add cases"
            )
        if self.groups and not self.groups.keys() & set(names):
            raise InputError(
                f"groups are of {_some(self.groups)}: expected case names such as {_some(names)}"
            )
        if self.val_cases is not None:
            return _named_cases(names, self.val_cases)
        grouped = _grouped(names, self.groups)
        if self.fold is not None:
            return _fold_of_cases(grouped, self.fold, self.num_folds)
        return _draw_cases(grouped, self.val_fraction, self.seed)


def read_groups(path: PathLike, case_column: str, group_column: str) -> dict[str, str]:
    """Read which cases belong together, such as one patient's, from a CSV file with a head line.

    Args:
        path: the file; where there is none, every case is a group of its own, as is one whose group
            is blank.
        case_column: name of the column with the case names.
        group_column: name of the column with what they share.

    Raises:
        ValueError: if the file lacks a column.
    """
    if not os.path.isfile(path):
        if path:
            logger.warning(
                "there is no %s: every case is split on its own, whatever it shares with others",
                path,
            )
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        missing = {case_column, group_column} - set(reader.fieldnames or ())
        if missing:
            raise InputError(
                f"{path} has columns {reader.fieldnames}: expected {_some(missing)} among them"
            )
        return {row[case_column]: row[group_column] for row in reader if row[group_column]}


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


def _named_cases(names: list[str], val_cases: Sequence[str] | PathLike) -> set[str]:
    wanted = set(
        read_val_cases(val_cases) if isinstance(val_cases, (str, os.PathLike)) else val_cases
    )
    unknown = wanted - set(names)
    if unknown:
        raise InputError(
            f"val_cases: unknown {_some(unknown)}; expected names such as {_some(names)}, or a "
            "file of them"
        )
    if not 0 < len(wanted) < len(names):
        raise InputError(
            f"val_cases names {len(wanted)} of {len(names)} cases: expected at least one case to "
            "validate on and one "
            "to train on; leave val_cases null to draw them"
        )
    return wanted


def read_val_cases(path: PathLike) -> list[str]:
    """Names of validation cases in a text file, one a line; without a file, the text itself."""
    if not os.path.isfile(path):
        return [str(path)]
    lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]
