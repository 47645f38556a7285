from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from small_networks import (
    Wrapper,
    convolution_dtypes,
    count_calls,
    image_of,
    noisy_ldseg,
    pair_of,
    tiny_cdal,
    tiny_discriminator,
)

from ldseg_monai.diffusion.draws import draw_training_step
from ldseg_monai.networks.segmenter import DiffusionSegmenter
from ldseg_monai.training.inferers import (
    CDALTrainingInferer,
    DistillingInferer,
    TrainingInferer,
)

SIZES = [(16, 24), (8, 16, 8)]
each_size = pytest.mark.parametrize("size", SIZES)


class Recorder(DiffusionSegmenter):
    """Keeps what it is called with."""

    num_train_timesteps = 1000

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        return [1, *image.shape[2:]]

    def forward(self, image: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
        self.image, self.kwargs = image, kwargs
        return {"logits": image}


@pytest.mark.parametrize("amp", [False, True])
@each_size
def test_training_returns_the_networks_dictionary(size: tuple[int, ...], amp: bool) -> None:
    network = noisy_ldseg(len(size)).train()
    image, label = pair_of(size)
    torch.manual_seed(3)
    output = TrainingInferer(amp)(image, network, label=label)
    assert set(output) == {"logits", "prediction", "target", "reconstruction"}
    if not amp:
        torch.manual_seed(3)
        draws = draw_training_step(2, network.noise_shape(image), 1000)
        expected = network(image, label, draws)
        assert all(torch.equal(output[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("levels", "numbers"), [(None, 2), ([True, True], 3)])
def test_pass_takes_a_chance_only_where_an_image_may_be_left_out(
    levels: list[bool] | None, numbers: int
) -> None:
    image, label = pair_of((16, 16))
    network = noisy_ldseg(decoder_image_levels=levels).train()
    torch.manual_seed(3)
    TrainingInferer(amp=False)(image, network, label=label)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    for _ in range(numbers):  # one for all samples' timesteps, one for their noise
        torch.randint(2**31, [])
    assert torch.equal(torch.get_rng_state(), after)


@each_size
def test_teachers_answer_beside_the_pass(size: tuple[int, ...]) -> None:
    teachers = [noisy_ldseg(len(size), seed=seed).train() for seed in (1, 2)]
    network = noisy_ldseg(len(size)).train()
    image, label = pair_of(size)
    torch.manual_seed(3)
    output = DistillingInferer(teachers, amp=False)(image, network, label=label)
    torch.manual_seed(3)
    alone = TrainingInferer(amp=False)(image, network, label=label)
    assert all(torch.equal(output[name], alone[name]) for name in alone)
    with torch.no_grad():
        answers = [teacher.eval()(image).softmax(1) for teacher in teachers]
    assert not torch.allclose(*answers)
    torch.testing.assert_close(output["teacher"], (answers[0] + answers[1]) / 2)
    assert not output["teacher"].requires_grad


def test_teachers_of_other_classes_and_none_are_refused() -> None:
    image, label = pair_of((16, 16))
    network = noisy_ldseg().train()
    other = noisy_ldseg(out_channels=network.out_channels + 1)
    with pytest.raises(ValueError, match="a teacher has logits of shape"):
        DistillingInferer([other], amp=False)(image, network, label=label)
    with pytest.raises(ValueError, match="no teachers: expected at least one network"):
        DistillingInferer([])


def test_a_method_may_draw_its_own_numbers() -> None:
    network = Recorder()
    image, label = pair_of((4, 4))
    TrainingInferer(pure_noise_share=1.0)(image, network, label=label)
    draws = network.kwargs["draws"]
    assert draws.timesteps.tolist() == [999, 999] and draws.noise.shape == (2, 1, 4, 4)
    own = draws._replace(timesteps=torch.tensor([1, 2]))
    network.training_draws = lambda image, pure_noise_share: own  # type: ignore[method-assign]
    TrainingInferer()(image, network, label=label)
    assert network.kwargs["draws"] is own


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_share_of_the_samples_starts_from_own_estimates(share: float) -> None:
    network = Recorder()
    torch.manual_seed(0)
    TrainingInferer(rollout_share=share)(torch.zeros(20_000, 1, 1, 1), network)
    own = network.kwargs["draws"].rollout
    assert own.dtype == torch.bool and own.float().mean().item() == pytest.approx(share, abs=0.02)


def test_own_estimates_change_no_other_number_of_a_pass() -> None:
    """A training without them draws what it drew before there were any."""
    network, drawn = Recorder(), []
    for share in (0.0, 0.5):
        torch.manual_seed(0)
        TrainingInferer(rollout_share=share)(torch.zeros(3, 1, 4, 4), network)
        drawn.append(network.kwargs["draws"])
    assert not drawn[0].rollout.any()
    assert all(torch.equal(*pair) for pair in zip(drawn[0][:3], drawn[1][:3], strict=True))
    with pytest.raises(ValueError, match="rollout_share is 1.5: expected 0 to 1"):
        TrainingInferer(rollout_share=1.5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_the_samples_is_trained_at_the_last_timestep_and_the_others_at_a_uniform_one(
    share: float,
) -> None:
    network = Recorder()
    torch.manual_seed(0)
    TrainingInferer(pure_noise_share=share)(torch.zeros(20_000, 1, 1, 1), network)
    timesteps = network.kwargs["draws"].timesteps
    last = timesteps == 999
    assert last.float().mean().item() == pytest.approx(share, abs=0.02)
    if share < 1:
        counts = timesteps[~last].bincount(minlength=999)
        assert len(counts) == 999 and counts.min() > 0
        fifths = torch.stack([part.sum() for part in counts.float().tensor_split(5)])
        torch.testing.assert_close(fifths / fifths.sum(), torch.full((5,), 0.2), rtol=0, atol=0.02)
    else:
        assert last.all()


@pytest.mark.parametrize(("amp", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("size", [(16, 24), (20, 16, 8)])
def test_training_computes_in_bfloat16_on_the_cpu_if_asked(
    size: tuple[int, ...], amp: bool, dtype
) -> None:
    network = noisy_ldseg(len(size)).train()
    seen = convolution_dtypes(network)
    image, label = pair_of(size)
    output = TrainingInferer(amp)(image, network, label=label)
    assert seen == {dtype}
    assert output["logits"].dtype == dtype
    assert output["prediction"].dtype == output["target"].dtype == torch.float32
    sum(tensor.float().square().mean() for tensor in output.values()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


def test_training_shows_the_decoder_every_image_unless_told_otherwise() -> None:
    image, label = pair_of((16, 16))
    shown = []
    for arguments in ({}, {"image_dropout": 0.0}, {"image_dropout": 1.0}):
        network = noisy_ldseg(decoder_image_levels=[True, True], **arguments).train()
        torch.manual_seed(3)
        shown.append(TrainingInferer(amp=False)(image, network, label=label)["logits"])
    assert network.image_dropout == 1.0 and noisy_ldseg().image_dropout == 0.0
    assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[0], shown[2])


def test_training_network_gets_plain_tensors() -> None:
    network = Recorder()
    image, label = pair_of((4, 4))
    TrainingInferer()(MetaTensor(image), network, label=MetaTensor(label), name="knee")
    assert type(network.image) is torch.Tensor and torch.equal(network.image, image)
    assert type(network.kwargs["label"]) is torch.Tensor and torch.equal(
        network.kwargs["label"], label
    )
    assert network.kwargs["name"] == "knee"


def test_training_calls_the_wrapper_and_not_the_network_in_it() -> None:
    wrapper = Wrapper(noisy_ldseg())
    calls = count_calls(wrapper)
    image, label = pair_of((16, 16))
    assert "logits" in TrainingInferer(amp=False)(image, wrapper, label=label)
    assert calls == [2]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_share_of_pure_noise_must_be_one(share: float) -> None:
    with pytest.raises(ValueError, match=f"pure_noise_share is {share}: expected 0 to 1"):
        TrainingInferer(pure_noise_share=share)


@pytest.mark.parametrize(
    ("size", "amp", "dtype"),
    [
        ((16, 13), True, torch.bfloat16),
        ((16, 13), False, torch.float32),
        ((4, 13), True, torch.bfloat16),
        ((6, 8, 8), True, torch.bfloat16),
    ],
)
def test_training_passes_are_in_bfloat16_if_asked_and_return_float32(
    size: tuple[int, ...], amp: bool, dtype: torch.dtype
) -> None:
    inferer, label, timesteps = (
        CDALTrainingInferer(amp),
        torch.randn(2, 3, *size),
        torch.tensor([0, 1]),
    )
    network, judge = tiny_cdal(len(size)).train(), tiny_discriminator(len(size)).train()
    inputs = {"noisy_label": label, "timesteps": timesteps, "latent": torch.randn(2, 5)}
    seen = convolution_dtypes(network), convolution_dtypes(judge)
    prediction = inferer(image_of(size), Wrapper(network), **inputs)
    logits = inferer(label, judge, label, timesteps)
    assert seen == ({dtype}, {dtype})
    assert prediction.dtype == logits.dtype == torch.float32
    assert prediction.shape == label.shape and logits.shape == (2, 1)
    if not amp:
        assert torch.equal(prediction, network(image_of(size), **inputs))
