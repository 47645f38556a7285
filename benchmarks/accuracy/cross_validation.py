r"""Cross-validates a bundle's network and its peers or ablations on the same folds, case by case.

    python -m benchmarks.accuracy.cross_validation bundles/ldseg_glas --dataset_dir DIR --out cv \
        --baseline baselines/unet.yaml

Fold by fold, each candidate is trained by the bundle's own command in ``--out``/CANDIDATE/foldN,
and its weights are scored on the fold by the bundle's evaluate.yaml in the scores/ there. The
candidates are the bundle as it is, by its folder's name, and what overlays make of it, by the name
of the last one. The same command goes on where it stopped: what is trained or scored is not done
again, and refused if it was done with other settings.

After each fold (``--folds`` does some of them) two files are written of all folds that are done:
``--out``/cases.csv, a row a candidate, fold, case and class, and ``--out``/table.md. At the end it
prints the command that segments by the folds' networks together.
"""

from __future__ import annotations

import csv
import math
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import command, report
from benchmarks.accuracy.quality import cell, deviation, known, mean
from benchmarks.accuracy.study import claim, configs, overrides, parsed, train
from ldseg_monai.bundle import Bundle
from ldseg_monai.evaluation.paired import p_of_t_test, p_of_wilcoxon, pooled

METRICS = Path("scores", "metrics.csv")
OWN = ("dataset_dir", "output_dir", "fold", "val_cases")  # which the folds are made with
# Of the tables; the surface's further scores are in no metrics.csv before 2026-11-29
HEADINGS = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "hd95": "HD95",
}
ABOUT = """Cross-validation in {num_folds} folds: each case is segmented by the network that was
trained without its fold, and scored in its file's own geometry. Of the epochs at which a training
validates, each `val_interval` and the last, the one with the best Dice on that fold was kept; where
`val_interval` is `max_epochs`, nothing was chosen. Mean ± SD over the cases of the folds named;
class `mean` is each case's mean over its classes; HD95 is in mm, of pictures in pixels. A class
missing from a case is left out; a score of fewer cases than the row's (such as HD95, which a class
that was not found has none of) says of how many. The comparison is of the Dice of class `mean`, of
the same cases: mean difference, and p of the two-sided Wilcoxon signed-rank test, and of the paired
t-test. Where cases belong together, such as the pictures of one patient, the tests are over the
groups: the mean difference of each is one number to them."""

Cases = dict[tuple[str, str], dict[str, float]]  # scores by fold and name


def candidates(bundle: Bundle, baselines: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The variants (of study.py) to compare, by name: the bundle as it is, and then the baselines.

    Args:
        bundle: the bundle.
        baselines: overlays of each, below the bundle's configs/, joined by ``+``.

    Raises:
        ValueError: if there is no such overlay, or two candidates have one name.
    """
    variants: dict[str, dict[str, Any]] = {bundle.name: {}}
    for baseline in baselines:
        overlays = baseline.split("+")
        paths = [bundle.configs / name for name in overlays]
        missing = ", ".join(str(path) for path in paths if not path.is_file())
        if missing:
            raise ValueError(
                f"--baseline {baseline}: {missing} does not exist; expected a file of configs/"
            )
        name = Path(overlays[-1]).stem
        if name in variants:
            raise ValueError(
                f"--baseline {baseline}: there is a candidate {name!r} already; expected another "
                "file"
            )
        variants[name] = {"overlays": overlays}
    return variants


def settings(
    items: Iterable[str], own: Sequence[str] = OWN, option: str = "--set"
) -> dict[str, Any]:
    """Config values from ``KEY=VALUE``, values in YAML or as Python's ``None``.

    Args:
        items: as the command line has them.
        own: keys that the program sets.
        option: by which the command line has them.

    Raises:
        ValueError: for an item that is none, or a key of the program's own.
    """
    values = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise ValueError(f"{option} {item}: expected KEY=VALUE, such as max_epochs=20")
        if key in own:
            raise ValueError(
                f"{option} {item}: expected none of {', '.join(own)}, which this program sets"
            )
        values[key.replace("::", "#")] = None if value == "None" else yaml.safe_load(value)
    return values


def plan_of(bundle: Bundle, values: dict[str, Any]) -> dict[str, Any]:
    """What study.py calls a study, of a bundle with some values of its configs.

    Raises:
        ValueError: if a value is of no item of the bundle's train.yaml.
    """
    plan = {"bundle": str(bundle.root), "common": values, "noise": None}  # study.py alone has noise
    config = parsed({**plan, "common": {}}, {})
    unknown = [key for key in values if key.split("#")[0] not in config]  # MONAI would add them
    if unknown:
        raise ValueError(
            f"--set {', '.join(unknown)}: expected keys of {bundle.config_file('train.yaml')}"
        )
    return plan


def fold_plans(bundle: Bundle, values: dict[str, Any]) -> list[dict[str, Any]]:
    """What study.py calls a study, for each fold of a bundle.

    Args:
        bundle: the bundle.
        values: of its configs, to override.

    Raises:
        ValueError: if the bundle has no folds, or a value is of no item of its train.yaml.
    """
    plan = plan_of(bundle, values)
    config = parsed(plan, {})
    num_folds = config.get_parsed_content("num_folds") if "num_folds" in config else None
    if not isinstance(num_folds, int) or num_folds < 2:
        raise ValueError(
            f"bundle {bundle.name}: num_folds is {num_folds!r}; expected a bundle with 2 folds or "
            "more"
        )
    return [{**plan, "common": {**values, "fold": fold}} for fold in range(num_folds)]


def evaluate(
    plan: dict[str, Any],
    variant: dict[str, Any],
    dataset_dir: str,
    folder: Path,
    part: str = "val",
) -> None:
    """Score a trained candidate on its fold by the bundle's command, unless it is scored.

    What the command prints goes to log.txt beside the scores.
    """
    if (folder / METRICS).exists():
        return
    scores = (folder / METRICS).parent
    scores.mkdir(exist_ok=True)
    files = [*configs(plan, variant), str(Path(plan["bundle"], "configs", "evaluate.yaml"))]
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
    run = {
        "dataset_dir": dataset_dir,
        "output_dir": str(scores),
        "model_path": str(folder / "model.pt"),
    }
    for key, value in overrides(plan, variant, part=part, **run).items():
        text = "$None" if value is None else value  # MONAI drops a plain None
        line += [f"--{key}", text if isinstance(text, str) else repr(text)]
    with open(scores / "log.txt", "w") as log:
        subprocess.run(line, stdout=log, stderr=subprocess.STDOUT, check=True)


def read_rows(folders: Mapping[int, Path]) -> list[dict[str, str]]:
    """The rows of metrics.csv of a candidate's folds, those that have it, each with its fold."""
    rows = []
    for fold, folder in folders.items():
        if (folder / METRICS).exists():
            with open(folder / METRICS, newline="") as file:
                rows += [{"fold": str(fold), **row} for row in csv.DictReader(file)]
    return rows


def by_class(rows: Iterable[Mapping[str, str]]) -> dict[str, Cases]:
    """The scores of each case by class, the last of them ``mean``: over the classes that it has."""
    classes: dict[str, Cases] = {}
    for row in rows:
        scores = {score: float(row[score]) for score in HEADINGS}
        classes.setdefault(row["class"], {})[row["fold"], row["case"]] = scores
    means: Cases = {}
    for case in next(iter(classes.values()), {}):  # every class has a row for every case
        own = [scores[case] for scores in classes.values()]
        for score in HEADINGS:
            means.setdefault(case, {})[score] = mean(row[score] for row in own)
    return {**classes, "mean": means}


def summary(name: str, classes: dict[str, Cases]) -> list[dict[str, str]]:
    """The rows of the table for a candidate, one a class."""
    rows = []
    for index, cases in classes.items():
        folds: dict[str, list[dict[str, float]]] = {}
        for (fold, _), scores in cases.items():
            folds.setdefault(fold, []).append(scores)
        number = len(known(scores["dice"] for scores in cases.values()))
        row = {"candidate": name, "folds": ", ".join(folds), "class": index, "cases": str(number)}
        for score, heading in HEADINGS.items():
            values = known(scores[score] for scores in cases.values())
            fewer = f" (of {len(values)})" if len(values) < number else ""
            row[heading] = f"{cell(mean(values))} ± {cell(deviation(values))}{fewer}"
        for score, heading in HEADINGS.items():
            if len(folds) > 1 or score == "dice":
                means = [mean(one[score] for one in own) for own in folds.values()]
                row[f"SD of the folds' {heading}"] = cell(deviation(means))
        rows.append(row)
    return rows


def comparison(ours: Cases, theirs: Cases, groups: Mapping[str, str]) -> dict[str, str]:
    """Compare the Dice of the bundle as it is with that of a baseline on the cases that both have.

    Args:
        ours: scores of the cases of the bundle.
        theirs: of the baseline.
        groups: of cases by name, such as patients; a case without one is a group of its own.

    Returns:
        Cells of the table: number of cases, mean of its Dice minus the baseline's, p of the
            two-sided Wilcoxon signed-rank test and of the paired t-test and, where there are
            groups, their number, which the tests are over.
    """
    differences: dict[tuple[str, str], float] = {}
    for case in sorted(ours.keys() & theirs.keys()):
        difference = ours[case]["dice"] - theirs[case]["dice"]
        if not math.isnan(difference):
            differences[case] = difference
    if not differences:
        return {"cases": "0"}
    of_groups = pooled(
        differences, {case: groups[case[1]] for case in differences if case[1] in groups}
    )
    t_test = p_of_t_test(of_groups)
    number = {"groups": str(len(of_groups))} if groups else {}
    return {
        "cases": str(len(differences)),
        "mean difference": f"{mean(differences.values()):+.4f}",
        **number,
        "p": f"{p_of_wilcoxon(of_groups):.2g}",
        "p of t-test": report.NONE if math.isnan(t_test) else f"{t_test:.2g}",
    }


def write_results(
    table: Path,
    cases: Path,
    head: str,
    rows: Mapping[str, list[dict[str, str]]],
    groups: Mapping[str, str] | None = None,
) -> str:
    """Write a table and its cases from the rows of the candidates, the bundle first.

    Args:
        table: file of Markdown to write.
        cases: file of CSV to write.
        head: of the table's file.
        rows: of each candidate, as of `read_rows`.
        groups: as of `comparison`.

    Returns:
        The text of the table's file.
    """
    with open(cases, "w", newline="") as file:
        columns = ["candidate", "fold", "case", "class", *HEADINGS]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for name, own in rows.items():
            writer.writerows({"candidate": name, **row} for row in own)
    classes = {name: by_class(own) for name, own in rows.items()}
    (own_name, ours), *baselines = classes.items()
    summaries = []
    for name, scores in classes.items():
        summaries += summary(name, scores)
    sections = [report.table(summaries)]
    if baselines:
        lines = []
        for name, theirs in baselines:
            cells = comparison(ours["mean"], theirs["mean"], groups or {})
            lines.append({"Dice": f"{own_name} minus {name}", **cells})
        sections.append(report.table(lines))
    return report.write(table, head, *sections)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score what is left of a cross-validation; write and print its table."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="OVERLAY[+OVERLAY...]",
        help="peer or ablation: its overlays, below the bundle's configs/; may be said again",
    )
    parser.add_argument(
        "--folds", type=int, nargs="+", help="numbers of the folds to do (default: all)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="config values to override, values in YAML; those of network_def# and "
        "train#inferer# are not a peer's",
    )
    arguments = parser.parse_args(argv)
    try:
        variants = candidates(arguments.bundle, arguments.baseline)
        plans = fold_plans(arguments.bundle, settings(arguments.set))
    except ValueError as error:
        parser.error(str(error))
    folds = range(len(plans)) if arguments.folds is None else sorted(set(arguments.folds))
    if not set(folds) <= set(range(len(plans))):
        parser.error(f"--folds {arguments.folds}: expected some of 0 to {len(plans) - 1}")
    if not Path(arguments.dataset_dir).is_dir():
        parser.error(f"--dataset_dir {arguments.dataset_dir} does not exist: expected a folder")
    config = parsed(plans[0], {}, dataset_dir=arguments.dataset_dir)
    seed = config.get_parsed_content("seed")
    groups = config.get_parsed_content("split").known_groups
    about = ABOUT.format(num_folds=len(plans))
    title = f"Cross-validation: {arguments.bundle.name}"
    head = report.header(title, about, "accuracy.cross_validation", argv, seed)
    folders: dict[str, dict[int, Path]] = {}
    claims = []
    for name, variant in variants.items():
        own = {fold: arguments.out / name / f"fold{fold}" for fold in range(len(plans))}
        folders[name] = own
        for fold, folder in own.items():
            if fold in folds or (folder / METRICS).exists():
                claims.append((plans[fold], variant, folder))
    claims.sort(key=lambda one: not one[2].exists())  # refused before a folder is made
    for claimed in claims:
        try:
            claim(*claimed)
        except ValueError as error:
            parser.error(str(error))
    for fold in folds:
        for name, variant in variants.items():
            train(plans[fold], variant, arguments.dataset_dir, folders[name][fold])
            evaluate(plans[fold], variant, arguments.dataset_dir, folders[name][fold])
        rows = {name: read_rows(own) for name, own in folders.items()}
        places = arguments.out / "table.md", arguments.out / "cases.csv"
        text = write_results(*places, head, rows, groups)
    print(text)
    weights = [folder / "model.pt" for folder in folders[arguments.bundle.name].values()]
    trained = [str(path) for path in weights if path.is_file()]
    if len(trained) > 1:
        own = [item for item in arguments.set if item.startswith("network_def")]
        line = ["ldseg", "predict", "-m", str(arguments.bundle.root), "-i", "IMAGES"]
        line += ["--ensemble", *trained, *(["--set", *own] if own else [])]
        print(f"\nTo segment other images by these networks together:\n  {shlex.join(line)}")


if __name__ == "__main__":
    main()
