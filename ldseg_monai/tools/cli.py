"""The `ldseg` command: segmenting, and what `python -m monai.bundle` cannot do."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

from ldseg_monai import __version__
from ldseg_monai.runtime.errors import (
    TRACEBACK,
    InputError,
    ListedErrors,
    UserError,
    cause,
    counted,
)
from ldseg_monai.runtime.nearest import did_you_mean
from ldseg_monai.runtime.signals import end_in_one_line
from ldseg_monai.runtime.threads import finish_thread_pools

WAITING = "OMP_WAIT_POLICY"  # environment variable: how threads without work wait for the next
USER_ERROR = 2
# As messages name a knob: a value, an empty text, or a word in capitals for one
KNOB = re.compile(r"(?<!\S)--(\w+) ((?:True|False|None|\d+|[A-Z]+)\b|'')")
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")  # of a number
EXAMPLES = """examples:
  ldseg predict -m ldseg_hippocampus -i scan.nii.gz -o results
  ldseg predict -m ldseg_glas -i pictures/ slide.svs --num-samples 5 --preview
  ldseg new-bundle --from ldseg_knee3d --name my_organ --dataset_dir DIR
  ldseg train -m my_organ --data DIR -o runs/my_organ
  ldseg evaluate -m my_organ --data DIR -o runs/scores --weights runs/my_organ/model.pt --part val
  ldseg compare runs/baseline runs/scores
  ldseg knobs my_organ

Training, scoring and segmenting are commands of MONAI too: python -m monai.bundle run, with a
bundle's configs.
exit codes: 0 when all is done; 2 after an error that a person can put right, told on stderr."""
# `PhantomKind`
PHANTOMS = ("knee", "hippocampus", "tumor", "gland", "nuclei", "thorax", "echo", "beat")
OVERLAY = ("--overlay", "--config")  # one option: the second name is that of earlier versions
PUBLISHED_AS = ("hf", "folder")
# What commands give MONAI themselves, and what `predict` has options of its own for
GIVEN = ("bundle_root", "config_file", "logging_file", "run_id", "workflow_type")
OF_PREDICT = (
    *("bundle", "inputs", "out", "overlays", "lines", "views"),
    *("dataset_dir", "output_dir"),
)
VIEWS = "see each image in all its views, turned or mirrored, which the bundle's training knows"
SYSTEM_ERRORS = (OSError, ImportError)  # such as a full disk, which are told in one line too


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors, so that every user error ends the same way."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, but first tell of an option that there is not, before what is missing."""
        given = sys.argv[1:] if args is None else list(args)
        for argument in given:
            if argument == "--" or (self._subparsers and not argument.startswith("-")):
                break
            option = argument.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                self._refuse(option)
        return super().parse_known_args(given, namespace)

    def _refuse(self, option: str) -> NoReturn:
        options = [name for name in self._option_string_actions if name.startswith("--")]
        knob = option[2:].replace("-", "_")
        told = f" (a knob of the bundle is given as --set {knob}=VALUE)"
        is_knob = "--set" in options
        hint = did_you_mean(option, options)
        self.error(f"there is no option {option}{told if is_knob else ''}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check a choice; where it is none, name the nearest one."""
        choices = [str(choice) for choice in action.choices or ()]
        if choices and value not in choices:
            named = f"invalid choice: {value!r} (choose from {', '.join(choices)})"
            raise argparse.ArgumentError(action, named + did_you_mean(str(value), choices))

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the arguments after `ldseg`; None for the process's own.

    Returns:
        Exit code: 0, or 2 after a user error, which is told in one line on stderr.

    Raises:
        Exception: what is no user error; with ``LDSEG_TRACEBACK=1`` a user error too.
    """
    if argv is None:  # in a process of its own, before anything that takes long is imported
        end_in_one_line("ldseg")
        atexit.register(finish_thread_pools)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Before PyTorch is imported: else its threads spin, and slow down what else the machine does.
    os.environ.setdefault(WAITING, "passive")
    options: frozenset[str] = frozenset()
    try:
        arguments = _parser().parse_args(argv)
        options = arguments.options
        arguments.command(arguments)
    except Exception as error:  # MONAI wraps what a component of a config says
        told = cause(error)
        if isinstance(error, SYSTEM_ERRORS) and not isinstance(told, UserError):
            told = error
        if os.environ.get(TRACEBACK) or not isinstance(told, (UserError, *SYSTEM_ERRORS)):
            raise
        text = str(told) if isinstance(told, ListedErrors) else " ".join(str(told).split())
        if "--set" in options:
            text = KNOB.sub(partial(_as_option, options), text)
        sys.stderr.write(f"ldseg: error: {text}\n")
        return USER_ERROR
    return 0


def _as_option(options: frozenset[str], knob: re.Match[str]) -> str:
    """How a command takes a knob that a message names as MONAI's commands do, ``--NAME VALUE``."""
    return knob[0] if f"--{knob[1]}" in options else f"--set {knob[1]}={knob[2]}"


def _parser() -> _Parser:
    """Build the parser; each subcommand adds itself and names its function `command`."""
    parser = _Parser(
        prog="ldseg",
        description="Segment medical images by diffusion in few steps, train on one's own data, "
        "and share what was trained.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser.add_argument("--version", action="version", version=f"ldseg_monai {__version__}")
    for add in (
        _add_predict,
        _add_train,
        _add_evaluate,
        _add_compare,
        _add_models,
        _add_knobs,
        _add_info,
        _add_path,
        _add_new_bundle,
        _add_calibrate,
        _add_export,
        _add_zoo_export,
        _add_publish,
        _add_phantom,
    ):
        add(subparsers)
    for command in subparsers.choices.values():
        command.set_defaults(options=frozenset(command._option_string_actions))
    return parser


def _add_switch(parser: _Parser, name: str, text: str) -> None:
    """Add a switch that is given as bundles' commands have it, ``--force True``, or alone."""
    parser.add_argument(
        f"--{name}", nargs="?", const="True", default="False", choices=("True", "False"), help=text
    )


def _add_predict(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "predict", help="segment images by a bundle", description=_predict.__doc__
    )
    parser.add_argument(
        "-m", "--model", required=True, metavar="BUNDLE", help="name, folder or zip of a bundle"
    )
    parser.add_argument(
        "-i",
        "--input",
        action="extend",
        nargs="+",
        required=True,
        metavar="INPUT",
        help="images, folders of images or of DICOM series, zip archives of such; files "
        "CASE_0000, CASE_0001 and on are one image where the bundle takes several channels",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="folder of the results (default: the image's own, or NAME_segmentation beside a "
        "folder of images)",
    )
    parser.add_argument(
        "--num-samples",
        "--num_samples",
        type=int,
        metavar="N",
        help="segmentations drawn of each image; from 2 on their mean probability and its standard "
        "deviation are written too (default: the bundle's, or what --views and --ensemble take)",
    )
    parser.add_argument("--steps", type=int, metavar="K", help="steps of the diffusion")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the noise (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU where there is one)")
    _add_weights(parser)
    _add_switch(parser, "views", VIEWS)
    _add_switch(parser, "preview", "draw each segmentation, NAME_overlay.png")
    _add_switch(
        parser,
        "statistics",
        "write size, intensity and objects of each class, statistics.csv; of several samples the "
        "size's standard deviation too",
    )
    parser.add_argument(
        "--format",
        action="extend",
        nargs="+",
        metavar="KIND",
        help="further kinds of files of each mask: mha, nrrd, own (of these what the image is), "
        "stl, obj of volumes; rtstruct, labelmap of DICOM series; geojson, tiff of pictures",
    )
    _add_switch(parser, "force", "segment images that the weights do not know, too")
    _add_switch(
        parser,
        "overwrite",
        "segment again what is finished or was corrected by hand; never a file of others",
    )
    parser.add_argument(
        *OVERLAY,
        action="extend",
        nargs="*",
        metavar="FILE",
        help="configs over the bundle's inference.yaml, by their names in its configs or their "
        "paths (default: sequences.yaml and strips.yaml where the images ask for them)",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="further knobs of the bundle's inference.yaml",
    )
    _add_switch(parser, "quiet", "say nothing but errors")
    _add_switch(parser, "json", "write a line of JSON for each image to the standard output")
    parser.set_defaults(command=_predict)


def _predict(arguments: argparse.Namespace) -> None:
    """Segment images by a bundle, as its inference.yaml does. The results lie in one folder."""
    views = arguments.views == "True"
    given = _weights(arguments)
    if arguments.num_samples is not None:
        given["num_samples"] = arguments.num_samples
    given |= {
        "num_inference_steps": arguments.steps,
        "seed": arguments.seed,
        "device": arguments.device,
        "save_overlay": arguments.preview == "True",
        "save_statistics": True if arguments.statistics == "True" else None,
        "save_as": arguments.format,
        "force": arguments.force == "True",
        "resume": arguments.overwrite != "True",
    }
    knobs = {name: value for name, value in given.items() if value is not None}
    switches = ("save_overlay", "force", "resume")  # which have a value where none was given
    typed = [name for name in knobs if name not in switches]
    knobs |= _knobs(arguments.set, (*GIVEN, *OF_PREDICT, *typed))
    lines = sys.stdout if arguments.json == "True" else None
    with _errors_alone(arguments.quiet == "True"):
        from ldseg_monai.tools.predict import predict

        predict(
            arguments.model,
            arguments.input,
            arguments.output,
            arguments.overlay,
            lines,
            views,
            **knobs,
        )


def _add_weights(parser: _Parser) -> None:
    """Add which weights are used: see `_weights`."""
    parser.add_argument("--weights", metavar="FILE", help="state dict in place of the bundle's own")
    parser.add_argument(
        "--ensemble",
        action="extend",
        nargs="+",
        metavar="FILE",
        help="state dicts of networks that share the samples, such as those of folds, in place of "
        "the bundle's own weights",
    )


def _weights(arguments: argparse.Namespace) -> dict[str, Any]:
    """The knobs of the weights; None is the bundle's. Each network of an ensemble has a sample."""
    if arguments.ensemble and arguments.weights:
        raise InputError("--weights and --ensemble: expected one of them")
    weights = [os.path.abspath(path) for path in arguments.ensemble or [arguments.weights] if path]
    return {
        "model_path": weights[0] if weights else None,
        "ensemble": weights[1:] or None,
        "num_samples": len(weights) if arguments.ensemble and arguments.views != "True" else None,
    }


@contextlib.contextmanager
def _errors_alone(quiet: bool) -> Iterator[None]:
    """Say nothing but errors meanwhile, without progress bars, if it is to be quiet."""
    root, bars = logging.getLogger(), "TQDM_DISABLE"  # which tqdm reads when it is imported
    level, shown = root.level, os.environ.get(bars)
    try:
        if quiet:
            root.setLevel(logging.ERROR)
            os.environ[bars] = "1"
        yield
    finally:
        root.setLevel(level)
        if shown is None:
            os.environ.pop(bars, None)
        else:
            os.environ[bars] = shown


def _add_run(parser: _Parser) -> None:
    """Add what the commands that run a bundle's training or evaluation have in common."""
    parser.add_argument(
        "-m", "--model", required=True, metavar="BUNDLE", help="name or folder of a bundle"
    )
    parser.add_argument(
        "--data",
        "--dataset_dir",
        required=True,
        metavar="DIR",
        help="folder of images/ and labels/, or with a dataset.json",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder of all that is written"
    )
    parser.add_argument(
        *OVERLAY,
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="configs over the bundle's train.yaml, by their names in its configs or their paths, "
        "such as ablations/paper.yaml",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="further knobs of the configs",
    )


def _run_knobs(arguments: argparse.Namespace, **given: Any) -> dict[str, Any]:
    """The knobs of a training or an evaluation: those given, of the data, and those of --set."""
    from ldseg_monai.bundle.knobs import check_home

    check_home(arguments.output)  # here, since it is made a whole path below
    knobs = {name: value for name, value in given.items() if value is not None}
    knobs |= {
        "dataset_dir": os.path.abspath(arguments.data),
        "output_dir": os.path.abspath(arguments.output),
    }
    return knobs | _knobs(arguments.set, (*GIVEN, *knobs))


def _add_train(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser("train", help="train a bundle", description=_train.__doc__)
    _add_run(parser)
    parser.add_argument(
        "--from-weights",
        "--from_weights",
        nargs="?",
        const="",
        metavar="FILE",
        help="weights to start from (without FILE: those that the bundle ships with); of other "
        "classes with --set partial_weights=true",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="default: the bundle's max_epochs; from weights, without --overlay, a tenth of them",
    )
    parser.add_argument(
        "--fold", type=int, metavar="K", help="fold that validates (default: cases drawn for it)"
    )
    parser.set_defaults(command=_train)


def _train(arguments: argparse.Namespace) -> None:
    """Train a bundle, as its train.yaml does: the best weights are DIR/model.pt.

    A training that was stopped goes on by the same command.
    """
    from ldseg_monai.bundle import Bundle
    from ldseg_monai.bundle.fine_tuning import fine_tuning_epochs
    from ldseg_monai.tools.predict import hushed

    bundle = Bundle.find(arguments.model)
    weights = arguments.from_weights
    if weights is not None:
        weights = os.path.abspath(weights or bundle.weights)
    knobs = _run_knobs(
        arguments, initial_weights=weights, max_epochs=arguments.epochs, fold=arguments.fold
    )
    # An overlay may be the second stage of a method, which is no fine-tuning
    if weights is not None and "max_epochs" not in knobs and not arguments.overlay:
        epochs = fine_tuning_epochs(bundle)
        if epochs is not None:
            knobs["max_epochs"] = epochs
            logging.getLogger(__name__).info(
                "from weights: max_epochs %d, a tenth of the bundle's; --epochs sets another",
                epochs,
            )
    with hushed():
        bundle.train(*arguments.overlay, **knobs)


def _add_evaluate(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "evaluate", help="score weights against labels", description=_evaluate.__doc__
    )
    _add_run(parser)
    _add_weights(parser)
    parser.add_argument(
        "--part",
        choices=("val", "all", "test"),
        help="cases to score: val for those that the weights were not trained on (default: all)",
    )
    _add_switch(parser, "views", VIEWS)
    parser.set_defaults(command=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    """Score weights case by case, as a bundle's evaluate.yaml does, and write a report."""
    from ldseg_monai.bundle import Bundle
    from ldseg_monai.bundle.knobs import view_knobs
    from ldseg_monai.evaluation.scores import mean_text
    from ldseg_monai.tools.predict import hushed

    weights = _weights(arguments)
    samples = weights.pop("num_samples")
    knobs = _run_knobs(arguments, part=arguments.part, **weights)
    if samples is not None:
        knobs.setdefault("num_samples", samples)
    bundle = Bundle.find(arguments.model)
    with hushed():
        if arguments.views == "True":
            config = bundle.config("train.yaml", *arguments.overlay, "evaluate.yaml", **knobs)
            knobs = view_knobs(config, 1 + len(weights["ensemble"] or ())) | knobs
        summary = bundle.evaluate(*arguments.overlay, **knobs)
    report = os.path.join(arguments.output, "report.html")
    sys.stdout.write(f"{mean_text(summary)}\n{report}\n")


def _add_compare(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "compare", help="compare two evaluations, case by case", description=_compare.__doc__
    )
    for name in ("A", "B"):
        parser.add_argument(name, help="metrics.csv of an evaluation, or its folder")
    parser.add_argument(
        "--groups",
        metavar="CSV",
        help="table with the columns case and group, such as patients: a group's cases are pooled "
        "into one first",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)"
    )
    _add_switch(parser, "json", "write JSON in place of a table")
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    """Compare two evaluations: mean scores, the mean difference B - A, and paired tests of it."""
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: expected 0 or more")
    import json

    from ldseg_monai.tools.compare import compare_evaluations, comparison_text

    found = compare_evaluations(arguments.A, arguments.B, arguments.groups, arguments.seed)
    is_json = arguments.json == "True"
    sys.stdout.write(f"{json.dumps(found, indent=2)}\n" if is_json else comparison_text(found))


def _add_models(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "models", help="list the bundles that are here", description=_models.__doc__
    )
    parser.set_defaults(command=_models)


def _models(arguments: argparse.Namespace) -> None:
    """List the bundles here: what each segments, its data, their terms, and its score."""
    from ldseg_monai.bundle import Bundle
    from ldseg_monai.tools.models import describe_bundles

    sys.stdout.write(describe_bundles(Bundle.installed()))


def _add_knobs(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "knobs", help="list what a bundle's commands can set", description=_list_knobs.__doc__
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of a bundle, or its name")
    parser.add_argument(
        "files",
        nargs="*",
        default=[],
        metavar="FILE",
        help="configs of the bundle, such as sequences.yaml (default: train.yaml, evaluate.yaml, "
        "inference.yaml)",
    )
    parser.set_defaults(command=_list_knobs)


def _list_knobs(arguments: argparse.Namespace) -> None:
    """List the knobs of a bundle's configs, with their values and what they are.

    Each is set by --set KNOB=VALUE here, and by --KNOB VALUE of python -m monai.bundle run.
    """
    from ldseg_monai.bundle import Bundle
    from ldseg_monai.tools.models import CONFIGS, describe_knobs

    files = arguments.files or CONFIGS
    sys.stdout.write(describe_knobs(Bundle.find(arguments.bundle), files))


def _add_info(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "info", help="say what bundles would make of an image", description=_info.__doc__
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="+",
        help="file, or folder of a DICOM series; of a volume of several channels, a file each",
    )
    parser.add_argument(
        "-m", "--model", metavar="BUNDLE", help="folder or name of a bundle (default: all here)"
    )
    parser.set_defaults(command=_info)


def _info(arguments: argparse.Namespace) -> None:
    """Say of an image what a bundle would make of it, without segmenting it."""
    from ldseg_monai.bundle import Bundle
    from ldseg_monai.tools.models import describe_image

    bundles = Bundle.installed() if arguments.model is None else [Bundle.find(arguments.model)]
    sys.stdout.write(describe_image(arguments.image, bundles))


def _knobs(items: Sequence[str], taken: Sequence[str] = ()) -> dict[str, Any]:
    """Knobs of a command line, ``KEY=VALUE`` each; without a value it is the empty text.

    MONAI leaves out a knob that is None, and so keeps the config's value. So null, or None as its
    commands have it, is handed on as an expression.

    Args:
        items: as they were typed.
        taken: names of what the command sets itself.

    Raises:
        InputError: for an item that is none, that is there twice, or that the command sets itself.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """One that reads 1e-4 as a number, as YAML 1.2 does."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("+-.0123456789"))
    knobs = {}
    for item in items:
        key, separator, value = item.partition("=")
        try:
            loaded = yaml.load(value, Loader) if value else ""  # noqa: S506
        except (yaml.YAMLError, ValueError) as error:  # ValueError of a date that is none
            raise InputError(f"--set {item}: expected a value as YAML has it ({error})") from error
        if not separator or not key.strip():
            raise InputError(f"--set {item}: expected KEY=VALUE")
        if key in knobs:
            raise InputError(f"--set {item}: {key} is set twice; expected one value of it")
        if key in taken:
            raise InputError(
                f"--set {item}: the command sets {key} itself; leave it out, and give the "
                "command's own options"
            )
        is_null = loaded is None or value == "None"
        knobs[key] = "$None" if is_null else loaded
    return knobs


def _add_phantom(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "phantom", help="write seeded phantoms with labels", description=_phantom.__doc__
    )
    parser.add_argument(
        "kind",
        choices=PHANTOMS,
        help="MR volumes of a knee, a hippocampus or a brain tumor, H&E pictures of glands or "
        "nuclei, a chest X-ray (thorax) or an ultrasound picture of the heart (echo), or a "
        "sequence of a beat",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder to write images/ and labels/ to"
    )
    parser.add_argument(
        "--num", type=int, default=12, help="number of cases (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed, 0 or more (default: %(default)s)"
    )
    parser.add_argument(
        "--channels",
        type=int,
        metavar="N",
        help="sequences of a tumor, each in a file of its own: FLAIR, T1 with contrast, T1, T2 "
        "(default: 2, of other kinds 1)",
    )
    parser.set_defaults(command=_phantom)


def _phantom(arguments: argparse.Namespace) -> None:
    """Write phantoms as a data set of images/ and labels/, a dataset_dir of every bundle."""
    from ldseg_monai.data.phantoms.files import CHANNELS, write_phantoms

    channels = arguments.channels
    if channels is None:
        channels = CHANNELS.get(arguments.kind, 1)
    write_phantoms(arguments.kind, arguments.out, arguments.num, arguments.seed, None, channels)


def _add_path(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "path", help="print the folder of a bundle, or all bundles", description=_path.__doc__
    )
    parser.add_argument(
        "bundle",
        nargs="?",
        metavar="BUNDLE",
        help="folder of a bundle, or its name: of one in ./bundles, else of an installed one "
        "(default: list them all)",
    )
    parser.set_defaults(command=_path)


def _path(arguments: argparse.Namespace) -> None:
    """Print the folder of a bundle, which has its configs and weights."""
    from ldseg_monai.runtime.places import bundle_folders, find_bundle

    if arguments.bundle is not None:
        sys.stdout.write(f"{find_bundle(arguments.bundle)}\n")
        return
    for name, folder in bundle_folders().items():
        sys.stdout.write(f"{name}: {folder}\n")


def _add_calibrate(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "calibrate",
        help="scale weights so that their probabilities are true",
        description=_calibrate.__doc__,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of an LDSeg bundle, or its name")
    parser.add_argument(
        "--dataset_dir", required=True, metavar="DIR", help="images and labels, as for training"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="file to write the scaled weights to"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="state dict (default: the bundle's models/model.pt)"
    )
    parser.add_argument(
        "--part",
        default="val",
        choices=("val", "all"),
        help="cases to take: the split's or all (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="knobs that the training had, such as seed=1, fold=0 or val_cases=FILE; where none "
        "chooses cases, the bundle's own weights get their own validation cases",
    )
    _add_switch(parser, "force", "take images that the weights do not know, instead of refusing")
    parser.set_defaults(command=_calibrate)


def _calibrate(arguments: argparse.Namespace) -> None:
    """Fit one temperature to the logits on cases not trained on, and write weights scaled by it."""
    from ldseg_monai.tools.calibrate import calibrate

    fit = calibrate(
        arguments.bundle,
        arguments.dataset_dir,
        arguments.out,
        arguments.weights,
        arguments.part,
        _knobs(arguments.set),
        arguments.force == "True",
    )
    unseen = (
        f", {fit.error_unseen:.3f} where each case has the temperature of the others"
        if fit.cases > 1
        else ""
    )
    sys.stdout.write(
        f"wrote {arguments.out}: temperature {fit.temperature:.2f} by "
        f"{counted(fit.cases, 'case')}, calibration error of one sample {fit.error_before:.3f} "
        f"before, {fit.error_after:.3f} after{unseen}\n"
    )


def _add_export(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "export", help="write a sampler as TorchScript or ONNX", description=_export.__doc__
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of a bundle, or its name")
    parser.add_argument(
        "file", metavar="FILE", help="file to write: .ts for TorchScript, .onnx for ONNX"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="state dict (default: the bundle's models/model.pt)"
    )
    parser.add_argument(
        "--num_samples",
        "--num-samples",
        type=int,
        metavar="N",
        help="samples whose mean is returned (default: the bundle's)",
    )
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> None:
    """Write a bundle's network with its reverse process: image in, class probabilities out."""
    from ldseg_monai.tools.export import export
    from ldseg_monai.tools.predict import hushed

    with hushed():
        export(arguments.bundle, arguments.file, arguments.weights, arguments.num_samples)


def _add_zoo_export(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "zoo-export",
        help="write a bundle as MONAI's model zoo takes it",
        description=_zoo_export.__doc__,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of a bundle, or its name")
    parser.add_argument("out", metavar="OUT", help="folder to write NAME/ and NAME_vVERSION.zip to")
    parser.add_argument(
        "--large-files",
        metavar="URL",
        help="URL of models/model.pt: the folder then has large_files.yml in its place",
    )
    parser.add_argument(
        "--scores",
        metavar="FILE",
        help="summary.json of an evaluation, for a card that says that the bundle is not trained "
        "(default: the bundle's output/summary.json)",
    )
    parser.set_defaults(command=_zoo_export)


def _zoo_export(arguments: argparse.Namespace) -> None:
    """Write a bundle with its code, as a folder and a zip that run without ldseg_monai."""
    from ldseg_monai.tools.zoo import export_bundle

    folder = export_bundle(arguments.bundle, arguments.out, arguments.large_files, arguments.scores)
    sys.stdout.write(f"wrote {folder}, and the zip of it beside it\n")


def _add_publish(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "publish",
        help="put a bundle where others find it: on Hugging Face's hub, or as a zip",
        description=_publish.__doc__,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of a bundle, or its name")
    parser.add_argument(
        "--to",
        nargs=2,
        required=True,
        metavar=("KIND", "PLACE"),
        help="hf USER/NAME: a repository of Hugging Face's hub, with the token of HF_TOKEN or of "
        "`hf auth login`; folder DIR: NAME_vVERSION.zip in it, for a server or a release",
    )
    _add_switch(parser, "public", "let everybody see a repository that is made now")
    parser.add_argument(
        "--scores",
        metavar="FILE",
        help="summary.json of an evaluation, as for zoo-export",
    )
    parser.set_defaults(command=_publish)


def _publish(arguments: argparse.Namespace) -> None:
    """Check that a bundle works for others, and put it where monai.bundle.download finds it.

    It is exported as by zoo-export, unpacked and run without ldseg_monai: its masks of a phantom
    have to be those of the bundle here. What is there already is never written over.
    """
    kind, place = arguments.to
    if kind not in PUBLISHED_AS:
        raise InputError(f"--to {kind}: expected {' or '.join(PUBLISHED_AS)}")
    public = arguments.public == "True"
    if public and kind != "hf":
        raise InputError(f"--public with --to {kind}: expected it with --to hf alone")
    from ldseg_monai.bundle import Bundle
    from ldseg_monai.tools.predict import hushed
    from ldseg_monai.tools.publish import publish_to_folder, publish_to_hub

    bundle = Bundle.find(arguments.bundle)
    options = [f'name="{bundle.name}"', 'bundle_dir="."']
    with hushed():
        if kind == "folder":
            archive = publish_to_folder(arguments.bundle, place, arguments.scores)
            published = str(archive)
            options += [f'url="{archive.resolve().as_uri()}"']
        else:
            published = publish_to_hub(arguments.bundle, place, public, arguments.scores)
            options += ['source="huggingface_hub"', f'repo="{place}"']
            options += [f'version="{bundle.metadata["version"]}"']
    sys.stdout.write(f"published {published}\nmonai.bundle.download({', '.join(options)})\n")


def _add_new_bundle(subparsers: argparse._SubParsersAction[_Parser]) -> None:
    parser = subparsers.add_parser(
        "new-bundle",
        help="write a bundle for a data set of one's own",
        description=_new_bundle.__doc__,
    )
    parser.add_argument(
        "--from",
        required=True,
        dest="source",
        metavar="BUNDLE",
        help="folder of the bundle to start from, or its name",
    )
    parser.add_argument("--name", required=True, help="name of the new bundle, such as my_organ")
    parser.add_argument(
        "--dataset_dir",
        "--dataset",
        required=True,
        metavar="DIR",
        help="folder of images/ and labels/, or with a dataset.json",
    )
    parser.add_argument(
        "--out",
        default="bundles",
        metavar="DIR",
        help="folder to write it to (default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        metavar="NAME,...",
        help="names of the label values but 0 (default: those of dataset.json, or class_1,...)",
    )
    parser.add_argument(
        "--instances",
        action="store_true",
        help="labels are instance ids: whatever is not 0 is one class",
    )
    _add_switch(
        parser,
        "require_codes",
        "refuse NIfTI that does not say where right and left are; so does the new bundle then",
    )
    parser.set_defaults(command=_new_bundle)


def _new_bundle(arguments: argparse.Namespace) -> None:
    """Inspect a data set, write a bundle that fits it, and print its commands."""
    from ldseg_monai.tools.new_bundle.write import new_bundle

    names = arguments.classes.split(",") if arguments.classes is not None else None
    report = new_bundle(
        arguments.source,
        arguments.name,
        arguments.dataset_dir,
        arguments.out,
        names,
        arguments.instances,
        arguments.require_codes == "True",
    )
    sys.stdout.write(report)


if __name__ == "__main__":
    sys.exit(main())
