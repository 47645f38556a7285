from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.engines.utils import IterationEvents
from monai.losses import DiceCELoss
from monai.transforms import Compose
from small_networks import tiny_cdal, tiny_discriminator
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ldseg_monai.data.draws import SeededCacheDataset, SeededSampler
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.networks.cdal.network import CDAL
from ldseg_monai.training.average import UpdateAverage, average_weights
from ldseg_monai.training.cdal_trainer import CDALTrainer
from ldseg_monai.training.handlers import GradientClipping, Reseed
from ldseg_monai.training.inferers import CDALTrainingInferer
from ldseg_monai.training.losses import CDALLoss, gradient_penalty, non_saturating_loss
from ldseg_monai.training.resume import ResumableCheckpoint

SIZES = [(16, 12), (8, 12, 6)]
each_size = pytest.mark.parametrize("size", SIZES)

generator = partial(tiny_cdal, in_channels=1, num_train_timesteps=2)


class Stub(nn.Module):
    """A linear discriminator of x_{t-1}, and an attention map that is the same everywhere."""

    def __init__(self, numbers: int, attention: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(numbers, 1)
        self.attention = attention
        self.pairs: list[tuple[torch.Tensor, ...]] = []

    def forward(
        self, previous: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        self.pairs.append((previous.detach(), noisy, timesteps))
        return self.linear(previous.flatten(1))

    def attention_map(
        self, previous: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        return torch.full_like(previous[:, :1], self.attention)


class Recorder(CDALTrainingInferer):
    """Keeps what the generator is called with."""

    def __init__(self) -> None:
        super().__init__(amp=False)
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, inputs: torch.Tensor, network: Callable, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        output = super().__call__(inputs, network, *args, **kwargs)
        if isinstance(getattr(network, "module", network), CDAL):
            self.calls.append(
                {**kwargs, "gradients": torch.is_grad_enabled(), "output": output.detach()}
            )
        return output


def batches(
    size: tuple[int, ...], number: int = 2, batch: int = 2
) -> list[dict[str, torch.Tensor]]:
    """Images whose brightness says the class."""
    drawn = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (number, batch, 1, *(side // 2 for side in size)), generator=drawn)
    for axis in range(3, labels.ndim):
        labels = labels.repeat_interleave(2, dim=axis)
    return [{"image": label - 1.0, "label": label} for label in labels]


def trainer(
    network: nn.Module,
    judge: nn.Module | None,
    data: Any,
    lr: float = 1e-3,
    discriminator_lr: float = 1e-3,
    max_epochs: int = 1,
    **arguments: Any,
) -> CDALTrainer:
    return CDALTrainer(
        discriminator=judge,
        discriminator_optimizer=judge
        and torch.optim.Adam(judge.parameters(), discriminator_lr, betas=(0.5, 0.9)),
        **{
            "device": "cpu",
            "max_epochs": max_epochs,
            "train_data_loader": data,
            "network": network,
            "optimizer": torch.optim.Adam(network.parameters(), lr, betas=(0.5, 0.9)),
            "loss_function": CDALLoss(),
            "inferer": CDALTrainingInferer(amp=False),
            "decollate": False,
            **arguments,
        },
    )


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def gradients(network: nn.Module) -> torch.Tensor | None:
    found = [parameter.grad for parameter in network.parameters()]
    return (
        None if found[0] is None else torch.cat([gradient.flatten().clone() for gradient in found])
    )


# Losses


def test_generators_loss_is_the_mean_square() -> None:
    prediction, clean = torch.randn(2, 2, 3, 5, 4)
    expected = sum(
        (a - b) ** 2
        for a, b in zip(prediction.flatten().tolist(), clean.flatten().tolist(), strict=True)
    )
    assert CDALLoss()(prediction, clean).item() == pytest.approx(expected / 120, rel=1e-5)
    assert CDALLoss()(clean, clean).item() == 0


@each_size
def test_generators_loss_may_add_dice_and_cross_entropy_of_the_probabilities(
    size: tuple[int, ...],
) -> None:
    label = torch.randint(3, (2, 1, *size))
    clean = generator(len(size)).encode_label(label)
    prediction = (clean + 0.5 * torch.randn(clean.shape)).requires_grad_()
    probability = ((prediction + 1) / 2).clamp(min=1e-3)
    probability = probability / probability.sum(dim=1, keepdim=True)
    dice_and_cross_entropy = DiceCELoss(to_onehot_y=True, softmax=True)(probability.log(), label)
    loss = CDALLoss(segmentation_weight=0.7)(prediction, clean)
    torch.testing.assert_close(loss, CDALLoss()(prediction, clean) + 0.7 * dice_and_cross_entropy)
    loss.backward()
    assert prediction.grad is not None and prediction.grad.isfinite().all()
    assert CDALLoss(segmentation_weight=1.0)(clean, clean).item() == pytest.approx(0, abs=0.01)


def test_negative_weight_of_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="segmentation_weight is -1: expected 0 or more"):
        CDALLoss(-1)


def test_discriminators_loss_is_the_cross_entropy_of_true_and_false() -> None:
    real, fake = torch.randn(2, 6, 1)
    cross_entropy = functional.binary_cross_entropy_with_logits
    expected = cross_entropy(real, torch.ones(6, 1)) + cross_entropy(fake, torch.zeros(6, 1))
    torch.testing.assert_close(non_saturating_loss(real, fake), expected)
    assert non_saturating_loss(torch.full([1, 1], 200.0), torch.full([1, 1], -200.0)).item() == 0


@each_size
def test_gradient_penalty_of_a_linear_discriminator_is_half_its_squared_weight(
    size: tuple[int, ...],
) -> None:
    real = torch.randn(4, 3, *size, requires_grad=True)
    linear = nn.Linear(real[0].numel(), 1)
    penalty = gradient_penalty(linear(real.flatten(1)), real)
    assert penalty.item() == pytest.approx(linear.weight.square().sum().item() / 2, rel=1e-4)
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, linear.weight.detach())


# Steps


def spread_labels(size: tuple[int, ...], batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """True labels in [-1, 1], which are the same along the last axis, and others that are not."""
    columns = torch.randint(2, (batch, 3, *size[:-1], 1)).float().expand(-1, -1, *size) * 2 - 1
    return columns, torch.randint(2, (batch, 3, *size)).float() * 2 - 1


@each_size
def test_discriminator_learns_to_tell_true_labels_from_others(size: tuple[int, ...]) -> None:
    judge = tiny_discriminator(len(size)).train()
    optimizer = torch.optim.Adam(judge.parameters(), 3e-3, betas=(0.5, 0.9))
    losses = []
    for _ in range(40):
        real, fake = spread_labels(size, 8)
        noisy, timesteps = torch.randn(real.shape), torch.zeros(8, dtype=torch.long)
        real.requires_grad_()
        real_logits = judge(real, noisy, timesteps)
        loss = non_saturating_loss(real_logits, judge(fake, noisy, timesteps))
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + gradient_penalty(real_logits, real)).backward()
        optimizer.step()
    assert sum(losses[:3]) / 3 > 1.2  # 2 log 2 at chance
    assert sum(losses[-3:]) / 3 < 0.5


@each_size
@pytest.mark.parametrize("penalty_interval", [1, 10])
def test_each_step_leaves_the_other_network_alone(
    size: tuple[int, ...], penalty_interval: int
) -> None:
    network, judge = generator(len(size)), tiny_discriminator(len(size))
    engine = trainer(network, judge, batches(size), penalty_interval=penalty_interval)
    seen: dict[str, list[torch.Tensor | None]] = {}

    def look(place: str) -> None:
        seen[place] = [weights(network), weights(judge), gradients(network), gradients(judge)]

    engine.add_event_handler(Events.ITERATION_STARTED, lambda: look("start"))
    engine.add_event_handler(IterationEvents.LOSS_COMPLETED, lambda: look("between"))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: look("end"))
    engine.run()
    start, between, end = seen["start"], seen["between"], seen["end"]
    assert (
        torch.equal(start[0], between[0]) and not between[2].any()
    )  # the discriminator's step is done
    assert not torch.equal(start[1], between[1])
    assert torch.equal(between[1], end[1]) and torch.equal(between[3], end[3])
    assert not torch.equal(between[0], end[0])


@pytest.mark.parametrize(
    ("interval", "expected"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6]), (10, [])]
)
def test_gradient_penalty_comes_every_nth_iteration_with_its_weight(
    interval: int, expected: list[int]
) -> None:
    judge = Stub(3 * 16 * 12)
    before, steps = judge.linear.weight.detach().clone(), []
    network = generator(num_train_timesteps=1, beta_max=0.2)
    engine = trainer(
        network,
        judge,
        batches((16, 12), 7),
        lr=0.0,
        penalty_interval=interval,
        penalty_weight=3.0,
        inferer=Recorder(),
    )
    engine.discriminator_optimizer = torch.optim.SGD(judge.parameters(), lr=1.0)
    engine.discriminator_optimizer.step = lambda: None  # gradients without steps

    @engine.on(Events.ITERATION_COMPLETED)
    def check() -> None:
        previous = judge.pairs[-1][0].flatten(1)
        logits = judge.linear(previous).detach()
        of_real, of_fake = (-torch.sigmoid(-logits[:2]) / 2, torch.sigmoid(logits[2:]) / 2)
        by_hand = torch.cat([of_real, of_fake]).T @ previous
        if "gradient_penalty" in engine.state.output:
            steps.append(engine.state.iteration)
            assert engine.state.output["gradient_penalty"].item() == pytest.approx(
                before.square().sum().item() / 2
            )
            by_hand = by_hand + 3.0 * before
        torch.testing.assert_close(judge.linear.weight.grad, by_hand, rtol=1e-4, atol=1e-5)
        assert engine.state.output["discriminator_loss"].item() == pytest.approx(
            non_saturating_loss(logits[:2], logits[2:]).item(), rel=1e-4
        )

    engine.run()
    assert steps == expected


def test_penalized_pass_of_the_discriminator_is_in_float32() -> None:
    judge = tiny_discriminator()
    engine = trainer(
        generator(),
        judge,
        batches((16, 12), 4),
        penalty_interval=2,
        inferer=CDALTrainingInferer(True),
    )
    passes: list[torch.dtype] = []
    judge.to_logit.register_forward_hook(lambda module, inputs, output: passes.append(output.dtype))
    engine.run()
    assert passes == [torch.bfloat16, torch.float32] * 2


def test_no_weight_is_no_gradient_penalty() -> None:
    engine = trainer(
        generator(), tiny_discriminator(), batches((16, 12)), penalty_weight=0.0, penalty_interval=1
    )
    engine.run()
    assert "gradient_penalty" not in engine.state.output


@each_size
@pytest.mark.parametrize("attention", [0.5, 1.0, -2.0])
def test_generator_learns_from_the_attended_label_noised_as_the_plain_one(
    size: tuple[int, ...], attention: float
) -> None:
    network, inferer = generator(len(size), num_train_timesteps=4, beta_max=1.0), Recorder()
    judge, (batch,) = Stub(3 * torch.Size(size).numel(), attention), batches(size, 1, batch=6)
    trainer(network, judge, [batch], inferer=inferer).run()
    first, second = inferer.calls
    assert [call["gradients"] for call in inferer.calls] == [False, True]
    for same in ("timesteps", "latent"):
        assert torch.equal(first[same], second[same])
    clean = network.encode_label(batch["label"])
    assert len(first["timesteps"].unique()) > 1
    abar = network.scheduler.alphas_cumprod[first["timesteps"]].reshape(6, *[1] * (1 + len(size)))
    expected = abar.sqrt() * clean * (attention - 1)
    torch.testing.assert_close(
        second["noisy_label"] - first["noisy_label"], expected, rtol=0, atol=1e-5
    )
    noise = (first["noisy_label"] - abar.sqrt() * clean) / (1 - abar).sqrt()
    assert noise.std().item() == pytest.approx(1, abs=0.05) and abs(noise.mean().item()) < 0.05


@each_size
def test_discriminator_gets_the_true_and_the_predicted_label_one_step_back(
    size: tuple[int, ...],
) -> None:
    network, inferer = generator(len(size), num_train_timesteps=2), Recorder()
    judge, (batch,) = Stub(3 * torch.Size(size).numel()), batches(size, 1, batch=8)
    trainer(network, judge, [batch], inferer=inferer).run()
    predicted, clean = inferer.calls[0]["output"], network.encode_label(batch["label"])
    previous, noisy, timesteps = ([*part.chunk(2)] for part in judge.pairs[0])
    for part in (noisy, timesteps):
        assert torch.equal(*part)
    assert torch.equal(noisy[0], inferer.calls[0]["noisy_label"])
    assert torch.equal(timesteps[0], inferer.calls[0]["timesteps"])
    for estimate, own in zip((clean, predicted), previous, strict=True):
        mean, variance = network.scheduler.posterior(estimate, noisy[0], timesteps[0])
        last = timesteps[0] == 0
        assert last.any() and not last.all()
        torch.testing.assert_close(own[last], estimate[last])
        draws = ((own - mean) / variance.sqrt())[~last]
        assert draws.std().item() == pytest.approx(1, abs=0.1) and abs(draws.mean().item()) < 0.1


@each_size
def test_pairs_of_algorithm_1_have_one_noise(size: tuple[int, ...]) -> None:
    network, inferer = generator(len(size), num_train_timesteps=2), Recorder()
    judge, (batch,) = Stub(3 * torch.Size(size).numel()), batches(size, 1, batch=8)
    trainer(network, judge, [batch], inferer=inferer, pairs="same_noise").run()
    predicted, clean = inferer.calls[0]["output"], network.encode_label(batch["label"])
    previous, noisy, timesteps = ([*part.chunk(2)] for part in judge.pairs[0])
    abar = network.scheduler.alphas_cumprod
    shape = [-1] + [1] * (clean.ndim - 1)
    now = abar[timesteps[0]].reshape(shape)
    noise = (noisy[0] - now.sqrt() * clean) / (1 - now).sqrt()
    first = timesteps[0] == 0
    assert first.any() and not first.all()
    for estimate, own in zip((clean, predicted), previous, strict=True):
        assert torch.equal(own[first], estimate[first])  # q(x_0, 0) is x_0
        one_back = (abar[0].sqrt() * estimate + (1 - abar[0]).sqrt() * noise)[~first]
        torch.testing.assert_close(own[~first], one_back, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("penalty_interval", [1, 10])
def test_two_steps_of_the_discriminator_are_one_on_each_kind(penalty_interval: int) -> None:
    judge, (batch,) = Stub(3 * 16 * 12), batches((16, 12), 1)
    engine = trainer(
        generator(), judge, [batch], penalty_interval=penalty_interval, discriminator_steps=2
    )
    before = copy.deepcopy(judge.linear)
    engine.discriminator_optimizer = torch.optim.SGD(judge.parameters(), lr=0.1)
    engine.run()
    real, fake = (pair[0].flatten(1) for pair in judge.pairs)  # two passes, the true pairs first
    by_hand = torch.optim.SGD(before.parameters(), lr=0.1)
    told = []
    for kind, sign in ((real, -1), (fake, 1)):
        loss = functional.softplus(sign * before(kind)).mean()
        told.append(loss.item())
        if sign < 0 and penalty_interval == 1:
            loss = loss + before.weight.square().sum() / 2  # R1 of a linear discriminator
        by_hand.zero_grad()
        loss.backward()
        by_hand.step()
    torch.testing.assert_close(judge.linear.weight, before.weight)
    torch.testing.assert_close(judge.linear.bias, before.bias)
    assert engine.state.output["discriminator_loss"].item() == pytest.approx(sum(told))


def attention_of(engine: CDALTrainer, inferer: Recorder, clean: torch.Tensor) -> torch.Tensor:
    """The attention map that the generator's two calls of one iteration tell of."""
    first, second = inferer.calls
    abar = engine.network.scheduler.alphas_cumprod[first["timesteps"]].reshape(
        -1, *[1] * (clean.ndim - 1)
    )
    attention = 1 + (second["noisy_label"] - first["noisy_label"]) / (abar.sqrt() * clean)
    torch.testing.assert_close(
        attention, attention[:, :1].expand_as(clean), rtol=0, atol=1e-4
    )  # the same for all
    return attention[:, 0]


@each_size
def test_attention_is_the_updated_discriminators_map_of_the_true_pair(
    size: tuple[int, ...],
) -> None:
    network, judge, inferer = (
        generator(len(size), beta_max=0.2),
        tiny_discriminator(len(size)),
        Recorder(),
    )
    (batch,) = batches(size, 1)
    pairs: list[torch.Tensor] = []
    judge.register_forward_pre_hook(
        lambda module, inputs: pairs.extend(part.chunk(2)[0] for part in inputs)
    )
    engine = trainer(network, judge, [batch], inferer=inferer)
    engine.run()
    attention = attention_of(engine, inferer, network.encode_label(batch["label"]))
    with torch.no_grad():
        torch.testing.assert_close(attention, judge.attention_map(*pairs)[:, 0], rtol=0, atol=1e-4)


@each_size
def test_normalized_attention_is_from_0_to_1_in_each_sample(size: tuple[int, ...]) -> None:
    maps = []
    for normalize in (False, True):
        network, judge, inferer = (
            generator(len(size), beta_max=0.2),
            tiny_discriminator(len(size)),
            Recorder(),
        )
        (batch,) = batches(size, 1)
        torch.manual_seed(4)
        engine = trainer(network, judge, [batch], inferer=inferer, normalize_attention=normalize)
        engine.run()
        maps.append(attention_of(engine, inferer, network.encode_label(batch["label"])).flatten(1))
    raw, normalized = maps
    low, high = raw.amin(1, keepdim=True), raw.amax(1, keepdim=True)
    torch.testing.assert_close(normalized, (raw - low) / (high - low), rtol=0, atol=2e-3)


def test_without_a_discriminator_the_plain_label_is_noised() -> None:
    calls = []
    for judge in (None, Stub(3 * 16 * 12, attention=1.0)):
        network, inferer = generator(), Recorder()
        torch.manual_seed(4)
        engine = trainer(network, judge, batches((16, 12), 1), inferer=inferer)
        engine.run()
        assert ("discriminator_loss" in engine.state.output) == (judge is not None)
        calls.append((inferer.calls, weights(network)))
    (alone, first), (beside, second) = calls
    assert len(alone) == 1 and len(beside) == 2
    assert torch.equal(alone[0]["noisy_label"], beside[1]["noisy_label"])
    assert torch.equal(first, second)  # an attention of 1 is none


@each_size
@pytest.mark.parametrize("stochastic", [True, False])
def test_rolled_out_label_is_made_of_the_networks_own_estimate_as_sampling_does(
    size: tuple[int, ...], stochastic: bool
) -> None:
    network = generator(len(size), num_train_timesteps=3, beta_max=2.0, stochastic=stochastic)
    inferer = Recorder()
    (batch,) = batches(size, 1, batch=12)
    trainer(network, None, [batch], inferer=inferer, rollout_share=1.0).run()
    before, last = inferer.calls
    assert [before["gradients"], last["gradients"]] == [False, True]
    own = last["timesteps"] < 2
    assert own.any() and not own.all()
    assert torch.equal(before["timesteps"], last["timesteps"][own] + 1)
    assert not torch.isin(before["latent"], last["latent"]).any()
    mean, variance = network.scheduler.posterior(
        before["output"], before["noisy_label"], before["timesteps"]
    )
    of_own = (last["noisy_label"][own] - mean) / variance.sqrt()
    clean, abar = network.encode_label(batch["label"]), network.scheduler.alphas_cumprod
    of_others = (last["noisy_label"] - abar[2].sqrt() * clean)[~own] / (1 - abar[2]).sqrt()
    level = abar[before["timesteps"]].reshape(-1, *[1] * (1 + len(size)))
    of_before = (before["noisy_label"] - level.sqrt() * clean[own]) / (1 - level).sqrt()
    if not stochastic:
        torch.testing.assert_close(of_own, torch.zeros_like(of_own), rtol=0, atol=1e-4)
    for noise in (of_others, of_before, *([of_own] if stochastic else [])):
        assert noise.std().item() == pytest.approx(1, abs=0.1) and abs(noise.mean().item()) < 0.1


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_share_of_the_samples_is_rolled_out(share: float) -> None:
    network, inferer = generator(), Recorder()
    trainer(
        network, None, batches((16, 12), 40, batch=8), lr=0.0, inferer=inferer, rollout_share=share
    ).run()
    rolled_out = sum(len(call["timesteps"]) for call in inferer.calls if not call["gradients"])
    first_steps = sum(
        int((call["timesteps"] == 0).sum()) for call in inferer.calls if call["gradients"]
    )
    assert rolled_out / first_steps == pytest.approx(share, abs=0.1 if share else 0)


@pytest.mark.parametrize("latent_size", [0, 5])
@pytest.mark.parametrize("attends", [False, True])
def test_attention_and_latent_may_each_be_left_out(latent_size: int, attends: bool) -> None:
    network = generator(latent_size=latent_size)
    before = weights(network)
    trainer(network, tiny_discriminator() if attends else None, batches((16, 12))).run()
    assert not torch.equal(weights(network), before)


# Runs


def foreground_dice(network: CDAL, batch: dict[str, torch.Tensor]) -> float:
    output = SamplingInferer(2, amp=False)(batch["image"], network.eval())
    predicted = output[:, :3].argmax(dim=1, keepdim=True)
    scores = []
    for index in (1, 2):
        mask, truth = predicted == index, batch["label"] == index
        scores.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    return sum(scores).item() / 2


@each_size
@pytest.mark.parametrize("attends", [True, False])
def test_one_tiny_case_is_learned_by_heart(size: tuple[int, ...], attends: bool) -> None:
    network, judge = generator(len(size)), tiny_discriminator(len(size)) if attends else None
    batch, steps = batches(size, 1)[0], 50
    average = average_weights(network, steps)
    before, losses = foreground_dice(network, batch), []
    engine = trainer(
        network, judge, [batch] * steps, lr=5e-3, train_handlers=[UpdateAverage(average, network)]
    )
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: losses.append(engine.state.output["loss"].item())
    )
    torch.manual_seed(0)
    engine.run()
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])
    assert before < 0.8 and foreground_dice(average.module, batch) > 0.97


def test_training_in_bfloat16_learns_too() -> None:
    network, judge = generator(), tiny_discriminator()
    engine = trainer(
        network, judge, batches((16, 12), 1) * 40, lr=5e-3, inferer=CDALTrainingInferer()
    )
    losses: list[float] = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: losses.append(engine.state.output["loss"].item())
    )
    torch.manual_seed(0)
    engine.run()
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])
    assert weights(network).isfinite().all() and weights(judge).isfinite().all()


def resumable(path: Path, max_epochs: int) -> dict[str, nn.Module]:
    """Train for some epochs of three iterations, from the checkpoint if there is one."""
    network, judge = generator(), tiny_discriminator()
    cases = [{"image": f"case_{number}"} for number in range(6)]
    drawn = batches((16, 12), 1, batch=6)[0]
    items = [{key: value[index] for key, value in drawn.items()} for index in range(6)]
    dataset = SeededCacheDataset(items, Compose([]), progress=False)
    sampler = SeededSampler(dataset, 6)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler)
    average = average_weights(network, 6)
    engine = trainer(network, judge, loader, max_epochs=max_epochs, penalty_interval=2)
    objects = {
        "network": network,
        "average": average,
        "discriminator": judge,
        "optimizer": engine.optimizer,
        "discriminator_optimizer": engine.discriminator_optimizer,
    }
    for handler in (
        Reseed(0, sampler),
        GradientClipping(network, 1.0),
        UpdateAverage(average, network),
        ResumableCheckpoint(str(path), objects, cases),
    ):
        handler.attach(engine)
    torch.manual_seed(max_epochs)  # what a resumed process happens to be at
    engine.run()
    assert engine.state.iteration == 3 * max_epochs
    return {"network": network, "average": average, "discriminator": judge}


def test_resumed_run_ends_at_the_same_weights_bit_by_bit(tmp_path: Path) -> None:
    whole = resumable(tmp_path / "whole.pt", 2)
    half = resumable(tmp_path / "parts.pt", 1)
    parts = resumable(tmp_path / "parts.pt", 2)
    for name, network in whole.items():
        assert torch.equal(weights(parts[name]), weights(network)), name
        assert not torch.equal(weights(half[name]), weights(network)), name


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("size", SIZES)
def test_wrapped_networks_train_to_the_same_weights(
    size: tuple[int, ...], process_group: None
) -> None:
    results = []
    for wrap in (lambda network: network, DistributedDataParallel):
        network, judge = generator(len(size)), tiny_discriminator(len(size))
        torch.manual_seed(5)
        trainer(wrap(network), wrap(judge), batches(size, 4), penalty_interval=2).run()
        results.append((weights(network), weights(judge)))
    for plain, wrapped in zip(*results, strict=True):
        torch.testing.assert_close(wrapped, plain, rtol=0, atol=1e-6)


def test_output_and_events_are_those_of_monais_trainer() -> None:
    network, judge, batch = generator(), tiny_discriminator(), batches((16, 12), 1)[0]
    fired: list[str] = []
    engine = trainer(network, judge, [{key: MetaTensor(value) for key, value in batch.items()}])
    for event in IterationEvents:
        engine.add_event_handler(event, lambda engine, name=event.name: fired.append(name))
    engine.run()
    assert fired == ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"]
    output = engine.state.output
    assert set(output) == {"image", "label", "pred", "loss", "discriminator_loss"}
    assert torch.equal(output["image"], batch["image"]) and torch.equal(
        output["label"], batch["label"]
    )
    expected = functional.mse_loss(output["pred"], network.encode_label(batch["label"]))
    torch.testing.assert_close(output["loss"], expected)
    assert label_logits(output["pred"]).shape == (2, 3, 16, 12)
    assert all(type(value) is torch.Tensor for value in output.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"discriminator_optimizer": None},
            "got one of discriminator and discriminator_optimizer: expected both",
        ),
        (
            {"discriminator": None},
            "got one of discriminator and discriminator_optimizer: expected both",
        ),
        ({"pairs": "posteriors"}, "pairs is 'posteriors': expected posterior or same_noise"),
        ({"discriminator_steps": 3}, "discriminator_steps is 3: expected 1 or 2"),
        ({"penalty_weight": -1.0}, "penalty_weight is -1.0: expected 0 or more"),
        ({"penalty_interval": 0}, "penalty_interval is 0: expected 1 or more"),
        ({"amp": True}, "amp is the inferer's here: expected CDALTrainingInferer"),
        ({"accumulation_steps": 2}, "accumulation_steps is 2: expected 1; raise the batch size"),
    ],
)
def test_what_cannot_be_or_would_be_ignored_is_refused(arguments: dict, message: str) -> None:
    network, judge = generator(), tiny_discriminator()
    complete = {
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": [],
        "network": network,
        "optimizer": torch.optim.SGD(network.parameters()),
        "loss_function": CDALLoss(),
        "discriminator": judge,
        "discriminator_optimizer": torch.optim.SGD(judge.parameters()),
    }
    with pytest.raises(ValueError, match=message):
        CDALTrainer(**{**complete, **arguments})


def test_label_of_unknown_classes_stops_the_run_before_any_step() -> None:
    network, judge, batch = generator(), tiny_discriminator(), batches((16, 12), 1)[0]
    before = weights(network), weights(judge)
    with pytest.raises(ValueError, match="label has classes 0 to 7: expected 0 to 2"):
        trainer(
            network,
            judge,
            [{**batch, "label": torch.where(batch["label"] == 2, 7, batch["label"])}],
        ).run()
    assert torch.equal(weights(network), before[0]) and torch.equal(weights(judge), before[1])
