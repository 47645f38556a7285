from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer, SlidingWindowInferer
from small_networks import convolution_dtypes, pair_of
from torch import nn

from ldseg_monai.inference.autocast import AutocastInferer


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))


class RecordingInferer(Inferer):
    """Keeps what it is called with, and whether autocast was on."""

    def __call__(
        self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        self.called_with = (inputs, network, args, kwargs)
        self.autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        return torch.tensor([1.5, -2.0], dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "inferer", [SimpleInferer(), SlidingWindowInferer(16, overlap=0.5)], ids=["simple", "windows"]
)
def test_autocast_returns_what_the_inferer_returns(inferer: Inferer) -> None:
    network, (image, _) = small_cnn(), pair_of((24, 32))
    exact = inferer(image, network)
    assert torch.equal(AutocastInferer(inferer, amp=False)(image, network), exact)
    seen = convolution_dtypes(network)
    result = AutocastInferer(inferer, True)(image, network)
    assert seen == {torch.bfloat16}
    assert result.dtype == torch.float32
    assert not torch.equal(result, exact)
    torch.testing.assert_close(result, exact, rtol=0.05, atol=0.05)


def test_autocast_result_is_what_the_network_said_in_bfloat16() -> None:
    network, (image, _) = small_cnn(), pair_of((16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        expected = network(image)
    assert expected.dtype == torch.bfloat16
    assert torch.equal(AutocastInferer(SimpleInferer(), True)(image, network), expected.float())


@pytest.mark.parametrize("amp", [True, False])
def test_autocast_passes_plain_tensors_and_every_argument_on_and_ends_with_the_call(
    amp: bool,
) -> None:
    inferer, network = RecordingInferer(), small_cnn()
    image, _ = pair_of((4, 4))
    result = AutocastInferer(inferer, amp)(MetaTensor(image), network, 1, name="knee")
    assert result.dtype == torch.float32 and result.tolist() == [1.5, -2.0]
    inputs, called, args, kwargs = inferer.called_with
    assert type(inputs) is torch.Tensor and torch.equal(inputs, image)
    assert called is network and args == (1,) and kwargs == {"name": "knee"}
    assert inferer.autocast[0] == amp
    assert not amp or inferer.autocast[1] == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


def test_autocast_trains_in_float32_weights() -> None:
    network, (image, label) = small_cnn(), pair_of((16, 16))
    logits = AutocastInferer(SimpleInferer(), True)(image, network)
    nn.functional.cross_entropy(logits, label[:, 0]).backward()
    exact = torch.autograd.grad(
        nn.functional.cross_entropy(network(image), label[:, 0]), list(network.parameters())
    )
    for parameter, expected in zip(network.parameters(), exact, strict=True):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert torch.cosine_similarity(parameter.grad.flatten(), expected.flatten(), dim=0) > 0.999
