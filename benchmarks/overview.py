"""What the results say in short: each bundle's time, all methods' Dice, and what each table costs.

    python -m benchmarks.overview [--out FILE]

Nothing is measured: the figures are those of the files in `results`, which name their machines and
commands. Where a file or a figure is missing there is a dash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import command, report
from benchmarks.accuracy.paper import HOURS, TABLES, Table
from benchmarks.accuracy.study import parsed
from ldseg_monai.bundle import Bundle

ABOUT = """Of the files beside this one, by `python -m benchmarks.overview`. Compare a row's own
figures, not rows: the machines differ. A dash stands for what was not measured."""
OF_BUNDLES = """Network: one sample of one image in the bundle's own number of steps. File to file:
reading, network, writing, with the bundle's own number of samples. Peak memory: of the whole
command on an image of the size beside it."""
OF_TABLES = """Each command trains what is left, in `--out`. Steps: optimizer steps of all rows and
folds together. Hours: of training and scoring, of the rows that the results have them of. Runs
before 2026-11-30 did not record them."""
OF_METHODS = """Mean Dice of each method on each data set, of the tables of the papers that compare
methods. Diffusion methods are above, others below; the best of a column is bold. A column has one
budget, in optimizer steps, which is of minutes on one core: the order after a long training may be
another. Its own table has the spread over the cases and the tests against the first method. Where
a method was trained on fewer folds or in other steps than the column, the cell says so. LDSeg is
trained on own estimates where its bundle is, but on glands, where that is a row of its own."""
METHODS = ("LDSeg", "CDAL")  # what the networks of the bundles are called in the results


def read_tables(path: Path) -> Iterator[dict[str, str]]:
    """The rows of all tables of a Markdown file, by their headings; none where there is no file."""
    if not path.is_file():
        return
    columns: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not columns:
            columns = cells
        elif not set(line) <= set("|- "):
            yield dict(zip(columns, cells, strict=True))


def machine_of(path: Path) -> str:
    """The processor that a file's figures are of, and how many of its cores, without the rest."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^- machine: (.*?) \((.*?)\), (\d+) of \d+ cores", text, re.MULTILINE)
    if found is None:
        return report.NONE
    held = re.search(r"held to (\w+)", text)
    kind = held[1] if held else found[2].rpartition(", ")[2]
    return f"{found[1].replace('(R)', '')} ({kind}), cores: {found[3]}"


def bundle_row(bundle: Bundle, folder: Path) -> dict[str, str]:
    """Time and memory of a bundle, from its results.

    Args:
        bundle: the bundle.
        folder: of its results.
    """
    row = {"bundle": bundle.name}
    steps = str(bundle.config("inference.yaml").get_parsed_content("num_inference_steps"))
    for path in sorted(folder.glob("inference_*.md"), reverse=True):  # AVX2, which most have
        own = [
            entry
            for entry in read_tables(path)
            if entry["network"] in METHODS and entry["steps K"] == steps
        ]
        if own:
            row |= {"parameters, M": own[0]["parameters, M"], "steps K": steps}
            row |= {"network, s": own[0]["seconds"], "precision": own[0]["precision"]}
            row["machine"] = machine_of(path)
            break
    for name, label, column in (("throughput", "part", "each file"), ("files", "step", "seconds")):
        totals = [
            entry[column]
            for entry in read_tables(folder / f"{name}.md")
            if entry.get(label, "").startswith("total")
        ]
        if totals:
            row["file to file, s"] = totals[0]
            break
    memory = list(read_tables(folder / "memory.md"))
    if memory:
        row["peak memory, MB"] = memory[0]["peak memory, MB"]
        row["of an image of"] = memory[0]["size"]
    return row


def table_row(table: Table, results: Path) -> dict[str, str]:
    """What a table of a paper takes: its command, its rows, steps and hours.

    Args:
        table: of the paper.
        results: folder of all results.
    """
    steps = 0
    for key in table.trained():
        folds = table.folds_of(key)
        config = parsed(table.plan(folds[0]), table.variant(key, Path("OUT"), folds[0]))
        epochs, cases, batch = (
            config.get_parsed_content(name)
            for name in ("max_epochs", "cases_per_epoch", "batch_size")
        )
        steps += len(folds) * (epochs * cases // batch)
    file = results / table.bundle.name / f"{table.name}.md"
    found = [entry for entry in read_tables(file) if "parameters, M" in entry]
    scored = [entry for entry in found if not entry["parameters, M"].endswith(("trained", "only"))]
    hours = [float(entry[HOURS]) for entry in scored if entry.get(HOURS, report.NONE)[0].isdigit()]
    return {
        "table": table.title,
        "command": f"`python -m benchmarks.accuracy.paper {table.name} --data DIR --out DIR`",
        "rows": str(len(table.scored())),
        "folds": str(len(table.folds)),
        "steps": str(steps),
        "rows in the results": str(len(scored)) if found else report.NONE,
        "hours": f"{sum(hours):.1f} for {len(hours)} rows" if hours else report.NONE,
    }


def methods_rows(tables: Sequence[Table], results: Path) -> list[dict[str, str]]:
    """The Dice of each method, a row, on each table's data, a column.

    Args:
        tables: of the papers; those without a subject are left out.
        results: folder of all results.
    """
    diffusion: dict[str, dict[str, str]] = {}
    others: dict[str, dict[str, str]] = {}
    columns = []
    for table in tables:
        file = results / table.bundle.name / f"{table.name}.md"
        found = [entry for entry in read_tables(file) if entry.get("steps", "-")[0].isdigit()]
        if not table.subject or not found:
            continue
        column = f"{table.subject}, {found[0]['steps']} steps"
        columns.append(column)
        dice = [name for name in found[0] if name.startswith("Dice ")]
        scored = "Dice mean" if "Dice mean" in dice else dice[0]
        values = [entry[scored].partition(" ")[0] for entry in found]
        for entry, value in zip(found, values, strict=True):
            name, _, folds = entry["method"].rstrip(")").partition(" (")
            rows = others if entry["K"] == report.NONE else diffusion
            text = f"**{value}**" if float(value) == max(map(float, values)) else value
            apart = [folds] if folds else []
            if entry["steps"] != found[0]["steps"]:
                apart.append(f"{entry['steps']} steps")
            cells = rows.setdefault(name, {"method": name})
            cells[column] = f"{text} ({', '.join(apart)})" if apart else text
    empty = dict.fromkeys(columns, report.NONE)
    return [
        {"method": row["method"], **empty, **row} for row in [*diffusion.values(), *others.values()]
    ]


def overview(bundles: Sequence[Bundle], tables: Sequence[Table], results: Path) -> str:
    """The three tables, as Markdown."""
    columns = dict.fromkeys(
        ["bundle", "parameters, M", "steps K", "network, s", "precision", "machine"]
        + ["file to file, s", "peak memory, MB", "of an image of"],
        report.NONE,
    )
    rows: list[Mapping[str, str]] = []
    for bundle in bundles:
        rows.append(columns | bundle_row(bundle, results / bundle.name))
    parts = [
        "# Time, memory, the methods' Dice, and what the tables cost",
        "",
        ABOUT,
        "",
        "## Bundles",
        "",
    ]
    parts += [OF_BUNDLES, "", report.table(rows), "## Methods", "", OF_METHODS, ""]
    parts += [report.table(methods_rows(tables, results))]
    parts += ["## Tables of the papers", "", OF_TABLES, ""]
    parts.append(report.table([table_row(table, results) for table in tables]))
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the overview, and write it if a file is named."""
    parser = command.argument_parser(__doc__)
    parser.add_argument(
        "--out", type=command.file_to_write, metavar="FILE", help="Markdown file to write"
    )
    arguments = parser.parse_args(argv)
    bundles = Bundle.installed()
    tables = [Table(path) for path in sorted(TABLES.glob("*.yaml"))]
    text = overview(bundles, tables, command.RESULTS)
    if arguments.out is not None:
        report.write(arguments.out, text)
    print(text)


if __name__ == "__main__":
    main()
