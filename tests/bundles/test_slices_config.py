"""Slices by the config: planes of volumes train the network, and each is segmented as it is alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.transforms import Compose
from workplace import Workplace

pytestmark = pytest.mark.usefixtures("process_left_as_it_was")
TRAINING = ("train.yaml", "ablations/slices.yaml")
INFERENCE = ("inference.yaml", "slices.yaml")


@pytest.fixture(autouse=True)
def bundle_with_slices(workplace: Workplace) -> None:
    if not (workplace.bundle_root / "configs" / "slices.yaml").is_file():
        pytest.skip("this bundle has no slices")


def test_planes_of_volumes_train(workplace: Workplace, phantoms: Path) -> None:
    parser = workplace.workflow("train", list(TRAINING), dataset_dir=str(phantoms)).parser
    columns, rows, _ = parser.get_parsed_content("spatial_size")
    load = Compose(parser.get_parsed_content("train#deterministic_transforms"))
    volume = load(parser.get_parsed_content("train#dataset").data[0])
    crop, squeeze, *_ = parser.get_parsed_content("random_transforms")
    plane = squeeze(crop({key: volume[key] for key in ("image", "label")}))
    assert plane["image"].shape == plane["label"].shape == (1, columns, rows)
    parts = {
        key: volume[key][0].as_tensor().unfold(0, columns, 1).unfold(1, rows, 1)
        for key in ("image", "label")
    }  # (places, places, planes, columns, rows)
    places = (parts["image"] == plane["image"][0].as_tensor()).all(-1).all(-1).nonzero()
    assert len(places)  # several, of a plane of padding alone
    assert torch.equal(parts["label"][tuple(places[0])], plane["label"][0].as_tensor())
    batch = next(iter(parser.get_parsed_content("train#dataloader")))
    assert batch["image"].shape[1:] == batch["label"].shape[1:] == (1, columns, rows)
    output = parser.get_parsed_content("network_def")(batch["image"])
    assert output.shape == (len(batch["image"]), parser["num_classes"], columns, rows)


def test_each_plane_of_a_volume_is_segmented_as_it_is_alone(workplace: Workplace) -> None:
    train = workplace.workflow("train", list(TRAINING)).parser
    infer = workplace.workflow("infer", list(INFERENCE)).parser
    assert infer["network_def"] == train["network_def"]
    torch.manual_seed(0)
    network = infer.get_parsed_content("network_def").eval()
    columns, rows, _ = infer.get_parsed_content("spatial_size")
    volume = torch.randn(1, 1, columns, rows, 5)
    for parser, inferer in ((infer, "inferer"), (train, "validate#inferer")):
        segmented = parser.get_parsed_content(inferer)(volume, network)
        sampler = parser.get_parsed_content(inferer.replace("inferer", "sampler"))
        for index in range(volume.shape[-1]):
            alone = sampler(volume[..., index], network)
            torch.testing.assert_close(segmented[..., index], alone, rtol=1e-4, atol=1e-4)
