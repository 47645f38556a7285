from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.stats import entropy as scipys_entropy
from torch import nn

from benchmarks.accuracy.uncertainty import (
    Judged,
    Way,
    dropouts_of,
    entropy,
    in_views,
    judge,
    of_networks,
    with_dropout,
)
from benchmarks.known_views import KnownViews


def case(name: str, seed: int, confidence: float) -> dict[str, Any]:
    """A case of two classes that is right in four of five pixels, wherever it says so."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(2, (1, 10, 10), generator=generator)
    right = torch.ones(100)
    right[torch.randperm(100, generator=generator)[:20]] = 0
    said = torch.where(right.reshape(1, 10, 10) > 0, label, 1 - label)
    foreground = torch.where(said > 0, confidence, 1 - confidence)
    doubt = 0.1 + 0.3 * (said != label)
    found = {"pred_mean": torch.cat([1 - foreground, foreground]), "pred_sd": doubt, "label": label}
    maps: dict[str, Any] = {key: MetaTensor(value) for key, value in found.items()}
    image = MetaTensor(torch.zeros(1, 10, 10), meta={"filename_or_obj": f"{name}.png"})
    return {**maps, "image": image}


def test_entropy_is_scipys_over_its_largest() -> None:
    probabilities = torch.rand(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).softmax(1)
    expected = scipys_entropy(probabilities.numpy(), axis=1, base=4)
    np.testing.assert_allclose(entropy(probabilities)[:, 0].numpy(), expected, rtol=1e-5)
    sure, equal = torch.tensor([1.0, 0.0])[None, :, None], torch.full((1, 3, 1), 1 / 3)
    assert (entropy(sure).item(), entropy(equal).item()) == pytest.approx((0, 1))


def test_a_row_of_each_map_tells_what_it_is_worth() -> None:
    cases = [case("a", 0, 0.95), case("b", 1, 0.95), case("c", 2, 0.95)]
    ways = [Way("net", "3 samples", lambda: cases, True), Way("peer", "p", lambda: cases, False)]
    rows, columns = judge(ways)
    assert [(row["network"], row["doubt"]) for row in rows] == [
        ("net", "SD"), ("net", "entropy"), ("peer", "entropy"),
    ]  # fmt: skip
    assert (rows[0]["AUROC"], rows[0]["wrong"], rows[0]["right"]) == ("1.000", "0.400", "0.100")
    assert rows[1]["AUROC"] == "0.500"  # equally sure everywhere
    for row in rows:
        assert row["ECE"] == "0.150"  # 0.95, and 0.8 are right
        assert row["ECE, tempered"] == "0.006"  # at 2 ** (9 / 8), log 19 / log 4 would be right
        assert float(row["Brier"]) == pytest.approx(2 * (0.8 * 0.05**2 + 0.2 * 0.95**2), abs=1e-3)
        assert float(row["expected Dice"]) > float(row["Dice"]) + 0.1  # as too sure as that
    assert list(columns) == [
        "net, 3 samples: SD", "net, 3 samples: Dice", "net, 3 samples: entropy",
        "peer, p: entropy", "peer, p: Dice",
    ]  # fmt: skip
    assert list(columns["peer, p: Dice"]) == ["a", "b", "c"]


def test_tempered_error_is_of_pictures_that_the_temperature_was_not_fitted_to() -> None:
    too_sure, right = case("a", 0, 0.99), case("b", 1, 0.8)
    judged = Judged(False)
    for one in (too_sure, right):
        maps = [one[key].as_tensor()[None] for key in ("pred_mean", "pred_sd", "label")]
        judged.add(*maps)
    assert judged.by_map["entropy"].scores()["ECE"] == pytest.approx((0.19 + 0) / 2, abs=1e-6)
    # The first keeps its own confidence, the other is made less sure: log 4 / log 99 of its logit
    less_sure = 1 / (1 + math.exp(-math.log(4) * math.log(4) / math.log(99)))
    expected = (0.19 + 0.8 - less_sure) / 2
    assert judged.unseen_error() == pytest.approx(expected, abs=0.01)


def test_peer_sees_each_orientation_once_and_the_mean_is_turned_back() -> None:
    image = torch.rand(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []

    def infer(turned: torch.Tensor, network: None) -> torch.Tensor:
        seen.append(turned)
        return turned + torch.tensor([0.0, 1.0 * (len(seen) == 1)])[None, :, None, None]

    found = in_views(infer, KnownViews(True, (), 8))(image, None)
    assert len(seen) == 8
    for number, shown in enumerate(seen):
        mirrored = image if number < 4 else image.flip(-1)
        assert torch.equal(shown, mirrored.rot90(number % 4, (2, 3)))
    one, other = (image + torch.tensor([0.0, shift])[None, :, None, None] for shift in (1.0, 0.0))
    foreground = torch.stack([one.softmax(1)[:, 1]] + 7 * [other.softmax(1)[:, 1]])
    torch.testing.assert_close(found[:, 1], foreground.mean(0))
    torch.testing.assert_close(found[:, 2], foreground.std(0, correction=0))


class Dropped(nn.Module):
    """Logits of 0 and, where dropout leaves it, of a number; a batch norm that has seen nothing.

    Args:
        rate: of the dropout.
        kept: the number.
    """

    def __init__(self, rate: float, kept: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.dropout = nn.Dropout(rate)
        self.kept = kept * (1 - rate)  # which dropout scales up

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        foreground = self.dropout(torch.full_like(self.norm(image), self.kept))
        return torch.cat([torch.zeros_like(foreground), foreground], dim=1)


def test_spread_of_dropout_is_the_binomials() -> None:
    rate, passes, kept = 0.3, 20, 2.0
    network = Dropped(rate, kept).eval()
    image = 5 + torch.zeros(1, 1, 200, 200)
    found = with_dropout(lambda seen, one: one(seen), passes)(image, network)
    high, low = torch.sigmoid(torch.tensor(kept)), 0.5
    share = (found[:, 1] - low) / (high - low)  # of the passes that kept a pixel
    counts = (share * passes).round()
    torch.testing.assert_close(counts / passes, share, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        found[:, 2], (high - low) * (share * (1 - share)).clamp(min=0).sqrt(), atol=1e-3, rtol=0
    )
    assert share.mean().item() == pytest.approx(1 - rate, abs=0.002)
    of_share = rate * (1 - rate) / passes
    assert share.var().item() == pytest.approx(of_share, rel=0.05)
    variance = (high - low) ** 2 * rate * (1 - rate) * (passes - 1) / passes
    assert found[:, 2].square().mean().item() == pytest.approx(variance.item(), rel=0.01)


def test_dropout_alone_is_on_and_only_while_it_is_drawn() -> None:
    network = Dropped(0.5, 1.0).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    infer = with_dropout(lambda seen, one: one(seen), 3)
    image = torch.rand(1, 1, 20, 20)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = infer(image, network), infer(image, network)
    assert torch.equal(torch.rand(1), expected)  # others' numbers are as without it
    assert torch.equal(first, again) and first[:, 2].max() > 0
    assert not torch.equal(first, with_dropout(lambda seen, one: one(seen), 3, 1)(image, network))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


def test_network_without_dropout_is_refused() -> None:
    network = Dropped(0.0, 1.0)
    assert dropouts_of(network) == [] and dropouts_of(Dropped(0.1, 1.0))
    with pytest.raises(ValueError, match="Dropped has no dropout: expected"):
        with_dropout(lambda seen, one: one(seen), 3)(torch.zeros(1, 1, 2, 2), network)


def test_ensemble_is_the_mean_softmax_and_one_network_many_times_is_itself() -> None:
    def constant(logit: float) -> nn.Module:
        return nn.Sequential(Dropped(0.0, logit)).eval()

    image = torch.zeros(1, 1, 2, 3)

    def infer(seen: torch.Tensor, network: nn.Module) -> torch.Tensor:
        return network(seen)

    two = of_networks(infer, [constant(2.0), constant(-1.0)])(image, None)
    high, low = torch.sigmoid(torch.tensor([2.0, -1.0])).tolist()
    torch.testing.assert_close(two[:, 1], torch.full((1, 2, 3), (high + low) / 2))
    torch.testing.assert_close(two[:, 2], torch.full((1, 2, 3), (high - low) / 2))
    one = constant(2.0)
    five = of_networks(infer, [one] * 5)(image, None)
    torch.testing.assert_close(five[:, :2], one(image).softmax(dim=1))
    assert five[:, 2].abs().max() == 0
