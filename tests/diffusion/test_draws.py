from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ldseg_monai.diffusion import draws
from ldseg_monai.diffusion.draws import (
    AdversarialDraws,
    draw_adversarial_step,
    draw_per_sample,
    draw_training_step,
)

SHAPE = [2, 4, 3]


def training(batch: int, **arguments: Any) -> list[torch.Tensor]:
    return list(draw_training_step(batch, SHAPE, 1000, **arguments))


def adversarial(batch: int) -> list[torch.Tensor]:
    *own, rollout = draw_adversarial_step(batch, SHAPE, 5, 4, rollout=True)
    assert rollout is not None
    return [*own, *rollout]


each_step = pytest.mark.parametrize("draw", [training, adversarial])
Draw = Callable[..., list[torch.Tensor]]


def test_training_step_has_a_timestep_noise_and_a_chance_for_each_sample() -> None:
    torch.manual_seed(0)
    timesteps, noise, chance, rollout = draw_training_step(5000, SHAPE, 7)
    assert timesteps.shape == chance.shape == (5000,) and noise.shape == (5000, *SHAPE)
    assert timesteps.dtype == torch.int64 and timesteps.unique().tolist() == list(range(7))
    shares = timesteps.bincount() / 5000
    torch.testing.assert_close(shares, torch.full([7], 1 / 7), rtol=0, atol=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert chance.min() >= 0 and chance.max() < 1 and not rollout.any()
    tenths = (10 * chance).long().bincount() / 5000
    torch.testing.assert_close(tenths, torch.full([10], 0.1), rtol=0, atol=0.03)


def test_nothing_is_drawn_for_a_chance_that_is_not_wanted() -> None:
    with_chance, without = [], []
    for numbers, chance in ((with_chance, True), (without, False)):
        torch.manual_seed(0)
        numbers += [*training(3, chance=chance), torch.randint(2**31, [])]
    assert all(torch.equal(*both) for both in zip(with_chance[:2], without[:2], strict=True))
    assert torch.equal(without[2], torch.ones(3))  # no share leaves such a sample out
    assert not torch.equal(with_chance[-1], without[-1])


def test_share_at_pure_noise_changes_no_other_number() -> None:
    steps = []
    for share in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        steps.append(training(400, pure_noise_share=share))
    for step in steps[1:]:
        assert torch.equal(step[1], steps[0][1]) and torch.equal(step[2], steps[0][2])
    uniform, half, last = (step[0] for step in steps)
    assert (last == 999).all()
    assert torch.equal(half[half != 999], uniform[half != 999])
    assert (half == 999).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_adversarial_step_has_numbers_of_its_own_for_every_place_they_go_to() -> None:
    torch.manual_seed(0)
    step = draw_adversarial_step(6, SHAPE, latent_size=5, num_timesteps=4, rollout=True)
    own = step.rollout
    assert own is not None
    assert step.timesteps.shape == own.chance.shape == (6,)
    assert 0 <= step.timesteps.min() and step.timesteps.max() < 4
    assert step.latent.shape == own.latent.shape == (6, 5)
    fields = [step.noise, step.noise_of_true, step.noise_of_predicted, own.noise, own.fresh]
    assert all(field.shape == (6, *SHAPE) for field in fields)
    correlation = torch.corrcoef(torch.stack([field.flatten() for field in fields]))
    assert (correlation - torch.eye(5)).abs().max() < 0.3
    assert not torch.isin(step.latent, own.latent).any()


def test_rollout_is_drawn_after_everything_else_and_only_where_wanted() -> None:
    steps = []
    for rollout in (False, True):
        torch.manual_seed(0)
        steps.append(draw_adversarial_step(3, SHAPE, 5, 4, rollout))
    without, wanted = steps
    assert without.rollout is None and wanted.rollout is not None
    for name in AdversarialDraws._fields[:-1]:
        assert torch.equal(getattr(without, name), getattr(wanted, name))


@pytest.mark.parametrize("rollout", [False, True])
def test_adversarial_step_goes_to_a_device_as_a_whole(rollout: bool) -> None:
    step = draw_adversarial_step(2, SHAPE, 5, 4, rollout).to(torch.device("meta"))
    *own, of_rollout = step
    tensors = [*own, *(of_rollout or [])]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert len(tensors) == (9 if rollout else 5)


@each_step
def test_numbers_follow_from_the_global_random_state(draw: Draw) -> None:
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append([draw(2), draw(2)])
    first, again, other = runs
    for step, same in zip(first, again, strict=True):
        assert all(torch.equal(*both) for both in zip(step, same, strict=True))
    assert not torch.equal(first[0][1], first[1][1])
    assert not torch.equal(first[0][1], other[0][1])


@each_step
def test_sample_gets_the_same_numbers_in_a_batch_of_any_size(draw: Draw) -> None:
    steps = []
    for batch in (2, 5):
        torch.manual_seed(3)
        steps.append(draw(batch))
    for few, many in zip(*steps, strict=True):
        assert torch.equal(few, many[:2])


@each_step
@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_draw_what_one_with_their_whole_batch_would(
    monkeypatch: pytest.MonkeyPatch, world_size: int, draw: Draw
) -> None:
    torch.manual_seed(3)
    whole = draw(2 * world_size)
    for rank in range(world_size):
        monkeypatch.setattr(draws, "rank_and_world_size", lambda rank=rank: (rank, world_size))
        torch.manual_seed(3)  # the same in every process
        for own, everything in zip(draw(2), whole, strict=True):
            assert torch.equal(own, everything[rank::world_size])


def test_each_kind_of_numbers_takes_one_of_the_global_state() -> None:
    torch.manual_seed(3)
    first = draw_per_sample(4, lambda generator: torch.rand([], generator=generator))
    second = draw_per_sample(4, lambda generator: torch.rand([], generator=generator))
    torch.manual_seed(3)
    seeds = [int(torch.randint(2**31, [])) for _ in range(2)]
    for numbers, seed in zip((first, second), seeds, strict=True):
        for place, number in enumerate(numbers):
            generator = torch.Generator().manual_seed(seed + place)
            assert torch.equal(number, torch.rand([], generator=generator))
