"""How many lines the bundles' configs have, and how many distinct ones.

    python -m benchmarks.config_lines [BUNDLES_FOLDER]

Blank lines and lines of nothing but a comment do not count; two lines are the same whatever their
indentation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

MAIN = (
    "train.yaml",
    "inference.yaml",
    "evaluate.yaml",
    "multi_gpu_train.yaml",
    "multi_gpu_inference.yaml",
    "multi_gpu_evaluate.yaml",
)  # the configs that every bundle has


def main() -> None:
    """Print the table of a folder of bundles."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="?", default="bundles", help="folder of the bundles")
    print(table(Path(parser.parse_args().bundles)))


def table(bundles: Path) -> str:
    """Lines and distinct lines: of each main config of each bundle, of these together, and of all.

    Raises:
        FileNotFoundError: if the folder has no configs.
    """
    configs = sorted(bundles.glob("[!._]*/configs/**/*.yaml"))
    if not configs:
        raise FileNotFoundError(
            f"no NAME/configs/*.yaml in {bundles}: expected a folder of bundles"
        )
    names = sorted({path.relative_to(bundles).parts[0] for path in configs})
    rows = ["| config | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for file in MAIN:
        counts = [str(len(content_lines([bundles / name / "configs" / file]))) for name in names]
        rows.append(f"| {file} | {' | '.join(counts)} |")
    main_configs = [path for path in configs if path.name in MAIN]
    for what, paths in (("main configs", main_configs), ("all configs", configs)):
        lines = content_lines(paths)
        rows.append(f"{what}: {len(lines)} lines in {len(paths)} files, {len(set(lines))} distinct")
    return "\n".join(rows)


def content_lines(paths: Iterable[Path]) -> list[str]:
    """The lines of some files that say something, without their indentation."""
    lines = [line.strip() for path in paths for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


if __name__ == "__main__":
    main()
