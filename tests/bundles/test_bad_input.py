"""Whatever is wrong with files, weights or knobs is one error that names it, before any work."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from bad_cases import IMAGES, LABELS, Bad, write_good
from bundle_kinds import BUNDLES, dims, first_of_each
from monai.bundle import ConfigWorkflow
from PIL import Image
from small_data import write_volume
from workplace import Workplace, listing, tiny_overrides

from ldseg_monai.runtime.errors import UserError, cause

TRAIN = ("train", ["train.yaml"])
EVALUATE = ("eval", ["train.yaml", "evaluate.yaml"])
INFER = ("infer", ["inference.yaml"])
WORKFLOWS = [TRAIN, EVALUATE, INFER]
pytestmark = pytest.mark.usefixtures("process_left_as_it_was")


@pytest.fixture
def place(bundle: str, tmp_path: Path) -> Workplace:
    return Workplace.make(tmp_path / "place", bundle)


@pytest.fixture
def data(bundle: str, tmp_path: Path) -> Path:
    write_good(tmp_path / "data", dims(bundle))
    return tmp_path / "data"


def run(place: Workplace, kind: str, configs: list[str], **overrides: Any) -> ConfigWorkflow:
    """Run a workflow as clients do, on the CPU, into a folder beside the bundle's."""
    places = {"device": "cpu", "output_dir": str(place.root / "output")}
    workflow = place.workflow(kind, configs, **{**places, **overrides})
    workflow.initialize()
    workflow.run()
    return workflow


def command(place: Workplace, configs: list[str], **overrides: Any) -> None:
    """Run what `python -m monai.bundle run` does, in this process."""
    shipped = [name for name in configs if name != "mine.yaml"]
    values = {
        **tiny_overrides(place.bundle, *shipped),
        "output_dir": str(place.root / "output"),
        **overrides,
    }
    files = [str(place.bundle_root / "configs" / name) for name in configs]
    monai.bundle.run(
        config_file=files, logging_file=False, bundle_root=str(place.bundle_root), **values
    )


def error_of(function: Any, *args: Any, **kwargs: Any) -> BaseException:
    """What a person reads of the error that a call ends with, which has to be one of ours."""
    with pytest.raises(Exception) as raised:
        function(*args, **kwargs)
    error = cause(raised.value)
    assert isinstance(error, UserError), f"{type(error).__name__}: {error}"
    return error


def bad_cases(kinds: dict[int, dict[str, Bad]]) -> list[Any]:
    """Every bundle with every bad case of its kind of image; quick are those of the first bundle."""
    params = []
    for bundle in BUNDLES:
        for number, (name, bad) in enumerate(kinds[dims(bundle)].items()):
            # One case shows that a bundle looks at all; how, is the same component in all.
            slow = number > 0 and bundle not in first_of_each(dims)
            marks = [pytest.mark.slow] if slow else []
            params.append(pytest.param(bundle, bad, id=f"{bundle}-{name}", marks=marks))
    return params


def require_named(error: BaseException, folder: Path, bad: Bad) -> None:
    assert isinstance(error, (ValueError, OSError))
    assert str(folder / bad.file) in str(error) and bad.says in str(error), str(error)


@pytest.mark.parametrize(("bundle", "bad"), bad_cases(IMAGES), indirect=["bundle"])
def test_bad_image_is_named_before_training_and_by_inference(
    place: Workplace, data: Path, bad: Bad
) -> None:
    bad.write(data)
    before = listing(place.root)
    require_named(error_of(run, place, *TRAIN, dataset_dir=str(data)), data, bad)
    assert listing(place.root) == before
    path = next((data / "images").glob("bad.*"))
    preprocessing = place.workflow(*INFER).parser.get_parsed_content("preprocessing")
    require_named(error_of(preprocessing, {"image": str(path)}), data, bad)


@pytest.mark.parametrize(("bundle", "bad"), bad_cases(LABELS), indirect=["bundle"])
def test_bad_label_is_named_before_training_and_by_evaluation(
    place: Workplace, data: Path, bad: Bad
) -> None:
    bad.write(data)
    before = listing(place.root)
    require_named(error_of(run, place, *TRAIN, dataset_dir=str(data)), data, bad)
    assert listing(place.root) == before
    pair = {part: str(next((data / f"{part}s").glob("bad.*"))) for part in ("image", "label")}
    preprocessing = place.workflow(*EVALUATE).parser.get_parsed_content("validate#preprocessing")
    require_named(error_of(preprocessing, pair), data, bad)


def test_labels_without_any_class_are_refused_in_training(place: Workplace, data: Path) -> None:
    for path in (data / "labels").iterdir():
        path.unlink()
    for seed, path in enumerate(sorted((data / "images").glob("*.nii.gz"))):
        write_volume(data, path.name.split(".")[0], *empty_volume(seed))
    for path in (data / "images").glob("*.png"):
        Image.new("L", Image.open(path).size).save(data / "labels" / path.name)
    error = error_of(run, place, *TRAIN, dataset_dir=str(data))
    assert "every label of the 2 training cases is 0" in str(error) and str(data) in str(error)
    assert not (place.root / "output").exists()


def empty_volume(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(seed).normal(0, 1, (20, 24, 18)).astype(np.float32)
    return image, np.zeros(image.shape, np.uint8)


@pytest.mark.parametrize(("kind", "configs"), WORKFLOWS)
def test_folder_without_images_is_an_error(
    place: Workplace, tmp_path: Path, kind: str, configs: list[str]
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    error = error_of(run, place, kind, configs, dataset_dir=str(tmp_path / "empty"))
    assert isinstance(error, FileNotFoundError) and str(tmp_path / "empty" / "images") in str(error)


@pytest.mark.parametrize(("kind", "configs"), [TRAIN, EVALUATE])
def test_unpaired_file_is_an_error(
    place: Workplace, data: Path, kind: str, configs: list[str]
) -> None:
    lonely = next((data / "labels").glob("good_1.*"))
    lonely.unlink()
    error = error_of(run, place, kind, configs, dataset_dir=str(data))
    assert isinstance(error, ValueError) and "images/good_1." in str(error)


KNOBS = {
    "num_inference_steps": (0, 1001),
    "num_samples": (0, -1, 1.5),
    "seed": (-1, "x"),
    "amp": ("flase",),
    "num_classes": (1,),
    "device": ("cuda:99", "gpu"),
    "num_phantoms": (0,),
}
TRAINING_KNOBS = {
    "batch_size": (0,),
    "max_epochs": (0,),
    "cases_per_epoch": (0,),
    "num_workers": (-1,),
    "val_interval": (0,),
    "learning_rate": (-0.1, "1e-3", float("nan")),
    "val_fraction": (0.0, 1.0, -0.5),
}


@pytest.mark.parametrize(("kind", "configs"), WORKFLOWS)
def test_bad_value_of_a_knob_is_an_error_that_names_it(
    place: Workplace, kind: str, configs: list[str]
) -> None:
    before = listing(place.root)
    workflow = place.workflow(kind, configs)
    for name, values in (KNOBS if kind == "infer" else KNOBS | TRAINING_KNOBS).items():
        good = workflow.parser[name]
        for value in values:
            workflow.parser[name] = value
            error = error_of(workflow.initialize)
            assert isinstance(error, ValueError)
            assert str(error).startswith(f"{name} is {value!r}") and "expected" in str(error), str(
                error
            )
        workflow.parser[name] = good
    assert listing(place.root) == before


@pytest.mark.parametrize(("kind", "configs"), WORKFLOWS)
@pytest.mark.parametrize(
    ("misspelt", "nearest"),
    [
        ("num_sample", "num_samples"),
        ("network_def#image_encoder#out_chanels", "network_def#image_encoder#out_channels"),
        ("out_dir", "output_dir"),
    ],
)
def test_misspelt_knob_is_an_error_with_the_nearest_name(
    place: Workplace, kind: str, configs: list[str], misspelt: str, nearest: str
) -> None:
    before = listing(place.root)
    error = error_of(command, place, configs, **{misspelt: 3})
    assert str(error).startswith(f"unknown knob --{misspelt}: ") and str(error).endswith(
        f"did you mean {nearest}?"
    )
    assert listing(place.root) == before


def test_misspelt_key_of_an_overlay_is_an_error_that_names_the_file(place: Workplace) -> None:
    overlay = place.bundle_root / "configs" / "mine.yaml"
    for content, nearest in (
        ("max_epoch: 3\n", "max_epochs"),
        ("+train#trainer: {max_epoch: 3}\n", "max_epochs"),
    ):
        overlay.write_text(content)
        error = error_of(command, place, ["train.yaml", "mine.yaml"])
        assert str(error).startswith(f"{overlay} has the key ") and f"{nearest}?" in str(error), (
            str(error)
        )


def test_overlay_may_add_a_knob_that_it_uses(place: Workplace) -> None:
    overlay = place.bundle_root / "configs" / "mine.yaml"
    overlay.write_text("mine: -1\nseed: '@mine'\n")
    assert str(error_of(command, place, ["inference.yaml", "mine.yaml"])).startswith("seed is -1")


def test_output_dir_among_the_images_is_an_error(
    place: Workplace, data: Path, untrained: Path
) -> None:
    images = data / "images"
    before = listing(images)
    labels = data / "labels"
    places = ((data, images), (data, labels), (images, images), (images, images / "images"))
    for dataset_dir, output_dir in places:
        overrides = {
            "dataset_dir": str(dataset_dir),
            "output_dir": str(output_dir),
            "model_path": str(untrained),
        }
        error = error_of(command, place, ["inference.yaml"], **overrides)
        assert "the folder of the images or of the labels: expected another one" in str(error)
    assert listing(images) == before


@pytest.mark.parametrize("configs", [configs for _, configs in WORKFLOWS])
def test_output_dir_that_cannot_be_written_to_is_an_error(
    place: Workplace, configs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.root / "file").write_text("")
    error = error_of(command, place, configs, output_dir=str(place.root / "file" / "output"))
    assert isinstance(error, NotADirectoryError) and str(place.root / "file") in str(error)
    monkeypatch.setattr(
        "os.access", lambda path, mode: False
    )  # root may write where others may not
    error = error_of(command, place, configs, output_dir=str(place.root / "new" / "output"))
    assert isinstance(error, PermissionError) and str(place.root) in str(error)


def other_classes(place: Workplace, path: Path) -> None:
    classes = place.workflow(*INFER).parser["num_classes"] + 1
    network = place.workflow(*INFER, num_classes=classes).parser.get_parsed_content("network_def")
    torch.save(network.state_dict(), path)


def cut(place: Workplace, path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


class Malicious:
    def __reduce__(self) -> tuple:
        return (print, ("this should not run",))


BAD_WEIGHTS = {
    "missing": (lambda place, path: path.unlink(), "there is no file"),
    "another network": (
        lambda place, path: torch.save(torch.nn.Linear(2, 3).state_dict(), path),
        "of another network",
    ),
    "another number of classes": (other_classes, "of another size"),
    "cut short": (cut, "is it cut short?"),
    "text": (lambda place, path: path.write_text("weights"), "no file of weights"),
    "no bytes": (lambda place, path: path.write_text(""), "is it cut short?"),
    "a program": (
        lambda place, path: path.write_bytes(pickle.dumps(Malicious())),
        "could run code",
    ),
    "a program in a zip": (
        lambda place, path: torch.save({"model": Malicious()}, path),
        "could run code",
    ),
    "a checkpoint": (
        lambda place, path: torch.save({"network": {}, "trainer": {}, "cases": []}, path),
        "is the checkpoint of a training",
    ),
    "a tensor": (lambda place, path: torch.save(torch.zeros(3), path), "holds a Tensor"),
}


@pytest.mark.parametrize(("kind", "configs"), [EVALUATE, INFER])
def test_bad_weights_are_an_error_before_the_first_case(
    place: Workplace,
    data: Path,
    untrained: Path,
    tmp_path: Path,
    kind: str,
    configs: list[str],
    capfd: Any,
) -> None:
    output_dir = place.root / "output"
    workflow = place.workflow(
        kind,
        configs,
        device="cpu",
        dataset_dir=str(data),
        output_dir=str(output_dir),
        model_path=str(tmp_path / "x.pt"),
    )
    workflow.initialize()
    handlers = workflow.parser.get_parsed_content(
        "handlers" if kind == "infer" else "validate#handlers"
    )
    (loader,) = [handler for handler in handlers if hasattr(handler, "load_path")]
    for name, (spoil, says) in BAD_WEIGHTS.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(untrained.read_bytes())
        spoil(place, path)
        loader.load_path = str(path)
        error = error_of(
            workflow.run if name == "missing" else loader, *([] if name == "missing" else [None])
        )
        assert isinstance(error, (ValueError, OSError))
        assert str(path) in str(error) and says in str(error), f"{name}: {error}"
    assert "this should not run" not in capfd.readouterr().out
    assert not output_dir.exists() or not [path for path in output_dir.rglob("*") if path.is_file()]


def test_checkpoint_cut_short_is_an_error_before_training(
    place: Workplace, phantoms: Path, untrained: Path
) -> None:
    path = place.root / "output" / "checkpoint.pt"
    path.parent.mkdir()
    path.write_bytes(untrained.read_bytes())
    cut(place, path)
    before = path.read_bytes()
    error = error_of(run, place, *TRAIN, dataset_dir=str(phantoms))
    assert isinstance(error, ValueError) and str(path) in str(error)
    assert path.read_bytes() == before and not (path.parent / "model.pt").exists()


@pytest.mark.parametrize("bundle", ["ldseg_hippocampus"], indirect=True)
def test_command_line_shows_one_line(place: Workplace, data: Path) -> None:
    IMAGES[3]["cut short"].write(data)
    process = place.run_anew(
        "train.yaml", dataset_dir=str(data), output_dir=str(place.root / "output")
    )
    assert process.returncode == 1
    last = process.stdout.splitlines()[-1]
    assert last.startswith(f"ldseg_monai: error: {data}/images/bad.nii.gz cannot be read")
    assert last.endswith(" (LDSEG_TRACEBACK=1 shows where it was raised)")
    assert "Traceback" not in process.stdout and not (place.root / "output").exists()
