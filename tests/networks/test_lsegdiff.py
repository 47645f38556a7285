"""LSegDiff: a variational autoencoder of labels, and a denoiser that leaves it as it is."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from ldseg_monai.diffusion import EvenlySpacedScheduler
from ldseg_monai.diffusion.draws import Draws
from ldseg_monai.networks import (
    BatchStandardization,
    LabelDecoder,
    LatentDenoiser,
    LSegDiff,
    ResidualEncoder,
    VariationalEncoder,
)
from ldseg_monai.networks.ldseg.lsegdiff import AUTOENCODER, DENOISER, require_first_stage
from ldseg_monai.training import LSegDiffLoss, ReconstructingInferer, SDSegLoss

NORM = ("group", {"num_groups": 4})


def network(stage: int, **changes: object) -> LSegDiff:
    torch.manual_seed(0)
    parts = {
        "label_encoder": VariationalEncoder(2, 3, 2, channels=(8, 16), norm=NORM),
        "standardization": BatchStandardization(channels=2),
        "image_encoder": ResidualEncoder(2, 1, 4, (8, 16), norm=NORM),
        "denoiser": LatentDenoiser(2, 2, 4, (8,), attention_levels=[False], norm=NORM),
        "label_decoder": LabelDecoder(2, 2, 3, (8, 16), norm=NORM),
        "scheduler": EvenlySpacedScheduler(prediction_type="sample", timestep_spacing="trailing"),
    }
    return LSegDiff(stage, **{**parts, **changes})


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 1, 16, 16, generator=generator),
        torch.randint(0, 3, (2, 1, 16, 16), generator=generator),
    )


def state_of(model: LSegDiff, parts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if name.startswith(parts)
    }


def train(model: LSegDiff, steps: int = 3) -> list[float]:
    """A training as a bundle's: every parameter is in the optimizer, which decays weights."""
    image, label = pair()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    loss, losses = LSegDiffLoss(), []
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model(image, label), label)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The parts in which something differs by a bit."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_first_stage_trains_the_autoencoder_alone() -> None:
    model = network(1)
    before = state_of(model, (*AUTOENCODER, *DENOISER))
    losses = train(model, 8)
    assert losses[-1] < losses[0]
    assert changed(before, state_of(model, (*AUTOENCODER, *DENOISER))) == set(AUTOENCODER)


def test_second_stage_leaves_the_autoencoder_as_it_is_to_the_bit() -> None:
    model = network(2)
    before = state_of(model, (*AUTOENCODER, *DENOISER))
    train(model)
    assert changed(before, state_of(model, (*AUTOENCODER, *DENOISER))) == set(DENOISER)


def test_loss_of_the_first_stage_is_that_of_a_variational_autoencoder() -> None:
    model = network(1).eval()
    image, label = pair()
    noise = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    draws = Draws(
        torch.zeros(2, dtype=torch.long), noise, torch.ones(2), torch.zeros(2, dtype=torch.bool)
    )
    output = model(image, label, draws)
    classes = functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    mean, log_variance = model.label_encoder.posterior(classes)
    posterior = Normal(mean, (log_variance / 2).exp())
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(output["divergence"], divergence)
    latent = model.standardization(mean + noise * posterior.scale)
    torch.testing.assert_close(output["logits"], model.label_decoder(latent))
    plain = LSegDiffLoss(divergence_weight=0)(output, label)
    torch.testing.assert_close(
        LSegDiffLoss(divergence_weight=0.5)(output, label), plain + 0.5 * divergence
    )


def test_loss_of_the_second_stage_is_the_latents_squared_error() -> None:
    model = network(2).eval()
    image, label = pair()
    output = model(image, label)
    torch.testing.assert_close(output["target"], model.encode_label(label))
    error = (output["prediction"] - output["target"]).square().mean()
    torch.testing.assert_close(LSegDiffLoss()(output, label), error)


def test_one_step_loss_is_of_the_noise_and_of_the_latent_that_it_stands_for() -> None:
    schedule = {"schedule": "quadratic", "beta_start": 0.00085, "beta_end": 0.012}
    model = network(2, scheduler=EvenlySpacedScheduler(**schedule)).eval()
    image, label = pair()
    draws = model.training_draws(image)
    output = model(image, label, draws)
    clean = model.encode_label(label)
    share = model.scheduler.alphas_cumprod[draws.timesteps].reshape(-1, 1, 1, 1)
    noisy = share.sqrt() * clean + (1 - share).sqrt() * draws.noise
    estimate = (noisy - (1 - share).sqrt() * output["prediction"]) / share.sqrt()
    noise_error = (output["prediction"] - draws.noise).abs().mean()
    latent_error = (estimate - clean).abs().mean()
    for weight in (0.0, 1.0, 3.0):
        torch.testing.assert_close(
            SDSegLoss(weight)(output, label), noise_error + weight * latent_error
        )
    with pytest.raises(ValueError, match="latent_weight is -1: expected 0 or more"):
        SDSegLoss(-1)
    with pytest.raises(ValueError, match="returned divergence, logits: expected an LSegDiff"):
        SDSegLoss()(network(1)(image, label), label)


def test_label_is_encoded_by_its_mean_and_reconstructed_from_it() -> None:
    model = network(1).eval()
    image, label = pair()
    logits = ReconstructingInferer(amp=False)(image, model, label=label)
    torch.testing.assert_close(logits, model.label_decoder(model.encode_label(label)))


def test_it_samples_and_scripts_as_ldseg_does() -> None:
    model = network(2).eval()
    image, _ = pair()
    with torch.no_grad():
        logits = model(image)
        assert logits.shape == (2, 3, 16, 16)
        torch.testing.assert_close(torch.jit.script(model)(image), logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": 3}, "stage is 3: expected 1, the autoencoder, or 2, the denoiser"),
        (
            {"label_encoder": ResidualEncoder(2, 3, 2, (8, 16), norm=NORM)},
            "label_encoder is a ResidualEncoder: expected a VariationalEncoder",
        ),
        (
            {"label_decoder": LabelDecoder(2, 2, 3, (8, 16), norm=NORM, image_channels=(8, 16))},
            "label_decoder has image_channels: expected none",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**{"stage": 1, **changes})


def test_second_stage_asks_for_the_first_ones_weights() -> None:
    with pytest.raises(ValueError, match=r"expected the model.pt of stage 1, whose autoencoder"):
        require_first_stage("")
    require_first_stage("runs/lsegdiff_1/model.pt")


def test_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="divergence_weight is -1: expected 0 or more"):
        LSegDiffLoss(divergence_weight=-1)
