"""Every bundle in the real MONAI Label: its tasks in this process, and once its server on loopback."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_kinds import BUNDLES
from config_files import REPOSITORY
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism
from PIL import Image
from scipy.spatial.transform import Rotation
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from workplace import TINY, find_case, listing, read_image

from ldseg_monai.data.datalist import paired_datalist
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.runtime.errors import UserError, cause

pytestmark = pytest.mark.clients
pytest.importorskip(
    "monailabel", reason="MONAI Label has an environment of its own: run `make test-clients`"
)

import requests  # noqa: E402
from monailabel.datastore.local import LocalDatastore  # noqa: E402
from monailabel.tasks.activelearning.epistemic import Epistemic  # noqa: E402
from monailabel.tasks.infer.bundle import BundleInferTask  # noqa: E402
from monailabel.tasks.train.bundle import BundleTrainTask  # noqa: E402

from ldseg_monai.clients.monai_label import (  # noqa: E402
    UncertaintyScoring,
    in_turn,
    name_weights,
    write_image_forms,
)

KINDS = ("knee", "gland", "nuclei", "thorax", "echo")  # of phantoms
CROP = (
    slice(34, 66),
    slice(8, 40),
    slice(20, 52),
)  # of a knee phantom, with both bones: one window of every bundle
NUM_CASES = 4


@pytest.fixture(autouse=True)
def process_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    set_determinism(None)


@pytest.fixture(scope="session", autouse=True)
def repository_left_as_it_was() -> Iterator[None]:
    """MONAI Label writes into the folder of a bundle: never into ours."""
    before = listing(REPOSITORY / "bundles")
    yield
    assert listing(REPOSITORY / "bundles") == before


@pytest.fixture(scope="session", params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def shipped(bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle as it is."""
    return copy_bundle(bundle, tmp_path_factory.mktemp("shipped"))


@pytest.fixture
def tiny(bundle: str, tmp_path: Path) -> Path:
    """A copy of a bundle with a small network, not trained."""
    return copy_bundle(bundle, tmp_path / "tiny", small=True)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """Cases of each kind of phantom; the knees are small parts, in an oblique geometry."""
    folder = tmp_path_factory.mktemp("phantoms")
    for kind in KINDS:
        write_phantoms(kind, folder / kind, NUM_CASES)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix()
    for path in sorted((folder / "knee").glob("*/*.nii.gz")):
        part = nib.load(path).slicer[CROP]
        nib.save(nib.Nifti1Image(np.asanyarray(part.dataobj), turn @ part.affine), path)
    kinds = {kind: kind for kind in KINDS}
    kinds["hippocampus"] = "knee"  # any volume will do
    return {kind: paired_datalist(folder / other) for kind, other in kinds.items()}


@pytest.fixture
def cases(bundle: str, phantoms: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    return cases_for(bundle, phantoms)


def cases_for(bundle: str, phantoms: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
    return phantoms[load(REPOSITORY / "bundles" / bundle, "inference.yaml")["datalist#phantom"]]


def load(folder: Path, name: str) -> ConfigParser:
    return ConfigParser(ConfigParser.load_config_file(folder / "configs" / name))


def edit(folder: Path, name: str, values: dict[str, Any]) -> ConfigParser:
    """Change values in a config file of a copy of a bundle."""
    config = load(folder, name)
    for key, value in values.items():
        config[key] = value
    ConfigParser.export_config_file(
        config.config, str(folder / "configs" / name), fmt="yaml", sort_keys=False
    )
    return config


def copy_bundle(bundle: str, parent: Path, small: bool = False) -> Path:
    folder = parent / bundle
    shutil.copytree(
        REPOSITORY / "bundles" / bundle, folder, ignore=shutil.ignore_patterns("output", "eval")
    )
    # The same precision on every processor; parts of knees are of no size that weights know.
    for path in folder.glob("configs/*.yaml"):
        text = path.read_text().replace("amp: auto", "amp: false")
        path.write_text(text.replace("\nforce: false", "\nforce: true"))
    if small:
        sizes = TINY[bundle]
        edit(folder, "train.yaml", sizes.every | sizes.some["train.yaml"])
        torch.manual_seed(0)
        network = edit(folder, "inference.yaml", sizes.every).get_parsed_content("network_def")
        torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "models" / "model.pt", weights_only=True)


def channel_names(folder: Path) -> dict[str, int]:
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    names = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    return {name.lower(): int(index) for index, name in names.items() if index != "0"}


def segment(folder: Path, image: str, output_dir: Path, *overlays: str, **overrides: Any) -> Path:
    """Run the bundle's own inference on one image, and return the folder of its files."""
    dataset_dir = output_dir / "image"
    dataset_dir.mkdir(parents=True)
    shutil.copy(image, dataset_dir)
    places = {
        "bundle_root": str(folder),
        "dataset_dir": str(dataset_dir),
        "output_dir": str(output_dir),
    }
    configs = [str(folder / "configs" / name) for name in ("inference.yaml", *overlays)]
    workflow = ConfigWorkflow(
        configs, workflow_type="infer", logging_file=False, device="cpu", **places, **overrides
    )
    workflow.initialize()
    workflow.run()
    return output_dir


def infer(folder: Path, image: str, **options: Any) -> tuple[Path, dict[str, Any]]:
    """What MONAI Label's task makes of an image: the file of the mask, and the results beside it."""
    path, result = BundleInferTask(str(folder), {})(
        {"model": folder.name, "image": image, "device": "cpu", **options}
    )
    return Path(path), result


def assert_same_mask(ours: Path, theirs: Path) -> np.ndarray:
    """Check that two files hold one mask in one geometry, and return it."""
    assert ours.suffixes == theirs.suffixes
    (mask, affine), (other, other_affine) = read_image(ours), read_image(theirs)
    assert mask.dtype == other.dtype == np.uint8
    np.testing.assert_array_equal(mask, other)
    if affine is not None:
        np.testing.assert_allclose(affine, other_affine, atol=1e-4)
    return mask


def name_of(case: dict[str, str]) -> str:
    return Path(case["image"]).name.split(".")[0]


def studies(folder: Path, cases: list[dict[str, str]]) -> LocalDatastore:
    """A datastore of MONAI Label with the images, none of them labeled."""
    folder.mkdir()
    for case in cases:
        shutil.copy(case["image"], folder)
    return LocalDatastore(str(folder), extensions=("*.nii.gz", "*.png"))


def save_labels(store: LocalDatastore, cases: list[dict[str, str]]) -> None:
    for case in cases:
        store.save_label(name_of(case), case["label"], "final", {})


# Inference


def test_mask_is_that_of_the_bundles_own_inference(
    shipped: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    image = cases[0]["image"]
    own = segment(shipped, image, tmp_path / "own")
    theirs, result = infer(shipped, image)
    mask = assert_same_mask(find_case(own, f"{name_of(cases[0])}_label"), theirs)
    assert len(np.unique(mask)) > 1, "nothing was segmented, which leaves nothing to compare"
    assert result["label_names"] == channel_names(shipped)


def test_mask_has_both_forms_of_its_image_where_an_app_asks_for_it(
    tiny: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    if cases[0]["image"].endswith(".png"):
        pytest.skip("pictures have no forms")
    image = nib.load(cases[0]["image"])
    moved = image.affine.copy()
    moved[:3, 3] += 30
    image.set_sform(image.affine, 3)
    image.set_qform(moved, 2)
    nib.save(image, tmp_path / "two.nii.gz")
    with pytest.raises(UserError, match="two.nii.gz has a header by which .* with_image_forms"):
        infer(tiny, str(tmp_path / "two.nii.gz"))
    plain, _ = infer(tiny, cases[0]["image"])
    task = BundleInferTask(str(tiny), {})
    write_image_forms(task)
    request = {"model": tiny.name, "image": str(tmp_path / "two.nii.gz"), "device": "cpu"}
    path, said = task(request)
    mask, old = nib.load(path), nib.load(plain)
    np.testing.assert_array_equal(mask.dataobj, old.dataobj)
    assert mask.get_data_dtype() == np.uint8
    for form, code in (("sform", 3), ("qform", 2)):
        affine, own = getattr(mask, f"get_{form}")(coded=True)
        assert own == code
        np.testing.assert_allclose(affine, getattr(image, f"get_{form}")(), atol=1e-3)
    remark = mask.header["descrip"].item().decode()
    assert remark.startswith("outside of known images: ") == ("outside_of_known" in said)


def test_options_are_shown_with_the_bundles_values(shipped: Path) -> None:
    config = load(shipped, "inference.yaml")
    info = BundleInferTask(str(shipped), {}).info()
    options = {"num_samples": config["num_samples"], "seed": config["seed"]}
    assert info["config"].items() >= options.items()
    assert {name: type(value) for name, value in options.items()} == {
        "num_samples": int,
        "seed": int,
    }


def test_labels_and_their_colors_are_shown(shipped: Path) -> None:
    info = BundleInferTask(str(shipped), {}).info()
    assert info["labels"] == channel_names(shipped)
    colors = info["config"]["label_colors"]
    assert colors.keys() == info["labels"].keys() and len(
        {tuple(color) for color in colors.values()}
    ) == len(colors)
    assert json.dumps(info)  # as the server sends it


def test_options_of_a_request_take_effect_and_do_not_last(
    shipped: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    image = cases[1]["image"]
    task = BundleInferTask(str(shipped), {})
    request = {"model": shipped.name, "image": image, "device": "cpu"}
    request["label_colors"] = next(
        iter(task.config()["label_colors"])
    )  # so 3D Slicer's panel sends a dictionary
    uncertainties = []
    for number, seed in ((2, 0), (2, 5), (3, 5)):
        own = segment(shipped, image, tmp_path / f"{number} {seed}", num_samples=number, seed=seed)
        theirs, result = task({**request, "num_samples": number, "seed": seed})
        assert_same_mask(find_case(own, f"{name_of(cases[1])}_label"), Path(theirs))
        label, sd = (
            read_image(find_case(own, f"{name_of(cases[1])}_{kind}"))[0] for kind in ("label", "sd")
        )
        sd = sd / 255 if sd.dtype == np.uint8 else sd  # a picture has gray levels
        wanted = sd[(label > 0) | (sd > 0.05)].mean()
        assert result["uncertainty"] == pytest.approx(
            wanted, abs=1e-5 if sd.dtype == np.float32 else 5e-3
        )
        uncertainties.append(result["uncertainty"])
    assert len(set(uncertainties)) == 3, uncertainties
    samples = task.config()["num_samples"]
    _, result = task(request)
    assert ("uncertainty" in result) == (samples > 1)


@pytest.mark.parametrize("bundle", ["ldseg_knee3d"], indirect=True)
def test_overlay_with_a_voxel_size_serves_as_well(
    shipped: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    # MONAI Label reads inference.yaml alone: whoever wants the overlay there merges the two.
    own = segment(shipped, cases[0]["image"], tmp_path / "own", "sliding_window.yaml")
    merged = copy_bundle(shipped.name, tmp_path / "merged")
    edit(merged, "inference.yaml", load(merged, "sliding_window.yaml").config)
    theirs, _ = infer(merged, cases[0]["image"])
    assert_same_mask(find_case(own, f"{name_of(cases[0])}_label"), theirs)


# Active learning


def test_scoring_writes_the_uncertainty_that_the_strategy_picks_by(
    tiny: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    store = studies(tmp_path / "studies", cases)
    save_labels(store, cases[:2])
    task = BundleInferTask(str(tiny), {})
    scoring = UncertaintyScoring(task, "doubt")
    unlabeled = [name_of(case) for case in cases[2:]]
    assert scoring({"device": "cpu"}, store) == {"total": 2, "executed": 2, "skipped": 0}
    doubts = {name: store.get_image_info(name)["doubt"] for name in unlabeled}
    assert doubts == {
        name_of(case): infer(tiny, case["image"], num_samples=5)[1]["uncertainty"]
        for case in cases[2:]
    }
    assert "doubt" not in store.get_image_info(name_of(cases[0]))
    picked = Epistemic(key="doubt")({"strategy": "doubt"}, store)
    assert picked["id"] == max(doubts, key=doubts.__getitem__)

    assert scoring({"device": "cpu"}, store) == {"total": 2, "executed": 0, "skipped": 2}
    os.utime(tiny / "models" / "model.pt", (1, 1))  # other weights
    assert scoring({"device": "cpu", "num_samples": 2}, store) == {
        "total": 2,
        "executed": 2,
        "skipped": 0,
    }
    assert {name: store.get_image_info(name)["doubt"] for name in unlabeled} != doubts
    with pytest.raises(ValueError, match="num_samples is 1: expected 2 or more"):
        scoring({"num_samples": 1}, store)


# Training


def panel_request(task: BundleTrainTask, **changes: Any) -> dict[str, Any]:
    """What the panel of 3D Slicer sends: every option that the task shows, the first of several."""
    options = {
        name: value[0] if isinstance(value, list) else value
        for name, value in task.config().items()
    }
    return {**options, "device": "cpu", "max_epochs": 1, **changes}


def test_training_goes_on_from_the_last_weights_as_labels_are_added(
    tiny: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    store = studies(tmp_path / "studies", cases)
    save_labels(store, cases[:3])
    inference, training = BundleInferTask(str(tiny), {}), BundleTrainTask(str(tiny), {})
    image = {"model": tiny.name, "image": cases[3]["image"], "device": "cpu"}
    before, mask = weights(tiny), read_image(Path(inference(image)[0]))[0]

    training(panel_request(training, model=tiny.name), store)
    first = weights(tiny)
    assert first.keys() == before.keys() and any(
        not torch.equal(first[key], before[key]) for key in first
    )
    assert not np.array_equal(read_image(Path(inference(image)[0]))[0], mask), (
        "inference has not seen the new weights"
    )
    names = {path.name for path in (tiny / "output").iterdir()}
    assert not names & {"checkpoint.pt", "model.pt", "phantoms_0"}, (
        "a request is not resumed, and has its own cases"
    )
    config = load(tiny, "train.yaml")
    losses = itertools.chain.from_iterable(
        EventAccumulator(str(path)).Reload().Scalars("train_loss")
        for path in (tiny / "output").glob("events.out.tfevents*")
        if "train_loss" in EventAccumulator(str(path)).Reload().Tags()["scalars"]
    )
    steps = config["cases_per_epoch"] // config["batch_size"]
    assert [event.step for event in losses] == list(range(1, steps + 1)), (
        "it should have trained once"
    )

    edit(tiny, "train.yaml", {"learning_rate": 0.0})  # so that the weights end as they began
    save_labels(store, cases[3:])
    training(panel_request(training, model=tiny.name), store)
    parameters = [name for name, _ in config.get_parsed_content("network_def").named_parameters()]
    second = weights(tiny)
    assert [name for name in parameters if not torch.equal(second[name], first[name])] == []


def test_too_few_labels_to_validate_on_are_refused(
    tiny: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    store = studies(tmp_path / "studies", cases)
    save_labels(store, cases[:2])
    before = weights(tiny)
    training = BundleTrainTask(str(tiny), {})
    with pytest.raises(RuntimeError) as error:
        training(panel_request(training, model=tiny.name), store)
    causes = [str(cause) for cause in chain_of(error.value)]
    assert any("no cases to validate on: expected one or more" in cause for cause in causes), causes
    assert all(torch.equal(value, before[key]) for key, value in weights(tiny).items())


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


# What a client asks wrong, and what it is told


def refusal(task: Any, *arguments: Any) -> str:
    """The one line of ours in the error of a task."""
    with pytest.raises(Exception) as raised:
        task(*arguments)
    told = cause(raised.value)
    assert isinstance(told, UserError), repr(told)
    assert "\n" not in str(told)
    return str(told)


@pytest.mark.parametrize("bundle", ["ldseg_hippocampus", "ldseg_glas"], indirect=True)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_samples": 0}, "num_samples is 0: expected a whole number, 1 or more"),
        ({"num_samples": "x"}, "num_samples is 'x': expected a whole number, 1 or more"),
        ({"seed": None}, "seed is None: expected a whole number from 0"),
        ({"result_extension": ".jpg"}, "result_extension is '.jpg': expected a kind of file that"),
        ({"image": np.zeros((40, 50, 3))}, "the image is an array of size [40, 50, 3]: expected"),
        ({"image": "none.png"}, "there is no file none.png"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, dict) else "",
)
def test_request_that_cannot_be_is_refused_and_leaves_the_task_as_it_was(
    tiny: Path, cases: list[dict[str, str]], options: dict[str, Any], says: str
) -> None:
    task = BundleInferTask(str(tiny), {})
    request = {"model": tiny.name, "image": cases[0]["image"], "device": "cpu"}
    assert says in refusal(task, {**request, **options})
    mask, _ = task({**request, "num_samples": 1, "seed": 0, "unknown": 1})
    assert_same_mask(infer(tiny, cases[0]["image"], num_samples=1, seed=0)[0], Path(mask))


@pytest.mark.parametrize("bundle", ["ldseg_glas"], indirect=True)
@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("A.JPEG", "JPEG"), ("a.bmp", "BMP")]
)
def test_mask_of_a_picture_goes_to_a_file_that_keeps_its_classes(
    tiny: Path, cases: list[dict[str, str]], tmp_path: Path, name: str, kind: str
) -> None:
    picture = Image.open(cases[0]["image"])
    picture.save(tmp_path / name, kind)
    mask, _ = infer(tiny, str(tmp_path / name), num_samples=1)
    assert mask.suffix == ".png"
    values = np.asarray(Image.open(mask))
    assert values.shape == picture.size[::-1] and set(np.unique(values)) <= {0, 1}


@pytest.mark.parametrize("bundle", ["ldseg_hippocampus"], indirect=True)
def test_mask_of_a_name_in_capitals_is_written(
    tiny: Path, cases: list[dict[str, str]], tmp_path: Path
) -> None:
    shutil.copy(cases[0]["image"], tmp_path / "A.NII.GZ")
    mask, _ = infer(tiny, str(tmp_path / "A.NII.GZ"))
    assert_same_mask(infer(tiny, cases[0]["image"])[0], mask)


@pytest.mark.parametrize("bundle", ["ldseg_hippocampus", "cdal_hippocampus"], indirect=True)
@pytest.mark.parametrize("wrong", ["half of them", "wrapped", "cut", "nothing"])
def test_weights_that_are_not_the_networks_give_no_mask_and_train_nothing(
    tiny: Path, cases: list[dict[str, str]], tmp_path: Path, wrong: str
) -> None:
    path = tiny / "models" / "model.pt"
    state = weights(tiny)
    if wrong == "half of them":
        torch.save(dict(list(state.items())[: len(state) // 2]), path)
    elif wrong == "wrapped":
        torch.save({"state_dict": state}, path)
    else:
        path.write_bytes(path.read_bytes()[: 1000 if wrong == "cut" else 0])
    content = path.read_bytes()
    task = BundleInferTask(str(tiny), {})
    name_weights(task)
    request = {"model": tiny.name, "image": cases[0]["image"], "device": "cpu"}
    assert str(path) in refusal(task, request)
    plain = BundleInferTask(str(tiny), {})
    if wrong in ("half of them", "wrapped"):
        assert "weights of another network" in refusal(plain, request)
    store = studies(tmp_path / "studies", cases)
    save_labels(store, cases)
    training = BundleTrainTask(str(tiny), {})
    assert str(path) in refusal(training, panel_request(training, model=tiny.name), store)
    assert path.read_bytes() == content


@pytest.mark.parametrize("bundle", ["ldseg_hippocampus"], indirect=True)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_epochs": 0}, "max_epochs is 0: expected a whole number, 1 or more"),
        ({"max_epochs": "x"}, "max_epochs is 'x': expected a whole number, 1 or more"),
        ({"val_split": -1}, "train#dataset#data is given and validate#dataset#data is not"),
        ({"val_split": 0}, "no cases to validate on"),
        ({"val_split": 1}, "no cases to train on"),
        ({"twice": True}, "are the same image, and one would train and the other validate"),
    ],
    ids=str,
)
def test_training_that_cannot_be_is_refused(
    tiny: Path,
    cases: list[dict[str, str]],
    tmp_path: Path,
    options: dict[str, Any],
    says: str,
) -> None:
    store = studies(tmp_path / "studies", cases)
    save_labels(store, cases)
    if options.get("twice"):
        for case in cases[1:]:
            shutil.copy(cases[0]["image"], tmp_path / "studies" / Path(case["image"]).name)
            shutil.copy(
                cases[0]["label"],
                tmp_path / "studies" / "labels" / "final" / Path(case["image"]).name,
            )
    before = weights(tiny)
    training = BundleTrainTask(str(tiny), {})
    request = panel_request(training, model=tiny.name, **options)
    assert says in refusal(training, request, store)
    assert all(torch.equal(value, before[name]) for name, value in weights(tiny).items())


@pytest.mark.parametrize("bundle", ["ldseg_hippocampus"], indirect=True)
def test_requests_at_once_do_not_get_each_others_options(
    tiny: Path, cases: list[dict[str, str]]
) -> None:
    task = BundleInferTask(str(tiny), {})
    infer_in_turn = in_turn(task)

    def mask_of(seed: int) -> np.ndarray:
        request = {"model": tiny.name, "image": cases[0]["image"], "device": "cpu"}
        path, _ = infer_in_turn({**request, "num_samples": 1, "seed": seed})
        return read_image(Path(path))[0]

    seeds = [0, 1, 2, 0, 1, 2]
    expected = {seed: mask_of(seed) for seed in set(seeds)}
    with ThreadPoolExecutor(4) as pool:
        for seed, mask in zip(seeds, pool.map(mask_of, seeds), strict=True):
            np.testing.assert_array_equal(mask, expected[seed])


# The server

MODEL, PICTURES = "ldseg_hippocampus", "ldseg_glas"
KEY = f"{MODEL}_uncertainty"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MONAI Label's app for bundles with two of ours, its scoring and strategies added as our documentation says."""
    folder = tmp_path_factory.mktemp("apps")
    monailabel("apps", "--download", "--name", "monaibundle", "--output", folder).communicate()
    main = folder / "monaibundle" / "main.py"
    text = main.read_text()
    assert text.count("class MyApp(MONAILabelApp):") == 1
    decorated = (
        "from ldseg_monai.clients.monai_label import with_image_forms, with_uncertainty\n\n\n"
        "@with_image_forms\n@with_uncertainty\nclass MyApp("
    )
    main.write_text(text.replace("class MyApp(", decorated))
    for name in (MODEL, PICTURES):
        copy_bundle(name, main.parent / "model", small=True)
    return main.parent


@pytest.fixture(scope="module")
def server(
    app: Path, phantoms: dict[str, list[dict[str, str]]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a running server, on loopback alone."""
    folder = tmp_path_factory.mktemp("server")
    studies(folder / "studies", phantoms["knee"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--conf",
        "models",
        f"{MODEL},{PICTURES}",
        "--conf",
        "zoo_source",
        "local",
        "--conf",
        "sam2",
        "false",
    ]
    with open(folder / "log", "w") as log:
        process = monailabel(
            "start_server", "--app", app, "--studies", folder / "studies", *options, "-i", "127.0.0.1", "-p", port,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 180
            while not answers(address):
                text = (folder / "log").read_text()[-6000:]
                assert process.poll() is None and time.monotonic() < deadline, (
                    f"the server does not answer:\n{text}"
                )
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def monailabel(*arguments: Any, **options: Any) -> subprocess.Popen:
    """Start MONAI Label's command."""
    environment = (
        os.environ
        | {
            "MONAILABEL_PYEXE": sys.executable,
            "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",  # scoring in the background, after each training and sample
            "MONAI_LABEL_SESSIONS": "false",
            "CUDA_VISIBLE_DEVICES": "",
        }
    )
    command = [str(Path(sys.executable).with_name("monailabel")), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **options)


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/info/", timeout=10).ok
    except requests.ConnectionError:
        return False


def call(method: str, url: str, **options: Any) -> Any:
    response = requests.request(method, url, timeout=300, **options)
    assert response.ok, f"{method} {url}: {response.status_code} {response.text}"
    return response.json() if "json" in response.headers["content-type"] else response.content


def test_server_shows_segments_scores_picks_and_trains(
    server: str, app: Path, phantoms: dict[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    info = call("GET", f"{server}/info/")
    for name in (MODEL, PICTURES):
        assert info["models"][name]["labels"] == channel_names(app / "model" / name)
        assert {"num_samples", "seed", "label_colors"} <= info["models"][name]["config"].keys()
        assert name in info["trainers"]
        assert (
            f"{name}_uncertainty" in info["strategies"] and f"{name}_uncertainty" in info["scoring"]
        )

    # segment: an image of the datastore, and a picture that is sent
    names, options = [name_of(case) for case in phantoms["knee"]], {"num_samples": 3, "seed": 1}
    expected, result = infer(app / "model" / MODEL, phantoms["knee"][0]["image"], **options)
    url, params = (
        f"{server}/infer/{MODEL}?image={names[0]}",
        {"params": json.dumps({"device": "cpu", **options})},
    )
    assert call("POST", f"{url}&output=json", data=params)["uncertainty"] == result["uncertainty"]
    (tmp_path / "mask.nii.gz").write_bytes(call("POST", f"{url}&output=image", data=params))
    assert_same_mask(expected, tmp_path / "mask.nii.gz")
    picture = phantoms["gland"][0]["image"]
    with open(picture, "rb") as file:
        mask = call(
            "POST",
            f"{server}/infer/{PICTURES}?output=image",
            data=params,
            files={"file": ("a.png", file)},
        )
    (tmp_path / "mask.png").write_bytes(mask)
    assert_same_mask(infer(app / "model" / PICTURES, picture, **options)[0], tmp_path / "mask.png")

    # score all images, and have the most uncertain picked, then the next
    scoring = f"{server}/scoring/{KEY}?run_sync=true"
    assert call("POST", scoring, json={"device": "cpu"}) == {
        "total": 4,
        "executed": 4,
        "skipped": 0,
    }
    scores = {
        name: call("GET", f"{server}/datastore/image/info?image={name}")[KEY] for name in names
    }
    picked = [call("POST", f"{server}/activelearning/{KEY}", json={}) for _ in range(2)]
    assert [sample["id"] for sample in picked] == sorted(
        scores, key=scores.__getitem__, reverse=True
    )[:2]
    assert picked[0][KEY] == max(scores.values())

    # label three images, train on them, and find the scores of the fourth outdated
    before = weights(app / "model" / MODEL)
    for case in phantoms["knee"][:3]:
        with open(case["label"], "rb") as file:
            label = {"label": (Path(case["label"]).name, file)}
            call("PUT", f"{server}/datastore/label?image={name_of(case)}", files=label)
    request = panel_request(BundleTrainTask(str(app / "model" / MODEL), {}))
    call("POST", f"{server}/train/{MODEL}?run_sync=true", json=request)
    after = weights(app / "model" / MODEL)
    assert any(not torch.equal(after[key], before[key]) for key in after)
    assert call("POST", scoring, json={"device": "cpu"}) == {
        "total": 1,
        "executed": 1,
        "skipped": 0,
    }
    assert call("GET", f"{server}/datastore/image/info?image={names[3]}")[KEY] != scores[names[3]]
