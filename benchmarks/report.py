"""What the benchmarks write down: the machine, tables and plots, as Markdown."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import torch

from benchmarks.speed.measure import Result

NONE = "–"
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# Values of ONEDNN_MAX_CPU_ISA, by which a processor computes as an older one, and their sets
OLDER = {"AVX2": "avx2", "AVX512_CORE": "avx512f", "AVX512_CORE_BF16": "avx512_bf16"}


def machine() -> str:
    """Processor with the sets that decide on bfloat16, cores in use, memory, load, and any GPU."""
    model = _cpuinfo("model name") or platform.machine()
    flags = cpu_flags()
    sets = [name for name in INSTRUCTION_SETS if name in flags]
    kilobytes = [
        int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")
    ]
    parts = [
        f"{model} ({', '.join(sets) or 'no vector extensions known'})",
        f"{torch.get_num_threads()} of {os.cpu_count()} cores used",
        f"{kilobytes[0] / 2**20:.0f} GiB memory" if kilobytes else "memory unknown",
        f"load {os.getloadavg()[0]:.1f} before the measurements",
    ]
    held = os.environ.get("ONEDNN_MAX_CPU_ISA")
    if held:
        parts.append(f"held to {held} by ONEDNN_MAX_CPU_ISA")
    if torch.cuda.is_available():
        parts.append(f"GPU {torch.cuda.get_device_name()}")
    return ", ".join(parts)


def processor_kind(device: str = "cpu") -> str:
    """The kind of processor, for a file's name: its newest set of instructions, or the GPU's name.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        return "_".join(torch.cuda.get_device_name().lower().split())
    held = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    flags = cpu_flags()
    sets = [name for name in INSTRUCTION_SETS if name in flags]
    return OLDER.get(held) or next(reversed(sets), platform.machine().lower())


def cpu_flags() -> list[str]:
    """What Linux says that the processor has; empty elsewhere."""
    return _cpuinfo("flags").split()


def _cpuinfo(wanted: str) -> str:
    """The last value of a name in /proc/cpuinfo, or nothing."""
    found = ""
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            found = value.strip()
    return found


def header(title: str, about: str, program: str, argv: Sequence[str] | None, seed: int) -> str:
    """Head of a report, to be made before the measurements: all that is needed to get it again.

    Args:
        title: one line.
        about: what was measured and how to read it.
        program: name of the module below benchmarks, such as ``speed.inference``.
        argv: its arguments; None for the process's own. Absolute paths among them are left out,
            since they are true on one machine only.
        seed: of weights, image and noise.
    """
    shown = [
        "DIR" if Path(argument).is_absolute() else argument
        for argument in (sys.argv[1:] if argv is None else argv)
    ]
    return "\n".join(
        [
            f"# {title}",
            "",
            about,
            "",
            f"- command: `{shlex.join(['python', '-m', f'benchmarks.{program}', *shown])}`",
            f"- machine: {machine()}",
            f"- versions: Python {platform.python_version()}, torch {torch.__version__}, "
            f"MONAI {monai.__version__}",
            f"- date: {datetime.date.today()}",
            f"- seed: {seed}",
            "",
        ]
    )


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table; its columns are those of the first row, and those that further ones add."""
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    lines = [_line(columns), _line(["---"] * len(columns))]
    for row in rows:
        lines.append(_line(row.get(column, NONE) for column in columns))
    return "\n".join(lines) + "\n"


def measured(
    result: Result, reference: Result, reference_name: str, repeats: int = 1
) -> dict[str, str]:
    """The columns of one candidate: time, its ratio to a reference's, and memory.

    Args:
        result: of the candidate.
        reference: to which the ratio is.
        reference_name: how the columns call it.
        repeats: how often the call would have to be repeated, if what was measured is one of so
            many equal steps.
    """
    seconds = [repeats * value for value in result.seconds.values()]
    ratios = [repeats * value for value in result.ratios(reference)]
    remarks = [
        result.failure,
        f"one step x {repeats}" if repeats > 1 and seconds else "",
        "one run, cold: longer than the budget" if result.cold else "",
        result.variant,
    ]
    return {
        "seconds": number(repeats * result.median) if seconds else NONE,
        "range": spread(seconds),
        "runs": str(len(seconds)),
        f"times {reference_name}": number(statistics.median(ratios)) if ratios else NONE,
        "range of it": spread(ratios),
        "peak memory, MB": f"{result.memory.peak / 1e6:.0f}" if result.memory else NONE,
        "of it by the call, MB": f"{result.memory.increase / 1e6:.0f}" if result.memory else NONE,
        "remark": "; ".join(remark for remark in remarks if remark),
    }


def number(value: float) -> str:
    """Three significant digits, and no exponent for large numbers."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def plain(value: float) -> str:
    """A number of an axis without an exponent, such as 0.01 and 1,000,000."""
    return f"{value:,.10f}".rstrip("0").rstrip(".")


def spread(values: Sequence[float]) -> str:
    """Smallest to largest."""
    return f"{number(min(values))} to {number(max(values))}" if values else NONE


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Mark a logarithmic axis of matplotlib, from low to high, by numbers without exponents."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    few = high < 1000 * low  # powers of ten alone would be too few
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def plot(
    path: Path,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
) -> str:
    """Draw lines on logarithmic axes.

    Args:
        path: PNG file to write.
        lines: x and y of each, by its name.
        x_label: what x is, with its unit.
        y_label: what y is, with its unit.

    Returns:
        Markdown that shows the picture, or says that matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return "No plot: `pip install matplotlib` for one.\n"
    few_lines = len(lines) <= 3  # whose names leave room beside them
    figure = Figure(figsize=(6 if few_lines else 8.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    for name, (x, y) in lines.items():
        axes.plot(x, y, marker="o", label=name)
    plain_ticks(axes.xaxis, *axes.get_xlim())
    plain_ticks(axes.yaxis, *axes.get_ylim())
    axes.grid(alpha=0.3)
    if few_lines:
        axes.legend()
    else:
        figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)
    return f"![{y_label} against {x_label}]({path.name})\n"


def write(path: Path, *sections: str) -> str:
    """Write sections as a Markdown file, and return its text."""
    text = "\n".join(sections)
    path.write_text(text, encoding="utf-8")
    return text


def write_cases(path: Path, columns: dict[str, dict[str, float]]) -> None:
    """Write a row a case."""
    cases = next(iter(columns.values()))
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", *columns])
        for case in cases:
            writer.writerow([case, *(values[case] for values in columns.values())])


def _line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []
