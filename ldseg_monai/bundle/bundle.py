"""A bundle: a folder of configs, weights and a card."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, create_workflow

from ldseg_monai.bundle.names import check_layers, check_levels
from ldseg_monai.bundle.reader import make_importable
from ldseg_monai.bundle.tracking import check_tracking
from ldseg_monai.data.datalist import PathLike, case_name, find_cases
from ldseg_monai.data.split import read_val_cases
from ldseg_monai.networks.weights import load_weights
from ldseg_monai.runtime.errors import InputError, MissingFileError, one_line
from ldseg_monai.runtime.nearest import did_you_mean
from ldseg_monai.runtime.places import bundle_folders, find_bundle

# Overlays on the inference.yaml of bundles of pictures: for frames, and for a picture's rows
SEQUENCES, STRIPS = "sequences.yaml", "strips.yaml"


class Bundle:
    """A bundle's folder, and what is in it; everything is read when it is asked for.

    Args:
        root: the folder; a name as of `find` where there is no folder of that name here.

    Raises:
        FileNotFoundError: if there is neither.

    Example:
        >>> bundle = Bundle("ldseg_glas")  # doctest: +SKIP
        >>> network = bundle.network()  # doctest: +SKIP
    """

    def __init__(self, root: PathLike) -> None:
        self.root: Path = Path(root)
        if len(self.root.parts) == 1 and not self.root.is_dir():
            self.root = self.find(root).root

    @classmethod
    def find(cls, bundle: PathLike) -> Bundle:
        """The bundle in a folder, or of a name: in ``./bundles``, else an installed one.

        Raises:
            FileNotFoundError: if there is none.
        """
        return cls(find_bundle(bundle))

    @classmethod
    def installed(cls) -> list[Bundle]:
        """The bundles that `find` knows by name: in ``./bundles``, then installed ones."""
        return [cls(folder) for folder in bundle_folders().values()]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.resolve().name

    @property
    def title(self) -> str:
        """What its metadata call it; without any, the name of the folder."""
        return self.metadata.get("name") or self.name

    @property
    def configs(self) -> Path:
        """Folder of the configs."""
        return self.root / "configs"

    @property
    def weights(self) -> Path:
        """File of the weights that it ships with, which a new bundle does not have yet."""
        return self.root / "models" / "model.pt"

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of ``configs/metadata.json``; empty where there is none.

        Raises:
            ValueError: if it is no JSON.
        """
        path = self.configs / "metadata.json"
        if not path.is_file():
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"metadata.json of {self.name} is no JSON ({error}): correct it"
            ) from error
        return content

    @property
    def spatial_dims(self) -> int:
        """Axes of its images, by the metadata: 2 of pictures, 3 of volumes."""
        inputs = self.metadata["network_data_format"]["inputs"]
        return len(inputs["image"]["spatial_shape"])

    @property
    def class_names(self) -> dict[int, str]:
        """Names of the classes by their index, from the background on, by the metadata."""
        outputs = self.metadata.get("network_data_format", {}).get("outputs", {})
        names = outputs.get("pred", {}).get("channel_def", {})
        return {int(index): name for index, name in names.items()}

    @property
    def channel_names(self) -> list[str]:
        """Names of an image's channels, by the metadata."""
        inputs = self.metadata.get("network_data_format", {}).get("inputs", {})
        names = inputs.get("image", {}).get("channel_def", {})
        return [names[key] for key in sorted(names, key=int)]

    def config_file(self, name: str) -> Path:
        """Path of a config below ``configs``: that of its JSON form where there is no YAML.

        Without either, the name may be the path of a file from the current folder.

        Raises:
            FileNotFoundError: if there is none of these.
        """
        path = self.configs / name
        for file in (path, path.with_suffix(".json"), Path(name).absolute()):
            if file.is_file():
                return file
        there = [str(file.relative_to(self.configs)) for file in self.configs.glob("**/*.yaml")]
        hint = did_you_mean(name, there, number=3)
        raise MissingFileError(
            f"{path} is not there: expected a file of the bundle {self.name}{hint}"
        )

    def config(self, *names: str, **overrides: Any) -> ConfigParser:
        """Read configs, each over the ones before, for this folder, and let them name its modules.

        Args:
            names: files below ``configs``, such as ``train.yaml``.
            overrides: values by id, as the command line gives them.

        Raises:
            FileNotFoundError: if one is not there.
            ValueError: as of `check_layers`, for files that do not go together, and for an override
                of a part of something that they do not have.
        """
        files = [str(self.config_file(name)) for name in names]
        check_layers(files)
        parser = ConfigParser()
        try:
            parser.read_config(files)
        except Exception as error:  # MONAI raises several kinds, as for + before a number
            raise InputError(
                f"{', '.join(files)} cannot be put over each other ({one_line(error)}): expected "
                "ids of the first with new values, by + more of what is a list or has entries"
            ) from error
        check_levels(parser, overrides)
        # A copy, since an override may be changed by the next one.
        changes = {"bundle_root": str(self.root), **copy.deepcopy(overrides)}
        parser.update({name: _kept(value) for name, value in changes.items()})
        make_importable(self.root)
        return parser

    def network(self, weights: PathLike | None = None, **overrides: Any) -> torch.nn.Module:
        """Its trained network, as ``inference.yaml`` makes it, in eval mode on the CPU.

        Args:
            weights: state dict; None for the bundle's own.
            overrides: of the config.

        Raises:
            FileNotFoundError: without weights.
            ValueError: if they cannot be read, or are of another network.
        """
        config = self.config("inference.yaml", **overrides)
        network: torch.nn.Module = config.get_parsed_content("network_def")
        load_weights(network, str(weights or self.weights))
        return network.eval()

    def run(self, *configs: str, run_id: str = "run", **knobs: Any) -> ConfigParser:
        """Run configs in this process, as ``python -m monai.bundle run`` does.

        Args:
            configs: files below ``configs``, each over the ones before.
            run_id: id of what is run.
            knobs: values by id, as the command line gives them.

        Returns:
            The config as it was run.

        Raises:
            FileNotFoundError: if a config is not there.
            ValueError: for a knob that they do not have, or a value that no run could use.
        """
        for name in ("output_dir", "dataset_dir", "model_path"):
            if isinstance(knobs.get(name), os.PathLike):
                knobs[name] = os.fspath(knobs[name])
        # What MONAI reads before a config's own checks, and has a traceback for
        self.config(*configs, **knobs)
        knobs = readable(knobs)
        check_tracking(knobs.get("tracking"))
        workflow = create_workflow(
            config_file=[str(self.config_file(name)) for name in configs],
            bundle_root=str(self.root),
            run_id=run_id,
            logging_file=False,
            **knobs,
        )
        workflow.run()
        workflow.finalize()
        parser: ConfigParser = workflow.parser
        return parser

    def train(self, *overlays: str, **knobs: Any) -> Path:
        """Train, as the command does with ``train.yaml``.

        Args:
            overlays: configs that go over it, such as ``ablations/paper.yaml``.
            knobs: of the configs, such as ``dataset_dir`` and ``max_epochs``.

        Returns:
            The file of the weights.

        Raises:
            FileNotFoundError, ValueError: as of `run`.
        """
        config = self.run("train.yaml", *overlays, run_id="training", **knobs)
        return Path(config.get_parsed_content("output_dir"), "model.pt")

    def evaluate(self, *overlays: str, **knobs: Any) -> dict[str, Any]:
        """Score weights against labels, as the command does with ``evaluate.yaml``.

        Args:
            overlays: configs that go over ``train.yaml`` and below ``evaluate.yaml``: those that
                the weights were trained with.
            knobs: of the configs, such as ``dataset_dir`` and ``part``.

        Returns:
            The content of ``summary.json``; ``metrics.csv`` lies beside it, in ``output_dir``.

        Raises:
            FileNotFoundError, ValueError: as of `run`.
        """
        config = self.run("train.yaml", *overlays, "evaluate.yaml", **knobs)
        file = Path(config.get_parsed_content("output_dir"), "summary.json")
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return summary

    def val_cases(self, dataset_dir: PathLike) -> list[str] | None:
        """The cases that the training of its own weights left out: ``docs/val_cases.txt``.

        Returns:
            Their names; None where the bundle names none.

        Raises:
            ValueError: if the data set does not have them: any others might be those that the
                weights were trained on.
        """
        path = self.root / "docs" / "val_cases.txt"
        if not path.is_file():
            return None
        names = read_val_cases(path)
        there = {case_name(item["image"]) for item in find_cases(dataset_dir)}
        missing = [name for name in names if name not in there]
        if missing:
            raise InputError(
                f"{path} names {len(names)} cases that these weights were not trained on, and "
                f"{os.fspath(dataset_dir)} lacks {len(missing)} of them, such as {missing[0]}: "
                "expected that data set, of which others than these were trained on; take part "
                "all of data that the weights did not see, or name val_cases or a fold"
            )
        return names

    def own_split(self, dataset_dir: PathLike) -> dict[str, Any]:
        """Overrides of ``train.yaml`` by which the own weights' validation cases validate.

        These cases were chosen when the weights were trained, whoever their patients are.
        """
        names = self.val_cases(dataset_dir)
        if names is not None and "patients" in self.config("train.yaml"):
            return {"val_cases": names, "patients": ""}
        return {"val_cases": names}


def _kept(value: Any) -> Any:
    """A value of a config, of which MONAI keeps each ``#`` where it is a text with one.

    Else it writes ``::`` for it, of a path too.
    """
    if not isinstance(value, str) or "#" not in value or value.startswith(("$", "@", "%")):
        return value
    return "$" + repr(value).replace("#", r"\x23").replace("@", r"\x40")


def readable(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Knobs as MONAI can read them: it fails at a path with ``@##``, which it takes for an id."""
    return {name: _readable(name, value) for name, value in knobs.items()}


def _readable(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_readable(f"{name}#{index}", item) for index, item in enumerate(value)]
    if isinstance(value, str):
        try:
            ConfigParser.resolve_relative_ids(name, value)
        except ValueError:
            return _kept(value)
    return value


def class_names(bundle_root: PathLike) -> dict[int, str]:
    """Names of a bundle's classes by their index, for a config; none where it has no metadata."""
    return Bundle(bundle_root).class_names
