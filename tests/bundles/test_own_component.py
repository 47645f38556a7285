"""A network part of one's own: a Python file beside the config and one `_target_`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from small_data import write_picture
from workplace import Workplace

from ldseg_monai.runtime.errors import InputError, cause

DENOISER = '''
import torch

class MyDenoiser(torch.nn.Module):
    """A convolution of the noisy latent beside the embedding."""

    def __init__(self, spatial_dims, latent_channels, embedding_channels, width=4):
        super().__init__()
        self.latent_channels, self.embedding_channels = latent_channels, embedding_channels
        kinds = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}
        self.first = kinds[spatial_dims](latent_channels + embedding_channels, width, 1)
        self.last = kinds[spatial_dims](width, latent_channels, 1)

    def forward(self, noisy_latent, embedding, timesteps):
        return self.last(self.first(torch.cat([noisy_latent, embedding], dim=1)).relu())
'''
INFER = ["inference.yaml"]
OWN = {
    "_target_": "my_denoiser.MyDenoiser",
    "spatial_dims": 2,
    "latent_channels": "@latent_channels",
    "embedding_channels": "@embedding_channels",
}

pytestmark = [
    pytest.mark.usefixtures("process_left_as_it_was"),
    pytest.mark.parametrize("bundle", ["ldseg_glas"], indirect=True),
]


@pytest.fixture
def place(bundle: str, tmp_path: Path) -> Workplace:
    return Workplace.make(tmp_path / "place", bundle)


def command(place: Workplace, configs: list[str], run_id: str = "run", **overrides: Any) -> None:
    """What `python -m monai.bundle run` does, in this process."""
    given = {
        "amp": False,
        "device": "cpu",
        "num_samples": 1,
        "window_size": [64, 64],
        "num_phantoms": 2,
        "bundle_root": str(place.bundle_root),
        "output_dir": str(place.root / "out"),
        **overrides,
    }
    folder = place.bundle_root / "configs"
    paths = [str(folder / name) for name in configs]  # of those given whole, themselves
    monai.bundle.run(run_id, config_file=paths, logging_file=False, **given)


def train(place: Workplace, **overrides: Any) -> Path:
    """Train for a moment, and return the weights."""
    short = {"max_epochs": 1, "cases_per_epoch": 2, "batch_size": 2, "crop_size": [64, 64]}
    command(place, ["train.yaml"], "training", **short, **overrides)
    return place.root / "out" / "model.pt"


def test_a_denoiser_of_one_s_own_trains_and_segments_and_counts(
    place: Workplace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = place.bundle_root / "my_denoiser.py"
    file.write_text(DENOISER)
    own = {"network_def#denoiser": OWN}
    weights = train(place, **own)
    assert "denoiser.first.weight" in torch.load(weights)

    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    write_picture(tmp_path / "data", "a", image, image[..., 0])
    chosen = {
        **own,
        "model_path": str(weights),
        "dataset_dir": str(tmp_path / "data"),
        "force": True,
    }
    command(place, INFER, **chosen)
    assert (place.root / "out" / "a_label.png").is_file()
    caplog.set_level("INFO", "ldseg_monai")
    command(place, INFER, **chosen)
    assert caplog.text.count("1 of 1 cases are finished already") == 1
    file.write_text(DENOISER + "\n")
    command(place, INFER, **chosen)
    assert caplog.text.count("1 of 1 cases are finished already") == 1


def test_a_file_beside_an_overlay_is_found(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "my_other.py").write_text(DENOISER)
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("network_def#denoiser#_target_: my_other.MyDenoiser\n")
    with pytest.raises(Exception) as caught:  # the width shows that the class was found
        command(place, [*INFER, str(overlay)], **{"network_def#denoiser#widht": 8})
    assert "did you mean network_def#denoiser#width?" in str(cause(caught.value))


def test_a_file_that_is_not_there_is_told_with_where_it_is_wanted(place: Workplace) -> None:
    with pytest.raises(Exception) as caught:
        command(
            place, INFER, **{"network_def#denoiser": {**OWN, "_target_": "my_absent.MyDenoiser"}}
        )
    error = cause(caught.value)
    assert isinstance(error, InputError) and "my_absent.MyDenoiser" in str(error)
    assert str(place.bundle_root) in str(error)
