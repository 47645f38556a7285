"""Whether a bundle of several channels uses them: Dice with both channels beside each one alone.

    python -m benchmarks.accuracy.channels ldseg_hippocampus --work runs/channels

Makes generated brain tumors of two sequences, of which neither shows both classes. Writes a bundle
for both and one for each alone from the bundle that is named, trains each alike and scores the same
held-back cases. A run that was stopped goes on by the same command.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command, report
from benchmarks.accuracy.quality import cell
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.phantoms.files import phantom_files, write_phantoms
from ldseg_monai.tools.new_bundle.write import new_bundle

ABOUT = """Dice on {cases} generated cases that no training saw, of {num}; one sample each. Three
bundles, written by `ldseg new-bundle` from {source} and trained alike for {epochs} epochs from
random weights: on both sequences, and on each alone. In FLAIR a core is as bright as the edema
around it. In T1 with contrast the edema does not show, and vessels are as bright as cores."""
CHANNELS = {"both": (0, 1), "FLAIR": (0,), "T1 with contrast": (1,)}
CLASSES = ["edema", "core"]


def write_data(folder: Path, num: int, channels: Sequence[int]) -> Path:
    """Write phantoms with some of their two channels; the cases and labels are the same.

    Returns:
        The folder, which has only what is asked for.
    """
    whole = folder / "whole"
    write_phantoms("tumor", whole, num, channels=2)
    target = folder / ("data_" + "_".join(map(str, channels)))
    for item in phantom_files("tumor", whole, num, channels=2):
        sources = {Path(item["label"]): "labels"}
        for number, channel in enumerate(channels):
            sources[Path(item["image"][channel])] = f"images/{number}"
        for source, place in sources.items():
            kind, _, number = place.partition("/")
            case = source.name[: len("case_000")]
            name = f"{case}_{int(number):04d}.nii.gz" if number else source.name
            (target / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / kind / name)
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score the three bundles; write and print the table."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    command.add_out(parser)
    parser.add_argument("--work", type=Path, required=True, help="folder of data and trainings")
    parser.add_argument("--epochs", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--num", type=int, default=24, help="cases (default: %(default)s)")
    parser.add_argument(
        "--cases_per_epoch", type=int, default=96, help="cases drawn (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    work: Path = arguments.work.absolute()
    rows, scored = [], 0
    for what, channels in CHANNELS.items():
        data = write_data(work, arguments.num, channels)
        name = "channels_" + "_".join(map(str, channels))
        if not (work / "bundles" / name).is_dir():
            new_bundle(str(arguments.bundle.root), name, str(data), str(work / "bundles"), CLASSES)
        bundle = Bundle(work / "bundles" / name)
        knobs = {"dataset_dir": data, "output_dir": work / name, "val_fraction": 0.25}
        knobs |= {"max_epochs": arguments.epochs, "cases_per_epoch": arguments.cases_per_epoch}
        knobs |= {"val_interval": arguments.epochs}  # once, so that no score chooses the weights
        weights = bundle.train(**knobs)
        scores = bundle.evaluate(
            dataset_dir=data, output_dir=work / name / "scores", model_path=weights, part="val"
        )
        scored = scores["cases"]
        row = {"channels": what}
        for of_class in scores["classes"].values():
            row[of_class["name"]] = cell(of_class["dice"]["mean"])
        rows.append(row | {"mean": cell(scores["all"]["dice"]["mean"])})
    about = ABOUT.format(
        cases=scored, num=arguments.num, source=arguments.bundle.name, epochs=arguments.epochs
    )
    head = report.header("Two channels, or one", about, "accuracy.channels", argv, 0)
    out = command.folder_of(arguments)
    print(report.write(out / "channels.md", head, report.table(rows)))


if __name__ == "__main__":
    main()
