from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from programs import tables
from scipy import ndimage
from torch import nn

from benchmarks.accuracy import raters
from benchmarks.accuracy.raters import distances, energy_distance, from_softmax, pictures, rated


def squares(*sides: int) -> torch.Tensor:
    """Masks of squares from one corner on."""
    masks = torch.zeros(len(sides), 8, 8, dtype=torch.long)
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = 1
    return masks


def test_distance_of_masks_is_one_minus_their_iou() -> None:
    found = distances(squares(2, 4, 0), squares(4, 8, 0))
    expected = torch.tensor([[1 - 4 / 16, 1 - 4 / 64, 1], [0, 1 - 16 / 64, 1], [1, 1, 0]])
    torch.testing.assert_close(found, expected.double())


def test_energy_distance_is_0_of_the_raters_themselves_and_counts_what_is_not_spread() -> None:
    outlines = squares(4, 8)  # apart by 0.75
    assert energy_distance(outlines, outlines)["distance"] == pytest.approx(0)
    # Always the small one: 2 * (0 + 0.75) / 2 - 0 - (0 + 0.75 + 0.75 + 0) / 4
    assert energy_distance(squares(4, 4, 4), outlines)["distance"] == pytest.approx(0.375)
    many = energy_distance(squares(4, 4, 8, 8), outlines)
    assert many["distance"] == pytest.approx(0) and many["among samples"] == pytest.approx(0.375)


def test_raters_outline_as_it_is_smaller_larger_and_shifted() -> None:
    label = np.zeros((40, 40), bool)
    label[10:30, 12:26] = True
    same, smaller, larger, shifted = rated(label, 3, [0, 1])
    assert np.array_equal(same, label)
    distance = ndimage.distance_transform_cdt(label, "taxicab")
    assert np.array_equal(smaller, distance > 3)
    outside = ndimage.distance_transform_cdt(~label, "taxicab")
    assert np.array_equal(larger, label | (outside <= 3) & (outside > 0))
    moved = np.array(ndimage.center_of_mass(shifted)) - ndimage.center_of_mass(label)
    assert shifted.sum() == label.sum() and np.hypot(*moved) == pytest.approx(3, abs=0.8)
    assert np.array_equal(rated(label, 3, [0, 1])[3], shifted)
    assert not np.array_equal(rated(label, 3, [0, 5])[3], shifted)


def test_pictures_are_of_their_seed_and_have_an_outline_of_each_rater() -> None:
    first, second = pictures(2, 0, 64, 4)
    assert first.image.shape == (3, 64, 64) and first.outlines.shape == (4, 64, 64)
    assert -1 <= first.image.min() < first.image.max() <= 1
    sizes = first.outlines.flatten(1).sum(dim=1)
    assert sizes[1] < sizes[0] < sizes[2]
    (again,) = pictures(1, 0, 64, 4)
    assert torch.equal(again.image, first.image) and not torch.equal(first.image, second.image)


def test_masks_of_a_softmax_are_as_likely_as_it_says() -> None:
    probabilities = torch.linspace(0.05, 0.95, 16).expand(1, 16, 16)
    logits = torch.stack([1 - probabilities, probabilities], dim=1).log()
    image = torch.zeros(1, 3, 16, 16)
    for kind, smooth in (("pixels", False), ("threshold", True)):
        masks = from_softmax(Fixed(logits), kind)(image, 2000)
        shares = masks.double().mean(dim=0)
        np.testing.assert_allclose(shares.numpy(), probabilities[0].numpy(), atol=0.05)
        nested = (masks[:, :, 1:] >= masks[:, :, :-1]).all()
        assert bool(nested) is smooth
    argmax = from_softmax(Fixed(logits), "argmax")(image, 3)
    assert torch.equal(argmax, (probabilities > 0.5).long().expand(3, 16, 16))


class Fixed(nn.Module):
    """A network that always returns the same logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.slow
def test_both_networks_are_trained_and_compared(tmp_path: Path) -> None:
    options = ["--steps", "2", "--num", "2", "--tested", "2", "--side", "32", "--samples", "3"]
    peer = ["--peer", "baselines/unet.yaml"]
    raters.main(["ldseg_glas", "--out", str(tmp_path), *peer, *options])
    (rows,) = tables((tmp_path / "raters.md").read_text())
    assert [row["samples of"] for row in rows] == [
        "LDSeg, K = 1", "LDSeg, K = 2", "LDSeg, K = 10",
        "UNet, pixels drawn from its softmax", "UNet, its softmax at drawn thresholds",
        "UNet, the most probable class",
    ]  # fmt: skip
    for row in rows:
        parts = [float(row[name]) for name in ("to raters", "among samples", "among raters")]
        assert float(row["distance"]) == pytest.approx(
            2 * parts[0] - parts[1] - parts[2], abs=0.003
        )
    assert rows[-1]["among samples"] == "0.000"
