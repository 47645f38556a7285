from __future__ import annotations

import pytest
import torch

from ldseg_monai.diffusion.noise import Noise, seeded_noise


@pytest.mark.parametrize("shape", [[1, 5, 7], [4, 2, 3, 5]])
@pytest.mark.parametrize(("num_samples", "num_draws"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_shape_is_draws_samples_latent(shape: list[int], num_samples: int, num_draws: int) -> None:
    noise = seeded_noise(shape, 0, num_samples, num_draws)
    assert list(noise.shape) == [num_draws, num_samples, *shape]
    assert noise.dtype == torch.float32 and noise.device.type == "cpu"


def test_same_seed_gives_same_numbers_and_another_seed_others() -> None:
    assert torch.equal(seeded_noise([1, 4, 4], 5, 2, 2), seeded_noise([1, 4, 4], 5, 2, 2))
    assert not torch.isclose(seeded_noise([1, 4, 4], 5), seeded_noise([1, 4, 4], 6)).any()


@pytest.mark.parametrize("num_draws", [1, 3])
def test_sample_does_not_depend_on_how_many_are_drawn(num_draws: int) -> None:
    few, many = seeded_noise([2, 3, 5], 1, 2, num_draws), seeded_noise([2, 3, 5], 1, 6, num_draws)
    assert torch.equal(few, many[:, :2])


@pytest.mark.parametrize("num_draws", [1, 3])
def test_one_sample_alone_may_be_the_mean_and_several_are_drawn(num_draws: int) -> None:
    alone = seeded_noise([2, 3, 5], 1, 1, num_draws, at_mean=True)
    assert alone.shape == (num_draws, 1, 2, 3, 5) and not alone.any()
    drawn = seeded_noise([2, 3, 5], 1, 4, num_draws)
    assert torch.equal(seeded_noise([2, 3, 5], 1, 4, num_draws, at_mean=True), drawn)


def test_samples_and_draws_differ() -> None:
    fields = seeded_noise([1, 4, 4], 0, num_samples=3, num_draws=3).flatten(0, 1).flatten(1)
    assert len({tuple(field.tolist()) for field in fields}) == 9
    correlation = torch.corrcoef(seeded_noise([1, 64, 64], 0, 3, 3).flatten(0, 1).flatten(1))
    assert (correlation - torch.eye(9)).abs().max() < 0.08


def test_numbers_are_standard_normal() -> None:
    values = seeded_noise([4, 64, 64], 0, 4, 2).flatten()
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    assert values.std().item() == pytest.approx(1, abs=0.01)
    assert (values.abs() > 1.96).float().mean().item() == pytest.approx(0.05, abs=0.003)


def test_numbers_of_a_seed_are_the_recorded_ones() -> None:
    expected = torch.tensor([-1.084522, -1.398595, 0.403347, 0.838026])
    torch.testing.assert_close(
        seeded_noise([1, 2, 2], 0, 2)[0, 1].flatten(), expected, rtol=0, atol=1e-4
    )


def test_global_random_state_is_neither_read_nor_changed() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = seeded_noise([1, 3, 3], 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(seeded_noise([1, 3, 3], 0), first)


def numbers_of(images: int, samples: int = 3) -> Noise:
    return Noise(torch.randn(2, images, samples, 1, 4, 5), torch.randn(4, images, samples, 6))


def test_numbers_of_one_image_stand_for_all() -> None:
    noise = numbers_of(images=1)
    field, latents = noise.of_images(3)
    assert field.shape == (2, 3, 3, 1, 4, 5) and latents.shape == (4, 3, 3, 6)
    for image in range(3):
        assert torch.equal(field[:, image], noise.field[:, 0])
        assert torch.equal(latents[:, image], noise.latents[:, 0])


def test_images_may_have_numbers_of_their_own() -> None:
    noise = numbers_of(images=3)
    field, latents = noise.of_images(3)
    assert torch.equal(field, noise.field) and torch.equal(latents, noise.latents)
    with pytest.raises(RuntimeError):
        noise.of_images(2)


def test_chosen_samples_keep_their_numbers() -> None:
    noise = numbers_of(images=2, samples=5)
    field, latents = noise.of_samples(slice(1, None, 2))
    assert torch.equal(field, noise.field[:, :, [1, 3]])
    assert torch.equal(latents, noise.latents[:, :, [1, 3]])
