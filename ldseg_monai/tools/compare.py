"""Comparing two evaluations of the same cases: what differs, and whether chance would do it."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from ldseg_monai.data.leftovers import some
from ldseg_monai.data.split import match_groups, read_groups, read_table
from ldseg_monai.evaluation.paired import Comparison, compare
from ldseg_monai.evaluation.scores import SEEN
from ldseg_monai.runtime.errors import InputError, MissingFileError, counted

METRICS = "metrics.csv"
COMPARED = {"dice": "Dice", "iou": "IoU", "hd95": "HD95"}  # scores of `metrics.csv`
LARGEST = {"dice": 1, "iou": 1, "hd95": math.inf}
TRUE = "true_voxels"  # how many the label has of a class
MEAN = "mean of classes"
CASE_COLUMNS, GROUP_COLUMNS = ("case", "name"), ("group", "patient", "patient id")
FEW = 6  # pairs: of 5, the least p of Wilcoxon's test is 0.06
NONE = "-"
HEAD = ("class", "score", "A", "B", "B - A", "95% interval", "p (t)", "p (Wilcoxon)", "n")
LEFT = 2  # columns of text, before those of numbers
ABOUT = (
    "A, B: means. B - A: mean difference, with its 95% bootstrap interval. p: of the paired t-test",
    "and of Wilcoxon's signed-rank test, two-sided. n: pairs of which both have the score.",
)


class Scores(NamedTuple):
    """One evaluation.

    Attributes:
        path: of its ``metrics.csv``.
        rows: by class and case, as the file has them.
    """

    path: Path
    rows: dict[str, dict[str, dict[str, str]]]

    @property
    def cases(self) -> set[str]:
        """Names of the cases."""
        return {case for rows in self.rows.values() for case in rows}

    def values(self, name: str, score: str, cases: Iterable[str]) -> dict[str, float]:
        """A class's score of each case; NaN for none.

        Raises:
            ValueError: for one that is no number, or none that the score can have.
        """
        found = {}
        for case in cases:
            text = self.rows[name].get(case, {}).get(score, "nan")  # None in a row cut short
            most = LARGEST[score]
            try:
                found[case] = float(text)
                is_wrong = found[case] < 0 or found[case] > most
            except (TypeError, ValueError):
                is_wrong = True
            if is_wrong:
                told = "0 or more" if most == math.inf else f"from 0 to {most}"
                raise InputError(
                    f"{self.path} has the {score} {text!r} for {name} of {case}: expected a "
                    f"number, {told}; run the evaluation again"
                )
        return found


def read_scores(place: str | os.PathLike[str]) -> Scores:
    """Read the ``metrics.csv`` of an evaluation.

    Args:
        place: the file, or the folder that holds it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no such table, or has two rows for a class of a case.
    """
    path = Path(place, METRICS) if os.path.isdir(place) else Path(place)
    if not path.is_file():
        raise MissingFileError(
            f"{path} does not exist: expected the {METRICS} of an evaluation, or its folder; run "
            "`ldseg evaluate` first"
        )
    by_class: dict[str, dict[str, dict[str, str]]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, rows = list(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table ({error}): expected a {METRICS}") from error
    missing = [name for name in ("case", "class", *COMPARED) if name not in columns]
    if missing:
        raise InputError(
            f"{path} has the columns {', '.join(columns) or 'none'}: expected "
            f"{', '.join(missing)} among them, as in the {METRICS} of an evaluation"
        )
    for row in rows:
        name = row.get("name") or f"class {row['class']}"
        if by_class.setdefault(name, {}).setdefault(row["case"], row) is not row:
            raise InputError(
                f"{path} has two rows for {name} of {row['case']}: expected one; compare the "
                "evaluation of one network with that of another"
            )
    return Scores(path, by_class)


def read_case_groups(path: str | os.PathLike[str], cases: Iterable[str]) -> dict[str, str]:
    """Read which cases are of one patient, from a table such as the bundles' ``patients``.

    Args:
        path: a table with a column ``case`` or ``name``, and one ``group``, ``patient`` or
            ``patient ID``.
        cases: that it has to name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it lacks a column or a case, or has two groups for one.
    """
    if not os.path.isfile(path):
        raise MissingFileError(
            f"--groups {os.fspath(path)} does not exist: expected a table with the columns case "
            "and group"
        )
    columns, _ = read_table(path)
    chosen = []
    for accepted in (CASE_COLUMNS, GROUP_COLUMNS):
        fitting = [name for name in columns if name.casefold() in accepted]
        if not fitting:
            raise InputError(
                f"{os.fspath(path)} has the columns {', '.join(columns)}: expected one called "
                f"{' or '.join(accepted)}; rename it"
            )
        chosen.append(fitting[0])
    return match_groups(read_groups(path, *chosen), sorted(cases))


def compare_evaluations(
    place_a: str | os.PathLike[str],
    place_b: str | os.PathLike[str],
    groups: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two evaluations, case by case and class by class.

    Args:
        place_a: ``metrics.csv`` of the first, A, or its folder.
        place_b: of the second, B.
        groups: table of the cases' patients, whose cases are pooled first: see `read_case_groups`.
        seed: of the bootstrap.

    Returns:
        What ``ldseg compare --json`` prints; a number that is not defined is None. The mean of a
        case is over the classes of which both have the score.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if the two have no case or no class in common, measure in two units, or against
            other labels.
    """
    a, b = read_scores(place_a), read_scores(place_b)
    cases = sorted(a.cases & b.cases)
    names = [name for name in a.rows if name in b.rows]
    _require_common("case", cases, a, b, a.cases, b.cases)
    _require_common("class", names, a, b, a.rows, b.rows)
    grouped = read_case_groups(groups, cases) if groups is not None else {}
    unit = _unit(a, b, names, cases)
    _require_same_labels(a, b, names, cases)
    classes: dict[str, dict[str, Any]] = {name: {} for name in names}
    means = {}
    for score in COMPARED:
        of_classes = []
        for name in names:
            values = a.values(name, score, cases), b.values(name, score, cases)
            of_classes.append(values)
            classes[name][score] = _entry(compare(*values, grouped, seed))
        both = [_mean_where_both(of_classes, case) for case in cases]
        of_a, of_b = (dict(zip(cases, own, strict=True)) for own in zip(*both, strict=True))
        means[score] = _entry(compare(of_a, of_b, grouped, seed))
    return {
        "a": str(a.path),
        "b": str(b.path),
        "cases": len(cases),
        "groups": len(_groups_of(cases, grouped)) if groups is not None else None,
        "hd95_unit": unit,
        "classes": classes,
        "mean": means,
        "only_a": {"cases": sorted(a.cases - b.cases), "classes": _without(a.rows, b.rows)},
        "only_b": {"cases": sorted(b.cases - a.cases), "classes": _without(b.rows, a.rows)},
        "trained_on": {"a": _trained_on(a, cases), "b": _trained_on(b, cases)},
    }


def comparison_text(found: Mapping[str, Any]) -> str:
    """The result of `compare_evaluations` as a table for a terminal."""
    lines = [f"A: {found['a']}", f"B: {found['b']}"]
    told = f"{counted(found['cases'], 'case')} in both"
    groups = "" if found["groups"] is None else f", of {counted(found['groups'], 'group')}"
    lines.append(told + groups)
    for letter in "ab":
        for what, names in found[f"only_{letter}"].items():
            if names:
                lines.append(f"left out, only {letter.upper()} has them: {what} {some(names)}")
        seen = found["trained_on"][letter]
        if seen:
            lines.append(
                f"look at: the weights of {letter.upper()} were trained on {seen} of these cases"
            )
    entries = [*found["classes"].items()]
    if len(entries) > 1:  # of one class, its mean is itself
        entries.append((MEAN, found["mean"]))
    rows = [list(HEAD)]
    for name, scores in entries:
        for score, heading in COMPARED.items():
            unit = f", {found['hd95_unit']}" if score == "hd95" and found["hd95_unit"] else ""
            rows.append([name, heading + unit, *_cells(scores[score])])
    lines += ["", *_aligned(rows), "", *ABOUT]
    fewest = min(scores["dice"]["n"] for _, scores in entries)
    if fewest < FEW:
        lines.append(
            f"n is {fewest}: below {FEW} pairs these tests say little, whatever the difference is"
        )
    return "\n".join(lines) + "\n"


def _require_common(
    what: str, common: Iterable[str], a: Scores, b: Scores, of_a: Iterable[str], of_b: Iterable[str]
) -> None:
    if not common:
        raise InputError(
            f"{a.path} and {b.path} have no {what} in common, but {some(of_a) or 'none'} and "
            f"{some(of_b) or 'none'}: expected two evaluations of the same cases"
        )


def _unit(a: Scores, b: Scores, names: Iterable[str], cases: Iterable[str]) -> str:
    """The unit of the surface distances; both have it, or it is an error."""
    units = []
    for scores in (a, b):
        rows = [scores.rows[name].get(case, {}) for name in names for case in cases]
        units.append(sorted({unit for row in rows if (unit := row.get("unit"))}))
    if units[0] and units[1] and units[0] != units[1]:
        raise InputError(
            f"{a.path} has hd95 in {' and '.join(units[0])}, {b.path} in {' and '.join(units[1])}: "
            "expected the same unit; evaluate both on the same files"
        )
    return " or ".join(units[0] or units[1])


def _require_same_labels(a: Scores, b: Scores, names: Iterable[str], cases: Iterable[str]) -> None:
    """Check that both were scored against the same labels, as far as their sizes tell.

    Raises:
        ValueError: naming a class of a case whose labels differ in size.
    """
    for name, case in product(names, cases):
        rows = [scores.rows[name].get(case, {}) for scores in (a, b)]
        sizes = [row.get(TRUE) for row in rows]
        if all(sizes) and sizes[0] != sizes[1]:
            raise InputError(
                f"{name} of {case} has {sizes[0]} true voxels in {a.path} and {sizes[1]} in "
                f"{b.path}: expected scores against the same labels; evaluate both on one data set"
            )


def _mean_where_both(
    of_classes: Iterable[tuple[Mapping[str, float], Mapping[str, float]]], case: str
) -> tuple[float, float]:
    """A case's means over the classes of which both have a score; NaN without any."""
    pairs = [(a[case], b[case]) for a, b in of_classes if math.isfinite(a[case] - b[case])]
    if not pairs:
        return math.nan, math.nan
    of_a, of_b = zip(*pairs, strict=True)
    return sum(of_a) / len(pairs), sum(of_b) / len(pairs)


def _entry(found: Comparison) -> dict[str, float | int | None]:
    """The numbers of a comparison by their names; None for what is not defined."""
    return {name: None if math.isnan(value) else value for name, value in found._asdict().items()}


def _groups_of(cases: Iterable[str], groups: Mapping[str, str]) -> set[tuple[bool, str]]:
    return {(case in groups, groups.get(case, case)) for case in cases}


def _without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    there = set(others)
    return [name for name in names if name not in there]


def _trained_on(scores: Scores, cases: Iterable[str]) -> int:
    """On how many of the cases the weights were trained, as far as the table says."""
    chosen = set(cases)
    seen = set()
    for rows in scores.rows.values():
        seen |= {case for case, row in rows.items() if row.get("trained_on") == SEEN[True]}
    return len(seen & chosen)


def _cells(entry: Mapping[str, Any]) -> list[str]:
    """A comparison's cells of the table, after the class and the score."""

    def cell(name: str, form: str) -> str:
        return NONE if entry[name] is None else format(entry[name], form)

    low, high = cell("low", "+.4f"), cell("high", "+.4f")
    return [
        cell("a", ".4f"),
        cell("b", ".4f"),
        cell("difference", "+.4f"),
        NONE if low == NONE else f"{low} to {high}",
        cell("t_test", ".2g"),
        cell("wilcoxon", ".2g"),
        str(entry["n"]),
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table: text to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cells.append(cell.ljust(width) if index < LEFT else cell.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines
