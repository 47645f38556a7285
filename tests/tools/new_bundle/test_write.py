from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image
from small_data import write_boxes, write_picture, write_volume

from ldseg_monai.bundle import Bundle
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.known import CheckKnownImaged
from ldseg_monai.data.loaders import LoadImagePictured, LoadImageVolumed
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.networks import BatchStandardization, load_weights
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.new_bundle import write
from ldseg_monai.tools.new_bundle.write import new_bundle
from ldseg_monai.tools.new_bundle.yaml_text import WIDTH

BUNDLES = Path(__file__).parents[3] / "bundles"
KNEE, HIPPOCAMPUS, GLAS = (
    str(BUNDLES / name) for name in ("ldseg_knee3d", "ldseg_hippocampus", "ldseg_glas")
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def with_overlays() -> None:
    """Asked for by tests that are of ablations and baselines too."""


@pytest.fixture(autouse=True)
def without_overlays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out ablations and baselines, which take most of the time.

    `tests/bundles/test_written_bundles.py` is of those of every bundle.
    """
    if "with_overlays" in request.fixturenames:
        return
    ignored = write._other_json

    def ignore(folder: str, names: list[str]) -> list[str]:
        return [*ignored(folder, names), *({"ablations", "baselines"} & set(names))]

    monkeypatch.setattr(write, "_other_json", ignore)


def config(name: str, file: str = "train.yaml") -> ConfigParser:
    return ConfigParser(ConfigParser.load_config_file(str(Path("bundles", name, "configs", file))))


def targets(parser: ConfigParser, name: str) -> list[str]:
    """The components of a list; a step may be named by its id."""
    steps = [parser[step[1:]] if isinstance(step, str) else step for step in parser[name]]
    return [step["_target_"].rpartition(".")[2] for step in steps]


def test_command_prints_data_choices_and_commands(capsys: pytest.CaptureFixture) -> None:
    write_boxes(Path("data"), 3)
    argv = [
        "new-bundle",
        "--from",
        KNEE,
        "--name",
        "my_organ",
        "--dataset",
        "data",
        "--classes",
        "left,right",
    ]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    shares = re.findall(r"class \d (\w+): ([\d.]+)% of the voxels, in (\d) cases", printed)
    assert [(name, count) for name, _, count in shares] == [
        ("background", "4"),
        ("left", "4"),
        ("right", "4"),
    ]
    assert sum(float(share) for _, share, _ in shares) == pytest.approx(100, abs=0.02)
    assert "0 is 0, 1 is 1, 3 is 2" in printed
    assert (
        "2 cases train, 2 validate (drawn with seed 0; the cases of each of 2 patients are kept "
        "together, as info.csv names them)" in printed
    )
    commands = [
        line for line in printed.splitlines() if line.startswith("python -m monai.bundle run")
    ]
    assert len(commands) == 3 and all("--dataset_dir data " in line for line in commands)
    assert all(
        Path(path).is_file() for line in commands for path in re.findall(r"[\w/]+\.yaml", line)
    )
    told = re.search(r"weights of ldseg_knee3d, of which (\d+) of (\d+) tensors fit", printed)
    assert told is not None and int(told[2]) / 2 <= int(told[1]) < int(told[2])
    weights = str(Path(KNEE, "models", "model.pt"))
    command = "ldseg train -m bundles/my_organ --data data -o runs/my_organ --from-weights"
    assert f"\n{command} {weights} --set partial_weights=true\n" in printed
    network = config("my_organ").get_parsed_content("network_def")
    load_weights(network, weights, partial=True)


def test_classes_are_in_every_file() -> None:
    write_boxes(Path("data"), 3)
    new_bundle(KNEE, "new", "data", class_names=["left", "right"])
    metadata = json.loads(Path("bundles/new/configs/metadata.json").read_text())
    channels = {"0": "background", "1": "left", "2": "right"}
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == channels
    for file in ("train.yaml", "inference.yaml"):
        assert (config("new", file)["num_classes"], config("new", file)["label_values"]) == (
            3,
            [0, 1, 3],
        )
        text = Path("bundles/new/configs", file).read_text()
        assert "num_classes: 3  # background, left, right\n" in text
    assert "0 background, 1 left, 2 right" in Path("bundles/new/docs/README.md").read_text()
    assert not list(Path("bundles/new/models").iterdir())


@pytest.mark.parametrize(
    ("values", "options", "label_values", "names"),
    [
        ((1, 2), {}, [0, 1, 2], ["class_1", "class_2"]),
        ((1, 3), {}, [0, 1, 3], ["class_1", "class_3"]),
        (
            (1, 3),
            {"class_names": ["a", "b", "c"]},
            [0, 1, 2, 3],
            ["a", "b", "c"],
        ),  # a class that no case has
        ((1, 3), {"class_names": ["background", "a", "b"]}, [0, 1, 3], ["a", "b"]),
        ((255,), {"class_names": ["a"]}, [0, 255], ["a"]),
        ((1, 3), {"instances": True}, None, ["class_1"]),
        ((1, 3), {"instances": True, "class_names": ["a"]}, None, ["a"]),
    ],
)
def test_label_values_become_classes(values, options, label_values, names) -> None:
    write_boxes(Path("data"), 2, values)
    new_bundle(GLAS, "new", "data", **options)
    train = config("new")
    assert train.get("label_values") == label_values
    assert train["num_classes"] == len(names) + 1
    load = train["load"]
    assert load.get("instances", False) == (label_values is None)
    assert load.get("label_values") == (None if label_values is None else "@label_values")


def test_names_of_a_decathlon_file_are_taken() -> None:
    write_boxes(Path("data"), 3, (1, 2))
    pairs = [
        {"image": f"./images/box_{i}.nii.gz", "label": f"./labels/box_{i}.nii.gz"} for i in range(4)
    ]
    content = {"labels": {"0": "background", "1": "head", "2": "tail"}, "training": pairs}
    content["labels"]["3"] = "none has it"
    Path("data/dataset.json").write_text(json.dumps(content))
    assert "none has it (label value 3) is in 0 of 4 cases" in new_bundle(
        HIPPOCAMPUS, "other", "data"
    )
    del content["labels"]["3"]
    Path("data/dataset.json").write_text(json.dumps(content))
    new_bundle(HIPPOCAMPUS, "new", "data")
    assert (
        "num_classes: 3  # background, head, tail"
        in Path("bundles/new/configs/train.yaml").read_text()
    )


def test_ct_is_windowed_and_mr_standardized() -> None:
    write_boxes(Path("mr"), 3)
    write_boxes(Path("ct"), 3, low=-1000)
    for name, wanted in (("mr", "NormalizeIntensityd"), ("ct", "ScaleIntensityRanged")):
        new_bundle(KNEE, name, name)
        for file in ("train.yaml", "inference.yaml"):
            steps = targets(config(name, file), "image_transforms")
            assert {"NormalizeIntensityd", "ScaleIntensityRanged"} & set(steps) == {wanted}
    low, high = config("ct")["intensity_range"]
    assert (
        -900 < low < -860 and -840 < high < -800
    )  # the boxes are 120 and 180 above -1000, the noise has an SD of 5


def test_gray_pictures_are_seen_whole_without_stain_or_mirror() -> None:
    write_boxes(Path("data"), 2)
    new_bundle(GLAS, "new", "data")
    train = config("new")
    random = set(targets(train, "random_transforms"))
    assert not random & {"RandStaind", "RandFlipd", "RandRotate90d", "RandSpatialCropd"}
    assert train["network_def#image_encoder#in_channels"] == 1
    assert train["validate#inferer#roi_size"] == "@spatial_size" and "window_size" not in train
    assert config("new", "inference.yaml")["load#mode"] == train["load#mode"] == "L"
    for name in ("train.yaml", "inference.yaml"):  # which shows no views to samples either
        assert "turned" not in (Path("bundles") / "new" / "configs" / name).read_text()


def test_the_size_of_pictures_is_told_as_such() -> None:
    write_boxes(Path("data"), 2)
    new_bundle(str(BUNDLES / "ldseg_echo"), "new", "data")
    text = (Path("bundles") / "new" / "configs" / "train.yaml").read_text()
    (line,) = re.findall("^spatial_size: .*$", text, re.MULTILINE)
    assert "# columns and rows that every picture is resized to; multiples of 16" in line


def write_gray_of_16_bits(top: int) -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((64, 64), np.uint8)
    label[16:48, 16:48] = 1
    for index in range(3):
        write_picture(Path("data"), f"{index}", rng.integers(0, top, (64, 64), np.uint16), label)


def test_gray_pictures_of_16_bits_are_read_so_however_dark() -> None:
    write_gray_of_16_bits(200)
    new_bundle(GLAS, "new", "data")
    inference = config("new", "inference.yaml")
    assert inference["load#mode"] == "I"
    inference["dataset_dir"] = "data"
    image = inference.get_parsed_content("preprocessing")({"image": "data/images/0.png"})["image"]
    assert image.max() == pytest.approx(199 / 255 * 2 - 1, abs=0.01)


@pytest.mark.usefixtures("with_overlays")
def test_gray_pictures_of_16_bits_keep_their_range() -> None:
    write_gray_of_16_bits(4096)
    new_bundle(GLAS, "new", "data")
    text = Path("bundles/new/configs/train.yaml").read_text()
    assert re.findall(r"a_max: (\d+)", text) == re.findall(r"a_max: (40\d\d)", text) != []
    assert config("new")["load#mode"] == "I"
    files = [path for path in Path("bundles/new").rglob("*") if path.suffix in (".yaml", ".json")]
    assert files and not [
        path for path in files if re.search("imagenet|backbone|efficientnet", path.read_text())
    ]
    encoder = config("new")["network_def#image_encoder"]
    papers = Bundle(GLAS).config("train.yaml", "ablations/residual_encoder.yaml")
    assert encoder == {**papers["network_def#image_encoder"], "in_channels": 1}


def test_colored_pictures_keep_crops_and_stain() -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((100, 120), np.uint8)
    label[10:80, 20:90] = 255
    for index in range(3):
        write_picture(
            Path("data"), f"{index}", rng.integers(0, 255, (100, 120, 3), np.uint8), label
        )
    new_bundle(GLAS, "new", "data")
    train = config("new")
    assert "RandStaind" in targets(train, "random_transforms")
    assert train["network_def#image_encoder#_target_"].endswith(".EfficientNetEncoder")
    assert (train["load#mode"], train["window_size"], train["crop_size"]) == (
        "RGB",
        [128, 112],
        [96, 96],
    )


def test_small_structures_get_a_finer_latent_than_large_ones() -> None:
    for name, side in (("large", 16), ("small", 6)):
        for index in range(2):
            label = np.zeros((32, 32, 32), np.uint8)
            label[8 : 8 + side, 8 : 8 + side, 8 : 8 + side] = 1
            write_volume(Path(name), f"{index}", (1 + index) * label.astype(np.float32), label)
        new_bundle(KNEE, name, name)
    networks = {}
    for name in ("large", "small"):
        for file in ("train.yaml", "inference.yaml"):
            networks[name] = config(name, file).get_parsed_content("network_def")
            size = config(name)["spatial_size"]
            latent = networks[name].encode_label(torch.zeros(1, 1, *size))
            assert list(latent.shape[2:]) == [side // networks[name].stride for side in size]
    assert networks["small"].stride < networks["large"].stride


def test_structure_that_no_latent_holds_is_a_warning() -> None:
    for index in range(2):
        label = np.zeros((32, 32, 32), np.uint8)
        label[3::8, 3::8, 3::8] = 1
        write_volume(Path("data"), f"{index}", (1 + index) * label.astype(np.float32), label)
    assert "the smallest class hardly survives the latent" in new_bundle(KNEE, "new", "data")


def test_rare_class_in_a_large_volume_is_looked_for() -> None:
    for index in range(3):
        label = np.zeros((80, 80, 80), np.uint8)
        label[20:32, 20:32, 20:32] = 1
        write_volume(Path("data"), f"{index}", (1 + index) * label.astype(np.float32), label)
    report = new_bundle(HIPPOCAMPUS, "new", "data")
    train = config("new")
    assert "RandCropByLabelClassesd" in targets(train, "random_transforms")
    standardization = train.get_parsed_content("network_def").standardization
    assert isinstance(standardization, BatchStandardization)
    assert "crops: centered on each class equally often" in report
    assert np.prod(train["spatial_size"]) <= 40 * 56 * 44


def test_patients_stay_together_in_training_and_evaluation() -> None:
    write_boxes(Path("data"), 3)
    new_bundle(KNEE, "new", "data")
    train = config("new")
    train["dataset_dir"] = "data"
    groups = {f"box_{i}": f"patient {i // 2}" for i in range(4)}
    assert train.get_parsed_content("split").known_groups == groups
    card = Path("bundles/new/docs/README.md").read_text()
    assert "the cases of each of 2 patients are kept together, as info.csv names them" in card
    patients = []
    for part in ("train", "val"):
        cases = train.get_parsed_content("split").part(part)
        patients.append({int(case_name(case["image"])[-1]) // 2 for case in cases})
    assert sorted(patients, key=min) == [{0}, {1}]


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("ending", ["", ".nii.gz"])
def test_patients_are_found_however_the_table_was_saved(delimiter: str, ending: str) -> None:
    write_boxes(Path("data"), 3)
    Path("data/info.csv").unlink()
    rows = ["file", "Patient ID"], *([f"box_{i}{ending}", str(i // 2)] for i in range(4))
    Path("data/participants.tsv").write_text("\n".join(map(delimiter.join, rows)))
    assert "as participants.tsv names them" in new_bundle(KNEE, "new", "data")
    train = config("new")
    train["dataset_dir"] = "data"
    groups = train.get_parsed_content("split").known_groups
    assert groups == {f"box_{i}": str(i // 2) for i in range(4)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,patient\nbox_0,1\nbox_1,1\n", "names the patient of 2 of 4 cases, and not of box_2"),
        ("file,patient\nx,1\n", "has a column patient and none with the names of the cases"),
    ],
)
def test_a_table_that_could_let_patients_leak_is_refused(table: str, message: str) -> None:
    write_boxes(Path("data"), 3)
    Path("data/info.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        new_bundle(KNEE, "new", "data")
    assert not Path("bundles/new").exists()


def test_what_is_not_used_is_told() -> None:
    write_boxes(Path("data"), 3)
    Path("data/images/notes.dat").touch()
    report = new_bundle(KNEE, "new", "data")
    assert "not used: 1 (not the ending of an image): data/images/notes.dat" in report


def test_no_table_of_patients_splits_case_by_case() -> None:
    write_boxes(Path("data"), 2)
    Path("data/info.csv").unlink()
    assert "no table" in new_bundle(GLAS, "new", "data")
    assert config("new")["patients"] == ""


def test_out_is_where_the_configs_look() -> None:
    write_boxes(Path("data"), 3)
    report = new_bundle(KNEE, "new", "data", out="some where/else")
    text = Path("some where/else/new/configs/train.yaml").read_text()
    assert yaml.safe_load(text)["bundle_root"].startswith("$'some where/else/new' if")
    assert (
        "\"['some where/else/new/configs/train.yaml','some where/else/new/configs/evaluate.yaml']\""
        in report
    )


def faulty(kind: str) -> dict:
    write_boxes(Path("data"), 3)
    options = {
        "no bundle": {"source": "none"},
        "written": {"source": "old"},
        "pictures": {"source": GLAS},
        "name": {"name": "my organ"},
        "taken": {"name": "taken"},
        "quote": {"out": "it's"},
        "classes": {"class_names": ["only one"]},
        "twice": {"class_names": ["a", "a"]},
        "capitals": {"class_names": ["liver", "Liver"]},
        "instances": {"class_names": ["a", "b"], "instances": True},
        "line": {"class_names": ["a", "b\nrun: $print()"]},
        "expression": {"class_names": ["a", "$__import__('os').system('true')"]},
        "json": {},
        "missing": {"dataset_dir": "nowhere"},
        "unpaired": {},
        "many": {"dataset_dir": "many"},
    }
    if kind == "written":
        new_bundle(KNEE, "old", "data")
    if kind == "unpaired":
        Path("data/labels/box_0.nii.gz").unlink()
    if kind == "json":
        content = {"labels": {"0": "background", "1": "$print()"}, "training": []}
        Path("data/dataset.json").write_text(json.dumps(content))
    if kind == "many":
        blocks = np.arange(4**3, dtype=np.float32).reshape(4, 4, 4)
        image = np.kron(blocks, np.ones((3, 3, 3), np.float32))  # each value a cube
        for name in "ab":
            write_volume(Path("many"), name, image, (image + (name == "b")).astype(np.uint8))
    Path("bundles/taken").mkdir(parents=True, exist_ok=True)
    return {"source": KNEE, "name": "new", "dataset_dir": "data", **options[kind]}


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("no bundle", OSError, "none is not a bundle: expected"),
        (
            "written",
            ValueError,
            r"was itself written by new-bundle: expected a bundle such as ldseg_knee3d",
        ),
        (
            "pictures",
            ValueError,
            r"3D volumes, but ldseg_glas segments 2D pictures: expected --from .*ldseg_knee3d",
        ),
        ("name", ValueError, "name 'my organ': expected letters"),
        ("taken", OSError, "bundles/taken is there already: expected a new name"),
        ("quote", ValueError, "without quotes"),
        (
            "classes",
            ValueError,
            "classes has 1 names, but the labels have the values 0, 1, 3: expected 2",
        ),
        ("twice", ValueError, "expected different names"),
        ("capitals", ValueError, "liver, Liver: expected different names, whatever their capitals"),
        ("instances", ValueError, "classes has 2 names: expected one"),
        ("line", ValueError, r"class name 'b\\nrun: \$print\(\)': expected printable characters"),
        ("expression", ValueError, "which a config would run"),
        ("json", ValueError, r"class name '\$print\(\)'.* correct dataset.json"),
        ("missing", OSError, "nowhere does not exist"),
        ("unpaired", ValueError, "1 images without label"),
        ("many", ValueError, "65 values, 0 to 64: expected at most 64 classes; pass --instances"),
    ],
)
def test_bad_input_is_an_error_that_leaves_nothing(
    place: Path, kind: str, error: type, message: str
) -> None:
    options = faulty(kind)
    before = sorted(place.rglob("*"))
    with pytest.raises(error, match=message):
        new_bundle(**options)
    assert sorted(place.rglob("*")) == before


def test_picture_data_name_the_bundles_for_pictures() -> None:
    write_boxes(Path("data"), 2)
    with pytest.raises(
        ValueError,
        match=r"segments 3D volumes: expected --from cdal_cxr or cdal_monuseg or ldseg_cxr or "
        r"ldseg_echo or ldseg_glas or ldseg_monuseg$",
    ):
        new_bundle(KNEE, "new", "data")


def test_template_that_cannot_be_changed_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write_boxes(Path("data"), 3)
    monkeypatch.setattr("ldseg_monai.tools.new_bundle.edits._set_classes", lambda *args: None)
    with pytest.raises(ValueError, match="cannot be changed"):
        new_bundle(GLAS.replace("glas", "hippocampus"), "new", "data", class_names=["a", "b", "c"])
    assert list(Path("bundles").iterdir()) == []


def test_card_and_terms_say_whose_they_are() -> None:
    write_boxes(Path("data"), 3)
    new_bundle(HIPPOCAMPUS, "new", "data")
    card = Path("bundles/new/docs/README.md").read_text()
    headings = re.findall(
        r"^#+ (.*)$", Path(HIPPOCAMPUS, "docs/README.md").read_text(), re.MULTILINE
    )
    title, *others = re.findall(r"^#+ (.*)$", card, re.MULTILINE)
    assert title.startswith("LDSeg for ") and others == headings[1:]
    assert "Not trained" in card and "Simpson" not in card and "zaman2024ldseg" in card
    assert (
        "Weights that are trained on data" in Path("bundles/new/docs/data_license.txt").read_text()
    )


def test_comments_of_the_template_stay() -> None:
    write_boxes(Path("data"), 3)
    new_bundle(KNEE, "new", "data")
    text = Path("bundles/new/configs/train.yaml").read_text()
    assert "learning_rate: 0.001  # of the first step; decays exponentially" in text
    assert yaml.safe_load(text)["learning_rate"] == 0.001


@pytest.mark.parametrize("source", [KNEE, HIPPOCAMPUS, GLAS])
def test_what_is_not_changed_stays_as_the_template_has_it(source: str) -> None:
    write_boxes(Path("data"), 2 if source == GLAS else 3)
    new_bundle(source, "new", "data")
    for file in ("train.yaml", "inference.yaml", "evaluate.yaml", "multi_gpu_train.yaml"):
        old = Path(source, "configs", file).read_text().splitlines()
        new = Path("bundles/new/configs", file).read_text().splitlines()
        headings = [line for line in old if re.match("# [A-Z][a-z ,]+$", line)]
        assert [line for line in new if line in headings] == headings
        assert sum(not line for line in new) == sum(not line for line in old)  # blank ones
        kept = sum(line in new for line in old) / len(old)
        assert kept > 0.75, f"{file}: {kept:.0%}"
        assert all(len(line.split("  # ")[0]) <= WIDTH for line in new if line[:1] != "#")


# Which images it knows


def known_of(name: str) -> dict[str, Any]:
    metadata = json.loads(Path("bundles", name, "configs", "metadata.json").read_text())
    known: dict[str, Any] = metadata["known_images"]
    return known


def reasons(name: str, image: MetaTensor) -> str:
    """Why the new bundle does not know an image."""
    check = CheckKnownImaged("image", str(Path("bundles", name, "configs", "metadata.json")))
    return "; ".join(check.reasons(image, image.shape[1:]))


@pytest.mark.parametrize("source", [KNEE, HIPPOCAMPUS])
def test_new_bundle_knows_its_own_volumes_and_no_others(source: str) -> None:
    write_boxes(Path("data"), 3)
    turned = np.diag([0.5, 0.5, 2.0, 1.0])[[2, 0, 1, 3]]  # slices from left to right
    for path in sorted(Path("data").glob("*/*.nii.gz")):
        nib.save(nib.Nifti1Image(np.asanyarray(nib.load(path).dataobj), turned), path)
    new_bundle(source, "new", "data")
    known = known_of("new")
    assert known["source"].startswith("measured on the 4 labeled cases of data, which train and")
    images = []
    for path in sorted(Path("data/images").iterdir()):
        images.append(LoadImageVolumed("image")({"image": str(path)})["image"])
    assert [reasons("new", image) for image in images] == [""] * 4
    assert known["field_of_view_mm"]["left_right"] == [42, 70]  # 28 slices of 2 mm, a quarter off
    first = images[0]
    finer = MetaTensor(first.as_tensor(), affine=first.affine @ torch.diag(torch.tensor(
        [0.6, 0.6, 0.6, 1.0], dtype=torch.double)))  # fmt: skip
    if source == HIPPOCAMPUS:  # which is resampled
        assert known["voxel_mm"] == [2, 0.5, 0.5] and known["spacing_mm"]["left_right"] == [1, 4]
        assert "its voxels" not in reasons("new", finer)
    else:
        assert "voxel_mm" not in known
        assert "from left to right its voxels are 1.2 mm, expected 1.5 to 2.5 mm" in reasons(
            "new", finer
        )
    assert "its field of view is" in reasons("new", finer)
    assert "99% of its intensities" in reasons("new", -first)
    assert "its size is 24 x 3 x 28" in reasons("new", first[:, :, :3])


@pytest.mark.parametrize("colored", [True, False])
def test_new_bundle_knows_its_own_pictures_and_no_others(colored: bool) -> None:
    write_boxes(Path("data"), 2)
    for path in sorted(Path("data/images").iterdir()):
        gray = np.asarray(Image.open(path))
        tinted = np.stack([gray, gray // 2, gray // 3], axis=-1)
        Image.fromarray(tinted if colored else gray).save(path)
    new_bundle(GLAS, "new", "data")
    load = LoadImagePictured("image", **({} if colored else {"mode": "L"}))
    image = load({"image": "data/images/box_0.png"})["image"]
    assert reasons("new", image) == ""
    assert ("colors" in known_of("new")) == colored == ("intensity" not in known_of("new"))
    if colored:
        assert "its mean red over green is" in reasons("new", image.flip(0))
    else:
        assert "of its intensities, standardized" in reasons("new", 255 - image)


def test_sides_of_few_voxels_are_told_that_are_resized_to_more() -> None:
    write_boxes(Path("data"), 3)
    told = "32 at least, finer than an axis of few voxels"
    assert told not in new_bundle(KNEE, "new", "data")
    for path in sorted(Path("data").glob("*/*.nii.gz")):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj)[..., 8:12], image.affine), path)
    assert told in new_bundle(KNEE, "thin", "data")


def test_new_bundle_knows_gray_pictures_among_those_in_color() -> None:
    write_boxes(Path("data"), 2)
    paths = sorted(Path("data/images").iterdir())
    gray = np.asarray(Image.open(paths[0]))
    Image.fromarray(np.stack([gray, gray // 2, gray // 3], axis=-1)).save(paths[0])
    new_bundle(GLAS, "new", "data")
    images = [LoadImagePictured("image")({"image": str(path)})["image"] for path in paths]
    assert [reasons("new", image) for image in images] == [""] * len(paths)


def test_codes_are_required_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    write_boxes(Path("data"), 3)
    argv = ["new-bundle", "--from", HIPPOCAMPUS, "--name", "new", "--dataset", "data"]
    assert main([*argv, "--require_codes", "True"]) == 0
    assert (
        config("new")["require_codes"] is config("new", "inference.yaml")["require_codes"] is True
    )
    path = Path("data/images/box_1.nii.gz")
    without = nib.Nifti1Image(np.asanyarray(nib.load(path).dataobj), None)
    nib.save(without, path)
    argv[4] = "other"
    assert main([*argv, "--require_codes", "True"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "box_1.nii.gz has no form code" in error and "--require_codes False" in error
    assert main([*argv, "--require_codes", "False"]) == 0
    assert config("other")["require_codes"] is False


def test_new_bundle_marks_pictures_that_look_unlike_its_own() -> None:
    write_phantoms("echo", Path("data"), 9, seed=3)
    new_bundle(str(Path(GLAS).parent / "ldseg_echo"), "new", "data")
    known = known_of("new")
    assert list(known["appearance"]) == ["labeled cases"] and known["appearance_resized"]
    assert known["appearance"]["labeled cases"]["limit"] > 1
    config = Bundle(Path("bundles/new")).config("inference.yaml")
    check = Compose([config.get_parsed_content(name) for name in ("load", "known")])
    own = sorted(map(str, Path("data/images").iterdir()))
    assert all(OUTSIDE not in check({"image": path})["image"].meta for path in own)
    first = np.asarray(Image.open(own[0]))
    Image.fromarray(np.rot90(first).copy()).save("turned.png")
    assert "looks unlike" in check({"image": "turned.png"})["image"].meta[OUTSIDE]
    write_boxes(Path("few"), 2)
    new_bundle(str(Path(GLAS).parent / "ldseg_echo"), "few", "few")
    assert "appearance" not in known_of("few")  # of four


def test_a_label_value_that_the_data_set_does_not_name_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_boxes(Path("data"), 2)
    pairs = []
    for image in sorted(Path("data/images").iterdir()):
        pairs.append({"image": f"images/{image.name}", "label": f"labels/{image.name}"})
    content = {"training": pairs, "labels": {"background": 0, "box": 1}}
    Path("data/dataset.json").write_text(json.dumps(content))
    arguments = ["new-bundle", "--from", GLAS, "--name", "new", "--dataset_dir", "data"]
    assert main(arguments) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "have the values [3], which dataset.json does not name: expected some of 0, 1" in told
    assert main([*arguments, "--classes", "box,other"]) == 0
